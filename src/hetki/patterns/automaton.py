"""Automaton: patterns as tables of whole numbers, which `kernel` runs. `matcher` stays the definition.

What the tables cannot say is refused by `refusal`, and stays with the reference. That is a white list: a
pattern, step or node with a field that is not known here is refused, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Final, Mapping, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hetki.patterns import tree as t
from hetki.patterns.columnar import Taken, is_columnar
from hetki.patterns.condition import Condition
from hetki.patterns.sequence import Absence, EventStep, Limit, Pattern, Repeat, Stage

Numbers = NDArray[np.int64]

#: No instant: smaller than any.
NEVER: Final = -(2**63)
#: Patterns of one set of tables, and conditions on one event name: they are bits of a word.
PATTERNS_MAX: Final = 60
BITS_MAX: Final = 62

_Noun = Pattern | EventStep | Absence | Stage | Limit | Repeat | Condition

#: What the tables know of a pattern; anything else in it is refused.
_KNOWN: Final[Mapping[type, frozenset[str]]] = {
    Pattern: frozenset(
        "steps events stages opening timed before forbids ending within_s within_us repeat who one_open"
        " branches names keys has_many wakes ends_by_time context".split()
    ),
    EventStep: frozenset(
        "name index stage choices tests least most link between until stops limit captures firsts counts"
        " anchors".split()
    ),
    Stage: frozenset("index steps silences waits after is_any is_optional collects is_plain back".split()),
    Absence: frozenset("name anchor follows choices for_s by after before_s begins_again part".split()),
    Limit: frozenset({"index", "within_s"}),
    Repeat: frozenset("once index step field period_s".split()),
    Condition: frozenset({"text", "tree", "test"}),
}

OPERATIONS: Final = (
    "constant column register first_register count = <> < <= > >= and or not is_null + - * / seconds later"
    " earlier abs negative coalesce"
).split()
OPERATION: Final = {name: number for number, name in enumerate(OPERATIONS)}


class Tables(NamedTuple):
    """What the kernel looks up.

    The columns of `patterns`, `steps`, `stages` and `timed` are named in `pools`; a `*_span` is where
    something's entries start and end. `pairs` is of event name and pattern, -1 if the one does not concern
    the other; what follows it is of a pair, or of a pair and a step.
    """

    patterns: Numbers
    steps: Numbers
    stages: Numbers
    timed: Numbers
    lists: Numbers
    pairs: Numbers
    step_span: Numbers
    choices: Numbers
    register_span: Numbers
    registers: Numbers
    forbid_span: Numbers
    forbids: Numbers
    opening_span: Numbers
    opening: Numbers
    before_span: Numbers
    before: Numbers
    before_us: Numbers
    who: Numbers
    code: Numbers
    constants: NDArray[np.float64]


#: A value that is read of an event, and as what it is taken.
Wanted = tuple[t.Node, Taken]


@dataclass(slots=True)
class Reads:
    """What is read of the events of one name: truths (bits of a word) and values (columns)."""

    bits: dict[t.Node, int] = field(default_factory=dict)
    columns: dict[Wanted, int] = field(default_factory=dict)
    #: Bit -> the patterns that look at an event where it is true, as bits; under -1 those that always do.
    concerns: dict[int, int] = field(default_factory=lambda: {-1: 0})
    #: The same, of events that may open a try or break a silence before the start.
    opens: dict[int, int] = field(default_factory=lambda: {-1: 0})


@dataclass(frozen=True, slots=True)
class Automaton:
    """Compiled patterns. `names` numbers the event names; `reads` follows it."""

    patterns: tuple[Pattern, ...]
    names: Mapping[str, int]
    reads: tuple[Reads, ...]
    tables: Tables
    n_columns: int
    n_registers: int
    n_steps: int
    n_timed: int
    n_before: int


def refusal(pattern: Pattern) -> str:
    """Why the tables cannot say a pattern; empty if they can. What is kept as context is the caller's."""
    nouns: list[_Noun] = [pattern, pattern.repeat, *pattern.steps, *pattern.stages]
    nouns += [step.limit for step in pattern.events if step.limit is not None]
    nouns += [choice.where for step in pattern.steps for choice in step.choices if choice.where is not None]
    nouns += [pattern.who] if pattern.who is not None else []
    for noun in nouns:
        names = {each.name for each in fields(noun)}
        if type(noun) not in _KNOWN or names != _KNOWN[type(noun)]:
            return f"a {type(noun).__name__.lower()} with more than the tables know"
    if pattern.who is not None and not is_pure(pattern.who.tree):
        return "who"
    return _unlike_tables(pattern) or _unlike_programs(pattern)


