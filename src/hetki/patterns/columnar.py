"""Columnar: a condition over many events at once. It says what `evaluate` says, row by row.

A column is an array of float64 in which NaN is null. A truth is 1 or 0, a time an instant, and a text its
code in `Texts`. What float64 cannot hold exactly is never guessed: the row is marked `odd`, and whoever
asked folds its customer by the reference.
"""

from __future__ import annotations

from types import NoneType
from typing import Callable, Final, Protocol, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from hetki.events.fields import instant_of
from hetki.patterns import tree as t
from hetki.patterns.evaluate import INTEGER_MAX, like
from hetki.settings import SECOND

Column = NDArray[np.float64]

#: From here on a whole number that was rounded may look exact.
EXACT_MAX: Final = 2.0**53
NULL: Final = float("nan")

#: As which type a value is taken; `key` is what `repeat` compares.
Taken = t.Kind | str
KEY: Final = "key"

_NODES: Final = (
    t.Constant,
    t.Field,
    t.Trait,
    t.InSegment,
    t.Compare,
    t.Logic,
    t.Not,
    t.IsNull,
    t.OneOf,
    t.Like,
    t.Arithmetic,
    t.Call,
)
_SCALARS: Final = ("text", "number", "boolean", "time")


class Texts:
    """Texts by number: equal texts, and nothing else, have equal codes."""

    def __init__(self) -> None:
        self.codes: dict[str | bytes, int] = {}
        self._known: list[str | bytes] = []

    def known(self) -> list[str | bytes]:
        """All texts, in the order of their codes."""
        if len(self._known) < len(self.codes):
            self._known = list(self.codes)
        return self._known

    def code(self, text: str | bytes) -> int:
        """The code of a text; a new one if it was never seen."""
        return self.codes.setdefault(text, len(self.codes))

    def mapped(self, column: Column, work: Callable[[str], float]) -> Column:
        """What `work` makes of each text of a column, asked once for each text."""
        result = np.full(column.shape, NULL)
        there = ~np.isnan(column)
        if there.any():
            codes, inverse = np.unique(column[there].astype(np.int64), return_inverse=True)
            known = self.known()
            result[there] = np.array([work(str(known[code])) for code in codes.tolist()])[inverse]
        return result


class Frame(Protocol):
    """Events of one name, as columns. `odd` marks the rows that columns cannot say exactly."""

    texts: Texts
    odd: NDArray[np.bool_]

    def field(self, name: str, taken: Taken) -> Column:
        """A field of the events, taken as a type."""
        ...

    def trait(self, name: str, taken: Taken) -> Column:
        """A trait of the events' customers as of then, taken as a type."""
        ...


def taken_from(values: Sequence[object], taken: Taken, texts: Texts) -> Column:
    """Values as they were sent, as a column of a type. What float64 cannot hold stands there as infinite."""
    if taken == "number":
        if set(map(type, values)) <= {int, float, NoneType}:  # numpy reads None as NaN
            return _numbers(values)
        return _numbers([each if type(each) in (int, float) else NULL for each in values])
    if taken == "text":
        return _coded(values, texts)
    if taken == "boolean":
        return np.array([float(each) if type(each) is bool else NULL for each in values], np.float64)
    if taken == "time":
        return _exact([NULL if (at := instant_of(each)) is None else at for each in values])
    if taken == KEY:
        codes, found = texts.codes, []
        for each in values:
            found.append(codes.setdefault(each, len(codes)) if type(each) is str else _key(each, texts))
        return np.array(found, np.float64)
    if taken == "unknown":
        scalar = (str, bool, int, float)
        return np.array([1.0 if type(each) in scalar and not _is_huge(each) else NULL for each in values])
    return np.array([NULL if each is None else 1.0 for each in values], np.float64)


