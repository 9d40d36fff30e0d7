"""Moves: what one event, or time alone, does to one try. `matcher` moves all tries of a customer.

A try awaits one stage at a time. An event may break an absence, bind a step of the awaited stage, or be one
more for a stage that is passed and may have several. With `match: all` every way is followed: where an
event may be taken or left, or an optional stage awaited or skipped, the try branches.
"""

from __future__ import annotations

from typing import Final, Mapping, Sequence

from hetki.patterns.run import OPEN_TO, UNBOUND, Bound, Partial, Seen, branch
from hetki.patterns.sequence import EventStep, Pattern, Stage
from hetki.patterns.standing import (
    are_over,
    bound_by,
    count,
    deadline_of,
    end,
    ends_at,
    fits,
    has_only_more,
    is_fulfilled,
    is_past,
    may_begin,
    may_have_more,
    narrowed,
    skips,
    waking,
    way_of,
)
from hetki.patterns.told import NO_EVENT, Telling, misses
from hetki.settings import SECOND

#: How often a group may start again within one try; what would be one more is counted as dropped.
ROUNDS_MAX: Final = 100

#: Why a try ended, and the step that it is about.
Ended = tuple[str, str]
#: The end of a branch that only waited for one more event, which has come.
HAD_MORE: Final[Ended] = ("", "")


class Move:
    """What moves tries of a pattern, and what comes of it: the branches, and what could not be followed.

    `telling` is for who asks why, and `start_id` is then the try that is moved.
    """

    __slots__ = ("branches", "n_dropped", "pattern", "start_id", "telling", "traits")

    def __init__(
        self, pattern: Pattern, traits: Mapping[str, object], telling: Telling | None = None
    ) -> None:
        self.pattern = pattern
        self.traits = traits
        self.telling = telling
        self.branches: list[Partial] = []
        self.n_dropped = 0
        self.start_id = NO_EVENT


def start(move: Move, index: int, seen: Seen) -> tuple[Partial, Ended | None]:
    """A try that an event opens at a first step."""
    opened = Partial([], [None] * len(move.pattern.timed), start=index)
    if move.telling is not None:
        step = move.pattern.events[index].name
        move.telling.tell("started", seen.event_id, seen.occurred_at, step, seen=seen)
    return opened, _bind(move, opened, move.pattern.events[index], seen)


def advanced(move: Move, partial: Partial, seen: Seen) -> Ended | None:
    """Move one try by an event: `None` if it lives on, else why it ended. Branches are left in `move`."""
    pattern, at = move.pattern, seen.occurred_at
    if move.telling is not None:
        move.start_id = partial.opened.event_id
    if partial.due_at is not None:
        if at > partial.due_at:
            return None  # it has happened, and waits only for late events
    else:
        opened = partial.bound[partial.start]
        if at > (opened.before[0] if opened.before else opened).occurred_at + pattern.within_us:
            return ("within", _awaited(pattern, partial))
    if seen.name in pattern.forbids:
        ended = _broken(move, partial, seen)
        if ended is not None:
            return ended
    if partial.due_at is not None:
        return None
    stage = pattern.stages[partial.stage] if partial.stage < len(pattern.stages) else None
    if stage is not None and stage.is_plain:
        step = pattern.events[stage.steps[0]]
        if seen.name not in step.tests or (stage.waits and not are_over(partial, stage.waits, at)):
            return None
        return _bind(move, partial, step, seen) if takes(move, step, partial.bound, seen) else None
    while len(partial.bound) < len(pattern.events):
        partial.bound.append(UNBOUND)  # so that conditions may ask for a step that is missing
    return _branched(move, partial, seen) if pattern.branches else _moved(move, partial, seen)


def _awaited(pattern: Pattern, partial: Partial) -> str:
    steps = pattern.stages[min(partial.stage, len(pattern.stages) - 1)].steps
    return pattern.events[steps[0]].name if steps else ""


