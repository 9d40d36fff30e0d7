"""The lake: the columnar copy, in documented tables that any tool can read with DuckDB or Parquet.

`events` is compacted from the journal, partitioned by a hash of the leaf and by month, so that an erasure
rewrites few files; it grows by what is new. The other tables are small and written whole. All of it can be
deleted and made again at any time. docs/lake.md describes the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hetki.errors import Fault
from hetki.events.event import Event, utc
from hetki.store.accounts import members_query
from hetki.store.journal import Journal, Kind, Stored
from hetki.store.ports import Disk
from hetki.store.sqlite import alone
from hetki.store.state import State

FOLDER = "lake"
MARK = f"{FOLDER}/position.json"
#: Where DuckDB puts what does not fit into memory.
SPILLED = f"{FOLDER}/spilled"
#: Its lock: the server's worker and a command may both want to write.
LOCK = "lake.db"
LOCK_WAIT_S = 60.0
BUSY = Fault(FOLDER, "a refresh by another process", "written by one at a time", "try again in a minute")
#: Buckets of leaves: the first hex digit of the leaf.
ENTRIES_MAX = 100_000

INSTANT = pa.timestamp("us", tz="UTC")
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

#: Small tables: name -> (columns with types, how each is read from state.db).
TABLES: dict[str, tuple[pa.Schema, str]] = {
    "customers": (
        pa.schema([("leaf", pa.string()), ("namespace", pa.string()), ("customer", pa.string())]),
        "SELECT lower(hex(node)), namespace, lower(hex(customer)) FROM nodes ORDER BY 3, 1",
    ),
    "links": (
        pa.schema(
            [
                ("link_id", pa.string()),
                ("kind", pa.string()),
                ("node_a", pa.string()),
                ("node_b", pa.string()),
                ("linked_at", INSTANT),
                ("status", pa.string()),
            ]
        ),
        "SELECT lower(hex(link_id)), kind, lower(hex(node_a)), lower(hex(node_b)), linked_at,"
        " CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN refusal <> '' THEN 'refused: '"
        " || refusal WHEN joins THEN 'stands' ELSE 'agrees' END FROM links ORDER BY linked_at, 1",
    ),
    "accounts": (
        pa.schema(
            [
                ("account", pa.string()),
                ("group_id", pa.string()),
                ("first_at", INSTANT),
                ("n_members", pa.int64()),
                ("n_folded", pa.int64()),
            ]
        ),
        "SELECT lower(hex(a.account)), a.group_id, a.first_at, count(m.joined_at), sum(m.is_folded)"
        f" FROM accounts a JOIN ({members_query()}) m USING (account)"
        " GROUP BY a.account ORDER BY 2, 1",
    ),
    "account_members": (
        pa.schema(
            [
                ("account", pa.string()),
                ("customer", pa.string()),
                ("joined_at", INSTANT),
                ("first_at", INSTANT),
                ("is_folded", pa.bool_()),
            ]
        ),
        "SELECT lower(hex(account)), lower(hex(customer)), joined_at, first_at, is_folded"
        f" FROM ({members_query()}) ORDER BY 1, 4, 2",
    ),
    "households": (
        pa.schema([("household", pa.string()), ("customer", pa.string()), ("n_members", pa.int64())]),
        "SELECT lower(hex(household)), lower(hex(customer)), n_members FROM (SELECT household, customer,"
        " count(*) OVER (PARTITION BY household) AS n_members FROM customers WHERE household IS NOT NULL)"
        " WHERE n_members > 1 ORDER BY 1, 2",
    ),
    "occurrences": (
        pa.schema(
            [
                ("occurrence_id", pa.string()),
                ("moment", pa.string()),
                ("customer", pa.string()),
                ("account", pa.string()),
                ("occurred_at", INSTANT),
                ("status", pa.string()),
            ]
        ),
        "SELECT o.occurrence_id, o.moment, CASE WHEN a.account IS NULL THEN lower(hex(o.customer)) END,"
        " nullif(lower(hex(a.account)), ''), o.occurred_at,"
        " CASE WHEN m.occurrence_id IS NOT NULL THEN 'missed' WHEN r.occurrence_id IS NOT NULL THEN 'revised'"
        " ELSE 'caught' END FROM occurrences o LEFT JOIN accounts a ON a.account = o.customer"
        " LEFT JOIN missed m USING (occurrence_id)"
        " LEFT JOIN (SELECT DISTINCT occurrence_id FROM revisions WHERE kind = 'revised') r"
        " USING (occurrence_id) UNION ALL SELECT r.occurrence_id, r.moment,"
        " CASE WHEN a.account IS NULL THEN lower(hex(coalesce(n.customer, r.customer))) END,"
        " nullif(lower(hex(a.account)), ''), coalesce(d.occurred_at, m.occurred_at), 'retracted'"
        " FROM (SELECT occurrence_id, moment, customer, max(revised_at) FROM revisions"
        " WHERE kind = 'retracted' GROUP BY occurrence_id) r LEFT JOIN nodes n ON n.node = r.customer"
        " LEFT JOIN accounts a ON a.account = r.customer"
        " LEFT JOIN decisions d USING (occurrence_id) LEFT JOIN missed m USING (occurrence_id)"
        " WHERE NOT EXISTS (SELECT 1 FROM occurrences o WHERE o.occurrence_id = r.occurrence_id)"
        " ORDER BY 5, 2, 1",
    ),
    "decisions": (
        pa.schema(
            [
                ("decision_id", pa.string()),
                ("occurrence_id", pa.string()),
                ("moment", pa.string()),
                ("initiative", pa.string()),
                ("customer", pa.string()),
                ("leaf", pa.string()),
                ("account", pa.string()),
                ("occurred_at", INSTANT),
                ("decided_at", INSTANT),
                ("arm", pa.string()),
                ("chosen", pa.string()),
                ("propensity", pa.float64()),
                ("holdout_share", pa.float64()),
            ]
        ),
        "SELECT d.decision_id, d.occurrence_id, d.moment, d.initiative,"
        " lower(hex(coalesce(n.customer, d.customer))), lower(hex(d.customer)),"
        " nullif(lower(hex(d.account)), ''), d.occurred_at, d.decided_at,"
        " d.arm, d.chosen, d.propensity, d.holdout_share FROM decisions d LEFT JOIN nodes n"
        " ON n.node = d.customer WHERE NOT EXISTS (SELECT 1 FROM chain c"
        " WHERE c.decision_id = d.decision_id AND c.blanked IS NOT NULL)"
        " ORDER BY d.decided_at, d.decision_id",
    ),
    "assignments": (
        pa.schema(
            [
                ("initiative", pa.string()),
                ("leaf", pa.string()),
                ("customer", pa.string()),
                ("account", pa.string()),
                ("arm", pa.string()),
                ("holdout_share", pa.float64()),
                ("assigned_at", INSTANT),
            ]
        ),
        "SELECT a.initiative, CASE WHEN x.account IS NULL THEN lower(hex(a.customer)) END,"
        " CASE WHEN x.account IS NULL THEN lower(hex(coalesce(n.customer, a.customer))) END,"
        " nullif(lower(hex(x.account)), ''), a.arm, a.holdout_share, a.assigned_at FROM assignments a"
        " LEFT JOIN nodes n ON n.node = a.customer LEFT JOIN accounts x ON x.account = a.customer"
        " ORDER BY a.initiative, a.assigned_at, 2",
    ),
    "deliveries": (
        pa.schema(
            [
                ("message_id", pa.string()),
                ("decision_id", pa.string()),
                ("destination", pa.string()),
                ("status", pa.string()),
                ("sent_at", INSTANT),
                ("n_attempts", pa.int64()),
            ]
        ),
        "SELECT message_id, decision_id, destination, status, sent_at, n_attempts FROM outbox"
        " ORDER BY created_at, message_id",
    ),
}

_event = msgspec.msgpack.Decoder(Event)
_Columns = list[list[object]]


class Mark(msgspec.Struct, frozen=True):
    """How far the lake has come: in the journal, and in what was erased (`n_erasures`)."""

    position: int
    n_events: int
    n_erasures: int = 0


def refresh(
    disk: Disk, journal: Journal, state: State, progress: Callable[[int], None] = lambda position: None
) -> Mark:
    """Bring the lake up to the position of the fold; return how far it is.

    Only first accepted copies are events: a repeat's place is not the one that the state remembers. A
    refresh that was interrupted writes the same files again. Raises `Conflict` while another writes.
    """
    with alone(disk, LOCK, BUSY, LOCK_WAIT_S):
        return _refresh(disk, journal, state, progress)


def _refresh(disk: Disk, journal: Journal, state: State, progress: Callable[[int], None]) -> Mark:
    folded = state.progress()
    mark = _forget(disk, journal, state, read_mark(disk))
    while folded is not None and mark.position < folded.position:
        stored = [
            each for each in journal.read(mark.position, ENTRIES_MAX) if each.position <= folded.position
        ]
        n_new = _write_events(disk, state, stored, mark.position)
        mark = Mark(stored[-1].position, mark.n_events + n_new, mark.n_erasures)
        disk.write(MARK, msgspec.json.encode(mark))
        progress(mark.position)
    state.db.execute("BEGIN")  # one reading of all tables, so that they fit together
    try:
        read = {name: state.db.execute(query).fetchall() for name, (_, query) in TABLES.items()}
    finally:
        state.db.execute("COMMIT")
    for name, rows in read.items():
        schema = TABLES[name][0]
        columns = list(zip(*rows, strict=True)) or [()] * len(schema)
        arrays = [_as_kind(column, field.type) for column, field in zip(columns, schema, strict=True)]
        _write_table(disk, f"{FOLDER}/{name}.parquet", pa.Table.from_arrays(arrays, schema=schema))
    return mark


def _forget(disk: Disk, journal: Journal, state: State, mark: Mark) -> Mark:
    """Take the events out that were erased or expired since: only the buckets of their leaves are written
    again.

    What an interrupted write, or a question that needed much room, left behind goes, too.
    """
    number = journal.secrets.number()
    if number == mark.n_erasures:
        return mark
    leaves = {leaf.hex() for leaf in journal.secrets.erased_after(mark.n_erasures)}
    framed = list(journal.framed(journal.secrets.expired_after(mark.n_erasures)))
    places = state.places_of([each.event_id for each in framed])
    events = {
        each.event_id.hex(): each.leaf.hex()
        for each in framed
        if places.get(each.event_id) == (each.position, each.frame_offset)
    }
    disk.tidy(FOLDER)
    disk.remove(SPILLED)
    n_gone = 0
    for bucket in sorted({leaf[0] for leaf in (*leaves, *events.values())}):
        for name in disk.names(f"{FOLDER}/events/bucket={bucket}/*/*"):
            n = _forget_in(disk, name, leaves, events.keys())
            n_gone += n if _start(name) <= mark.position else 0  # an interrupted refresh has not counted it
    after = Mark(mark.position, mark.n_events - n_gone, number)
    disk.write(MARK, msgspec.json.encode(after))
    return after


def _start(name: str) -> int:
    """The journal position that a file of events begins with."""
    return int(name.rpartition("from-")[2].removesuffix(".parquet"))


def _forget_in(disk: Disk, name: str, leaves: Collection[str], events: Collection[str]) -> int:
    file = pq.ParquetFile(disk.path(name))
    keys = file.read(columns=["leaf", "event_id"])
    is_gone = pc.or_(
        pc.is_in(keys["leaf"], pa.array(sorted(leaves), pa.string())),
        pc.is_in(keys["event_id"], pa.array(sorted(events), pa.string())),
    )
    n_gone: int = pc.sum(is_gone).as_py() or 0
    if n_gone == len(is_gone):
        disk.remove(name)
    elif n_gone:
        _write_table(disk, name, file.read().filter(pc.invert(is_gone)))
    return n_gone


def _as_kind(column: Sequence[object], kind: pa.DataType) -> pa.Array:
    """What SQLite gave as a column of the lake: it has no booleans."""
    return pa.array(column).cast(kind) if pa.types.is_boolean(kind) and column else pa.array(column, kind)


def has_lake(disk: Disk) -> bool:
    """Whether there is anything of a lake, finished or not."""
    return bool(disk.names(f"{FOLDER}/**"))


def read_mark(disk: Disk) -> Mark:
    """How far the lake has come; position 0 when there is none."""
    if MARK not in disk.names(f"{FOLDER}/*"):
        return Mark(0, 0)
    return msgspec.json.decode(disk.read(MARK), type=Mark)


def open_lake(disk: Disk) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection that shows the lake's tables as views, in UTC. Nothing is written through it.

    It reads the lake and nothing else: by default DuckDB opens any file, and fetches what it has not from
    the network.
    """
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    db.execute(f"SET temp_directory = {_quoted(disk.path(SPILLED))}")
    db.execute(f"SET allowed_directories = [{_quoted(disk.path(FOLDER) + '/')}]")
    db.execute("SET enable_external_access = false")
    if disk.names(f"{FOLDER}/events/*/*/*"):
        files = disk.path(f"{FOLDER}/events") + "/*/*/*.parquet"
        source = f"read_parquet({_quoted(files)}, hive_partitioning = false)"
        db.execute(f"CREATE VIEW events AS SELECT * FROM {source}")
    else:
        db.register("events", EVENTS.empty_table())
    for name, (schema, _) in TABLES.items():
        if f"{FOLDER}/{name}.parquet" in disk.names(f"{FOLDER}/*"):
            file = disk.path(f"{FOLDER}/{name}.parquet")
            db.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet({_quoted(file)})")
        else:
            db.register(name, schema.empty_table())
    return db


