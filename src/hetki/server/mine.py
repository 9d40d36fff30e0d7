"""Mine: a customer's own page, opened by a link and by nothing else.

No session of the console helps, and no cookie is set: the token in the address is the credential, so nothing
that the page loads or leads to may learn the address. Forms carry a hash of the token, as another site could
send a form but not know it. What is asked for too often is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from hmac import compare_digest
from typing import Final

import msgspec
from anyio import from_thread
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from hetki.consent.record import Record
from hetki.consent.statements import GRANTED, WITHDRAWN, is_restricted, whole
from hetki.decisions.question import Decision
from hetki.dialogues.explaining import explain
from hetki.engine.engine import Engine, open_engine
from hetki.engine.erase import erase
from hetki.engine.export import export
from hetki.engine.rights import Entered, enter, leaves_of, objection, restriction
from hetki.engine.telling import history_of, known_traits
from hetki.errors import Fault, HetkiError, Invalid, Unavailable, shown
from hetki.events.event import OWN_SOURCE, LeafId
from hetki.identity.identifier import as_leaf
from hetki.moments.fold import Fact, decode
from hetki.server.desk import Desk, entered_at, is_folded
from hetki.server.forms import Form, read_form
from hetki.server.lines import Standing, standing
from hetki.server.pages import Pages
from hetki.server.people import EVENTS_MAX, facts_of
from hetki.server.rates import Rates
from hetki.server.site import Site
from hetki.server.status import Busy, retry_after, status_of
from hetki.server.visit import Visit, token_of
from hetki.store.pages import PageLinks
from hetki.store.views import Views

#: Where the own pages lie, and what every answer there carries: nobody learns the address from it.
PREFIX: Final = "/my/"
HEADERS: Final = {"referrer-policy": "no-referrer", "x-robots-tag": "noindex"}
BY_CUSTOMER: Final = "the customer, by their own link"
METHOD: Final = "own page"
DECISIONS_SHOWN: Final = 25
STATEMENTS_SHOWN: Final = 50
#: What a customer types so that nothing is erased by a slip.
CONFIRMED: Final = "erase"
GONE: Final = "This link is not known, or it has ended. Ask us for a new one."

Handler = Callable[[Desk, Request, "Opened", Form], Response]


class Opened(msgspec.Struct, frozen=True):
    """A link that was opened: whose page it is."""

    token: str
    customer: LeafId

    def __repr__(self) -> str:
        return "Opened(...)"


class Told(msgspec.Struct, frozen=True):
    """One decision, in words for the customer."""

    decided_at: int
    title: str
    lines: list[str]


class Mine:
    """The own pages of all customers of a project, each behind its link."""

    def __init__(self, desk: Desk, site: Site, rates: Rates) -> None:
        self._desk = desk
        self._site = site
        self._rates = rates

    def reading(self, handler: Handler, is_costly: bool = False) -> Callable[[Request], Response]:
        """A handler that only reads, behind the link."""

        def read(request: Request) -> Response:
            opened = self._opened(request, is_costly)
            desk = self._desk_of(opened)
            return handler(desk, request, opened, {})

        return read

    def acting(self, handler: Handler, is_costly: bool = False) -> Callable[[Request], Awaitable[Response]]:
        """A handler that writes, behind the link and the token of its form."""

        def act(request: Request, form: Form) -> Response:
            opened = self._opened(request, is_costly)
            if not compare_digest(form.get("token", "").encode(), token_of(opened.token).encode()):
                raise HTTPException(403, "This form was not made by this page. Open your link again.")
            return handler(self._desk_of(opened), request, opened, form)

        async def acted(request: Request) -> Response:
            return await run_in_threadpool(act, request, await read_form(request))

        return acted

    def _opened(self, request: Request, is_costly: bool) -> Opened:
        token, now = str(request.path_params["token"]), self._desk.engine.clock.now()
        with self._desk.views() as views:
            customer = PageLinks(views.db).opened(views.state, token, now)
        if customer is None:
            _count(partial(self._rates.miss, self._site.address(request.scope)))
            raise HTTPException(404, GONE)
        _count(partial(self._rates.look, token, is_costly))
        return Opened(token, customer)

    def _desk_of(self, opened: Opened) -> Desk:
        return replace(self._desk, pages=self._desk.pages.read_by(Visit(opened.token)))


def _count(take: Callable[[], None]) -> None:
    """Count one look, in the loop's own thread as all rates are; refused where it is too often."""
    busy = from_thread.run_sync(_refusal, take)
    if busy is not None:
        raise HTTPException(429, "Too often. Wait a minute.", retry_after(busy))


