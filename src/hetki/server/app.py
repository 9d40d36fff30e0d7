"""App: the way in under `/v1/` and the console under `/`, as one ASGI callable.

`Guard` lets in who has signed in with a role that is enough (`roles.py`), and every answer of the console
carries the headers that keep a browser from running, loading or telling anything that is not ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hetki.consent.source import admitted
from hetki.engine.engine import Engine, compile_program
from hetki.engine.project import Project
from hetki.engine.telling import titles
from hetki.errors import HetkiError
from hetki.measurement.outcome import measured
from hetki.server import accounts, console, identities, openapi, people, reviewing
from hetki.server.access import Access
from hetki.server.acting import ACTIONS
from hetki.server.committer import Committer
from hetki.server.desk import Desk
from hetki.server.effects import Effects
from hetki.server.feed import Feed
from hetki.server.forms import Handler, acting
from hetki.server.ingest import Ingest
from hetki.server.mine import HEADERS as SEALED
from hetki.server.mine import PREFIX as MINE
from hetki.server.mine import READS, WRITES, Mine, own_failure
from hetki.server.pages import ASSETS, RETRY_AFTER_S, Pages
from hetki.server.rates import Rates
from hetki.server.roles import LEAST, is_enough, unlisted
from hetki.server.signing import SIGN_IN, SIGN_OUT, Signing
from hetki.server.site import Site
from hetki.server.threads import start_threads
from hetki.server.visit import Visit, begin_visit, visit_of
from hetki.store.shortage import SHORT, shortage

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With "no-referrer" a browser would not say of our own forms that they are ours.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
#: Made beforehand, for when there is no memory to make anything.
NOT_NOW = Response(
    "Not available just now. Try again in a moment.\n", 503, {"retry-after": str(RETRY_AFTER_S)}, "text/plain"
)
PAGES = {
    "/": console.live,
    "/customers": people.customers,
    "/customers/{customer}": people.customer,
    "/accounts/{account}": accounts.account,
    "/customers/{customer}/identities": identities.identities,
    "/customers/{customer}/why": identities.why_one,
    "/review": reviewing.review,
    "/review/{link}": reviewing.review_pair,
    "/moments": console.moments,
    "/moments/{name}": console.moment,
    "/decisions/{decision_id}": console.decision,
    "/rejected": console.rejected,
    "/outbox": console.outbox,
}


class Served:
    """Everything that a project serves. `committer` is started and stopped by the caller.

    Feeds end within a second once `is_stopping` says so; a server that waits for its connections needs it.
    """

    def __init__(
        self,
        engine: Engine,
        committer: Committer,
        access: Access,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._committer = committer
        self._access = access
        self._is_stopping = is_stopping
        self._rates = Rates(engine.project.server)
        self._has_threads = False
        self.engine = engine
        self._parts = self._made(engine)

    def take_up(self, project: Project) -> None:
        """Serve other declarations from the next request on. Feeds end, and browsers begin them again."""
        self.engine.acceptor.take_up(project.sources, project.purposes)
        self.engine = replace(self.engine, project=project, program=compile_program(project))
        self._rates.take_up(project.server)
        self._parts = self._made(self.engine)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if not self._has_threads:
            self._has_threads = True
            try:
                await start_threads()
            except RuntimeError:  # whoever needs one is told, and the next request tries again
                self._has_threads = False
        ingest, pages = self._parts
        is_ingest = scope["type"] == "http" and scope["path"].startswith("/v1/")
        await (ingest if is_ingest else pages)(scope, receive, send)

    def _made(self, engine: Engine) -> tuple[Ingest, ASGIApp]:
        project = engine.project
        ingest = Ingest(
            admitted(project.sources.values()),
            self._committer,
            engine.clock,
            project.settings.limits,
            self._rates,
            Site(project.server),
        )

        def is_over() -> bool:
            return self._is_stopping() or self.engine is not engine

        return ingest, console_app(engine, self._access, is_over, self._rates)


def console_app(
    engine: Engine,
    access: Access,
    is_stopping: Callable[[], bool] = lambda: False,
    rates: Rates | None = None,
) -> ASGIApp:
    """The console alone. It reads the project's stores, and writes its own sessions and what people enter."""
    project = engine.project
    pages = Pages(project.settings.name, project.settings.time_zone)
    effects = Effects(engine.disk, engine.clock, [measured(each) for each in project.moments.values()])
    desk = Desk(engine, pages, effects, titles(project))

    def may_listen(request: Request) -> bool:
        return not is_stopping() and access.who(visit_of(request).session) is not None

    def desk_of(request: Request) -> Desk:
        """The desk with the pages of one browser."""
        return replace(desk, pages=pages.read_by(visit_of(request)))

    def showing(handler: Callable[[Desk, Request], Response]) -> Callable[[Request], Response]:
        return lambda request: handler(desk_of(request), request)

    def fail(request: Request, error: Exception) -> Response:
        pages = desk_of(request).pages
        known = error if isinstance(error, HetkiError) else shortage(error)
        if request.url.path.startswith(MINE):
            return own_failure(pages, known or error)
        if known is not None:
            return pages.error(known)
        if isinstance(error, HTTPException):
            return pages.failure(error.status_code, [error.detail])
        return pages.failure(500, ["The operator's log says more."])

    rates = rates or Rates(project.server)
    signing = Signing(access, pages, rates)
    actions: dict[str, Handler] = {**ACTIONS, SIGN_OUT: signing.leave}
    routes = [Route(path, showing(handler)) for path, handler in PAGES.items()]
    routes += [Route(path, acting(each, desk_of), methods=["POST"]) for path, each in actions.items()]
    routes += [
        Route("/feed", Feed(desk, may_listen), methods=["GET"]),
        Route(SIGN_IN, signing.look),
        Route(SIGN_IN, signing.enter, methods=["POST"]),
        Route(openapi.PATH, partial(_described, openapi.document(project.settings.limits))),
        *(Route(f"/{name}", partial(_asset, pages, name)) for name in ASSETS),
    ]
    site = Site(project.server)
    mine = Mine(desk, site, rates)
    routes += [Route(path, mine.reading(*each)) for path, each in READS.items()]
    routes += [Route(path, mine.acting(*each), methods=["POST"]) for path, each in WRITES.items()]
    handlers = dict.fromkeys((HetkiError, HTTPException, *SHORT, Exception), fail)
    inner = Starlette(routes=routes, exception_handlers=handlers)
    inner.router.redirect_slashes = False  # it would send on to whatever `Host` says, by plain HTTP
    return Guard(inner, routes, access, pages, site)


