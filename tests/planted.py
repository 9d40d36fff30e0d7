"""Planted bugs: each changes the order of our own commits in the real code, and must be caught.

A simulation that finds nothing proves nothing, unless it finds these (`test_crashes.py`). Each is a function
that patches; its docstring says what goes wrong.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import count

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hetki.dialogues.destination import Destination
from hetki.dialogues.message import Message, Status
from hetki.engine import advance as advancing
from hetki.engine import deliver as delivering
from hetki.engine import repair as repairing
from hetki.engine.commands import Replayed
from hetki.engine.engine import Engine
from hetki.errors import Fault, Unavailable
from hetki.events.event import EventId, LeafId
from hetki.store import journal as journals
from hetki.store import lake as lakes
from hetki.store import lake_files as files
from hetki.store import secrets as keeping
from hetki.store.journal import Entry, Journal, Kind
from hetki.store.lake_files import Mark, read_mark, save_mark
from hetki.store.lake_tables import write_table
from hetki.store.ledger import Ledger
from hetki.store.ports import Disk, Net, Sent
from hetki.store.secrets import Secrets
from hetki.store.shadow import Shadow
from hetki.store.sqlite import transaction
from hetki.store.state import Place, Progress, State

Patch = pytest.MonkeyPatch


def around_advance(
    patch: Patch,
    before: Callable[[Engine, int], None],
    after: Callable[[Engine], None],
    in_any_case: Callable[[], None] = lambda: None,
) -> None:
    """Do something before and after each micro-batch, outside its transaction, and something in any case."""
    real = advancing.advance_once

    def once(engine: Engine, batch_max: int = advancing.BATCH_MAX) -> advancing.Advanced:
        try:
            before(engine, batch_max)
            done = real(engine, batch_max)
            after(engine)
            return done
        finally:
            in_any_case()

    patch.setattr(advancing, "advance_once", once)


def nothing(*given: object) -> None:
    """Do it not."""


def id_before_event(patch: Patch) -> None:
    """The ids of a batch are kept as seen before the batch is folded."""
    seen, add, mine = State.seen, State.add_events, set[EventId]()

    def keep(engine: Engine, batch_max: int) -> None:
        progress = engine.state.progress()
        stored = engine.journal.read(progress.position if progress else 0, batch_max)
        first = {each.event_id: each for each in reversed(stored) if each.kind is Kind.EVENT}
        new = first.keys() - seen(engine.state, first)
        with transaction(engine.db):
            rows = [first[each] for each in sorted(new)]
            add(
                engine.state,
                [(each.event_id, each.leaf, (each.position, each.frame_offset)) for each in rows],
            )
        mine.clear()
        mine.update(new)

    def add_others(self: State, rows: Sequence[tuple[EventId, LeafId, Place]]) -> None:
        add(self, [row for row in rows if row[0] not in mine])

    patch.setattr(State, "seen", lambda self, ids: seen(self, ids) - mine)
    patch.setattr(State, "add_events", add_others)
    around_advance(patch, keep, nothing, mine.clear)


def ack_before_commit(patch: Patch) -> None:
    """A body is acknowledged and kept in memory until the next one."""
    append, read = Journal.append, Journal.read

    def flush(self: Journal) -> None:
        waiting = self.__dict__.pop("waiting", None)
        if waiting is not None:
            append(self, *waiting)

    def later(self: Journal, batches: Sequence[Sequence[Entry]], at: int, n: int, *looked_at: int) -> int:
        flush(self)
        self.__dict__["waiting"] = (batches, at, n)
        return self.head()[0] + len(batches)

    def read_all(self: Journal, after: int, n_entries_max: int) -> list[journals.Stored]:
        flush(self)
        return read(self, after, n_entries_max)

    patch.setattr(Journal, "append", later)
    patch.setattr(Journal, "read", read_all)


def commit_tried_again(patch: Patch) -> None:
    """A commit that failed is tried once more, and believed."""

    @contextmanager
    def stubborn(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        def again(sql: str) -> None:
            try:
                db.execute(sql)
            except sqlite3.OperationalError:
                db.execute(sql)

        with transaction(db):
            yield db
            again("COMMIT")
            db.execute("BEGIN IMMEDIATE")

    for module in list(sys.modules.values()):
        if getattr(module, "transaction", None) is transaction and module.__name__.startswith("hetki."):
            patch.setattr(module, "transaction", stubborn)


def position_after_the_fold(patch: Patch) -> None:
    """The position is saved in a transaction of its own, after the fold's."""
    save, late = State.save_progress, list[Progress]()

    def flush(engine: Engine) -> None:
        with transaction(engine.db):
            save(engine.state, late[-1])

    def begin(engine: Engine, batch_max: int) -> None:
        patch.setattr(State, "save_progress", lambda self, progress: late.append(progress))

    around_advance(patch, begin, flush, lambda: patch.setattr(State, "save_progress", save))


