"""The fast form of the matcher gives what the reference gives: any patterns, customers, splits and consent.

Conditions as columns and as programs are compared with `evaluate`, the automaton with `matcher`.
"""

from __future__ import annotations

import random
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import events_of, pattern_of
from test_matcher_random import random_line, random_pattern

from hetki.engine.reading import read_fields
from hetki.events.event import Event, EventId
from hetki.events.fields import Fields, json_object
from hetki.patterns import kernel, matcher
from hetki.patterns import tree as t
from hetki.patterns.automaton import refusal
from hetki.patterns.columnar import Texts, is_columnar, values
from hetki.patterns.evaluate import compiled as closure
from hetki.patterns.fast import FieldsFrame, Runs, fold, look, settle
from hetki.patterns.pools import R_DROPPED, Batch
from hetki.patterns.run import Match, Run, Seen
from hetki.patterns.sequence import Pattern
from hetki.patterns.tables import compiled
from hetki.settings import SECOND

Told = tuple[int, Seen, int]  # the customer, the event, the patterns that close with it


def batch_of(runs: Runs, told: list[Told], first_row: int, texts: Texts) -> Batch:
    """Events as the kernel reads them."""
    automaton, n = runs.automaton, len(told)
    numbers = {name: np.zeros(n, np.int64) for name in ("name", "bits", "concerns", "opens")}
    columns = np.full((n, automaton.n_columns), np.nan)
    for name, number in automaton.names.items():
        places = [place for place, (_, seen, _) in enumerate(told) if seen.name == name]
        frame = FieldsFrame([told[place][1].fields for place in places], [{}] * len(places), texts)
        looked = look(automaton, name, frame)
        assert not frame.odd.any()
        numbers["name"][places], columns[places] = number, looked.columns
        for key in ("bits", "concerns", "opens"):
            numbers[key][places] = getattr(looked, key)
    at = np.array([seen.occurred_at for _, seen, _ in told], np.int64)
    return Batch(
        row=np.arange(first_row, first_row + n),
        customer=np.array([customer for customer, _, _ in told], np.int64),
        at=at,
        closed=np.array([closed for _, _, closed in told], np.int64),
        closed_at=at,
        columns=columns,
        **numbers,
    )


def by_reference(pattern: Pattern, told: list[tuple[Seen, bool]], until: int) -> tuple[Run, list[Match]]:
    """One customer's events; some of them withdraw consent first."""
    run, matches = Run(), list[Match]()
    for seen, closes in told:
        if closes:
            matcher.withdraw(run, seen.occurred_at)
        matches += matcher.settle(pattern, run, min(until, seen.occurred_at - 1))
        matches += matcher.observe(pattern, run, seen, {})
    return run, matches + matcher.settle(pattern, run, until)


def ids_of(match: Match) -> tuple[object, ...]:
    rows = tuple(tuple(number(each.event_id) for each in bound.all) for bound in match.bound)
    return match.occurred_at, match.deadline, number(match.start_id), rows


def number(event_id: EventId) -> int:
    return int.from_bytes(event_id, "big")


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(0, 6), st.integers(1, 9))
def test_any_split_gives_what_the_reference_gives(
    seed: int, open_max: int, lateness_s: int, n_batches: int
) -> None:
    draw = random.Random(seed)
    patterns = [each for _, each in (random_pattern(draw) for _ in range(6)) if not refusal(each)][:4]
    if not patterns:
        return
    stream = sorted(events_of(random_line(draw, draw.randint(1, 60))), key=lambda each: each.order_key)
    n_customers = draw.randint(1, 4)
    closing = draw.choice([0.0, 0.0, 0.1])
    told = [
        (draw.randrange(n_customers), seen, draw.getrandbits(len(patterns)) if draw.random() < closing else 0)
        for seen in stream
    ]
    rows = {number(seen.event_id): row for row, (_, seen, _) in enumerate(told)}
    until = stream[-1].occurred_at + (draw.choice([0, 3, 9, 30, 99]) - lateness_s) * SECOND
    runs, texts = Runs(compiled(patterns), n_customers, is_live=draw.random() < 0.5), Texts()
    found = []
    cuts = sorted(draw.randint(0, len(told)) for _ in range(n_batches))
    for start, end in pairwise([0, *cuts, len(told)]):
        ahead = stream[end].occurred_at - 1 if end < len(told) else until
        fold(runs.automaton, runs, batch_of(runs, told[start:end], start, texts), min(ahead, until), open_max)
        settle(runs.automaton, runs, min(ahead, until))
        found += runs.taken()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matcher, "OPEN_MAX", open_max)
        for place, pattern in enumerate(patterns):
            for customer in range(n_customers):
                mine = [(seen, bool(closed >> place & 1)) for one, seen, closed in told if one == customer]
                run, expected = by_reference(pattern, mine, until)
                got = [
                    (each.occurred_at, each.deadline, each.start_row, each.rows)
                    for each in found
                    if (each.pattern, each.customer) == (place, customer)
                ]
                assert got == [
                    (
                        at,
                        deadline,
                        rows[start],
                        tuple(tuple(rows[each] for each in bound) for bound in bounds),
                    )
                    for at, deadline, start, bounds in map(ids_of, expected)
                ]
                kept = runs.state.run_of[customer, place]
                assert run.n_dropped == (runs.state.runs[kept, R_DROPPED] if kept >= 0 else 0)


