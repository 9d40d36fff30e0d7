"""Pools: where the kernel keeps all customers' runs, and how entries come and go. `kernel` moves them.

A run is a row of `runs`, its tries a list of rows of `partials`, and what a step has bound a list of `nodes`,
the last event first, each with the registers of its step. Rows are whole numbers, so a million customers
are a few arrays.
"""

from __future__ import annotations

from typing import Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from hetki.patterns.automaton import NEVER, Numbers, Tables
from hetki.patterns.machine import inner

Floats = NDArray[np.float64]

# Columns of `Tables.patterns`, `steps`, `stages` and `timed`.
P_STEP, P_STEPS, P_STAGE, P_STAGES, P_TIMED, P_N_TIMED, P_WITHIN, P_REPEAT, P_KEY_STEP, P_KEY = range(10)
P_KEY_FIRST, P_PERIOD, P_ONE_OPEN, P_BEFORE, P_ENDING, P_ENDING_STOP = range(10, 16)
S_LEAST, S_MOST, S_NEXT, S_BETWEEN, S_LIMIT, S_LIMIT_US, S_STAGE, S_ANCHORS, S_ANCHORS_STOP = range(9)
G_FIRST, G_LAST, G_COLLECTS, G_WAITS, G_WAITS_STOP, G_AFTER, G_AFTER_STOP = range(7)
T_FOR, T_ANCHOR, T_BY = range(3)
# Columns of a run, a partial and a node; after the fixed ones a run has the silences before the start, a
# partial its deadlines and then the last node of each step.
R_FIRST, R_LAST, R_N, R_EMITTED, R_KEYS, R_DROPPED, R_BEFORE = range(7)
Q_NEXT, Q_STAGE, Q_OPEN_FROM, Q_STARTED, Q_START_ROW, Q_DUE, Q_DEADLINES = range(7)
N_ROW, N_BEFORE, N_COUNT, N_FIRST, N_AT = range(5)
# What `State.tops` counts.
TOP_RUNS, TOP_PARTIALS, TOP_NODES, TOP_KEYS, FREE_PARTIAL, FREE_NODE, TOP_HEAP = range(7)
TOP_MATCHES, TOP_BOUND, LONGEST, MOST, N_TOPS = 7, 8, 9, 10, 11
# Columns of a match, and of an event bound in it.
M_PATTERN, M_CUSTOMER, M_AT, M_DEADLINE, M_START, M_BOUND, M_BOUND_STOP = range(7)
#: Of a type of its own, so that nothing is compiled twice: once for a literal, once for a number.
NOBODY: Final = cast(int, np.int64(-1))


class Batch(NamedTuple):
    """Events in an order in which each customer's are in total order. `row` is what an event is called in
    matches; `concerns` and `opens` are bits of patterns, `bits` the truths of its name's conditions, and
    `closed` the patterns whose purpose has ended by this event, at `closed_at`."""

    row: Numbers
    customer: Numbers
    at: Numbers
    name: Numbers
    bits: Numbers
    concerns: Numbers
    opens: Numbers
    closed: Numbers
    closed_at: Numbers
    columns: Floats


class State(NamedTuple):
    """All customers' runs. `run_of` is of customer and pattern, -1 for none; `active` has the bits of the
    patterns of which a customer has open tries; `odd` marks customers of whom a register was not exact.
    `heap` is of deadlines, empty if nobody asks for them one by one."""

    run_of: NDArray[np.int32]
    active: Numbers
    odd: NDArray[np.bool_]
    runs: Numbers
    partials: Numbers
    nodes: Numbers
    registers: Floats
    keys: Numbers
    key_values: Floats
    heap: Numbers
    tops: Numbers
    stack: Floats
    matches: Numbers
    bound: Numbers


@inner
def register(t: Tables, s: State, p: int, q: int, index: int, n: int, is_first: bool) -> float:
    """A register of the last, or the first, event of a step; null if it has none."""
    node = s.partials[q, Q_DEADLINES + t.patterns[p, P_N_TIMED] + index]
    if node < 0:
        return np.nan
    if is_first:
        node = s.nodes[node, N_FIRST]
    return s.registers[node, n]


@inner
def count(t: Tables, s: State, p: int, q: int, index: int) -> int:
    """How many events a step has bound."""
    node = s.partials[q, Q_DEADLINES + t.patterns[p, P_N_TIMED] + index]
    return s.nodes[node, N_COUNT] if node >= 0 else 0


