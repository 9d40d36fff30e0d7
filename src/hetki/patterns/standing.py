"""Standing: what can be asked of one try, and of an event that may move it. Nothing here changes a try."""

from __future__ import annotations

from hashlib import blake2b
from typing import Mapping, Sequence

import msgspec

from hetki.events.fields import instant_of
from hetki.patterns.evaluate import Test, number
from hetki.patterns.run import OPEN_TO, Bound, Partial, Seen
from hetki.patterns.sequence import EventStep, Limit, Pattern, Stage
from hetki.settings import SECOND


def is_complete(pattern: Pattern, partial: Partial) -> bool:
    """Whether the last event has made it an occurrence, with nothing left to wait for."""
    if partial.due_at is not None or partial.stage < len(pattern.stages):
        return False
    return not has_only_more(pattern, partial)


def has_only_more(pattern: Pattern, partial: Partial) -> bool:
    """Whether this branch goes no further, but waits for one more event of the stage it has passed."""
    return pattern.branches and partial.open_from < partial.stage


def ends_at(pattern: Pattern, partial: Partial) -> int:
    """Until when another step may be bound."""
    return partial.opened.occurred_at + pattern.within_us


def end(partial: Partial, n: int) -> int:
    """The deadline of an absence that is watched."""
    deadline = partial.deadlines[n]
    assert deadline is not None, "an absence is watched before the stage that it holds up"
    return deadline


def are_over(partial: Partial, timed: Sequence[int], at: int) -> bool:
    """Whether every one of these silences is over."""
    return all(at > end(partial, n) for n in timed)


def skips(pattern: Pattern, partial: Partial, follows: int) -> bool:
    """Whether all stages from `follows` to the awaited one are optional and still missing: what must not
    stand before them must not stand before what comes instead either."""
    return follows < partial.stage and all(
        stage.is_optional and not any(count(partial, index) for index in stage.steps)
        for stage in pattern.stages[follows : partial.stage]
    )


def may_begin(pattern: Pattern, partial: Partial, place: int, at: int) -> bool:
    """Whether every timed absence before a stage is over, those before skipped stages included."""
    if not are_over(partial, pattern.stages[place].waits, at):
        return False
    while place and pattern.stages[place - 1].is_optional and skips(pattern, partial, place - 1):
        place -= 1
        if not are_over(partial, pattern.stages[place].waits, at):
            return False
    return True


def waking(pattern: Pattern, partial: Partial) -> int | None:
    """When a silence passes the awaited stage by itself."""
    stage = pattern.stages[partial.stage]
    deadlines = [each for n in stage.silences if (each := partial.deadlines[n]) is not None]
    if stage.is_any:
        return min(deadlines, default=None)
    return max(deadlines) if is_fulfilled(pattern, partial, stage) else None


def count(partial: Partial, index: int) -> int:
    """How many events an event step has bound."""
    if index >= len(partial.bound) or not partial.bound[index].step:
        return 0
    return len(partial.bound[index].before) + 1


def is_fulfilled(pattern: Pattern, partial: Partial, stage: Stage) -> bool:
    """Whether every event step of a stage has enough events."""
    return all(count(partial, index) >= pattern.events[index].least for index in stage.steps)


def may_have_more(pattern: Pattern, partial: Partial, index: int) -> bool:
    """Whether a step that is passed may still bind a later event, from which a limit would run anew."""
    step = pattern.events[index]
    return partial.open_from <= step.stage < partial.stage and count(partial, index) < step.most


def is_past(partial: Partial, step: EventStep, limit: Limit, at: int) -> bool:
    """Whether an instant is too late for a step with a limit."""
    origin = partial.bound[limit.index]
    if limit.index == step.index:  # from the first of its own events, if it has one
        return bool(origin.step) and at > origin.first.occurred_at + limit.within_s * SECOND
    return at > origin.occurred_at + limit.within_s * SECOND


def fits(
    tests: Sequence[Test | None], seen: Seen, bound: Sequence[Bound], traits: Mapping[str, object]
) -> bool:
    """Whether one of the conditions is true of an event."""
    for test in tests:
        if test is None or test(seen.fields, bound, traits) is True:
            return True
    return False


def bound_by(step: EventStep, seen: Seen, last: Bound) -> Bound:
    """The event as a step keeps it, behind what the step has bound before."""
    values = {}
    for name in step.captures:
        value = seen.fields.get(name)
        if value is not None:
            values[name] = storable(value)
    bound = Bound(step.name, seen.event_id, seen.leaf, seen.occurred_at, seen.source, seen.purposes, values)
    if step.most == 1:
        return bound
    for name in step.firsts:
        key = f"first.{name}"
        value = last.values.get(key) if last.step else seen.fields.get(name)
        if value is not None:
            values[key] = storable(value)
    # Nobody reads the fields of those in between, so that a state stays small however long a text is sent.
    before = (*last.before, msgspec.structs.replace(last, before=(), values={})) if last.step else ()
    if step.counts:
        values["n"] = len(before) + 1
    return msgspec.structs.replace(bound, before=before)


def deadline_of(pattern: Pattern, n: int, seen: Seen) -> int | None:
    """When an absence that starts with this event ends; `None` if the event does not say it."""
    absence = pattern.timed[n]
    if absence.for_s is not None:
        return seen.occurred_at + absence.for_s * SECOND
    assert absence.by is not None, "a timed absence has a duration or names a field"
    return seen.occurred_at if absence.by == "occurred_at" else instant_of(seen.fields.get(absence.by))


def narrowed(context: dict[str, object], purposes: object) -> dict[str, object]:
    """A context that also rests on what was open to these purposes (bits) only; -1 narrows nothing."""
    already = context.get(OPEN_TO, -1)
    assert isinstance(purposes, int) and isinstance(already, int), "purposes are bits"
    return context if purposes == -1 else {**context, OPEN_TO: already & purposes}


def way_of(partial: Partial) -> bytes:
    """Eight bytes that tell apart the ways from one start: what was bound, in each round of a group."""
    ids = b"".join(
        len(bound.all).to_bytes(1, "big") + b"".join(each.event_id for each in bound.all)
        for bound in partial.bound
    )
    return blake2b((partial.rounds[1] if partial.rounds else b"") + ids, digest_size=8).digest()


def storable(value: object) -> object:
    """A JSON value as MessagePack can hold it: a number beyond 64 bits reads as null, as in conditions."""
    if isinstance(value, list):
        return [storable(each) for each in value]
    if isinstance(value, dict):
        return {key: storable(each) for key, each in value.items()}
    return number(value) if type(value) is int else value