def _unlike_tables(pattern: Pattern) -> str:
    """What of a pattern's form the tables do not say."""
    if pattern.branches or pattern.has_many or pattern.wakes or pattern.ends_by_time:
        return "several occurrences of one start, or stages that time passes"
    for stage in pattern.stages:
        in_order = stage.steps == tuple(range(stage.steps[0], stage.steps[-1] + 1)) if stage.steps else False
        if stage.is_any or stage.is_optional or stage.silences or stage.back is not None or not in_order:
            return "a stage that any step passes, that may be missing or that starts again"
    for step in pattern.events:
        if step.least < 1 or step.until or step.stops or "any" in (step.link, step.between):
            return f"how often {step.name} comes"
        if step.limit is not None and pattern.events[step.limit.index].stage == step.stage:
            return f"the limit of {step.name}"
        wheres = [choice.where for choice in step.choices if choice.where is not None]
        if any(name == step.name for where in wheres for name, _ in where.references()):
            return f"a condition of {step.name} on its own earlier events"
    for absence in pattern.steps:
        if isinstance(absence, Absence) and (absence.begins_again or absence.part):
            return f"the silence {absence.name}"
    if pattern.repeat.once == "field" and pattern.repeat.field == "n":
        return "repeat by a number of events"
    return ""


def _unlike_programs(pattern: Pattern) -> str:
    """The first condition that neither columns nor programs say."""
    for step in pattern.steps:
        for choice in step.choices:
            for part in parts_of(choice.where):
                if not (is_pure(part) or is_programmable(part)):
                    return f"the condition of {step.name}"
    return ""


# -- conditions -----------------------------------------------------------------------------------------


def parts_of(where: Condition | None) -> tuple[t.Node, ...]:
    """The parts of which all must be true."""
    if where is None:
        return ()
    tree = where.tree
    return tree.parts if isinstance(tree, t.Logic) and tree.word == "and" else (tree,)


def is_pure(node: t.Node) -> bool:
    """Whether a condition looks at the event alone, and columns can say it."""
    return is_columnar(node) and not any(isinstance(each, t.StepField) for each in t.walk(node))


def of_one_step(node: t.Node) -> tuple[int, bool, t.Node] | None:
    """A node that looks at one event of one step only: the step, whether its first event, and the node as
    it is read of that event itself."""
    found = {(each.index, _is_first(each)) for each in t.walk(node) if isinstance(each, t.StepField)}
    mixed = any(isinstance(each, (t.Field, t.Trait)) for each in t.walk(node))
    if mixed or len(found) != 1 or any(_is_count(each) for each in t.walk(node)):
        return None
    (index, is_first) = next(iter(found))
    return index, is_first, _own(node)


def _is_first(node: t.StepField) -> bool:
    return node.name.startswith("first.")


def _is_count(node: t.Node) -> bool:
    return isinstance(node, t.StepField) and node.name == "n"


def _own(node: t.Node) -> t.Node:
    """A node with the fields of a step read as those of the event at hand."""
    match node:
        case t.StepField(name=name, kind=kind):
            return t.Field(name.removeprefix("first."), kind)
        case t.Compare() | t.Arithmetic():
            return replace(node, left=_own(node.left), right=_own(node.right))
        case t.Logic() | t.Call():
            return replace(node, parts=tuple(_own(part) for part in node.parts))
        case t.OneOf():
            return replace(node, part=_own(node.part), choices=tuple(map(_own, node.choices)))
        case t.Not() | t.IsNull() | t.Like():
            return replace(node, part=_own(node.part))
        case _:
            return node


def is_programmable(node: t.Node, taken: Taken = "boolean") -> bool:
    """Whether a condition over several events can be said by registers."""
    if not any(isinstance(each, t.StepField) for each in t.walk(node)):
        return is_columnar(node, taken)
    one = of_one_step(node)
    if one is not None:
        return is_columnar(one[2], taken)
    match node:
        case t.StepField():
            return _is_count(node)
        case t.Compare(comparison=word, left=left, right=right):
            kind = right.kind if left.kind == "unknown" else left.kind
            known = kind in ("number", "boolean", "time") or (kind == "text" and word in ("=", "<>"))
            return known and is_programmable(left, kind) and is_programmable(right, kind)
        case t.OneOf(part=part, choices=choices):
            return all(is_programmable(t.Compare("=", part, each)) for each in choices)
        case t.Logic(parts=parts):
            return all(is_programmable(part) for part in parts)
        case t.Not(part=part):
            return is_programmable(part)
        case t.IsNull(part=part):
            return part.kind != "unknown" and is_programmable(part, part.kind)
        case t.Arithmetic(left=left, right=right):
            return is_programmable(left, "number") and is_programmable(right, "number")
        case t.Call(function="abs" | "negative", parts=parts):
            return is_programmable(parts[0], "number")
        case t.Call(function="coalesce", parts=parts, kind=kind):
            return kind in ("text", "number", "boolean", "time") and all(
                is_programmable(part, kind) for part in parts
            )
        case _:
            return False
