"""Aggregates: what they count, which faults they name; an oracle and DuckDB agree; any split is equal."""

from __future__ import annotations

import random

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import CATALOGUE, events_of

from hetki.patterns import matcher
from hetki.patterns.aggregates import VALUES_MAX, Aggregate, figure, open_to, parse_aggregates, remember, said
from hetki.patterns.run import Run, Seen, copied, packed
from hetki.settings import SECOND

GIVEN = {
    "n": "count of A over 5 seconds",
    "n_big": "count of A or B where v >= 2, over 9 seconds",
    "total": "sum v of A over 6 seconds",
    "usual": "mean v of A or B over 10 seconds",
    "kinds": "distinct k of A or C where v is null or v < 4 or B, over 7 seconds",
    "mood": "last k of A or B",
    "recent": "last v of B over 4 seconds",
}


def aggregates_of(given: dict[str, str]) -> list[Aggregate]:
    found, faults = parse_aggregates(given, CATALOGUE, lambda *keys, offset=0: f"{keys}+{offset}")
    assert not faults, "\n".join(map(str, faults))
    return [each for each in found.values() if each is not None]


def followed(aggregates: list[Aggregate], run: Run, events: list[Seen]) -> list[list[object]]:
    """The figures at each event, which then counts itself."""
    told = []
    for each in events:
        windows = run.windows or [None] * len(aggregates)
        told.append(
            [figure(one, window, each.occurred_at) for one, window in zip(aggregates, windows, strict=True)]
        )
        remember(aggregates, run, each, {})
    return told


def random_stream(draw: random.Random, n_max: int = 40) -> list[Seen]:
    """Events with missing and mistyped values, several at one instant."""
    parts, at = [], 0
    for _ in range(draw.randint(1, n_max)):
        at += draw.choice([0, 0, 1, 1, 2, 5])
        k = draw.choice(["", "", " k=x", " k=y", " k=z"])
        v = draw.choice(["", *(f" v={value}" for value in (0, 1, 2.5, 3, 4.25, -2))])
        parts.append(f"{at} {draw.choice('ABCX')}{k}{v}")
    return events_of(", ".join(parts))


