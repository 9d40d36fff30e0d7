"""Sharing: what of the lake may be shown to anybody, as Parquet in a folder of its own.

No row says whose it is, and only columns and fields are written that were declared free: what is new in the
lake, or unknown to the catalogue, stays out by itself. So does what is of those whose processing is
restricted. docs/lake.md says what that is worth, and what not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from hetki.errors import Conflict, Fault
from hetki.events.catalogue import Catalogue
from hetki.events.free import free_fields
from hetki.store.lake import BUSY, LOCK, LOCK_WAIT_S, open_lake
from hetki.store.lake_files import event_files
from hetki.store.lake_tables import FOLDER, INSTANT, write_table
from hetki.store.ports import Disk
from hetki.store.restricted import n_restricted
from hetki.store.sqlite import alone

#: Columns of events that are free by themselves: a project declares its sources, and their channels.
EVENTS = pa.schema(
    [
        ("source", pa.string()),
        ("channel", pa.string()),
        ("name", pa.string()),
        ("occurred_at", INSTANT),
        ("properties", pa.string()),
    ]
)
#: The free columns of the small tables; a table that is not here is not shared.
FREE = {
    "occurrences": ("moment", "occurred_at", "status"),
    "decisions": ("moment", "initiative", "decided_at", "arm", "chosen", "propensity", "holdout_share"),
    "assignments": ("initiative", "arm", "holdout_share", "assigned_at"),
    "deliveries": ("destination", "status", "sent_at", "n_attempts"),
}
# Grain: one event of $files that nobody has restricted. `name` is the event's.
_EVENTS = """
SELECT source, channel, name, occurred_at, identifiers, properties
FROM read_parquet($files, hive_partitioning = false) e WHERE NOT EXISTS (
    SELECT 1 FROM unusable u WHERE u.leaf = e.leaf
        AND (u.until IS NULL OR (e.occurred_at >= u.since AND e.occurred_at < u.until)))
"""
_OF_UNIT = "coalesce(account, customer) NOT IN (SELECT unit FROM restricted WHERE lifted_at IS NULL)"
#: Which rows of the small tables are of nobody who is restricted.
_ROWS = {
    **dict.fromkeys(("occurrences", "decisions", "assignments"), _OF_UNIT),
    "deliveries": f"decision_id IN (SELECT decision_id FROM decisions WHERE {_OF_UNIT})",
}

_identifiers = msgspec.json.Decoder(dict[str, str])


class Shared(msgspec.Struct, frozen=True):
    """How many events were written, how many were left out as the catalogue does not know them, and how many
    customers as their processing is restricted."""

    n_events: int
    n_left_out: int
    n_restricted: int


def share(disk: Disk, catalogue: Catalogue, to: Disk) -> Shared:
    """Write what is free of the lake into an empty folder. Raises `Conflict` if it is not empty, or while
    another writes the lake. Holds the events of one month at a time in memory.
    """
    if to.names("**"):
        raise Conflict(Fault("lake share", "a folder with files in it", "an empty or a new folder"))
    n_events = n_left_out = 0
    with alone(disk, LOCK, BUSY, LOCK_WAIT_S), closing(open_lake(disk)) as lake:
        n_hidden = n_restricted(lake)
        for month, names in sorted(_months(disk).items()):
            files = {"files": [disk.path(each) for each in names]}
            told = lake.sql(_EVENTS, params=files).to_arrow_table()
            free = _free_events(told, catalogue)
            if len(free):
                write_table(to, f"events/month={month}/part.parquet", _blurred(free))
            n_events += len(free)
            n_left_out += len(told) - len(free)
        for name, columns in FREE.items():
            if f"{FOLDER}/{name}.parquet" in disk.names(f"{FOLDER}/*"):
                rows = lake.sql(f"SELECT {', '.join(columns)} FROM {name} WHERE {_ROWS[name]}")
                write_table(to, f"{name}.parquet", _blurred(rows.to_arrow_table()))
    return Shared(n_events, n_left_out, n_hidden)


def _months(disk: Disk) -> dict[str, list[str]]:
    """The files of events by month: buckets are not kept apart, as one may hold a single customer."""
    found: dict[str, list[str]] = {}
    for name in event_files(disk):
        found.setdefault(name.split("/")[3].removeprefix("month="), []).append(name)
    return found


def _free_events(part: pa.Table, catalogue: Catalogue) -> pa.Table:
    return pa.Table.from_pylist(list(_free_rows(part, catalogue)), schema=EVENTS)


def _free_rows(part: pa.Table, catalogue: Catalogue) -> Iterator[dict[str, object]]:
    for row in part.to_pylist():
        names = _identifiers.decode(row["identifiers"]).values()
        fields = free_fields(catalogue, row["name"], row["properties"].encode(), names)
        if fields is not None:
            kept = {column: row[column] for column in EVENTS.names}
            yield kept | {"properties": msgspec.json.encode(fields, order="sorted").decode()}


def _blurred(table: pa.Table) -> pa.Table:
    """Instants to the hour, and rows in the order of what they say: neither may tell whose a row is."""
    for number, column in enumerate(table.schema):
        if column.type == INSTANT:
            hours = pc.floor_temporal(table[column.name], unit="hour")
            table = table.set_column(number, column, hours.cast(INSTANT))
    return table.sort_by([(name, "ascending") for name in table.column_names])
