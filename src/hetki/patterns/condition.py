"""Condition: an SQL expression over an event, the steps before it and the customer's traits. Start here.

sqlglot parses the text, `types` turns its tree into ours (`tree`) and checks names and types against the
catalogue, `evaluate` compiles that tree. Nothing else is ever executed. Logic is SQL's: unknown is not true.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Sequence

import sqlglot
from sqlglot import Token, TokenType
from sqlglot import expressions as exp
from sqlglot.errors import SqlglotError

from hetki.declarations.durations import UNITS
from hetki.errors import Fault, shown
from hetki.events.event import Event
from hetki.events.fields import Fields
from hetki.patterns.evaluate import Test, compiled
from hetki.patterns.run import Bound
from hetki.patterns.scope import HEADS, RESERVED, Place, Scope
from hetki.patterns.sense import Senseless, name_of, senseless
from hetki.patterns.tree import Field, InSegment, Known, Node, Staffing, StepField, walk
from hetki.patterns.types import A_DURATION, offset_of, typed

CHARS_MAX = 1_000
TOKENS_MAX = 300
NESTED_MAX = 16

_MUST = "a condition such as n_results = 0 and device = 'mobile'"
_WRITTEN_AS = {"&&": "write and", "||": "write or", "&": "write and", "|": "write or"}
_OPERANDS = {TokenType.VAR, TokenType.STRING, TokenType.NUMBER, TokenType.IDENTIFIER}
_NOTHING = Fields(Event("", "", "", "", 0, 0, {}))


@dataclass(frozen=True, slots=True)
class Condition:
    """A checked condition. `test(fields, bound, traits)` gives `True`, `False` or `None` for unknown."""

    text: str
    tree: Node
    test: Test = field(compare=False, repr=False)

    def references(self) -> list[tuple[str, str]]:
        """The fields of steps that it reads, as `(step, field)`."""
        return sorted({(node.step, node.name) for node in walk(self.tree) if isinstance(node, StepField)})


def parse(text: str, scope: Scope, place: Place) -> tuple[Condition | None, list[Fault]]:
    """A condition, or every fault found in it. `place` turns an offset in `text` into a where."""
    parsed = _parsed(text)
    if isinstance(parsed, _Refused):
        return None, [Fault(place(parsed.offset), parsed.got, parsed.must, parsed.hint)]
    faults: list[Fault] = []
    tree = typed(parsed, scope, place, faults)
    if tree.kind not in ("boolean", "unknown") and not faults:
        must = "true or false; compare it with something"
        faults.append(Fault(place(offset_of(parsed)), f"a {tree.kind}", must))
    found = None if faults else senseless(tree)
    if found is not None:
        faults.append(_senseless(text, found, place))
    return (None, faults) if faults else (Condition(text, tree, compiled(tree)), [])


def parse_value(text: str, scope: Scope, place: Place) -> tuple[Node | None, list[Fault]]:
    """One name, or the staffing of a pool, or every fault in it: what may be kept of a situation."""
    parsed = _parsed(text)
    if isinstance(parsed, _Refused):
        return None, [Fault(place(parsed.offset), parsed.got, parsed.must)]
    faults: list[Fault] = []
    tree = typed(parsed, scope, place, faults)
    if not faults and not isinstance(tree, Field | Known | InSegment | Staffing):
        must = "a field, such as device, or consent.marketing, segment.NAME, aggregate.NAME, staffing('POOL')"
        faults.append(Fault(place(0), shown(text), must))
    return (None, faults) if faults else (tree, [])


def holds(condition: Condition | None, bound: Sequence[Bound], traits: Mapping[str, object]) -> bool:
    """Whether a condition without an event at hand is true (`who`, `eligible`); no condition always is."""
    return condition is None or condition.test(_NOTHING, bound, traits) is True


def step_fields(text: str) -> list[tuple[str, str]]:
    """Every `step.field` in a text, unchecked; none if it is no condition. Says what must be captured.

    >>> step_fields("late.n_minutes >= 15 and customer.plan = 'private'")
    [('late', 'n_minutes')]
    """
    parsed = _parsed(text)
    if isinstance(parsed, _Refused):
        return []
    columns = {
        (column.db, f"{column.table}.{column.name}".removeprefix("last."))
        if column.db
        else (column.table, column.name)
        for column in parsed.find_all(exp.Column)
    }
    return sorted((step, field) for step, field in columns if step and step not in RESERVED)


def asked(text: str) -> list[str]:
    """Every aggregate, segment, purpose and named pool in a text, unchecked, as it would be written.

    >>> asked("not segment.vip and staffing('kitchen') < 0.8 and late.n_minutes > 1")
    ['segment.vip', "staffing('kitchen')"]
    """
    parsed = _parsed(text)
    if isinstance(parsed, _Refused):
        return []
    found = {f"{each.table}.{each.name}" for each in parsed.find_all(exp.Column) if each.table in HEADS}
    for each in parsed.find_all(exp.Anonymous):
        pools = [pool for pool in each.expressions if isinstance(pool, exp.Literal) and pool.is_string]
        found |= {f"staffing({pool.sql()})" for pool in pools}
    return sorted(found)


def _senseless(text: str, found: Senseless, place: Place) -> Fault:
    name = name_of(found.value) if found.value is not None else ""
    at, hint = place(max(text.find(name), 0)), ""
    if found.what == "never":
        return Fault(at, "a condition that can never be true", "one that something can fulfil")
    if name and "is null" not in text:
        hint = f"write {name} is not null if that is meant"
    return Fault(at, "a condition that is always true", "one that can be false, or left out", hint)


@dataclass(frozen=True, slots=True)
class _Refused:
    offset: int
    got: str
    must: str = _MUST
    hint: str = ""


def _parsed(text: str) -> exp.Expr | _Refused:
    """The text as sqlglot's tree, within our bounds."""
    if not text.strip():
        return _Refused(0, "nothing")
    if len(text) > CHARS_MAX:
        return _Refused(0, f"{len(text)} characters", f"at most {CHARS_MAX} characters")
    line = "".join(" " if each.isspace() else each for each in text)
    try:
        refused = _too_large(sqlglot.tokenize(line))
        return refused if refused else sqlglot.parse_one(line, into=exp.Condition)
    except SqlglotError as error:
        details = getattr(error, "errors", None)
        if not details:
            return _Refused(max(line.rfind("'"), line.rfind('"'), 0), "a text that is not closed")
        if (opened := _unclosed(line)) is not None:
            return _Refused(opened, "a bracket that is not closed")
        word = str(details[0].get("highlight") or "")
        end = int(details[0].get("col") or 0)
        if end >= len(line.rstrip()) and "missing" in str(details[0].get("description")):
            return _Refused(max(end - len(word), 0), f"nothing after {shown(word)}")
        hint = A_DURATION if word.lower().removesuffix("s") in UNITS else _WRITTEN_AS.get(word, "")
        return _Refused(max(end - len(word), 0), shown(word) if word else shown(line), hint=hint)
    except (RecursionError, ValueError):
        return _Refused(0, shown(line))


def _unclosed(line: str) -> int | None:
    """Where the last bracket stands that nothing closes."""
    opened: list[int] = []
    for token in sqlglot.tokenize(line):
        if token.token_type == TokenType.L_PAREN:
            opened.append(token.start)
        elif token.token_type == TokenType.R_PAREN and opened:
            opened.pop()
    return opened[-1] if opened else None


def _too_large(tokens: list[Token]) -> _Refused | None:
    """Refuse what would make a parser recurse: many tokens, deep brackets, long runs of operators."""
    if len(tokens) > TOKENS_MAX:
        return _Refused(tokens[TOKENS_MAX].start, f"{len(tokens)} words and signs", f"at most {TOKENS_MAX}")
    depth = run = 0
    for token in tokens:
        depth += (token.token_type == TokenType.L_PAREN) - (token.token_type == TokenType.R_PAREN)
        run = 0 if token.token_type in _OPERANDS or token.token_type == TokenType.R_PAREN else run + 1
        if depth > NESTED_MAX or run > 2 * NESTED_MAX:
            return _Refused(token.start, "a condition nested too deep", f"at most {NESTED_MAX} levels")
    return None
