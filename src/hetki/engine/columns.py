"""Columns: a part of the lake as arrays, by customer and in total order, and its events as frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hetki.engine.reading import Values, read_fields
from hetki.events.event import IDENTIFIED, OWN_SOURCE, EventId
from hetki.events.fields import json_object
from hetki.identity.survival import REACH, Survival, learned, plain, standing
from hetki.patterns.columnar import NULL, Column, Taken, Texts, taken_from
from hetki.patterns.machine import entry, inner

Numbers = NDArray[np.int64]

#: A longer history is sorted first; what is in order costs inserting nothing.
INSERTED_MAX: Final = 64
#: Built-in fields that stand in an event's context, and where.
OF_CONTEXT: Final[Mapping[str, tuple[str, ...]]] = {
    "device": ("device", "type"),
    "locale": ("locale",),
    "page_path": ("page", "path"),
}


class Events:
    """Events of a part of the lake. Row n of every array is the n-th event in order: by customer, then in
    total order; `rows` is where it stands in the table. Customers are numbered from 0.
    """

    def __init__(self, table: pa.Table, customer: Numbers, n_customers: int) -> None:
        self.table = table
        self.n_customers = n_customers
        self.sources, source = _encoded(table["source"])
        order = np.argsort(np.array(self.sources, object))
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        at, sequence = _numbers(table["told_at"]), _numbers(table["sequence"])
        source_rank = ranks[source] if len(order) else source
        self.rows = in_order(customer, n_customers, at, source_rank, sequence)
        _order_ties(self.rows, customer, at, source_rank, sequence, table["message_id"])
        self.customer, self.at, self.source = customer[self.rows], at[self.rows], source[self.rows]
        self.names, name = _encoded(table["name"])
        self.name = name[self.rows]
        self.gpc = table["gpc"].to_numpy()[self.rows]
        self.starts = np.searchsorted(self.customer, np.arange(n_customers + 1))

    def of_name(self, name: str) -> Numbers:
        """The places of the events of one name."""
        if name not in self.names:
            return np.zeros(0, np.int64)
        return np.flatnonzero(self.name == self.names.index(name))


class Traits:
    """The customers' traits as of each event: what stands of what `Customer Identified` has told by then.

    The latest value is found in columns. Under another rule, and where a null takes a value back, what stands
    is learned event by event, as the fold does.
    """

    def __init__(self, events: Events, names: Iterable[str], survivals: Mapping[str, Survival]) -> None:
        self._events, self._values, self._place = events, dict[str, Values](), dict[str, Numbers]()
        places, wanted = events.of_name(IDENTIFIED), sorted(names)
        if not wanted:
            return
        rows = pa.array(events.rows[places])
        properties, context = (_flat(events.table[each].take(rows)) for each in ("properties", "context"))
        own = [number for number, source in enumerate(events.sources) if source == OWN_SOURCE]
        is_corrected = bool(np.isin(events.source[places], own).any())
        for name, values in zip(wanted, read_fields(properties, wanted), strict=True):
            if name in REACH:
                values = _told(name, properties.to_pylist(), context.to_pylist())
            values = [plain(each) for each in values]
            is_told = np.array([each is not None for each in values], np.bool_)
            survival = survivals[name]
            by_rule = survival.survives != "most_recent" or is_corrected
            if by_rule or _is_taken_back(name, is_told, properties):
                values = _standing(name, survival, events, places, properties, context)
                is_told[:] = True
            last = np.full(len(events.at), -1, np.int64)
            last[places[is_told]] = np.flatnonzero(is_told)
            set_at = np.maximum.accumulate(np.where(last >= 0, np.arange(len(last)), -1))
            known = set_at >= events.starts[events.customer]
            self._values[name], self._place[name] = values, np.where(known, last[set_at], -1)

    def column(self, name: str, taken: Taken, places: Numbers, texts: Texts) -> Column:
        """A trait as of some events."""
        if name not in self._values:
            return np.full(len(places), NULL)
        column = np.append(taken_from(self._values[name], taken, texts), NULL)
        return column[self._place[name][places]]

    def known_at(self, place: int) -> dict[str, object]:
        """The traits of an event's customer as of then."""
        told = ((name, int(where[place])) for name, where in self._place.items())
        known = {name: self._values[name][row] for name, row in told if row >= 0}
        return {name: value for name, value in known.items() if value is not None}


class EventsFrame:
    """Events of one name as columns: see `patterns.columnar.Frame`. Fields are decoded when it is made."""

    def __init__(
        self, events: Events, places: Numbers, names: Sequence[str], traits: Traits, texts: Texts
    ) -> None:
        self.texts, self.odd = texts, np.zeros(len(places), np.bool_)
        self._events, self._places, self._traits = events, places, traits
        self._taken: dict[tuple[str, Taken], Column] = {}
        self._values: dict[str, Values] = {}
        own = [each for each in names if each not in ("occurred_at", "channel", "source", *OF_CONTEXT)]
        rows = pa.array(events.rows[places])
        if own:
            read = read_fields(_flat(events.table["properties"].take(rows)), own)
            self._values = dict(zip(own, read, strict=True))
        wanted = [each for each in names if each in OF_CONTEXT]
        if wanted:
            contexts = pc.dictionary_encode(_flat(events.table["context"].take(rows)))
            heads = [OF_CONTEXT[each][0] for each in wanted]
            read = read_fields(contexts.dictionary, heads)
            indices = contexts.indices.to_pylist()
            for each, values in zip(wanted, read, strict=True):
                found = [_below(value, OF_CONTEXT[each][1:]) for value in values]
                self._values[each] = [found[index] for index in indices]

    def field(self, name: str, taken: Taken) -> Column:
        """A field of the events, taken as a type."""
        column = self._taken.get((name, taken))
        if column is None:
            column = self._taken[name, taken] = self._column(name, taken)
        return column

    def _column(self, name: str, taken: Taken) -> Column:
        events, rows = self._events, self._events.rows[self._places]
        if name == "occurred_at":
            at = events.at[self._places]
            return taken_from(at.tolist(), "number" if taken == "time" else taken, self.texts)
        if name in ("channel", "source"):
            texts, number = _encoded(events.table[name].take(pa.array(rows)))
            return taken_from(texts, taken, self.texts)[number] if texts else np.zeros(0)
        return taken_from(self._values[name], taken, self.texts)

    def trait(self, name: str, taken: Taken) -> Column:
        """A trait of the events' customers as of then, taken as a type."""
        return self._traits.column(name, taken, self._places, self.texts)


