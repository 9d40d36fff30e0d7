"""Restricted: whose processing is restricted, or was, and what of the lake may so be used (GDPR 18).

What was said of it is a table of the lake, one row per word, written with the events that it stands in. The
lake keeps what restricted customers did, as the journal does; `keep_out` has whoever asks it not see that.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hetki.consent.statements import ALL, spoken
from hetki.events.event import Event
from hetki.store.lake_tables import FOLDER, INSTANT, write_table
from hetki.store.ports import Disk

NAME = "restrictions"
FILE = f"{FOLDER}/{NAME}.parquet"
RESTRICTIONS = pa.schema(
    [
        ("leaf", pa.string()),
        ("event_id", pa.string()),
        ("occurred_at", INSTANT),
        ("source", pa.string()),
        ("sequence", pa.int64()),
        ("message_id", pa.string()),
        ("is_restricted", pa.bool_()),
    ]
)
Word = tuple[str, str, int, str, int, str, bool]

# `restricted`, grain: one time of restriction of one unit: a customer by any of its leaves, or an account
# by any member whose events are looked at. `lifted_at` is NULL while the restriction stands.
# `unusable`, grain: one time of one leaf from which nothing may be used; NULLs where it has no end.
_TIMES = """
CREATE TEMP TABLE restricted AS
WITH turns AS (
    SELECT *, lag(is_restricted, 1, false) OVER told AS was_restricted FROM restrictions
    WINDOW told AS (PARTITION BY leaf ORDER BY occurred_at, source, sequence, message_id)
),
times AS (
    SELECT leaf, is_restricted, occurred_at AS restricted_at, lead(occurred_at) OVER told AS lifted_at
    FROM turns WHERE is_restricted <> was_restricted
    WINDOW told AS (PARTITION BY leaf ORDER BY occurred_at, source, sequence, message_id)
),
of_customers AS (
    SELECT coalesce(c.customer, t.leaf) AS unit, t.restricted_at, t.lifted_at
    FROM times t LEFT JOIN customers c USING (leaf) WHERE t.is_restricted
)
SELECT *, false AS is_account FROM of_customers UNION ALL
SELECT m.account, t.restricted_at, t.lifted_at, true
FROM of_customers t JOIN account_members m ON m.customer = t.unit WHERE m.is_folded;
CREATE TEMP TABLE unusable AS
SELECT DISTINCT coalesce(c.leaf, t.unit) AS leaf,
    CASE WHEN t.lifted_at IS NOT NULL THEN t.restricted_at END AS since, t.lifted_at AS until
FROM restricted t LEFT JOIN customers c ON c.customer = t.unit
"""


def word_of(leaf: str, event_id: str, event: Event) -> Word | None:
    """What an event says of restricting all processing; None if nothing that counts."""
    said = spoken(event, {}, {}).get(ALL)
    if said is None:
        return None
    return leaf, event_id, event.occurred_at, event.source, event.sequence, event.message_id, not said.granted


def remember(disk: Disk, words: Sequence[Word]) -> None:
    """Add words to the table; one that is there already is not added again."""
    if not words:
        return
    told = pa.Table.from_pylist([dict(zip(RESTRICTIONS.names, each, strict=True)) for each in words])
    told, known = told.cast(RESTRICTIONS), _read(disk)
    new = told.filter(pc.invert(pc.is_in(told["event_id"], known["event_id"].combine_chunks())))
    write_table(disk, FILE, pa.concat_tables([known, new]))


def forget_words(disk: Disk, leaves: Collection[str]) -> None:
    """Take out what erased leaves (hex) have said."""
    known = _read(disk)
    is_gone = pc.is_in(known["leaf"], pa.array(sorted(leaves), pa.string()))
    if pc.any(is_gone).as_py():
        write_table(disk, FILE, known.filter(pc.invert(is_gone)))


def keep_out(lake: duckdb.DuckDBPyConnection, events: str) -> None:
    """Make the tables `restricted` and `unusable`, and the view `events` without those who are restricted.

    The lake's small tables are there; `events` is the query of all events. What was done in a time of
    restriction that has been lifted stays in the view, as the fold masks it.
    """
    lake.execute(_TIMES)
    if n_restricted(lake):  # else nobody pays for looking
        events += " WHERE leaf NOT IN (SELECT leaf FROM unusable WHERE until IS NULL)"
    lake.execute(f"CREATE TEMP VIEW events AS {events}")


def n_restricted(lake: duckdb.DuckDBPyConnection) -> int:
    """How many customers are restricted at present."""
    query = "SELECT count(DISTINCT unit) FROM restricted WHERE lifted_at IS NULL AND NOT is_account"
    rows: list[tuple[int]] = lake.execute(query).fetchall()
    return rows[0][0]


def _read(disk: Disk) -> pa.Table:
    if FILE not in disk.names(f"{FOLDER}/*"):
        return RESTRICTIONS.empty_table()
    return pq.ParquetFile(disk.path(FILE)).read()
