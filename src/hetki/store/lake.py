"""The lake: the columnar copy, in documented tables that any tool can read with DuckDB or Parquet.

`events` is compacted from the journal, partitioned by a hash of the leaf and by month, so that an erasure
rewrites few files; it grows by what is new. The other tables are in `lake_tables`. All of it can be deleted
and made again at any time. docs/lake.md describes the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import closing, suppress
from typing import TypeVar

import duckdb
import msgspec
import pyarrow as pa

from hetki.errors import Fault, Unavailable, shown
from hetki.events.event import Event, utc
from hetki.store.journal import Journal, Kind, Stored
from hetki.store.lake_files import (
    EVENT_FILES,
    FORM,
    Mark,
    event_files,
    merge_small,
    name_of,
    read_mark,
    save_mark,
    start_of,
    tidy_files,
)
from hetki.store.lake_tables import (
    FOLDER,
    INSTANT,
    TABLES,
    drop_rows,
    forget_rows,
    write_table,
    write_tables,
)
from hetki.store.places import removed_after
from hetki.store.ports import Disk
from hetki.store.restricted import NAME as RESTRICTED
from hetki.store.restricted import RESTRICTIONS, Word, forget_words, keep_out, remember, word_of
from hetki.store.sqlite import alone
from hetki.store.state import State

#: Where DuckDB puts what does not fit into memory.
SPILLED = f"{FOLDER}/spilled"
#: Its lock: the server's worker and a command may both want to write.
LOCK = "lake.db"
LOCK_WAIT_S = 60.0
BUSY = Fault(FOLDER, "a refresh by another process", "written by one at a time", "try again in a minute")
#: Entries of the journal of which one file per bucket and month is made, and how many are held at once as
#: they come out of the journal: as columns they take a tenth of the memory.
ENTRIES_MAX, ENTRIES_READ = 100_000, 10_000

EVENTS = pa.schema(
    [
        ("leaf", pa.string()),
        ("event_id", pa.string()),
        ("source", pa.string()),
        ("message_id", pa.string()),
        ("channel", pa.string()),
        ("name", pa.string()),
        ("occurred_at", INSTANT),
        ("received_at", INSTANT),
        ("sequence", pa.int64()),
        ("gpc", pa.bool_()),
        ("identifiers", pa.string()),
        ("properties", pa.string()),
        ("context", pa.string()),
    ]
)

#: The tables beside `events`.
SCHEMAS = {**{name: schema for name, (schema, _) in TABLES.items()}, RESTRICTED: RESTRICTIONS}

_event = msgspec.msgpack.Decoder(Event)
_Columns = list[list[object]]
T = TypeVar("T")


def refresh(
    disk: Disk, journal: Journal, state: State, progress: Callable[[int], None] = lambda position: None
) -> Mark:
    """Bring the lake up to the position of the fold; return how far it is.

    Only first accepted copies are events: a repeat's place is not the one that the state remembers. A
    refresh that was interrupted writes the same files again. Small files become one now and then. Raises
    `Conflict` while another writes.
    """
    with alone(disk, LOCK, BUSY, LOCK_WAIT_S):
        return _refresh(disk, journal, state, progress)


def forget(disk: Disk, journal: Journal, state: State, erasures: Collection[bytes]) -> None:
    """Take out what was erased since the lake was written, and nothing else: its cost is not that of a
    refresh. `erasures` are those that are folded and not finished: what a refresh has written of these since
    they were entered goes, too. Nothing is done where there is no lake. Raises `Conflict` while another
    writes."""
    with alone(disk, LOCK, BUSY, LOCK_WAIT_S):
        if not has_lake(disk):  # asked in here: whoever wrote a first one has ended
            return
        _forget_events(disk, journal, state)
        nodes = [journal.secrets.erased_by(each) for each in erasures]
        if all(nodes):
            forget_rows(disk, {node.hex() for mine in nodes for node in mine})
        else:  # nobody is gone, but what is left of somebody may have other rows
            write_tables(disk, state.db)


def _refresh(disk: Disk, journal: Journal, state: State, progress: Callable[[int], None]) -> Mark:
    folded = state.progress()
    if read_mark(disk).form != FORM:
        disk.remove(FOLDER)
    mark = _forget_events(disk, journal, state)
    while folded is not None and mark.position < folded.position:
        position, n_new = _write_events(disk, journal, state, mark.position, folded.position)
        mark = save_mark(disk, Mark(position, mark.n_events + n_new, mark.n_erasures, FORM))
        progress(mark.position)
    mark = merge_small(disk, mark)
    write_tables(disk, state.db)
    return mark


def _forget_events(disk: Disk, journal: Journal, state: State) -> Mark:
    """Take the events out that were erased or expired since: only the buckets of their leaves are looked
    through, and only files that have some are written again.

    What an interrupted write, or a question that needed much room, left behind goes, too.
    """
    mark, number = tidy_files(disk, read_mark(disk)), journal.secrets.number()
    if number == mark.n_erasures:
        return mark
    files = disk.names(EVENT_FILES)
    leaves = {leaf.hex() for leaf in journal.secrets.erased_after(mark.n_erasures)}
    # of a lake that begins now nothing is looked for: that would be all that ever went
    framed = removed_after(journal, mark.n_erasures) if files else []
    places = state.places_of([each.event_id for each in framed])
    events = {
        each.event_id.hex(): each.leaf.hex()
        for each in framed
        if places.get(each.event_id) == (each.position, each.frame_offset)
    }
    disk.tidy(FOLDER)
    tidy_spilled(disk)
    gone = {"leaf": _listed(leaves), "event_id": _listed(events)}
    buckets = {leaf[0] for leaf in (*leaves, *events.values())}
    n_gone = 0
    for name in files:
        if name.partition("bucket=")[2][0] in buckets:
            n = drop_rows(disk, name, gone)
            n_gone += n if start_of(name) <= mark.position else 0  # an interrupted refresh has not counted it
    forget_words(disk, leaves)
    return save_mark(disk, Mark(mark.position, mark.n_events - n_gone, number, mark.form))


def _listed(values: Iterable[str]) -> pa.Array:
    return pa.array(sorted(values), pa.string())


def has_lake(disk: Disk) -> bool:
    """Whether there is anything of a lake, finished or not."""
    return bool(disk.names(f"{FOLDER}/**"))


def ask(disk: Disk, question: Callable[[duckdb.DuckDBPyConnection], T], n_more: int = 1) -> T:
    """What a question finds in the lake.

    Files may go away while it reads, as small ones are merged or somebody is erased: then it is asked
    `n_more` times more, of what is there by then. Raises `Unavailable` if files cannot be read.
    """
    try:
        with closing(open_lake(disk)) as lake:
            return question(lake)
    except duckdb.IOException as error:
        if n_more:
            return ask(disk, question, n_more - 1)
        got = " ".join(str(error).split("\n")[0].split())
        fault = Fault(FOLDER, shown(got), "files that can be read", "try again in a moment")
        raise Unavailable(fault) from None


def open_lake(disk: Disk) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection that shows the lake's tables as views, in UTC. Nothing is written through it.

    It reads the lake and nothing else: by default DuckDB opens any file, and fetches what it has not from
    the network. `events` is without those who are restricted (`keep_out`).
    """
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    spill_inside(db, disk)
    db.execute(f"SET allowed_directories = [{_quoted(disk.path(FOLDER) + '/')}]")
    db.execute("SET enable_external_access = false")
    files = disk.names(f"{FOLDER}/*")
    for name, schema in SCHEMAS.items():
        if f"{FOLDER}/{name}.parquet" in files:
            file = disk.path(f"{FOLDER}/{name}.parquet")
            db.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({_quoted(file)})")
        else:
            db.register(name, schema.empty_table())
    if names := event_files(disk):
        listed = ", ".join(_quoted(disk.path(each)) for each in names)
        keep_out(db, f"SELECT * FROM read_parquet([{listed}], hive_partitioning = false)")
    else:
        db.register("no_events", EVENTS.empty_table())
        keep_out(db, "SELECT * FROM no_events")
    return db


