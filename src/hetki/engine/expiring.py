"""Expiring: what is past its class of retention is made unreadable, one period after the other (law 8).

A period is what one source told under one class of retention in one month; it is over when its last instant
plus the duration of the class has passed. Statements of consent are sealed for ever, and are not touched; a
signal of privacy that came with an event which is to go is told again by the engine, before the command that
takes the period away is durable. From there on it is as with an erasure (`hetki.engine.erase`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from hashlib import blake2b

import msgspec

from hetki.consent.retention import over_at
from hetki.engine.advance import advance, catch_up
from hetki.engine.commands import Expire
from hetki.engine.engine import Engine
from hetki.engine.erase import begun, enter, finish
from hetki.engine.folding import read_event
from hetki.engine.forgetting import take_away
from hetki.events.event import OWN_SOURCE, Event, EventId, LeafId
from hetki.events.wire import Parsed
from hetki.identity.identifier import as_leaf, leaf_of
from hetki.store.journal import Kind
from hetki.store.places import framed_under
from hetki.store.secrets import Kept
from hetki.store.staff import checked_name

#: Who asks for it, if nobody does.
SAID_BY = "retention"
#: What the engine calls a signal of privacy (`Sec-GPC: 1`) that came with an event which has expired.
SIGNALLED = "Privacy Signalled"
#: Entries that are read together.
ENTRIES_MAX = 1_000
#: By any of these an event may be its customer's.
_OWNERS = ("user_id", "anonymous_id", "record_id")


class Due(msgspec.Struct, frozen=True):
    """A period whose time is over, since when, and how many entries were sealed under it."""

    kept: Kept
    over_at: int
    n_entries: int


def due(engine: Engine) -> list[Due]:
    """The periods whose time is over, the one that was over first at the head."""
    return [
        Due(kept, when, sum(1 for _ in framed_under(engine.journal, [kept]))) for when, kept in _over(engine)
    ]


def expire(engine: Engine, said_by: str = SAID_BY) -> list[str]:
    """Let everything expire whose time is over; return the ids under which receipts are in the ledger.

    Raises `Invalid` without a name of who asks, `Unavailable` where an open reader keeps the logs from being
    emptied: the rest is done later, and the receipts signed.
    """
    name = checked_name(said_by, "--by")
    advance(engine)
    done: list[str] = []
    while (erasure_id := expire_next(engine, name)) is not None:
        with begun():
            catch_up(engine)
        done.append(erasure_id)
    with begun():
        finish(engine)
    return done


def expire_next(engine: Engine, said_by: str = SAID_BY) -> str | None:
    """Take one period away whose time is over, the oldest first: nobody reads it from now on.

    The fold and `finish` do the rest, whoever calls them. None when nothing is over.
    """
    now = engine.clock.now()
    for _, kept in _over(engine)[:1]:
        _keep_signals(engine, kept)
        catch_up(engine)
        command = enter(engine, partial(expiry_of, engine, kept, said_by, now))
        take_away(engine, command)
        return command.erasure_id
    return None


def expiry_of(engine: Engine, kept: Kept, said_by: str, now: int) -> Expire:
    """The command that takes a period away; there is one for each."""
    erasure_id = blake2b(f"expire {kept.period}".encode(), key=engine.keys.event, digest_size=16)
    return Expire(erasure_id.hexdigest(), kept.period, said_by, now)


def _over(engine: Engine) -> list[tuple[int, Kept]]:
    now = engine.clock.now()
    ends = [(over_at(each.retention, each.month), each) for each in engine.journal.secrets.periods()]
    over = [(when, each) for when, each in ends if when is not None and when <= now]
    return sorted(over, key=lambda pair: (pair[0], pair[1].period))


def _keep_signals(engine: Engine, kept: Kept) -> None:
    """Tell again which customers have sent a signal of privacy in a period."""
    tell_signals(engine, _signals(engine, kept))


def tell_signals(engine: Engine, signals: Iterable[tuple[Event, EventId, LeafId]]) -> None:
    """Tell signals of privacy again, without the events that they came with: each with its event, the id of
    that and its leaf. A repeat is the same message."""
    last: dict[LeafId, tuple[Event, EventId]] = {}
    now = engine.clock.now()
    for event, event_id, leaf in signals:
        before = last.get(leaf)  # the last of them says what all have said
        if before is None or before[0].order_key < event.order_key:
            last[leaf] = event, event_id
    again = [_again(engine, event, own, leaf, now) for leaf, (event, own) in sorted(last.items())]
    told = [each for each in again if each is not None]
    for start in range(0, len(told), ENTRIES_MAX):
        engine.acceptor.accept([Parsed(told[start : start + ENTRIES_MAX], [])])


def _signals(engine: Engine, kept: Kept) -> Iterator[tuple[Event, EventId, LeafId]]:
    """The events of a period that came with a signal."""
    places = [
        (each.position, each.frame_offset)
        for each in framed_under(engine.journal, [kept])
        if each.kind is Kind.EVENT
    ]
    for start in range(0, len(places), ENTRIES_MAX):
        for stored in engine.journal.entries(places[start : start + ENTRIES_MAX]):
            event = read_event(stored)
            if event is not None and event.gpc:
                yield event, stored.event_id, stored.leaf


def _again(engine: Engine, event: Event, event_id: EventId, leaf: LeafId, now: int) -> Event | None:
    """A signal as the engine tells it: with nothing but whose it is, and when it was sent. None for one that
    is nobody's."""
    told = msgspec.structs.replace(
        event,
        source=OWN_SOURCE,
        message_id=f"kept {event_id.hex()}",
        name=SIGNALLED,
        received_at=now,
        properties=b"{}",
        context=b"{}",
    )
    for name in _OWNERS:
        one = msgspec.structs.replace(told, identifiers={name: event.identifiers.get(name, "")})
        if as_leaf(leaf_of(engine.keys.node, one).node) == leaf:
            return one
    return None