def test_what_is_kept_of_the_kernel_is_of_its_present_sources() -> None:
    """Machine code on disk is known by the text of kernel.py alone: so that text follows the other files."""
    files = [
        Path(kernel.__file__).with_name(f"{name}.py")
        for name in ("pools", "programs", "machine", "automaton")
    ]
    digest = blake2b(b"".join(each.read_bytes() for each in files), digest_size=8).hexdigest()
    assert digest == kernel.SOURCES, "write this digest into kernel.py"


def test_most_of_the_plain_language_is_taken_and_what_is_not_known_is_refused() -> None:
    taken = [
        "a: A | b: B where k = a.k | no x: X where v > a.v, for 10 seconds after b",
        "a: A & b: B | c: next C where occurred_at - a.occurred_at < 5",
        "a: 2 to 4 times A | no x: X, by a.due | b: B where v = a.n or k in (a.first.k, a.k)",
        "a: A | b: 1 to 3 times in a row B within 5 seconds of a | c: C where k = b.first.k",
        "no z: X where v between 1 and 2, for 1 day before a | a: A where lower(k) like 'x%'",
        "a: A | b: B where coalesce(k, 'y') <> lower(a.k) and not (v + a.v * 2 > 3) and due > a.due",
    ]
    assert [refusal(pattern_of(steps)) for steps in taken] == [""] * len(taken)
    refused = [
        "a: A | any(b: B & no x: X, for 1 day)",
        "a: A | b: maybe B | c: C",
        "a: A | b: B where k > a.k",
    ]
    assert all(refusal(pattern_of(steps)) for steps in refused)
    assert refusal(pattern_of("a: A | b: B", match="all"))

    class Wider(Pattern):
        """A pattern that has learned something new."""

    wider = Wider(**{name: getattr(pattern_of("a: A"), name) for name in Pattern.__slots__})
    assert refusal(wider)


# -- conditions -----------------------------------------------------------------------------------------

TEXTS = ["", "a", "B", "ab", "Ä", "%", "2026-03-01T12:00:00Z", "2026-03-01T14:00+02:00"]
SENT: list[object] = [
    None,
    *TEXTS,
    *[True, False, 0, 1, -1, 2, 0.5, 1.0, -2.5, 1e15, 1e300, 2**53, 2**53 + 1, 2**63, 2**70, -(2**64)],
    *[[1], {"a": 1}, []],
]
KINDS: list[t.Kind] = ["text", "number", "boolean", "time"]


def random_node(draw: random.Random, kind: t.Kind, depth: int) -> t.Node:
    """A tree of a type, as `types` would build it."""
    if depth == 0 or draw.random() < 0.2:
        name = draw.choice("pqr")
        leaf = draw.random()
        if leaf < 0.6:
            return t.Field(
                "occurred_at" if kind == "time" and draw.random() < 0.3 else f"{name}_{kind}", kind
            )
        if leaf < 0.7:
            return t.Trait(name)
        value: object = draw.choice(TEXTS[:6])
        if kind == "number":
            value = draw.choice([0, 1, -1, 0.5, 3, 1e6])
        elif kind == "boolean":
            value = draw.choice([True, False])
        elif kind == "time":
            value = draw.choice([0, 1_772_366_400_000_000])
        return t.Constant(value, kind)  # type: ignore[arg-type]
    below = depth - 1
    if kind == "text":
        return t.Call("lower", (random_node(draw, "text", below),), "text")
    if kind == "time":
        sides = random_node(draw, "time", below), random_node(draw, "number", below)
        return t.Arithmetic(draw.choice(["+", "-"]), *sides, "time")  # type: ignore[arg-type]
    if kind == "number":
        choice = draw.random()
        if choice < 0.2:
            return t.Call("length", (random_node(draw, "text", below),), "number")
        if choice < 0.4:
            return t.Call(draw.choice(["abs", "negative"]), (random_node(draw, "number", below),), "number")  # type: ignore[arg-type]
        if choice < 0.5:
            times = random_node(draw, "time", below), random_node(draw, "time", below)
            return t.Arithmetic("-", *times, "number")
        parts = random_node(draw, "number", below), random_node(draw, "number", below)
        if choice < 0.6:
            return t.Call("coalesce", parts, "number")
        return t.Arithmetic(draw.choice(["+", "-", "*", "/"]), *parts, "number")  # type: ignore[arg-type]
    return random_truth(draw, below)