def _coded(values: Sequence[object], texts: Texts) -> Column:
    """Texts as codes: most were seen before, and are looked up in one go."""
    codes = texts.codes
    if not set(map(type, values)) <= {str, NoneType}:
        values = [each if type(each) is str else None for each in values]
    found = np.array(list(map(codes.get, values)), np.float64)  # type: ignore[arg-type]
    for place in np.flatnonzero(np.isnan(found)).tolist():
        each = values[place]
        if type(each) is str:
            found[place] = codes.setdefault(each, len(codes))
    return found


def _numbers(values: Sequence[object]) -> Column:
    try:
        return _exact(values)
    except OverflowError:
        return _exact([np.inf if _is_huge(each) else each for each in values])


def _exact(values: Sequence[object]) -> Column:
    column = np.array(values, np.float64)
    column[np.abs(column) >= EXACT_MAX] = np.inf
    return column


def _is_huge(value: object) -> bool:
    return type(value) is int and not -INTEGER_MAX <= value <= INTEGER_MAX


def _key(value: object, texts: Texts) -> float:
    """A code by which two values are equal exactly where the matcher's digests of them are."""
    if value is None or _is_huge(value):
        return NULL
    if type(value) is str:
        return texts.code(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        return texts.code(msgspec.msgpack.encode(value))
    except (OverflowError, ValueError):
        return np.inf


def is_columnar(node: t.Node, taken: Taken = "boolean") -> bool:
    """Whether `values` can say a condition exactly. A node that is not known here is refused."""
    if type(node) not in _NODES:
        return False
    match node:
        case t.Constant(value=value, kind=kind):
            small = not isinstance(value, (int, float)) or abs(value) < EXACT_MAX
            return (kind in _SCALARS or value is None) and small
        case t.Field(kind=kind):
            return kind in (*_SCALARS, "list", "object")
        case t.Trait():
            return taken in (*_SCALARS, "unknown")
        case t.IsNull(part=part):
            return is_columnar(part, "unknown")
        case t.OneOf(part=part, choices=choices):
            return all(is_columnar(t.Compare("=", part, each)) for each in choices)
        case t.Call(function="coalesce", parts=parts, kind=kind):
            return kind in _SCALARS and all(is_columnar(part, kind) for part in parts)
        case t.Compare(left=left, right=right):
            kind = _kind_of(left, right)
            return kind in _SCALARS and is_columnar(left, kind) and is_columnar(right, kind)
        case t.Like() | t.Call(function="lower" | "length"):
            return all(is_columnar(part, "text") for part in t.children(node))
        case t.Arithmetic() | t.Call():
            return all(is_columnar(part, "number") for part in t.children(node))
        case _:
            return all(is_columnar(part, "boolean") for part in t.children(node))


def _kind_of(left: t.Node, right: t.Node) -> t.Kind:
    """As what two sides of a comparison are taken: a trait as what stands on the other side."""
    return right.kind if left.kind == "unknown" else left.kind


def is_true(node: t.Node, frame: Frame) -> NDArray[np.bool_]:
    """In which rows a condition is true."""
    truth = values(node, frame) == 1.0
    return truth if truth.shape == frame.odd.shape else np.broadcast_to(truth, frame.odd.shape)


def values(node: t.Node, frame: Frame, taken: Taken = "boolean") -> Column:
    """What a columnar node is in each row; its shape may be that of one value for all of them.

    The caller silences numpy (`np.errstate`): what is not finite is null, as in the reference.
    """
    match node:
        case t.Constant(value=value):
            known = NULL if value is None else value
            return np.array(frame.texts.code(known) if isinstance(known, str) else known, np.float64)
        case t.Field(name=name, kind=kind):
            column = frame.field(name, kind)
            return _marked(column, frame) if kind in ("number", "time") else column
        case t.Trait(name=name):
            return _marked(frame.trait(name, taken), frame)
        case t.Compare(comparison=word, left=left, right=right):
            return _compared(word, left, right, frame)
        case t.Logic(word=word, parts=parts):
            columns = [values(part, frame, "boolean") for part in parts]
            return _all(columns) if word == "and" else _negated(_all([_negated(each) for each in columns]))
        case t.InSegment(who=who):
            return np.where(values(who, frame) == 1.0, 1.0, 0.0)
        case t.Not(part=part):
            return _negated(values(part, frame, "boolean"))
        case t.IsNull(part=part):
            return np.isnan(values(part, frame, "unknown")).astype(np.float64)
        case t.OneOf(part=part, choices=choices):
            equal = [_negated(_compared("=", part, each, frame)) for each in choices]
            return _negated(_all(equal))
        case t.Like(part=part, pattern=pattern):
            return frame.texts.mapped(values(part, frame, "text"), like(pattern))
        case t.Arithmetic():
            return _computed(node, frame)
        case t.Call():
            return _called(node, frame)
        case _:
            raise AssertionError("only columnar nodes are evaluated")


def _marked(column: Column, frame: Frame) -> Column:
    """The column, its rows that are not exact marked as odd."""
    inexact = np.isinf(column)
    if inexact.any():
        frame.odd |= inexact
    return column


def _negated(column: Column) -> Column:
    return 1.0 - column


def _all(columns: list[Column]) -> Column:
    """False if one is, else null if one is, else true."""
    false, null = columns[0] == 0.0, np.isnan(columns[0])
    for each in columns[1:]:
        false, null = false | (each == 0.0), null | np.isnan(each)
    return np.where(false, 0.0, np.where(null, NULL, 1.0))


_COMPARE: Final[dict[t.Comparison, Callable[[Column, Column], NDArray[np.bool_]]]] = {
    "=": np.equal,
    "<>": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def _compared(word: t.Comparison, left: t.Node, right: t.Node, frame: Frame) -> Column:
    kind = _kind_of(left, right)
    one, other = values(left, frame, kind), values(right, frame, kind)
    if kind == "text" and word not in ("=", "<>"):
        one, other = _ranks(one, other, frame.texts)
    return np.where(np.isnan(one) | np.isnan(other), NULL, _COMPARE[word](one, other))


def _ranks(one: Column, other: Column, texts: Texts) -> tuple[Column, Column]:
    """Texts as their places in order."""
    known = texts.known()
    both = np.concatenate([np.ravel(one), np.ravel(other)])
    present = sorted({str(known[code]) for code in np.unique(both[~np.isnan(both)]).astype(int).tolist()})
    place = {text: number for number, text in enumerate(present)}
    return texts.mapped(one, place.__getitem__), texts.mapped(other, place.__getitem__)


def _computed(node: t.Arithmetic, frame: Frame) -> Column:
    one, other = values(node.left, frame, "number"), values(node.right, frame, "number")
    if node.kind == "time":
        other = _finite(np.rint(other * SECOND), frame)
    match node.sign:
        case "+":
            result = one + other
        case "-":
            result = one - other
        case "*":
            result = one * other
        case "/":
            result = np.where(other == 0.0, NULL, one / other)
    if node.left.kind == "time" and node.right.kind == "time":
        result = result / SECOND
    return _finite(result, frame)


def _finite(column: Column, frame: Frame) -> Column:
    """A result; one that float64 may have rounded where the reference has not is odd."""
    inexact = np.abs(column) >= EXACT_MAX
    if inexact.any():
        frame.odd |= inexact
    return column


def _called(node: t.Call, frame: Frame) -> Column:
    if node.function == "coalesce":
        parts = [values(part, frame, node.kind) for part in node.parts]
        result = parts[-1]
        for each in reversed(parts[:-1]):
            result = np.where(np.isnan(each), result, each)
        return result
    texts, part = frame.texts, node.parts[0]
    if node.function == "lower":
        return texts.mapped(values(part, frame, "text"), lambda text: texts.code(text.lower()))
    if node.function == "length":
        return texts.mapped(values(part, frame, "text"), len)
    column = values(part, frame, "number")
    return np.abs(column) if node.function == "abs" else -column
