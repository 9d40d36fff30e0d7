"""Backtest: over the lake comes out what came out live, in stories, at random, and on a simulated week."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import World, at, clock

from hetki.engine.advance import advance
from hetki.engine.backtest import Span, backtest, histories, render
from hetki.engine.engine import Engine, open_engine
from hetki.engine.folding import Caught, decode_occurrence
from hetki.engine.history import only
from hetki.engine.project import load
from hetki.errors import NotFound
from hetki.events import segment
from hetki.events.event import LeafId, instant
from hetki.settings import DAY, SECOND
from hetki.simulation.restaurants import Restaurants
from hetki.simulation.world import MemoryDisk, SeededChance, SimulatedClock
from hetki.store.lake import open_lake, refresh
from hetki.store.system import SystemDisk

EXAMPLE = Path(__file__).parent.parent / "examples" / "restaurants"


def live(engine: Engine) -> dict[str, Caught]:
    """The settled occurrences of the state, whole: customer, times and every bound event."""
    rows = engine.db.execute("SELECT occurrence_id, customer, body FROM occurrences").fetchall()
    return {row[0]: Caught(LeafId(row[1]), decode_occurrence(row[2])) for row in rows}


def backtested(engine: Engine) -> dict[str, Caught]:
    """The same from the lake, at the same time: the fold's way and the fast one."""
    refresh(engine.disk, engine.journal, engine.state)
    progress = engine.state.progress()
    assert progress is not None
    lake = open_lake(engine.disk)
    one_by_one, fast = (
        sorted(
            (each.occurrence_id, customer, each)
            for customer, caught in histories(
                lake, engine.program, progress.advance_to, events_min=events_min
            )
            for each in caught
        )
        for events_min in (10**9, 0)
    )
    assert fast == one_by_one
    found = backtest(open_lake(engine.disk), engine.program, progress.advance_to)
    return {each.occurrence.occurrence_id: each for caught in found.values() for each in caught}


def told(world: World, **options: object) -> list[str]:
    """What a backtest finds, as `10:10 help anna`."""
    refresh(world.disk, world.engine.journal, world.engine.state)
    found = backtest(open_lake(world.disk), world.engine.program, world.clock.now(), **options)  # type: ignore[arg-type]
    all_found = sorted((c.occurrence.occurred_at, name, c.customer) for name, cs in found.items() for c in cs)
    return [f"{clock(when)} {name} {world.name_of(customer)}" for when, name, customer in all_found]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(disk=MemoryDisk(str(tmp_path)))


def test_an_empty_lake_has_no_moments(world: World) -> None:
    assert told(world) == []
    assert render(backtest(open_lake(world.disk), world.engine.program, at("12:00"))).startswith(
        "again: never"
    )


def test_a_silence_is_found_and_one_that_is_not_over_is_not(world: World) -> None:
    world.live("10:00 web u=anna Help Searched n_results=0")
    world.live("10:55 web u=bert Help Searched n_results=0")
    world.until("11:00")
    assert told(world) == ["10:10 help anna"]


def test_late_events_take_their_place(world: World) -> None:
    world.live(
        """
        10:00 web u=anna Help Searched n_results=0
        11:00 web u=anna Page Viewed
        10:05>11:01 web u=anna Chat Started
        10:20>11:02 web u=bert Help Searched n_results=0
        """
    )
    assert told(world) == ["10:30 help bert"]
    assert backtested(world.engine) == live(world.engine) != {}


def test_a_merge_and_an_unmerge_are_seen(world: World) -> None:
    world.live(
        """
        10:00 web u=anna Help Searched n_results=0
        10:05 web u=bert Chat Started
        10:30 web u=cleo Page Viewed
        """
    )
    assert told(world) == ["10:10 help anna"]
    world.merge("anna", "bert")
    world.advance()
    assert told(world) == [] and backtested(world.engine) == live(world.engine)
    world.unmerge()
    world.advance()
    assert told(world) == ["10:10 help anna"] and backtested(world.engine) == live(world.engine)


