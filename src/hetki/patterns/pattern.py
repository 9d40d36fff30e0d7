"""Pattern: the steps of a moment, compiled. Start here, then `matcher` for what they mean.

- late: Delivery Delayed where n_minutes >= 15              an event step
- no tracked: Order Tracked                                 absent until the next event step
- no answered: Chat Started, for 10 minutes [after late]    absent for a time
- no delivered: Order Delivered, by late.promised_at        absent until a time that an event named
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Callable, Final, Iterable, Literal, Mapping, Sequence

from hetki.errors import Fault, nearest, shown
from hetki.events.catalogue import Catalogue
from hetki.patterns.choices import Choice, Group, checked, duration, split
from hetki.patterns.condition import Condition, parse
from hetki.patterns.evaluate import Test
from hetki.patterns.scope import Place, Scope, shifted
from hetki.patterns.types import CUSTOMER

STEPS_MAX: Final = 16

#: `where(*keys, offset=n)`: the place of what stands under the keys of `identify`, n characters into it.
Where = Callable[..., str]

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_FOR: Final = re.compile(r"\s*,?\s*for\s+(?P<time>.*?)(?:\s+after\s+(?P<step>\S+))?\s*")
_BY: Final = re.compile(r"\s*,?\s*by\s+(?P<step>[^\s.]+)\.(?P<field>\S+)\s*")


@dataclass(frozen=True, slots=True)
class EventStep:
    """A step that one event fulfils. `index` counts event steps; `captures` are the fields to keep of it.

    `waits` are the timed absences that must be over before it, `anchors` those that start with it;
    both are indices into `Pattern.timed`.
    """

    name: str
    index: int
    choices: tuple[Choice, ...]
    tests: Mapping[str, tuple[Test | None, ...]]
    captures: tuple[str, ...] = ()
    waits: tuple[int, ...] = ()
    anchors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Absence:
    """A step that holds while no event fits. Watched from the event step `anchor` on, until a deadline
    (`for_s` after it, or its field `by`), or without either until the event step `follows` binds.
    """

    name: str
    anchor: int
    follows: int
    choices: tuple[Choice, ...]
    for_s: int | None = None
    by: str | None = None

    @property
    def is_timed(self) -> bool:
        """Whether it has a deadline of its own."""
        return self.for_s is not None or self.by is not None


@dataclass(frozen=True, slots=True)
class Repeat:
    """Which occurrences are the same again: never any, those with one key, or those within a period."""

    once: Literal["always", "field", "period"] = "always"
    index: int = 0
    step: str = ""
    field: str = ""
    period_s: int = 0


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern. `steps` has all steps as declared, `events` the event steps, `timed` the absences
    with a deadline, `forbids` for each event name the absences it may break (with the index in `timed`, or
    -1) and `ending` the timed absences after the last event step. `within_us` is in microseconds.
    """

    steps: tuple[EventStep | Absence, ...]
    events: tuple[EventStep, ...]
    timed: tuple[Absence, ...]
    forbids: Mapping[str, tuple[tuple[Absence, int, Test | None], ...]]
    ending: tuple[int, ...]
    within_s: int | None
    within_us: int
    repeat: Repeat
    who: Condition | None
    names: frozenset[str]

    def scope(self, catalogue: Catalogue) -> Scope:
        """What a condition about an occurrence may use: its steps' fields and the customer's traits."""
        steps = {step.name: tuple(each.event for each in step.choices) for step in self.events}
        return Scope(catalogue, (), steps)


def parse_pattern(
    steps: Sequence[Mapping[str, str]],
    who: str,
    within: str,
    repeat: str,
    catalogue: Catalogue,
    captures: Iterable[tuple[str, str]],
    where: Where,
) -> tuple[Pattern | None, list[Fault]]:
    """The `identify` part of a moment as a pattern, or every fault in it.

    `captures` names the fields of steps, as `(step, field)`, that others will read of an occurrence.
    """
    faults: list[Fault] = []
    condition = None
    if who.strip():
        condition, found = parse(who, Scope(catalogue), lambda offset: where("who", offset=offset))
        faults.extend(found)
    read = _read_steps(steps, catalogue, where, faults)
    events = [step for step in read if isinstance(step, EventStep)]
    within_s = _within(within, len(events), where, faults)
    scope = Scope(catalogue, (), {step.name: tuple(each.event for each in step.choices) for step in events})
    repeated = _repeat(repeat, scope, where, faults)
    if faults:
        return None, faults
    faults = _impossible(read, within_s, where)
    if faults:
        return None, faults
    return _assembled(tuple(read), condition, within_s, repeated, set(captures)), []


