"""The crucial property for the whole language: random moments in random company, however events arrive.

`test_fold_property` tells random stories to seven fixed moments; here the moments are random, too, with all
that steps can say, own aggregates, segments, consents, staffing and context. Live in random batches, with
late events, merges, unmerges and withdrawals, is one pass of history, byte for byte, and so is a rebuild and
a backtest over the lake.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import entries_of
from test_backtest import backtested
from test_backtest import live as caught_live
from test_fold_property import BUSY, DEVICES, KNOWN, MAILS, check, live
from test_matcher_random import random_wide
from world import ORIGIN, project

from hetki.engine.project import Project
from hetki.engine.telling import why_moment
from hetki.errors import Invalid
from hetki.events.event import Event, LeafId
from hetki.moments.moment import Occurrence
from hetki.patterns import aggregates, matcher, moves
from hetki.settings import SECOND
from hetki.simulation.world import MemoryDisk

EVENTS = {"A": "Alpha Came", "B": "Beta Came", "C": "Gamma Came", "X": "Xi Came", "Y": "Psi Came"}
SPECS = {
    f"events/{name}.yaml": f"event: {full}\ntitle: {full}\n"
    "fields: {k: text, v: number, due: time, product_id: text}\n"
    for name, full in EVENTS.items()
}
AGGREGATES = (
    "n: count of Alpha Came or Beta Came, over 4 minutes",
    "much: sum v of Beta Came or Gamma Came, over 5 minutes",
    "some: mean v of Gamma Came where k = 'x', over 2 minutes",
    "kinds: distinct k of Alpha Came or Beta Came or Gamma Came or Xi Came over 3 minutes",
    "was: last k of Xi Came",
)
ASKED = (
    "aggregate.n >= 1",
    "aggregate.much < 2 or aggregate.much is null",
    "aggregate.some >= 1 or aggregate.some is null",
    "aggregate.kinds < 3",
    "(k = aggregate.was or aggregate.was is null)",
    "segment.busy",
    "not segment.known",
    "consent.marketing",
    "not consent.marketing",
    "coalesce(staffing('kitchen'), 1) < 1",
    "coalesce(staffing('kitchen'), 0) < 2",
)
BUSY_TOO = BUSY.replace("Product Viewed or Product Added", "Alpha Came or Beta Came").replace(
    "sum total of Order Completed", "sum v of Gamma Came or Xi Came"
)


def random_moment(draw: random.Random, number: int) -> dict[str, str]:
    """The file of a moment; it may not pass its checks."""
    steps = json.dumps(entries_of(random_wide(draw)))
    steps = re.sub(r"\b[ABCXY]\b", lambda found: EVENTS[found[0]], steps)
    length = draw.choice(["second", "minute", "minute"])
    steps = steps.replace("second", length)
    asked: set[str] = set()
    parts = steps.split(" where ")
    for place in range(1, len(parts)):
        if draw.random() < 0.25:
            asked.add(wanted := draw.choice(ASKED))
            parts[place] = f"{wanted} and {parts[place]}"
    steps = " where ".join(parts)
    who = draw.choice(["", "", "", "", "", "", "", *ASKED[:4], *ASKED[5:]])
    text = steps + " " + who
    context = [
        "k",
        *(each for each in ("aggregate.n", "aggregate.was", "segment.busy") if draw.random() < 0.2),
    ]
    context += ["consent.marketing", "staffing('kitchen')"] if draw.random() < 0.2 else []
    text += " ".join(context)
    needed = [each for each in AGGREGATES if f"aggregate.{each.partition(':')[0]}" in text]
    aggregates = dict(each.split(": ", 1) for each in needed)
    repeat = draw.choice(["every time", "every time", "once per a.k", "once per 2 minutes"])
    match = draw.choice(["first_per_start", "first_per_start", "one_open", "all", "all"])
    identify = {
        "need": "?",
        "steps": "STEPS",
        "who": who,
        "within": f"{draw.choice([4, 10])} minutes",
        "repeat": repeat,
        "match": match,
        "expires": "20 minutes",
        "aggregates": aggregates,
        "context": context if draw.random() < 0.5 or needed else [],
    }
    spec = {
        "moment": f"m{number}",
        "title": f"m{number}",
        "owner": "team",
        "initiative": "keep_our_word",
        "purpose": draw.choice(["service", "marketing"]),
        "identify": identify,
        "design": {"answers": ["call"]},
        "analyse": {"solved": "no Contact Started within 24 hours", "holdout": "0%"},
    }
    return {f"moments/m{number}.yaml": json.dumps(spec).replace('"STEPS"', steps)}


BASE: dict[str, str | None] = {
    **SPECS,
    "segments/busy.yaml": BUSY_TOO,
    "segments/known.yaml": KNOWN,
    "moments/help.yaml": None,
    "moments/basket.yaml": None,
    "moments/again.yaml": None,
    "moments/promise.yaml": None,
}


@cache
def random_project(seed: int) -> Project:
    """A project of one to four random moments."""
    draw = random.Random(seed)
    files = dict(BASE)
    n_moments = draw.randint(1, 4)
    number = 0
    while number < n_moments:
        tried = random_moment(draw, number)
        try:
            project({**BASE, **tried})
        except Invalid:
            continue
        files.update(tried)
        number += 1
    return project(files)


@contextmanager
def bounds(narrow: bool) -> Iterator[None]:
    """The bounds of the fold, or such that they matter often."""
    with pytest.MonkeyPatch.context() as patch:
        if narrow:
            patch.setattr(matcher, "OPEN_MAX", 3)
            patch.setattr(moves, "ROUNDS_MAX", 2)
            patch.setattr(aggregates, "VALUES_MAX", 2)
        yield


NAMES = [*EVENTS.values(), *list(EVENTS.values())[:3]] * 4 + [
    "Staffing Reported",
    "Customer Identified",
    "Consent Granted",
    "Consent Granted",
    "Consent Withdrawn",
]


def random_event(draw: random.Random, number: int) -> Event:
    """One event of ten minutes, of few customers. Consent comes first, so that there is something to see."""
    occurred_at = ORIGIN + draw.randrange(0, 600, draw.choice([1, 5, 30])) * SECOND
    identifiers = {}
    if draw.random() < 0.8:
        identifiers["user_id"] = draw.choice(["u1", "u1", "u1", "u2"])
    if draw.random() < 0.2 or not identifiers:
        identifiers["anonymous_id"] = draw.choice(DEVICES[:2])
    if draw.random() < 0.1:
        identifiers["email"] = draw.choice(MAILS)
    due = ORIGIN + draw.randrange(0, 900, 5) * SECOND
    seconds = (due - ORIGIN) // SECOND
    properties = {
        "purpose": draw.choice(["marketing", "marketing", "marketing", "service"]),
        "k": draw.choice(["x", "x", "x", "y", None, 5]),
        "v": draw.choice([0, 1, 1.0, 2, 2, 0.1, "much"]),
        "due": f"2026-03-02T00:{seconds // 60:02}:{seconds % 60:02}Z",
        "product_id": draw.choice("pq"),
        "plan": draw.choice(["club", "none"]),
        "pool": draw.choice(["kitchen", "kitchen", "desk"]),
        "n_present": draw.randrange(4),
        "n_planned": draw.choice([0, 2, 4]),
    }
    name = "Consent Granted" if number < 3 else draw.choice(NAMES)
    if name == "Consent Granted" and draw.random() < 0.3:
        properties["until"] = properties["due"]
    if number < 3:
        properties["purpose"], occurred_at = "marketing", ORIGIN
        identifiers = {"user_id": f"u{1 + number % 2}"}
    return Event(
        source=draw.choice(["web", "app", "web", "shop"]),
        message_id=f"m{number}",
        channel="web",
        name=name,
        occurred_at=occurred_at,
        received_at=occurred_at + draw.choice([0, 0, 0, 10, 59, 200, 900]) * SECOND,
        identifiers=identifiers,
        properties=msgspec.json.encode({key: each for key, each in properties.items() if each is not None}),
        gpc=draw.random() < 0.01,
    )


@settings(max_examples=120, deadline=None)
@given(st.integers(0, 29), st.integers(0, 2**48), st.booleans())
def test_any_moment_is_one_pass_of_history(which: int, seed: int, narrow: bool) -> None:
    with bounds(narrow):
        check(seed, 40, True, random_project(which), random_event)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 29), st.integers(0, 2**48), st.booleans())
def test_a_backtest_and_an_explanation_tell_what_was_live(which: int, seed: int, narrow: bool) -> None:
    draw = random.Random(seed)
    events = [random_event(draw, number) for number in range(draw.randint(1, 40))]
    folder = tempfile.mkdtemp()
    try:
        with bounds(narrow):
            world, _ = live(draw, events, True, random_project(which), MemoryDisk(folder))
            caught = caught_live(world.engine)
            assert backtested(world.engine) == caught
            explained: dict[str, Occurrence] = {}
            for (customer,) in world.rows("SELECT customer FROM customers"):
                assert isinstance(customer, bytes)
                for name in world.engine.project.moments:
                    found = why_moment(world.engine, LeafId(customer), name)
                    explained |= {each.occurrence_id: each for each in found.occurrences}
                    n_told = sum(each.end == "caught" for each in found.tries)
                    assert n_told <= len(found.occurrences) and bool(n_told) == bool(found.occurrences)
            assert explained == {key: each.occurrence for key, each in caught.items()}
    finally:
        shutil.rmtree(folder)


def test_the_random_moments_are_worth_catching() -> None:
    assert sum(check(seed, 60, True, random_project(seed), random_event) for seed in range(30)) > 30
