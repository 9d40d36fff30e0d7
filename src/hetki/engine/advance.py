"""Advance: from the journal to decisions, one micro-batch and one transaction at a time.

Each batch is read, deduplicated, stitched, folded and decided; projections, deeds, outbox and the position
are committed together. A crash folds again from the last position, with the same result and no effect
twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hetki import __version__
from hetki.engine.commands import Activated, Replayed, Said, Taking, read_command
from hetki.engine.deciding import Decided, apply_repairs, decide_all
from hetki.engine.engine import Engine
from hetki.engine.folding import Folding, fold_batch, pass_time, read_event
from hetki.engine.forgetting import erasures_in, forget, joined, take_away
from hetki.engine.stitching import stitch
from hetki.engine.warming import OTHER_DECLARATIONS, activate
from hetki.errors import Conflict
from hetki.events.event import STAFFED, EventId
from hetki.events.wire import Rejected
from hetki.identity.link import evidence
from hetki.moments.fold import Fact
from hetki.patterns.staffing import read_report
from hetki.store.journal import Kind, Stored
from hetki.store.sqlite import transaction
from hetki.store.staffing import add_staffing
from hetki.store.state import Progress

#: Entries in one transaction when more is waiting: the more, the fewer pages are written for each event.
BATCH_MAX = 10_000

#: Where nothing but time has moved.
NOTHING = Folding([], [], {}, 0)

_rejected = msgspec.msgpack.Decoder(Rejected)


class Advanced(msgspec.Struct, frozen=True):
    """What an advance came to. `is_behind`: there is more in the journal."""

    position: int
    advance_to: int
    n_entries: int = 0
    n_caught: int = 0
    n_decided: int = 0
    is_behind: bool = False


def advance(engine: Engine, batch_max: int = BATCH_MAX) -> Advanced:
    """Take up the declarations, if they are new; then fold and decide all that the journal holds."""
    activate(engine)
    return catch_up(engine, batch_max)


def catch_up(engine: Engine, batch_max: int = BATCH_MAX) -> Advanced:
    """Fold and decide all that the journal holds, and let time pass to now.

    Raises `Conflict` if another process has taken up other declarations since this one read them.
    """
    n_entries = n_caught = n_decided = 0
    while True:
        once = advance_once(engine, batch_max)
        n_entries, n_caught = n_entries + once.n_entries, n_caught + once.n_caught
        n_decided += once.n_decided
        if not once.is_behind:
            return Advanced(once.position, once.advance_to, n_entries, n_caught, n_decided)


def advance_once(engine: Engine, batch_max: int = BATCH_MAX) -> Advanced:
    """One micro-batch in one transaction. Raises `Unavailable`; then nothing of it has happened.

    Raises `Conflict` if another process has taken up other declarations: two must not fold in turn.
    """
    with transaction(engine.db):
        return fold_once(engine, batch_max)


def fold_once(engine: Engine, batch_max: int = BATCH_MAX) -> Advanced:
    """The same inside the caller's transaction."""
    now, policy = engine.clock.now(), engine.project.identity.version
    before = engine.state.progress() or Progress(0, 0, engine.program.version, policy)
    if (before.program, before.policy) != (engine.program.version, policy):
        raise Conflict(OTHER_DECLARATIONS)
    stored = engine.journal.read(before.position, batch_max)
    erasures = erasures_in(engine, stored)
    if erasures:  # what was read before cannot be read any more
        stored = engine.journal.read(before.position, batch_max)
    is_behind = len(stored) >= batch_max
    # before the new events are remembered: who is folded again here has none of them yet
    forgotten = [forget(engine, each, before.advance_to, now) for each in erasures]
    batch = open_batch(engine, stored)
    advance_to = max(before.advance_to, batch.newest_at if is_behind else now)
    folding = joined([*forgotten, fold_opened(engine, batch, advance_to)])
    at = max(now, advance_to)
    decided = decide_all(engine, engine.project, engine.program, folding.caught, folding.folded, at)
    apply_repairs(engine.ledger, folding.repairs, advance_to)
    position = stored[-1].position if stored else before.position
    after = Progress(position, advance_to, engine.program.version, policy)
    engine.state.save_progress(after)
    _log(engine, after, len(stored), len(folding.caught), decided, folding)
    return Advanced(position, advance_to, len(stored), len(folding.caught), decided.n_decided, is_behind)


