"""The matcher over random patterns and streams: any split is equal, and the definition agrees.

The definition is written here a second time, for each start by itself, without looking at the first.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import events_of, fires, pattern_of

from hetki.patterns import matcher
from hetki.patterns.run import Run, Seen
from hetki.settings import SECOND

#: A step as (name, is absent, events, where, time).
Step = tuple[str, bool, list[str], str, str]
WHERES = ["", "", "", "v >= 1", "k = a.k", "k <> a.k", "v = a.v or k is null"]
TIMES = ["for 1 second", "for 3 seconds", "for 6 seconds", "for 2 seconds after a", "by a.due"]


def random_steps(draw: random.Random) -> list[Step]:
    """Steps as (name, is absent, events, where, time), such that they parse."""
    n_events = draw.randint(1, 3)
    steps: list[Step] = []
    for number in range(n_events):
        if number:
            for each in range(draw.choice([0, 0, 1, 1, 2])):
                time = draw.choice(["", *TIMES])
                names = draw.sample("BCXY", draw.randint(1, 2))
                # A bare absence of B before a step B never matches, so it has a where.
                steps.append((f"m{number}{each}", True, names, draw.choice(WHERES) or "v = 2", time))
        where = draw.choice(WHERES) if number else draw.choice(["", "v >= 1"])
        steps.append(("abc"[number], False, draw.sample("ABC", draw.randint(1, 2)), where, ""))
    for each in range(draw.choice([0, 1, 1, 2])):
        steps.append((f"e{each}", True, draw.sample("ABCXY", 1), draw.choice(WHERES), draw.choice(TIMES)))
    return steps


def written(steps: list[Step]) -> str:
    lines = []
    for name, absent, names, where, time in steps:
        line = f"{'no ' if absent else ''}{name}: {' or '.join(names)}"
        lines.append(line + (f" where {where}" if where else "") + (f", {time}" if time else ""))
    return " | ".join(lines)


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


@settings(max_examples=1000, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(0, 6), st.integers(1, 14))
def test_any_split_gives_the_same(seed: int, open_max: int, lateness_s: int, n_batches: int) -> None:
    draw = random.Random(seed)
    pattern = pattern_of(written(random_steps(draw)), "8 seconds", draw.choice(REPEATS))
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
    encode = msgspec.msgpack.encode
    assert encode(run) == encode(whole) == encode(plain)


# -- the definition, written a second time without looking at the first --------------------------------

Value = dict[str, Any]


def truth(where: str, event: Value, start: Value) -> bool:
    k, v = event.get("k"), event.get("v")
    return {
        "": True,
        "v >= 1": v is not None and v >= 1,
        "v = 2": v == 2,
        "k = a.k": k is not None and k == start.get("k"),
        "k <> a.k": None not in (k, start.get("k")) and k != start.get("k"),
        "v = a.v or k is null": (v is not None and v == start.get("v")) or k is None,
    }[where]


def defined(steps: list[Step], events: list[Value], repeat: str) -> list[str]:
    """For each start: the first later events that fit; then whether every absence held over its interval."""
    found = []
    for number, start in enumerate(events):
        occurrence = from_start(steps, events, number)
        if occurrence is not None:
            at, places = occurrence
            found.append((at, number, start, places))
    found.sort(key=lambda each: each[:2])
    fired: list[str] = []
    kept: list[Any] = []
    for at, _, start, places in found:
        key = start.get(repeat[-1]) if "." in repeat else None
        if key is not None and key in kept:
            continue
        if repeat.endswith("seconds") and any(at - before < 4 for before in kept):
            continue
        kept.append(at if repeat.endswith("seconds") else key)
        names = [step[0] for step in steps if not step[1]]
        fired.append(
            f"{at}: " + " ".join(f"{n}{events[p]['at']}" for n, p in zip(names, places, strict=True))
        )
    return fired


def from_start(steps: list[Step], events: list[Value], number: int) -> tuple[int, list[int]] | None:
    start, places, ends = events[number], [number], []
    intervals: list[tuple[int, int | None, int, list[str], str]] = []
    for name, absent, names, where, time in steps:
        if absent:
            anchor = (
                events[number] if time.endswith("after a") or time.startswith("by") else events[places[-1]]
            )
            if time.startswith("by"):
                end = anchor.get("due")
                if end is None:
                    return None
            else:
                end = anchor["at"] + int(time.split()[1]) if time else None
            ends += [] if end is None else [end]
            intervals.append((events.index(anchor), end, len(places), names, where))
        elif name == "a":
            if start["name"] not in names or not truth(where, start, start):
                return None
        else:
            later = [
                place
                for place in range(places[-1] + 1, len(events))
                if events[place]["name"] in names
                and truth(where, events[place], start)
                and all(events[place]["at"] > end for end in ends)
            ]
            if not later or events[later[0]]["at"] - start["at"] > 8:
                return None
            places.append(later[0])
            ends = []
    for first, end, follows, names, where in intervals:
        for place in range(first + 1, len(events)):
            inside = place <= places[follows] if end is None else events[place]["at"] <= end
            if inside and events[place]["name"] in names and truth(where, events[place], start):
                return None
    return max([events[places[-1]]["at"], *ends]), places


def test_the_definition_agrees() -> None:
    n_fired = 0
    for seed in range(4000):
        draw = random.Random(seed)
        steps, repeat = random_steps(draw), draw.choice(REPEATS)
        line = random_line(draw, draw.randint(1, 16))
        seens = sorted(events_of(line), key=lambda each: each.order_key)
        events = [
            {"at": s.occurred_at // SECOND, "name": s.name, "n": n, **read(s)} for n, s in enumerate(seens)
        ]
        expected = defined(steps, events, repeat)
        got = fires(pattern_of(written(steps), "8 seconds", repeat), line)
        assert got == expected, f"seed {seed}: {written(steps)}; {repeat}; {line}"
        n_fired += len(expected)
    assert n_fired > 2000, "too few cases fire to mean anything"


def read(each: Seen) -> Value:
    values: Value = msgspec.json.decode(each.fields.event.properties)
    if isinstance(due := values.get("due"), str):
        hours, minutes, seconds = due[11:19].split(":")
        values["due"] = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
    return values