def _told(name: str, properties: list[str], context: list[str]) -> Values:
    """What may stand in the context, too, where the properties do not have it (a null is had)."""
    read = [
        (json_object(each.encode()), json_object(other.encode()))
        for each, other in zip(properties, context, strict=True)
    ]
    return [each.get(name, other.get(name)) for each, other in read]


def _is_taken_back(name: str, is_told: NDArray[np.bool_], properties: pa.Array) -> bool:
    """Whether some event tells a null of a trait. Few texts have one, so few are read again."""
    has_null = pc.match_substring(properties, "null").to_numpy(zero_copy_only=False)
    texts = properties.take(pa.array(np.flatnonzero(has_null & ~is_told))).to_pylist()
    return any(json_object(each.encode()).get(name, "") is None for each in texts)


def _standing(
    name: str, survival: Survival, events: Events, places: Numbers, properties: pa.Array, context: pa.Array
) -> Values:
    """What stands of a trait after each event that may tell it."""
    values, heard, before = list[object](), None, -1
    read = zip(places.tolist(), properties.to_pylist(), context.to_pylist(), strict=True)
    for place, text, around in read:
        if events.customer[place] != before:
            heard, before = None, events.customer[place]
        told = json_object(text.encode())
        known = json_object(around.encode()) if name in REACH else {}
        source = events.sources[events.source[place]]
        heard = learned(heard, name, survival, told, known, source, 0, EventId(b""))
        values.append(standing({name: heard}).get(name) if heard else None)
    return values


def _below(value: object, path: tuple[str, ...]) -> object:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _numbers(column: pa.ChunkedArray) -> Numbers:
    return np.asarray(column.to_numpy(), np.int64)


def _encoded(column: pa.ChunkedArray) -> tuple[list[str], Numbers]:
    """Few texts, each once, and which of them stands in each row."""
    encoded = _flat(pc.dictionary_encode(column))
    return encoded.dictionary.to_pylist(), np.asarray(encoded.indices.to_numpy(), np.int64)


def _order_ties(
    rows: Numbers,
    customer: Numbers,
    at: Numbers,
    source: Numbers,
    sequence: Numbers,
    message: pa.ChunkedArray,
) -> None:
    """Order what differs only in its message id."""
    equal = np.ones(max(len(rows) - 1, 0), np.bool_)
    for column in (customer, at, source, sequence):
        ordered = column[rows]
        equal &= ordered[1:] == ordered[:-1]
    place = 0
    tied = np.flatnonzero(equal).tolist()
    while place < len(tied):
        first = last = tied[place]
        while place < len(tied) and tied[place] == last:
            last, place = last + 1, place + 1
        some = rows[first : last + 1].tolist()
        rows[first : last + 1] = sorted(some, key=lambda row: message[row].as_py())


def in_order(customer: Numbers, n_customers: int, at: Numbers, source: Numbers, sequence: Numbers) -> Numbers:
    """Rows by customer, time, source and sequence. Files are written in order of arrival, so that little is
    left to sort within a customer; what is much is sorted, not inserted."""
    starts = np.concatenate([[0], np.cumsum(np.bincount(customer, minlength=n_customers))]).astype(np.int64)
    rows = np.empty(len(customer), np.int64)
    _gather(customer, starts[:-1].copy(), rows)
    for each in np.flatnonzero(np.diff(starts) > INSERTED_MAX).tolist():
        some = rows[starts[each] : starts[each + 1]]
        some[:] = some[np.lexsort((sequence[some], source[some], at[some]))]
    _insert(starts, rows, at, source, sequence)
    return rows


@entry
def _gather(customer: Numbers, free: Numbers, rows: Numbers) -> None:
    """Put each row behind those of its customer."""
    for row in range(len(customer)):
        rows[free[customer[row]]] = row
        free[customer[row]] += 1


@entry
def _insert(starts: Numbers, rows: Numbers, at: Numbers, source: Numbers, sequence: Numbers) -> None:
    """Sort the rows of each customer, which are nearly in order, by inserting."""
    for each in range(len(starts) - 1):
        for place in range(starts[each] + 1, starts[each + 1]):
            row, before = rows[place], place - 1
            while before >= starts[each] and _later(rows[before], row, at, source, sequence):
                rows[before + 1] = rows[before]
                before -= 1
            rows[before + 1] = row


@inner
def _later(a: int, b: int, at: Numbers, source: Numbers, sequence: Numbers) -> bool:
    if at[a] != at[b]:
        return at[a] > at[b]
    if source[a] != source[b]:
        return source[a] > source[b]
    return sequence[a] > sequence[b]
