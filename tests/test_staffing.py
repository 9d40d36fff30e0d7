"""Staffing: conditions see the last report before them; a late one folds again exactly whom it concerns."""

from __future__ import annotations

import shutil
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_backtest import backtested, live
from world import World, moment, project

from hetki.engine import folding
from hetki.engine.folding import decode_occurrence
from hetki.patterns.staffing import Report, Timeline, timeline
from hetki.simulation.world import MemoryDisk

SHORT = moment(
    "short",
    "asked: Help Searched where staffing('kitchen') < 0.8",
    more="context: [staffing('kitchen')]",
)
OF_FIELD = moment("here", "visited: Store Visited where staffing(store_id) < 0.5")
NONE = dict.fromkeys([f"moments/{name}.yaml" for name in ("help", "basket", "again", "promise")])
PROJECT = project({**NONE, **SHORT, **OF_FIELD})


def reported(when: str, n_present: float, pool: str = "kitchen", n_planned: float = 10) -> str:
    return f"{when} shop Staffing Reported pool={pool} n_present={n_present} n_planned={n_planned}"


def test_the_last_report_before_the_event_counts() -> None:
    world = World(PROJECT)
    world.live(
        f"""
        09:00 web u=anna Help Searched
        {reported("09:30", 7)}
        10:00 web u=anna Help Searched
        {reported("10:00:01", 9)}
        10:01 web u=bert Help Searched
        {reported("10:02", 1, "desk")}
        10:03 web u=bert Store Visited store_id=desk
        10:03 web u=bert Store Visited store_id=kitchen
        10:03 web u=bert Store Visited
        """
    )
    assert world.occurrences() == ["10:00 short anna: 10:00", "10:03 here bert: 10:03"]
    (body,) = world.rows("SELECT body FROM occurrences WHERE moment = 'short'")[0]
    assert decode_occurrence(body).context == {"staffing.kitchen": 0.7}
    world.assert_rebuilds()


def test_a_report_is_nobodys() -> None:
    world = World(PROJECT)
    world.live(reported("09:00", 5))
    world.live("09:01 web u=anna Staffing Reported pool=kitchen n_present=1 n_planned=2")
    world.live("09:02 web u=anna Help Searched")
    assert world.customers() == ["anna"]
    assert world.rows("SELECT n_events FROM customers") == [(1,)]
    assert world.occurrences() == ["09:02 short anna: 09:02"]
    world.assert_rebuilds()


@pytest.mark.parametrize(
    "told", ["n_present=1", "pool=kitchen n_present=a n_planned=2", "pool=7 n_present=1"]
)
def test_a_report_that_cannot_be_read_changes_nothing(told: str) -> None:
    world = World(PROJECT)
    world.live(f"{reported('09:00', 5)}\n09:01 shop Staffing Reported {told}\n09:02 web u=anna Help Searched")
    assert world.occurrences() == ["09:02 short anna: 09:02"]


def test_nobody_planned_is_unknown() -> None:
    world = World(PROJECT)
    world.live(f"{reported('09:00', 5)}\n{reported('09:01', 0, n_planned=0)}")
    world.live("09:02 web u=anna Help Searched")
    assert world.occurrences() == []


STORY = f"""
    {reported("09:00", 5)}
    10:00 web u=anna Help Searched
    10:30 web u=bert Help Searched
    11:00 web u=cleo Help Searched
    11:00 web u=dora Page Viewed
"""


def test_a_late_report_folds_again_whom_it_concerns_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(PROJECT)
    world.live(STORY)
    assert [each[:13] for each in world.occurrences()] == ["10:00 short a", "10:30 short b", "11:00 short c"]
    folded = watched(monkeypatch, world)
    world.live(reported("10:15>11:30", 9))
    assert set().union(*folded) == {"bert", "cleo"}
    assert [each[:13] for each in world.occurrences()] == ["10:00 short a"]
    assert [each.partition(";")[0] for each in world.revisions()] == ["retracted short: staffing report"] * 2
    world.live(reported("10:45>11:31", 6))
    assert [each[:13] for each in world.occurrences()] == ["10:00 short a", "11:00 short c"]
    world.live(reported("10:50>11:32", 4))
    assert world.revisions()[-1].startswith("revised short: staffing report")
    world.assert_rebuilds()


def watched(monkeypatch: pytest.MonkeyPatch, world: World) -> list[set[str]]:
    """Who is folded again from now on."""
    again: list[set[str]] = []
    real = folding.refold

    def refold(*given):  # type: ignore[no-untyped-def]
        again.append({world.name_of(each) for each in given[3]})
        return real(*given)

    monkeypatch.setattr(folding, "refold", refold)
    return again


def test_without_a_moment_that_asks_nobody_is_folded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.live(STORY.replace("Help Searched", "Help Searched n_results=0"))
    folded = watched(monkeypatch, world)
    world.live(reported("10:15>11:30", 9))
    assert set().union(*folded) == set()
    assert len(world.rows("SELECT * FROM staffing")) == 2, "a moment that asks later finds them"


def test_a_moment_that_asks_later_sees_the_reports_of_before() -> None:
    world = World()
    world.live(STORY)
    world.reopen(PROJECT)
    world.advance()
    assert [each[:13] for each in world.occurrences()] == ["10:00 short a", "10:30 short b", "11:00 short c"]


def test_a_timeline_is_read_by_the_total_order() -> None:
    found = timeline(
        [
            Report("a", (10, "s", 0, "2"), 0.2),
            Report("a", (10, "s", 0, "1"), 0.1),
            Report("b", (5, "s", 0, "1"), None),
        ]
    )
    assert [found.share("a", (10, "s", 0, each)) for each in "0123"] == [None, None, 0.1, 0.2]
    assert found.share("b", (6, "", 0, "")) is None and found.share("c", (6, "", 0, "")) is None
    assert Timeline().share("a", (10, "", 0, "")) is None


def line(event: tuple[int, int, str, str, str]) -> str:
    minute, delay, source, who, what = event
    arrived = minute + delay
    return f"10:{minute:02}>{10 + arrived // 60}:{arrived % 60:02} {source} {who} {what}"


WHAT = (
    "Help Searched",
    "Store Visited store_id=kitchen",
    "Staffing Reported pool=kitchen n_present=1 n_planned=4",
    "Staffing Reported pool=kitchen n_present=3 n_planned=4",
    "Staffing Reported pool=kitchen n_present=4 n_planned=4",
    "Staffing Reported pool=desk n_present=4 n_planned=0",
)
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 50),
        st.sampled_from([0, 0, 0, 2, 40]),
        st.sampled_from(["web", "app", "shop"]),
        st.sampled_from(["u=anna", "u=bert", "u=anna a=w1", "a=w1"]),
        st.sampled_from(WHAT),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=40)
@given(EVENTS, st.integers(1, 5), st.integers(1, 5))
def test_live_is_what_the_lake_tells(
    events: list[tuple[int, int, str, str, str]], n_told: int, batch_max: int
) -> None:
    folder = tempfile.mkdtemp()
    try:
        world = World(PROJECT, disk=MemoryDisk(folder), batch_max=batch_max)
        arriving = sorted(events, key=lambda each: each[0] + each[1])
        for n in range(0, len(arriving), n_told):
            told = arriving[n : n + n_told]
            world.tell("\n".join(map(line, told)))
            world.advance()
        world.until("13:00")
        assert backtested(world.engine) == live(world.engine)
        world.assert_rebuilds()
    finally:
        shutil.rmtree(folder)
