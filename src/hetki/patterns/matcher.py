"""The matcher: a pattern followed over one customer's events. This readable form is the definition.

Events come in their total order. Each event that fits a first step opens a try of its own (a `Partial`);
what an event does to one try is in `moves`. `observe` moves a run by one event, `settle` by time alone, and
`step` is both over a batch, without touching what it was given.

Any split of a stream into batches gives equal matches and, after the same `settle`, equal runs. So nothing
here may depend on when a dead partial is swept out: whether one is open is asked of the event's instant. And
what time alone does is done in the order of its instants, before the next event.
"""

from __future__ import annotations

from typing import Callable, Final, Iterable, Mapping

from hetki.events.event import LeafId
from hetki.patterns.evaluate import digest
from hetki.patterns.moves import Ended, Move, advanced, start, stops, takes, wake
from hetki.patterns.run import UNBOUND, Match, Partial, Run, Seen, copied
from hetki.patterns.sequence import Pattern
from hetki.patterns.standing import end, is_complete, way_of
from hetki.patterns.told import NO_EVENT, Telling, misses
from hetki.settings import SECOND

#: How many partials of one pattern may be open for one customer; the oldest gives way, and is counted.
OPEN_MAX: Final = 64

_NO_TRAITS: Final[dict[str, object]] = {}


def observe(
    pattern: Pattern, run: Run, seen: Seen, traits: Mapping[str, object], telling: Telling | None = None
) -> list[Match]:
    """Move a run by one event, and give the occurrences that end with it.

    The run is changed in place: the caller owns it. The event must be later in total order than any seen
    before, and its instant later than any `until` that was settled; older ones need a fold from the start.
    `telling` is for who asks why: it is told everything that happens to a try.
    """
    if seen.name not in pattern.names:
        return []
    opening = pattern.opening.get(seen.name, ())
    if not run.partials and not opening and not pattern.before:
        return []
    move = Move(pattern, traits, telling)
    at, matches = seen.occurred_at, list[Match]()
    if run.partials:
        if pattern.wakes:
            pass_time(pattern, run, at - 1, telling)
        kept: list[Partial] = []
        n_stages = len(pattern.stages)
        for partial in run.partials:
            ended = advanced(move, partial, seen)
            if ended is None:
                if partial.stage < n_stages:
                    kept.append(partial)
                else:
                    _sort(move, partial, at, kept, matches)
            elif telling is not None:
                _tell_end(telling, partial, at, ended, seen)
            if move.branches:
                for each in move.branches:
                    _sort(move, each, at, kept, matches)
                move.branches = []
        run.partials = kept
    if opening and pattern.one_open and (matches or _still_open(run, at)):
        if telling is not None:
            name = pattern.events[opening[0]].name
            telling.tell("missed", NO_EVENT, at, name, "one_open", seen)
        opening = ()
    move.start_id = NO_EVENT
    for index in opening:
        if _starts(move, index, run, seen):
            opened, ended = start(move, index, seen)
            if ended is None:
                _sort(move, opened, at, run.partials, matches)
            for each in move.branches:
                _sort(move, each, at, run.partials, matches)
            if ended is not None and telling is not None:
                _tell_end(telling, opened, at, ended, seen)
            break
    if len(run.partials) > OPEN_MAX or move.n_dropped:
        _push_out(move, run, at)
    if pattern.before:
        _remember(pattern, run, seen, traits)
    return _emitted(pattern, run, telling, matches) if matches else matches


def settle(pattern: Pattern, run: Run, until: int, telling: Telling | None = None) -> list[Match]:
    """Give the occurrences that end with an absence and lie at or before `until`, in order of emission.

    Nothing else is changed but what time alone does: a partial whose `within` has passed leaves with the
    next event, so that a run does not depend on how often it was looked at. The run is changed in place.
    """
    if pattern.wakes:
        pass_time(pattern, run, until, telling)
    due, kept = [], []
    for partial in run.partials:
        if partial.due_at is not None and partial.due_at <= until:
            due.append(partial)
        else:
            kept.append(partial)
    if not due:
        return []
    run.partials = kept
    due.sort(key=_due_at)
    if telling is not None:
        for each in due:
            telling.tell("caught", each.opened.event_id, _due_at(each))
    return _emitted(pattern, run, telling, [_match(pattern, partial, _due_at(partial)) for partial in due])


