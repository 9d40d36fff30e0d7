"""Places: entries of the journal by where they lie: found without a key, and overwritten for ever (law 8)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from hetki.consent.retention import bounds_of
from hetki.events.event import EventId, LeafId
from hetki.store.journal import FRAME, Journal, Kind, Row
from hetki.store.secrets import Kept

#: Where an entry lies: the position of its row, and its frame's byte in it.
Place = tuple[int, int]


class Framed(NamedTuple):
    """What can be read of an entry without its key: where it lies, what it is, and whose."""

    position: int
    frame_offset: int
    received_at: int
    kind: Kind
    leaf: LeafId
    event_id: EventId
    period: int


def framed_under(journal: Journal, periods: Iterable[Kept]) -> Iterator[Framed]:
    """The entries that were sealed under periods, in order, whether they can still be read or not."""
    by_month: dict[str, set[int]] = {}
    for each in periods:
        by_month.setdefault(each.month, set()).add(each.period)
    for month, numbers in sorted(by_month.items()):
        for position in journal.positions(*bounds_of(month)):
            for row in journal.rows(position - 1, position):
                yield from (each for each in _framed(row) if each.period in numbers)


def framed_at(journal: Journal, places: Iterable[Place]) -> Iterator[Framed]:
    """The entries at places, whether they can still be read or not."""
    for row, offsets in _rows_at(journal, places):
        yield from (each for each in _framed(row) if each.frame_offset in offsets)


def removed_after(journal: Journal, number: int) -> list[Framed]:
    """The entries that have expired, or were overwritten, after a number of changes."""
    expired = framed_under(journal, journal.secrets.expired_after(number))
    return [*expired, *framed_at(journal, journal.secrets.removed_after(number))]


def left_without(journal: Journal, places: Collection[Place]) -> list[tuple[int, str]]:
    """The rows of places by position, each with the SHA-256 (hex) of the body that is left once the entries
    there are overwritten."""
    rows = _rows_at(journal, places)
    return [(row.position, hashlib.sha256(_emptied(row, offsets)).hexdigest()) for row, offsets in rows]


def overwrite(journal: Journal, places: Collection[Place]) -> None:
    """Overwrite what is sealed at places with zeros, durably; what lies around it stays. A repeat changes
    nothing."""
    changed = ((row, _emptied(row, offsets)) for row, offsets in _rows_at(journal, places))
    journal.replace((row.position, body) for row, body in changed if body != row.body)


def _rows_at(journal: Journal, places: Iterable[Place]) -> Iterator[tuple[Row, set[int]]]:
    by_row: dict[int, set[int]] = {}
    for position, frame_offset in places:
        by_row.setdefault(position, set()).add(frame_offset)
    for position, offsets in sorted(by_row.items()):
        for row in journal.rows(position - 1, position):
            yield row, offsets


def _emptied(row: Row, offsets: Iterable[int]) -> bytes:
    body = bytearray(row.body)
    for frame_offset in offsets:
        start = frame_offset + FRAME.size
        n_bytes = FRAME.unpack_from(body, frame_offset)[4]
        body[start : start + n_bytes] = bytes(n_bytes)
    return bytes(body)


def _framed(row: Row) -> Iterator[Framed]:
    frame_offset = 0
    while frame_offset < len(row.body):
        kind, period, leaf, event_id, n_bytes = FRAME.unpack_from(row.body, frame_offset)
        yield Framed(row.position, frame_offset, row.received_at, Kind(kind), leaf, event_id, period)
        frame_offset += FRAME.size + n_bytes