def random_truth(draw: random.Random, below: int) -> t.Node:
    choice, kind = draw.random(), draw.choice(KINDS)
    if choice < 0.3:
        sides = random_node(draw, kind, below), random_node(draw, kind, below)
        return t.Compare(draw.choice(["=", "<>", "<", "<=", ">", ">="]), *sides)  # type: ignore[arg-type]
    if choice < 0.5:
        parts = tuple(random_node(draw, "boolean", below) for _ in range(draw.randint(2, 3)))
        return t.Logic(draw.choice(["and", "or"]), parts)  # type: ignore[arg-type]
    if choice < 0.6:
        return t.Not(random_node(draw, "boolean", below))
    if choice < 0.75:
        odd = t.Field("p_list", draw.choice(["list", "object"]))  # type: ignore[arg-type]
        return t.IsNull(draw.choice([random_node(draw, kind, below), odd, t.Trait("p")]))
    if choice < 0.9:
        among = tuple(random_node(draw, kind, 0) for _ in range(draw.randint(1, 3)))
        return t.OneOf(random_node(draw, kind, below), among)
    return t.Like(random_node(draw, "text", below), draw.choice(["%", "a%", "_", "%b", ""]))


@settings(max_examples=800, deadline=None)
@given(st.integers(0, 2**32))
def test_columns_say_what_the_reference_says(seed: int) -> None:
    draw = random.Random(seed)
    kind = draw.choice(KINDS)
    node = random_node(draw, kind, draw.randint(0, 4))
    if not is_columnar(node, kind):
        assert any(isinstance(each, t.Trait) for each in t.walk(node)), "only traits may be of no known type"
        return
    names = [f"{name}_{each}" for name in "pqr" for each in KINDS] + ["p_list"]
    fields, traits = [], []
    for row in range(12):
        sent = {name: draw.choice(SENT) for name in names if draw.random() < 0.9}
        fields.append(StubFields(sent, row * 3_600_000_000))
        known = [each for each in SENT if isinstance(each, (str, int, float, bool))]
        traits.append({name: draw.choice(known) for name in "pqr" if draw.random() < 0.8})
    texts = Texts()
    frame = FieldsFrame(fields, traits, texts)  # type: ignore[arg-type]
    with np.errstate(all="ignore"):
        got = np.broadcast_to(values(node, frame, kind), (12,))
    expected = closure(t.Not(t.Not(node)) if kind == "boolean" else node)
    for row in range(12):
        if frame.odd[row]:
            continue
        wanted = expected(fields[row], (), traits[row])  # type: ignore[arg-type]
        if isinstance(node, t.Trait):
            continue  # what it is taken as depends on what stands beside it
        known = None if np.isnan(got[row]) else got[row]
        if isinstance(wanted, str):
            wanted = texts.code(wanted)
        assert known == wanted, f"row {row} of {node}"


class StubFields:
    """Fields without a wire form, so that numbers beyond JSON's may be tried."""

    def __init__(self, sent: dict[str, object], at: int) -> None:
        self.sent, self.at = sent, at

    def get(self, name: str) -> object:
        return self.at if name == "occurred_at" else self.sent.get(name)


OBJECTS = [
    b'{"a":1,"b":"x","c":[{"a":2}]}',
    b'{"a":1,"a":2}',
    b'{"\\u0061":"\\u00e4 \\ud83d\\ude00"}',
    b'{"a":1,"z":1e999}',
    b'{"a":1,"z":[-1.5E+400]}',
    b'{"a":1,"z":"12e999"}',
    b'{"a":1,"z":' + b"9" * 5000 + b"}",
    b'{"a":' + b"9" * 30 + b',"b":1.50}',
    b'{ "a" : null , "b":\n true}',
    b"{}",
]
BROKEN = [b'{"a":1', b"[1]", b"", b'{"a":1}{"a":2}', b"{},{}", b'{"a":"\\ud800"}', b"nonsense", b"7"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(OBJECTS + BROKEN[:1]), max_size=12), st.booleans())
def test_many_objects_are_read_as_one_is(objects: list[bytes], tidy: bool) -> None:
    objects = [each for each in objects if not tidy or each in OBJECTS]
    read = read_fields(pa.array([each.decode() for each in objects], pa.string()), ["a", "b"])
    for name, column in zip("ab", read, strict=True):
        assert column == [json_object(each).get(name) for each in objects]


@pytest.mark.parametrize("broken", BROKEN)
def test_one_broken_object_is_its_own_harm(broken: bytes) -> None:
    texts = pa.array([b'{"a":1}'.decode(), broken.decode(), '{"a":3}'])
    assert read_fields(texts, ["a"]) == [[1, json_object(broken).get("a"), 3]]


def test_fields_of_events_are_columns_too() -> None:
    raw = msgspec.json.encode({"k": "x"})
    fields = [Fields(Event("web", "m", "shop", "A", 7, 7, {}, raw, b'{"device":{"type":"mobile"}}'))]
    texts = Texts()
    frame = FieldsFrame(fields, [{}], texts)
    is_mobile = t.Compare("=", t.Field("device", "text"), t.Constant("mobile", "text"))
    assert values(is_mobile, frame).tolist() == [1.0]
    assert frame.field("occurred_at", "time").tolist() == [7.0]
