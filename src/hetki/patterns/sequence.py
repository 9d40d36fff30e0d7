"""Sequence: what a moment's steps are once they are compiled. Nouns only; `pattern` reads them.

Event steps are counted in the order in which they are declared. Those that stand in one entry of `steps`
are *peers*: they are passed together, in any order. A step by itself is its own only peer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Literal, Mapping

from hetki.events.catalogue import Catalogue
from hetki.patterns.choices import Choice
from hetki.patterns.condition import Condition
from hetki.patterns.evaluate import Test
from hetki.patterns.scope import Scope


@dataclass(frozen=True, slots=True)
class Limit:
    """The longest time, in seconds, from the event step `index` to the step that has this limit."""

    index: int
    within_s: int


@dataclass(frozen=True, slots=True)
class EventStep:
    """A step that `least` to `most` events fulfil. `index` counts event steps, `peers` are the indices of
    those that are passed together with it.

    `is_plain`: it is one event, whenever it comes, and so is the step before it. `is_next`: nothing that
    the moment listens to may stand before it. `captures` are the fields to keep of its last event, `firsts`
    those of its first, `counts` whether their number is asked for. `waits` are the timed absences that must
    be over before it, `anchors` those that start when it is fulfilled and `after_all` those that start when
    its last peer is; all are indices into `Pattern.timed`.
    """

    name: str
    index: int
    choices: tuple[Choice, ...]
    tests: Mapping[str, tuple[Test | None, ...]]
    peers: tuple[int, ...]
    least: int = 1
    most: int = 1
    is_plain: bool = True
    is_next: bool = False
    limit: Limit | None = None
    captures: tuple[str, ...] = ()
    firsts: tuple[str, ...] = ()
    counts: bool = False
    waits: tuple[int, ...] = ()
    anchors: tuple[int, ...] = ()
    after_all: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Absence:
    """A step that holds while no event fits. Watched from the event step `anchor` on (`after_all`: from the
    last of its peers on) until a deadline (`for_s` after it, or its field `by`), or without either until
    the event step `follows` is fulfilled.

    One with `before_s` is a silence before the first step instead: it looks back from the start.
    """

    name: str
    anchor: int
    follows: int
    choices: tuple[Choice, ...]
    for_s: int | None = None
    by: str | None = None
    after_all: bool = True
    before_s: int | None = None

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
    """A compiled pattern. `steps` has all steps as declared, `events` the event steps, `opening` for each
    event name the first steps that it may fulfil, `timed` the absences with a deadline, `before` the silences
    before the start, `forbids` for each event name the absences it may break (with the index in `timed`, or
    -1) and `ending` the timed absences after the last event step. `within_us` is in microseconds.
    `one_open`: a start counts only while no try is open. `context` is what to keep of the situation when the
    last event step is fulfilled. `keys` says of each step which entry of the
    declaration it is.
    """

    steps: tuple[EventStep | Absence, ...]
    events: tuple[EventStep, ...]
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
    names: frozenset[str]
    keys: tuple[tuple[int, str], ...]
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
