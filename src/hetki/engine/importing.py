"""Import: the rows of a file through a map into the journal, by the rules of the wire.

A row that breaks a rule is rejected and kept like any other bad event. The whole file is read once before
anything is stored, so a file that breaks halfway stores nothing. Where an import is interrupted, the next
goes on behind the last committed batch: the message ids and all else that a row becomes are the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice

import msgspec

from hetki.declarations.read import read
from hetki.engine.engine import Engine
from hetki.engine.project import Project
from hetki.errors import Fault, Invalid
from hetki.events import segment
from hetki.events.event import Event, utc
from hetki.events.mapping import (
    REPAIR_HINT,
    ROW,
    MapSpec,
    Plan,
    call,
    column_of,
    compile_map,
    missing_columns,
)
from hetki.events.wire import Parsed, Rejected
from hetki.settings import Limits
from hetki.store.ports import Disk
from hetki.store.rows import Layout, Row, column_names, content_hash, read_rows

#: Rows in one batch, which is one row of the journal and one commit.
ROWS_MAX = 1_000
#: Faults that a dry run keeps to show; all are counted.
FAULTS_KEPT = 200
EVENTS_SHOWN = 5


class Imported(msgspec.Struct, frozen=True):
    """What an import came to. `n_skipped` rows were committed by an earlier run of this file and map."""

    n_rows: int
    n_accepted: int
    n_rejected: int
    n_skipped: int


class Trial(msgspec.Struct, frozen=True):
    """What a dry run came to: the first rows as events, and every fault (`faults` holds the first ones)."""

    n_rows: int
    n_rejected: int
    n_faults: int
    events: list[Event]
    faults: list[Fault]


class Mark(msgspec.Struct, frozen=True):
    """How far an import of one file with one map is committed, and what all its rows have in common."""

    started_at: int
    n_rows: int = 0


class _File(msgspec.Struct, frozen=True):
    """A file with all that its rows need to become events."""

    disk: Disk
    name: str
    plan: Plan
    channel: str
    limits: Limits
    row_id: str
    received_at: int

    def rows(self) -> Iterator[Row]:
        return read_rows(self.disk, self.name, _layout(self.plan), _roots(self.plan))


class _Batch(msgspec.Struct, frozen=True):
    parsed: Parsed
    faults: list[Fault]


_Progress = Callable[[int, int], None]


def load_map(disk: Disk, name: str, project: Project) -> Plan:
    """A map, checked against the project. Raises `Invalid` with every fault, `NotFound`."""
    data = disk.read(name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        got = f"the byte 0x{data[error.start]:02x}"
        raise Invalid(Fault(f"{name}:{data.count(10, 0, error.start) + 1}:1", got, "text in UTF-8")) from None
    plan, faults = compile_map(read(text, name, MapSpec), project.catalogue, project.sources)
    if plan is None:
        raise Invalid(*faults)
    return plan


def import_file(
    engine: Engine, disk: Disk, name: str, plan: Plan, progress: _Progress = lambda n_done, n_rows: None
) -> Imported:
    """Accept the rows of a file on a disk. A repeat goes on where the last one stopped, and doubles nothing.

    `progress` is told the rows that are done, and all. Raises `NotFound`, `Invalid` (then nothing was
    stored), `Unavailable` (what was told as done is stored).
    """
    n_rows = _survey(disk, name, plan)
    content = content_hash(disk, name)
    of_map = blake2b(plan.declared.text.encode(), digest_size=8).hexdigest()
    place = f"imports/{content}-{of_map}.json"
    if place in engine.disk.names("imports/*"):
        mark = msgspec.json.decode(engine.disk.read(place), type=Mark)
    else:
        mark = Mark(engine.clock.now())
        engine.disk.write(place, msgspec.json.encode(mark))
    n_skipped = mark.n_rows
    n_accepted = n_rejected = 0
    file = _file(engine.project, disk, name, plan, content, mark.started_at)
    progress(mark.n_rows, n_rows)
    for rows in _in_batches(islice(file.rows(), mark.n_rows, None)):
        parsed = _read_batch(file, rows).parsed
        engine.acceptor.accept([parsed])
        n_accepted += len(parsed.events)
        n_rejected += len(parsed.rejected)
        mark = Mark(mark.started_at, mark.n_rows + len(rows))
        engine.disk.write(place, msgspec.json.encode(mark))
        progress(mark.n_rows, n_rows)
    return Imported(n_rows, n_accepted, n_rejected, n_skipped)


def dry_run(
    project: Project,
    disk: Disk,
    name: str,
    plan: Plan,
    now: int,
    progress: _Progress = lambda n_done, n_rows: None,
) -> Trial:
    """Read a whole file as an import would, and store nothing. Raises `NotFound`, `Invalid`."""
    n_rows = _survey(disk, name, plan)
    file = _file(project, disk, name, plan, content_hash(disk, name), now)
    events: list[Event] = []
    faults: list[Fault] = []
    n_done = n_rejected = n_faults = 0
    for rows in _in_batches(file.rows()):
        batch = _read_batch(file, rows)
        events += batch.parsed.events[: EVENTS_SHOWN - len(events)]
        faults += batch.faults[: FAULTS_KEPT - len(faults)]
        n_faults += len(batch.faults)
        n_rejected += len(batch.parsed.rejected)
        n_done += len(rows)
        progress(n_done, n_rows)
    return Trial(n_rows, n_rejected, n_faults, events, faults)


def render(trial: Trial) -> str:
    """A dry run in text: the first rows as events, then the faults."""
    lines = [
        f"{trial.n_rows:,} rows: {trial.n_rows - trial.n_rejected:,} events, {trial.n_rejected:,} rejected"
    ]
    for event in trial.events:
        whose = ", ".join(f"{key} {value}" for key, value in event.identifiers.items())
        lines += ["", f"{event.name} at {utc(event.occurred_at).isoformat()} ({event.channel}; {whose})"]
        lines += [f"  {event.properties.decode()}"] if event.properties != b"{}" else []
        lines += [f"  context {event.context.decode()}"] if event.context != b"{}" else []
    if trial.faults:
        lines += ["", f"{trial.n_faults:,} fault{'s' * (trial.n_faults > 1)}:"]
        lines += [f"  {fault}" for fault in trial.faults]
    if trial.n_faults > len(trial.faults):
        lines.append(f"  and {trial.n_faults - len(trial.faults):,} more")
    return "\n".join(lines)


def _survey(disk: Disk, name: str, plan: Plan) -> int:
    """Read the whole file once: the number of rows. Raises `Invalid` if it breaks or lacks a column."""
    known = column_names(disk, name, _layout(plan))
    if known is not None and (missing := missing_columns(plan, known)):
        raise Invalid(*missing)
    n_rows = 0
    seen: set[str] = set()
    for row in read_rows(disk, name, _layout(plan), _roots(plan)):
        n_rows += 1
        if known is None:
            seen.update(row.values)
    if known is None and seen and (missing := missing_columns(plan, seen)):
        raise Invalid(*missing)
    return n_rows


def _file(project: Project, disk: Disk, name: str, plan: Plan, content: str, received_at: int) -> _File:
    row_id = blake2b(f"{plan.spec.name}\0{content}".encode(), digest_size=12).hexdigest()
    channel = project.sources[plan.spec.source].channel
    return _File(disk, name, plan, channel, project.settings.limits, row_id, received_at)


def _layout(plan: Plan) -> Layout:
    return Layout(plan.spec.delimiter, plan.spec.encoding)


def _roots(plan: Plan) -> frozenset[str]:
    """The columns to read: those of the map, and the objects that hold them."""
    return plan.columns | {column.partition(".")[0] for column in plan.columns}


def _in_batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rest = iter(rows)
    while batch := list(islice(rest, ROWS_MAX)):
        yield batch


def _read_batch(file: _File, rows: Sequence[Row]) -> _Batch:
    """Rows as events and rejected rows, each in the order of the file."""
    events: list[Event] = []
    rejected: list[tuple[int, Rejected]] = []
    faults: list[Fault] = []
    whole: list[tuple[Row, bytes]] = []
    n_bytes = 0
    for row in rows:
        found: list[Fault] = []
        item = msgspec.json.encode(_call(file, row, found))
        if found:
            faults += found
            fault = Fault(found[0].where, found[0].got, found[0].must, found[0].hint or REPAIR_HINT)
            rejected.append((row.number, _rejected(file, item, fault)))
            continue
        if whole and n_bytes + len(item) > file.limits.body_bytes_max:
            _read_calls(file, whole, events, rejected, faults)
            whole, n_bytes = [], 0
        whole.append((row, item))
        n_bytes += len(item) + 1
    _read_calls(file, whole, events, rejected, faults)
    rejected.sort(key=lambda each: each[0])
    return _Batch(Parsed(events, [each for _, each in rejected]), faults)


def _call(file: _File, row: Row, faults: list[Fault]) -> dict[str, object]:
    """A row as a call; what breaks a rule is added to `faults` with its place in the file."""
    row_id = f"{file.row_id}:{row.number}"
    if row.fault is not None:
        faults.append(row.fault)
        return {"type": ROW, "messageId": row_id, "context": {"row": row.text}}
    found: list[Fault] = []
    made = call(file.plan, row.values, row_id, found)
    faults += [Fault(f"{row.where}, {each.where}", each.got, each.must, each.hint) for each in found]
    return made


def _read_calls(
    file: _File,
    whole: Sequence[tuple[Row, bytes]],
    events: list[Event],
    rejected: list[tuple[int, Rejected]],
    faults: list[Fault],
) -> None:
    """Read calls as the server reads a batch; an event's sequence becomes its row's number."""
    if not whole:
        return
    body = b'{"batch":[' + b",".join(item for _, item in whole) + b"]}"
    source = file.plan.spec.source
    parsed = segment.parse(body, "batch", source, file.channel, file.received_at, file.limits)
    for event in parsed.events:
        events.append(msgspec.structs.replace(event, sequence=whole[event.sequence][0].number))
    for each in parsed.rejected:
        place, _, field = each.fault.where.partition(".")
        row = whole[int(place[len("batch[") : -1])][0]
        column = column_of(file.plan, field)
        where = f"{row.where}, column {column}" if column else ", ".join(filter(None, (row.where, field)))
        fault = Fault(where, each.fault.got, each.fault.must, each.fault.hint)
        faults.append(fault)
        rejected.append((row.number, msgspec.structs.replace(each, fault=fault)))


def _rejected(file: _File, body: bytes, fault: Fault) -> Rejected:
    return Rejected(file.plan.spec.source, file.received_at, body, fault, channel=file.channel)