def wake(move: Move, partial: Partial) -> None:
    """A silence of the awaited stage is over: pass it by time alone, at `partial.wakes_at`."""
    pattern, at = move.pattern, partial.wakes_at
    assert at is not None, "only a try with a silence is woken"
    partial.wakes_at = None
    stage = pattern.stages[partial.stage]
    in_time = at <= ends_at(pattern, partial)
    if not in_time and stage.index < len(pattern.stages) - 1:
        return  # no later step can be bound any more; it leaves with the next event
    if move.telling is not None:
        names = [pattern.timed[n].name for n in stage.silences if partial.deadlines[n] == at]
        move.telling.tell("silent", partial.opened.event_id, at, names[0] if names else "")
    _pass(move, partial, at, by_time=True)


def _moved(move: Move, partial: Partial, seen: Seen) -> Ended | None:
    """One way only: the awaited stage binds first, then the stages that may have more."""
    pattern, at = move.pattern, seen.occurred_at
    for place in range(partial.open_from, partial.stage):
        if any(stops(move, pattern.events[n], partial.bound, seen) for n in pattern.stages[place].steps):
            partial.open_from = place + 1
    bound, ended, is_strict = _taken(move, partial, seen)
    if bound or ended is not None:
        return ended
    closed_to = partial.open_from
    for place in reversed(range(partial.open_from, partial.stage)):
        for index in pattern.stages[place].steps:
            step = pattern.events[index]
            n = count(partial, index)
            if n >= step.most or (step.limit is not None and is_past(partial, step, step.limit, at)):
                continue
            if n == 0 and not may_begin(pattern, partial, place, at):
                continue
            if takes(move, step, partial.bound, seen):
                _put(move, partial, step, seen)
                partial.open_from = place
                if pattern.stages[place].is_optional and n + 1 == step.least:
                    _watch(pattern, partial, at)  # it did come, so what follows begins with it
                return None
            if (step.between if n else step.link) == "next":
                closed_to = max(closed_to, place + 1)
    partial.open_from = closed_to
    return ("between", "") if is_strict else None


def _branched(move: Move, partial: Partial, seen: Seen) -> Ended | None:
    """Every way: what is taken may be left too where the link is `any`, and where there may be more."""
    if has_only_more(move.pattern, partial):
        return _more(move, partial, seen)
    _, ended, is_strict = _taken(move, partial, seen)
    return ended or (("between", "") if is_strict else None)


def _taken(move: Move, partial: Partial, seen: Seen) -> tuple[bool, Ended | None, bool]:
    """Bind the event to a step of the awaited stage: whether one took it, why the try ended, and whether
    nothing else may stand here."""
    pattern, at = move.pattern, seen.occurred_at
    stage = pattern.stages[partial.stage]
    silent = may_begin(pattern, partial, partial.stage, at)
    bound = _without_unfulfilled(pattern, partial)
    is_strict = False
    for index in stage.steps:
        step = pattern.events[index]
        n = count(partial, index)
        if n >= step.least:
            continue
        if stops(move, step, partial.bound, seen):
            return False, ("until", step.name), False
        if step.limit is not None and is_past(partial, step, step.limit, at):
            if stage.is_any or may_have_more(pattern, partial, step.limit.index):
                continue
            return False, ("limit", step.name), False
        if not silent:
            continue
        link = step.between if n else step.link
        if takes(move, step, bound, seen):
            if link == "any" and pattern.branches:
                move.branches.append(branch(partial))
            return True, _bind(move, partial, step, seen), False
        is_strict |= link == "next"
    return False, None, is_strict


def _more(move: Move, partial: Partial, seen: Seen) -> Ended | None:
    """A branch that waits for one more event of the stage it has passed."""
    pattern, at = move.pattern, seen.occurred_at
    is_open = is_strict = False
    for index in pattern.stages[partial.open_from].steps:
        step = pattern.events[index]
        if count(partial, index) >= step.most:
            continue
        if stops(move, step, partial.bound, seen):
            return ("until", step.name)
        if step.limit is not None and is_past(partial, step, step.limit, at):
            continue
        is_open = True
        if takes(move, step, partial.bound, seen):
            if step.between == "any":
                move.branches.append(branch(partial))
            _put(move, partial, step, seen)
            onward = branch(partial)
            onward.open_from = onward.stage
            move.branches.append(onward)
            _enter(move, onward, at, by_time=False)
            is_full = all(
                count(partial, n) >= pattern.events[n].most for n in pattern.stages[partial.open_from].steps
            )
            return HAD_MORE if is_full else None
        is_strict |= step.between == "next"
    return HAD_MORE if is_strict or not is_open else None


