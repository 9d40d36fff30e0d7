"""What the matcher holds of one customer and one pattern: nouns only. `matcher` moves them.

All of them encode to MessagePack as arrays, and equal states give equal bytes.
"""

from __future__ import annotations

from typing import Final, Sequence

import msgspec

from hetki.events.event import Event, EventId, LeafId, OrderKey
from hetki.events.fields import Fields


class Seen(msgspec.Struct, frozen=True, gc=False):
    """What the matcher sees of an event. `purposes` is a bit mask: which purposes could see it then."""

    event_id: EventId
    leaf: LeafId
    order_key: OrderKey
    name: str
    occurred_at: int
    source: str
    purposes: int
    fields: Fields


class Bound(msgspec.Struct, frozen=True, array_like=True):
    """An event bound to a step. `values` are the captured fields that were there, as they were sent.

    Of a step that several events fulfil it is the last, and `before` are the others in their order, without
    values; `values` then also holds `first.FIELD` and `n`, as far as they are asked for.
    """

    step: str
    event_id: EventId
    leaf: LeafId
    occurred_at: int
    source: str
    purposes: int
    values: dict[str, object]
    before: tuple[Bound, ...] = ()

    @property
    def first(self) -> Bound:
        """The first of the events that fulfil the step."""
        return self.before[0] if self.before else self

    @property
    def all(self) -> tuple[Bound, ...]:
        """All of them."""
        return (*self.before, self)


#: In a context: the purposes (bits) to which all was open that a try rests on and that is not bound: what
#: aggregates counted, and earlier rounds of a group. No trait is so called.
OPEN_TO: Final = ".open_to"
#: What stands for a step whose peers came first.
UNBOUND: Final = Bound("", EventId(b""), LeafId(b""), 0, "", 0, {})


class Partial(msgspec.Struct, array_like=True):
    """A try: a start that may still become an occurrence.

    `bound` has an entry for each event step up to the last one that an event was bound to; `UNBOUND` stands
    for those without one. `deadlines` follows the pattern's timed absences; `None` while one is not watched.
    `stage` is the one that is awaited, and stages from `open_from` on may take more events, until something
    is bound further on. `due_at` is set once all stages are passed: the instant of the occurrence, unless an
    absence is broken before. `start` is the step that bound the first event, and `wakes_at` is when a
    silence passes the awaited stage by itself. `rounds` is there once a group has started again: how often,
    and a digest of what was bound before. `context` is what the moment keeps as of the last event.
    """

    bound: list[Bound]
    deadlines: list[int | None]
    due_at: int | None = None
    stage: int = 0
    open_from: int = 0
    start: int = 0
    rounds: tuple[int, bytes] | None = None
    wakes_at: int | None = None
    context: dict[str, object] = {}

    @property
    def opened(self) -> Bound:
        """The event that opened it."""
        return self.bound[self.start].first


class Window(msgspec.Struct, array_like=True):
    """What an aggregate remembers of one customer's events: their instants in order, what they might be used
    for, and what was taken of each (nothing for a count). `n_dropped` counts what the bound pushed out.
    `leaves` says whose each was where a run is of several people, and is empty elsewhere.
    """

    times: list[int] = []
    purposes: list[int] = []
    values: list[object] = []
    n_dropped: int = 0
    leaves: list[LeafId] = []

    def copy(self) -> Window:
        """One that can be moved on by itself."""
        lists = list(self.times), list(self.purposes), list(self.values)
        return Window(*lists, self.n_dropped, list(self.leaves))

    def keep(self, places: Sequence[int]) -> None:
        """Forget what is not at these places."""
        self.times = [self.times[n] for n in places]
        self.purposes = [self.purposes[n] for n in places]
        self.values = [self.values[n] for n in places] if self.values else []
        self.leaves = [self.leaves[n] for n in places]


class Run(msgspec.Struct, array_like=True):
    """All state of one pattern for one customer.

    `partials` stand in the order in which they were opened. `emitted` remembers what `repeat` compares:
    digests of keys in order of emission. `emitted_at` is the last emission under a period. `n_dropped`
    counts partials that the bound on open ones pushed out. `before` follows the pattern's silences before
    the start: when each was last broken; it is empty while none was. `windows` follow the moment's
    aggregates, and are empty while none of them has seen anything.
    """

    partials: list[Partial] = []
    emitted: list[bytes] = []
    emitted_at: int | None = None
    n_dropped: int = 0
    before: list[int | None] = []
    windows: list[Window] = []


class Match(msgspec.Struct, frozen=True, array_like=True):
    """A completed pattern: when, with which events, and the last deadline if it ended with an absence.

    `bound` has an entry for each event step, `UNBOUND` for one that is missing. `start_id` is the event that
    opened it; where one start may have several occurrences, `way` tells them apart. `context` is what was
    kept of the situation.
    """

    occurred_at: int
    bound: list[Bound]
    start_id: EventId
    deadline: int | None = None
    repeat_key: object = None
    way: bytes = b""
    context: dict[str, object] = {}


def seen(event: Event, event_id: EventId, leaf: LeafId, purposes: int = -1) -> Seen:
    """An event as the matcher sees it."""
    return Seen(
        event_id, leaf, event.order_key, event.name, event.occurred_at, event.source, purposes, Fields(event)
    )


def packed(run: Run) -> Run | None:
    """The run as it should be stored: `None` when it holds nothing."""
    holds = run.partials or run.emitted or run.emitted_at is not None or run.n_dropped
    return run if holds or run.before or run.windows else None


def copied(run: Run) -> Run:
    """A run that can be moved on without touching this one (bound events are shared: they never change)."""
    return Run(
        [branch(each) for each in run.partials],
        list(run.emitted),
        run.emitted_at,
        run.n_dropped,
        list(run.before),
        [window.copy() for window in run.windows],
    )


def branch(partial: Partial) -> Partial:
    """A partial that can be moved on by itself."""
    return msgspec.structs.replace(partial, bound=list(partial.bound), deadlines=list(partial.deadlines))