def test_consent_counts_from_when_it_was_given(world: World) -> None:
    world.live(
        """
        10:00 web u=anna Product Added
        10:05 web u=anna Consent Granted purpose=marketing
        12:00 web u=anna Product Added
        14:00 web u=anna Product Added
        14:10 web u=anna Consent Withdrawn purpose=marketing
        15:00 web u=bert Consent Granted purpose=marketing
        15:01 web u=bert Product Added
        15:02 web u=bert gpc Page Viewed
        16:00 web u=anna Page Viewed
        """
    )
    assert told(world) == ["12:30 basket anna"]
    assert backtested(world.engine) == live(world.engine)


def test_joining_a_fragment_that_refused_is_seen(world: World) -> None:
    """The link, not an event, is what closes the purpose: it must be in the backtest's order."""
    world.live(
        """
        09:00 web a=w1 Consent Refused purpose=marketing
        10:00 web u=anna Consent Granted purpose=marketing
        10:01 web u=anna Product Added
        10:05 web u=anna a=w1 Page Viewed
        12:00 web u=anna Page Viewed
        """
    )
    assert told(world) == [] and live(world.engine) == {}
    world.unmerge("login")
    world.advance()
    assert told(world) == ["10:31 basket anna"] and backtested(world.engine) == live(world.engine)


def test_a_link_that_was_taken_back_joins_nothing(world: World) -> None:
    """Another link holds the customer together, but only from later on."""
    world.live(
        """
        09:00 web a=w1 Consent Refused purpose=marketing
        09:00 web u=anna Consent Granted purpose=marketing
        09:30 web u=anna Product Added
        09:45 web u=anna a=w1 Page Viewed
        11:00 web u=anna Page Viewed
        """
    )
    assert told(world) == []
    world.merge("anna", "a=w1")
    world.advance()
    world.unmerge("login")
    world.advance()
    assert told(world) == ["10:00 basket anna"] and backtested(world.engine) == live(world.engine)


def test_a_repeat_counts_once(world: World) -> None:
    line = "10:00 web u=anna Help Searched n_results=0"
    world.live("\n".join([line, line, "11:00 web u=anna Page Viewed", line]))
    assert told(world) == ["10:10 help anna"] and backtested(world.engine) == live(world.engine)


def test_a_part_of_the_moments_and_of_the_time(world: World) -> None:
    world.live(
        """
        10:00 web u=anna Consent Granted purpose=marketing
        10:00 web u=anna Help Searched n_results=0
        10:30 web u=anna Product Added
        12:00 web u=anna Help Searched n_results=0
        13:00 web u=anna Page Viewed
        """
    )
    assert told(world) == ["10:10 help anna", "11:00 basket anna", "12:10 help anna"]
    assert told(world, moments=["help"]) == ["10:10 help anna", "12:10 help anna"]
    assert told(world, span=Span(at("10:10"), at("12:10"))) == ["10:10 help anna", "11:00 basket anna"]
    assert told(world, span=Span(at("10:11"), at("13:00"))) == ["11:00 basket anna", "12:10 help anna"]
    assert told(world, span=Span(at("10:00"), at("10:10:01"))) == ["10:10 help anna"], (
        "late ones are waited for"
    )
    with pytest.raises(NotFound, match="did you mean 'basket'"):
        only(world.engine.program, ["baskets"])


def test_the_table_tells_how_often_when_and_for_whom(world: World) -> None:
    world.live(
        """
        10:00 web u=anna Help Searched n_results=0
        10:00 web u=bert Help Searched n_results=0
        15/10:00 web u=bert Help Searched n_results=0
        15/11:00 web u=bert Page Viewed
        """
    )
    found = backtest(open_lake_of(world), world.engine.program, world.clock.now(), ["help"])
    bert, anna = world.node("bert").hex(), world.node("anna").hex()
    assert render(found).splitlines() == [
        "help: 3 times for 2 customers, first 2026-03-02 10:10, last 2026-03-16 10:10 UTC",
        "  week of 2026-03-02        2  " + "▪" * 40,
        "  week of 2026-03-09        0",
        "  week of 2026-03-16        1  " + "▪" * 20,
        f"  for {bert} at 2026-03-16 10:10",
        f"  for {anna} at 2026-03-02 10:10",
    ]
    assert render(found, 1).endswith("\n  and 1 more") and "  for" not in render(found, 0)


