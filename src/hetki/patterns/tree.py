"""The tree of a condition: all that a condition can say, typed. `condition` builds it from text,
`evaluate` runs it, `words` says it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Iterator, Literal

#: The type of a value. `unknown` is known only when it is read (a customer's trait). Seconds are numbers.
Kind = Literal["text", "number", "boolean", "time", "list", "object", "unknown"]
Comparison = Literal["=", "<>", "<", "<=", ">", ">="]
#: What is true when a comparison is not, and what it is with its sides exchanged.
OPPOSITE: Final[dict[Comparison, Comparison]] = {
    "=": "<>",
    "<>": "=",
    "<": ">=",
    ">=": "<",
    ">": "<=",
    "<=": ">",
}
TURNED: Final[dict[Comparison, Comparison]] = {
    "=": "=",
    "<>": "<>",
    "<": ">",
    ">": "<",
    "<=": ">=",
    ">=": "<=",
}
Function = Literal["lower", "length", "abs", "coalesce", "negative"]


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal. A time is an instant and an interval seconds; `text` then keeps what was written."""

    value: str | int | float | bool | None
    kind: Kind
    text: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the event at hand."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class StepField:
    """A field of the event bound to a step; `index` counts the event steps from 0."""

    step: str
    index: int
    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Trait:
    """The customer's latest trait."""

    name: str
    kind: Kind = "unknown"


@dataclass(frozen=True, slots=True)
class Known:
    """What was known of the customer at that time beside events and traits: an aggregate, a consent.

    `key` is the name under which it is looked up (`aggregate.usual`), `said` are its words.
    """

    key: str
    kind: Kind
    said: str


@dataclass(frozen=True, slots=True)
class InSegment:
    """Whether the customer is in a declared segment: whether its condition is true. It is never unknown."""

    name: str
    title: str
    who: Node
    kind: Kind = "boolean"


@dataclass(frozen=True, slots=True)
class Staffing:
    """The share of the planned staff of a pool that was there, as it was last reported."""

    pool: Node
    kind: Kind = "number"


@dataclass(frozen=True, slots=True)
class Compare:
    """Two values of one kind."""

    comparison: Comparison
    left: Node
    right: Node
    kind: Kind = "boolean"


@dataclass(frozen=True, slots=True)
class Logic:
    """Two or more parts of which all (`and`) or one (`or`) must be true."""

    word: Literal["and", "or"]
    parts: tuple[Node, ...]
    kind: Kind = "boolean"


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite; the opposite of unknown is unknown."""

    part: Node
    kind: Kind = "boolean"


@dataclass(frozen=True, slots=True)
class IsNull:
    """Whether a value is missing."""

    part: Node
    kind: Kind = "boolean"


@dataclass(frozen=True, slots=True)
class OneOf:
    """Whether a value equals one of several."""

    part: Node
    choices: tuple[Node, ...]
    kind: Kind = "boolean"


@dataclass(frozen=True, slots=True)
class Like:
    """Whether a text fits a pattern in which `%` is any text and `_` any character."""

    part: Node
    pattern: str
    kind: Kind = "boolean"


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Two numbers, or times and seconds: time - time is seconds, time + seconds a time."""

    sign: Literal["+", "-", "*", "/"]
    left: Node
    right: Node
    kind: Kind


@dataclass(frozen=True, slots=True)
class Call:
    """One of the few functions."""

    function: Function
    parts: tuple[Node, ...]
    kind: Kind


Node = (
    Constant
    | Field
    | StepField
    | Trait
    | Known
    | InSegment
    | Staffing
    | Compare
    | Logic
    | Not
    | IsNull
    | OneOf
    | Like
    | Arithmetic
    | Call
)

#: What stands for a part that has a fault: it fits everywhere, so that one fault does not make others.
UNKNOWN: Final = Constant(None, "unknown")


def children(node: Node) -> tuple[Node, ...]:
    """The parts a node is made of."""
    match node:
        case Compare(left=left, right=right) | Arithmetic(left=left, right=right):
            return (left, right)
        case Logic(parts=parts) | Call(parts=parts):
            return parts
        case OneOf(part=part, choices=choices):
            return (part, *choices)
        case Not(part=part) | IsNull(part=part) | Like(part=part):
            return (part,)
        case InSegment(who=inner):
            return (inner,)
        case Staffing(pool=pool) if not isinstance(pool, Constant):
            return (pool,)
        case _:
            return ()


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    yield node
    for child in children(node):
        yield from walk(child)
