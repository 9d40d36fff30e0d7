"""Reviewing: the pairs of records that wait for a person, and one pair side by side. Reads only."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from hetki.dialogues.joining import status_words
from hetki.engine.folding import read_event
from hetki.errors import Fault, NotFound
from hetki.errors import shown as quoted
from hetki.events.event import IDENTIFIED, Event
from hetki.events.fields import json_object
from hetki.identity.identifier import NodeId, as_leaf
from hetki.identity.joining import Judged, unique_in_both
from hetki.server.desk import ROWS, Desk, Turning, leaf_in, page_of
from hetki.server.evidence import shown
from hetki.server.waterfall import waterfall_svg
from hetki.store.identity_views import Named
from hetki.store.views import Views

#: Of a record that was told again and again, the newest so many are looked at for what it says now.
TELLINGS_MAX = 50
FIELDS_MAX = 60
PRIOR = "prior"
#: The kinds of links that answers make.
ANSWERED = frozenset({"merge", "cannot"})


class Pair(msgspec.Struct, frozen=True):
    """Two records that wait for a person, in one line."""

    link_id: str
    a: Named | None
    b: Named | None
    weight: float
    rule: str
    linked_at: int
    unsure_at: int | None


class Record(msgspec.Struct, frozen=True):
    """One of two records: whose it is now, by what name, and when it was told; `fields` is what it says."""

    named: Named
    customer: str
    customer_name: str
    source: str
    told_at: int | None
    fields: dict[str, object]


class Field(msgspec.Struct, frozen=True):
    """One field of both records; `bits` is its part of the weight, if linkage compared it by that name."""

    name: str
    a: object
    b: object
    is_equal: bool
    bits: float | None


def review(desk: Desk, request: Request) -> Response:
    """The queue, strongest first."""
    turning = Turning(page_of(request), ROWS, False, request.url.path)
    with desk.views() as views:
        waiting = views.identities.review(ROWS + 1, turning.n_skipped)
        n_waiting, n_unsure = views.identities.n_review()
        known = views.identities.nodes(node for each in waiting for node in each.ends)
        names = views.identities.names(each.customer for each in known.values())
    return desk.pages.page(
        "review",
        pairs=[_pair(each, known) for each in waiting[:ROWS]],
        names=names,
        n_waiting=n_waiting,
        n_unsure=n_unsure,
        is_answered=request.query_params.get("answered") == "1",
        turning=msgspec.structs.replace(turning, has_more=len(waiting) > ROWS),
    )


def _pair(each: Judged, known: dict[NodeId, Named]) -> Pair:
    link = each.link
    a, b = (known.get(node) for node in each.ends)
    return Pair(link.link_id.hex(), a, b, link.weight, link.rule, link.linked_at, each.unsure_at)


def review_pair(desk: Desk, request: Request) -> Response:
    """Two records side by side, how their fields add up, and a form for the answer."""
    with desk.views() as views:
        asked = link_of(views, request.path_params["link"])
        known = views.identities.nodes(asked.ends)
        if len(known) < 2:
            must = "a link between two identifiers that are known"
            raise NotFound(Fault("review", quoted(request.path_params["link"]), must))
        a, b = (_record(desk, views, known[node]) for node in asked.ends)
        n_waiting, _ = views.identities.n_review()
        pair = [each for each in views.identities.links_of_pair(*asked.ends) if each.link.kind in ANSWERED]
        answers = shown(views, [each for each in pair if each.revoked_at is None])
        members = views.state.members([known[node].customer for node in asked.ends])
    told = {name: bits for name, bits in asked.link.told if name != PRIOR}
    weight = asked.link.weight
    return desk.pages.page(
        "review_pair",
        link=asked.link,
        link_id=asked.link.link_id.hex(),
        is_waiting=asked.refusal == "needs_review" and asked.revoked_at is None,
        is_one=a.customer == b.customer,
        answers=answers,
        unique=unique_in_both(desk.engine.project.identity, *(each.values() for each in members.values()))
        if len(members) == 2
        else [],
        standing=status_words(asked),
        unsure_at=asked.unsure_at,
        a=a,
        b=b,
        fields=fields_of(a.fields, b.fields, told),
        picture=waterfall_svg(asked.link.told, weight),
        likely_share=1 / (1 + 2**-weight) if abs(weight) < 64 else float(weight > 0),
        n_waiting=n_waiting,
        is_answered=request.query_params.get("answered") == "1",
    )


def link_of(views: Views, text: str) -> Judged:
    """The link of an id in an address. Raises `NotFound`."""
    link_id = leaf_in(text)
    found = views.identities.link(bytes(link_id)) if link_id else None
    if found is None:
        raise NotFound(Fault("link", quoted(text), "the id of a link", "open the list again"))
    return found


def _record(desk: Desk, views: Views, named: Named) -> Record:
    """What was last told of a record, by the events of its leaf that can still be read."""
    leaf = as_leaf(named.node)
    places = sorted(views.state.history([leaf]).get(leaf, []))[-TELLINGS_MAX:]
    with desk.journal() as journal:
        read = [read_event(stored) for stored in journal.entries(places)]
    told = [event for event in read if event is not None and event.name == IDENTIFIED]
    newest: Event | None = max(told, key=lambda event: event.order_key, default=None)
    source = newest.source if newest else ""
    return Record(
        named,
        named.customer.hex(),
        views.identities.names([named.customer]).get(named.customer, ""),
        desk.titles.sources.get(source, source),
        newest.occurred_at if newest else None,
        json_object(newest.properties) if newest else {},
    )


def fields_of(a: dict[str, object], b: dict[str, object], told: dict[str, float]) -> list[Field]:
    """The fields of two records, those that linkage compared first. Case and spaces do not differ."""
    names = [*(name for name in told if name in a or name in b)]
    names += sorted({*a, *b} - {*names})
    return [
        Field(
            name, a.get(name), b.get(name), _plain(a.get(name)) == _plain(b.get(name)) != "", told.get(name)
        )
        for name in names[:FIELDS_MAX]
    ]


def _plain(given: object) -> str:
    text = given if isinstance(given, str) else "" if given is None else msgspec.json.encode(given).decode()
    return " ".join(text.lower().split())
