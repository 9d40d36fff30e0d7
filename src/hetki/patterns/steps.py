"""Steps: the entries of `steps` -> event steps and absences, or every fault in them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Callable, Final, Mapping, Sequence

from hetki.errors import Fault, nearest, shown
from hetki.events.catalogue import Catalogue
from hetki.patterns.choices import Group, checked, duration, split
from hetki.patterns.scope import CUSTOMER, NOTHING_AROUND, RESERVED, Place, Scope, Surroundings, shifted
from hetki.patterns.sequence import Absence, EventStep, Limit, counted, events_of

STEPS_MAX: Final = 16
#: How many events one step may bind; of `at least 3 times` it binds no more than these.
TIMES_MAX: Final = 100

#: `where(*keys, offset=n)`: the place of what stands under the keys of `identify`, n characters into it.
Where = Callable[..., str]

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_NEXT: Final = re.compile(r"\s*next\s+")
_TIMES: Final = re.compile(
    r"\s*(?:(?P<open>at least)\s+)?(?P<least>\d{1,9})(?:\s+to\s+(?P<most>\d{1,9}))?\s+times\s+"
)
_WITHIN: Final = re.compile(r"\s*,?\s*within\s+(?P<time>.*?)(?:\s+of\s+(?P<step>\S+))?\s*")
_FOR: Final = re.compile(r"\s*,?\s*for\s+(?P<time>.*?)(?:\s+(?P<word>after|before)\s+(?P<step>\S+))?\s*")
_BY: Final = re.compile(r"\s*,?\s*by\s+(?P<step>[^\s.]+)\.(?P<field>\S+)\s*")


@dataclass(slots=True)
class Reading:
    """What has been read: all steps, the entry of each, and every fault.

    `starts` are the names of the step that silences look back from, and the place of each.
    """

    catalogue: Catalogue
    where: Where
    faults: list[Fault]
    around: Surroundings = NOTHING_AROUND
    steps: list[EventStep | Absence] = field(default_factory=list)
    keys: list[tuple[int, str]] = field(default_factory=list)
    events: list[EventStep] = field(default_factory=list)
    starts: list[tuple[str, str]] = field(default_factory=list)

    def scope(self) -> Scope:
        """What a condition of the next step may refer to."""
        return Scope(
            self.catalogue, (), events_of(self.events), counted=counted(self.events), around=self.around
        )

    def place(self, *keys: str | int) -> Place:
        """The places of the text under the keys."""
        return lambda offset: self.where(*keys, offset=offset)

    def add(self, step: EventStep | Absence, number: int, key: str) -> None:
        """Keep a step that was read."""
        self.steps.append(step)
        self.keys.append((number, key))


def read_steps(entries: Sequence[Mapping[str, str]], reading: Reading) -> None:
    """Read all entries. The event steps of one entry are passed together, in any order."""
    if not 1 <= len(entries) <= STEPS_MAX or sum(map(len, entries)) > STEPS_MAX:
        got = f"{max(len(entries), sum(map(len, entries)))} steps"
        reading.faults.append(Fault(reading.where("steps"), got, f"1 to {STEPS_MAX} steps"))
        return
    names: set[str] = set()
    for number, each in enumerate(entries):
        if not each or (len(each) > 1 and any(key.startswith("no ") for key in each)):
            must = "event steps, which may come in any order; an absence stands by itself"
            if not each:
                must = "one name and its event, as in: late: Delivery Delayed"
            got = f"{len(each)} entries in one step"
            reading.faults.append(Fault(reading.where("steps", number), got, must))
            continue
        known = reading.scope()
        peers = tuple(range(len(known.steps), len(known.steps) + len(each)))
        for key, text in each.items():
            name = key.removeprefix("no ").strip()
            reading.faults.extend(_misnamed(name, names, reading.where("steps", number)))
            names.add(name)
            if key.startswith("no "):
                absence = _read_absence(name, text, reading, number, key)
                if absence is not None:
                    reading.add(absence, number, key)
                continue
            place = reading.place("steps", number, key)
            step = _read_event(name, text, known, peers, place, reading.faults)
            step = replace(step, index=len(reading.events))
            reading.events.append(step)
            reading.add(step, number, key)
    opening = [step.name for step in reading.events if 0 in step.peers]
    for name, at in reading.starts:
        if name not in opening and opening:
            reading.faults.append(Fault(at, shown(name), f"the first event step, {' or '.join(opening)}"))


def _misnamed(name: str, names: set[str], at: str) -> list[Fault]:
    if not _NAME.fullmatch(name):
        return [Fault(at, shown(name), "a step name of small letters, digits and _, such as late")]
    if name in RESERVED or name in names:
        must = f"a step name of its own, and not {name if name in RESERVED else CUSTOMER}"
        return [Fault(at, shown(name), must)]
    return []


def _read_event(
    name: str, text: str, scope: Scope, peers: tuple[int, ...], place: Place, faults: list[Fault]
) -> EventStep:
    """`[next] [N times | N to M times | at least N times] EVENTS [within DURATION [of STEP]]`."""
    at = 0
    if written := _NEXT.match(text):
        at = written.end()
        if not scope.steps:
            faults.append(Fault(place(0), "next in the first step", "an event: nothing stands before it"))
    least, most = 1, 1
    if written := _TIMES.match(text, at):
        least, most = _times(written, place, faults)
        at = written.end()
    groups, end = split(text, at, scope.catalogue)
    limit, rest = None, text[end:]
    if written := _WITHIN.fullmatch(rest):
        limit = _limit(written, scope, shifted(place, end), faults)
    elif rest.strip():
        must = "the end of the step: only an absence ('no name: ...') has a time"
        faults.append(Fault(place(end), shown(rest.strip()), must))
    choices = checked(groups, scope, place, faults)
    return EventStep(
        name, 0, choices, {}, peers, least, most, is_next=_NEXT.match(text) is not None, limit=limit
    )


def _times(written: re.Match[str], place: Place, faults: list[Fault]) -> tuple[int, int]:
    """How many events at least and at most."""
    least = int(written["least"])
    most = int(written["most"] or (TIMES_MAX if written["open"] else least))
    if written["open"] and written["most"]:
        got, must = shown(written[0].strip()), "at least 3 times, or 2 to 4 times"
        faults.append(Fault(place(written.start("open")), got, must))
    elif not 1 <= least <= most <= TIMES_MAX or most == 1:
        must = f"from 2 to {TIMES_MAX} times, the fewest first, such as 2 to 4 times"
        faults.append(Fault(place(written.start("least")), shown(written[0].strip()), must))
    return least, most


def _limit(written: re.Match[str], scope: Scope, rest: Place, faults: list[Fault]) -> Limit | None:
    within_s = duration(written["time"], shifted(rest, written.start("time")), faults)
    if not scope.steps:
        must = "a step after the first one: the time runs from a step before"
        faults.append(Fault(rest(0), "within in the first step", must))
        return None
    index = len(scope.steps) - 1
    if written["step"] is not None:
        index = _anchor(written["step"], scope, shifted(rest, written.start("step")), faults)
    return Limit(index, within_s)


def _read_absence(name: str, text: str, reading: Reading, number: int, key: str) -> Absence | None:
    """An absence; what follows its events decides from where and until when it is watched."""
    scope, faults = reading.scope(), reading.faults
    place = reading.place("steps", number, key)
    groups, end = split(text, 0, scope.catalogue)
    last = len(scope.steps) - 1
    tail, rest = text[end:], shifted(place, end)
    written = _FOR.fullmatch(tail)
    if written and written["word"] == "before" and not scope.steps:
        before_s = duration(written["time"], shifted(rest, written.start("time")), faults)
        reading.starts.append((written["step"], rest(written.start("step"))))
        return Absence(name, 0, 0, checked(groups, scope, place, faults), before_s=before_s)
    if not scope.steps:
        must = "an event, or a silence before it, such as: Store Visited, for 7 days before searched"
        faults.append(Fault(place(0), f"the absence {shown(name)} first", must))
        return None
    if written and written["word"] == "before":
        must = "after and a step before this one: only a silence before the first step looks back"
        faults.append(Fault(rest(written.start("word")), "before", must))
        return None
    if not tail.strip():
        return _absence(name, last, groups, scope, place, faults)
    if written:
        for_s = duration(written["time"], shifted(rest, written.start("time")), faults)
        anchor, after_all = last, written["step"] is None
        if written["step"] is not None:
            anchor = _anchor(written["step"], scope, shifted(rest, written.start("step")), faults)
        absence = _absence(name, anchor, groups, scope, place, faults)
        return replace(absence, for_s=for_s, after_all=after_all)
    if written := _BY.fullmatch(tail):
        step, name_of = written["step"], written["field"]
        anchor = _anchor(step, scope, shifted(rest, written.start("step")), faults)
        if step in scope.steps:
            _must_be_time(step, name_of, scope, shifted(rest, written.start("field")), faults)
        return replace(_absence(name, anchor, groups, scope, place, faults), by=name_of, after_all=False)
    start = len(tail) - len(tail.lstrip(" ,\t\n"))
    must = "for and a duration, or by and a step's time, as in: for 10 minutes after late"
    faults.append(Fault(rest(start), shown(tail.strip(" ,")), must))
    return _absence(name, last, groups, scope, place, faults)


def _absence(
    name: str, anchor: int, groups: list[Group], scope: Scope, place: Place, faults: list[Fault]
) -> Absence:
    """The absence with its conditions, which see the steps up to its anchor: it is watched from there on."""
    steps = list(scope.steps)
    reason = f"{steps[anchor]} or a step before it, as the absence is watched from {steps[anchor]} on"
    inner = replace(
        scope,
        steps={step: scope.steps[step] for step in steps[: anchor + 1]},
        closed=dict.fromkeys(steps[anchor + 1 :], reason),
    )
    return Absence(name, anchor, len(steps), checked(groups, inner, place, faults))


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
