"""Context: what a moment asks of the situation beside its steps, and what it keeps of it.

Aggregates and segments are read here, and so is `identify.context`: what is captured as of the last event
that is bound, for explanations, templates and the conditions of answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Iterable, Iterator, Mapping

from hetki.declarations.read import Declared, T
from hetki.errors import Fault, shown
from hetki.events.catalogue import Catalogue
from hetki.identity.survival import Survival
from hetki.patterns import tree as t
from hetki.patterns.aggregates import Aggregate
from hetki.patterns.condition import Condition, parse_value
from hetki.patterns.evaluate import Test, compiled, number
from hetki.patterns.scope import Place, Scope, Surroundings
from hetki.patterns.segments import Segments, nodes
from hetki.patterns.sequence import Pattern
from hetki.patterns.words import field_words

#: Entries of `identify.context`.
CONTEXT_MAX = 16


@dataclass(frozen=True, slots=True)
class Beside:
    """What a project declares beside a moment: segments (`None` for one with a fault), purposes (`None` if
    they cannot be read) and the traits of accounts.

    A moment about an account is of several customers, so it asks for no one's segments, consents and traits.
    """

    segments: Segments = field(default_factory=dict)
    purposes: tuple[str, ...] | None = ()
    account_traits: tuple[str, ...] = ()

    def around(self, own: Mapping[str, Aggregate | None], is_about_account: bool) -> Surroundings:
        """What the conditions of a moment may ask at an event, `own` being its aggregates."""
        if is_about_account:
            account = self._account()
            return Surroundings(nodes(own), staffing="any", account=account, has_customer=False)
        return Surroundings(nodes(own), nodes(self.segments), self._purposes(), "any")

    def later(self, own: Iterable[Aggregate], is_about_account: bool) -> Surroundings:
        """What the condition of an answer may ask: what was kept with the occurrence, by its name."""
        aggregates = {each.name: each.node for each in own}
        if is_about_account:
            return Surroundings(aggregates, staffing="named", account=self._account())
        segments: dict[str, t.Node] = {
            name: t.UNKNOWN
            if each is None
            else t.Known(f"segment.{name}", "boolean", f"the customer is in '{each.title}'")
            for name, each in self.segments.items()
        }
        return Surroundings(aggregates, segments, self._purposes(), "named")

    def _account(self) -> dict[str, t.Node]:
        return {
            name: t.Known(f"account.{name}", "unknown", f"the account's {field_words(name)}")
            for name in self.account_traits
        }

    def _purposes(self) -> dict[str, t.Node]:
        if self.purposes is None:
            return _Anything()
        return {
            name: t.Known(f"consent.{name}", "boolean", f"the purpose '{name}' is in force")
            for name in self.purposes
        }


class _Anything(dict[str, t.Node]):
    """Every name is known, of what could not be read: one fault does not make others."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> t.Node:
        return t.UNKNOWN


NOTHING_BESIDE = Beside()


def conditions(pattern: Pattern) -> Iterator[Condition]:
    """Every condition of a pattern."""
    if pattern.who is not None:
        yield pattern.who
    for step in pattern.steps:
        for choice in step.listens:
            if choice.where is not None:
                yield choice.where


def asks(trees: Iterable[t.Node]) -> bool:
    """Whether any tree looks up more than events and traits."""
    return any(isinstance(node, t.Known | t.Staffing) for tree in trees for node in t.walk(tree))


def account_traits(trees: Iterable[t.Node]) -> dict[str, Survival]:
    """The traits of an account that trees look up; of each the value stands that was told last."""
    known = {node.key for tree in trees for node in t.walk(tree) if isinstance(node, t.Known)}
    names = (key.removeprefix("account.") for key in sorted(known) if key.startswith("account."))
    return {name: Survival() for name in names}


def asks_staffing(trees: Iterable[t.Node]) -> bool:
    """Whether any tree looks up staffing."""
    for tree in trees:
        for node in t.walk(tree):
            if isinstance(node, t.Staffing) or (
                isinstance(node, t.Known) and node.key.startswith("staffing.")
            ):
                return True
    return False


def parse_context(
    items: list[str],
    wanted: Iterable[str],
    pattern: Pattern,
    catalogue: Catalogue,
    around: Surroundings,
    declared: Declared[T],
) -> tuple[dict[str, t.Node], list[Fault]]:
    """What is kept, by name, or every fault. `wanted` is what answers ask for, checked where they do."""
    scope = Scope(catalogue, _last_events(pattern), around=around)
    faults: list[Fault] = []
    if len(items) > CONTEXT_MAX:
        got = f"{len(items)} entries"
        faults.append(Fault(declared.where("identify", "context"), got, f"at most {CONTEXT_MAX}"))
    kept: dict[str, t.Node] = {}
    for place_of, text in enumerate(items):
        place: Place = partial(_place, declared, place_of)
        tree, found = parse_value(text, scope, place)
        faults += found
        if tree is None:
            continue
        name = name_of(tree)
        if tree.kind in ("list", "object") or name == "occurred_at":
            faults.append(Fault(place(0), shown(text), "a single value, and not the time of the occurrence"))
        elif name in kept:
            faults.append(Fault(place(0), shown(text), "named once"))
        kept[name] = tree
    for text in wanted:
        tree, found = parse_value(text, scope, str)
        if tree is not None:
            kept.setdefault(name_of(tree), tree)
    return kept, faults


def _last_events(pattern: Pattern) -> tuple[str, ...]:
    """The events that may be the last one that is bound."""
    found: dict[str, None] = {}
    for stage in reversed(pattern.stages):
        steps = [pattern.events[index] for index in stage.steps]
        found |= dict.fromkeys(choice.event for step in steps for choice in step.choices)
        if steps and not stage.is_optional and not (stage.is_any and stage.silences):
            break
    return tuple(found)


def name_of(tree: t.Node) -> str:
    """The name under which a value is kept: `device`, `consent.marketing`, `segment.x`, `staffing.a`."""
    match tree:
        case t.Known(key=key):
            return key
        case t.InSegment(name=name):
            return f"segment.{name}"
        case t.Staffing(pool=t.Constant(value=value)):
            return f"staffing.{value}"
        case t.Staffing(pool=inner):
            return f"staffing.{name_of(inner)}"
        case t.Field(name=name) | t.StepField(name=name) | t.Trait(name=name):
            return name
        case _:
            return ""


def test_of(tree: t.Node) -> Test:
    """What reads a value that is kept: a field as it was sent."""
    if isinstance(tree, t.Field):
        name = tree.name
        return lambda fields, bound, traits: _single(fields.get(name))
    return compiled(tree)


def _single(value: object) -> object:
    return value if isinstance(value, str | bool) else number(value)


def _place(declared: Declared[T], number: int, offset: int) -> str:
    return declared.where("identify", "context", number, offset=offset)
