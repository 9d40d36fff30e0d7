"""Evaluate: a condition's tree -> a closure. `None` is SQL's null, and the answer "unknown".

A value of the wrong type reads as null. Numbers beyond 64 bits, and results that are not finite, too.
"""

from __future__ import annotations

import operator
from hashlib import blake2b
from math import isfinite
from typing import Callable, Final, Mapping, Sequence

import msgspec

from hetki.events.fields import Fields, instant_of
from hetki.patterns import tree as t
from hetki.patterns.run import Bound
from hetki.settings import SECOND

#: `(fields of the event at hand, events bound so far, the customer's traits) -> a value`. Beside traits the
#: last one knows aggregates, consents and staffing, by names with a dot, where a condition asks for any.
Test = Callable[[Fields, Sequence[Bound], Mapping[str, object]], object]

INTEGER_MAX: Final = 2**63 - 1

_OPERATORS: Final[dict[str, Callable[..., bool]]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compiled(node: t.Node) -> Test:
    """The closure of a tree that `types` has checked."""
    match node:
        case t.Constant(value=value):
            return lambda fields, bound, traits: value
        case t.Field() | t.StepField() | t.Trait():
            return _read(node)
        case t.Known(key=key):
            return lambda fields, bound, traits: traits.get(key)
        case t.InSegment(who=who):
            is_one = compiled(who)
            return lambda fields, bound, traits: is_one(fields, bound, traits) is True
        case t.Staffing(pool=pool):
            return _staffing(compiled(pool))
        case t.Compare():
            return _compare(node)
        case t.Logic(word=word, parts=parts):
            tests = tuple(compiled(part) for part in parts)
            return _all(tests) if word == "and" else _any(tests)
        case t.Not(part=part):
            return _not(compiled(part))
        case t.IsNull(part=part):
            value_of = compiled(part)
            return lambda fields, bound, traits: value_of(fields, bound, traits) is None
        case t.OneOf():
            return _one_of(node)
        case t.Like(part=part, pattern=pattern):
            return _like(compiled(part), pattern)
        case t.Arithmetic():
            return _arithmetic(node)
        case t.Call():
            return _call(node)


def number(value: object) -> int | float | None:
    """A number as conditions compute with it, else `None`: no booleans, nothing beyond 64 bits."""
    if type(value) is int:
        return value if -INTEGER_MAX <= value <= INTEGER_MAX else None
    return value if type(value) is float and isfinite(value) else None


def digest(value: object) -> bytes:
    """Eight bytes that stand for a value; 1 and 1.0 are one value, as they are equal in conditions."""
    if isinstance(value, float) and value.is_integer() and abs(value) < INTEGER_MAX:
        value = int(value)
    return blake2b(msgspec.msgpack.encode(value), digest_size=8).digest()


def _text(value: object) -> str | None:
    return value if type(value) is str else None


def _boolean(value: object) -> bool | None:
    return value if type(value) is bool else None


def _scalar(value: object) -> object:
    return value if type(value) in (str, bool) else number(value)


def _as_sent(value: object) -> object:
    return value


#: How a value of a type is taken from what was sent.
_TAKE: Final[dict[t.Kind, Callable[[object], object]]] = {
    "text": _text,
    "number": number,
    "boolean": _boolean,
    "time": instant_of,
    "list": _as_sent,
    "object": _as_sent,
    "unknown": _scalar,
}


def _read(node: t.Field | t.StepField | t.Trait) -> Test:
    name = node.name
    # The built-in is an instant already; every other time is text.
    take = _as_sent if name == "occurred_at" and not isinstance(node, t.Trait) else _TAKE[node.kind]
    if isinstance(node, t.Field):
        return lambda fields, bound, traits: take(fields.get(name))
    if isinstance(node, t.StepField):
        index = node.index
        return lambda fields, bound, traits: take(bound[index].values.get(name))
    return lambda fields, bound, traits: take(traits.get(name))


def _staffing(pool: Test) -> Test:
    def value(fields: Fields, bound: Sequence[Bound], traits: Mapping[str, object]) -> object:
        name = pool(fields, bound, traits)
        return traits.get(f"staffing.{name}") if type(name) is str else None

    return value


def _compare(node: t.Compare) -> Test:
    compare = _OPERATORS[node.comparison]
    left, right = _as_kind(node.left, node.right.kind), _as_kind(node.right, node.left.kind)
    if node.left.kind == node.right.kind == "unknown":
        return _compare_unknown(compare, left, right)
    if isinstance(node.right, t.Constant):
        constant = node.right.value
        if isinstance(node.left, t.Field) and node.left.kind == "text":
            return _compare_text(compare, node.left.name, constant)

        return _compare_constant(compare, left, constant)

    def test(fields: Fields, bound: Sequence[Bound], traits: Mapping[str, object]) -> bool | None:
        one = left(fields, bound, traits)
        if one is None:
            return None
        other = right(fields, bound, traits)
        return None if other is None else compare(one, other)

    return test


def _compare_text(compare: Callable[..., bool], name: str, constant: object) -> Test:
    """The commonest condition, without a call in between."""

    def test(fields: Fields, bound: Sequence[Bound], traits: Mapping[str, object]) -> bool | None:
        value = fields.get(name)
        return compare(value, constant) if type(value) is str else None

    return test


def _compare_constant(compare: Callable[..., bool], left: Test, constant: object) -> Test:
    def test(fields: Fields, bound: Sequence[Bound], traits: Mapping[str, object]) -> bool | None:
        value = left(fields, bound, traits)
        return None if value is None else compare(value, constant)

    return test


def _compare_unknown(compare: Callable[..., bool], left: Test, right: Test) -> Test:
    """A comparison whose types show only now: values of different types are unknown, never unequal."""

    def test(fields: Fields, bound: Sequence[Bound], traits: Mapping[str, object]) -> bool | None:
        one, other = left(fields, bound, traits), right(fields, bound, traits)
        return compare(one, other) if _same_type(one, other) else None

    return test


def _as_kind(node: t.Node, kind: t.Kind) -> Test:
    """A value of an unknown type, taken as one of `kind`: a trait beside a time must be a time."""
    value_of, take = compiled(node), _TAKE[kind]
    if node.kind != "unknown":
        return value_of
    return lambda fields, bound, traits: take(value_of(fields, bound, traits))


def _same_type(one: object, other: object) -> bool:
    if one is None or other is None:
        return False
    return type(one) is type(other) or (number(one) is not None and number(other) is not None)


def _all(tests: tuple[Test, ...]) -> Test:
    def test(fields: Fields, bound: Sequence[Bound], traits: Mapping[str, object]) -> bool | None:
        answer: bool | None = True
        for each in tests:
            part = each(fields, bound, traits)
            if part is False:
                return False
            if part is not True:
                answer = None
        return answer

    return test


def _any(tests: tuple[Test, ...]) -> Test:
    def test(fields: Fields, bound: Sequence[Bound], traits: Mapping[str, object]) -> bool | None:
        answer: bool | None = False
        for each in tests:
            part = each(fields, bound, traits)
            if part is True:
                return True
            if part is not False:
                answer = None
        return answer

    return test


def _not(part: Test) -> Test:
    def test(fields: Fields, bound: Sequence[Bound], traits: Mapping[str, object]) -> bool | None:
        answer = part(fields, bound, traits)
        return (not answer) if type(answer) is bool else None

    return test


def _one_of(node: t.OneOf) -> Test:
    """SQL's `in`: true if one is equal, else unknown if one comparison is, else false."""
    return _any(tuple(_compare(t.Compare("=", node.part, choice)) for choice in node.choices))


def _like(part: Test, pattern: str) -> Test:
    fits = like(pattern)

    def test(fields: Fields, bound: Sequence[Bound], traits: Mapping[str, object]) -> bool | None:
        value = part(fields, bound, traits)
        return fits(value) if type(value) is str else None

    return test


def like(pattern: str) -> Callable[[str], bool]:
    """SQL's `like` without an escape, in time text x pattern at worst (a regular expression would not be).

    >>> like("a%c_")("abbcd"), like("%b%")("abc"), like("a")("ab")
    (True, True, False)
    """

    def fits(text: str) -> bool:
        at = p = 0
        star, mark = -1, 0
        while at < len(text):
            if p < len(pattern) and pattern[p] == "%":
                star, mark, p = p, at, p + 1
            elif p < len(pattern) and pattern[p] in ("_", text[at]):
                at, p = at + 1, p + 1
            elif star >= 0:
                mark += 1
                at, p = mark, star + 1
            else:
                return False
        return all(rest == "%" for rest in pattern[p:])

    return fits


def _arithmetic(node: t.Arithmetic) -> Test:
    left, right, work = compiled(node.left), compiled(node.right), _WORK[node.sign]
    if node.left.kind == "time" and node.right.kind == "time":
        work = _seconds_between
    elif node.kind == "time":
        work = _later if node.sign == "+" else _earlier

    def value(fields: Fields, bound: Sequence[Bound], traits: Mapping[str, object]) -> int | float | None:
        one, other = number(left(fields, bound, traits)), number(right(fields, bound, traits))
        if one is None or other is None:
            return None
        try:
            return number(work(one, other))
        except (ZeroDivisionError, OverflowError):
            return None

    return value


def _seconds_between(one: float, other: float) -> float:
    return (one - other) / SECOND


def _later(one: float, other: float) -> float:
    return one + round(other * SECOND)


def _earlier(one: float, other: float) -> float:
    return one - round(other * SECOND)


_WORK: Final[dict[str, Callable[[float, float], float]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


def _call(node: t.Call) -> Test:
    if node.function == "coalesce":
        return _coalesce(tuple(_as_kind(part, node.kind) for part in node.parts))
    part, (take, work) = compiled(node.parts[0]), _CALLS[node.function]

    def value(fields: Fields, bound: Sequence[Bound], traits: Mapping[str, object]) -> object:
        given = take(part(fields, bound, traits))
        return None if given is None else work(given)

    return value


def _coalesce(parts: tuple[Test, ...]) -> Test:
    def value(fields: Fields, bound: Sequence[Bound], traits: Mapping[str, object]) -> object:
        for part in parts:
            given = part(fields, bound, traits)
            if given is not None:
                return given
        return None

    return value


_CALLS: Final[dict[str, tuple[Callable[[object], object], Callable[..., object]]]] = {
    "lower": (_text, str.lower),
    "length": (_text, len),
    "abs": (number, abs),
    "negative": (number, operator.neg),
}