def pass_time(pattern: Pattern, run: Run, until: int, telling: Telling | None = None) -> int | None:
    """Let the silences that are over by `until` pass their stages, in the order of their instants.

    Gives the last of these instants. `observe` and `settle` do it by themselves; who must know when time
    alone changed a run calls it before them. The run is changed in place.
    """
    if not pattern.wakes:
        return None
    move, last = Move(pattern, _NO_TRAITS, telling), None
    while True:
        waking = [each for each in run.partials if each.wakes_at is not None and each.wakes_at <= until]
        if not waking:
            return last
        last = min(each.wakes_at for each in waking if each.wakes_at is not None)
        for partial in waking:
            if partial.wakes_at == last:
                wake(move, partial)
                run.partials += move.branches
                move.branches = []
        _push_out(move, run, last)


def withdraw(
    run: Run,
    since: int,
    telling: Telling | None = None,
    is_theirs: Callable[[LeafId], bool] | None = None,
) -> None:
    """Drop what is still open at `since`, when consent for the moment's purpose ends.

    Time must have passed to just before `since`. An occurrence that lies before it and only waits for late
    events stays. What broke a silence before the start, and what aggregates remember, is forgotten too.
    With `is_theirs`, the run is of several people: dropped is what rests on events of those leaves, and
    that somebody broke a silence before the start stays known.
    """
    kept = [each for each in run.partials if each.due_at is not None and each.due_at < since]
    if is_theirs is not None:
        kept = [each for each in run.partials if each in kept or not _rests_on(each, is_theirs)]
    if telling is not None:
        for each in run.partials:
            if each not in kept:
                _tell_end(telling, each, since, ("withdrawn", ""))
    run.partials = kept
    if is_theirs is None:
        run.before = []
        run.windows = []
    for window in run.windows:
        window.keep([n for n, leaf in enumerate(window.leaves) if not (is_theirs and is_theirs(leaf))])
    if not any(window.times for window in run.windows):
        run.windows = []


def rests_on(run: Run, is_theirs: Callable[[LeafId], bool]) -> bool:
    """Whether anything in a run of several people rests on events of these leaves."""
    if any(_rests_on(each, is_theirs) for each in run.partials):
        return True
    return any(is_theirs(leaf) for window in run.windows for leaf in window.leaves)


def _rests_on(partial: Partial, is_theirs: Callable[[LeafId], bool]) -> bool:
    return any(is_theirs(each.leaf) for bound in partial.bound if bound.step for each in bound.all)


def next_due(run: Run) -> int | None:
    """The earliest instant at which time alone moves a partial or makes an occurrence of it."""
    dues = [each.due_at if each.wakes_at is None else each.wakes_at for each in run.partials]
    return min((each for each in dues if each is not None), default=None)


def step(
    pattern: Pattern,
    run: Run,
    batch: Iterable[Seen],
    advance_to: int,
    lateness_s: int,
    traits: Mapping[str, object] = _NO_TRAITS,
) -> tuple[Run, list[Match]]:
    """The pure form: a new run, and the matches settled on the way. `run` stays as it is."""
    moved, matches = copied(run), []
    settled = advance_to - lateness_s * SECOND
    for seen in sorted(batch, key=_order_key):
        if moved.partials:
            matches += settle(pattern, moved, min(settled, seen.occurred_at - 1))
        matches += observe(pattern, moved, seen, traits)
    return moved, matches + settle(pattern, moved, settled)


def _order_key(seen: Seen) -> tuple[int, str, int, str]:
    return seen.order_key


def _due_at(partial: Partial) -> int:
    assert partial.due_at is not None, "only complete partials are due"
    return partial.due_at


def _sort(move: Move, partial: Partial, at: int, kept: list[Partial], matches: list[Match]) -> None:
    """What lives on is kept, what an event has completed is a match."""
    if is_complete(move.pattern, partial):
        matches.append(_match(move.pattern, partial, at))
        if move.telling is not None:
            move.telling.tell("caught", partial.opened.event_id, at)
    else:
        kept.append(partial)