def _refusal(take: Callable[[], None]) -> Busy | None:
    """As a value: what a future raises is held by it in turn."""
    try:
        take()
    except Busy as busy:
        return busy
    return None


def own_failure(pages: Pages, error: Exception) -> Response:
    """What a customer reads where a page cannot be shown."""
    if isinstance(error, HTTPException):
        found = pages.page("mine_failure", error.status_code, lines=[error.detail])
        found.headers.update(error.headers or {})
        return found
    if isinstance(error, Unavailable):
        found = pages.page("mine_failure", status_of(error), lines=["Not just now. Try again in a moment."])
        found.headers.update(retry_after(error))
        return found
    if isinstance(error, HetkiError):
        lines = [f"{each.got} is not {each.must}." for each in error.faults]
        return pages.page("mine_failure", status_of(error), lines=lines)
    return pages.page("mine_failure", 500, lines=["Something went wrong with us. Try again later."])


def page(desk: Desk, request: Request, opened: Opened, form: Form) -> Response:
    """What is known of the customer, what may be done, and why what was decided was decided."""
    project, now = desk.engine.project, desk.engine.clock.now()
    with desk.views() as views:
        customer = opened.customer
        nodes = list(views.state.members([customer]).get(customer, {}))
        row = views.state.load_customers([customer]).get(customer)
        folded = decode(row.state) if row else None
        leaves = [as_leaf(node) for node in nodes]
        handled = views.of_customer(customer, leaves, DECISIONS_SHOWN)
        facts, n_events = facts_of(desk, views, leaves)
        entered = entered_at(desk, request)
        purposes = standing(project.purposes, folded, now) if folded else []
        return desk.pages.page(
            "mine",
            link=f"/my/{opened.token}",
            identifiers=views.identities.of([customer]),
            traits=known_traits(desk.engine.program, folded, desk.titles) if folded else [],
            purposes=purposes,
            may_be_granted=[each.purpose for each in purposes if _may_grant(desk, each)],
            objectionable=[each.title for each in project.purposes.values() if each.may_be_objected_to],
            is_restricted=folded is not None and is_restricted(whole(folded.statements)),
            said=_said(desk, views, facts)[::-1][:STATEMENTS_SHOWN],
            n_events=n_events,
            n_events_max=EVENTS_MAX,
            decisions=[_told(desk, each.decision) for each in handled if each.decision is not None],
            controller=project.controller,
            is_waiting=entered is not None and not is_folded(views, entered),
            is_entered=entered is not None,
            signed_in=False,
        )


def _said(desk: Desk, views: Views, facts: Sequence[Fact]) -> list[Record]:
    """What the customer said, in order; a word that was kept with each of their identifiers once."""
    once: dict[object, Record] = {}
    for each in history_of(desk.engine, views, facts):
        is_entered = each.source == OWN_SOURCE
        once[(each.event_time, each.said, each.purpose) if is_entered else each.record_id] = each
    return list(once.values())


def _may_grant(desk: Desk, standing: Standing) -> bool:
    """Whether this page may take a grant: not one that needs a notice, as it shows none."""
    return not standing.is_open and not desk.engine.project.purposes[standing.purpose].notices


