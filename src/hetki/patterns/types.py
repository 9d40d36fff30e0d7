"""Types of a condition: sqlglot's tree -> ours, with every name and type checked against the scope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Final, Literal

from sqlglot import expressions as exp

from hetki.declarations.durations import seconds
from hetki.errors import Fault, Invalid, nearest, shown
from hetki.events.fields import instant_of
from hetki.patterns import tree as t
from hetki.patterns.scope import CUSTOMER, HEADS, Place, Scope

_UNKNOWN = t.UNKNOWN
_COMPARISONS: Final[dict[type[exp.Expr], t.Comparison]] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_WORDS = (
    "and, or, not, in, between, like, is null, comparisons, + - * /, lower, length, abs, coalesce, interval,"
    " staffing"
)
_NUMBER_MAX = 1e15
#: Hints for what newcomers write.
A_DURATION: Final = "a duration is written interval '10 minutes'"
#: What senders call the parts of an event, which conditions do not name.
_AROUND_FIELDS: Final = ("properties", "context", "event", "traits")
_A_TEXT: Final = "a text stands in single quotes"


def typed(parsed: exp.Expr, scope: Scope, place: Place, faults: list[Fault]) -> t.Node:
    """Our tree of a parsed condition; what cannot be said is a fault, and unknown in the tree."""
    return _Reader(scope, place, faults).node(parsed)


def offset_of(expression: exp.Expr) -> int:
    """Where an expression starts, as far as sqlglot tells: at its first name, else 0."""
    starts = [each.meta["start"] for each in expression.find_all(exp.Identifier) if "start" in each.meta]
    return min(starts, default=0)


@dataclass(frozen=True, slots=True)
class _Reader:
    scope: Scope
    place: Place
    faults: list[Fault]

    def fault(self, at: exp.Expr, got: str, must: str, hint: str = "") -> t.Node:
        self.faults.append(Fault(self.place(offset_of(at)), got, must, hint))
        return _UNKNOWN

    def node(self, given: exp.Expr) -> t.Node:
        """One expression; dispatched by its type, which is the white list."""
        if type(given) in _COMPARISONS:
            return self.compare(given, _COMPARISONS[type(given)], given.this, given.expression)
        reader = _READERS.get(type(given))
        extra = {key for key, value in given.args.items() if value} - _ARGUMENTS.get(type(given), _USUAL)
        if reader is None or extra:
            name = given.name if isinstance(given, exp.Anonymous) else given.key
            return self.fault(given, shown(name), f"one of: {_WORDS}")
        return reader(self, given)

    def column(self, given: exp.Expr) -> t.Node:
        assert isinstance(given, exp.Column)
        step, name = given.table, given.name
        if given.db:
            step, name = given.db, f"{given.table}.{given.name}"
            if step in self.scope.steps and not self.is_of_several(step, given.table):
                must = "a field of the step; .first and .last are of steps that bind several events"
                return self.fault(given, shown(f"{step}.{name}"), must)
            name = name.removeprefix("last.")
        if not step:
            return self.field(given, name)
        if step == CUSTOMER and self.scope.around.has_customer:
            return t.Trait(name)
        if step == CUSTOMER:
            must = "account and a trait of it, as a moment about an account is of several customers"
            return self.fault(given, shown(f"{step}.{name}"), must)
        if step in HEADS:
            return self.around(given, step, name)
        if step in self.scope.closed:
            return self.fault(given, shown(step), self.scope.closed[step])
        if step not in self.scope.steps:
            known = [*self.scope.steps, CUSTOMER]
            must = (
                "a step before this one, or customer"
                if self.scope.steps
                else "customer, as no step is known here"
            )
            alone = step in _AROUND_FIELDS
            hint = "a field of the event stands by its name alone" if alone else nearest(step, known)
            return self.fault(given, shown(step), must, hint)
        events = self.scope.steps[step]
        kinds = self.scope.of_step(step, name)
        if not events:
            return _UNKNOWN  # the step names an unknown event, and that is the fault to repair
        if not kinds:
            return self.no_field(given.this, given.name, f"a field of {' or '.join(events)}", events)
        if len(set(kinds.values())) > 1:
            return self.fault(given, shown(f"{step}.{name}"), "of one type in all events of that step")
        return t.StepField(step, self.scope.index(step), name, next(iter(kinds.values())))

    def around(self, given: exp.Expr, head: str, name: str) -> t.Node:
        """An aggregate, a segment or a purpose, as far as this place knows any."""
        known, noun = self.scope.around.of(head), HEADS[head]
        if name in known:
            return known[name]
        must = f"a declared {noun}" if known else f"another name, as no {noun} is known here"
        return self.fault(given, shown(f"{head}.{name}"), must, nearest(name, known))

    def staffing(self, given: exp.Expr) -> t.Node:
        """`staffing(POOL)`, the one function that is not SQL's."""
        name, parts = str(given.this), given.expressions
        if name.lower() != "staffing":
            return self.fault(given, shown(name), f"one of: {_WORDS}")
        allowed = self.scope.around.staffing
        if allowed == "none":
            return self.fault(given, "staffing", "another condition, as no staffing is known here")
        pool = self.node(parts[0]) if len(parts) == 1 else None
        if pool is None or pool.kind not in ("text", "unknown"):
            return self.fault(given, "staffing of no pool", "staffing of a text, such as staffing('kitchen')")
        if isinstance(pool, t.Constant):
            if allowed == "named":
                return t.Known(f"staffing.{pool.value}", "number", f"the staffing of {pool.text}")
        elif allowed == "named" or not isinstance(pool, t.Field | t.StepField | t.Trait):
            must = "a pool in quotes, such as staffing('kitchen')"
            return self.fault(given, "staffing of a computed pool", must)
        return t.Staffing(pool)

    def is_of_several(self, step: str, which: str) -> bool:
        return step in self.scope.counted and which in ("first", "last")

    def field(self, given: exp.Expr, name: str) -> t.Node:
        if not self.scope.events:
            steps = [f"{step}.{name}" for step in self.scope.steps]
            hint = f"did you mean {' or '.join([*steps[:3], f'{CUSTOMER}.{name}'])}"
            return self.fault(given, shown(name), "a step's field or a customer's trait", hint)
        kinds = self.scope.kinds(self.scope.events, name)
        for event in self.scope.events:
            if event not in kinds:
                return self.no_field(given, name, f"a field of {event}", (event,), f"{_A_TEXT}; else ")
        if len(set(kinds.values())) > 1:
            return self.fault(given, shown(name), f"of one type in {' and '.join(kinds)}")
        return t.Field(name, kinds[self.scope.events[0]])

    def no_field(
        self, given: exp.Expr, name: str, must: str, events: tuple[str, ...], first: str = ""
    ) -> t.Node:
        known = sorted({each for event in events for each in self.scope.catalogue.fields(event)})
        other = f"{first}add the field to a file in events/, or use one of {', '.join(known[:12])}"
        hint = nearest(name, known) or other
        return self.fault(given, shown(name), must, hint)

    def literal(self, given: exp.Expr) -> t.Node:
        text = str(given.this)
        if given.is_string:
            return t.Constant(text, "text", text)
        try:
            number = int(text) if text.isdigit() else float(text)
        except ValueError:
            return self.fault(given, shown(text), "a number")
        if not abs(number) <= _NUMBER_MAX:
            return self.fault(given, shown(text), "a number of at most fifteen digits")
        return t.Constant(number, "number", text)

    def interval(self, given: exp.Expr) -> t.Node:
        text = " ".join(part for part in (given.name, given.text("unit").lower()) if part)
        try:
            return t.Constant(seconds(text), "number", text)
        except Invalid as error:
            fault = error.faults[0]
            return self.fault(given.parent or given, fault.got, fault.must, fault.hint)

    def compare(self, at: exp.Expr, word: t.Comparison, left: exp.Expr, right: exp.Expr) -> t.Node:
        one, other = self.alike(at, self.node(left), self.node(right))
        if one.kind == "boolean" and word not in ("=", "<>"):
            return self.fault(at, f"true or false {word}", "= or <> between true and false")
        return t.Compare(word, one, other)

    def alike(self, at: exp.Expr, left: t.Node, right: t.Node) -> tuple[t.Node, t.Node]:
        """Both sides of a comparison, a written time turned into an instant; a fault if they never fit."""
        for side in (left, right):
            if isinstance(side, t.Constant) and side.value is None and side is not _UNKNOWN:
                self.fault(at, "a comparison with null", "is null or is not null")
                return _UNKNOWN, _UNKNOWN
            if side.kind in ("list", "object"):
                self.fault(at, f"a comparison of a {side.kind}", "is null or is not null")
                return _UNKNOWN, _UNKNOWN
        left, right = self.timed(at, left, right), self.timed(at, right, left)
        kinds = {left.kind, right.kind} - {"unknown"}
        if len(kinds) > 1:
            hint = "a time needs the catalogue's type time on both sides" if "time" in kinds else ""
            if kinds == {"number", "text"} and (_is_duration(left) or _is_duration(right)):
                hint = A_DURATION
            self.fault(at, f"{left.kind} compared with {right.kind}", "two values of one type", hint)
        return left, right

    def timed(self, at: exp.Expr, side: t.Node, other: t.Node) -> t.Node:
        if other.kind != "time" or not isinstance(side, t.Constant) or not isinstance(side.value, str):
            return side
        instant = instant_of(side.value)
        if instant is None:
            return self.fault(at, shown(side.value), "a time such as '2026-01-31T12:00:00Z'")
        return t.Constant(instant, "time", side.value)

    def truth(self, given: exp.Expr) -> t.Node:
        """A part of and, or, not: it must be true or false."""
        part = self.node(given)
        if part.kind not in ("boolean", "unknown"):
            return self.fault(given, f"a {part.kind}", "true or false; compare it with something")
        return part

    def logic(self, given: exp.Expr) -> t.Node:
        assert isinstance(given, (exp.And, exp.Or))
        parts = tuple(self.truth(part) for part in given.flatten())
        return t.Logic("and" if isinstance(given, exp.And) else "or", parts)

    def one_of(self, given: exp.Expr) -> t.Node:
        part, choices = self.node(given.this), []
        for each in given.expressions:
            choices.append(self.alike(given, part, self.node(each))[1])
        if not choices:
            return self.fault(given, "in ()", "in (...) with at least one value")
        return t.OneOf(part, tuple(choices))

    def like(self, given: exp.Expr) -> t.Node:
        part, pattern = self.node(given.this), given.expression
        if not isinstance(pattern, exp.Literal) or not pattern.is_string:
            return self.fault(given, "like with a computed text", "like with a text in quotes")
        if part.kind not in ("text", "unknown"):
            return self.fault(given, f"a {part.kind} before like", "a text")
        like = t.Like(part, str(pattern.this))
        return t.Not(like) if given.args.get("negate") else like

    def between(self, given: exp.Expr) -> t.Node:
        low = self.compare(given, ">=", given.this, given.args["low"])
        return t.Logic("and", (low, self.compare(given, "<=", given.this, given.args["high"])))

    def is_null(self, given: exp.Expr) -> t.Node:
        if not isinstance(given.expression, exp.Null):
            return self.fault(given, "is", "is null, is not null, or = true")
        return t.IsNull(self.node(given.this))

    def arithmetic(self, given: exp.Expr) -> t.Node:
        sign = _SIGNS[type(given)]
        left, right = self.node(given.this), self.node(given.expression)
        kinds = (_numeric(left.kind), sign, _numeric(right.kind))
        if kinds == ("time", "-", "time") or (kinds[0] == kinds[2] == "number"):
            return t.Arithmetic(sign, left, right, "number")
        if kinds in (("time", "+", "number"), ("time", "-", "number")):
            return t.Arithmetic(sign, left, right, "time")
        return self.fault(given, f"{left.kind} {sign} {right.kind}", "numbers, or times and intervals")

    def negative(self, given: exp.Expr) -> t.Node:
        part = self.node(given.this)
        if isinstance(part, t.Constant) and isinstance(part.value, (int, float)) and part.kind == "number":
            return t.Constant(-part.value, "number", f"-{part.text}")
        return self.call(given, "negative", "number", "number")

    def call(self, given: exp.Expr, name: t.Function, takes: t.Kind, gives: t.Kind) -> t.Node:
        part = self.node(given.this)
        if part.kind not in (takes, "unknown"):
            return self.fault(given, f"{name} of a {part.kind}", f"{name} of a {takes}")
        return t.Call(name, (part,), gives)

    def coalesce(self, given: exp.Expr) -> t.Node:
        parts = [self.node(given.this)]
        for each in given.expressions:
            parts.append(self.alike(given, parts[0], self.node(each))[1])
        kinds = {part.kind for part in parts} - {"unknown"}
        return t.Call("coalesce", tuple(parts), kinds.pop() if len(kinds) == 1 else "unknown")


