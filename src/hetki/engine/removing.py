"""Removing: a range of time, of all customers, overwritten in the journal, as after a leak (law 8).

What was sealed is overwritten with zeros where it lies, and the chain still holds: a row keeps the hash that
was, and the command that took its entries names the hash of what is left. From there on it is as with an
erasure (`hetki.engine.erase`). Statements of consent stay, and signals of privacy are told again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import msgspec

from hetki.consent.retention import outlives
from hetki.engine.advance import advance, catch_up
from hetki.engine.commands import Remove
from hetki.engine.engine import Engine
from hetki.engine.erase import BEGUN, BUSY, LOCK, LOCK_WAIT_S, begun, enter, finish
from hetki.engine.expiring import tell_signals
from hetki.engine.folding import read_event
from hetki.engine.forgetting import take_away
from hetki.errors import Fault, Invalid
from hetki.events.event import Event, EventId, LeafId
from hetki.events.wire import Rejected
from hetki.store.journal import Kind, Stored
from hetki.store.places import Place, left_without
from hetki.store.sqlite import alone
from hetki.store.staff import checked_name

#: Entries that are read together.
ENTRIES_MAX = 10_000
#: Entries of one command, and so of one receipt.
PLACES_MAX = 10_000

PARTLY = Fault("erase", "a part of the range", "all of it", "run the same command again: it takes the rest")

_rejected = msgspec.msgpack.Decoder(Rejected)
_Signal = tuple[Event, EventId, LeafId]


class Range(msgspec.Struct, frozen=True):
    """What is to be removed: what happened from one instant until another (that one not), of a source and a
    name ("" for any). Rejected bodies go by when they arrived, unless a name is given."""

    since: int
    until: int
    source: str = ""
    event: str = ""

    def has(self, event: Event) -> bool:
        """Whether an event is in it. What outlives the data that it governs never is."""
        is_asked = self.source in ("", event.source) and self.event in ("", event.name)
        return is_asked and self.since <= event.occurred_at < self.until and not outlives(event)

    def has_rejected(self, rejected: Rejected) -> bool:
        """Whether a rejected body is in it."""
        is_asked = self.source in ("", rejected.source) and not self.event
        return is_asked and self.since <= rejected.received_at < self.until


class Found(msgspec.Struct, frozen=True):
    """What a range holds: how many events and rejected bodies, where all their copies lie, and the signals
    that came with them. A repeat that claims a time in it, of an event that did not happen in it, goes by
    itself."""

    n_events: int
    n_rejected: int
    places: list[Place]
    signals: list[_Signal]


def find(engine: Engine, wanted: Range) -> Found:
    """Look through the whole journal. Raises `Invalid` for a range that is none."""
    if wanted.since >= wanted.until:
        raise Invalid(Fault("--until", "not later than --from", "later"))
    named: set[EventId] = set()
    whole: set[EventId] = set()
    repeats: set[Place] = set()
    rejected: set[EventId] = set()
    signals: list[_Signal] = []
    for stored in _read(engine):
        told = [(each, event) for each in stored if (event := _event_in(each, wanted)) is not None]
        first = engine.state.places_of([each.event_id for each, _ in told])
        for each, event in told:
            named.add(each.event_id)
            if first.get(each.event_id, _place(each)) != _place(each):
                repeats.add(_place(each))
                continue
            whole.add(each.event_id)
            signals += [(event, each.event_id, each.leaf)] if event.gpc else []
        rejected.update(
            each.event_id
            for each in stored
            if each.body is not None and _is_rejected(each, each.body, wanted)
        )
    gone = {Kind.EVENT: whole, Kind.REJECTED: rejected}
    places = [
        _place(each)
        for stored in (_read(engine) if named or rejected else ())
        for each in stored
        if each.body is not None and (each.event_id in gone.get(each.kind, ()) or _place(each) in repeats)
    ]
    return Found(len(named), len(rejected), places, signals)


def _place(stored: Stored) -> Place:
    return stored.position, stored.frame_offset


def _read(engine: Engine) -> Iterator[list[Stored]]:
    """The whole journal, many entries at a time."""
    after = 0
    while stored := engine.journal.read(after, ENTRIES_MAX):
        after = stored[-1].position
        yield stored


def _event_in(stored: Stored, wanted: Range) -> Event | None:
    """The event of an entry, if that is one in a range."""
    event = read_event(stored) if stored.kind is Kind.EVENT else None
    return event if event is not None and wanted.has(event) else None


def _is_rejected(stored: Stored, body: bytes, wanted: Range) -> bool:
    return stored.kind is Kind.REJECTED and wanted.has_rejected(_rejected.decode(body))


def remove(
    engine: Engine, wanted: Range, said_by: str, tell: Callable[[Found], None] = lambda found: None
) -> list[str]:
    """Remove a range; return the ids under which receipts are in the ledger. `tell` is told what it holds
    before anything is removed.

    Raises `Invalid` without a name of who asks, or for a range that is none; `Conflict` while another process
    removes a range or finishes an erasure; `Unavailable` as `erase` does.
    """
    name = checked_name(said_by, "--by")
    with alone(engine.disk, LOCK, BUSY, LOCK_WAIT_S):  # what is left of a row follows from what was before
        advance(engine)
        found = find(engine, wanted)
        tell(found)
        tell_signals(engine, found.signals)
        done: list[str] = []
        for start in range(0, len(found.places), PLACES_MAX):
            places = found.places[start : start + PLACES_MAX]
            left = BEGUN if places[-1] == found.places[-1] else PARTLY
            with begun(PARTLY) if done else nullcontext():
                done.append(_remove(engine, places, name, left))
    with begun():
        finish(engine)
    return done


def _remove(engine: Engine, places: Sequence[Place], said_by: str, left: Fault) -> str:
    """Remove some entries; return the id of it. Once it has begun, what is refused says what is `left`."""
    command = removal_of(engine, engine.chance.bytes(16).hex(), places, said_by, engine.clock.now())
    enter(engine, lambda: command, left)
    with begun(left):
        take_away(engine, command)
        catch_up(engine)
    return command.erasure_id


def removal_of(engine: Engine, erasure_id: str, places: Sequence[Place], said_by: str, now: int) -> Remove:
    """The command that removes entries; it holds for the journal as it is now."""
    return Remove(erasure_id, list(places), left_without(engine.journal, places), said_by, now)
