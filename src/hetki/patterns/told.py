"""Told: what happens to tries, for who asks why. Live matching tells nobody, and nothing of this is stored.

Why an event that a step listens to did not fit is told part by part of its condition (`Miss`).
"""

from __future__ import annotations

from typing import Final, Literal, Mapping, Sequence

import msgspec

from hetki.events.event import EventId
from hetki.patterns import tree as t
from hetki.patterns.condition import Condition
from hetki.patterns.evaluate import compiled
from hetki.patterns.run import Bound, Seen

What = Literal["started", "bound", "silent", "missed", "caught", "repeated", "ended", "closed"]
#: The id of no event.
NO_EVENT: Final = EventId(b"")
#: More misses of one customer help nobody.
MISSED_MAX: Final = 10_000


class Miss(msgspec.Struct, frozen=True):
    """A part of a condition that was not true of an event: false, or unknown as a value was missing.

    `values` are those that the part reads, each with what stood there.
    """

    part: t.Node
    is_unknown: bool
    values: tuple[tuple[t.Node, object], ...]


class Told(msgspec.Struct, frozen=True):
    """One thing that happened, to the try that the event `start_id` opened; to none if it is empty.

    `started`, `bound` and `silent` (a silence passed its stage) are about a `step`; so is `missed`: an event
    that the step listens to did not fit, for the reasons in `misses`, or for `why` (`where`, `who`, `until`,
    `one_open`, or `before`, and then the step is a silence before the start). `ended` has its reason in `why`
    (`within`, `limit`, `broken`, `between`, `until`, `no_deadline`, `pushed_out`, `withdrawn`) and the step
    or absence that it is about. `caught` is an occurrence, unless `repeated` follows. `closed`: the moment's
    purpose was not in force for an event. `event` is the name of the event at hand, if there was one.
    """

    what: What
    start_id: EventId
    occurred_at: int
    step: str = ""
    why: str = ""
    event_id: EventId = NO_EVENT
    event: str = ""
    misses: tuple[Miss, ...] = ()


class Telling:
    """What is told, in order; misses only up to a bound."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.n_missed = 0

    def tell(
        self,
        what: What,
        start_id: EventId,
        occurred_at: int,
        step: str = "",
        why: str = "",
        seen: Seen | None = None,
        found: tuple[Miss, ...] = (),
    ) -> None:
        """Keep one thing; `seen` is the event at hand."""
        if what == "missed":
            self.n_missed += 1
            if self.n_missed > MISSED_MAX:
                return
        event_id, event = (seen.event_id, seen.name) if seen is not None else (NO_EVENT, "")
        self.told.append(Told(what, start_id, occurred_at, step, why, event_id, event, found))


def misses(
    condition: Condition, seen: Seen, bound: Sequence[Bound], traits: Mapping[str, object]
) -> tuple[Miss, ...]:
    """The parts of a condition, as far as `and` divides it, that were not true."""
    found = []
    for part in _parts(condition.tree):
        answer = compiled(part)(seen.fields, bound, traits)
        if answer is not True:
            read = [
                node for node in t.walk(part) if not t.children(node) and not isinstance(node, t.Constant)
            ]
            values = tuple((node, compiled(node)(seen.fields, bound, traits)) for node in dict.fromkeys(read))
            found.append(Miss(part, answer is None, values))
    return tuple(found)


def _parts(node: t.Node) -> list[t.Node]:
    if isinstance(node, t.Logic) and node.word == "and":
        return [each for part in node.parts for each in _parts(part)]
    return [node]
