"""Fast: the matcher over many customers' events at once. Start here; `matcher` is the definition.

    look(automaton, name, frame)            conditions over the events of one name -> bits and columns
    fold(automaton, runs, batch, until)     the automaton over all of them -> occurrences

`Runs` is the state between batches. Any split of a stream gives what the reference gives.
"""

from __future__ import annotations

from typing import Final, Mapping, NamedTuple, Sequence, TypeVar

import numpy as np
from numpy.typing import NDArray

from hetki.events.fields import Fields
from hetki.patterns import kernel
from hetki.patterns import pools as k
from hetki.patterns.automaton import NEVER, Automaton, Numbers, Wanted
from hetki.patterns.columnar import KEY, Column, Frame, Taken, Texts, is_true, taken_from, values
from hetki.patterns.matcher import OPEN_MAX
from hetki.patterns.tree import Field

#: What a pool of a new state holds, in entries.
POOL_MIN: Final = 1024


Kept = TypeVar("Kept", np.int64, np.float64)


class Looked(NamedTuple):
    """What the conditions say of the events of one name; see `kernel.Batch`."""

    bits: Numbers
    concerns: Numbers
    opens: Numbers
    columns: NDArray[np.float64]


class Found(NamedTuple):
    """One occurrence: number of the pattern, the customer, and the rows bound to each event step."""

    pattern: int
    customer: int
    occurred_at: int
    deadline: int | None
    start_row: int
    rows: tuple[tuple[int, ...], ...]


class FieldsFrame:
    """Events of one name as columns, read from their fields one by one."""

    def __init__(
        self, fields: Sequence[Fields], traits: Sequence[Mapping[str, object]], texts: Texts
    ) -> None:
        self.texts = texts
        self.odd = np.zeros(len(fields), np.bool_)
        self._fields, self._traits = fields, traits
        self._taken: dict[tuple[str, Taken], Column] = {}

    def field(self, name: str, taken: Taken) -> Column:
        """A field of the events, taken as a type."""
        column = self._taken.get((name, taken))
        if column is None:
            is_instant = name == "occurred_at" and taken == "time"
            found = [each.get(name) for each in self._fields]
            column = taken_from(found, "number" if is_instant else taken, self.texts)
            self._taken[name, taken] = column
        return column

    def trait(self, name: str, taken: Taken) -> Column:
        """A trait of the events' customers as of then, taken as a type."""
        return taken_from([each.get(name) for each in self._traits], taken, self.texts)


def look(automaton: Automaton, name: str, frame: Frame) -> Looked:
    """What the conditions of all patterns say of events of one name, and the values that others will ask."""
    with np.errstate(all="ignore"):
        return _looked(automaton, name, frame)


def _looked(automaton: Automaton, name: str, frame: Frame) -> Looked:
    reads = automaton.reads[automaton.names[name]]
    n = len(frame.odd)
    bits = np.zeros(n, np.int64)
    concerns, opens = np.full(n, reads.concerns[-1]), np.full(n, reads.opens[-1])
    for node, number in reads.bits.items():
        truth = is_true(node, frame)
        bits |= truth * np.int64(1 << number)
        if number in reads.concerns:
            concerns |= truth * np.int64(reads.concerns[number])
        if number in reads.opens:
            opens |= truth * np.int64(reads.opens[number])
    columns = np.full((n, automaton.n_columns), np.nan)
    for wanted, number in reads.columns.items():
        columns[:, number] = read(wanted, frame)
    return Looked(bits, concerns, opens, columns)


def read(wanted: Wanted, frame: Frame) -> Column:
    """One value of the events."""
    node, taken = wanted
    if taken == KEY and isinstance(node, Field):
        column = frame.field(node.name, taken)
        frame.odd |= np.isinf(column)
        return column
    return values(node, frame, taken)