def _is_duration(side: t.Node) -> bool:
    """Whether a side is a text that reads as a duration."""
    if not isinstance(side, t.Constant) or not isinstance(side.value, str):
        return False
    try:
        return seconds(side.value) > 0
    except Invalid:
        return False


def _numeric(kind: t.Kind) -> t.Kind:
    return "number" if kind == "unknown" else kind


_SIGNS: Final[dict[type[exp.Expr], Literal["+", "-", "*", "/"]]] = {
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
}
_READERS: Final[dict[type[exp.Expr], Callable[[_Reader, exp.Expr], t.Node]]] = {
    exp.Column: _Reader.column,
    exp.Literal: _Reader.literal,
    exp.Boolean: lambda reader, given: t.Constant(bool(given.this), "boolean", str(given.this).lower()),
    exp.Null: lambda reader, given: t.Constant(None, "unknown", "null"),
    exp.Interval: _Reader.interval,
    exp.Paren: lambda reader, given: reader.node(given.this),
    exp.And: _Reader.logic,
    exp.Or: _Reader.logic,
    exp.Not: lambda reader, given: t.Not(reader.truth(given.this)),
    exp.In: _Reader.one_of,
    exp.Like: _Reader.like,
    exp.Between: _Reader.between,
    exp.Is: _Reader.is_null,
    exp.Neg: _Reader.negative,
    exp.Add: _Reader.arithmetic,
    exp.Sub: _Reader.arithmetic,
    exp.Mul: _Reader.arithmetic,
    exp.Div: _Reader.arithmetic,
    exp.Lower: lambda reader, given: reader.call(given, "lower", "text", "text"),
    exp.Length: lambda reader, given: reader.call(given, "length", "text", "number"),
    exp.Abs: lambda reader, given: reader.call(given, "abs", "number", "number"),
    exp.Coalesce: _Reader.coalesce,
    exp.Anonymous: _Reader.staffing,
}
_USUAL: Final = {"this", "expression", "expressions"}
_ARGUMENTS: Final[dict[type[exp.Expr], set[str]]] = {
    exp.Column: {"this", "table", "db"},
    exp.Literal: {"this", "is_string"},
    exp.Interval: {"this", "unit", "fraction_in_string"},
    exp.Like: {"this", "expression", "negate"},
    exp.Between: {"this", "low", "high"},
    exp.In: {"this", "expressions"},
    exp.Div: {"this", "expression", "typed", "safe"},
    exp.Coalesce: {"this", "expressions", "is_nvl"},
}