def _read_steps(
    steps: Sequence[Mapping[str, str]], catalogue: Catalogue, where: Where, faults: list[Fault]
) -> list[EventStep | Absence]:
    read: list[EventStep | Absence] = []
    known: dict[str, tuple[str, ...]] = {}
    if not 1 <= len(steps) <= STEPS_MAX:
        faults.append(Fault(where("steps"), f"{len(steps)} steps", f"1 to {STEPS_MAX} steps"))
        return read
    names: set[str] = set()
    for number, each in enumerate(steps):
        if len(each) != 1:
            must = "one name and its event, as in: late: Delivery Delayed"
            faults.append(Fault(where("steps", number), f"{len(each)} entries in one step", must))
            continue
        ((key, text),) = each.items()
        name = key.removeprefix("no ").strip()
        place = _place(where, "steps", number, key)
        faults.extend(_misnamed(name, names, where("steps", number)))
        names.add(name)
        if key.startswith("no "):
            absence = _read_absence(name, text, Scope(catalogue, (), known), place, faults)
            if absence is not None:
                read.append(absence)
            continue
        groups, end = split(text, 0, catalogue)
        if rest := text[end:].strip():
            must = "the end of the step: only an absence ('no name: ...') has a time"
            faults.append(Fault(place(end), shown(rest), must))
        choices = checked(groups, Scope(catalogue, (), dict(known)), place, faults)
        read.append(EventStep(name, len(known), choices, {}))
        known[name] = tuple(choice.event for choice in choices)
    return read


def _place(where: Where, *keys: str | int) -> Place:
    return lambda offset: where(*keys, offset=offset)


def _misnamed(name: str, names: set[str], at: str) -> list[Fault]:
    if not _NAME.fullmatch(name):
        return [Fault(at, shown(name), "a step name of small letters, digits and _, such as late")]
    if name == CUSTOMER or name in names:
        return [Fault(at, shown(name), "a step name of its own, and not customer")]
    return []


def _read_absence(name: str, text: str, scope: Scope, place: Place, faults: list[Fault]) -> Absence | None:
    """An absence; what follows its events decides from where and until when it is watched."""
    if not scope.steps:
        must = "a step after an event step: a moment starts with an event"
        faults.append(Fault(place(0), f"the absence {shown(name)} first", must))
        return None
    groups, end = split(text, 0, scope.catalogue)
    last = len(scope.steps) - 1
    tail, rest = text[end:], shifted(place, end)
    if not tail.strip():
        return _absence(name, last, groups, scope, place, faults)
    if written := _FOR.fullmatch(tail):
        for_s = duration(written["time"], shifted(rest, written.start("time")), faults)
        anchor = last
        if written["step"] is not None:
            anchor = _anchor(written["step"], scope, shifted(rest, written.start("step")), faults)
        return _absence(name, anchor, groups, scope, place, faults, for_s=for_s)
    if written := _BY.fullmatch(tail):
        step, field = written["step"], written["field"]
        anchor = _anchor(step, scope, shifted(rest, written.start("step")), faults)
        if step in scope.steps:
            _must_be_time(step, field, scope, shifted(rest, written.start("field")), faults)
        return _absence(name, anchor, groups, scope, place, faults, by=field)
    start = len(tail) - len(tail.lstrip(" ,\t\n"))
    must = "for and a duration, or by and a step's time, as in: for 10 minutes after late"
    faults.append(Fault(rest(start), shown(tail.strip(" ,")), must))
    return _absence(name, last, groups, scope, place, faults)


def _absence(
    name: str,
    anchor: int,
    groups: list[Group],
    scope: Scope,
    place: Place,
    faults: list[Fault],
    for_s: int | None = None,
    by: str | None = None,
) -> Absence:
    """The absence with its conditions, which see the steps up to its anchor: it is watched from there on."""
    steps = list(scope.steps)
    reason = f"{steps[anchor]} or a step before it, as the absence is watched from {steps[anchor]} on"
    inner = replace(
        scope,
        steps={step: scope.steps[step] for step in steps[: anchor + 1]},
        closed=dict.fromkeys(steps[anchor + 1 :], reason),
    )
    return Absence(name, anchor, len(steps), checked(groups, inner, place, faults), for_s, by)


def _anchor(step: str, scope: Scope, place: Place, faults: list[Fault]) -> int:
    if step in scope.steps:
        return scope.index(step)
    faults.append(Fault(place(0), shown(step), "an event step before this one", nearest(step, scope.steps)))
    return 0


def _must_be_time(step: str, field: str, scope: Scope, place: Place, faults: list[Fault]) -> None:
    events = scope.steps[step]
    kinds = scope.kinds(events, field)
    if set(kinds.values()) == {"time"} or not events:
        return
    times = [
        name
        for event in events
        for name in scope.catalogue.fields(event)
        if scope.catalogue.field_type(event, name) == "time"
    ]
    got = f"{shown(field)}, which is {next(iter(kinds.values()))}" if kinds else shown(field)
    must = f"a time of {' or '.join(events)}"
    faults.append(Fault(place(0), got, must, nearest(field, times)))


