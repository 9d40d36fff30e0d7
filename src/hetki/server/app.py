"""App: the way in under `/v1/` and the console under `/`, as one ASGI callable.

Every page but the sign-in needs a session, and every answer of the console carries the headers that keep
a browser from running, loading or telling anything that is not ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hetki.consent.source import admitted
from hetki.engine.engine import Engine, compile_program
from hetki.engine.project import Project
from hetki.engine.telling import titles
from hetki.errors import Forbidden, HetkiError
from hetki.measurement.outcome import measured
from hetki.server import accounts, console, identities, people, reviewing
from hetki.server.access import SESSION_S, Access
from hetki.server.acting import ACTIONS
from hetki.server.committer import Committer
from hetki.server.desk import Desk
from hetki.server.effects import Effects
from hetki.server.feed import Feed
from hetki.server.forms import COOKIE, Form, Handler, acting, name_of, session_of, token_of
from hetki.server.ingest import Ingest
from hetki.server.mine import HEADERS as SEALED
from hetki.server.mine import PREFIX as MINE
from hetki.server.mine import READS, WRITES, Mine, own_failure
from hetki.server.pages import ASSETS, Pages
from hetki.server.threads import start_threads
from hetki.store.shortage import SHORT, shortage

SIGN_IN, SIGN_OUT = "/sign-in", "/sign-out"
#: What a browser may open without a session.
OPEN = {SIGN_IN, *(f"/{name}" for name in ASSETS)}
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
        self._has_threads = False
        self.engine = engine
        self._parts = self._made(engine)

    def take_up(self, project: Project) -> None:
        """Serve other declarations from the next request on. Feeds end, and browsers begin them again."""
        self.engine.acceptor.take_up(project.sources, project.purposes)
        self.engine = replace(self.engine, project=project, program=compile_program(project))
        self._parts = self._made(self.engine)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if not self._has_threads:
            self._has_threads = True
            await start_threads()
        ingest, pages = self._parts
        is_ingest = scope["type"] == "http" and scope["path"].startswith("/v1/")
        await (ingest if is_ingest else pages)(scope, receive, send)

    def _made(self, engine: Engine) -> tuple[Ingest, ASGIApp]:
        project = engine.project
        ingest = Ingest(
            admitted(project.sources.values()), self._committer, engine.clock, project.settings.limits
        )

        def is_over() -> bool:
            return self._is_stopping() or self.engine is not engine

        return ingest, console_app(engine, self._access, is_over)


def console_app(engine: Engine, access: Access, is_stopping: Callable[[], bool] = lambda: False) -> ASGIApp:
    """The console alone. It reads the project's stores, and writes its own sessions and people's commands."""
    project = engine.project
    pages = Pages(project.settings.name, project.settings.time_zone)
    effects = Effects(engine.disk, engine.clock, [measured(each) for each in project.moments.values()])
    desk = Desk(engine, pages, effects, titles(project))

    def may_listen(request: Request) -> bool:
        return not is_stopping() and access.is_open(session_of(request))

    def desk_of(request: Request) -> Desk:
        """The desk with the pages of one browser."""
        spoken_for = pages.spoken_for(token_of(session_of(request)), name_of(request))
        return replace(desk, pages=spoken_for)

    def showing(handler: Callable[[Desk, Request], Response]) -> Callable[[Request], Response]:
        return lambda request: handler(desk_of(request), request)

    def fail(request: Request, error: Exception) -> Response:
        signed_in = access.is_open(session_of(request))
        pages = desk_of(request).pages
        known = error if isinstance(error, HetkiError) else shortage(error)
        if request.url.path.startswith(MINE):
            return own_failure(pages, known or error)
        if known is not None:
            return pages.error(known, signed_in)
        if isinstance(error, HTTPException):
            return pages.failure(error.status_code, [error.detail], signed_in)
        return pages.failure(500, ["The operator's log says more."], signed_in)

    actions: dict[str, Handler] = {**ACTIONS, SIGN_OUT: partial(_sign_out, access)}
    routes = [Route(path, showing(handler)) for path, handler in PAGES.items()]
    routes += [Route(path, acting(each, desk_of), methods=["POST"]) for path, each in actions.items()]
    routes += [
        Route("/feed", Feed(desk, may_listen), methods=["GET"]),
        Route(SIGN_IN, partial(_sign_in, access, pages)),
        *(Route(f"/{name}", partial(_asset, pages, name)) for name in ASSETS),
    ]
    mine = Mine(desk)
    routes += [Route(path, mine.reading(*each)) for path, each in READS.items()]
    routes += [Route(path, mine.acting(*each), methods=["POST"]) for path, each in WRITES.items()]
    handlers = dict.fromkeys((HetkiError, HTTPException, *SHORT, Exception), fail)
    return Guard(Starlette(routes=routes, exception_handlers=handlers), access)


class Guard:
    """Lets in who has a session, or a link to a page of their own; puts the headers on every answer."""

    def __init__(self, inner: ASGIApp, access: Access) -> None:
        self.inner = inner
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return

        is_own = scope["path"].startswith(MINE)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SEALED if is_own else {})
                for name, text in HEADERS.items():
                    headers.setdefault(name, text)
            await send(message)

        if is_own or scope["path"] in OPEN or self._access.is_open(session_of(Request(scope))):
            await self.inner(scope, receive, guarded)
        else:
            await RedirectResponse(SIGN_IN, 303)(scope, receive, guarded)


def _sign_in(access: Access, pages: Pages, request: Request) -> Response:
    """Exchange the token in the address, once; a look ahead (HEAD) does not use it up."""
    token = request.query_params.get("token", "")
    if not token or request.method != "GET":
        if access.is_open(session_of(request)):
            return RedirectResponse("/", 303)
        return pages.page("sign_in", signed_in=False, refused="")
    try:
        session = access.sign_in(token)
    except Forbidden as error:
        return pages.page("sign_in", 401, signed_in=False, refused=str(error))
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        COOKIE,
        session,
        max_age=SESSION_S,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


def _sign_out(access: Access, desk: Desk, request: Request, form: Form) -> Response:
    access.sign_out(session_of(request))
    answer = RedirectResponse(SIGN_IN, 303)
    answer.delete_cookie(
        COOKIE, path="/", secure=request.url.scheme == "https", httponly=True, samesite="strict"
    )
    return answer


def _asset(pages: Pages, name: str, request: Request) -> Response:
    return pages.asset(name)