def spill_inside(db: duckdb.DuckDBPyConnection, disk: Disk) -> None:
    """Have DuckDB put what does not fit into memory below the data folder, not into the present one.

    It deletes that by itself at the end; what a process that was killed has left, `tidy_spilled` does. On a
    disk without files nothing is spilled.
    """
    folder = ""
    with suppress(Unavailable):
        folder = disk.path(SPILLED)
    db.execute(f"SET temp_directory = {_quoted(folder)}")


def tidy_spilled(disk: Disk) -> None:
    """Delete what questions that needed much room left behind. Files that are open go on for who has them."""
    for name in disk.names(f"{SPILLED}/*"):
        disk.remove(name)


def remove_lake(disk: Disk) -> None:
    """Delete the lake; the next refresh makes it again from the journal."""
    with alone(disk, LOCK, BUSY, LOCK_WAIT_S):
        disk.remove(FOLDER)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _write_events(disk: Disk, journal: Journal, state: State, after: int, until: int) -> tuple[int, int]:
    """Write the new events of some journal rows, one file per bucket and month; return the position of the
    last of these rows, and how many events there were."""
    parts: dict[tuple[str, str], list[pa.Table]] = {}
    words: list[Word] = []
    position, n_entries = after, 0
    while position < until and n_entries < ENTRIES_MAX:
        n_max = min(ENTRIES_READ, ENTRIES_MAX - n_entries)
        stored = [each for each in journal.read(position, n_max) if each.position <= until]
        tables, said = _tables(state, stored)
        for key, table in tables.items():
            parts.setdefault(key, []).append(table)
        words += said
        position, n_entries = stored[-1].position, n_entries + len(stored)
    for (bucket, month), found in parts.items():
        write_table(disk, name_of(bucket, month, after + 1), pa.concat_tables(found))
    remember(disk, words)
    return position, sum(table.num_rows for found in parts.values() for table in found)


