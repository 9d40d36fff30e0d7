"""Evidence: links as rows of a page: their ends by name, reasons in words, the events they came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from hetki.dialogues.joining import LINK_WORDS, LOOK_WORDS, basis_words, reason_words
from hetki.engine.folding import read_event
from hetki.events.event import EventId
from hetki.identity.joining import Judged
from hetki.server.desk import Desk
from hetki.store.identity_views import Named, best_known
from hetki.store.views import Views

#: Links that a person's or the linkage's command made: no event is their cause.
BY_COMMAND = frozenset({"merge", "cannot", "probable", "possible"})


class Cause(msgspec.Struct, frozen=True):
    """The event that a link came from."""

    name: str
    source: str
    channel: str
    occurred_at: int
    message_id: str


class Shown(msgspec.Struct, frozen=True):
    """A link as pages show it; `number` is its place in the table and in the picture, from 1.

    `status` says what became of it and `reason` why it joins nothing; `basis` is its rule, its weight and who
    said it.
    """

    number: int
    link_id: str
    a: Named | None
    b: Named | None
    kind: str
    words: str
    basis: str
    linked_at: int
    look: str
    status: str
    reason: str
    revoked_at: int | None
    revoked_by: str
    cause: Cause | None


def shown(
    views: Views, links: Sequence[Judged], causes: Mapping[bytes, Cause] | None = None, start: int = 1
) -> list[Shown]:
    """Links in words, in the order given, numbered from `start`."""
    known = views.identities.nodes(node for each in links for node in each.ends)
    found = causes or {}
    rows = []
    for number, each in enumerate(links, start):
        a, b = sorted((known.get(node) for node in each.ends), key=_order)
        rows.append(
            Shown(
                number,
                each.link.link_id.hex(),
                a,
                b,
                each.link.kind,
                LINK_WORDS[each.link.kind],
                basis_words(each),
                each.link.linked_at,
                each.look,
                LOOK_WORDS[each.look],
                reason_words(each),
                each.revoked_at,
                each.revoked_by,
                found.get(each.link.cause),
            )
        )
    return rows


def _order(named: Named | None) -> tuple[int, str]:
    """Ends of a link in the order in which people know a customer by them."""
    return (99, "") if named is None else (best_known(named.namespace), named.value)


def causes_of(desk: Desk, views: Views, links: Iterable[Judged]) -> dict[bytes, Cause]:
    """The events that links came from, by id; those that were erased, and commands, are left out."""
    ids = [EventId(each.link.cause) for each in links if each.link.kind not in BY_COMMAND]
    places = views.state.places_of(ids)
    known = list(places)
    sources = desk.titles.sources
    found: dict[bytes, Cause] = {}
    with desk.journal() as journal:
        entries = journal.entries([places[each] for each in known])
    for event_id, stored in zip(known, entries, strict=True):
        event = read_event(stored)
        if event is not None:
            source = sources.get(event.source, event.source)
            found[event_id] = Cause(event.name, source, event.channel, event.occurred_at, event.message_id)
    return found
