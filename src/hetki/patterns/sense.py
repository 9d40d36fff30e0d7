"""Sense: finds conditions that nothing can make true, and conditions that nothing can make false.

A condition is written as alternatives, each a list of claims about one value; an alternative is impossible if
two of its claims contradict each other. Only that is looked at, so what is found is certain, and not all that
could be found is. A value that is missing makes a claim unknown, which is neither true nor false.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Final, Iterable, Literal

from hetki.events.event import Event
from hetki.events.fields import Fields
from hetki.patterns import tree as t
from hetki.patterns.evaluate import compiled

#: More alternatives than these are not looked at.
ALTERNATIVES_MAX: Final = 500


#: How two values may stand to each other: less, equal, more.
_ORDERS: Final[dict[t.Comparison, frozenset[int]]] = {
    "=": frozenset({0}),
    "<>": frozenset({-1, 1}),
    "<": frozenset({-1}),
    "<=": frozenset({-1, 0}),
    ">": frozenset({1}),
    ">=": frozenset({0, 1}),
}
_NOTHING: Final = Fields(Event("", "", "", "", 0, 0, {}))


@dataclass(frozen=True, slots=True)
class Compared:
    """A value compared with a constant."""

    value: t.Node
    sign: t.Comparison
    constant: str | int | float | bool


@dataclass(frozen=True, slots=True)
class Ordered:
    """Two values and how they may stand to each other."""

    value: t.Node
    other: t.Node
    orders: frozenset[int]


@dataclass(frozen=True, slots=True)
class Missing:
    """Whether a value is missing."""

    value: t.Node
    is_missing: bool


@dataclass(frozen=True, slots=True)
class Told:
    """A test that is not looked into, or its opposite; it needs its value."""

    value: t.Node
    test: t.Node
    is_true: bool


Claim = Compared | Ordered | Missing | Told
Alternatives = list[tuple[Claim, ...]]


@dataclass(frozen=True, slots=True)
class Senseless:
    """What is wrong with a condition, and the value where it shows (none: no value is in it)."""

    what: Literal["never", "always"]
    value: t.Node | None


class _TooMany(Exception):
    """More alternatives than are looked at."""


def senseless(tree: t.Node) -> Senseless | None:
    """Whether a condition can never be true, or is never false. One with a fault in it is not judged."""
    if any(node == t.UNKNOWN for node in t.walk(tree)):
        return None
    try:
        for what, wanted in (("never", True), ("always", False)):
            found = [_contradiction(each) for each in _alternatives(tree, wanted)]
            if all(each is not None for each in found):
                first = next((each for each in found if each is not None), None)
                return Senseless("never" if what == "never" else "always", first or _first(tree))
    except _TooMany:
        return None
    return None


def name_of(value: t.Node) -> str:
    """How a value is called in the text of its condition, as far as it has one name."""
    for node in t.walk(value):
        match node:
            case t.Field(name=name):
                return name
            case t.StepField(step=step, name=name):
                return f"{step}.{name}"
            case t.Trait(name=name):
                return f"customer.{name}"
            case t.Known(key=key):
                return key
            case t.InSegment(name=name):
                return f"segment.{name}"
            case t.Staffing():
                return "staffing"
    return ""


def _first(tree: t.Node) -> t.Node | None:
    return next((node for node in t.walk(tree) if _is_read(node)), None)


def _is_read(node: t.Node) -> bool:
    return isinstance(node, t.Field | t.StepField | t.Trait | t.Known | t.InSegment | t.Staffing)


def _alternatives(node: t.Node, wanted: bool) -> Alternatives:
    """When a part is true (or false, if that is wanted): any of these, each with all of its claims."""
    match node:
        case t.Constant(value=value):
            return [()] if value is wanted else []
        case t.Not(part=part):
            return _alternatives(part, not wanted)
        case t.Logic(word=word, parts=parts):
            each = [_alternatives(part, wanted) for part in parts]
            return _all_of(each) if (word == "and") is wanted else _any_of(each)
        case t.OneOf(part=part, choices=choices):
            each = [_compared("=" if wanted else "<>", part, choice) for choice in choices]
            return _any_of(each) if wanted else _all_of(each)
        case t.Compare(comparison=comparison, left=left, right=right):
            return _compared(comparison if wanted else t.OPPOSITE[comparison], left, right)
        case t.IsNull(part=part):
            constant = _constant(part)
            if constant is not None:
                return [()] if (constant.value is None) is wanted else []
            return [(Missing(part, wanted),)]
        case t.Like(part=part):
            return [(Told(part, node, wanted),)]
        case _:
            return [(Compared(node, "=", wanted),)]


def _any_of(each: Iterable[Alternatives]) -> Alternatives:
    found = [claims for alternatives in each for claims in alternatives]
    if len(found) > ALTERNATIVES_MAX:
        raise _TooMany
    return found


def _all_of(each: list[Alternatives]) -> Alternatives:
    n = 1
    for alternatives in each:
        n *= len(alternatives)
        if n > ALTERNATIVES_MAX:
            raise _TooMany
    return [tuple(claim for claims in chosen for claim in claims) for chosen in product(*each)]


def _compared(sign: t.Comparison, left: t.Node, right: t.Node) -> Alternatives:
    """A comparison as a claim; one of constants is judged at once."""
    one, other = _constant(left), _constant(right)
    if one is not None and other is not None:
        truth = compiled(t.Compare(sign, one, other))(_NOTHING, (), {})
        return [()] if truth is True else []
    if one is not None:
        return _compared(t.TURNED[sign], right, left)
    if other is not None:
        return [] if other.value is None else [(Compared(left, sign, other.value),)]
    orders = _ORDERS[sign] & {0} if left == right else _ORDERS[sign]
    if repr(right) < repr(left):
        left, right, orders = right, left, frozenset(-each for each in orders)
    return [(Ordered(left, right, orders),)]


def _constant(node: t.Node) -> t.Constant | None:
    """A part that reads nothing, worked out."""
    if any(_is_read(each) for each in t.walk(node)):
        return None
    value = compiled(node)(_NOTHING, (), {})
    return t.Constant(value if isinstance(value, str | int | float) else None, node.kind)


def _contradiction(claims: tuple[Claim, ...]) -> t.Node | None:
    """A value about which claims contradict each other; `None` if all may hold at once."""
    needed: set[t.Node] = set()
    missing: set[t.Node] = set()
    compared: dict[t.Node, list[Compared]] = {}
    orders: dict[tuple[t.Node, t.Node], frozenset[int]] = {}
    told: dict[t.Node, bool] = {}
    for claim in claims:
        match claim:
            case Missing(value=value, is_missing=is_missing):
                (missing if is_missing else needed).add(value)
            case Compared(value=value):
                needed.add(value)
                compared.setdefault(value, []).append(claim)
            case Ordered(value=value, other=other):
                needed |= {value, other}
                pair = (value, other)
                orders[pair] = orders.get(pair, claim.orders) & claim.orders
                if not orders[pair]:
                    return value
            case Told(value=value, test=test, is_true=is_true):
                needed.add(value)
                if told.setdefault(test, is_true) is not is_true:
                    return value
    for value in missing:
        if value in needed:
            return value
    return next((value for value, mine in compared.items() if _is_empty(mine)), None)


def _is_empty(claims: list[Compared]) -> bool:
    """Whether no value fits all comparisons with constants."""
    constants = [claim.constant for claim in claims]
    if all(isinstance(each, bool) for each in constants):
        return not any(
            all((value == each.constant) is (each.sign == "=") for each in claims) for value in (True, False)
        )
    texts = [each for each in constants if isinstance(each, str)]
    numbers = [each for each in constants if not isinstance(each, str | bool)]
    if len(texts) == len(constants):
        return _no_room([(claim.sign, text) for claim, text in zip(claims, texts, strict=True)])
    if len(numbers) == len(constants):
        return _no_room([(claim.sign, number) for claim, number in zip(claims, numbers, strict=True)])
    return False


def _no_room(claims: list[tuple[t.Comparison, str]] | list[tuple[t.Comparison, int | float]]) -> bool:
    """Whether bounds leave no value between them; values lie as close as one likes."""
    lows = [(value, sign == ">") for sign, value in claims if sign in (">", ">=", "=")]
    highs = [(value, sign != "<") for sign, value in claims if sign in ("<", "<=", "=")]
    if not lows or not highs:
        return False
    low, is_open_below = max(lows)
    high, is_closed_above = min(highs)
    if low != high:
        return bool(low > high)  # type: ignore[operator]
    return is_open_below or not is_closed_above or ("<>", low) in claims
