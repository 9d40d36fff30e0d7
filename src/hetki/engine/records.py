"""Records: what the rows of customer tables say, as it lies in the journal, and as one table for linkage.

What a record says is its latest `Customer Identified`. Nothing of it is written anywhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hetki.engine.engine import Engine
from hetki.engine.folding import read_event
from hetki.engine.tables import Known
from hetki.events.event import IDENTIFIED, Event
from hetki.events.fields import json_object
from hetki.identity.clusters import Rows
from hetki.identity.identifier import Namespace, NodeId, identifier
from hetki.store.records import customers_of_records, known_records, parted
from hetki.store.tables import as_text

#: Events that are read from the journal at once.
EVENTS_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Records:
    """What each record says, by its id, where in the journal it was said, and which ones are new.

    `known` and `fresh` grow while tables are taken in.
    """

    known: dict[str, Known]
    position: dict[str, int]
    fresh: set[str] = field(default_factory=set)


def load_records(engine: Engine, progress: Callable[[int, int], None]) -> Records:
    """Every record as it was told last; those that were erased are left out."""
    found = known_records(engine.db)
    records = Records({}, {})
    places = sorted(place for each in found for place in each.places)
    latest: dict[str, Event] = {}
    for start in range(0, len(places), EVENTS_AT_ONCE):
        progress(start, len(places))
        for stored in engine.journal.entries(places[start : start + EVENTS_AT_ONCE]):
            event = read_event(stored)
            if event is None or event.name != IDENTIFIED or "record_id" not in event.identifiers:
                continue
            record = event.identifiers["record_id"]
            if record not in latest or latest[record].order_key < event.order_key:
                latest[record] = event
                records.position[record] = stored.position
    for record, event in latest.items():
        records.known[record] = Known(event.message_id, event.identifiers, event.properties)
    return records


@dataclass(frozen=True, slots=True)
class Compared:
    """All records in the order of their ids, one row each: their nodes, what they say, whose they are.

    `customer` numbers the customers that they belong to; `is_new` says which were not compared before;
    `apart` are pairs of rows that a person parted.
    """

    nodes: list[NodeId]
    table: pa.Table
    customer: Rows
    is_new: NDArray[np.bool_]
    apart: list[tuple[int, int]]


def compared(engine: Engine, records: Records, after: int) -> Compared:
    """All records as one table; those are new that were told after a position of the journal, or just now."""
    ids = sorted(records.known)
    nodes = [_node(engine.keys.node, "record", record) for record in ids]
    customer = _customers(engine, ids, nodes, records.known)
    row_of = {node: row for row, node in enumerate(nodes)}
    first_of: dict[int, int] = {}
    for row, number in enumerate(customer.tolist()):
        first_of.setdefault(number, row)
    leaves = customers_of_records(engine.db)
    row_of_leaf = {leaves[node]: row for node, row in reversed(row_of.items()) if node in leaves}
    apart = []
    for node_a, leaf_a, node_b, leaf_b in parted(engine.db):
        a, b = row_of.get(node_a, row_of_leaf.get(leaf_a)), row_of.get(node_b, row_of_leaf.get(leaf_b))
        if a is not None and b is not None and a != b:
            apart.append((a, b))
    is_new = np.array([each in records.fresh or records.position.get(each, 0) > after for each in ids], bool)
    return Compared(nodes, _table(records.known[each].properties for each in ids), customer, is_new, apart)


def _node(key: bytes, namespace: Namespace, value: str) -> NodeId:
    found = identifier(key, namespace, value)
    assert found is not None, "the id of a record names it"
    return found.node


def _table(said: Iterable[bytes]) -> pa.Table:
    """What records say as columns of text, in order of their names; null where one says nothing."""
    columns: dict[str, list[str | None]] = {}
    n_rows = 0
    for raw in said:
        for name, value in json_object(raw).items():
            column = columns.setdefault(name, [])
            column.extend([None] * (n_rows - len(column)))
            column.append(as_text(value))
        n_rows += 1
    for column in columns.values():
        column.extend([None] * (n_rows - len(column)))
    return pa.table({name: pa.array(columns[name], pa.string()) for name in sorted(columns)})


def _customers(engine: Engine, ids: list[str], nodes: list[NodeId], known: Mapping[str, Known]) -> Rows:
    """The customer of each record by number. One that was not folded yet, in a dry run, is taken for the
    customer of the first record with its e-mail address or telephone number, else for one of its own."""
    leaves = customers_of_records(engine.db)
    number_of: dict[bytes, int] = {}
    by_contact: dict[NodeId, int] = {}
    is_folded = np.array([node in leaves for node in nodes], bool)
    order = np.argsort(~is_folded, kind="stable").tolist()
    found = [0] * len(ids)
    for row in order:
        names = known[ids[row]].identifiers
        contacts = [
            each.node
            for kind in ("email", "phone")
            if kind in names and (each := identifier(engine.keys.node, kind, names[kind])) is not None
        ]
        key: bytes = leaves.get(nodes[row], nodes[row])
        shared = [by_contact[node] for node in contacts if node in by_contact]
        number = shared[0] if shared and not is_folded[row] else number_of.setdefault(key, len(number_of))
        found[row] = number
        for node in contacts:
            by_contact.setdefault(node, number)
    return np.array(found, np.int64)
