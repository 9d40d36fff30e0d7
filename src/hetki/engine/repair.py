"""Repair: rejected events listed, shown in full, and replayed (law 3)."""

from __future__ import annotations

import msgspec

from hetki.engine.accept import ERASED_KIND
from hetki.engine.commands import Replayed
from hetki.engine.engine import Engine
from hetki.errors import Fault, NotFound
from hetki.events import cloudevents, segment
from hetki.events.wire import Parsed, Rejected
from hetki.store.views import RejectedRow

_rejected = msgspec.msgpack.Decoder(Rejected)


class ReplayedRows(msgspec.Struct, frozen=True):
    """What a replay came to: how many were accepted, and why the others still are not."""

    n_accepted: int
    faults: list[Fault]


def list_rejected(engine: Engine) -> list[RejectedRow]:
    """What was rejected and not replayed since, newest first."""
    return [RejectedRow(*row) for row in engine.state.rejected()]


def show_rejected(engine: Engine, rejected_id: str) -> bytes:
    """A rejected event's own bytes. Raises `NotFound`."""
    return _load(engine, rejected_id).body


def replay_rejected(engine: Engine, rejected_id: str = "", body: bytes | None = None) -> ReplayedRows:
    """Read one rejected event again (or all), as it came or as repaired in `body`, and accept it.

    Who names an event vouches for it, whatever the key that it came with may send; all are held to that.
    What still breaks a rule stays listed and is not rejected a second time. Raises `NotFound`.
    """
    ids = [rejected_id] if rejected_id else [row.rejected_id for row in list_rejected(engine)]
    n_accepted = 0
    faults: list[Fault] = []
    for each in ids:
        was = _load(engine, each)
        scope = frozenset[str]() if rejected_id else was.scope
        parsed = _read_again(engine, was, was.body if body is None else body, scope)
        if parsed.rejected:
            fault = parsed.rejected[0].fault
            faults.append(Fault(f"{each}: {fault.where}", fault.got, fault.must, fault.hint))
            continue
        engine.acceptor.accept([parsed])
        engine.acceptor.command(Replayed(each, engine.clock.now()))
        n_accepted += len(parsed.events)
    return ReplayedRows(n_accepted, faults)


def _load(engine: Engine, rejected_id: str) -> Rejected:
    place = engine.state.rejected_place(rejected_id)
    stored = engine.journal.entries([place])[0] if place else None
    if stored is None or stored.body is None:
        must = "the id of a rejected event that is still kept"
        raise NotFound(Fault("rejected", repr(rejected_id), must, "hetki rejected lists them"))
    return _rejected.decode(stored.body)


def _read_again(engine: Engine, was: Rejected, body: bytes, scope: frozenset[str]) -> Parsed:
    limits = engine.project.settings.limits
    source, channel, at = was.source, was.channel, was.received_at
    if was.kind.startswith(ERASED_KIND):  # nothing of it was kept that could be read
        return Parsed([], [was])
    if was.kind == cloudevents.KIND:
        form = cloudevents.STRUCTURED
        return cloudevents.parse(body, form, {}, source, channel, at, limits, was.gpc, scope)
    return segment.parse(body, was.kind, source, channel, at, limits, was.gpc, was.skew, scope)
