"""The small tables of the lake: what they hold, how they are read from `state.db`, and written as Parquet.

They are written whole by a refresh, in pieces, so that no table must fit into memory. An erasure takes rows
out of the files as they are. docs/lake.md describes the columns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from io import BytesIO
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hetki.store.accounts import members_query
from hetki.store.ports import Disk
from hetki.store.sqlite import IN_MAX, chunks

FOLDER = "lake"
INSTANT = pa.timestamp("us", tz="UTC")
#: Rows that are held in memory while a table is written; they are a part of its file, too.
ROWS_AT_ONCE = 20_000
#: Stands in a query for who is a member of some accounts.
MEMBERS = "@members"
#: Columns that say whose a row is.
OWNERS = ("leaf", "customer", "account", "node_a", "node_b")

#: Small tables: name -> (columns with types, how each is read from state.db). Rows come in an order in which
#: they lie there: SQLite would sort all of a table in memory, as it may write no other file.
TABLES: dict[str, tuple[pa.Schema, str]] = {
    "customers": (
        pa.schema([("leaf", pa.string()), ("namespace", pa.string()), ("customer", pa.string())]),
        "SELECT lower(hex(node)), namespace, lower(hex(customer)) FROM nodes ORDER BY node",
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
        " || refusal WHEN joins THEN 'stands' ELSE 'agrees' END FROM links ORDER BY link_id",
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
        " FROM accounts a JOIN @members m USING (account) GROUP BY a.account ORDER BY a.account",
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
        " FROM @members ORDER BY account, first_at, customer",
    ),
    "households": (
        pa.schema([("household", pa.string()), ("customer", pa.string()), ("n_members", pa.int64())]),
        "SELECT lower(hex(household)), lower(hex(customer)), n_members FROM (SELECT household, customer,"
        " count(*) OVER (PARTITION BY household) AS n_members FROM customers WHERE household IS NOT NULL)"
        " WHERE n_members > 1",
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
        "SELECT * FROM (SELECT o.occurrence_id, o.moment,"
        " CASE WHEN a.account IS NULL THEN lower(hex(o.customer)) END,"
        " nullif(lower(hex(a.account)), ''), o.occurred_at,"
        " CASE WHEN m.occurrence_id IS NOT NULL THEN 'missed' WHEN EXISTS (SELECT 1 FROM revisions r"
        " WHERE r.occurrence_id = o.occurrence_id AND r.kind = 'revised') THEN 'revised'"
        " ELSE 'caught' END FROM occurrences o LEFT JOIN accounts a ON a.account = o.customer"
        " LEFT JOIN missed m USING (occurrence_id) ORDER BY o.occurrence_id)"
        " UNION ALL SELECT r.occurrence_id, r.moment,"
        " CASE WHEN a.account IS NULL THEN lower(hex(coalesce(n.customer, r.customer))) END,"
        " nullif(lower(hex(a.account)), ''), coalesce(d.occurred_at, m.occurred_at), 'retracted'"
        " FROM (SELECT occurrence_id, moment, customer, max(revised_at) FROM revisions"
        " WHERE kind = 'retracted' GROUP BY occurrence_id) r LEFT JOIN nodes n ON n.node = r.customer"
        " LEFT JOIN accounts a ON a.account = r.customer"
        " LEFT JOIN decisions d USING (occurrence_id) LEFT JOIN missed m USING (occurrence_id)"
        " WHERE NOT EXISTS (SELECT 1 FROM occurrences o WHERE o.occurrence_id = r.occurrence_id)",
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
        " ORDER BY d.decision_id",
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
        " ORDER BY a.initiative, a.customer",
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


def write_tables(disk: Disk, db: sqlite3.Connection) -> None:
    """Write every table anew, by one reading of all of them, so that they fit together."""
    db.execute("BEGIN")
    try:
        for name, (schema, query) in TABLES.items():
            with closing(_read(db, schema, query)) as tables:  # an error that is kept would keep its reading
                write_parts(disk, _file_of(name), schema, tables)
    finally:
        db.execute("COMMIT")


def _read(db: sqlite3.Connection, schema: pa.Schema, query: str) -> Generator[pa.Table, None, None]:
    """What a query gives, some rows at a time."""
    rows = _by_account(db, query) if MEMBERS in query else db.execute(query)
    while part := list(islice(rows, ROWS_AT_ONCE)):
        columns = zip(zip(*part, strict=True), schema, strict=True)
        arrays = [_as_kind(column, field.type) for column, field in columns]
        yield pa.Table.from_arrays(arrays, schema=schema)


def _by_account(db: sqlite3.Connection, query: str) -> Iterator[tuple[object, ...]]:
    """The rows of some accounts at a time: who is a member is sorted to be told."""
    accounts = db.execute("SELECT account FROM accounts ORDER BY account")
    while found := accounts.fetchmany(IN_MAX):
        for marks, part in chunks(row[0] for row in found):
            members = members_query(f"WHERE l.account IN ({marks})")
            yield from db.execute(query.replace(MEMBERS, f"({members})"), part)


def write_table(disk: Disk, name: str, table: pa.Table) -> None:
    """Write one file."""
    write_parts(disk, name, table.schema, [table])


def write_parts(disk: Disk, name: str, schema: pa.Schema, parts: Iterable[pa.Table]) -> None:
    """Write one file, of which one part at a time is held in memory."""
    disk.write(name, _packed(schema, parts))


def _packed(schema: pa.Schema, tables: Iterable[pa.Table]) -> Iterator[bytes]:
    """The bytes of a Parquet file, by and by."""
    sink = BytesIO()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
            yield _taken(sink)
    yield _taken(sink)


def _taken(sink: BytesIO) -> bytes:
    """What was written since this was asked last; it is not kept. The writer counts its bytes by itself."""
    written = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return written


def forget_rows(disk: Disk, nodes: Collection[str]) -> None:
    """Take the rows of erased customers out of the files: by whose they are, accounts that have no member any
    more, and what was sent for decisions that are gone. `nodes` are hex ids.

    What else an erasure changes, as how many members an account has, the next refresh brings.
    """
    gone = pa.array(sorted(nodes), pa.string())
    written = {name for name in TABLES if _file_of(name) in disk.names(f"{FOLDER}/*")}
    if "account_members" in written:
        members = pq.ParquetFile(disk.path(_file_of("account_members"))).read(columns=["account", "customer"])
        left = members.filter(pc.invert(pc.is_in(members["customer"], gone)))["account"]
        known = members["account"]
        empty = known.filter(pc.invert(pc.is_in(known, left.combine_chunks())))
        gone = pa.concat_arrays([gone, *empty.chunks])
    if "deliveries" in written and "decisions" in written:
        owned = dict.fromkeys(("leaf", "customer", "account"), gone)
        file = pq.ParquetFile(disk.path(_file_of("decisions")))
        dropped = [
            rows["decision_id"].filter(_is_one_of(rows, owned))
            for rows in _row_groups(file, ["decision_id", *owned])
        ]
        ids = pa.array([each for part in dropped for each in part.to_pylist()], pa.string())
        drop_rows(disk, _file_of("deliveries"), {"decision_id": ids})
    for name in sorted(written):
        owners = {each: gone for each in OWNERS if each in TABLES[name][0].names}
        if owners:
            drop_rows(disk, _file_of(name), owners)


def drop_rows(disk: Disk, name: str, gone: Mapping[str, pa.Array]) -> int:
    """Write a file again without the rows of which a column has one of the values that are gone; return how
    many these are. A file without any is left as it is; of events (below the folder's first level), one
    without any other is deleted. One row group is held in memory at a time."""
    asked = {column: values for column, values in gone.items() if len(values)}
    if not asked:
        return 0
    file = pq.ParquetFile(disk.path(name))
    masks = [_is_one_of(rows, asked) for rows in _row_groups(file, list(asked))]
    n_gone = sum(pc.sum(mask).as_py() or 0 for mask in masks)
    if n_gone == file.metadata.num_rows and name.count("/") > 1:
        disk.remove(name)
    elif n_gone:
        groups = zip(_row_groups(file, None), masks, strict=True)
        left = (rows.filter(pc.invert(mask)) for rows, mask in groups)
        write_parts(disk, name, file.schema_arrow, left)
    return n_gone


def _row_groups(file: pq.ParquetFile, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    for number in range(file.num_row_groups):
        yield file.read_row_group(number, columns=columns)


def _is_one_of(table: pa.Table, gone: Mapping[str, pa.Array]) -> pa.ChunkedArray:
    """For each row whether one of these columns has one of its values; null is none of them."""
    first, *others = (pc.is_in(table[column], values) for column, values in gone.items())
    for each in others:
        first = pc.or_(first, each)
    return first


def _file_of(name: str) -> str:
    return f"{FOLDER}/{name}.parquet"


def _as_kind(column: Sequence[object], kind: pa.DataType) -> pa.Array:
    """What SQLite gave as a column of the lake: it has no booleans."""
    return pa.array(column).cast(kind) if pa.types.is_boolean(kind) else pa.array(column, kind)
