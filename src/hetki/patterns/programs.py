"""Programs: conditions over several events, run on registers. It says what `evaluate` says; null is NaN."""

from __future__ import annotations

import numpy as np

from hetki.patterns.automaton import OPERATION, Tables
from hetki.patterns.machine import inner
from hetki.patterns.pools import Batch, Floats, State, count, register

_CONSTANT, _COLUMN = OPERATION["constant"], OPERATION["column"]
_REGISTER, _FIRST_REGISTER, _COUNT = OPERATION["register"], OPERATION["first_register"], OPERATION["count"]
_EQ, _NE, _LT, _LE = OPERATION["="], OPERATION["<>"], OPERATION["<"], OPERATION["<="]
_GT, _GE, _AND, _OR = OPERATION[">"], OPERATION[">="], OPERATION["and"], OPERATION["or"]
_NOT, _IS_NULL, _ADD, _SUB = OPERATION["not"], OPERATION["is_null"], OPERATION["+"], OPERATION["-"]
_MUL, _DIV, _SECONDS = OPERATION["*"], OPERATION["/"], OPERATION["seconds"]
_LATER, _EARLIER, _ABS = OPERATION["later"], OPERATION["earlier"], OPERATION["abs"]
_NEGATIVE, _COALESCE = OPERATION["negative"], OPERATION["coalesce"]
_EXACT_MAX, _SECOND = 2.0**53, 1e6


@inner
def evaluated(t: Tables, b: Batch, s: State, place: int, p: int, q: int, program: int) -> float:
    """The value of a program, as `evaluate` says it: 1, 0 or null."""
    top, stack = 0, s.stack
    while t.code[program, 0] >= 0:
        word, a = t.code[program, 0], t.code[program, 1]
        program += 1
        if word == _CONSTANT:
            stack[top] = t.constants[a]
        elif word == _COLUMN:
            stack[top] = b.columns[place, a]
        elif word == _REGISTER or word == _FIRST_REGISTER:
            stack[top] = register(t, s, p, q, a, t.code[program - 1, 2], word == _FIRST_REGISTER)
        elif word == _COUNT:
            found = count(t, s, p, q, a)
            stack[top] = found if found else np.nan
        else:
            top = worked(s, stack, top, word, a, b.customer[place]) - 1
        top += 1
    return stack[0]


@inner
def worked(s: State, stack: Floats, top: int, word: int, n: int, customer: int) -> int:
    """Put the result of an operation in place of what it takes; the new top."""
    if word == _AND or word == _OR:
        ends, answer = (0.0, 1.0) if word == _AND else (1.0, 0.0)
        top -= n
        for place in range(top, top + n):
            if stack[place] == ends:
                answer = ends
                break
            if np.isnan(stack[place]):
                answer = np.nan
        stack[top] = answer
        return top + 1
    if word == _COALESCE:
        top -= n
        for place in range(top, top + n):
            stack[top] = stack[place]
            if not np.isnan(stack[top]):
                break
        return top + 1
    if word == _NOT:
        stack[top - 1] = 1.0 - stack[top - 1]
    elif word == _IS_NULL:
        stack[top - 1] = 1.0 if np.isnan(stack[top - 1]) else 0.0
    elif word == _ABS:
        stack[top - 1] = abs(stack[top - 1])
    elif word == _NEGATIVE:
        stack[top - 1] = -stack[top - 1]
    else:
        top -= 1
        one, other = stack[top - 1], stack[top]
        if np.isnan(one) or np.isnan(other):
            stack[top - 1] = np.nan
        elif word <= _GE:
            stack[top - 1] = 1.0 if compared(word, one, other) else 0.0
        else:
            stack[top - 1] = computed(s, word, one, other, customer)
    return top


@inner
def compared(word: int, one: float, other: float) -> bool:
    """Two values that are not null."""
    if word == _EQ:
        return one == other
    if word == _NE:
        return one != other
    if word == _LT:
        return one < other
    if word == _LE:
        return one <= other
    return one > other if word == _GT else one >= other


@inner
def computed(s: State, word: int, one: float, other: float, customer: int) -> float:
    """Arithmetic; a result that float64 may have rounded marks the customer."""
    if word == _LATER or word == _EARLIER:
        other = np.rint(other * _SECOND)
        if abs(other) >= _EXACT_MAX:
            s.odd[customer] = True
    if word == _ADD or word == _LATER:
        result = one + other
    elif word == _SUB or word == _EARLIER:
        result = one - other
    elif word == _SECONDS:
        result = (one - other) / _SECOND
    elif word == _MUL:
        result = one * other
    elif other == 0.0:
        return np.nan
    else:
        result = one / other
    if abs(result) >= _EXACT_MAX:
        s.odd[customer] = True
    return result
