"""Aggregates: figures over a customer's own events in the time before an event. Nouns, reading and maths.

    count of Product Viewed where price_check, over 3 days
    mean total of Order Completed over 90 days
    last emotion of Message Received

At an event they tell of the events strictly before it in total order, not older than the window, its end
included. What an aggregate remembers changes with its own events only, so any split of a stream gives equal
windows; how old a value may be is asked of the instant at which the figure is read.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from math import fsum
from operator import attrgetter
from typing import Callable, Final, Literal, Mapping, Sequence, cast

from hetki.declarations.durations import spoken
from hetki.errors import Fault, nearest, shown
from hetki.events.catalogue import Catalogue
from hetki.patterns import tree as t
from hetki.patterns.choices import Choice, Tests, checked, duration, is_too_long, masked, split, tests_of
from hetki.patterns.evaluate import Test, compiled, digest, number
from hetki.patterns.run import Run, Seen, Window
from hetki.patterns.scope import NOTHING_AROUND, Place, Scope, Surroundings, shifted
from hetki.patterns.standing import fits
from hetki.patterns.words import field_words, listed, words
from hetki.settings import SECOND

#: Values in one window; the oldest gives way, and is counted.
VALUES_MAX: Final = 1_000
#: Aggregates of one moment or segment.
AGGREGATES_MAX: Final = 8

Function = Literal["count", "sum", "mean", "distinct", "last"]

_HEAD: Final = re.compile(
    r"\s*(?:(?P<count>count)|(?P<word>sum|mean|distinct|last)\s+(?P<field>[A-Za-z_]\w*))\s+of\s+"
)
_OVER: Final = re.compile(r"(?:\s*,\s*|\s)over\s+")
_FUNCTIONS: Final[dict[str, Function]] = {
    "count": "count",
    "sum": "sum",
    "mean": "mean",
    "distinct": "distinct",
    "last": "last",
}
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_MUST: Final = "such as: count of Help Searched over 3 days, or mean total of Order Completed over 90 days"


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A figure by its name; one of a segment is called `segment.name`.

    `field` is empty for a count. `over_s` is `None` where the whole past counts (`last` alone). `tests` are
    the conditions of each event that counts, and `read` takes the field's value.
    """

    name: str
    function: Function
    field: str
    kind: t.Kind
    choices: tuple[Choice, ...]
    over_s: int | None
    tests: Tests
    read: Test | None = None

    @property
    def key(self) -> str:
        """The name under which conditions look it up."""
        return f"aggregate.{self.name}"

    @property
    def node(self) -> t.Known:
        """How it stands in the tree of a condition."""
        return t.Known(self.key, self.kind, said(self))


def remember(
    aggregates: Sequence[Aggregate],
    run: Run,
    seen: Seen,
    traits: Mapping[str, object],
    keeps_leaves: bool = False,
) -> None:
    """Note an event in the windows of a run, after everything else has looked at it. Changes the run.

    With `keeps_leaves` the run is of several people, and it is noted whose event it was.
    """
    for place, each in enumerate(aggregates):
        tests = each.tests.get(seen.name)
        if tests is None or not fits(tests, seen, (), traits):
            continue
        value = None if each.read is None else each.read(seen.fields, (), traits)
        if value is None and each.read is not None:
            continue
        if not run.windows:
            run.windows = [Window() for _ in aggregates]
        _add(each, run.windows[place], seen, value)
        if keeps_leaves:
            run.windows[place].leaves.append(seen.leaf)


def figure(aggregate: Aggregate, window: Window | None, at: int) -> object:
    """What an aggregate comes to at an instant. Of nothing, count and distinct are 0 and the others null."""
    times, start = window.times if window else [], _start(aggregate, window, at)
    if aggregate.function in ("count", "distinct"):
        return len(times) - start
    given = window.values[start:] if window else []
    if not given:
        return None
    return given[-1] if aggregate.function == "last" else _of_numbers(aggregate.function, given)


def open_to(aggregates: Sequence[Aggregate], windows: Sequence[Window], at: int) -> int:
    """The purposes (bits) to which every event was open that any of the figures at an instant rests on."""
    bits = -1
    for each, window in zip(aggregates, windows, strict=False):
        for purposes in set(window.purposes[_start(each, window, at) :]):
            bits &= purposes
    return bits


def _start(aggregate: Aggregate, window: Window | None, at: int) -> int:
    """The place of the first value that is not too old at an instant."""
    if aggregate.over_s is None or window is None:
        return 0
    return bisect_left(window.times, at - aggregate.over_s * SECOND)


def _of_numbers(function: Function, given: Sequence[object]) -> int | float | None:
    """The sum or mean of numbers: exact, so that no order of adding shows."""
    numbers = cast("Sequence[float]", given)  # nothing else enters the window of a sum or a mean
    try:
        total = fsum(numbers) if float in set(map(type, numbers)) else sum(numbers)
        return number(total / len(numbers) if function == "mean" else total)
    except OverflowError:
        return None


