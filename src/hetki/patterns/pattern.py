"""Pattern: the `identify` part of a moment, read and compiled. Start here, then `matcher` for what it means.

- late: Delivery Delayed where n_minutes >= 15              an event step
- then: next Order Completed within 1 hour of late          with nothing between, and in time
- failed: 3 times Help Searched                             several events
- asked: maybe Contact Started                              one that may be missing
- {failed: Delivery Failed, waited: Chat Waited}            both, in any order
- any: {answered: Survey Answered, no reply: Survey Answered, for 7 days}      whichever is first
- again: [{no answer: Survey Answered, for 2 days}]         a group that starts again each time it is passed
- no tracked: Order Tracked                                 absent until the next event step
- no answered: Chat Started, for 10 minutes [after late]    absent for a time
- no delivered: Order Delivered, by late.promised_at        absent until a time that an event named
- no visit: Store Visited, for 7 days before late           absent before the first step
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final, Iterable, Sequence

from hetki.errors import Fault, nearest, shown
from hetki.events.catalogue import Catalogue
from hetki.events.event import IDENTIFIED, PAGE_VIEWED, SCREEN_VIEWED
from hetki.patterns.choices import duration, is_too_long, tests_of
from hetki.patterns.condition import Condition, parse
from hetki.patterns.evaluate import Test
from hetki.patterns.scope import NOTHING_AROUND, Place, Scope, Surroundings, shifted
from hetki.patterns.sequence import Absence, EventStep, Pattern, Repeat, Stage
from hetki.patterns.steps import Entry, read_steps
from hetki.patterns.texts import Reading, Where

#: Each start opens a try of its own and has its first occurrence, or only one try is open at a time, or
#: every way in which the events fit is an occurrence.
FIRST_PER_START: Final = "first_per_start"
ONE_OPEN: Final = "one_open"
ALL: Final = "all"

#: What clients send without being asked to.
_BY_THEMSELVES: Final = (PAGE_VIEWED, SCREEN_VIEWED, IDENTIFIED)
#: Longer than any stream: a pattern without a `within` of its own is held by those of its steps.
_EVER_US: Final = 2**62


def parse_pattern(
    steps: Sequence[Entry],
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
        scope = Scope(catalogue, around=around)
        condition, found = parse(who, scope, lambda offset: where("who", offset=offset))
        faults.extend(found)
    reading = Reading(catalogue, where, faults, around)
    read_steps(steps, reading)
    within_s = _within(within, reading)
    match = match.strip()
    if match not in (FIRST_PER_START, ONE_OPEN, ALL):
        known = [FIRST_PER_START, ONE_OPEN, ALL]
        must = f"{FIRST_PER_START}, {ONE_OPEN} or {ALL}"
        faults.append(Fault(where("match"), shown(match), must, nearest(match, known)))
    repeated = _repeat(repeat, reading.scope(), where, faults)
    if faults:
        return None, faults
    faults = _impossible(reading, within_s) + _only_with_all(reading, match)
    faults += _everything(reading, condition, repeated)
    if faults:
        return None, faults
    return _assembled(reading, condition, within_s, repeated, match, set(captures)), []


def _within(text: str, reading: Reading) -> int | None:
    if text.strip():
        return duration(text, lambda offset: reading.where("within", offset=offset), reading.faults)
    open_ended = [step for step in reading.events[1:] if step.limit is None]
    open_ended += reading.events[:1] if any(stage.back is not None for stage in reading.stages) else []
    if open_ended or any(step.most > 1 and step.limit is None for step in reading.events):
        must = "a duration from the first event step to the last, such as within: 1 day"
        reading.faults.append(Fault(reading.where("within"), "nothing", must))
    return None


def _repeat(text: str, scope: Scope, where: Where, faults: list[Fault]) -> Repeat:
    """`every time`, `once per STEP.FIELD` or `once per DURATION`."""
    if text.strip() in ("", "every time"):
        return Repeat()

    def place(offset: int) -> str:
        return where("repeat", offset=offset)

    if is_too_long(text, place, faults):
        return Repeat()
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
    if not reading.events:
        return [Fault(reading.where("steps"), "no event step", "at least one event")]
    for step, key in zip(reading.steps, reading.keys, strict=True):
        place = reading.place(key)
        if isinstance(step, EventStep):
            if within_s is not None and step.limit is not None and step.limit.within_s > within_s:
                must = "no longer than within, which ends the whole"
                faults.append(Fault(place(0), "a step with a longer within", must))
            ends = {each.event for each in step.until if each.where is None}
            stage = reading.stages[step.stage]
            is_needed = not (stage.is_any or stage.is_optional)
            if is_needed and {each.event for each in step.choices} <= ends:
                must = "until another event, or until one with a where: this can never match"
                faults.append(Fault(place(0), "several events until the first of them", must))
        elif step.before_s is None:
            faults += _impossible_absence(step, reading, place)
    return faults or _too_early(reading, within_s)


def _too_early(reading: Reading, within_s: int | None) -> list[Fault]:
    """Event steps whose time is over before the silences that they wait for are.

    `after[s][i]` is the least time from the event step `i` to the passing of the stage `s`.
    """
    faults = []
    after: list[list[int]] = []
    for stage in reading.stages:
        known = after[-1] + [0] * len(reading.stages[stage.index - 1].steps) if after else []
        silences = [each for each in reading.steps if isinstance(each, Absence) and each.for_s is not None]
        silences = [each for each in silences if each.follows == stage.index and each.before_s is None]
        waited = _later(known, [each for each in silences if not each.part], reading, after)
        parts = [each for each in silences if each.part and not stage.is_any]
        after.append(_later(waited, parts, reading, after))
        for index in stage.steps:
            step = reading.events[index]
            place = reading.place(reading.keys[reading.steps.index(step)])
            origin = reading.events[step.limit.index] if step.limit else step
            is_sure = step.limit is not None and origin.most == origin.least and origin is not step
            if is_sure and step.limit and waited[step.limit.index] >= step.limit.within_s:
                must = "longer than the silences that it waits for"
                faults.append(Fault(place(0), "a step whose within ends before it may come", must))
            elif within_s is not None and any(each >= within_s for each in waited):
                must = "shorter than within together, as the next event step could never bind"
                faults.append(Fault(place(0), "silences as long as within before a step", must))
    return faults


def _later(known: list[int], silences: list[Absence], reading: Reading, after: list[list[int]]) -> list[int]:
    """The least times with these silences in between. One that is anchored at a step starts with it."""
    least = list(known)
    for each in silences:
        since = known
        if not each.part and each.after is None:
            anchored = after[reading.events[each.anchor].stage]
            since = [anchored[i] if i < len(anchored) else 0 for i in range(each.anchor + 1)]
        for i, time in enumerate(since):
            least[i] = max(least[i], time + (each.for_s or 0))
    return least


def _everything(reading: Reading, who: Condition | None, repeat: Repeat) -> list[Fault]:
    """A moment at every page that anybody looks at: what clients send by themselves, without a condition."""
    alone = len(reading.steps) == 1 and who is None and repeat.once == "always"
    if not alone or any(each.event not in _BY_THEMSELVES or each.where for each in reading.steps[0].choices):
        return []
    must = "a where, another step, who, or repeat: this would match everything that anybody does"
    return [Fault(reading.where(*reading.keys[0]), f"every {reading.steps[0].choices[0].event}", must)]


def _impossible_absence(absence: Absence, reading: Reading, place: Place) -> list[Fault]:
    if absence.follows == len(reading.stages):
        if absence.is_timed:
            return []
        must = "followed by an event step, or end with a time, such as: for 10 minutes"
        return [Fault(place(0), "a silence at the end without a deadline", must)]
    faults = []
    stage = reading.stages[absence.follows]
    always = {choice.event for choice in absence.choices if choice.where is None}
    needs = [reading.events[index] for index in stage.steps]
    impossible = [step for step in needs if {choice.event for choice in step.choices} <= always]
    if not absence.is_timed and impossible and not (stage.is_any and len(impossible) < len(needs)):
        got = f"a silence of what the step {impossible[0].name} needs"
        faults.append(Fault(place(0), got, "another event, or have a where: this can never match"))
    return faults


def _only_with_all(reading: Reading, match: str) -> list[Fault]:
    """What means something only where every way is followed, and what means nothing there."""
    if match == ALL:
        return _not_with_all(reading)
    faults = []
    for step, key in zip(reading.steps, reading.keys, strict=True):
        if isinstance(step, EventStep) and "any" in (step.link, step.between):
            must = f"match: {ALL}, as otherwise the first event that fits is bound"
            faults.append(Fault(reading.where(*key), "any in a step", must))
        elif isinstance(step, EventStep) and step.stage == len(reading.stages) - 1:
            if reading.stages[step.stage].is_optional:
                must = (
                    f"followed by a step, or match: {ALL}: nothing waits for a last step that may be missing"
                )
                faults.append(Fault(reading.where(*key), "maybe in the last step", must))
    return faults


def _not_with_all(reading: Reading) -> list[Fault]:
    """A silence that is a part of a step starts when the step before is fulfilled; where every number of
    events is a way of its own, that would be another time for each."""
    collecting, faults = False, []
    for stage in reading.stages:
        parts = [each for each in reading.steps if isinstance(each, Absence) and each.part]
        mine = [each for each in parts if each.follows == stage.index]
        if mine and collecting:
            must = "after a step with a fixed number of events, as match is all"
            place = reading.where(*reading.keys[reading.steps.index(mine[0])])
            faults.append(Fault(place, "a silence after a step with a varying number of events", must))
        steps = [reading.events[index] for index in stage.steps]
        varies = any(step.most > step.least for step in steps)
        collecting = varies or (collecting and stage.is_optional)
    return faults


def _assembled(
    reading: Reading,
    who: Condition | None,
    within_s: int | None,
    repeat: Repeat,
    match: str,
    captures: set[tuple[str, str]],
) -> Pattern:
    """Everything the matcher looks up, worked out once."""
    steps, drawn = reading.steps, reading.events
    absences = [step for step in steps if isinstance(step, Absence)]
    timed = tuple(step for step in absences if step.is_timed)
    captures |= {(repeat.step, repeat.field)} if repeat.once == "field" else set()
    for choice in (choice for step in steps for choice in step.listens):
        captures |= set(choice.where.references()) if choice.where else set()
    captures |= {(drawn[step.anchor].name, step.by) for step in timed if step.by is not None}
    events = tuple(_completed(step, timed, captures) for step in drawn)
    stages: list[Stage] = []
    for stage in reading.stages:
        stages.append(_staged(stage, events, timed, stages[-1] if stages else None))
    return Pattern(
        steps=tuple(events[step.index] if isinstance(step, EventStep) else step for step in steps),
        events=events,
        stages=tuple(stages),
        opening=_opening(events),
        timed=timed,
        before=tuple(step for step in absences if step.before_s is not None),
        forbids=_forbids(absences, timed),
        ending=tuple(n for n, each in enumerate(timed) if each.follows == len(stages)),
        within_s=within_s,
        within_us=_EVER_US if within_s is None else within_s * 1_000_000,
        repeat=repeat,
        who=who,
        one_open=match == ONE_OPEN,
        branches=match == ALL,
        names=frozenset(choice.event for step in steps for choice in step.listens),
        keys=tuple(key[1:] for key in reading.keys),
        has_many=match == ALL or any(stage.back is not None for stage in stages),
        wakes=any(stage.silences for stage in stages),
        ends_by_time=bool(next(stage for stage in reversed(stages) if not stage.is_optional).silences),
    )


def _forbids(
    absences: list[Absence], timed: tuple[Absence, ...]
) -> dict[str, tuple[tuple[Absence, int, Test | None], ...]]:
    forbids: dict[str, tuple[tuple[Absence, int, Test | None], ...]] = {}
    for absence in absences:
        if absence.before_s is not None:
            continue
        number = timed.index(absence) if absence.is_timed else -1
        for choice in absence.choices:
            test = choice.where.test if choice.where else None
            forbids[choice.event] = (*forbids.get(choice.event, ()), (absence, number, test))
    return forbids


def _opening(events: tuple[EventStep, ...]) -> dict[str, tuple[int, ...]]:
    opening: dict[str, tuple[int, ...]] = {}
    for step in events:
        for name in step.tests if step.stage == 0 else ():
            opening[name] = (*opening.get(name, ()), step.index)
    return opening


def _staged(
    stage: Stage, events: tuple[EventStep, ...], timed: tuple[Absence, ...], last: Stage | None
) -> Stage:
    """A stage with what it looks up."""
    mine = [events[index] for index in stage.steps]
    numbered = list(enumerate(timed))
    completed = replace(
        stage,
        silences=tuple(n for n, each in numbered if each.part and each.follows == stage.index),
        waits=tuple(n for n, each in numbered if not each.part and each.follows == stage.index),
        after=tuple(n for n, each in numbered if each.after == stage.index),
        collects=not stage.is_any and any(step.most > step.least for step in mine),
    )
    is_single = len(mine) == 1 and mine[0].least == mine[0].most == 1 and mine[0].limit is None
    is_simple = is_single and mine[0].link == "later" and not completed.silences and not stage.is_optional
    return replace(
        completed, is_plain=is_simple and (last is None or not (last.collects or last.is_optional))
    )


def _completed(step: EventStep, timed: tuple[Absence, ...], captures: set[tuple[str, str]]) -> EventStep:
    """An event step with what it looks up and what it keeps."""
    counts = step.most > 1
    wanted = sorted(
        {field.removeprefix("last.") if counts else field for name, field in captures if name == step.name}
    )
    firsts = [field.removeprefix("first.") for field in wanted if counts and field.startswith("first.")]
    starting = [(n, each) for n, each in enumerate(timed) if each.after is None and not each.part]
    return replace(
        step,
        tests=tests_of(step.choices),
        stops=tests_of(step.until) or None,
        captures=tuple(
            each for each in wanted if not (counts and (each == "n" or each.startswith("first.")))
        ),
        firsts=tuple(firsts),
        counts=counts and "n" in wanted,
        anchors=tuple(n for n, each in starting if each.anchor == step.index),
    )