def truth(events: list[Seen], n: int) -> list[object]:
    """The same figures, written a second time: for one event, over all events before it in order."""
    at = events[n].occurred_at // SECOND

    def before(names: str, window: int | None) -> list[Seen]:
        return [
            each
            for each in events[:n]
            if each.name in names and (window is None or each.occurred_at // SECOND >= at - window)
        ]

    def values(found: list[Seen], name: str) -> list[object]:
        read = [each.fields.get(name) for each in found]
        return [each for each in read if each is not None]

    big = [each for each in before("AB", 9) if (each.fields.get("v") or 0) >= 2]  # type: ignore[operator]
    small = [
        each
        for each in before("AC", 7)
        if each.fields.get("v") is None or each.fields.get("v") < 4  # type: ignore[operator]
    ]
    of_a, of_both = values(before("A", 6), "v"), values(before("AB", 10), "v")
    moods, recent = values(before("AB", None), "k"), values(before("B", 4), "v")
    return [
        len(before("A", 5)),
        len(big),
        sum(of_a) if of_a else None,  # type: ignore[call-overload]
        sum(of_both) / len(of_both) if of_both else None,  # type: ignore[call-overload]
        len(set(values(small, "k")) | set(values(before("B", 7), "k"))),
        moods[-1] if moods else None,
        recent[-1] if recent else None,
    ]


def test_the_oracle_agrees() -> None:
    for seed in range(400):
        events = random_stream(random.Random(seed))
        told = followed(aggregates_of(GIVEN), Run(), events)
        assert told == [truth(events, n) for n in range(len(events))], f"seed {seed}"


#: The figures of GIVEN in SQL: for each event over the events before it.
SQL = """
SELECT
  (SELECT count(*) FROM told p WHERE p.n < e.n AND p.name = 'A' AND p.told_at >= e.told_at - 5),
  (SELECT count(*) FROM told p
   WHERE p.n < e.n AND p.name IN ('A', 'B') AND v >= 2 AND p.told_at >= e.told_at - 9),
  (SELECT sum(v) FROM told p WHERE p.n < e.n AND p.name = 'A' AND p.told_at >= e.told_at - 6),
  (SELECT avg(v) FROM told p WHERE p.n < e.n AND p.name IN ('A', 'B') AND p.told_at >= e.told_at - 10),
  (SELECT count(DISTINCT k) FROM told p WHERE p.n < e.n AND p.told_at >= e.told_at - 7
     AND ((p.name IN ('A', 'C') AND (v IS NULL OR v < 4)) OR p.name = 'B')),
  (SELECT last(k ORDER BY p.n) FROM told p WHERE p.n < e.n AND p.name IN ('A', 'B') AND k IS NOT NULL),
  (SELECT last(v ORDER BY p.n) FROM told p
   WHERE p.n < e.n AND p.name = 'B' AND p.told_at >= e.told_at - 4 AND v IS NOT NULL)
FROM told e ORDER BY e.n
"""


def test_duckdb_agrees() -> None:
    draw, db = random.Random(7), duckdb.connect()
    events = random_stream(draw, 400)
    rows = [
        (n, each.occurred_at // SECOND, each.name, each.fields.get("k"), each.fields.get("v"))
        for n, each in enumerate(events)
    ]
    assert len(rows) > 100
    db.execute("CREATE TABLE told (n INTEGER, told_at INTEGER, name TEXT, k TEXT, v DOUBLE)")
    db.executemany("INSERT INTO told VALUES (?, ?, ?, ?, ?)", rows)
    expected = [list(row) for row in db.execute(SQL).fetchall()]
    assert followed(aggregates_of(GIVEN), Run(), events) == expected


@settings(max_examples=200)
@given(st.integers(0, 2**48))
def test_any_split_gives_equal_figures_and_equal_windows(seed: int) -> None:
    """Looked at or not, stored and read back or not, with a withdrawal somewhere."""
    draw = random.Random(seed)
    events, aggregates = random_stream(draw), aggregates_of(GIVEN)
    withdrawn = draw.randrange(len(events)) if draw.random() < 0.5 else -1
    whole, split = Run(), Run()
    told, again = [], []
    for n, each in enumerate(events):
        if n == withdrawn:
            matcher.withdraw(whole, each.occurred_at)
            matcher.withdraw(split, each.occurred_at)
        told += followed(aggregates, whole, [each])
        if draw.random() < 0.4:
            split = msgspec.msgpack.decode(msgspec.msgpack.encode(packed(split) or Run()), type=Run)
        if draw.random() < 0.4:
            for one, window in zip(aggregates, split.windows, strict=False):
                figure(one, window, each.occurred_at + draw.randrange(100) * SECOND)
        again += followed(aggregates, copied(split), [each])
        split = copied(split)
        remember(aggregates, split, each, {})
    assert told == again and whole == split
    assert msgspec.msgpack.encode(whole) == msgspec.msgpack.encode(split)


def test_a_withdrawal_forgets_and_what_comes_after_counts() -> None:
    (aggregate,) = aggregates_of({"n": "count of A over 1 hour"})
    run, events = Run(), events_of("0 A, 1 A, 2 A, 3 A")
    assert followed([aggregate], run, events[:2]) == [[0], [1]]
    matcher.withdraw(run, 2 * SECOND)
    assert packed(run) is None
    assert followed([aggregate], run, events[2:]) == [[0], [1]]


def test_the_window_includes_its_end_and_not_the_event_itself() -> None:
    (aggregate,) = aggregates_of({"n": "count of A over 10 seconds"})
    assert followed([aggregate], Run(), events_of("0 A, 10 A, 11 A, 11 A, 22 A")) == [[0], [1], [1], [2], [0]]


def test_the_window_is_bounded_and_what_gives_way_is_counted() -> None:
    aggregates = aggregates_of(
        {"n": "count of A over 1 day", "k": "distinct v of A over 1 day", "m": "last v of A"}
    )
    run = Run()
    events = events_of(", ".join(f"{n} A v={n}" for n in range(VALUES_MAX + 3)))
    assert followed(aggregates, run, events)[-1] == [VALUES_MAX, VALUES_MAX, float(VALUES_MAX + 1)]
    assert [len(each.times) for each in run.windows] == [VALUES_MAX, VALUES_MAX, 1]
    assert [each.n_dropped for each in run.windows] == [3, 3, 0]
    later = events_of(f"{10**6} A v=1")
    remember(aggregates, run, later[0], {})
    assert [len(each.times) for each in run.windows] == [1, 1, 1]
    assert [each.n_dropped for each in run.windows] == [3, 3, 0], "what is too old is no loss"


def test_values_beyond_every_whole_number_are_told_apart() -> None:
    aggregates = aggregates_of({"k": "distinct v of A over 1 day"})
    told = followed(aggregates, Run(), events_of("0 A v=1e300, 1 A v=1e300, 2 A v=2e300, 3 A"))
    assert told == [[0], [1], [1], [2]]


def test_what_a_figure_rests_on_is_open_to_what_all_of_it_was() -> None:
    aggregates = aggregates_of({"n": "count of A over 10 seconds", "k": "last k of B"})
    run = Run()
    assert open_to(aggregates, run.windows, 0) == -1
    for each, purposes in zip(events_of("0 A, 5 A, 6 B k=x, 7 B"), (0b111, 0b011, 0b110, 0b000), strict=True):
        remember(aggregates, run, msgspec.structs.replace(each, purposes=purposes), {})
    assert open_to(aggregates, run.windows, 10 * SECOND) == 0b010, "the last B has no k, so it counts nowhere"
    assert open_to(aggregates, run.windows, 15 * SECOND) == 0b010
    assert open_to(aggregates, run.windows, 16 * SECOND) == 0b110


def test_sums_do_not_depend_on_the_order_of_adding() -> None:
    (total, mean) = aggregates_of({"t": "sum v of A over 1 day", "m": "mean v of A over 1 day"})
    values = [1e16, 1.0, -1e16, 0.1, 0.2, 0.3] * 3
    told = set()
    for seed in range(20):
        random.Random(seed).shuffle(values)
        run = Run()
        for each in events_of(", ".join(f"{n} A v={value!r}" for n, value in enumerate(values))):
            remember([total, mean], run, each, {})
        told.add((figure(total, run.windows[0], 0), figure(mean, run.windows[1], 0)))
    assert len(told) == 1
    run = Run()
    for each in events_of("0 A v=1e308, 1 A v=1e308"):
        remember([total], run, each, {})
    assert figure(total, run.windows[0], 0) is None, "a sum that is no number is null"


#: The text, and how its one fault begins.
FAULTS = """
count A over 3 days -> +0: got 'count A over 3 days', must be such as: count of Help Searched over
median v of A over 1 day -> +0: got 'median v of A over 1 day', must be such as: count of
count of A -> +9: got no time, must be over and a duration, as in: over 3 days.
count of A over a while -> +16: got 'a while', must be a duration such as '10 minutes'
count of A over 0 days -> +16: got '0 days', must be longer than nothing.
count of D over 1 day -> +9: got 'D', must be an event of the catalogue. Hint: known are 'A'
sum k of A over 1 day -> +4: got 'k', which is a text, must be a number to take the sum of.
mean vv of A over 1 day -> +5: got 'vv', must be a field of A. Hint: did you mean 'v'.
last v of A or D -> +15: got 'D', must be an event of the catalogue.
count of A where z = 1, over 1 day -> +17: got 'z', must be a field of A.
count of A where aggregate.n > 1 over 1 day -> +17: got 'aggregate.n', must be another name, as no
count of A within 1 day over 2 days -> +10: got 'within 1 day', must be the end, or over
"""


@pytest.mark.parametrize("line", FAULTS.strip().splitlines())
def test_faults(line: str) -> None:
    text, _, expected = line.partition(" -> ")
    found, faults = parse_aggregates({"n": text}, CATALOGUE, lambda *keys, offset=0: f"+{offset}")
    assert found == {"n": None}
    (fault,) = map(str, faults)
    assert fault.startswith(expected)


def test_too_many_and_badly_named_ones_are_refused() -> None:
    given = {f"n{n}": "count of A over 1 day" for n in range(9)} | {"N": "count of A over 1 day"}
    _, faults = parse_aggregates(given, CATALOGUE, lambda *keys, offset=0: f"{keys}+{offset}")
    assert [each.got for each in faults] == ["10 aggregates", "'N'"]


def test_aggregates_are_said_in_words() -> None:
    assert [said(each) for each in aggregates_of(GIVEN)] == [
        "the number of A over 5 seconds",
        "the number of A or B (where v is at least 2) over 9 seconds",
        "the sum of v of A over 6 seconds",
        "the mean v of A or B over 10 seconds",
        "the number of different values of k of A or C (where v is missing or v is less than 4) or B"
        " over 7 seconds",
        "the last k of A or B",
        "the last v of B over 4 seconds",
    ]