def _add(aggregate: Aggregate, window: Window, seen: Seen, value: object) -> None:
    at = seen.occurred_at
    if aggregate.function == "last":
        window.times, window.purposes, window.values, window.leaves = [at], [seen.purposes], [value], []
        return
    if aggregate.function == "distinct":
        value = digest(value)
        if value in window.values:
            place = window.values.index(value)
            del window.times[place], window.purposes[place], window.values[place]
            del window.leaves[place : place + 1]
    old = _start(aggregate, window, at)
    if len(window.times) - old >= VALUES_MAX:
        window.n_dropped += 1
        old += 1
    del window.times[:old], window.purposes[:old], window.values[:old], window.leaves[:old]
    window.times.append(at)
    window.purposes.append(seen.purposes)
    if aggregate.function != "count":
        window.values.append(value)


def parse_aggregates(
    given: Mapping[str, str],
    catalogue: Catalogue,
    where: Callable[..., str],
    within: str = "",
    around: Surroundings = NOTHING_AROUND,
) -> tuple[dict[str, Aggregate | None], list[Fault]]:
    """Aggregates by name, `None` for one that has a fault, and every fault.

    `where(name, offset=n)` is a place in the text of one, `where()` that of all. `within` is the segment that
    they belong to, `around` what its conditions may ask.
    """
    faults: list[Fault] = []
    if len(given) > AGGREGATES_MAX:
        faults.append(Fault(where(), f"{len(given)} aggregates", f"at most {AGGREGATES_MAX}"))
    found: dict[str, Aggregate | None] = {}
    for name, text in given.items():
        before = len(faults)
        place: Place = partial(_at, where, name)
        if not _NAME.fullmatch(name):
            must = "a name of small letters, digits and _, such as n_checks"
            faults.append(Fault(place(0), shown(name), must))
        made = _parsed(
            f"{within}.{name}" if within else name, text, Scope(catalogue, around=around), place, faults
        )
        found[name] = made if len(faults) == before else None
    return found, faults


def _at(where: Callable[..., str], name: str, offset: int) -> str:
    return where(name, offset=offset)


def _parsed(name: str, text: str, scope: Scope, place: Place, faults: list[Fault]) -> Aggregate | None:
    if is_too_long(text, place, faults):
        return None
    head = _HEAD.match(text)
    if head is None:
        hint = "it begins with count of, or with sum, mean, distinct or last and a field"
        faults.append(Fault(place(0), shown(text), _MUST, hint))
        return None
    function, field = _FUNCTIONS[head["word"] or "count"], head["field"] or ""
    over_s, body = _over(text, head.end(), function, place, faults)
    groups, end = split(body, head.end(), scope.catalogue)
    if body[end:].strip():
        must = "the end, or over and a duration, as in: over 3 days"
        faults.append(Fault(place(end), shown(body[end:].strip()), must))
        return None
    choices = checked(groups, scope, place, faults)
    events = tuple(dict.fromkeys(choice.event for choice in choices))
    kind, read = _field(function, field, events, scope, shifted(place, max(head.start("field"), 0)), faults)
    return Aggregate(name, function, field, kind, choices, over_s, tests_of(choices), read)


def _over(
    text: str, start: int, function: Function, place: Place, faults: list[Fault]
) -> tuple[int | None, str]:
    """The length of the window, and the text before it."""
    hidden = masked(text, start)
    found = [each for each in _OVER.finditer(hidden) if each.start() >= start - 1]
    if not found:
        if function != "last":
            must = "over and a duration, as in: over 3 days"
            faults.append(Fault(place(max(len(text.rstrip()) - 1, 0)), "no time", must))
        return None, text
    last = found[-1]
    return duration(text[last.end() :], shifted(place, last.end()), faults), text[: last.start()]


def _field(
    function: Function, name: str, events: tuple[str, ...], scope: Scope, place: Place, faults: list[Fault]
) -> tuple[t.Kind, Test | None]:
    """The type of the figure, and what reads the field of an event."""
    if function == "count":
        return "number", None
    kinds = scope.kinds(events, name)
    missing = [event for event in events if event not in kinds]
    if missing:
        hint = nearest(name, scope.catalogue.fields(missing[0]))
        faults.append(Fault(place(0), shown(name), f"a field of {missing[0]}", hint))
        return "unknown", None
    if not kinds:
        return "unknown", None  # an unknown event, and that is the fault to repair
    if len(set(kinds.values())) > 1:
        faults.append(Fault(place(0), shown(name), f"of one type in {' and '.join(kinds)}"))
        return "unknown", None
    kind = kinds[events[0]]
    if function in ("sum", "mean") and kind != "number":
        must = f"a number to take the {function} of"
        faults.append(Fault(place(0), f"{shown(name)}, which is a {kind}", must))
    elif kind in ("list", "object"):
        faults.append(Fault(place(0), f"{shown(name)}, which is a {kind}", "a single value"))
    return kind if function == "last" else "number", compiled(t.Field(name, kind))


def said(aggregate: Aggregate) -> str:
    """An aggregate in words: "the mean total of Order Completed over 90 days"."""
    name = field_words(aggregate.field)
    what = {
        "count": "the number",
        "sum": f"the sum of {name}",
        "mean": f"the mean {name}",
        "distinct": f"the number of different values of {name}",
        "last": f"the last {name}",
    }[aggregate.function]
    parts = []
    for where, group in groupby(aggregate.choices, key=attrgetter("where")):
        names = listed([each.event for each in group], "or")
        parts.append(f"{names} (where {words(where.tree, {})})" if where else names)
    over = f" over {spoken(aggregate.over_s)}" if aggregate.over_s is not None else ""
    return f"{what} of {' or '.join(parts)}{over}"