def open_lake_of(world: World):  # type: ignore[no-untyped-def]
    refresh(world.disk, world.engine.journal, world.engine.state)
    return open_lake(world.disk)


WHO = (
    "u=anna",
    "u=anna a=w1",
    "a=w1",
    "a=w2",
    "u=bert a=w2",
    "u=bert mail=b@kauppa.fi",
    "a=w1 mail=b@kauppa.fi",
)
WHAT = (
    "Help Searched n_results=0",
    "Chat Started",
    "Chat Started order_id=o1",
    "Product Added",
    "Order Completed",
    "Product Viewed product_id=p1",
    "Product Viewed product_id=p1 gpc",
    "Consent Granted purpose=marketing",
    "Consent Withdrawn purpose=marketing",
    "Delivery Delayed order_id=o1 promised_at=2026-03-02T11:00:00Z",
)
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 90),
        st.sampled_from([0, 0, 0, 2, 40]),
        st.sampled_from(["web", "app", "shop"]),
        st.sampled_from(WHO),
        st.sampled_from(WHAT),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60)
@given(EVENTS, st.integers(1, 9), st.integers(1, 9), st.booleans(), st.booleans())
def test_whatever_happens_the_lake_tells_what_was_live(
    events: list[tuple[int, int, str, str, str]], n_told: int, batch_max: int, merged: bool, unmerged: bool
) -> None:
    folder = tempfile.mkdtemp()
    try:
        world = World(disk=MemoryDisk(folder), batch_max=batch_max)
        arriving = sorted(events, key=lambda each: each[0] + each[1])
        for n in range(0, len(arriving), n_told):
            world.tell("\n".join(map(line, arriving[n : n + n_told])))
            world.advance()
        if merged:
            world.tell("12:40 web u=anna Page Viewed\n12:40 web u=bert Page Viewed")
            world.merge("anna", "bert")
            world.advance()
            if unmerged:
                world.unmerge()
        world.until("13:00")
        assert backtested(world.engine) == live(world.engine)
    finally:
        shutil.rmtree(folder)


def line(event: tuple[int, int, str, str, str]) -> str:
    minute, delay, source, who, what = event
    when = [f"{10 + n // 60}:{n % 60:02}" for n in (minute, minute + delay)]
    return f"{'>'.join(when)} {source} {who} {what}"


def test_a_simulated_week_is_the_same_live_and_over_the_lake(tmp_path: Path) -> None:
    """Late events, repeats, logins and refusals of the restaurants, in micro-batches that cut hours apart."""
    project = load(SystemDisk(EXAMPLE))
    start = instant(datetime(2026, 3, 2, tzinfo=UTC))
    simulated, restaurants = SimulatedClock(start), Restaurants(7, 600, start, 7)
    engine = open_engine(project, MemoryDisk(str(tmp_path)), simulated, SeededChance(1), {})
    n_events = 0
    for n in range(1, 4 * 9):
        bodies = restaurants.until(start + n * DAY // 4)
        simulated.move(start + n * DAY // 4)
        parsed = [
            segment.parse(
                each.body,
                "batch",
                each.source,
                project.sources[each.source].channel,
                each.received_at,
                project.settings.limits,
                each.gpc,
            )
            for each in bodies
        ]
        n_events += sum(len(each.events) for each in parsed)
        engine.acceptor.accept(parsed)
        advance(engine, batch_max=50)
    found = live(engine)
    assert n_events > 3_000 and {each.occurrence.moment for each in found.values()} == set(project.moments)
    assert backtested(engine) == found
    settled = engine.program.lateness_s * SECOND
    assert max(each.occurrence.occurred_at for each in found.values()) <= simulated.now() - settled