def _bind(move: Move, partial: Partial, step: EventStep, seen: Seen) -> Ended | None:
    """Bind an event to a step of the awaited stage."""
    pattern, stage, at = move.pattern, move.pattern.stages[partial.stage], seen.occurred_at
    _leave_unfulfilled(pattern, partial, pattern.stages[partial.open_from : partial.stage])
    partial.open_from = partial.stage
    _put(move, partial, step, seen)
    if step.most > 1 and count(partial, step.index) != step.least:
        return None
    for n in step.anchors:
        deadline = deadline_of(pattern, n, seen)
        if deadline is None:
            return ("no_deadline", pattern.timed[n].name)
        partial.deadlines[n] = deadline
    if len(stage.steps) > 1 and not stage.is_any and not is_fulfilled(pattern, partial, stage):
        return None
    if stage.silences and not stage.is_any and not are_over(partial, stage.silences, at):
        partial.wakes_at = waking(pattern, partial)
        return None
    _pass(move, partial, at, by_time=False)
    return None


def _pass(move: Move, partial: Partial, at: int, by_time: bool) -> None:
    """The awaited stage is passed, by an event or by time alone."""
    pattern = move.pattern
    stage = pattern.stages[partial.stage]
    if by_time:
        _leave_unfulfilled(pattern, partial, pattern.stages[partial.open_from : partial.stage])
    if stage.is_any:
        _leave_unfulfilled(pattern, partial, [stage])
    for n in stage.silences:
        partial.deadlines[n] = None
    partial.wakes_at = None
    _begin_silences(pattern, partial, stage.after, at)
    if stage.back is not None:
        _begin_again(move, partial, stage.back, at)
    partial.stage += 1
    partial.open_from = stage.index if stage.collects else partial.stage
    if stage.collects and pattern.branches:
        more = branch(partial)
        move.branches.append(more)
        partial.open_from = partial.stage
    _enter(move, partial, at, by_time)


def _enter(move: Move, partial: Partial, at: int, by_time: bool) -> None:
    """Await the next stage; an optional one may be skipped. After the last one it is an occurrence."""
    pattern = move.pattern
    while partial.stage < len(pattern.stages) and pattern.stages[partial.stage].is_optional:
        if pattern.branches:
            move.branches.append(branch(partial))
        partial.stage += 1
        if pattern.branches:
            partial.open_from = partial.stage
    if partial.stage < len(pattern.stages):
        if pattern.wakes:
            _watch(pattern, partial, at)
    elif pattern.ending:
        partial.due_at = max(at, *(end(partial, n) for n in pattern.ending))
    elif by_time or pattern.ends_by_time:
        partial.due_at = at  # as where time may end it: all its occurrences come in one order


def _begin_again(move: Move, partial: Partial, back: int, at: int) -> None:
    """A branch of its own in which the group that was passed is awaited anew."""
    pattern = move.pattern
    if at > ends_at(pattern, partial):
        return
    n_rounds = partial.rounds[0] if partial.rounds else 0
    if n_rounds >= ROUNDS_MAX:
        move.n_dropped += 1
        return
    anew = branch(partial)
    anew.rounds = n_rounds + 1, way_of(partial)
    for stage in pattern.stages[back : partial.stage + 1]:
        for index in stage.steps:
            if count(anew, index):
                for each in anew.bound[index].all:
                    anew.context = narrowed(anew.context, each.purposes)
                anew.bound[index] = UNBOUND
    for n, absence in enumerate(pattern.timed):
        begun = pattern.events[absence.anchor].stage if absence.after is None else absence.after
        if not absence.part and begun >= back:
            anew.deadlines[n] = None
    anew.stage = anew.open_from = back
    _watch(pattern, anew, at)
    move.branches.append(anew)


