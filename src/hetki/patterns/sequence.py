"""Sequence: what a moment's steps are once they are compiled. Nouns only; `pattern` reads them.

A pattern is a list of *stages*, one for each entry of `steps` that holds an event or may be passed by time.
The steps of a stage are *peers*: all of them pass it together, in any order, or (`is_any`) whichever is
first. Event steps are counted over the whole pattern, in the order in which they are declared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Literal, Mapping

from hetki.events.catalogue import Catalogue
from hetki.patterns.choices import Choice, Tests
from hetki.patterns.condition import Condition
from hetki.patterns.evaluate import Test
from hetki.patterns.scope import Scope

#: What may stand before an event: anything, or nothing that the moment listens to (`next`). `any` is for
#: `match: all`: a later event that fits may be meant, too.
Link = Literal["later", "next", "any"]


@dataclass(frozen=True, slots=True)
class Limit:
    """The longest time, in seconds, from the event step `index` to the step that has this limit; of a step
    of several events that names itself, from the first of them to the last."""

    index: int
    within_s: int


@dataclass(frozen=True, slots=True)
class EventStep:
    """A step that `least` to `most` events fulfil; one with a `least` of 0 may be missing.

    `index` counts event steps, `stage` is where it stands. `link` is about what stands before its first
    event, `between` about what stands between them; `until` ends the collecting. `captures` are the fields
    to keep of its last event, `firsts` those of its first, `counts` whether their number is asked for.
    `anchors` are the timed absences that start when it is fulfilled, as indices into `Pattern.timed`.
    """

    name: str
    index: int
    stage: int
    choices: tuple[Choice, ...]
    tests: Tests
    least: int = 1
    most: int = 1
    link: Link = "later"
    between: Link = "later"
    until: tuple[Choice, ...] = ()
    stops: Tests | None = None
    limit: Limit | None = None
    captures: tuple[str, ...] = ()
    firsts: tuple[str, ...] = ()
    counts: bool = False
    anchors: tuple[int, ...] = ()

    @property
    def listens(self) -> tuple[Choice, ...]:
        """All that it looks at: what fits, and what ends the collecting."""
        return (*self.choices, *self.until)


@dataclass(frozen=True, slots=True)
class Absence:
    """A step that holds while no event fits.

    Between stages it is watched from the event step `anchor` on (or from the passing of the stage `after` on)
    until a deadline (`for_s` after it, or its field `by`), or without either until the stage `follows` is
    passed. As a `part` of the stage `follows` it is watched from the entering of that stage on. With
    `begins_again` an event does not break it but moves its deadline.

    One with `before_s` is a silence before the first step instead: it looks back from the start.
    """

    name: str
    anchor: int
    follows: int
    choices: tuple[Choice, ...]
    for_s: int | None = None
    by: str | None = None
    after: int | None = None
    before_s: int | None = None
    begins_again: bool = False
    part: bool = False

    @property
    def listens(self) -> tuple[Choice, ...]:
        """All that it looks at: what breaks it."""
        return self.choices

    @property
    def is_timed(self) -> bool:
        """Whether it has a deadline of its own."""
        return self.for_s is not None or self.by is not None


@dataclass(frozen=True, slots=True)
class Stage:
    """What must be passed before the next stage: all of its event steps and silences, or any one of them.

    `steps` are indices of event steps; `silences`, `waits` (over before it) and `after` (started by its
    passing) are indices into `Pattern.timed`. `back` is the first stage of the group that ends with it and
    then starts again. `is_plain`: one step of one event, whenever it comes, and so is the stage before it.
    """

    index: int
    steps: tuple[int, ...]
    silences: tuple[int, ...] = ()
    waits: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    is_any: bool = False
    is_optional: bool = False
    collects: bool = False
    is_plain: bool = False
    back: int | None = None


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
    """A compiled pattern. `steps` has all steps as declared, `events` the event steps, `stages` both as
    they are passed, `opening` for each event name the first steps that it may fulfil, `timed` the absences
    with a deadline, `before` the silences before the start, `forbids` for each event name the absences it
    may break (with the index in `timed`, or -1) and `ending` the timed absences after the last stage.
    `within_us` is in microseconds. `one_open`: a start counts only while no try is open; `branches`: every
    way in which the events fit is followed (`match: all`). `has_many`: one start may have several
    occurrences; `wakes`: time alone may pass a stage, and `ends_by_time` the last one that must be passed.
    `context` is what to keep as of the last event that was bound. `keys` says of each step where it stands
    in the declaration.
    """

    steps: tuple[EventStep | Absence, ...]
    events: tuple[EventStep, ...]
    stages: tuple[Stage, ...]
    opening: Mapping[str, tuple[int, ...]]
    timed: tuple[Absence, ...]
    before: tuple[Absence, ...]
    forbids: Mapping[str, tuple[tuple[Absence, int, Test | None], ...]]
    ending: tuple[int, ...]
    within_s: int | None
    within_us: int
    repeat: Repeat
    who: Condition | None
    one_open: bool
    branches: bool
    names: frozenset[str]
    keys: tuple[tuple[int | str, ...], ...]
    has_many: bool = False
    wakes: bool = False
    ends_by_time: bool = False
    context: tuple[tuple[str, Test], ...] = ()

    def scope(self, catalogue: Catalogue) -> Scope:
        """What a condition about an occurrence may use: its steps' fields and the customer's traits."""
        return Scope(catalogue, (), events_of(self.events), counted=counted(self.events))


def events_of(steps: Iterable[EventStep]) -> dict[str, tuple[str, ...]]:
    """The names that each event step may bind."""
    return {step.name: tuple(choice.event for choice in step.choices) for step in steps}


def counted(steps: Iterable[EventStep]) -> frozenset[str]:
    """The event steps that bind several events, so that they have a first, a last and a number."""
    return frozenset(step.name for step in steps if step.most > 1)