def _told(desk: Desk, decision: Decision) -> Told:
    told = explain(decision, desk.titles)
    moment = decision.question.moment
    title = desk.titles.moments.get(moment, moment)
    return Told(decision.question.decided_at, title, told.to_customer)


def say(desk: Desk, request: Request, opened: Opened, form: Form) -> Response:
    """What the customer says about a purpose, or about all."""
    purposes, named = desk.engine.project.purposes, form.get("purpose", "")
    match form.get("what", ""):
        case "withdraw" | "grant" as what if named in purposes:
            if what == "grant" and purposes[named].notices:
                must = "a purpose without notices, as this page shows none"
                raise Invalid(Fault("purpose", shown(named), must))
            entered = Entered(GRANTED if what == "grant" else WITHDRAWN, {"purpose": named, "method": METHOD})
        case "object":
            entered = _own(objection(purposes, "", BY_CUSTOMER))
        case "restrict":
            entered = _own(restriction(BY_CUSTOMER))
        case other:
            raise Invalid(
                Fault("form", shown(other), "one of the page's own buttons", "open your link again")
            )
    with desk.views() as views:
        leaves = leaves_of(views, opened.customer)
    engine = desk.engine
    with desk.acceptor() as acceptor:
        position = enter(acceptor.accept, engine.clock, engine.chance, leaves, entered)
    return RedirectResponse(f"/my/{opened.token}?after={position}", 303)


def _own(entered: Entered) -> Entered:
    """The same as said by the customer, not by staff."""
    return msgspec.structs.replace(entered, properties={**entered.properties, "method": METHOD})


def download(desk: Desk, request: Request, opened: Opened, form: Form) -> Response:
    """Everything, as `hetki export` writes it."""
    with closing(_own_engine(desk)) as engine:
        archive = export(engine, opened.customer).archive
    headers = {"content-disposition": 'attachment; filename="my-data.zip"'}
    return Response(archive, media_type="application/zip", headers=headers)


def ask_erase(desk: Desk, request: Request, opened: Opened, form: Form) -> Response:
    """The page between the wish to be erased and the erasure."""
    return desk.pages.page(
        "mine_erase", link=f"/my/{opened.token}", word=CONFIRMED, signed_in=False, refused=""
    )


def do_erase(desk: Desk, request: Request, opened: Opened, form: Form) -> Response:
    """Erase the customer, once they have typed the word; as `hetki erase` does."""
    if form.get("word", "").strip().casefold() != CONFIRMED:
        refused = f"Type the word “{CONFIRMED}” to confirm. Nothing has been erased."
        link = f"/my/{opened.token}"
        return desk.pages.page("mine_erase", 400, link=link, word=CONFIRMED, signed_in=False, refused=refused)
    is_all = True
    with closing(_own_engine(desk)) as engine:
        try:
            erase(engine, opened.customer, BY_CUSTOMER)
        except Unavailable:
            with desk.views() as views:  # what is left to do, the worker does
                is_all = False
                if PageLinks(views.db).opened(views.state, opened.token, engine.clock.now()) is not None:
                    raise
    return desk.pages.page("mine_erased", is_all=is_all, signed_in=False)


def _own_engine(desk: Desk) -> Engine:
    """The project opened anew, for this request and its thread alone."""
    engine = desk.engine
    return open_engine(
        engine.project, engine.disk, engine.clock, engine.chance, engine.environment, is_beside=True
    )


#: What a link opens to be read, and what its forms send; those that cost much are asked for less often.
READS: Final[dict[str, tuple[Handler, bool]]] = {
    "/my/{token}": (page, False),
    "/my/{token}/erase": (ask_erase, False),
    "/my/{token}/data.zip": (download, True),
}
WRITES: Final[dict[str, tuple[Handler, bool]]] = {
    "/my/{token}/say": (say, False),
    "/my/{token}/erased": (do_erase, True),
}
