"""Records: the rows of customer tables as the state knows them, and who was parted by a person.

Reads `state.db` alone; what a record says lies in the journal, at the place that is told here.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from hetki.events.event import LeafId
from hetki.identity.identifier import NodeId
from hetki.store.state import Place


class Known(NamedTuple):
    """A record: its node, its id (`source:row`), its present customer, and where its events lie."""

    node: NodeId
    value: str
    customer: LeafId
    places: list[Place]


def known_records(db: sqlite3.Connection) -> list[Known]:
    """Every record of every linked table, in order of their ids."""
    found: dict[NodeId, Known] = {}
    rows = db.execute(
        "SELECT n.node, n.value, n.customer, e.position, e.frame_offset FROM nodes n"
        " JOIN leaf_events e ON e.leaf = n.node WHERE n.namespace = 'record'"
        " ORDER BY n.value, n.node, e.position, e.frame_offset"
    )
    for node, value, customer, position, frame_offset in rows:
        record = found.setdefault(NodeId(node), Known(NodeId(node), value, LeafId(customer), []))
        record.places.append((position, frame_offset))
    return list(found.values())


def customers_of_records(db: sqlite3.Connection) -> dict[NodeId, LeafId]:
    """The present customer of each record."""
    rows = db.execute("SELECT node, customer FROM nodes WHERE namespace = 'record'")
    return {NodeId(node): LeafId(customer) for node, customer in rows}


def parted(db: sqlite3.Connection) -> list[tuple[NodeId, LeafId, NodeId, LeafId]]:
    """Pairs that a person parted, or said are not one: (node, its customer, the other node, its customer)."""
    rows = db.execute(
        "SELECT l.node_a, a.customer, l.node_b, b.customer FROM links l"
        " JOIN nodes a ON a.node = l.node_a JOIN nodes b ON b.node = l.node_b"
        " WHERE (l.kind = 'cannot') = (l.revoked_at IS NULL) ORDER BY l.link_id"
    )
    return [(NodeId(a), LeafId(of_a), NodeId(b), LeafId(of_b)) for a, of_a, b, of_b in rows]


def refused_matches(db: sqlite3.Connection) -> dict[str, int]:
    """How many probable links do not join, by the constraint that they would break."""
    query = (
        "SELECT refusal, count(*) FROM links WHERE kind = 'probable' AND refusal <> ''"
        " AND revoked_at IS NULL GROUP BY 1 ORDER BY 1"
    )
    return dict(db.execute(query).fetchall())


def rejected_rows(db: sqlite3.Connection, source: str) -> set[tuple[str, str]]:
    """What is listed as rejected of a source and was not replayed since: where it stood, and what it was."""
    query = "SELECT place, got FROM rejected WHERE source = ? AND replayed_at IS NULL"
    return {(place, got) for place, got in db.execute(query, (source,))}