def _within(text: str, n_events: int, where: Where, faults: list[Fault]) -> int | None:
    if not text.strip():
        if n_events > 1:
            must = "a duration from the first event step to the last, such as within: 1 day"
            faults.append(Fault(where("within"), "nothing", must))
        return None
    return duration(text, lambda offset: where("within", offset=offset), faults)


def _repeat(text: str, scope: Scope, where: Where, faults: list[Fault]) -> Repeat:
    """`every time`, `once per STEP.FIELD` or `once per DURATION`."""
    if text.strip() in ("", "every time"):
        return Repeat()
    place = _place(where, "repeat")
    written = re.fullmatch(r"\s*once per\s+(?P<per>.*?)\s*", text)
    if written is None:
        must = "every time, once per late.order_id, or once per 7 days"
        faults.append(Fault(place(0), shown(text), must))
        return Repeat()
    per, at = written["per"], shifted(place, written.start("per"))
    if not re.match(r"[A-Za-z_]", per):
        return Repeat("period", period_s=duration(per, at, faults))
    step, _, field = per.partition(".")
    if step not in scope.steps or not field:
        hint = nearest(step, scope.steps)
        faults.append(Fault(at(0), shown(per), "a field of an event step, such as late.order_id", hint))
        return Repeat()
    kinds = set(scope.kinds(scope.steps[step], field).values())
    if scope.steps[step] and (not kinds or kinds & {"list", "object"}):
        known = [each for event in scope.steps[step] for each in scope.catalogue.fields(event)]
        must = f"a field of {' or '.join(scope.steps[step])} that is no list and no object"
        faults.append(Fault(at(len(step) + 1), shown(field), must, "" if kinds else nearest(field, known)))
        return Repeat()
    return Repeat("field", scope.index(step), step, field)


def _impossible(steps: list[EventStep | Absence], within_s: int | None, where: Where) -> list[Fault]:
    """Patterns that can never match, as far as the declaration alone shows it."""
    faults = []
    events = [step for step in steps if isinstance(step, EventStep)]
    for number, step in enumerate(steps):
        if isinstance(step, EventStep):
            continue
        place = _place(where, "steps", number, f"no {step.name}")
        if step.follows == len(events):
            if not step.is_timed:
                must = "followed by an event step, or end with a time, such as: for 10 minutes"
                faults.append(Fault(place(0), "an absence at the end without a deadline", must))
            continue
        always = {choice.event for choice in step.choices if choice.where is None}
        if not step.is_timed and {choice.event for choice in events[step.follows].choices} <= always:
            got = f"an absence of what the step {events[step.follows].name} needs"
            faults.append(Fault(place(0), got, "another event, or have a where: this can never match"))
        if within_s is not None and step.for_s is not None and step.anchor == 0 and step.for_s >= within_s:
            must = "shorter than within, as the next event step could never bind"
            faults.append(Fault(place(0), "an absence as long as within", must))
    return faults


def _assembled(
    steps: tuple[EventStep | Absence, ...],
    who: Condition | None,
    within_s: int | None,
    repeat: Repeat,
    captures: set[tuple[str, str]],
) -> Pattern:
    """Everything the matcher looks up, worked out once."""
    absences = [step for step in steps if isinstance(step, Absence)]
    timed = tuple(step for step in absences if step.is_timed)
    captures |= {(repeat.step, repeat.field)} if repeat.once == "field" else set()
    for step in steps:
        for choice in step.choices:
            captures |= set(choice.where.references()) if choice.where else set()
    drawn = [step for step in steps if isinstance(step, EventStep)]
    captures |= {(drawn[step.anchor].name, step.by) for step in timed if step.by is not None}
    events = tuple(
        replace(
            step,
            tests=_tests(step.choices),
            captures=tuple(sorted(field for name, field in captures if name == step.name)),
            waits=tuple(n for n, each in enumerate(timed) if each.follows == step.index),
            anchors=tuple(n for n, each in enumerate(timed) if each.anchor == step.index),
        )
        for step in drawn
    )
    forbids: dict[str, tuple[tuple[Absence, int, Test | None], ...]] = {}
    for absence in absences:
        number = timed.index(absence) if absence.is_timed else -1
        for choice in absence.choices:
            test = choice.where.test if choice.where else None
            forbids[choice.event] = (*forbids.get(choice.event, ()), (absence, number, test))
    return Pattern(
        steps=tuple(events[step.index] if isinstance(step, EventStep) else step for step in steps),
        events=events,
        timed=timed,
        forbids=forbids,
        ending=tuple(n for n, each in enumerate(timed) if each.follows == len(events)),
        within_s=within_s,
        within_us=(within_s or 0) * 1_000_000,
        repeat=repeat,
        who=who,
        names=frozenset(choice.event for step in steps for choice in step.choices),
    )


def _tests(choices: tuple[Choice, ...]) -> dict[str, tuple[Test | None, ...]]:
    tests: dict[str, tuple[Test | None, ...]] = {}
    for choice in choices:
        test = choice.where.test if choice.where else None
        tests[choice.event] = (*tests.get(choice.event, ()), test)
    return tests