@inner
def is_full(s: State, n_patterns: int) -> bool:
    """Whether a pool may be too small for one more event: each try, and a new one, may ask an entry of it."""
    slack = n_patterns * (s.tops[LONGEST] + 2)
    full = s.tops[TOP_RUNS] + n_patterns > s.runs.shape[0]
    full = full or s.tops[TOP_PARTIALS] + n_patterns > s.partials.shape[0]
    full = full or s.tops[TOP_NODES] + slack > s.nodes.shape[0]
    full = full or s.tops[TOP_KEYS] + slack > s.keys.shape[0]
    full = full or (s.heap.shape[0] > 1 and s.tops[TOP_HEAP] + slack > s.heap.shape[0])
    full = full or s.tops[TOP_MATCHES] + slack > s.matches.shape[0]
    return full or s.tops[TOP_BOUND] + slack * s.tops[MOST] > s.bound.shape[0]


@inner
def n_open(s: State, run: int, at: int) -> int:
    """How many tries are open at an instant."""
    n = 0
    q = s.runs[run, R_FIRST] if run >= 0 else -1
    while q >= 0:
        if s.partials[q, Q_DUE] == NEVER or s.partials[q, Q_DUE] >= at:
            n += 1
        q = s.partials[q, Q_NEXT]
    return n


@inner
def run_for(t: Tables, s: State, customer: int, p: int) -> int:
    """The run of a customer and pattern, an empty one if there was none."""
    run = s.run_of[customer, p]
    if run < 0:
        run = s.tops[TOP_RUNS]
        s.tops[TOP_RUNS] += 1
        s.run_of[customer, p] = run
        s.runs[run, R_FIRST] = s.runs[run, R_LAST] = s.runs[run, R_KEYS] = -1
        s.runs[run, R_N] = s.runs[run, R_DROPPED] = 0
        s.runs[run, R_EMITTED] = NEVER
        for n in range(t.patterns[p, P_BEFORE]):
            s.runs[run, R_BEFORE + n] = NEVER
    return run


@inner
def new_partial(t: Tables, s: State, p: int, at: int, row: int) -> int:
    """An empty try."""
    q = s.tops[FREE_PARTIAL]
    if q >= 0:
        s.tops[FREE_PARTIAL] = s.partials[q, Q_NEXT]
    else:
        q = s.tops[TOP_PARTIALS]
        s.tops[TOP_PARTIALS] += 1
    s.partials[q, Q_NEXT], s.partials[q, Q_STAGE], s.partials[q, Q_OPEN_FROM] = -1, 0, 0
    s.partials[q, Q_STARTED], s.partials[q, Q_START_ROW], s.partials[q, Q_DUE] = at, row, NEVER
    n_timed = t.patterns[p, P_N_TIMED]
    for n in range(n_timed):
        s.partials[q, Q_DEADLINES + n] = NEVER
    for n in range(t.patterns[p, P_STEPS]):
        s.partials[q, Q_DEADLINES + n_timed + n] = -1
    return q


@inner
def release(t: Tables, s: State, p: int, q: int) -> None:
    """Give back a try and what it held."""
    slot = Q_DEADLINES + t.patterns[p, P_N_TIMED]
    for n in range(t.patterns[p, P_STEPS]):
        node = s.partials[q, slot + n]
        if node >= 0:
            s.nodes[s.nodes[node, N_FIRST], N_BEFORE] = s.tops[FREE_NODE]
            s.tops[FREE_NODE] = node
    s.partials[q, Q_NEXT] = s.tops[FREE_PARTIAL]
    s.tops[FREE_PARTIAL] = q


@inner
def remove(t: Tables, s: State, customer: int, p: int, run: int, previous: int, q: int) -> None:
    """Take a try out of its run."""
    following = s.partials[q, Q_NEXT]
    if previous >= 0:
        s.partials[previous, Q_NEXT] = following
    else:
        s.runs[run, R_FIRST] = following
    if following < 0:
        s.runs[run, R_LAST] = previous
    s.runs[run, R_N] -= 1
    if s.runs[run, R_FIRST] < 0:
        s.active[customer] &= ~(1 << p)
    release(t, s, p, q)


@inner
def enter(t: Tables, s: State, customer: int, p: int, run: int, q: int, at: int, open_max: int) -> None:
    """Add a try; at the bound the oldest that is still open gives way."""
    if s.runs[run, R_N] >= open_max and n_open(s, run, at) >= open_max:
        previous, each = NOBODY, s.runs[run, R_FIRST]
        while s.partials[each, Q_DUE] != NEVER and s.partials[each, Q_DUE] < at:
            previous, each = each, s.partials[each, Q_NEXT]
        remove(t, s, customer, p, run, previous, each)
        s.runs[run, R_DROPPED] += 1
    if s.runs[run, R_LAST] >= 0:
        s.partials[s.runs[run, R_LAST], Q_NEXT] = q
    else:
        s.runs[run, R_FIRST] = q
    s.runs[run, R_LAST] = q
    s.runs[run, R_N] += 1
    s.tops[LONGEST] = max(s.tops[LONGEST], s.runs[run, R_N])
    s.active[customer] |= 1 << p


