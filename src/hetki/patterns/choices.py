"""Choices: `EVENT [or EVENT ...] [where COND] [or EVENT ...]`, and the outcome that is built from them.

A `where` belongs to the events before it, back to the last `where`:
`Order Tracked or Chat Started where a = 1 or Order Cancelled` asks `a = 1` of the first two only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Mapping, Sequence

from hetki.declarations.durations import seconds
from hetki.declarations.walk import TEXT_CHARS_MAX
from hetki.errors import Fault, Invalid, nearest, shown
from hetki.events.catalogue import Catalogue
from hetki.events.event import STAFFED
from hetki.events.fields import Fields
from hetki.patterns.condition import Condition, parse
from hetki.patterns.evaluate import Test
from hetki.patterns.scope import Place, Scope, shifted

_NAME_CHARS_MAX: Final = 512
_END: Final = re.compile(r"\s*,|\s+(?:within|until|for|by)\s|\s*$")
_OR: Final = re.compile(r"\s+or\s+")
_WHERE: Final = re.compile(r"\s+where(?:\s+|$)")
_STOP: Final = re.compile(r"\s+(?:or|where|within|until|for|by)(?:\s|$)|\s*,|\s*$")
LOOKS_LIKE_CONDITION: Final = re.compile(r"[=<>]|\b(?:is|in|like|between)\b")
_LOOKS_LIKE_EVENT: Final = re.compile(
    r"[A-Z][a-z]+(?: [A-Z][A-Za-z]*)*(?=\s*$|\s+or\s|\s+where\s|\s*,|\s+within\s|\s+until\s)"
)


@dataclass(frozen=True, slots=True)
class Choice:
    """One event that fits, and what must be true of it."""

    event: str
    where: Condition | None = None


#: The conditions of the events that fit, by their names; `None` for one without a condition.
Tests = Mapping[str, tuple[Test | None, ...]]


def tests_of(choices: Sequence[Choice]) -> Tests:
    """The conditions of choices, by the names of their events."""
    tests: dict[str, tuple[Test | None, ...]] = {}
    for choice in choices:
        test = choice.where.test if choice.where else None
        tests[choice.event] = (*tests.get(choice.event, ()), test)
    return tests


@dataclass(frozen=True, slots=True)
class EventWithin:
    """An outcome: one of the events (or, `negated`, none of them) within a time after the occurrence."""

    negated: bool
    choices: tuple[Choice, ...]
    within_s: int

    def fits(self, name: str, fields: Fields) -> bool:
        """Whether an event is one of those named. It says nothing about `negated`."""
        return any(
            each.event == name and (each.where is None or each.where.test(fields, (), {}) is True)
            for each in self.choices
        )


@dataclass(frozen=True, slots=True)
class Group:
    """Events that share one `where`, as written, with the offsets of both."""

    names: tuple[tuple[int, str], ...]
    where: str | None
    where_at: int


def split(text: str, at: int, catalogue: Catalogue) -> tuple[list[Group], int]:
    """The groups that start at an offset, and the offset of what follows them."""
    groups: list[Group] = []
    names: list[tuple[int, str]] = []
    while True:
        at += len(text[at:]) - len(text[at:].lstrip())
        name = _name(text, at, catalogue)
        names.append((at, name))
        at += len(name)
        if condition := _WHERE.match(text, at):
            end = _condition_end(text, condition.end(), catalogue)
            groups.append(Group(tuple(names), text[condition.end() : end], condition.end()))
            names, at = [], end
        following = _OR.match(text, at)
        if following is None:
            break
        at = following.end()
    if names:
        groups.append(Group(tuple(names), None, at))
    return groups, at


def checked(groups: list[Group], scope: Scope, place: Place, faults: list[Fault]) -> tuple[Choice, ...]:
    """The choices of groups; unknown events and faulty conditions are added to `faults`."""
    choices: list[Choice] = []
    for group in groups:
        known = tuple(name for _, name in group.names if name in scope.catalogue.events)
        for at, name in group.names:
            if name not in scope.catalogue.events:
                got, hint = shown(name) if name else "nothing", _hint(name, scope.catalogue)
                faults.append(Fault(place(at), got, "an event of the catalogue", hint))
            elif name == STAFFED:
                must = "an event of customers; conditions ask for staffing('kitchen')"
                faults.append(Fault(place(at), shown(name), must))
        condition = None
        if group.where is not None:
            inner = replace(scope, events=known)
            condition, found = parse(group.where, inner, shifted(place, group.where_at))
            # Fields of an unknown event cannot be judged; its name is the fault to repair first.
            faults.extend(found if len(known) == len(group.names) else [])
        choices.extend(Choice(name, condition) for name in known)
    return tuple(choices)


def _hint(name: str, catalogue: Catalogue) -> str:
    """What may be meant by a name that is no event: a count or an order written otherwise, or the nearest."""
    if re.match(r"\d+ ?x\b|\w+ times\b", name):
        return "a count is written 3 times Help Searched, 2 to 4 times, or at least 3 times"
    if LOOKS_LIKE_CONDITION.search(name):
        return "a condition begins with where"
    if all(part in catalogue.events for part in name.split(" and ")):
        return "for both, in any order, put two names into one entry: {one: ..., other: ...}"
    return nearest(name, catalogue.events)


def parse_outcome(text: str, catalogue: Catalogue, place: Place) -> tuple[EventWithin | None, list[Fault]]:
    """`[no] EVENT [where COND] [or EVENT ...] within DURATION`, or every fault in it."""
    faults: list[Fault] = []
    if is_too_long(text, place, faults):
        return None, faults
    negated = re.match(r"\s*no\s+", text)
    groups, end = split(text, negated.end() if negated else 0, catalogue)
    choices = checked(groups, Scope(catalogue), place, faults)
    tail = re.match(r"\s*,?\s*within\s+", text[end:])
    within_s = 0
    if tail is None:
        rest = text[end:].strip()
        must = "within and a duration, as in: Order Completed within 7 days"
        last = max(len(text.rstrip()) - 1, 0)
        faults.append(Fault(place(min(end, last)), shown(rest) if rest else "nothing", must))
    else:
        within_s = duration(text[end + tail.end() :], shifted(place, end + tail.end()), faults)
    return (None, faults) if faults else (EventWithin(negated is not None, choices, within_s), [])


def is_too_long(text: str, place: Place, faults: list[Fault]) -> bool:
    """Whether a text is longer than anybody writes by hand, which is a fault: reading what a step, an
    aggregate or an outcome says takes more than proportional time."""
    if len(text) > TEXT_CHARS_MAX:
        faults.append(Fault(place(0), f"{len(text)} characters", f"at most {TEXT_CHARS_MAX} characters"))
    return len(text) > TEXT_CHARS_MAX


def duration(text: str, place: Place, faults: list[Fault]) -> int:
    """A written duration that is longer than nothing, in seconds; 0 and a fault otherwise."""
    try:
        length_s = seconds(text, place(0))
    except Invalid as error:
        faults.extend(error.faults)
        return 0
    if length_s == 0:
        faults.append(Fault(place(0), shown(text.strip()), "longer than nothing"))
    return length_s


def _name(text: str, at: int, catalogue: Catalogue) -> str:
    """The longest known event name at an offset, else all that cannot belong to anything else."""
    for end in range(min(len(text), at + _NAME_CHARS_MAX), at, -1):
        if text[at:end] in catalogue.events and _STOP.match(text, end):
            return text[at:end]
    stop = _STOP.search(text, at)
    return text[at : stop.start()] if stop else text[at:]


def _condition_end(text: str, at: int, catalogue: Catalogue) -> int:
    """Where a condition ends: before `or EVENT`, a comma, `within`, `until`, `for`, `by`, outside quotes."""
    outside = masked(text, at)
    stop = _END.search(outside, at)
    end = stop.start() if stop else len(text)
    for word in _OR.finditer(outside, at, end):
        name = _name(text, word.end(), catalogue)
        if name in catalogue.events or _LOOKS_LIKE_EVENT.match(text, word.end()):
            return word.start()
    return end


def masked(text: str, at: int) -> str:
    """The text with everything inside quotes and brackets from an offset on made invisible."""
    depth, quote, out = 0, "", [text[:at]]
    for character in text[at:]:
        if quote:
            quote = "" if character == quote else quote
            out.append("\0")
        elif character in "'\"":
            quote = character
            out.append("\0")
        else:
            depth = max(depth + (character == "(") - (character == ")"), 0)
            out.append("\0" if depth or character == ")" else character)
    return "".join(out)
