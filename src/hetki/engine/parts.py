"""Parts: the lake cut into pieces of whole customers, so that one piece fits into memory.

The events of a leaf lie in the files of its first hex digit, so a piece is a range of leaves. Customers whose
leaves are in several ranges are read by themselves, in pieces of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hetki.engine.history import Row

#: Events in one piece, about: few enough that memory is used again, and at most as many as fit.
EVENTS_GOOD: Final = 250_000
EVENTS_MAX: Final = 1_000_000
#: How many ranges of leaves lie in files of their own; more pieces than that read files several times.
BUCKETS: Final = 16

#: Every leaf of a customer, numbered customers, and the piece that the customer belongs to: the range of its
#: leaves, or, if they lie in several, one of $n_more pieces behind the $n ranges.
OWNERS = """
CREATE OR REPLACE TEMP TABLE owners AS
WITH placed AS (
    SELECT leaf, customer, (('0x' || leaf[1:4])::UBIGINT * $n) // 65536 AS piece FROM customers),
whole AS (
    SELECT customer, min(piece) AS first, max(piece) AS last,
           dense_rank() OVER (ORDER BY customer) - 1 AS code FROM placed GROUP BY customer)
SELECT leaf, customer, code::BIGINT AS code,
       CASE WHEN first = last THEN first ELSE $n + code % $n_more END AS piece
FROM placed JOIN whole USING (customer)
"""

#: The events of one piece. Grain: one row per event that the fold reads; `code` numbers its customer, and is
#: -1 for a leaf that no customer is known for: it is a customer by itself.
EVENTS = """
SELECT coalesce(o.code, -1) AS code, epoch_us(e.occurred_at) AS told_at, e.source, e.sequence, e.message_id,
       e.leaf, e.event_id, e.channel, e.name, e.properties, e.context, e.gpc
FROM events e {join} owners o ON o.leaf = e.leaf
WHERE (e.gpc OR e.name IN (SELECT unnest($names))) AND e.occurred_at <= make_timestamptz($until)
    AND e.name <> 'Staffing Reported' AND {where}
"""
IN_RANGE = "e.leaf >= $low AND e.leaf < $high AND (o.piece IS NULL OR o.piece = $piece)"

#: The links that stand between two identifiers of some customers. Grain: one row per link.
LINKS = """
SELECT c.customer, epoch_us(l.linked_at), l.node_a || l.node_b
FROM links l JOIN customers c ON c.leaf = l.node_a
WHERE l.status = 'stands' AND c.customer IN (SELECT unnest($customers)) ORDER BY ALL
"""


class Part(NamedTuple):
    """Events of whole customers, as rows in no order, with the customer of each (numbers from 0) and the ids
    of these customers."""

    lake: duckdb.DuckDBPyConnection
    table: pa.Table
    customer: NDArray[np.int64]
    customers: list[str]

    def links(self, customers: Sequence[int]) -> dict[str, list[Row]]:
        """The links of some customers, customer by customer, as `history` has them."""
        found: dict[str, list[Row]] = {}
        ids = [self.customers[each] for each in customers]
        for customer, at, nodes in self.lake.sql(LINKS, params={"customers": ids}).fetchall() if ids else ():
            row = (customer, at, "", 0, nodes, "", "", "", "", b"", b"", False)
            found.setdefault(customer, []).append(row)
        return found


def parts(lake: duckdb.DuckDBPyConnection, names: Sequence[str], until: int) -> Iterator[Part]:
    """All events that the fold reads, piece by piece."""
    params = {"names": list(names), "until": until}
    n = _n_pieces(count(lake, names, until))
    lake.execute(OWNERS, {"n": n, "n_more": max(1, n // BUCKETS)})
    ids = lake.sql("SELECT DISTINCT code, customer FROM owners ORDER BY code").to_arrow_table()["customer"]
    for piece in range(n):
        edges = {"low": _edge(piece, n), "high": _edge(piece + 1, n), "piece": piece}
        query = EVENTS.format(join="LEFT JOIN", where=IN_RANGE)
        yield _part(lake, query, {**params, **edges}, ids)
    spread = lake.sql(f"SELECT DISTINCT piece FROM owners WHERE piece >= {n} ORDER BY piece").fetchall()
    for (piece,) in spread:
        query = EVENTS.format(join="JOIN", where="o.piece = $piece")
        yield _part(lake, query, {**params, "piece": piece}, ids)


def _n_pieces(n_events: int) -> int:
    """A power of two, so that a range does not cut a bucket unless it must."""
    n = 1
    while n_events > n * (EVENTS_GOOD if n < BUCKETS else EVENTS_MAX) and n < 65_536:
        n *= 2
    return n


def count(lake: duckdb.DuckDBPyConnection, names: Sequence[str], until: int) -> int:
    """How many events the fold reads."""
    query = "SELECT count(*) FROM events e WHERE (e.gpc OR e.name IN (SELECT unnest($names)))"
    query += " AND e.occurred_at <= make_timestamptz($until)"
    rows: list[tuple[int]] = lake.sql(query, params={"names": list(names), "until": until}).fetchall()
    return rows[0][0]


def _edge(piece: int, n: int) -> str:
    """Where a range of leaves begins: the first leaf whose four digits, times n, reach the piece."""
    first = -(-piece * 65536 // n)
    return f"{first:04x}" if first < 65536 else "g"


def _part(
    lake: duckdb.DuckDBPyConnection, query: str, params: dict[str, object], ids: pa.ChunkedArray
) -> Part:
    table = lake.sql(query, params=params).to_arrow_table(2**40).combine_chunks()
    code = np.asarray(table["code"].to_numpy(), np.int64)
    known = np.zeros(len(ids) + 1, np.bool_)
    known[code] = True  # -1 is the last
    known[-1] = False
    customers = ids.filter(pa.array(known[:-1])).to_pylist()
    customer = (np.cumsum(known) - 1)[code]
    alone = np.flatnonzero(code < 0)
    if len(alone):
        leaves = pc.dictionary_encode(table["leaf"].take(pa.array(alone))).combine_chunks()
        customer[alone] = len(customers) + leaves.indices.to_numpy()
        customers += leaves.dictionary.to_pylist()
    return Part(lake, table, customer, customers)
