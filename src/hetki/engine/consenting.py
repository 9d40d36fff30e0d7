"""Consenting: which purposes are open to the events of a part of the lake, and what closes with them.

Customers whose statements are of one leaf are looked at all at once (`consent.columns`). For those with
several the fold itself runs over what was said and joined, without moments. What neither can say is left to
the fold as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hetki.consent.columns import Allows, Spoken, purposes_of
from hetki.consent.statements import ALL, SPOKEN, Statement, mask, spoken
from hetki.engine.columns import Events, Numbers
from hetki.engine.history import Row, entries, names_of
from hetki.engine.parts import Part
from hetki.events.event import Event
from hetki.moments.fold import Fact, Folded, Joined, Program, step

History = list[Fact | Joined]


def open_events(
    events: Events, part: Part, program: Program
) -> tuple[Numbers, Numbers, Numbers, NDArray[np.bool_]]:
    """The purposes open to each event, those that have closed by it and when, and the customers whom the fold
    must judge."""
    n, names = len(events.at), [name for name, _ in program.purposes]
    purpose, granted = np.zeros(n, np.int64), np.zeros(n, np.bool_)
    slow, speaks = np.zeros(events.n_customers, np.bool_), np.zeros(events.n_customers, np.bool_)
    for name in sorted(SPOKEN):
        places = events.of_name(name)
        told: dict[str, list[int]] = {}  # few texts, as most say the same
        texts = events.table["properties"].take(pa.array(events.rows[places])).to_pylist()
        for place, properties in zip(places.tolist(), texts, strict=True):
            told.setdefault(properties, []).append(place)
        for properties, mine in told.items():
            event = Event("", "", "", name, 0, 0, {}, properties.encode())
            said = spoken(event, dict(program.purposes), {})
            if len(said) > 1 or ALL in said or any(map(_is_bounded, said.values())):
                slow[events.customer[mine]] = True
                continue
            for each, statement in said.items():
                purpose[mine], granted[mine] = 1 << names.index(each), statement.granted
        speaks[events.customer[places]] = True
    speaks[events.customer[events.gpc]] = True
    many = _has_many_leaves(events, speaks) & ~slow
    contracts = np.array([program.contracts.get(each, 0) for each in events.sources] or [0], np.int64)
    given = [each for _, each in program.purposes]
    allows = Allows(
        _bits(each.allows(None) for each in given),
        _bits(each.allows("granted") for each in given),
        _bits(each.allows("refused") for each in given),
        _bits(each.gpc for each in given),
    )
    closed_to = np.array([program.closed_to.get(each, 0) for each in events.names] or [0], np.int64)
    contract = contracts[events.source] & ~closed_to[events.name]
    told_of = Spoken(events.customer, purpose, granted, events.gpc, contract)
    opened, closed = purposes_of(told_of, allows)
    closed_at = events.at.copy()
    for customer, history in histories_of(events, part, program, many):
        consent = _Consent(program, int(events.starts[customer]), contract)
        if not consent.told(history, opened, closed, closed_at):
            slow[customer] = True
    return opened, closed, closed_at, slow


class _Consent:
    """Consent of one customer with several leaves: the fold over what is said and joined, without moments."""

    def __init__(self, program: Program, start: int, contract: Numbers) -> None:
        self.program = msgspec.structs.replace(
            program, moments=(), segments=(), listening={}, watching={}, traits={}
        )
        self.start, self.contract = start, contract
        self.folded = Folded()

    def told(self, history: History, opened: Numbers, closed: Numbers, closed_at: Numbers) -> bool:
        """Write down what is open to each event and what has closed by it; false if the fold must judge, as
        purposes close between two events at different times, or behind the last."""
        place, waiting, open_to = self.start, 0, dict[str, int]()
        for item in history:
            joins = isinstance(item, Joined)
            event = None if isinstance(item, Joined) else item.event
            if event is None or event.gpc or event.name in SPOKEN:
                gone = self._closed_by(item)
                open_to = {}
                if joins and gone and waiting:
                    return False
                if joins and gone:
                    waiting, waiting_since = gone, item.order_key[0]
                elif gone and waiting:
                    return False
                if not joins:
                    closed[place], closed_at[place] = gone, item.order_key[0]
            if isinstance(item, Joined):
                continue
            if waiting:
                closed[place], closed_at[place], waiting = waiting, waiting_since, 0
            group = self._group(item.leaf.hex())
            if group not in open_to:
                open_to[group] = self._mask(group, item.order_key[0])
            opened[place] = open_to[group] & int(self.contract[place])
            place += 1
        return not waiting

    def _group(self, node: str) -> str:
        return self.folded.groups.get(node, node)

    def _mask(self, group: str, at: int) -> int:
        return mask(self.program.purposes, self.folded.statements.get(group, {}), at)

    def _closed_by(self, item: Fact | Joined) -> int:
        """Fold one item; the purposes that were open to whom it concerns and are not any more."""
        nodes = [item.node_a, item.node_b] if isinstance(item, Joined) else [item.leaf.hex()]
        at, before = item.order_key[0], 0
        if len({self._group(node) for node in nodes}) < len(nodes):
            nodes = nodes[:1]  # they are joined already
        for node in nodes:
            before |= self._mask(self._group(node), at)
        self.folded, _ = step(self.program, self.folded, [item], 0)
        return before & ~self._mask(self._group(nodes[0]), at)


def _is_bounded(statement: Statement) -> bool:
    """Whether a grant opens less than all, or not for ever."""
    return statement.until is not None or statement.categories is not None


def _bits(truths: Iterable[bool]) -> int:
    return sum(1 << number for number, truth in enumerate(truths) if truth)


def _has_many_leaves(events: Events, speaks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the customers who said something have events of several leaves."""
    many = np.zeros(events.n_customers, np.bool_)
    places = np.flatnonzero(speaks[events.customer])
    leaves = events.table["leaf"].take(pa.array(events.rows[places])).to_numpy()
    same = events.customer[places][1:] == events.customer[places][:-1]
    other = places[1:][same & (leaves[1:] != leaves[:-1])]
    many[events.customer[other]] = True
    return many


def histories_of(
    events: Events, part: Part, program: Program, chosen: NDArray[np.bool_]
) -> Iterator[tuple[int, History]]:
    """Some customers of a part one by one, as the fold reads them: the events that a program looks at, and
    links, in order."""
    numbers = [events.names.index(each) for each in names_of(program) if each in events.names]
    looked_at = np.isin(events.name, numbers)
    places = np.flatnonzero(chosen[events.customer] & (looked_at | events.gpc))
    table = events.table.take(pa.array(events.rows[places])).drop_columns(["code"])
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    links = part.links(np.flatnonzero(chosen).tolist())
    numbered = zip(events.customer[places].tolist(), rows, strict=True)
    for customer, mine in groupby(numbered, key=itemgetter(0)):
        told: list[Row] = [("", *row[:8], row[8].encode(), row[9].encode(), row[10]) for _, row in mine]
        linked = links.get(part.customers[customer])
        yield customer, entries(sorted(told + linked, key=itemgetter(1, 2, 3, 4)) if linked else told)