class Runs:
    """The state of all customers and patterns, in pools that grow. `is_live`: deadlines are asked for one by
    one, as time passes, and so stand on a heap."""

    def __init__(self, automaton: Automaton, n_customers: int, is_live: bool = False) -> None:
        n_patterns, tops = len(automaton.patterns), np.zeros(k.N_TOPS, np.int64)
        tops[k.FREE_PARTIAL] = tops[k.FREE_NODE] = -1
        tops[k.MOST] = max(sum(step.most for step in each.events) for each in automaton.patterns)
        width = k.Q_DEADLINES + automaton.n_timed + automaton.n_steps
        self.automaton = automaton
        self.state = k.State(
            run_of=np.full((n_customers, n_patterns), -1, np.int32),
            active=np.zeros(n_customers, np.int64),
            odd=np.zeros(n_customers, np.bool_),
            runs=np.zeros((POOL_MIN, k.R_BEFORE + automaton.n_before), np.int64),
            partials=np.zeros((POOL_MIN, width), np.int64),
            nodes=np.zeros((POOL_MIN, 5), np.int64),
            registers=np.zeros((POOL_MIN, max(1, automaton.n_registers)), np.float64),
            keys=np.zeros(POOL_MIN, np.int64),
            key_values=np.zeros(POOL_MIN, np.float64),
            heap=np.zeros((POOL_MIN if is_live else 0, 3), np.int64),
            tops=tops,
            stack=np.zeros(1024, np.float64),
            matches=np.zeros((POOL_MIN, 7), np.int64),
            bound=np.zeros((POOL_MIN, 2), np.int64),
        )

    def grow(self) -> None:
        """Make room in every pool that may be full."""
        s = self.state
        slack = s.run_of.shape[1] * (int(s.tops[k.LONGEST]) + 2)
        self.state = s._replace(
            runs=_grown(s.runs, s.tops[k.TOP_RUNS] + slack),
            partials=_grown(s.partials, s.tops[k.TOP_PARTIALS] + slack),
            nodes=_grown(s.nodes, s.tops[k.TOP_NODES] + slack),
            registers=_grown(s.registers, s.tops[k.TOP_NODES] + slack),
            keys=_grown(s.keys, s.tops[k.TOP_KEYS] + slack),
            key_values=_grown(s.key_values, s.tops[k.TOP_KEYS] + slack),
            heap=_grown(s.heap, s.tops[k.TOP_HEAP] + slack) if len(s.heap) else s.heap,
            matches=_grown(s.matches, s.tops[k.TOP_MATCHES] + slack),
            bound=_grown(s.bound, s.tops[k.TOP_BOUND] + slack * s.tops[k.MOST]),
        )

    def taken(self) -> list[Found]:
        """What was found since it was last asked."""
        s = self.state
        matches = s.matches[: s.tops[k.TOP_MATCHES]].tolist()
        steps, rows = (s.bound[: s.tops[k.TOP_BOUND], column].tolist() for column in range(2))
        s.tops[k.TOP_MATCHES] = s.tops[k.TOP_BOUND] = 0
        return [_found(self.automaton, match, steps, rows) for match in matches]


def _grown(pool: NDArray[Kept], need: int) -> NDArray[Kept]:
    if need <= len(pool):
        return pool
    larger = np.zeros((max(2 * len(pool), int(need)), *pool.shape[1:]), pool.dtype)
    larger[: len(pool)] = pool
    return larger


def _found(automaton: Automaton, match: list[int], steps: list[int], rows: list[int]) -> Found:
    pattern, customer, at, deadline, start_row, first, last = match
    n_steps = len(automaton.patterns[pattern].events)
    bound: list[tuple[int, ...]]
    if last - first == n_steps:
        bound = [(row,) for row in rows[first:last]]
    else:
        bound = [()] * n_steps
        for place in range(first, last):
            bound[steps[place]] += (rows[place],)
    return Found(pattern, customer, at, None if deadline == NEVER else deadline, start_row, tuple(bound))


def fold(automaton: Automaton, runs: Runs, batch: k.Batch, until: int, open_max: int = OPEN_MAX) -> None:
    """Move all runs by a batch; `until` is settled before an event is looked at, not after the last."""
    done, n, tables = 0, len(batch.at), automaton.tables
    while (done := kernel.advance(tables, batch, runs.state, done, until, open_max)) < n:
        runs.grow()


def settle(automaton: Automaton, runs: Runs, until: int) -> None:
    """Tell what lies at or before `until`."""
    if len(runs.state.heap):
        while not kernel.settle_due(automaton.tables, runs.state, until):
            runs.grow()
        return
    done = 0
    while (done := kernel.settle_all(automaton.tables, runs.state, done, until)) < len(runs.state.active):
        runs.grow()
