"""The matcher: a pattern followed over one customer's events. This readable form is the definition.

Events come in their total order. Each event that fits the first step opens a partial of its own; an open
partial binds, step by step, the first later event that fits. `observe` moves a run by one event, `settle`
by time alone, and `step` is both over a batch, without touching what it was given.

Any split of a stream into batches gives equal matches and, after the same `settle`, equal runs. So nothing
here may depend on when a dead partial is swept out: whether one is open is asked of the event's instant.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, Iterable, Mapping, Sequence

import msgspec

from hetki.events.fields import instant_of
from hetki.patterns.evaluate import Test, number
from hetki.patterns.run import UNBOUND, Bound, Match, Partial, Run, Seen, copied
from hetki.patterns.sequence import EventStep, Limit, Pattern
from hetki.settings import SECOND

#: How many partials of one pattern may be open for one customer; the oldest gives way, and is counted.
OPEN_MAX: Final = 64

_NO_TRAITS: Final[dict[str, object]] = {}


def observe(pattern: Pattern, run: Run, seen: Seen, traits: Mapping[str, object]) -> list[Match]:
    """Move a run by one event, and give the occurrences that end with it.

    The run is changed in place: the caller owns it. The event must be later in total order than any seen
    before, and its instant later than any `until` that was settled; older ones need a fold from the start.
    """
    if seen.name not in pattern.names:
        return []
    matches: list[Match] = []
    if run.partials:
        kept = []
        for partial in run.partials:
            if _advanced(pattern, partial, seen, traits):
                _note(pattern, partial, seen, traits)
                if partial.due_at is None and partial.n_passed == len(pattern.events):
                    matches.append(_match(pattern, partial, seen.occurred_at))
                else:
                    kept.append(partial)
        run.partials = kept
    opening = pattern.opening.get(seen.name, ())
    if opening and pattern.one_open and (matches or _still_open(run, seen.occurred_at)):
        opening = ()
    for index in opening:
        if _starts(pattern, index, run, seen, traits):
            opened = Partial([], [None] * len(pattern.timed), start=index)
            if _bind(pattern, opened, index, seen):
                _note(pattern, opened, seen, traits)
                if opened.due_at is None and opened.n_passed == len(pattern.events):
                    matches.append(_match(pattern, opened, seen.occurred_at))
                else:
                    _open(run, opened, seen.occurred_at)
            break
    if pattern.before:
        _remember(pattern, run, seen, traits)
    return _emitted(pattern, run, matches)


def settle(pattern: Pattern, run: Run, until: int) -> list[Match]:
    """Give the occurrences that end with an absence and lie at or before `until`, in order of emission.

    Nothing else is changed: a partial whose `within` has passed leaves with the next event, so that a run
    does not depend on how often it was looked at. The run is changed in place.
    """
    due, kept = [], []
    for partial in run.partials:
        if partial.due_at is not None and partial.due_at <= until:
            due.append(partial)
        else:
            kept.append(partial)
    run.partials = kept
    due.sort(key=_due_at)
    return _emitted(pattern, run, [_match(pattern, partial, _due_at(partial)) for partial in due])


def withdraw(run: Run, since: int) -> None:
    """Drop what is still open at `since`, when consent for the moment's purpose ends.

    An occurrence that lies before `since` and only waits for late events stays. What broke a silence
    before the start, and what aggregates remember, is forgotten too.
    """
    run.partials = [each for each in run.partials if each.due_at is not None and each.due_at < since]
    run.before = []
    run.windows = []


def next_due(run: Run) -> int | None:
    """The earliest instant at which an occurrence may happen without a further event."""
    return min((each.due_at for each in run.partials if each.due_at is not None), default=None)


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


def _end(partial: Partial, n: int) -> int:
    deadline = partial.deadlines[n]
    assert deadline is not None, "an absence is watched before the step that it holds up"
    return deadline


def _advanced(pattern: Pattern, partial: Partial, seen: Seen, traits: Mapping[str, object]) -> bool:
    """Move one partial by an event; whether it lives on."""
    at = seen.occurred_at
    if partial.due_at is not None:
        if at > partial.due_at:
            return True  # it has happened, and waits only for late events
    else:
        opened = partial.bound[partial.start]
        if at > (opened.before[0] if opened.before else opened).occurred_at + pattern.within_us:
            return False
    if seen.name in pattern.forbids and _broken(pattern, partial, seen, traits):
        return False
    if partial.due_at is not None:
        return True
    awaited = pattern.events[partial.n_passed]
    if awaited.is_plain:
        tests = awaited.tests.get(seen.name)
        if tests is None or not all(at > _end(partial, n) for n in awaited.waits):
            return True
        return not _fits(tests, seen, partial.bound, traits) or _bind(pattern, partial, awaited.index, seen)
    return _moved(pattern, partial, awaited.peers, seen, traits)


def _moved(
    pattern: Pattern, partial: Partial, peers: tuple[int, ...], seen: Seen, traits: Mapping[str, object]
) -> bool:
    """Move one partial whose next steps have peers, several events or a limit, or follow such a step."""
    at = seen.occurred_at
    is_strict = any(pattern.events[index].is_next for index in peers)
    is_strict = is_strict and all(at > _end(partial, n) for n in pattern.events[peers[0]].waits)
    for index in peers:
        step = pattern.events[index]
        if _count(partial, index) >= step.least:
            continue
        if step.limit is not None and _is_past(partial, step.limit, at):
            if not _collects(pattern, partial, step.limit.index):
                return False
            continue
        if not all(at > _end(partial, n) for n in step.waits):
            continue
        tests = step.tests.get(seen.name)
        if tests is not None and _fits(tests, seen, partial.bound, traits):
            return _bind(pattern, partial, index, seen)
    return _collected(pattern, partial, seen, traits) or not is_strict


def _collected(pattern: Pattern, partial: Partial, seen: Seen, traits: Mapping[str, object]) -> bool:
    """Bind one more event to a step that is fulfilled, and may have more until the next one binds."""
    for index in pattern.events[partial.n_passed - 1].peers if partial.n_passed else ():
        step = pattern.events[index]
        tests = step.tests.get(seen.name)
        if tests is None or not _collects(pattern, partial, index):
            continue
        if step.limit is not None and _is_past(partial, step.limit, seen.occurred_at):
            continue
        if _fits(tests, seen, partial.bound, traits):
            partial.bound[index] = _bound(step, seen, partial.bound[index])
            return True
    return False


def _collects(pattern: Pattern, partial: Partial, index: int) -> bool:
    """Whether a step is fulfilled and may have more events: nothing is bound after it and its peers."""
    is_last = index < partial.n_passed == len(partial.bound)
    if not is_last or index not in pattern.events[partial.n_passed - 1].peers:
        return False
    return _count(partial, index) < pattern.events[index].most


def _count(partial: Partial, index: int) -> int:
    """How many events an event step has bound."""
    if index >= len(partial.bound) or not partial.bound[index].step:
        return 0
    return len(partial.bound[index].before) + 1


def _is_past(partial: Partial, limit: Limit, at: int) -> bool:
    return at > partial.bound[limit.index].occurred_at + limit.within_s * SECOND


def _broken(pattern: Pattern, partial: Partial, seen: Seen, traits: Mapping[str, object]) -> bool:
    """Whether an event breaks an absence that is watched at its instant."""
    for absence, timed, test in pattern.forbids[seen.name]:
        if timed < 0:
            if partial.n_passed != absence.follows:
                continue
        else:
            deadline = partial.deadlines[timed]
            if deadline is None or seen.occurred_at > deadline:
                continue
        if test is None or test(seen.fields, partial.bound, traits) is True:
            return True
    return False


def _fits(
    tests: Sequence[Test | None], seen: Seen, bound: Sequence[Bound], traits: Mapping[str, object]
) -> bool:
    return any(test is None or test(seen.fields, bound, traits) is True for test in tests)


def _starts(pattern: Pattern, index: int, run: Run, seen: Seen, traits: Mapping[str, object]) -> bool:
    """Whether an event opens a partial at a first step: it fits, the customer is one of `who`, and no
    silence before the start is broken."""
    who = pattern.who
    if not _fits(pattern.events[index].tests[seen.name], seen, (), traits):
        return False
    if who is not None and who.test(seen.fields, (), traits) is not True:
        return False
    for absence, broken_at in zip(pattern.before, run.before, strict=False):
        if broken_at is not None and broken_at >= seen.occurred_at - (absence.before_s or 0) * SECOND:
            return False
    return True


def _remember(pattern: Pattern, run: Run, seen: Seen, traits: Mapping[str, object]) -> None:
    """Note when a silence before the start is broken: by an event before the start in order, not by it."""
    for n, absence in enumerate(pattern.before):
        for choice in absence.choices:
            if choice.event == seen.name and (
                choice.where is None or choice.where.test(seen.fields, (), traits) is True
            ):
                run.before = run.before or [None] * len(pattern.before)
                run.before[n] = seen.occurred_at


def _bind(pattern: Pattern, partial: Partial, index: int, seen: Seen) -> bool:
    """Bind an event to a step that awaits it; `False` if a deadline that it should name is missing."""
    step = pattern.events[index]
    starting = step.anchors
    if step.least == len(step.peers) == 1:
        partial.bound.append(_bound(step, seen, UNBOUND))
        is_passed = True
    else:
        while len(partial.bound) <= step.peers[-1]:
            partial.bound.append(UNBOUND)
        partial.bound[index] = _bound(step, seen, partial.bound[index])
        if _count(partial, index) < step.least:
            return True
        is_passed = all(_count(partial, each) >= pattern.events[each].least for each in step.peers)
    if is_passed:
        partial.n_passed = len(partial.bound)
        starting += step.after_all
    for n in starting:
        deadline = _deadline(pattern, n, seen)
        if deadline is None:
            return False
        partial.deadlines[n] = deadline
    if pattern.ending and partial.n_passed == len(pattern.events):
        partial.due_at = max(seen.occurred_at, *(_end(partial, n) for n in pattern.ending))
    return True


def _note(pattern: Pattern, partial: Partial, seen: Seen, traits: Mapping[str, object]) -> None:
    """Keep what the pattern wants of the situation, at the event that fulfils the last event step."""
    if pattern.context and not partial.context and partial.n_passed == len(pattern.events):
        partial.context = {
            name: storable(test(seen.fields, partial.bound, traits)) for name, test in pattern.context
        }


def _deadline(pattern: Pattern, n: int, seen: Seen) -> int | None:
    absence = pattern.timed[n]
    if absence.for_s is not None:
        return seen.occurred_at + absence.for_s * SECOND
    assert absence.by is not None, "a timed absence has a duration or names a field"
    return seen.occurred_at if absence.by == "occurred_at" else instant_of(seen.fields.get(absence.by))


def _bound(step: EventStep, seen: Seen, last: Bound) -> Bound:
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
    before = (*last.before, msgspec.structs.replace(last, before=())) if last.step else ()
    if step.counts:
        values["n"] = len(before) + 1
    return msgspec.structs.replace(bound, before=before)


def storable(value: object) -> object:
    """A JSON value as MessagePack can hold it: a number beyond 64 bits reads as null, as in conditions."""
    if isinstance(value, list):
        return [storable(each) for each in value]
    if isinstance(value, dict):
        return {key: storable(each) for key, each in value.items()}
    return number(value) if type(value) is int else value


def _still_open(run: Run, at: int) -> list[int]:
    """The partials that are open at `at`. Those not yet complete were swept for this instant already; a
    complete one is open until it is due."""
    return [n for n, each in enumerate(run.partials) if each.due_at is None or each.due_at >= at]


def _open(run: Run, opened: Partial, at: int) -> None:
    """Add a partial; at the bound the oldest that is still open at `at` gives way."""
    if len(run.partials) >= OPEN_MAX:
        still_open = _still_open(run, at)
        if len(still_open) >= OPEN_MAX:
            del run.partials[still_open[0]]
            run.n_dropped += 1
    run.partials.append(opened)


def _match(pattern: Pattern, partial: Partial, at: int) -> Match:
    repeat = pattern.repeat
    key = partial.bound[repeat.index].values.get(repeat.field) if repeat.once == "field" else None
    deadline = max(_end(partial, n) for n in pattern.ending) if pattern.ending else None
    return Match(
        at, partial.bound, partial.bound[partial.start].first.event_id, deadline, key, partial.context
    )


def _emitted(pattern: Pattern, run: Run, matches: list[Match]) -> list[Match]:
    """Those that are no repetition. A missing key equals no other, so it never suppresses."""
    if pattern.repeat.once == "always" or not matches:
        return matches
    emitted = []
    for match in matches:
        if pattern.repeat.once == "period":
            last = run.emitted_at
            if last is not None and match.occurred_at - last < pattern.repeat.period_s * SECOND:
                continue
            run.emitted_at = match.occurred_at
        elif match.repeat_key is not None:
            digest = _digest(match.repeat_key)
            if digest in run.emitted:
                continue
            run.emitted.append(digest)
        emitted.append(match)
    return emitted


def _digest(key: object) -> bytes:
    """Eight bytes that stand for a key; 1 and 1.0 are one key, as they are equal in conditions."""
    if isinstance(key, float) and key.is_integer():
        key = int(key)
    return blake2b(msgspec.msgpack.encode(key), digest_size=8).digest()