def position_before_the_fold(patch: Patch) -> None:
    """The position is saved in a transaction of its own, before the fold's."""
    progress_of = State.progress

    def keep(engine: Engine, batch_max: int) -> None:
        was = engine.state.progress()
        stored = engine.journal.read(was.position if was else 0, batch_max)
        if was is not None and stored:
            with transaction(engine.db):
                engine.state.save_progress(msgspec.structs.replace(was, position=stored[-1].position))
            patch.setattr(State, "progress", lambda self: was)

    around_advance(patch, keep, nothing, lambda: patch.setattr(State, "progress", progress_of))


def secrets_after_the_journal(patch: Patch) -> None:
    """The secrets of new leaves are committed after the journal row that was sealed with them."""
    ensure, append = Secrets.ensure, Journal.append

    def open_only(self: Secrets, leaves: set[LeafId], periods: set[keeping.Period], now: int) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise Unavailable(Fault("secrets.db", str(error), "room")) from error
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(keeping, "transaction", nullcontext)
            ensure(self, leaves, periods, now)

    def append_first(self: Journal, batches: Sequence[Sequence[Entry]], at: int, *given: int) -> int:
        try:
            position = append(self, batches, at, *given)
        except Unavailable:
            with suppress(sqlite3.OperationalError):  # nothing may have been begun
                self.secrets._db.execute("ROLLBACK")
            raise
        with suppress(sqlite3.OperationalError):
            self.secrets._db.execute("COMMIT")
        return position

    patch.setattr(Secrets, "ensure", open_only)
    patch.setattr(Journal, "append", append_first)


def outbox_apart(patch: Patch) -> None:
    """Messages are put into the outbox in another transaction than their decisions."""
    post = Ledger.post

    def flush(engine: Engine) -> None:
        messages = engine.ledger.__dict__.pop("late", [])
        if messages:
            with transaction(engine.db):
                for each in messages:
                    post(engine.ledger, each)

    patch.setattr(Ledger, "post", lambda self, message: self.__dict__.setdefault("late", []).append(message))
    around_advance(patch, nothing, flush)


def receipt_before_sending(patch: Patch) -> None:
    """A message is marked as sent, and then sent."""
    record, send = delivering._record, delivering._send

    def send_later(engine: Engine, net: Net, destination: Destination, message: Message) -> Sent:
        record(engine, destination, message, Sent(True, 200))
        return send(engine, net, destination, message)

    def recorded(engine: Engine, destination: Destination, message: Message, sent: Sent) -> Status:
        return "sent"

    patch.setattr(delivering, "_send", send_later)
    patch.setattr(delivering, "_record", recorded)


def claim_not_kept(patch: Patch) -> None:
    """What is about to be sent is known to this process alone."""
    set_status = Ledger.set_status

    def unless_claimed(
        self: Ledger, message_id: str, status: Status, detail: str, due_at: int | None = None
    ) -> None:
        if status != "claimed":
            set_status(self, message_id, status, detail, due_at)

    patch.setattr(Ledger, "set_status", unless_claimed)


def deed_without_a_fixed_id(patch: Patch) -> None:
    """The event that tells of a sent message has another id each time it is told."""
    numbers = count()

    class Hash:
        def hexdigest(self) -> str:
            return f"told {next(numbers)}"

    patch.setattr(delivering, "blake2b", lambda *given, **named: Hash())


def receipt_before_the_deed_is_told(patch: Patch) -> None:
    """The receipt is committed first, and then the event that tells of it."""
    record, tell, late = delivering._record, delivering._tell, list[tuple[Engine, Message, str, int]]()

    def record_first(engine: Engine, destination: Destination, message: Message, sent: Sent) -> Status:
        late.clear()
        status = record(engine, destination, message, sent)
        for each in late:
            tell(*each)
        return status

    patch.setattr(delivering, "_tell", lambda *given: late.append(given))
    patch.setattr(delivering, "_record", record_first)