class Guard:
    """Lets in who has signed in with a role that is enough, or has a link to a page of their own; puts the
    headers on every answer."""

    def __init__(
        self, inner: ASGIApp, routes: Sequence[Route], access: Access, pages: Pages, site: Site
    ) -> None:
        assert not unlisted(each.path for each in routes), "somebody has to say who may open a route"
        self.inner = inner
        self._routes = routes
        self._access = access
        self._pages = pages
        self._site = site
        self._headers = {**HEADERS, **site.headers}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return

        is_own = scope["path"].startswith(MINE)
        has_started = False

        async def guarded(message: Message) -> None:
            nonlocal has_started
            has_started = True
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SEALED if is_own else {})
                for name, text in self._headers.items():
                    headers.setdefault(name, text)
            await send(message)

        try:
            await self._admitted(scope, is_own)(scope, receive, guarded)
        except Exception as error:  # also of whoever would have told it
            if has_started or shortage(error) is None:
                raise
            await NOT_NOW(scope, receive, guarded)

    def _admitted(self, scope: Scope, is_own: bool) -> ASGIApp:
        """What answers a request: the console, or a refusal."""
        try:
            visit = begin_visit(scope, self._access, self._site)
        except HetkiError as error:  # who it is cannot be looked up just now
            return self._pages.error(error)
        least = [LEAST[each.path] for each in self._routes if each.matches(scope)[0] is not Match.NONE]
        if all(is_enough(visit.role, each) for each in least or [None if is_own else "viewer"]):
            return self.inner
        if visit.visitor is None:
            return RedirectResponse(SIGN_IN, 303)
        return _not_enough(self._pages.read_by(visit), visit)


def _not_enough(pages: Pages, visit: Visit) -> Response:
    line = (
        f"You have signed in as {visit.role}, and this asks for more. Whoever runs Hetki here can change it."
    )
    return pages.failure(403, [line])


def _asset(pages: Pages, name: str, request: Request) -> Response:
    return pages.asset(name)


def _described(document: bytes, request: Request) -> Response:
    return Response(document, media_type="application/json")