def _broken(move: Move, partial: Partial, seen: Seen) -> Ended | None:
    """Whether an event breaks an absence that is watched at its instant, so that the try ends."""
    pattern, at = move.pattern, seen.occurred_at
    for absence, timed, test in pattern.forbids[seen.name]:
        if timed < 0:
            if partial.stage != absence.follows and not skips(pattern, partial, absence.follows):
                continue
        else:
            deadline = partial.deadlines[timed]
            if deadline is None or at > deadline:
                continue
        if test is not None and test(seen.fields, partial.bound, move.traits) is not True:
            continue
        if absence.begins_again:
            _begin_silences(pattern, partial, (timed,), at)
        elif absence.part and pattern.stages[absence.follows].is_any:
            partial.deadlines[timed] = None
            stage = pattern.stages[absence.follows]
            if not stage.steps and all(partial.deadlines[n] is None for n in stage.silences):
                return ("broken", absence.name)
        else:
            return ("broken", absence.name)
        if absence.part:
            partial.wakes_at = waking(pattern, partial)
        elif partial.due_at is not None:
            partial.due_at = max(partial.due_at, end(partial, timed))
    return None


def _watch(pattern: Pattern, partial: Partial, at: int) -> None:
    """Start the silences that are part of the awaited stage."""
    stage = pattern.stages[partial.stage]
    if stage.silences:
        _begin_silences(pattern, partial, stage.silences, at)
        partial.wakes_at = waking(pattern, partial)


def _begin_silences(pattern: Pattern, partial: Partial, timed: Sequence[int], at: int) -> None:
    for n in timed:
        for_s = pattern.timed[n].for_s
        assert for_s is not None, "what begins with a stage, or again, has a duration"
        partial.deadlines[n] = at + for_s * SECOND


def takes(move: Move, step: EventStep, bound: Sequence[Bound], seen: Seen) -> bool:
    """Whether a step takes an event, as far as the event and what is bound say it."""
    tests = step.tests.get(seen.name)
    if tests is None:
        return False
    is_fitting = fits(tests, seen, bound, move.traits)
    if not is_fitting and move.telling is not None:
        wheres = [each.where for each in step.choices if each.event == seen.name and each.where]
        found = tuple(miss for where in wheres for miss in misses(where, seen, bound, move.traits))
        move.telling.tell("missed", move.start_id, seen.occurred_at, step.name, "where", seen, found)
    return is_fitting


def stops(move: Move, step: EventStep, bound: Sequence[Bound], seen: Seen) -> bool:
    """Whether an event ends the collecting of a step."""
    tests = step.stops.get(seen.name) if step.stops else None
    return tests is not None and fits(tests, seen, bound, move.traits)


def _without_unfulfilled(pattern: Pattern, partial: Partial) -> Sequence[Bound]:
    """What is bound, as a later step sees it: an optional step that has too few events is missing."""
    stages = pattern.stages[partial.open_from : partial.stage]
    if all(is_fulfilled(pattern, partial, stage) for stage in stages if stage.is_optional):
        return partial.bound
    seen_so = branch(partial)
    _leave_unfulfilled(pattern, seen_so, stages)
    return seen_so.bound


def _leave_unfulfilled(pattern: Pattern, partial: Partial, stages: Sequence[Stage]) -> None:
    """A step that has too few events when the try goes on without it is missing."""
    for stage in stages:
        for index in stage.steps:
            if 0 < count(partial, index) < pattern.events[index].least:
                partial.bound[index] = UNBOUND


def _put(move: Move, partial: Partial, step: EventStep, seen: Seen) -> None:
    """Keep an event behind what its step has bound before, and the context as of it."""
    bound = partial.bound
    while len(bound) <= step.index:
        bound.append(UNBOUND)
    bound[step.index] = bound_by(step, seen, bound[step.index])
    if move.pattern.context:
        asked = ((name, test(seen.fields, bound, move.traits)) for name, test in move.pattern.context)
        kept = {name: value for name, value in asked if value is not None}
        partial.context = narrowed(kept, partial.context.get(OPEN_TO, -1))
    if move.telling is not None:
        move.telling.tell("bound", partial.opened.event_id, seen.occurred_at, step.name, seen=seen)