def _tables(state: State, stored: Sequence[Stored]) -> tuple[dict[tuple[str, str], pa.Table], list[Word]]:
    """The new events of some entries by bucket and month, and what they say of restricting."""
    events = [each for each in stored if each.kind is Kind.EVENT]
    places = state.places_of([each.event_id for each in events])
    parts: dict[tuple[str, str], _Columns] = {}
    words: list[Word] = []
    for each in events:
        if each.body is None or places.get(each.event_id) != (each.position, each.frame_offset):
            continue
        event = _event.decode(each.body)
        key = (each.leaf.hex()[0], utc(event.occurred_at).strftime("%Y-%m"))
        columns = parts.setdefault(key, [[] for _ in EVENTS])
        for column, value in zip(columns, _row(each, event), strict=True):
            column.append(value)
        word = word_of(each.leaf.hex(), each.event_id.hex(), event)
        words += [word] if word else []
    return {key: _table(columns) for key, columns in parts.items()}, words


def _table(columns: _Columns) -> pa.Table:
    arrays = [pa.array(column, field.type) for column, field in zip(columns, EVENTS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=EVENTS)


def _row(stored: Stored, event: Event) -> Iterable[object]:
    return (
        stored.leaf.hex(),
        stored.event_id.hex(),
        event.source,
        event.message_id,
        event.channel,
        event.name,
        event.occurred_at,
        event.received_at,
        event.sequence,
        event.gpc,
        msgspec.json.encode(event.identifiers).decode(),
        event.properties.decode(),
        event.context.decode(),
    )
