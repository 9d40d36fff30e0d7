"""Words: a condition's tree as plain English. `n_results = 0` becomes "number of results is 0"."""

from __future__ import annotations

import re
from typing import Final, Mapping, Sequence

from hetki.declarations.durations import spoken
from hetki.patterns import tree as t

_IS: Final[dict[str, str]] = {
    "=": "is",
    "<>": "is not",
    "<": "is less than",
    "<=": "is at most",
    ">": "is more than",
    ">=": "is at least",
}
_IS_TIME: Final[dict[str, str]] = {
    **_IS,
    "<": "is before",
    "<=": "is at or before",
    ">": "is after",
    ">=": "is at or after",
}
_SIGNS: Final = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}


def words(node: t.Node, steps: Mapping[str, str]) -> str:
    """A condition or a value in words. `steps` says how each step is called.

    >>> words(t.Compare(">=", t.Field("n_minutes", "number"), t.Constant(15, "number", "15")), {})
    'number of minutes is at least 15'
    """
    match node:
        case t.Constant():
            return _constant(node)
        case t.Field(name=name):
            return field_words(name)
        case t.StepField(step=step, name=name):
            called = steps.get(step, step)
            if name.startswith("first."):
                return f"{field_words(name.removeprefix('first.'))} of the first {called}"
            return f"{'number' if name == 'n' else field_words(name)} of {called}"
        case t.Trait(name=name):
            return f"the customer's {field_words(name)}"
        case t.Known(said=said):
            return said
        case t.InSegment(title=title):
            return f"the customer is in '{title}'"
        case t.Staffing(pool=pool):
            return f"the staffing of {words(pool, steps)}"
        case t.Compare():
            return _compare(node, steps)
        case t.Logic():
            return _logic(node, steps)
        case t.Not(part=part):
            return _not(part, steps)
        case t.IsNull(part=part):
            return f"{words(part, steps)} is missing"
        case t.OneOf(part=part, choices=choices):
            return f"{words(part, steps)} is {_one_of([words(each, steps) for each in choices])}"
        case t.Like(part=part, pattern=pattern):
            return f"{words(part, steps)} {_like(pattern, '')}"
        case t.Arithmetic(sign=sign, left=left, right=right):
            return f"{_inner(left, steps)} {_SIGNS[sign]} {_inner(right, steps)}"
        case t.Call():
            return _call(node, steps)


def field_words(name: str) -> str:
    """A field's name in words.

    >>> [field_words(name) for name in ("order_id", "n_results", "n_waiting_s", "promised_at", "occurred_at")]
    ['order id', 'number of results', 'number of seconds waiting', 'promised time', 'time']
    """
    if name == "occurred_at":
        return "time"
    if name.startswith("n_") and name.endswith("_s"):
        return "number of seconds " + name[2:-2].replace("_", " ")
    if name.startswith("n_"):
        return "number of " + name[2:].replace("_", " ")
    if name.endswith("_at"):
        return name[:-3].replace("_", " ") + " time"
    return name.replace("_", " ")


def listed(parts: Sequence[str], last: str) -> str:
    """Parts as an English list.

    >>> listed(["a", "b", "c"], "or"), listed(["a"], "or")
    ('a, b or c', 'a')
    """
    return " ".join([", ".join(parts[:-1]), last, parts[-1]]) if len(parts) > 1 else "".join(parts)


def _one_of(parts: Sequence[str]) -> str:
    return ("either " if len(parts) == 2 else "one of " if len(parts) > 2 else "") + listed(parts, "or")


def _none_of(parts: Sequence[str]) -> str:
    if len(parts) == 2:
        return f"neither {parts[0]} nor {parts[1]}"
    return ("none of " if len(parts) > 2 else "not ") + listed(parts, "or")


def _constant(node: t.Constant) -> str:
    if node.kind == "text":
        return node.text if re.fullmatch(r"\w+", node.text) else f"'{node.text}'"
    return node.text