@inner
def hold(t: Tables, b: Batch, s: State, place: int, p: int, pair: int, q: int, index: int) -> None:
    """Make the event the last that a step has bound."""
    node = s.tops[FREE_NODE]
    if node >= 0:
        s.tops[FREE_NODE] = s.nodes[node, N_BEFORE]
    else:
        node = s.tops[TOP_NODES]
        s.tops[TOP_NODES] += 1
    slot = Q_DEADLINES + t.patterns[p, P_N_TIMED] + index
    before = s.partials[q, slot]
    s.nodes[node, N_ROW] = b.row[place]
    s.nodes[node, N_BEFORE] = before
    s.nodes[node, N_COUNT] = s.nodes[before, N_COUNT] + 1 if before >= 0 else 1
    s.nodes[node, N_FIRST] = s.nodes[before, N_FIRST] if before >= 0 else node
    s.nodes[node, N_AT] = b.at[place]
    span = t.who[pair, 1] + index
    lowest = t.register_span[span, 0]
    for n in range(lowest, t.register_span[span, 1]):
        s.registers[node, n - lowest] = b.columns[place, t.registers[n, 0]]
    s.partials[q, slot] = node


@inner
def emit(t: Tables, s: State, customer: int, p: int, run: int, q: int, at: int) -> None:
    """Tell an occurrence, unless it is a repetition."""
    kind = t.patterns[p, P_REPEAT]
    if kind == 2:
        emitted_at = s.runs[run, R_EMITTED]
        if emitted_at != NEVER and at - emitted_at < t.patterns[p, P_PERIOD]:
            return
        s.runs[run, R_EMITTED] = at
    elif kind == 1:
        first = t.patterns[p, P_KEY_FIRST] == 1
        key = register(t, s, p, q, t.patterns[p, P_KEY_STEP], t.patterns[p, P_KEY], first)
        if not np.isnan(key) and not is_new(s, run, key):
            return
    m = s.tops[TOP_MATCHES]
    s.tops[TOP_MATCHES] += 1
    s.matches[m, M_PATTERN], s.matches[m, M_CUSTOMER], s.matches[m, M_AT] = p, customer, at
    deadline = NEVER
    for n in range(t.patterns[p, P_ENDING], t.patterns[p, P_ENDING_STOP]):
        deadline = max(deadline, s.partials[q, Q_DEADLINES + t.lists[n, 0]])
    s.matches[m, M_DEADLINE], s.matches[m, M_START] = deadline, s.partials[q, Q_START_ROW]
    s.matches[m, M_BOUND] = s.tops[TOP_BOUND]
    slot = Q_DEADLINES + t.patterns[p, P_N_TIMED]
    for index in range(t.patterns[p, P_STEPS]):
        node = s.partials[q, slot + index]
        n = s.nodes[node, N_COUNT]
        top = s.tops[TOP_BOUND] + n
        s.tops[TOP_BOUND] = top
        for back in range(n):
            s.bound[top - 1 - back, 0], s.bound[top - 1 - back, 1] = index, s.nodes[node, N_ROW]
            node = s.nodes[node, N_BEFORE]
    s.matches[m, M_BOUND_STOP] = s.tops[TOP_BOUND]


@inner
def is_new(s: State, run: int, key: float) -> bool:
    """Whether a key was never told of a run; from now on it was."""
    each = s.runs[run, R_KEYS]
    while each >= 0:
        if s.key_values[each] == key:
            return False
        each = s.keys[each]
    each = s.tops[TOP_KEYS]
    s.tops[TOP_KEYS] += 1
    s.key_values[each], s.keys[each] = key, s.runs[run, R_KEYS]
    s.runs[run, R_KEYS] = each
    return True


@inner
def push(s: State, due: int, customer: int, p: int) -> None:
    """Put a deadline on the heap. Deadlines that come in their order cost one comparison, as in a queue."""
    n = s.tops[TOP_HEAP]
    s.tops[TOP_HEAP] += 1
    while n > 0 and s.heap[(n - 1) >> 1, 0] > due:
        shift(s, n, (n - 1) >> 1)
        n = (n - 1) >> 1
    s.heap[n, 0], s.heap[n, 1], s.heap[n, 2] = due, customer, p


@inner
def shift(s: State, place: int, other: int) -> None:
    """Put one entry of the heap in the place of another."""
    for column in range(3):
        s.heap[place, column] = s.heap[other, column]


@inner
def pop(s: State) -> None:
    """Take the earliest deadline off the heap."""
    n = s.tops[TOP_HEAP] - 1
    s.tops[TOP_HEAP] = n
    place, due = 0, s.heap[n, 0]
    while 2 * place + 1 < n:
        child = 2 * place + 1
        if child + 1 < n and s.heap[child + 1, 0] < s.heap[child, 0]:
            child += 1
        if s.heap[child, 0] >= due:
            break
        shift(s, place, child)
        place = child
    shift(s, place, n)
