"""Why and why not: a customer's history folded again for one moment, with all that happens to its tries told.

Nothing of this is stored: whoever asks has the history folded for them, by the fold that runs live.
"""

from __future__ import annotations

from typing import Literal, Sequence

import msgspec

from hetki.events.event import EventId
from hetki.moments.fold import Fact, Folded, Joined, Program, step
from hetki.moments.moment import Occurrence
from hetki.patterns.run import Partial
from hetki.patterns.sequence import Pattern
from hetki.patterns.staffing import NO_STAFFING, Timeline
from hetki.patterns.standing import ends_at
from hetki.patterns.told import Telling, Told


class Try(msgspec.Struct, frozen=True):
    """What became of one start.

    `steps` are the bound steps, the kept silences and all occurrences but the last, in order, with their
    instants and events; what several ways share is there once. `missed` are the events that an awaited step
    listens to and that did not fit. `end`: `caught` (at least once), `repeated` (the same again, so not
    told), `ended` (`why` as in `Told`, `about` a step) or `open`, with what it awaits and until when.
    """

    started_at: int
    steps: list[Told]
    missed: list[Told]
    end: Literal["caught", "repeated", "ended", "open"]
    ended_at: int | None = None
    why: str = ""
    about: str = ""
    by: str = ""
    awaits: tuple[str, ...] = ()
    until: int | None = None


class Why(msgspec.Struct, frozen=True):
    """Everything about one moment and one customer: `tries` in the order of their starts, the events that
    opened none (`missed`), and how many it could not see (`n_closed`)."""

    occurrences: list[Occurrence]
    tries: list[Try]
    missed: list[Told]
    n_listened: int
    n_closed: int


def why(
    program: Program, history: Sequence[Fact | Joined], advance_to: int, staffing: Timeline = NO_STAFFING
) -> Why:
    """What one moment made of a customer's whole history, in total order.

    The program must have that moment alone. `staffing` holds every report that the history may see.
    """
    (moment,) = program.moments
    telling = Telling()
    folded, occurrences = step(program, Folded(), history, advance_to, staffing, telling)
    told: dict[EventId, list[Told]] = {}
    missed, n_closed = [], 0
    for each in telling.told:
        if each.what == "closed":
            n_closed += 1
        elif each.start_id:
            told.setdefault(each.start_id, []).append(each)
        else:
            missed.append(each)
    run = folded.runs.get(moment.name)
    still_open = {each.opened.event_id: each for each in run.partials} if run else {}
    tries = [_try(moment.pattern, each, still_open.get(start)) for start, each in told.items()]
    names = moment.pattern.names
    n_listened = sum(isinstance(each, Fact) and each.event.name in names for each in history)
    return Why(occurrences, tries, missed, n_listened, n_closed)


def _try(pattern: Pattern, told: list[Told], partial: Partial | None) -> Try:
    missed = [each for each in told if each.what == "missed"]
    started_at, last = told[0].occurred_at, told[-1]
    caught = [each for each in told if each.what == "caught"]
    for each in told:
        if each.what == "repeated":  # one of those that were caught at its instant
            caught.remove(next(one for one in caught if one.occurred_at == each.occurred_at))
    steps: list[Told] = []
    for each in sorted(told, key=lambda each: each.occurred_at):
        is_earlier = any(each is one for one in caught[:-1])
        if is_earlier or (each.what in ("bound", "silent") and each not in steps):
            steps.append(each)
    if caught:
        return Try(started_at, steps, missed, "caught", caught[-1].occurred_at)
    if partial is not None:
        awaits, until = _awaited(pattern, partial)
        return Try(started_at, steps, missed, "open", awaits=awaits, until=until)
    ended = next((each for each in reversed(told) if each.what == "ended"), last)
    if any(each.what == "repeated" for each in told):
        return Try(started_at, steps, missed, "repeated", last.occurred_at)
    return Try(started_at, steps, missed, "ended", ended.occurred_at, ended.why, ended.step, ended.event)


def _awaited(pattern: Pattern, partial: Partial) -> tuple[tuple[str, ...], int | None]:
    """The steps and silences that an open try waits for, and until when it can go on."""
    if partial.due_at is not None:
        return tuple(f"no {pattern.timed[n].name}" for n in pattern.ending), partial.due_at
    until = ends_at(pattern, partial) if pattern.within_s is not None else None
    if partial.stage == len(pattern.stages):
        return (), until
    stage = pattern.stages[partial.stage]
    waits = tuple(f"no {pattern.timed[n].name}" for n in (*stage.waits, *stage.silences))
    return (*waits, *(pattern.events[n].name for n in stage.steps)), until