class Batch(msgspec.Struct, frozen=True):
    """A micro-batch as the fold takes it. `newest_at` is the time of its newest event.

    While more is waiting in the journal, time goes no further than that: an import of old events would
    else meet the silences of today at the border of every batch.
    """

    facts: list[Fact]
    commands: list[tuple[bytes, Said]]
    newest_at: int


def open_batch(engine: Engine, stored: Sequence[Stored]) -> Batch:
    """Read the entries of a micro-batch: new events are remembered, rejected ones listed."""
    facts = _new_facts(engine, [each for each in stored if each.kind is Kind.EVENT])
    commands: list[tuple[bytes, Said]] = []
    for each in stored:
        if each.kind is Kind.COMMAND and each.body is not None:
            command = read_command(each.body)
            if isinstance(command, Replayed):
                engine.state.mark_replayed(command.rejected_id, command.said_at)
            elif isinstance(command, Taking):
                take_away(engine, command)
            elif not isinstance(command, Activated):
                commands.append((each.event_id, command))
        elif each.kind is Kind.REJECTED and each.body is not None:
            _list_rejected(engine, each, each.body)
    newest_at = max((fact.event.occurred_at for fact in facts), default=0)
    return Batch(facts, commands, newest_at)


def fold_opened(engine: Engine, batch: Batch, advance_to: int) -> Folding:
    """Derive everything of one micro-batch, saved in the caller's transaction; decide nothing."""
    folding = _fold_new(engine, batch, advance_to) if batch.facts or batch.commands else NOTHING
    caught, repairs, folded = list(folding.caught), list(folding.repairs), dict(folding.folded)
    while True:
        passed = pass_time(engine.state, engine.program, advance_to)
        if not passed.folded:
            return Folding(caught, repairs, folded, folding.n_late)
        caught.extend(passed.caught)
        folded.update(passed.folded)


def _fold_new(engine: Engine, batch: Batch, advance_to: int) -> Folding:
    state, key = engine.state, engine.keys.node
    facts = [fact for fact in batch.facts if fact.event.name != STAFFED]
    reports = [report for fact in batch.facts if (report := read_report(fact.event))]
    add_staffing(state.db, reports)
    found = [evidence(key, fact.event, fact.event_id) for fact in facts]
    stitched = stitch(state, engine.project.identity, found, batch.commands)
    return fold_batch(engine.journal, state, engine.program, key, facts, stitched, advance_to, reports)


def _new_facts(engine: Engine, stored: Sequence[Stored]) -> list[Fact]:
    """The events that were not folded before; of repeats, the first accepted copy."""
    first: dict[EventId, Stored] = {}
    for each in stored:
        first.setdefault(each.event_id, each)
    seen = engine.state.seen(first)
    new = [each for event_id, each in first.items() if event_id not in seen]
    engine.state.count("duplicates", len(stored) - len(new))
    engine.state.count("events", len(new))
    engine.state.add_events(
        [
            (each.event_id, each.leaf if each.body is not None else None, (each.position, each.frame_offset))
            for each in new
        ]
    )
    facts: list[Fact] = []
    for each in new:
        event = read_event(each)
        if event is not None:
            facts.append(Fact(event, each.event_id, each.leaf))
    return facts


def _list_rejected(engine: Engine, stored: Stored, body: bytes) -> None:
    rejected = _rejected.decode(body)
    fault = rejected.fault
    engine.state.add_rejected(
        [
            (
                stored.event_id.hex(),
                rejected.source,
                rejected.received_at,
                fault.where,
                fault.got,
                fault.must,
                fault.hint,
                stored.position,
                stored.frame_offset,
            )
        ]
    )


def _log(
    engine: Engine, progress: Progress, n_entries: int, n_caught: int, decided: Decided, folding: Folding
) -> None:
    """Write the advance log, unless nothing but time has moved."""
    engine.state.count("late", folding.n_late)
    if n_entries or n_caught:
        engine.ledger.log_advance(
            progress.position,
            progress.advance_to,
            n_entries,
            n_caught,
            decided.n_decided,
            __version__,
            progress.program,
        )
