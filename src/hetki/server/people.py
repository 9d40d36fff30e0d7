"""People: finding a customer by an exact identifier, and telling a customer's story. Reads only."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from hetki.consent.statements import is_restricted, whole
from hetki.engine.folding import read_event
from hetki.engine.telling import history_of, known_traits, meant
from hetki.errors import Fault, NotFound, shown
from hetki.events.event import LeafId
from hetki.identity.identifier import NodeId, as_leaf
from hetki.identity.joining import strongest_first
from hetki.moments.fold import Fact, Folded, decode
from hetki.moments.present import dropped, in_segments
from hetki.server import evidence
from hetki.server.accounts import layers
from hetki.server.desk import Desk, Turning, entered_at, is_folded, leaf_in, page_of
from hetki.server.lines import lines, standing, story
from hetki.store.accounts import groups_of
from hetki.store.identity_views import Named
from hetki.store.views import Views

STORY_ROWS = 50
#: A story shows this much of a customer: the newest that was received.
EVENTS_MAX = 2_000
QUERY_CHARS_MAX = 512
#: Links that the customer's own page tells; the page of identities has all.
JOININGS = 12


def customers(desk: Desk, request: Request) -> Response:
    """The search: a user id, an e-mail address, a phone number, an anonymous id, or our own id."""
    asked = request.query_params.get("q", "").strip()[:QUERY_CHARS_MAX]
    with desk.views() as views:
        found = found_by(desk, views, asked) if asked else []
        if len({each.customer for each in found}) == 1:
            return RedirectResponse(f"/customers/{found[0].customer.hex()}", 303)
        names = views.identities.names(each.customer for each in found)
    return desk.pages.page("customers", asked=asked, found=found, names=names)


def found_by(desk: Desk, views: Views, asked: str) -> list[Named]:
    """The identifiers that a person may mean by a text, in any namespace; empty when there is none."""
    nodes = meant(desk.engine, asked)
    known = views.identities.nodes(nodes)
    return [known[node] for node in nodes if node in known]


def customer(desk: Desk, request: Request) -> Response:
    """One customer: what happened, who it is, what may be done, what was decided and sent."""
    with desk.views() as views:
        text = request.path_params["customer"]
        leaf = leaf_in(text)
        if leaf is not None and groups_of(views.db, [leaf]):
            return RedirectResponse(f"/accounts/{text}", 303)
        present = present_of(views, text)
        if present.hex() != text:
            return RedirectResponse(f"/customers/{present.hex()}", 303)
        return _customer(desk, views, present, request)


def present_of(views: Views, text: str) -> LeafId:
    """The present customer of an id in an address, which may be an older one. Raises `NotFound`."""
    leaf = leaf_in(text)
    present = views.state.customers_of([NodeId(leaf)]).get(NodeId(leaf)) if leaf else None
    if present is None:
        must = "a customer's id (32 hex digits)"
        raise NotFound(Fault("customer", shown(text), must, "search by an exact identifier"))
    return present


def _customer(desk: Desk, views: Views, customer: LeafId, request: Request) -> Response:
    project, now = desk.engine.project, desk.engine.clock.now()
    nodes = list(views.state.members([customer]).get(customer, {}))
    leaves = [as_leaf(node) for node in nodes]
    facts, n_events = facts_of(desk, views, leaves)
    handled = views.of_customer(customer, leaves, EVENTS_MAX)
    happened = lines(views, desk.titles, handled)
    told = story(facts, happened, views.messages_of(leaves, EVENTS_MAX), desk.titles)
    row = views.state.load_customers([customer]).get(customer)
    folded = decode(row.state) if row else Folded()
    turning = Turning(page_of(request), STORY_ROWS, False, request.url.path)
    rest = told[turning.n_skipped :]
    joinings = strongest_first(views.identities.links(nodes))
    position = entered_at(desk, request)
    return desk.pages.page(
        "customer",
        customer=customer.hex(),
        name=views.identities.names([customer]).get(customer, ""),
        identifiers=views.identities.of([customer]),
        joinings=evidence.shown(views, joinings[:JOININGS]),
        n_joinings=len(joinings),
        standing=standing(project.purposes, folded, now),
        spoken=history_of(desk.engine, views, facts)[::-1],
        is_restricted=is_restricted(whole(folded.statements)),
        is_waiting=position is not None and not is_folded(views, position),
        objectionable=[
            (name, each.title)
            for name, each in project.purposes.items()
            if each.basis == "consent" or each.may_be_objected_to
        ],
        segments=in_segments(desk.engine.program, folded, now),
        dropped=dropped(folded),
        layers=layers(desk, views, customer, leaves),
        sources=desk.titles.sources,
        traits=known_traits(desk.engine.program, folded, desk.titles),
        told=rest[:STORY_ROWS],
        n_told=len(told),
        n_events=n_events,
        n_events_max=EVENTS_MAX,
        n_moments=len(handled),
        turning=msgspec.structs.replace(turning, has_more=len(rest) > STORY_ROWS),
    )


def facts_of(desk: Desk, views: Views, leaves: Sequence[LeafId]) -> tuple[list[Fact], int]:
    """The newest events of leaves that can still be read, and how many there are in all."""
    places = sorted(place for mine in views.state.history(leaves).values() for place in mine)
    facts = []
    with desk.journal() as journal:
        entries = journal.entries(places[-EVENTS_MAX:])
    for stored in entries:
        event = read_event(stored)
        if event is not None:
            facts.append(Fact(event, stored.event_id, stored.leaf))
    return facts, len(places)
