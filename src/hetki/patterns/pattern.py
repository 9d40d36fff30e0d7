"""Pattern: the `identify` part of a moment, read and compiled. Start here, then `matcher` for what it means.

- late: Delivery Delayed where n_minutes >= 15              an event step
- then: next Order Completed within 1 hour of late          with nothing between, and in time
- failed: 3 times Help Searched                             several events
- {failed: Delivery Failed, waited: Chat Waited}            both, in any order
- no tracked: Order Tracked                                 absent until the next event step
- no answered: Chat Started, for 10 minutes [after late]    absent for a time
- no delivered: Order Delivered, by late.promised_at        absent until a time that an event named
- no visit: Store Visited, for 7 days before late           absent before the first step
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final, Iterable, Mapping, Sequence

from hetki.errors import Fault, nearest, shown
from hetki.events.catalogue import Catalogue
from hetki.patterns.choices import Choice, duration
from hetki.patterns.condition import Condition, parse
from hetki.patterns.evaluate import Test
from hetki.patterns.scope import NOTHING_AROUND, Scope, Surroundings, shifted
from hetki.patterns.sequence import Absence, EventStep, Pattern, Repeat
from hetki.patterns.steps import Reading, Where, read_steps

#: Each start opens a try of its own, or only one try is open at a time.
FIRST_PER_START: Final = "first_per_start"
ONE_OPEN: Final = "one_open"

#: Longer than any stream: a pattern without a `within` of its own is held by those of its steps.
_EVER_US: Final = 2**62


def parse_pattern(
    steps: Sequence[Mapping[str, str]],
    who: str,
    within: str,
    repeat: str,
    catalogue: Catalogue,
    captures: Iterable[tuple[str, str]],
    where: Where,
    match: str = FIRST_PER_START,
    around: Surroundings = NOTHING_AROUND,
) -> tuple[Pattern | None, list[Fault]]:
    """The `identify` part of a moment as a pattern, or every fault in it.

    `captures` names the fields of steps, as `(step, field)`, that others will read of an occurrence;
    `around` holds what conditions may ask beside events and traits.
    """
    faults: list[Fault] = []
    condition = None
    if who.strip():
        condition, found = parse(
            who, Scope(catalogue, around=around), lambda offset: where("who", offset=offset)
        )
        faults.extend(found)
    reading = Reading(catalogue, where, faults, around)
    read_steps(steps, reading)
    within_s = _within(within, reading)
    if match.strip() not in (FIRST_PER_START, ONE_OPEN):
        faults.append(Fault(where("match"), shown(match), f"{FIRST_PER_START} or {ONE_OPEN}"))
    repeated = _repeat(repeat, reading.scope(), where, faults)
    if faults:
        return None, faults
    faults = _impossible(reading, within_s)
    if faults:
        return None, faults
    return _assembled(reading, condition, within_s, repeated, match.strip() == ONE_OPEN, set(captures)), []


def _within(text: str, reading: Reading) -> int | None:
    if text.strip():
        return duration(text, lambda offset: reading.where("within", offset=offset), reading.faults)
    open_ended = [step for step in reading.events[1:] if step.limit is None]
    if open_ended or any(step.most > 1 for step in reading.events):
        must = "a duration from the first event step to the last, such as within: 1 day"
        reading.faults.append(Fault(reading.where("within"), "nothing", must))
    return None


def _repeat(text: str, scope: Scope, where: Where, faults: list[Fault]) -> Repeat:
    """`every time`, `once per STEP.FIELD` or `once per DURATION`."""
    if text.strip() in ("", "every time"):
        return Repeat()

    def place(offset: int) -> str:
        return where("repeat", offset=offset)

    written = re.fullmatch(r"\s*once per\s+(?P<per>.*?)\s*", text)
    if written is None:
        must = "every time, once per late.order_id, or once per 7 days"
        faults.append(Fault(place(0), shown(text), must))
        return Repeat()
    per, at = written["per"], shifted(place, written.start("per"))
    if not re.match(r"[A-Za-z_]", per):
        return Repeat("period", period_s=duration(per, at, faults))
    step, _, field = per.partition(".")
    field = field.removeprefix("last.")
    if step not in scope.steps or not field:
        hint = nearest(step, scope.steps)
        faults.append(Fault(at(0), shown(per), "a field of an event step, such as late.order_id", hint))
        return Repeat()
    kinds = set(scope.of_step(step, field).values())
    if scope.steps[step] and (not kinds or kinds & {"list", "object"}):
        known = [each for event in scope.steps[step] for each in scope.catalogue.fields(event)]
        must = f"a field of {' or '.join(scope.steps[step])} that is no list and no object"
        faults.append(Fault(at(len(step) + 1), shown(field), must, "" if kinds else nearest(field, known)))
        return Repeat()
    return Repeat("field", scope.index(step), step, field)


def _impossible(reading: Reading, within_s: int | None) -> list[Fault]:
    """Patterns that can never match, as far as the declaration alone shows it."""
    faults = []
    events = reading.events
    if not events:
        return [Fault(reading.where("steps"), "no event step", "at least one event")]
    for step, key in zip(reading.steps, reading.keys, strict=True):
        place = reading.place("steps", *key)
        if isinstance(step, EventStep):
            if within_s is not None and step.limit is not None and step.limit.within_s > within_s:
                must = "no longer than within, which ends the whole"
                faults.append(Fault(place(0), "a step with a longer within", must))
            continue
        if step.before_s is not None:
            continue
        if step.follows == len(events):
            if not step.is_timed:
                must = "followed by an event step, or end with a time, such as: for 10 minutes"
                faults.append(Fault(place(0), "an absence at the end without a deadline", must))
            continue
        always = {choice.event for choice in step.choices if choice.where is None}
        for peer in events[step.follows].peers:
            if not step.is_timed and {choice.event for choice in events[peer].choices} <= always:
                got = f"an absence of what the step {events[peer].name} needs"
                faults.append(Fault(place(0), got, "another event, or have a where: this can never match"))
        if within_s is not None and step.for_s is not None and step.anchor == 0 and step.for_s >= within_s:
            must = "shorter than within, as the next event step could never bind"
            faults.append(Fault(place(0), "an absence as long as within", must))
    return faults


def _assembled(
    reading: Reading,
    who: Condition | None,
    within_s: int | None,
    repeat: Repeat,
    one_open: bool,
    captures: set[tuple[str, str]],
) -> Pattern:
    """Everything the matcher looks up, worked out once."""
    steps, drawn = reading.steps, reading.events
    absences = [step for step in steps if isinstance(step, Absence)]
    timed = tuple(step for step in absences if step.is_timed)
    captures |= {(repeat.step, repeat.field)} if repeat.once == "field" else set()
    for step in steps:
        for choice in step.choices:
            captures |= set(choice.where.references()) if choice.where else set()
    captures |= {(drawn[step.anchor].name, step.by) for step in timed if step.by is not None}
    events = tuple(_completed(step, drawn, timed, captures) for step in drawn)
    forbids: dict[str, tuple[tuple[Absence, int, Test | None], ...]] = {}
    for absence in absences:
        if absence.before_s is not None:
            continue
        number = timed.index(absence) if absence.is_timed else -1
        for choice in absence.choices:
            test = choice.where.test if choice.where else None
            forbids[choice.event] = (*forbids.get(choice.event, ()), (absence, number, test))
    return Pattern(
        steps=tuple(events[step.index] if isinstance(step, EventStep) else step for step in steps),
        events=events,
        opening=_opening(events),
        timed=timed,
        before=tuple(step for step in absences if step.before_s is not None),
        forbids=forbids,
        ending=tuple(n for n, each in enumerate(timed) if each.follows == len(events)),
        within_s=within_s,
        within_us=_EVER_US if within_s is None else within_s * 1_000_000,
        repeat=repeat,
        who=who,
        one_open=one_open,
        names=frozenset(choice.event for step in steps for choice in step.choices),
        keys=tuple(reading.keys),
    )


def _opening(events: tuple[EventStep, ...]) -> dict[str, tuple[int, ...]]:
    opening: dict[str, tuple[int, ...]] = {}
    for number in events[0].peers:
        for name in events[number].tests:
            opening[name] = (*opening.get(name, ()), number)
    return opening


def _completed(
    step: EventStep, events: list[EventStep], timed: tuple[Absence, ...], captures: set[tuple[str, str]]
) -> EventStep:
    """An event step with what it looks up and what it keeps."""
    counts = step.most > 1
    wanted = sorted(
        {field.removeprefix("last.") if counts else field for name, field in captures if name == step.name}
    )
    firsts = [field.removeprefix("first.") for field in wanted if counts and field.startswith("first.")]
    starting = [(n, each) for n, each in enumerate(timed) if each.anchor in step.peers]
    earlier = events[step.peers[0] - 1].peers if step.peers[0] else ()
    collecting = any(events[each].most > events[each].least for each in earlier)
    is_single = len(step.peers) == step.least == step.most == 1 and step.limit is None
    return replace(
        step,
        is_plain=is_single and not step.is_next and not collecting,
        tests=_tests(step.choices),
        captures=tuple(
            each for each in wanted if not (counts and (each == "n" or each.startswith("first.")))
        ),
        firsts=tuple(firsts),
        counts=counts and "n" in wanted,
        waits=tuple(n for n, each in enumerate(timed) if each.follows in step.peers),
        anchors=tuple(n for n, each in starting if each.anchor == step.index and not each.after_all),
        after_all=tuple(n for n, each in starting if each.after_all),
    )


def _tests(choices: tuple[Choice, ...]) -> dict[str, tuple[Test | None, ...]]:
    tests: dict[str, tuple[Test | None, ...]] = {}
    for choice in choices:
        test = choice.where.test if choice.where else None
        tests[choice.event] = (*tests.get(choice.event, ()), test)
    return tests