def _compare(node: t.Compare, steps: Mapping[str, str]) -> str:
    times = "time" in (node.left.kind, node.right.kind)
    left, right = words(node.left, steps), words(node.right, steps)
    if isinstance(node.left, t.StepField) and isinstance(node.right, t.Field):
        return _compare(t.Compare(t.TURNED[node.comparison], node.right, node.left), steps)
    if isinstance(node.left, t.Field) and isinstance(node.right, t.StepField):
        if node.left.name == node.right.name:
            right = f"that of {steps.get(node.right.step, node.right.step)}"
    if _is_seconds(node.left) and isinstance(node.right, t.Constant) and type(node.right.value) is int:
        right = spoken(node.right.value)
    return f"{left} {(_IS_TIME if times else _IS)[node.comparison]} {right}"


def _is_seconds(node: t.Node) -> bool:
    return isinstance(node, t.Arithmetic) and node.left.kind == "time" and node.right.kind == "time"


def _logic(node: t.Logic, steps: Mapping[str, str]) -> str:
    bounds = _bounds(node)
    if bounds is not None:
        value, low, high = (words(each, steps) for each in bounds)
        return f"{value} is between {low} and {high}"
    parts = []
    for part in node.parts:
        inner = isinstance(part, t.Logic) and len(part.parts) > 1 and _bounds(part) is None
        parts.append(f"({_said(part, steps)})" if inner else _said(part, steps))
    return listed(parts, node.word)


def _bounds(node: t.Logic) -> tuple[t.Node, t.Node, t.Node] | None:
    """A value with its lowest and highest, if that is what an `and` says."""
    match node.parts:
        case (t.Compare(comparison=">=") as low, t.Compare(comparison="<=") as high):
            if low.left == high.left and node.word == "and":
                return low.left, low.right, high.right
    return None


def _said(part: t.Node, steps: Mapping[str, str]) -> str:
    """A part of and, or, not: a bare field that is true or false says so."""
    bare = isinstance(part, t.Field | t.StepField | t.Trait)
    return f"{words(part, steps)} is true" if bare else words(part, steps)


def _not(part: t.Node, steps: Mapping[str, str]) -> str:
    match part:
        case t.IsNull(part=inner):
            return f"{words(inner, steps)} is known"
        case t.OneOf(part=inner, choices=choices):
            return f"{words(inner, steps)} is {_none_of([words(each, steps) for each in choices])}"
        case t.Like(part=inner, pattern=pattern):
            return f"{words(inner, steps)} {_like(pattern, 'does not ')}"
        case t.Field() | t.StepField() | t.Trait():
            return f"{words(part, steps)} is not true"
        case t.Known() | t.InSegment():
            return words(part, steps).replace(" is ", " is not ", 1)
        case t.Compare(comparison=comparison, left=left, right=right):
            return _compare(t.Compare(t.OPPOSITE[comparison], left, right), steps)
        case _:
            return f"not ({_said(part, steps)})"


def _like(pattern: str, negation: str) -> str:
    """`like` in words; `negation` is empty or "does not "."""
    ending = "" if negation else "s"
    inner = pattern.strip("%")
    if "%" in inner or "_" in inner or not inner:
        return f"{negation}fit{ending} '{pattern}'"
    match pattern.startswith("%"), pattern.endswith("%"):
        case True, True:
            return f"{negation}contain{ending} '{inner}'"
        case True, False:
            return f"{negation}end{ending} with '{inner}'"
        case False, True:
            return f"{negation}start{ending} with '{inner}'"
        case _:
            return f"is not '{inner}'" if negation else f"is '{inner}'"


def _inner(node: t.Node, steps: Mapping[str, str]) -> str:
    return f"({words(node, steps)})" if isinstance(node, t.Arithmetic) else words(node, steps)


def _call(node: t.Call, steps: Mapping[str, str]) -> str:
    parts = [_inner(part, steps) for part in node.parts]
    match node.function:
        case "lower":
            return f"{parts[0]} in small letters"
        case "length":
            return f"length of {parts[0]}"
        case "abs":
            return f"size of {parts[0]}"
        case "negative":
            return f"minus {parts[0]}"
        case "coalesce":
            return ", or if missing ".join(parts)