def remove_lake(disk: Disk) -> None:
    """Delete the lake; the next refresh makes it again from the journal."""
    with alone(disk, LOCK, BUSY, LOCK_WAIT_S):
        disk.remove(FOLDER)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _write_events(disk: Disk, state: State, stored: Sequence[Stored], start: int) -> int:
    """Write the new events of some journal rows, one file per bucket and month; return how many."""
    events = [each for each in stored if each.kind is Kind.EVENT]
    places = state.places_of([each.event_id for each in events])
    parts: dict[tuple[str, str], _Columns] = {}
    n = 0
    for each in events:
        if each.body is None or places.get(each.event_id) != (each.position, each.frame_offset):
            continue
        event = _event.decode(each.body)
        key = (each.leaf.hex()[0], utc(event.occurred_at).strftime("%Y-%m"))
        columns = parts.setdefault(key, [[] for _ in EVENTS])
        for column, value in zip(columns, _row(each, event), strict=True):
            column.append(value)
        n += 1
    for (bucket, month), columns in parts.items():
        arrays = [pa.array(column, field.type) for column, field in zip(columns, EVENTS, strict=True)]
        name = f"{FOLDER}/events/bucket={bucket}/month={month}/from-{start + 1:012}.parquet"
        _write_table(disk, name, pa.Table.from_arrays(arrays, schema=EVENTS))
    return n


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


def _write_table(disk: Disk, name: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    disk.write(name, sink.getvalue().to_pybytes())
