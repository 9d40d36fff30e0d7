"""Identities: a customer's identifiers as a graph, the evidence of every link, why one and why not one.

Reads only; what may be done about it is in `acting`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from hetki.dialogues.joining import LOOK_WORDS, NOTHING, QUARANTINE_WORDS
from hetki.engine.telling import answer
from hetki.events.event import LeafId
from hetki.identity.identifier import NodeId
from hetki.identity.joining import LOOKS, Judged, strongest_first
from hetki.server.desk import Desk, Turning, entered_at, is_folded, leaf_in, page_of
from hetki.server.evidence import Shown, causes_of, shown
from hetki.server.graph import layout
from hetki.server.graph_svg import graph_svg, legend_svg
from hetki.server.people import QUERY_CHARS_MAX, found_by, present_of
from hetki.store.identity_views import LINKS_MAX, Named
from hetki.store.views import Views

LINKS_SHOWN = 50
#: Identifiers that a form offers to ask about.
OFFERED_MAX = 60


class Pending(msgspec.Struct, frozen=True):
    """What was asked for by a command: `is_waiting` until the fold has come to it.

    Of an undo, `customers` are those whom the ends of the link belong to when it is done, by id and name
    (`was_apart`: it was a person's word that they are two); of a merge that was refused (`is_refused`) it is
    the other customer.
    """

    is_waiting: bool
    link_id: str = ""
    customers: list[tuple[str, str]] = []
    is_refused: bool = False
    was_apart: bool = False


class Told(msgspec.Struct, frozen=True):
    """Why two identifiers are one customer's, or not, as the page tells it."""

    ours: Named
    theirs: Named
    other_name: str
    is_one: bool
    path: list[Shown]
    apart: list[Shown]
    direct: list[Shown]
    by_way: list[list[Shown]]


def identities(desk: Desk, request: Request) -> Response:
    """The graph of one customer, every link with its evidence, and what may be done about it."""
    with desk.views() as views:
        present = present_of(views, request.path_params["customer"])
        if present.hex() != request.path_params["customer"]:
            query = f"?{request.url.query}" if request.url.query else ""
            return RedirectResponse(f"/customers/{present.hex()}/identities{query}", 303)
        return _identities(desk, views, present, request)


def _identities(desk: Desk, views: Views, customer: LeafId, request: Request) -> Response:
    ours = views.state.members([customer]).get(customer, {})
    known = views.identities.of([customer])
    links = strongest_first(views.identities.links(ours))
    numbers = {each.link.link_id: number for number, each in enumerate(links, 1)}
    best = [each.node for each in known] or list(ours)
    drawn = layout([*best, *sorted(ours)], links)
    turning = Turning(page_of(request), LINKS_SHOWN, False, request.url.path)
    rest = links[turning.n_skipped :]
    named = views.identities.nodes(drawn.boxes)
    return desk.pages.page(
        "identities",
        customer=customer.hex(),
        name=known[0].value if known else "",
        n_identifiers=len(ours),
        n_links=len(links),
        is_cut=len(links) >= LINKS_MAX,
        picture=graph_svg(drawn, named, numbers, ours) if len(drawn.boxes) > 1 else Markup(""),
        n_drawn=len(drawn.boxes),
        n_left_out=drawn.n_left_out,
        legend=_legend(links),
        rows=shown(
            views,
            rest[:LINKS_SHOWN],
            causes_of(desk, views, rest[:LINKS_SHOWN]),
            turning.n_skipped + 1,
        ),
        offered=known[:OFFERED_MAX],
        set_apart=[(each, _why_set_apart(each)) for each in known if each.quarantine or each.set_aside],
        pending=pending_of(desk, views, customer, request),
        turning=msgspec.structs.replace(turning, has_more=len(rest) > LINKS_SHOWN),
    )


def _why_set_apart(each: Named) -> list[str]:
    """Why an identifier joins nobody, in words."""
    return [QUARANTINE_WORDS.get(why, why) for why in (each.quarantine, each.set_aside) if why]


def _legend(links: Sequence[Judged]) -> list[tuple[Markup, str]]:
    """The strokes that the picture uses, in words."""
    used = {each.look for each in links}
    return [(legend_svg(look), LOOK_WORDS[look]) for look in LOOKS if look in used]


def pending_of(desk: Desk, views: Views, customer: LeafId, request: Request) -> Pending | None:
    """What the address says was asked for: the journal's position of the command, its link or the other."""
    asked = request.query_params
    position = entered_at(desk, request)
    if position is None:
        return None
    if not is_folded(views, position):
        return Pending(True)
    link_id, other = leaf_in(asked.get("link", "")), leaf_in(asked.get("other", ""))
    link = views.identities.link(bytes(link_id)) if link_id else None
    ends = link.ends if link else (NodeId(other),) if other else ()
    customers = sorted(set(views.state.customers_of(ends).values()))
    names = views.identities.names(customers)
    is_refused = link_id is None and customers not in ([], [customer])
    named = [(each.hex(), names.get(each, "")) for each in customers]
    was_apart = link is not None and link.link.kind == "cannot"
    return Pending(False, link_id.hex() if link_id else "", named, is_refused, was_apart)


def why_one(desk: Desk, request: Request) -> Response:
    """Why two identifiers are one customer's, or why they are not."""
    asked = request.query_params.get("other", "").strip()[:QUERY_CHARS_MAX]
    with desk.views() as views:
        present = present_of(views, request.path_params["customer"])
        known = views.identities.of([present])
        ours = known or list(views.identities.nodes([NodeId(bytes(present))]).values())
        of = next((each for each in ours if each.node.hex() == request.query_params.get("of")), ours[0])
        others = found_by(desk, views, asked) if asked else []
        answers = [_told(views, of, each) for each in others]
        return desk.pages.page(
            "why",
            customer=present.hex(),
            name=known[0].value if known else "",
            offered=known[:OFFERED_MAX],
            of=of,
            asked=asked,
            answers=answers,
            nothing=NOTHING,
        )


def _told(views: Views, of: Named, other: Named) -> Told:
    found = answer(views, of, other)
    return Told(
        of,
        other,
        views.identities.names([other.customer]).get(other.customer, other.value),
        found.is_one,
        shown(views, found.path),
        shown(views, found.apart),
        shown(views, found.direct),
        [shown(views, pair) for pair in found.by_way],
    )
