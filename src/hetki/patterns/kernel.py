"""Kernel: the automaton's tables run over events as columns, in machine code. `matcher` is the definition.

`advance` moves every customer's patterns by a batch of events, `settle` by time alone. Both go on from where
they stopped when a pool of the state was full: the caller makes it larger (`state`) and calls again. What
is held of an event is a node with the registers of its step, so a batch may be forgotten once it is folded.

`advance`, `settle_due` and `settle_all` are compiled when they are first called, which takes some seconds,
and kept on disk. What is kept is known by the text of this file: `SOURCES` stands for the text of the others.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from hetki.patterns.automaton import NEVER, Tables
from hetki.patterns.machine import entry, inner
from hetki.patterns.pools import (
    G_AFTER,
    G_AFTER_STOP,
    G_COLLECTS,
    G_FIRST,
    G_LAST,
    G_WAITS,
    G_WAITS_STOP,
    N_AT,
    NOBODY,
    P_BEFORE,
    P_ENDING,
    P_ENDING_STOP,
    P_N_TIMED,
    P_ONE_OPEN,
    P_STAGE,
    P_STAGES,
    P_STEP,
    P_TIMED,
    P_WITHIN,
    Q_DEADLINES,
    Q_DUE,
    Q_NEXT,
    Q_OPEN_FROM,
    Q_STAGE,
    Q_STARTED,
    R_BEFORE,
    R_FIRST,
    S_ANCHORS,
    S_ANCHORS_STOP,
    S_BETWEEN,
    S_LEAST,
    S_LIMIT,
    S_LIMIT_US,
    S_MOST,
    S_NEXT,
    S_STAGE,
    T_BY,
    T_FOR,
    TOP_HEAP,
    Batch,
    State,
    count,
    emit,
    enter,
    hold,
    is_full,
    n_open,
    new_partial,
    pop,
    push,
    register,
    release,
    remove,
    run_for,
)
from hetki.patterns.programs import evaluated

#: A hash of the other files that are compiled into this one; a test says what it must be.
SOURCES: Final = "9c431d02b05fd2e9"


@entry
def advance(t: Tables, b: Batch, s: State, start: int, until: int, open_max: int) -> int:
    """Fold a batch from its event `start` on; the event that was not folded as a pool is full, else its
    length. Silences that lie at or before `until` and before an event are told before it is looked at."""
    n_patterns = t.patterns.shape[0]
    for place in range(start, b.at.shape[0]):
        if is_full(s, n_patterns):
            return place
        customer = b.customer[place]
        if b.closed[place]:
            for p in range(n_patterns):
                if (b.closed[place] >> p) & 1:
                    withdraw(t, s, customer, p, b.closed_at[place])
        todo = b.concerns[place] & (b.opens[place] | s.active[customer])
        for p in range(n_patterns):
            if not todo >> p:
                break
            if (todo >> p) & 1:
                observe(t, b, s, place, p, until, open_max)
    return b.at.shape[0]


@inner
def observe(t: Tables, b: Batch, s: State, place: int, p: int, until: int, open_max: int) -> None:
    """`matcher.observe`: move the tries of one customer and pattern by one event, then open one."""
    customer, at = b.customer[place], b.at[place]
    pair = t.pairs[b.name[place], p]
    run = s.run_of[customer, p]
    ends = t.patterns[p, P_ENDING] < t.patterns[p, P_ENDING_STOP]
    matched = False
    if run >= 0 and s.runs[run, R_FIRST] >= 0:
        if ends:
            settle_run(t, s, customer, p, min(until, at - 1))
        previous, q = NOBODY, s.runs[run, R_FIRST]
        while q >= 0:
            following = s.partials[q, Q_NEXT]
            alive = advanced(t, b, s, place, p, pair, q)
            if alive and not ends and s.partials[q, Q_STAGE] == t.patterns[p, P_STAGES]:
                emit(t, s, customer, p, run, q, at)
                matched, alive = True, False
            if alive:
                previous = q
            else:
                remove(t, s, customer, p, run, previous, q)
            q = following
    if (b.opens[place] >> p) & 1:
        blocked = t.patterns[p, P_ONE_OPEN] == 1 and (matched or n_open(s, run, at) > 0)
        if not blocked:
            start(t, b, s, place, p, pair, open_max)
        remember(t, b, s, place, p, pair)


@inner
def advanced(t: Tables, b: Batch, s: State, place: int, p: int, pair: int, q: int) -> bool:
    """Move one try by an event; whether it lives on."""
    at = b.at[place]
    due = s.partials[q, Q_DUE]
    if due != NEVER:
        if at > due:
            return True
    elif at > s.partials[q, Q_STARTED] + t.patterns[p, P_WITHIN]:
        return False
    if is_broken(t, b, s, place, p, pair, q):
        return False
    return True if due != NEVER else moved(t, b, s, place, p, pair, q)


@inner
def is_broken(t: Tables, b: Batch, s: State, place: int, p: int, pair: int, q: int) -> bool:
    """Whether an event breaks a silence that is watched at its instant."""
    for n in range(t.forbid_span[pair, 0], t.forbid_span[pair, 1]):
        timed = t.forbids[n, 1]
        if timed < 0:
            if s.partials[q, Q_STAGE] != t.forbids[n, 0]:
                continue
        else:
            deadline = s.partials[q, Q_DEADLINES + timed]
            if deadline == NEVER or b.at[place] > deadline:
                continue
        if holds(t, b, s, place, p, q, t.forbids[n, 2], t.forbids[n, 3]):
            return True
    return False


@inner
def moved(t: Tables, b: Batch, s: State, place: int, p: int, pair: int, q: int) -> bool:
    """Bind an event to a step of the awaited stage, or to one that is passed and may have more."""
    at, step0 = b.at[place], t.patterns[p, P_STEP]
    stage = t.patterns[p, P_STAGE] + s.partials[q, Q_STAGE]
    over = is_over(t, s, q, stage, at)
    strict = False
    for index in range(t.stages[stage, G_FIRST], t.stages[stage, G_LAST] + 1):
        step = step0 + index
        n = count(t, s, p, q, index)
        if n >= t.steps[step, S_LEAST]:
            continue
        if is_past(t, s, p, q, step, at):
            if not may_have_more(t, s, p, q, t.steps[step, S_LIMIT]):
                return False
            continue
        if not over:
            continue
        if fits(t, b, s, place, p, pair, q, index):
            return bind(t, b, s, place, p, pair, q, index)
        strict = strict or t.steps[step, S_BETWEEN if n else S_NEXT] == 1
    return collected(t, b, s, place, p, pair, q) or not strict


@inner
def collected(t: Tables, b: Batch, s: State, place: int, p: int, pair: int, q: int) -> bool:
    """Bind one more event to a step of the stage that is passed; what has to be in a row ends without it."""
    if s.partials[q, Q_OPEN_FROM] == s.partials[q, Q_STAGE]:
        return False
    step0, stage = t.patterns[p, P_STEP], t.patterns[p, P_STAGE] + s.partials[q, Q_OPEN_FROM]
    closed = False
    for index in range(t.stages[stage, G_FIRST], t.stages[stage, G_LAST] + 1):
        step = step0 + index
        if count(t, s, p, q, index) >= t.steps[step, S_MOST] or is_past(t, s, p, q, step, b.at[place]):
            continue
        if fits(t, b, s, place, p, pair, q, index):
            hold(t, b, s, place, p, pair, q, index)
            return True
        closed = closed or t.steps[step, S_BETWEEN] == 1
    if closed:
        s.partials[q, Q_OPEN_FROM] = s.partials[q, Q_STAGE]
    return False


@inner
def may_have_more(t: Tables, s: State, p: int, q: int, index: int) -> bool:
    """Whether a step that is passed may still bind a later event, from which a limit would run anew."""
    step = t.patterns[p, P_STEP] + index
    stage = t.steps[step, S_STAGE]
    is_open = s.partials[q, Q_OPEN_FROM] <= stage and stage < s.partials[q, Q_STAGE]
    return is_open and count(t, s, p, q, index) < t.steps[step, S_MOST]


@inner
def is_past(t: Tables, s: State, p: int, q: int, step: int, at: int) -> bool:
    """Whether the time that a step may take is over."""
    index = t.steps[step, S_LIMIT]
    if index < 0:
        return False
    node = s.partials[q, Q_DEADLINES + t.patterns[p, P_N_TIMED] + index]
    return at > s.nodes[node, N_AT] + t.steps[step, S_LIMIT_US]


@inner
def is_over(t: Tables, s: State, q: int, stage: int, at: int) -> bool:
    """Whether the silences that must end before a stage have ended."""
    for n in range(t.stages[stage, G_WAITS], t.stages[stage, G_WAITS_STOP]):
        if at <= s.partials[q, Q_DEADLINES + t.lists[n, 0]]:
            return False
    return True


@inner
def fits(t: Tables, b: Batch, s: State, place: int, p: int, pair: int, q: int, index: int) -> bool:
    """Whether an event fits a step."""
    span = t.who[pair, 1] + index
    for n in range(t.step_span[span, 0], t.step_span[span, 1]):
        if holds(t, b, s, place, p, q, t.choices[n, 0], t.choices[n, 1]):
            return True
    return False


@inner
def holds(t: Tables, b: Batch, s: State, place: int, p: int, q: int, bit: int, program: int) -> bool:
    """Whether a condition is true of an event and a try: its bit, then its program."""
    if bit >= 0 and not (b.bits[place] >> bit) & 1:
        return False
    return program < 0 or evaluated(t, b, s, place, p, q, program) == 1.0


@inner
def bind(t: Tables, b: Batch, s: State, place: int, p: int, pair: int, q: int, index: int) -> bool:
    """Bind an event to a step that awaits it; false if a deadline that it should name is missing."""
    step0, at = t.patterns[p, P_STEP], b.at[place]
    step = step0 + index
    s.partials[q, Q_OPEN_FROM] = s.partials[q, Q_STAGE]
    hold(t, b, s, place, p, pair, q, index)
    if t.steps[step, S_MOST] > 1 and count(t, s, p, q, index) != t.steps[step, S_LEAST]:
        return True
    for n in range(t.steps[step, S_ANCHORS], t.steps[step, S_ANCHORS_STOP]):
        if not anchored(t, s, at, p, q, index, t.lists[n, 0]):
            return False
    stage = t.patterns[p, P_STAGE] + t.steps[step, S_STAGE]
    for peer in range(t.stages[stage, G_FIRST], t.stages[stage, G_LAST] + 1):
        if count(t, s, p, q, peer) < t.steps[step0 + peer, S_LEAST]:
            return True
    for n in range(t.stages[stage, G_AFTER], t.stages[stage, G_AFTER_STOP]):
        anchored(t, s, at, p, q, index, t.lists[n, 0])
    s.partials[q, Q_STAGE] += 1
    s.partials[q, Q_OPEN_FROM] = s.partials[q, Q_STAGE] - t.stages[stage, G_COLLECTS]
    low, high = t.patterns[p, P_ENDING], t.patterns[p, P_ENDING_STOP]
    if low < high and s.partials[q, Q_STAGE] == t.patterns[p, P_STAGES]:
        due = at
        for n in range(low, high):
            due = max(due, s.partials[q, Q_DEADLINES + t.lists[n, 0]])
        s.partials[q, Q_DUE] = due
        if s.heap.shape[0] > 1:
            push(s, due, b.customer[place], p)
    return True


@inner
def anchored(t: Tables, s: State, at: int, p: int, q: int, index: int, timed: int) -> bool:
    """Start a silence of a step; false if the event should name its deadline and does not."""
    row = t.patterns[p, P_TIMED] + timed
    if t.timed[row, T_FOR] >= 0:
        deadline = at + t.timed[row, T_FOR]
    else:
        named = register(t, s, p, q, index, t.timed[row, T_BY], False)
        if np.isnan(named):
            return False
        deadline = np.int64(named)
    s.partials[q, Q_DEADLINES + timed] = deadline
    return True


@inner
def start(t: Tables, b: Batch, s: State, place: int, p: int, pair: int, open_max: int) -> None:
    """Open a try at the first step that the event fits, unless a silence before the start is broken."""
    customer, at = b.customer[place], b.at[place]
    who = t.who[pair, 0]
    if who >= 0 and not (b.bits[place] >> who) & 1:
        return
    run = run_for(t, s, customer, p)
    for n in range(t.patterns[p, P_BEFORE]):
        broken_at = s.runs[run, R_BEFORE + n]
        if broken_at != NEVER and broken_at >= at - t.before_us[p, n]:
            return
    for n in range(t.opening_span[pair, 0], t.opening_span[pair, 1]):
        index = t.opening[n, 0]
        if not fits(t, b, s, place, p, pair, NOBODY, index):
            continue
        q = new_partial(t, s, p, at, b.row[place])
        if not bind(t, b, s, place, p, pair, q, index):
            release(t, s, p, q)
        elif s.partials[q, Q_DUE] == NEVER and s.partials[q, Q_STAGE] == t.patterns[p, P_STAGES]:
            emit(t, s, customer, p, run, q, at)
            release(t, s, p, q)
        else:
            enter(t, s, customer, p, run, q, at, open_max)
        return


@inner
def remember(t: Tables, b: Batch, s: State, place: int, p: int, pair: int) -> None:
    """Note when a silence before the start is broken."""
    for n in range(t.before_span[pair, 0], t.before_span[pair, 1]):
        bit = t.before[n, 1]
        if bit < 0 or (b.bits[place] >> bit) & 1:
            run = run_for(t, s, b.customer[place], p)
            s.runs[run, R_BEFORE + t.before[n, 0]] = b.at[place]


@inner
def withdraw(t: Tables, s: State, customer: int, p: int, since: int) -> None:
    """Drop what is still open when consent ends: `matcher.withdraw`."""
    run = s.run_of[customer, p]
    if run < 0:
        return
    for n in range(t.patterns[p, P_BEFORE]):
        s.runs[run, R_BEFORE + n] = NEVER
    previous, q = NOBODY, s.runs[run, R_FIRST]
    while q >= 0:
        following, due = s.partials[q, Q_NEXT], s.partials[q, Q_DUE]
        if due != NEVER and due < since:
            previous = q
        else:
            remove(t, s, customer, p, run, previous, q)
        q = following


@inner
def settle_run(t: Tables, s: State, customer: int, p: int, until: int) -> None:
    """Tell the occurrences of one run that lie at or before `until`, in their order."""
    run = s.run_of[customer, p]
    while True:
        previous = before_best = best = NOBODY
        q = s.runs[run, R_FIRST]
        while q >= 0:
            due = s.partials[q, Q_DUE]
            if due != NEVER and due <= until and (best < 0 or due < s.partials[best, Q_DUE]):
                before_best, best = previous, q
            previous, q = q, s.partials[q, Q_NEXT]
        if best < 0:
            return
        emit(t, s, customer, p, run, best, s.partials[best, Q_DUE])
        remove(t, s, customer, p, run, before_best, best)


@entry
def settle_due(t: Tables, s: State, until: int) -> bool:
    """Tell what lies at or before `until`, by the heap; false if a pool is full, and there is more."""
    while s.tops[TOP_HEAP] > 0 and s.heap[0, 0] <= until:
        if is_full(s, 1):
            return False
        customer, p = s.heap[0, 1], s.heap[0, 2]
        pop(s)
        settle_run(t, s, customer, p, until)
    return True


@entry
def settle_all(t: Tables, s: State, first: int, until: int) -> int:
    """Tell what lies at or before `until` of every customer from `first` on; the customer at whom a pool
    was full, else their number."""
    n_patterns = t.patterns.shape[0]
    for customer in range(first, s.active.shape[0]):
        if not s.active[customer]:
            continue
        if is_full(s, n_patterns):
            return customer
        for p in range(n_patterns):
            ends = t.patterns[p, P_ENDING] < t.patterns[p, P_ENDING_STOP]
            if ends and (s.active[customer] >> p) & 1:
                settle_run(t, s, customer, p, until)
    return s.active.shape[0]