def _tell_end(telling: Telling, partial: Partial, at: int, ended: Ended, seen: Seen | None = None) -> None:
    why, step = ended
    if why:
        telling.tell("ended", partial.opened.event_id, at, step, why, seen)


def _starts(move: Move, index: int, run: Run, seen: Seen) -> bool:
    """Whether an event opens a partial at a first step: it fits, the customer is one of `who`, and no
    silence before the start is broken."""
    pattern, step, nothing = move.pattern, move.pattern.events[index], (UNBOUND,) * len(move.pattern.events)
    if not takes(move, step, nothing, seen):
        return False
    why, about = "", step.name
    if step.stops and stops(move, step, nothing, seen):
        why = "until"
    elif pattern.who is not None and pattern.who.test(seen.fields, (), move.traits) is not True:
        why = "who"
    else:
        for absence, broken_at in zip(pattern.before, run.before, strict=False):
            if broken_at is not None and broken_at >= seen.occurred_at - (absence.before_s or 0) * SECOND:
                why, about = "before", absence.name
    if why and move.telling is not None:
        found = misses(pattern.who, seen, (), move.traits) if why == "who" and pattern.who else ()
        move.telling.tell("missed", NO_EVENT, seen.occurred_at, about, why, seen, found)
    return not why


def _remember(pattern: Pattern, run: Run, seen: Seen, traits: Mapping[str, object]) -> None:
    """Note when a silence before the start is broken: by an event before the start in order, not by it."""
    for n, absence in enumerate(pattern.before):
        for choice in absence.choices:
            if choice.event == seen.name and (
                choice.where is None or choice.where.test(seen.fields, (), traits) is True
            ):
                run.before = run.before or [None] * len(pattern.before)
                run.before[n] = seen.occurred_at


def _still_open(run: Run, at: int) -> list[int]:
    """The partials that are open at `at`. Those not yet complete were swept for this instant already; a
    complete one is open until it is due."""
    return [n for n, each in enumerate(run.partials) if each.due_at is None or each.due_at >= at]


def _push_out(move: Move, run: Run, at: int) -> None:
    """At the bound the oldest that are still open at `at` give way."""
    run.n_dropped += move.n_dropped
    move.n_dropped = 0
    if len(run.partials) <= OPEN_MAX:
        return
    still_open = _still_open(run, at)
    for n in reversed(still_open[: max(len(still_open) - OPEN_MAX, 0)]):
        if move.telling is not None:
            _tell_end(move.telling, run.partials[n], at, ("pushed_out", ""))
        del run.partials[n]
        run.n_dropped += 1


def _match(pattern: Pattern, partial: Partial, at: int) -> Match:
    repeat, bound = pattern.repeat, partial.bound
    bound += [UNBOUND] * (len(pattern.events) - len(bound))
    key = bound[repeat.index].values.get(repeat.field) if repeat.once == "field" else None
    deadline = max(end(partial, n) for n in pattern.ending) if pattern.ending else partial.due_at
    way = way_of(partial) if pattern.has_many else b""
    return Match(at, bound, partial.opened.event_id, deadline, key, way, partial.context)


def _emitted(pattern: Pattern, run: Run, telling: Telling | None, matches: list[Match]) -> list[Match]:
    """Those that are no repetition. A missing key equals no other, so it never suppresses."""
    if pattern.repeat.once == "always" or not matches:
        return matches
    emitted = []
    for match in matches:
        if pattern.repeat.once == "period":
            last = run.emitted_at
            if last is not None and match.occurred_at - last < pattern.repeat.period_s * SECOND:
                _tell_repeated(telling, match)
                continue
            run.emitted_at = match.occurred_at
        elif match.repeat_key is not None:
            key = digest(match.repeat_key)
            if key in run.emitted:
                _tell_repeated(telling, match)
                continue
            run.emitted.append(key)
        emitted.append(match)
    return emitted


def _tell_repeated(telling: Telling | None, match: Match) -> None:
    if telling is not None:
        telling.tell("repeated", match.start_id, match.occurred_at)
