"""Texts: what one step says -> an event step or an absence, or every fault in it.

[maybe] [next | any] [N [to M] times [in a row] [any]] EVENTS [until EVENTS] [within TIME [of STEP]]
EVENTS[, for [any] TIME [after STEP | before STEP]]     after `no`, as is
EVENTS, by STEP.FIELD
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Callable, Final, Mapping

from hetki.errors import Fault, nearest, shown
from hetki.events.catalogue import Catalogue
from hetki.patterns.choices import LOOKS_LIKE_CONDITION, Choice, Group, checked, duration, split
from hetki.patterns.scope import NOTHING_AROUND, Place, Scope, Surroundings, shifted
from hetki.patterns.sequence import Absence, EventStep, Limit, Link, Stage, counted, events_of

#: How many events one step may bind; of `at least 3 times` it binds no more than these.
TIMES_MAX: Final = 100

#: `where(*keys, offset=n)`: the place of what stands under the keys of `identify`, n characters into it.
Where = Callable[..., str]
Key = tuple[int | str, ...]

_HEAD: Final = re.compile(r"\s*(?P<maybe>maybe\s+)?(?:(?P<link>next|any)\s+)?")
_TIMES: Final = re.compile(
    r"\s*(?:(?P<open>at least)\s+)?(?P<least>\d{1,9})(?:\s+to\s+(?P<most>\d{1,9}))?\s+times\s+"
    r"(?P<row>in a row\s+)?(?P<any>any\s+)?"
)
_UNTIL: Final = re.compile(r"\s+until\s+")
_WITHIN: Final = re.compile(r"\s*,?\s*within\s+(?P<time>.*?)(?:\s+of\s+(?P<step>\S+))?\s*")
_FOR: Final = re.compile(
    r"\s*,?\s*for\s+(?P<any>any\s+)?(?P<time>.*?)(?:\s+(?P<word>after|before)\s+(?P<step>\S+))?\s*"
)
_BY: Final = re.compile(r"\s*,?\s*by\s+(?P<step>[^\s.]+)\.(?P<field>\S+)\s*")


@dataclass(slots=True)
class Reading:
    """What has been read: all steps, where each stands, the stages, and every fault.

    `unsure` are the steps that may be missing, with the reason; `starts` the names of the step that silences
    look back from, and the place of each.
    """

    catalogue: Catalogue
    where: Where
    faults: list[Fault]
    around: Surroundings = NOTHING_AROUND
    steps: list[EventStep | Absence] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    events: list[EventStep] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    unsure: dict[str, str] = field(default_factory=dict)
    starts: list[tuple[str, str]] = field(default_factory=list)

    def scope(self) -> Scope:
        """What a condition of the next step may refer to."""
        return Scope(
            self.catalogue, (), events_of(self.events), counted=counted(self.events), around=self.around
        )

    def place(self, key: Key) -> Place:
        """The places of the text under a key."""
        return lambda offset: self.where(*key, offset=offset)

    def add(self, step: EventStep | Absence, key: Key) -> None:
        """Keep a step that was read."""
        self.steps.append(step)
        self.keys.append(key)


def read_event(name: str, text: str, known: Scope, key: Key, reading: Reading) -> tuple[EventStep, bool]:
    """An event step, and whether it may be missing. `known` are the steps before its stage."""
    place, faults = reading.place(key), reading.faults
    head = _HEAD.match(text)
    assert head is not None, "every part of the head may be missing"
    link, maybe, at = _link(head["link"]), head["maybe"] is not None, head.end()
    if not known.steps and (link == "next" or maybe):
        got = "next in the first step" if link == "next" else "maybe in the first step"
        faults.append(Fault(place(0), got, "an event: nothing stands before it"))
    least, most, between = 1, 1, link
    if written := _TIMES.match(text, at):
        least, most = _times(written, place, faults)
        between = "next" if written["row"] else "any" if written["any"] else "later"
        if written["row"] and written["any"]:
            faults.append(Fault(place(written.start("any")), "any", "in a row, or any: not both"))
        maybe, at = maybe or least == 0, written.end()
    groups, end = split(text, at, known.catalogue)
    inner = _with_itself(name, groups, known, reading) if most > 1 else known
    choices, stop = checked(groups, inner, place, faults), end
    until: tuple[Choice, ...] = ()
    if stopped := _UNTIL.match(text, end):
        if most == 1:
            must = "several events, such as: at least 2 times Help Searched until Contact Started"
            faults.append(Fault(place(end), "until after a single event", must))
        groups, stop = split(text, stopped.end(), known.catalogue)
        until = checked(groups, inner, place, faults)
    limit, rest = None, text[stop:]
    if written := _WITHIN.fullmatch(rest):
        own = name if most > 1 and written["step"] in ((name,) if known.steps else (name, None)) else ""
        limit = _limit(written, known, shifted(place, stop), reading, own)
    elif rest.strip():
        must = "the end of the step: only a silence ('no name: ...') has a time"
        hint = "a condition begins with where" if LOOKS_LIKE_CONDITION.search(rest) else ""
        faults.append(Fault(place(stop), shown(rest.strip()), must, hint))
    stage = len(reading.stages)
    step = EventStep(name, len(reading.events), stage, choices, {}, max(least, 1), most, link, between)
    return replace(step, until=until, limit=limit), maybe


def _link(word: str | None) -> Link:
    return "next" if word == "next" else "any" if word == "any" else "later"


def _with_itself(name: str, groups: list[Group], known: Scope, reading: Reading) -> Scope:
    """A step of several events may refer to those it has: to the last, the first, and their number."""
    events = tuple(each for group in groups for _, each in group.names if each in known.catalogue.events)
    peers = [step.name for step in reading.events if step.stage == len(reading.stages)]
    reason = "a step before this one: these are passed together"
    steps: Mapping[str, tuple[str, ...]] = {**known.steps, **dict.fromkeys(peers, ()), name: events}
    return replace(
        known,
        steps=steps,
        counted=known.counted | {name},
        closed={**known.closed, **dict.fromkeys(peers, reason)},
    )


def _times(written: re.Match[str], place: Place, faults: list[Fault]) -> tuple[int, int]:
    """How many events at least and at most."""
    least = int(written["least"])
    most = int(written["most"] or (TIMES_MAX if written["open"] else least))
    if written["open"] and written["most"]:
        got, must = shown(written[0].strip()), "at least 3 times, or 2 to 4 times"
        faults.append(Fault(place(written.start("open")), got, must))
    elif not least <= most <= TIMES_MAX or most == 0 or least == most == 1:
        must = f"from 2 to {TIMES_MAX} times, the fewest first, such as 2 to 4 times"
        faults.append(Fault(place(written.start("least")), shown(written[0].strip()), must))
    return least, most


def _limit(written: re.Match[str], known: Scope, rest: Place, reading: Reading, own: str) -> Limit | None:
    """Until when; a step of several events, `own`, may count from its own first."""
    within_s = duration(written["time"], shifted(rest, written.start("time")), reading.faults)
    if own:
        return Limit(len(reading.events), within_s)
    if not known.steps:
        must = "a step after the first one: the time runs from a step before"
        reading.faults.append(Fault(rest(0), "within in the first step", must))
        return None
    if written["step"] is not None:
        at = shifted(rest, written.start("step"))
        return Limit(_anchor(written["step"], known, at, reading), within_s)
    last = list(known.steps)[-1]
    if last in reading.unsure:
        must = f"of and a step that always comes, as {last} {reading.unsure[last]}"
        reading.faults.append(Fault(rest(0), "within without a step", must))
    return Limit(len(known.steps) - 1, within_s)


def read_absence(name: str, text: str, key: Key, reading: Reading) -> Absence | None:
    """An absence between stages; what follows its events decides from where and until when it is watched."""
    known, faults = reading.scope(), reading.faults
    place = reading.place(key)
    groups, end = split(text, 0, known.catalogue)
    tail, rest = text[end:], shifted(place, end)
    written = _FOR.fullmatch(tail)
    if written and written["word"] == "before" and not known.steps:
        before_s = duration(written["time"], shifted(rest, written.start("time")), faults)
        reading.starts.append((written["step"], rest(written.start("step"))))
        return Absence(name, 0, 0, checked(groups, known, place, faults), before_s=before_s)
    if not known.steps:
        must = "an event, or a silence before it, such as: Store Visited, for 7 days before searched"
        faults.append(Fault(place(0), f"the silence {shown(name)} first", must))
        return None
    if written and written["word"] == "before":
        must = "after and a step before this one: only a silence before the first step looks back"
        faults.append(Fault(rest(written.start("word")), "before", must))
        return None
    last = len(known.steps) - 1
    if not tail.strip():
        return _absence(name, last, groups, known, place, reading)
    if written:
        for_s = duration(written["time"], shifted(rest, written.start("time")), faults)
        anchor, after = last, len(reading.stages) - 1 if written["step"] is None else None
        if written["step"] is not None:
            anchor = _anchor(written["step"], known, shifted(rest, written.start("step")), reading)
        elif reading.stages[-1].is_optional:
            must = "after and a step that always comes, such as: for 3 days after late"
            faults.append(
                Fault(rest(written.start("time")), "a silence after a step that may be missing", must)
            )
        absence = _absence(name, anchor, groups, known, place, reading)
        return replace(absence, for_s=for_s, after=after, begins_again=written["any"] is not None)
    if written := _BY.fullmatch(tail):
        step, name_of = written["step"], written["field"]
        anchor = _anchor(step, known, shifted(rest, written.start("step")), reading)
        if step in known.steps:
            _must_be_time(step, name_of, known, shifted(rest, written.start("field")), faults)
        return replace(_absence(name, anchor, groups, known, place, reading), by=name_of)
    _no_time(tail, rest, faults)
    return _absence(name, last, groups, known, place, reading)


def read_part(name: str, text: str, key: Key, reading: Reading) -> Absence:
    """A silence that is a part of the next stage: it starts when that stage is awaited."""
    known, faults = reading.scope(), reading.faults
    place = reading.place(key)
    groups, end = split(text, 0, known.catalogue)
    tail, rest = text[end:], shifted(place, end)
    written = _FOR.fullmatch(tail)
    absence = _absence(name, max(len(known.steps) - 1, 0), groups, known, place, reading)
    absence = replace(absence, part=True, for_s=1)
    if written is None:
        _no_time(tail, rest, faults)
        return absence
    if written["word"] is not None:
        must = "a duration alone: as a part of a step it starts when the step is awaited"
        faults.append(Fault(rest(written.start("word")), shown(written["word"]), must))
    for_s = duration(written["time"], shifted(rest, written.start("time")), faults)
    return replace(absence, for_s=for_s, begins_again=written["any"] is not None)


def has_time(text: str, catalogue: Catalogue) -> bool:
    """Whether an absence says `for` and a duration alone."""
    _, end = split(text, 0, catalogue)
    written = _FOR.fullmatch(text[end:])
    return written is not None and written["word"] is None


def _no_time(tail: str, rest: Place, faults: list[Fault]) -> None:
    start = len(tail) - len(tail.lstrip(" ,\t\n"))
    must = "for and a duration, or by and a step's time, as in: for 10 minutes after late"
    faults.append(Fault(rest(start), shown(tail.strip(" ,")) if tail.strip(" ,") else "no time", must))


def _absence(
    name: str, anchor: int, groups: list[Group], known: Scope, place: Place, reading: Reading
) -> Absence:
    """The absence with its conditions, which see the steps up to its anchor: it is watched from there on."""
    steps = list(known.steps)
    reason = ""
    if steps:
        reason = f"{steps[anchor]} or a step before it, as the silence is watched from {steps[anchor]} on"
    inner = replace(
        known,
        steps={step: known.steps[step] for step in steps[: anchor + 1]},
        closed=dict.fromkeys(steps[anchor + 1 :], reason),
    )
    choices: tuple[Choice, ...] = checked(groups, inner, place, reading.faults)
    return Absence(name, anchor, len(reading.stages), choices)


def _anchor(step: str, known: Scope, place: Place, reading: Reading) -> int:
    if step not in known.steps:
        must = "an event step before this one"
        reading.faults.append(Fault(place(0), shown(step), must, nearest(step, known.steps)))
        return 0
    if step in reading.unsure:
        must = f"a step that always comes: {step} {reading.unsure[step]}"
        reading.faults.append(Fault(place(0), shown(step), must))
    return known.index(step)


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
