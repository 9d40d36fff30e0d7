"""The matcher over random patterns and streams: any split is equal, and the definition agrees.

The definition is written here a second time, for each start by itself, without looking at the first.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import events_of, fires, pattern_of, shown

from hetki.patterns import matcher
from hetki.patterns.run import Run, Seen
from hetki.patterns.sequence import Pattern
from hetki.settings import SECOND

WHERES = ["", "", "", "v >= 1", "k = a.k", "k <> a.k", "v = a.v or k is null"]
PLAIN = ["", "", "", "v >= 1"]
SEVERAL = ["v = a.n", "k = a.first.k"]
TIMES = ["for 1 second", "for 3 seconds", "for 6 seconds", "for 2 seconds after a", "by a.due"]


class Step(NamedTuple):
    """One step. A `peer` stands in the entry of the step before it."""

    name: str
    absent: bool
    names: list[str]
    where: str = ""
    time: str = ""
    least: int = 1
    most: int = 1
    strict: bool = False
    limit: str = ""
    peer: bool = False


def random_steps(draw: random.Random) -> list[Step]:
    """Steps, such that they parse."""
    n_events = draw.randint(1, 3)
    steps: list[Step] = []
    wheres = list(WHERES)
    if draw.random() < 0.15:
        time = f"for {draw.choice([1, 4])} seconds before a"
        steps.append(Step("z", True, draw.sample("ABX", draw.randint(1, 2)), draw.choice(PLAIN), time))
    for number in range(n_events):
        peer = number > 0 and draw.random() < 0.2
        if number and not peer:
            for each in range(draw.choice([0, 0, 1, 1, 2])):
                time = draw.choice(["", *TIMES])
                names = draw.sample("BCXY", draw.randint(1, 2))
                # A bare absence of B before a step B never matches, so it has a where.
                where = draw.choice(wheres) or "v = 2"
                steps.append(Step(f"m{number}{each}", True, names, where, time))
        in_first = number == 0 or (peer and all(step.peer or step.name in "az" for step in steps[1:]))
        step = Step(
            "abc"[number],
            False,
            draw.sample("ABC", draw.randint(1, 2)),
            draw.choice(PLAIN if in_first or peer else wheres),
            strict=not in_first and draw.random() < 0.15,
            limit="" if in_first or peer else draw.choice(["", "", "", "3 seconds of a", "2 seconds"]),
            peer=peer,
        )
        if draw.random() < 0.25:
            least = draw.randint(1, 3)
            step = step._replace(least=least, most=max(least + draw.choice([0, 0, 1, 97]), 2))
            if draw.random() < 0.3:
                step = step._replace(limit=f"{draw.choice([1, 3])} seconds of {step.name}")
        wheres += SEVERAL if number == 0 and step.most > 1 else []
        steps.append(step)
    for each in range(draw.choice([0, 1, 1, 2])):
        names = draw.sample("ABCXY", 1)
        steps.append(Step(f"e{each}", True, names, draw.choice(wheres), draw.choice(TIMES)))
    return steps


def written(steps: list[Step]) -> str:
    text = ""
    for step in steps:
        often = f"{step.least} times " if step.most == step.least else f"{step.least} to {step.most} times "
        often += "in a row " if step.strict else ""
        line = f"{'no ' if step.absent else ''}{step.name}: {'next ' if step.strict else ''}"
        line += (often if step.most > 1 else "") + " or ".join(step.names)
        line += f" where {step.where}" if step.where else ""
        line += f" within {step.limit}" if step.limit else ""
        text += (" & " if step.peer else " | ") + line + (f", {step.time}" if step.time else "")
    return text[3:]


def random_line(draw: random.Random, n: int) -> str:
    at, parts = 0, []
    for _ in range(n):
        at += draw.choice([0, 0, 1, 1, 2, 5])
        words = [str(at), draw.choice("AABBCCXY")]
        if draw.random() < 0.7:
            words.append(f"k={draw.choice('xy')}")
        if draw.random() < 0.7:
            words.append(f"v={draw.randint(0, 2)}")
        if draw.random() < 0.8:
            words.append(f"due={max(at + draw.randint(-2, 9), 0)}")
        words.append(f"from={draw.choice('pq')}")
        parts.append(" ".join(words))
    return ", ".join(parts)


REPEATS = ["every time", "every time", "once per a.k", "once per a.v", "once per 4 seconds"]


MATCHES = ["first_per_start", "first_per_start", "one_open", "all"]


def random_wide(draw: random.Random) -> str:
    """Steps with all that the language has; they may not parse."""
    n_names = iter("bcdefghijklmnop")

    def event(parts: bool = False) -> str:
        head = draw.choice(["", "", "", "maybe ", "next ", "any "]) if not parts else ""
        times = draw.choice(["", "", "2 times ", "1 to 3 times ", "at least 1 times ", "2 times in a row "])
        names = " or ".join(draw.sample("ABCX", draw.randint(1, 2)))
        where = draw.choice(WHERES)
        name = next(n_names)
        if times and draw.random() < 0.2:
            where = f"v >= {name}.v or {name}.v is null"
        until = draw.choice(["", "", " until X", " until Y where v >= 1"]) if times else ""
        limit = draw.choice(["", "", "", " within 3 seconds of a"])
        return f"{name}: {head}{times}{names}{f' where {where}' if where else ''}{until}{limit}"

    def silence(part: bool = False) -> str:
        time = f"for {draw.choice(['', '', 'any '])}{draw.choice([1, 2, 4])} second"
        if not part:
            time = draw.choice(["", time, time, f"{time} after a", "by a.due"])
        names = " or ".join(draw.sample("BCXY", draw.randint(1, 2)))
        return f"no {next(n_names)}: {names}{f', {time}' if time else ''}"

    def stage() -> str:
        kind = draw.random()
        if kind < 0.2:
            return f"any({' & '.join([event(True), *(silence(True) for _ in range(draw.randint(1, 2)))])})"
        if kind < 0.3:
            return f"any({event(True)} & {event(True)})"
        if kind < 0.4:
            return f"{event(True)} & {silence(True)}"
        return event()

    entries = [draw.choice(["a: A", "a: A or B", "a: 2 times A", "a: 1 to 2 times A where v >= 1"])]
    for _ in range(draw.randint(1, 3)):
        entries += [silence() for _ in range(draw.choice([0, 0, 1]))]
        entries.append(stage())
        if draw.random() < 0.3 and not any(each.startswith("again") for each in entries):
            entries.append(f"again[{draw.choice([stage, lambda: silence(True)])()}]")
    entries += [silence() for _ in range(draw.choice([0, 1]))]
    return " | ".join(entries)


def random_pattern(draw: random.Random) -> tuple[str, Pattern]:
    """A pattern of the plain kind or of the wide one, and its text."""
    while True:
        steps = written(random_steps(draw)) if draw.random() < 0.4 else random_wide(draw)
        try:
            return steps, pattern_of(steps, "8 seconds", draw.choice(REPEATS), match=draw.choice(MATCHES))
        except AssertionError:
            continue  # one that the check refuses


@settings(max_examples=2000, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(0, 6), st.integers(1, 14))
def test_any_split_gives_the_same(seed: int, open_max: int, lateness_s: int, n_batches: int) -> None:
    draw = random.Random(seed)
    _, pattern = random_pattern(draw)
    stream = sorted(events_of(random_line(draw, draw.randint(1, 40))), key=lambda each: each.order_key)
    advance_to = stream[-1].occurred_at + draw.choice([0, 3, 9, 30, 99]) * SECOND
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matcher, "OPEN_MAX", open_max)  # so that the bound matters often
        whole, expected = matcher.step(pattern, Run(), stream, advance_to, lateness_s)
        cuts = sorted(draw.randint(0, len(stream)) for _ in range(n_batches))
        run, matches = Run(), []
        for start, end in pairwise([0, *cuts, len(stream)]):
            # Time may run ahead between batches, as long as no later event was settled already.
            ahead = stream[end].occurred_at + lateness_s * SECOND - 1 if end < len(stream) else advance_to
            run = msgspec.msgpack.decode(msgspec.msgpack.encode(run), type=Run)
            run, found = matcher.step(pattern, run, stream[start:end], min(ahead, advance_to), lateness_s)
            matches += found
        # And moved in place, event by event, with time only at the end.
        plain, in_place = Run(), []
        for each in stream:
            in_place += matcher.observe(pattern, plain, each, {})
        in_place += matcher.settle(pattern, plain, advance_to - lateness_s * SECOND)
    assert matches == expected == in_place
    assert len({(each.start_id, each.way) for each in matches}) == len(matches), "each has its identity"
    encode = msgspec.msgpack.encode
    assert encode(run) == encode(whole) == encode(plain)


# -- the definition, written a second time without looking at the first --------------------------------

Value = dict[str, Any]


def truth(where: str, event: Value, a: list[Value]) -> bool:
    """Whether a condition is true of an event, with the events that the step a has by then."""
    k, v = event.get("k"), event.get("v")
    last: Value = a[-1] if a else {}
    return {
        "": True,
        "v >= 1": v is not None and v >= 1,
        "v = 2": v == 2,
        "k = a.k": k is not None and k == last.get("k"),
        "k <> a.k": None not in (k, last.get("k")) and k != last.get("k"),
        "v = a.v or k is null": (v is not None and v == last.get("v")) or k is None,
        "v = a.n": v is not None and v == len(a),
        "k = a.first.k": k is not None and bool(a) and k == a[0].get("k"),
    }[where]


def defined(steps: list[Step], events: list[Value], repeat: str) -> list[str]:
    """For each start what it becomes, and what of it is no repetition."""
    found = []
    for number in range(len(events)):
        occurrence = from_start(steps, events, number)
        if occurrence is not None:
            at, places = occurrence
            found.append((at, number, places))
    found.sort(key=lambda each: each[:2])
    fired: list[str] = []
    kept: list[Any] = []
    for (at, _), _, places in found:
        key = events[places["a"][-1]].get(repeat[-1]) if "." in repeat else None
        if key is not None and key in kept:
            continue
        if repeat.endswith("seconds") and any(at - before < 4 for before in kept):
            continue
        kept.append(at if repeat.endswith("seconds") else key)
        names = [step.name for step in steps if not step.absent]
        fired.append(f"{at}: " + " ".join(f"{n}{events[places[n][-1]]['at']}" for n in names))
    return fired


def from_start(
    steps: list[Step], events: list[Value], number: int
) -> tuple[tuple[int, int], dict[str, list[int]]] | None:
    """The places of the events of each step, for one start: first the events, then every absence."""
    places: dict[str, list[int]] = {step.name: [] for step in steps if not step.absent}
    if not any(events[number]["name"] in step.names for step in steps if not step.absent):
        return None
    entries: list[list[Step]] = []
    for step in steps:
        if step.absent:
            continue
        if step.peer:
            entries[-1].append(step)
        else:
            entries.append([step])
    fulfilled: dict[str, int] = {}  # step -> the place of the event that did it
    passed: list[int] = []  # for each entry, the place of the event that fulfilled the last of it
    had: dict[int, list[Value]] = {}  # what the step a had before each event
    listened = {name for step in steps for name in step.names}

    def in_time(step: Step, at: int) -> bool:
        if not step.limit:
            return True
        names = [each.name for each in steps if not each.absent]
        if step.limit.endswith(f"of {step.name}"):
            mine = places[step.name]
            return not mine or bool(at <= events[mine[0]]["at"] + int(step.limit.split()[0]))
        origin = "a" if step.limit.endswith("a") else names[names.index(step.name) - 1]
        return bool(at <= events[places[origin][-1]]["at"] + int(step.limit.split()[0]))

    def end_of(step: Step) -> int | None:
        """The deadline of an absence; `None` if there is none."""
        if step.time.startswith("by"):
            due: int | None = events[fulfilled["a"]].get("due")
            return due
        return events[anchor_of(step)]["at"] + int(step.time.split()[1])

    def anchor_of(step: Step) -> int:
        if step.time.endswith("after a") or step.time.startswith("by"):
            return fulfilled["a"]
        return passed[entry_before(step)]

    def entry_before(step: Step) -> int:
        before = [each for each in steps[: steps.index(step)] if not each.absent and not each.peer]
        return len(before) - 1

    def silences(n_entries: int) -> list[Step]:
        return [
            each for each in steps if each.absent and each.name != "z" and entry_before(each) == n_entries - 1
        ]

    for place in range(number, len(events)):
        event = events[place]
        if len(passed) == len(entries) or event["at"] > events[number]["at"] + 8:
            break
        had[place] = a = [events[each] for each in places["a"]]
        ends = [end_of(each) for each in silences(len(passed)) if each.time] if passed else []
        if None in ends or event["name"] not in listened:
            continue
        fits = [
            step
            for step in entries[len(passed)]
            if step.name not in fulfilled
            and event["name"] in step.names
            and truth(step.where, event, a)
            and all(event["at"] > end for end in ends if end is not None)
            and in_time(step, event["at"])
        ]
        more = [
            step
            for step in (entries[len(passed) - 1] if passed else [])
            if not any(places[each.name] for each in entries[len(passed)])
            and len(places[step.name]) < step.most
            and step.most > step.least
            and event["name"] in step.names
            and truth(step.where, event, a)
            and in_time(step, event["at"])
        ]
        is_over = all(event["at"] > end for end in ends if end is not None)
        strict = is_over and any(step.strict for step in entries[len(passed)] if step.name not in fulfilled)
        if not fits and not more and (place == number or strict):
            return None
        for step in (fits or more)[:1]:
            places[step.name].append(place)
            if fits and len(places[step.name]) == step.least:
                fulfilled[step.name] = place
        if all(step.name in fulfilled for step in entries[len(passed)]):
            passed.append(place)
    if len(passed) < len(entries):
        return None
    final = [events[each] for each in places["a"]]
    for step in steps:
        if not step.absent:
            continue
        if step.name == "z":
            since = events[number]["at"] - int(step.time.split()[1])
            first, last = 0, number - 1
        else:
            since, end = 0, end_of(step) if step.time else None
            if step.time and end is None:
                return None
            first = anchor_of(step) + 1
            last = len(events) - 1 if step.time else passed[entry_before(step) + 1]
        for place in range(first, last + 1):
            event = events[place]
            inside = event["at"] >= since and (step.name == "z" or end is None or event["at"] <= end)
            if inside and event["name"] in step.names and truth(step.where, event, had.get(place, final)):
                return None
    ends = [end_of(each) for each in silences(len(entries)) if each.time]
    at = max([events[passed[-1]]["at"], *(end for end in ends if end is not None)])
    return (at, 0 if ends else passed[-1]), places


def test_the_definition_agrees() -> None:
    """And what the check refuses, as it could never fire, never does."""
    n_fired = n_refused = 0
    for seed in range(4000):
        draw = random.Random(seed)
        steps, repeat = random_steps(draw), draw.choice(REPEATS)
        line = random_line(draw, draw.randint(1, 16))
        seens = sorted(events_of(line), key=lambda each: each.order_key)
        events = [
            {"at": s.occurred_at // SECOND, "name": s.name, "n": n, **read(s)} for n, s in enumerate(seens)
        ]
        expected = defined(steps, events, repeat)
        try:
            pattern = pattern_of(written(steps), "8 seconds", repeat)
        except AssertionError:
            n_refused += 1
            assert expected == [], f"seed {seed}: {written(steps)} can fire, and is refused; {line}"
            continue
        got = fires(pattern, line)
        assert got == expected, f"seed {seed}: {written(steps)}; {repeat}; {line}"
        n_fired += len(expected)
    assert n_fired > 2000 and n_refused > 20, "too few cases fire, or are refused, to mean anything"


class Way(NamedTuple):
    """One step of `match: all`: `link` before its first event, `between` between them."""

    name: str
    names: list[str]
    where: str
    least: int
    most: int
    maybe: bool
    link: str
    between: str
    absent: list[str]  # what must not stand before it, from the event before on


def random_ways(draw: random.Random) -> list[Way]:
    ways = []
    for number in range(draw.randint(1, 3)):
        least = draw.choice([1, 1, 1, 2])
        ways.append(
            Way(
                "abc"[number],
                draw.sample("ABC", draw.randint(1, 2)),
                draw.choice(["", "", "v >= 1"] if not number else ["", "", "v >= 1", "k = a.k"]),
                least,
                least + draw.choice([0, 0, 1, 2]),
                number > 0 and draw.random() < 0.3,
                draw.choice(["", "", "any ", "next "]) if number else "",
                draw.choice(["", "any ", "in a row "]),
                draw.sample("XY", 1) if number and not ways[-1].maybe and draw.random() < 0.3 else [],
            )
        )
    return ways


def said(ways: list[Way]) -> str:
    entries = []
    for way in ways:
        if way.absent:
            entries.append(f"no n{way.name}: {' or '.join(way.absent)}")
        times = ""
        if way.most > 1:
            times = f"{way.least} times " if way.least == way.most else f"{way.least} to {way.most} times "
            times += way.between
        where = f" where {way.where}" if way.where else ""
        maybe = "maybe " if way.maybe else ""
        entries.append(f"{way.name}: {maybe}{way.link}{times}{' or '.join(way.names)}{where}")
    return " | ".join(entries)


def every_way(ways: list[Way], events: list[Value]) -> list[str]:
    """Every choice of events, one after the other, that the words of the steps allow."""
    listened = {name for way in ways for name in (*way.names, *way.absent)}
    found: list[str] = []

    def fit(way: Way, place: int, a: list[int]) -> bool:
        event = events[place]
        return event["name"] in way.names and truth(way.where, event, [events[each] for each in a])

    def reach(way: Way, link: str, last: int, a: list[int]) -> list[int]:
        """The places that may be bound next, after the place `last`."""
        later = [n for n in range(last + 1, len(events)) if events[n]["name"] in listened]
        if link in ("next ", "in a row "):
            later = later[:1]
        fitting = [n for n in later if fit(way, n, a)]
        return fitting if link == "any " else fitting[:1]

    def unbroken(since: int, until: int, absent: list[str]) -> bool:
        return not any(events[n]["name"] in absent for n in range(since + 1, until + 1))

    def go(number: int, places: list[list[int]], absent: list[str], since: int) -> None:
        if number == len(ways):
            last = max(each[-1] for each in places if each)
            names = " ".join(
                f"{way.name}{events[each[-1]]['at']}" for way, each in zip(ways, places, strict=True) if each
            )
            found.append(f"{events[last]['at']}: {names} {places}")
            return
        way = ways[number]
        if way.maybe:
            go(number + 1, [*places, []], absent + way.absent, since)
        last = max((each[-1] for each in places if each), default=-1)
        more(number, places, [], last, absent + way.absent, since)

    def more(
        number: int, places: list[list[int]], mine: list[int], last: int, absent: list[str], since: int
    ) -> None:
        """`absent` is what must not come after the event that fulfilled the step before, at `since`."""
        way = ways[number]
        if len(mine) >= way.least:
            go(number + 1, [*places, mine], [], mine[way.least - 1])
        if len(mine) == way.most:
            return
        a = mine if number == 0 else places[0]
        if not mine and number == 0:
            starts = range(len(events))
            candidates = [n for n in starts if fit(way, n, [])]
        else:
            candidates = reach(way, way.between if mine else way.link, last, a)
        for place in candidates:
            first = mine[0] if mine else place
            start = places[0][0] if places else first
            if events[place]["at"] <= events[start]["at"] + 8 and unbroken(since, place, absent):
                enough = len(mine) + 1 >= way.least  # an absence holds until the step is fulfilled
                after = ways[number + 1].absent if number + 1 < len(ways) and len(mine) >= way.least else []
                if unbroken(mine[way.least - 1] if after else place, place, after):
                    more(number, places, [*mine, place], place, [] if enough else absent, since)

    go(0, [], [], -1)
    return sorted(found)


def test_every_way_is_every_choice_of_events() -> None:
    """`match: all`, written a second time as the choices that the words allow, without states."""
    n_fired = n_several = 0
    for seed in range(3000):
        draw = random.Random(seed)
        ways = random_ways(draw)
        if all(way.maybe for way in ways[1:]) and ways[0].least > 1 and ways[0].between == "in a row ":
            continue
        line = random_line(draw, draw.randint(1, 10))
        seens = sorted(events_of(line), key=lambda each: each.order_key)
        events = [{"at": s.occurred_at // SECOND, "name": s.name, **read(s)} for s in seens]
        ids = {each.event_id: n for n, each in enumerate(seens)}
        pattern = pattern_of(said(ways), "8 seconds", match="all")
        matches = matcher.step(pattern, Run(), seens, 10**9, 0)[1]
        got = []
        for match, shown_so in zip(matches, shown(matches), strict=True):
            places = [[ids[each.event_id] for each in b.all] if b.step else [] for b in match.bound]
            got.append(f"{shown_so} {places}")
        expected = every_way(ways, events)
        assert sorted(got) == expected, f"seed {seed}: {said(ways)}; {line}"
        assert len({match.way for match in matches}) == len(set(got))
        n_fired += len(got)
        n_several += len(got) > len({match.start_id for match in matches})
    assert n_fired > 3000 and n_several > 300, "too few cases fire to mean anything"


def test_the_first_way_is_one_of_all() -> None:
    """What a start gives when one way is followed is among what it gives when every way is."""
    n_found = n_more = 0
    for seed in range(3000):
        draw = random.Random(seed)
        steps = random_wide(draw)
        try:
            first, every = (
                matcher.step(pattern_of(steps, "8 seconds", match=match), Run(), events_of(line), 10**9, 0)[1]
                for line in [random_line(draw, draw.randint(1, 16))]
                for match in ("first_per_start", "all")
            )
        except AssertionError:
            continue
        ways = {
            (each.occurred_at, tuple(b.event_id for bound in each.bound for b in bound.all)) for each in every
        }
        for match in first:
            bound = tuple(b.event_id for bound in match.bound for b in bound.all)
            assert (match.occurred_at, bound) in ways, f"seed {seed}: {steps}"
        n_found += len(first)
        n_more += len(every) > len(first)
    assert n_found > 300 and n_more > 10


def test_one_try_at_a_time_is_a_choice_of_all() -> None:
    """What one try at a time gives is what those starts give by themselves, and no two overlap."""
    n_fewer = 0
    for seed in range(1000):
        draw = random.Random(seed)
        steps, line = written(random_steps(draw)), random_line(draw, draw.randint(1, 16))
        try:
            patterns = [
                pattern_of(steps, "8 seconds", match=each) for each in ("first_per_start", "one_open")
            ]
        except AssertionError:
            continue  # it could never fire
        every, one = (matcher.step(each, Run(), events_of(line), 10**9, 0)[1] for each in patterns)
        assert all(match in every for match in one), f"seed {seed}: {steps}; {line}"
        n_fewer += len(every) > len(one)
        first_at = [min(each.first.occurred_at for each in match.bound) for match in one]
        ends = [match.occurred_at for match in one]
        assert all(end <= start for end, start in zip(ends, first_at[1:], strict=False)), f"seed {seed}"
    assert n_fewer > 100


def read(each: Seen) -> Value:
    values: Value = msgspec.json.decode(each.fields.event.properties)
    if isinstance(due := values.get("due"), str):
        hours, minutes, seconds = due[11:19].split(":")
        values["due"] = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    return values