def repeats_told_by_position(patch: Patch) -> None:
    """Whatever lies behind the last position is taken to be new."""
    seen, add = State.seen, State.add_events

    def add_new(self: State, rows: Sequence[tuple[EventId, LeafId, Place]]) -> None:
        known = seen(self, [row[0] for row in rows])
        add(self, [row for row in rows if row[0] not in known])

    patch.setattr(State, "seen", lambda self, ids: set())
    patch.setattr(State, "add_events", add_new)


def mark_before_the_files(patch: Patch) -> None:
    """The lake's mark says that events are written, and then they are."""
    write = lakes._write_events

    def mark_first(disk: Disk, journal: Journal, state: State, after: int, until: int) -> tuple[int, int]:
        save_mark(disk, msgspec.structs.replace(read_mark(disk), position=until))
        return write(disk, journal, state, after, until)

    patch.setattr(lakes, "_write_events", mark_first)


def merged_in_sight(patch: Patch) -> None:
    """What was merged into another file of the lake counts until it is deleted."""

    def merge(disk: Disk, mark: Mark) -> Mark:
        for run in list(files._runs(disk, disk.names(files.EVENT_FILES))):
            parts = [pq.ParquetFile(disk.path(each)).read() for each in run]
            write_table(disk, files._merged(run), pa.concat_tables(parts))
            for each in run:
                disk.remove(each)
        return mark

    patch.setattr(lakes, "merge_small", merge)


def swap_in_two(patch: Patch) -> None:
    """Other declarations come into force in one transaction, and what follows from them in the next."""
    swap = Shadow.swap

    def swap_and_commit(self: Shadow) -> None:
        swap(self)
        self.db.execute("COMMIT")
        self.db.execute("BEGIN IMMEDIATE")

    patch.setattr(Shadow, "swap", swap_and_commit)


def statements_not_waited_for(patch: Patch) -> None:
    """A message is claimed although a withdrawal was accepted that is not folded yet."""
    patch.setattr(Journal, "has_statements_after", lambda self, position: False)


def head_remembered(patch: Patch) -> None:
    """A process believes that the last row of the journal is its own."""
    head, append = Journal.head, Journal.append

    def remember(self: Journal, *given: object) -> int:
        self.__dict__["last"] = self.__dict__.get("last") or head(self)
        position = append(self, *given)  # type: ignore[arg-type]
        self.__dict__["last"] = head(self)
        return position

    patch.setattr(Journal, "head", lambda self: self.__dict__.get("last") or head(self))
    patch.setattr(Journal, "append", remember)


def retraction_not_looked_at(patch: Patch) -> None:
    """What was retracted while it was claimed is sent again."""
    patch.setattr(Ledger, "is_retracted", lambda self, decision_id: False)


def replayed_before_it_is_accepted(patch: Patch) -> None:
    """A rejected body is said to be repaired before its events are in the journal."""
    real = repairing.replay_rejected

    def mark_first(
        engine: Engine, rejected_id: str = "", body: bytes | None = None
    ) -> repairing.ReplayedRows:
        engine.acceptor.command(Replayed(rejected_id, engine.clock.now()))
        return real(engine, rejected_id, body)

    patch.setattr(repairing, "replay_rejected", mark_first)


def told_and_sent_again(patch: Patch) -> None:
    """A message whose deed was told before a crash is sent again."""
    patch.setattr(delivering, "_heard", lambda engine, message, position: False)


#: Each bug, and what the lives are about that are to find it.
BUGS: tuple[tuple[Callable[[Patch], None], str], ...] = (
    (id_before_event, "advance"),
    (ack_before_commit, "tell"),
    (commit_tried_again, "tell"),
    (position_after_the_fold, "advance"),
    (position_before_the_fold, "advance"),
    (secrets_after_the_journal, "tell"),
    (outbox_apart, "advance"),
    (receipt_before_sending, "deliver"),
    (claim_not_kept, "deliver"),
    (deed_without_a_fixed_id, "deliver"),
    (receipt_before_the_deed_is_told, "deliver"),
    (repeats_told_by_position, "tell"),
    (mark_before_the_files, "refresh"),
    (merged_in_sight, "refresh"),
    (swap_in_two, "declare"),
    (statements_not_waited_for, "withdraw"),
    (head_remembered, "tell"),
    (retraction_not_looked_at, "late"),
    (replayed_before_it_is_accepted, "replay"),
    (told_and_sent_again, "deliver"),
)
