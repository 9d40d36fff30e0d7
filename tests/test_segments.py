"""Segments: declared once, asked for anywhere, always current; and the faults of their declarations."""

from __future__ import annotations

import pytest
from world import World, at, moment, project

from hetki.engine.check import check
from hetki.engine.segments import count_segments
from hetki.errors import Invalid, NotFound
from hetki.moments.fold import decode, encode
from hetki.simulation.world import MemoryDisk

CLUB = "segment: club\ntitle: Club members\npurpose: service\nwho: customer.plan = 'club'\n"
BUYER = """
segment: buyer
title: Buyers
purpose: service
who: segment.club and aggregate.n >= 2
aggregates: {n: count of Order Completed over 1 hour}
"""
FOND = """
segment: fond
title: Fond of us
purpose: marketing
who: aggregate.mood = 'joy'
aggregates: {mood: last emotion of Review Posted}
"""
SEGMENTS: dict[str, str | None] = {
    "segments/club.yaml": CLUB,
    "segments/buyer.yaml": BUYER,
    "segments/fond.yaml": FOND,
}
TRACKED = moment("tracked", "asked: Order Tracked", more="who: segment.buyer\nrepeat: every time")
OUTSIDE = moment("outside", "asked: Order Tracked where not segment.club")
PROJECT = project({**SEGMENTS, **TRACKED, **OUTSIDE})

STORY = """
    09:00 web u=anna Customer Identified plan=club
    09:00 web u=bert Customer Identified plan=basic
    09:10 web u=anna Order Completed total=5
    09:20 web u=anna Order Tracked
    09:30 web u=anna Order Completed total=5
    09:40 web u=bert Order Completed total=5
    09:41 web u=bert Order Completed total=5
    09:50 web u=anna Order Tracked
    09:50 web u=bert Order Tracked
    10:20 web u=anna Order Tracked
"""


def counted(world: World, name: str = "") -> dict[str, list[str]]:
    found = count_segments(world.engine.state, world.engine.program, world.clock.now(), name, 10)
    return {each.segment: [world.name_of(customer) for customer in each.customers] for each in found}


def test_a_moment_asks_for_a_segment_as_of_its_event() -> None:
    world = World(PROJECT)
    world.live(STORY)
    assert world.occurrences() == ["09:50 outside bert: 09:50", "09:50 tracked anna: 09:50"]
    world.assert_rebuilds()


def test_a_segment_is_always_current_and_shrinks_as_time_passes() -> None:
    world = World(PROJECT)
    world.live(STORY)
    assert counted(world) == {"buyer": [], "club": ["anna"], "fond": []}
    world.live("10:25 web u=anna Order Completed total=5")
    assert counted(world)["buyer"] == ["anna"]
    state = world.rows("SELECT state FROM customers")
    world.until("10:31")
    assert counted(world)["buyer"] == [] and world.rows("SELECT state FROM customers") == state
    (count,) = count_segments(world.engine.state, world.engine.program, world.clock.now(), "club")
    assert (count.n_customers, count.n_of, count.customers) == (1, 2, [])


def test_its_own_purpose_is_looked_at_and_withdrawing_forgets() -> None:
    world = World(PROJECT)
    world.live(
        """
        09:00 web u=anna Review Posted emotion=joy
        09:01 web u=anna Consent Granted purpose=marketing
        """
    )
    assert counted(world, "fond") == {"fond": []}
    world.live("09:02 web u=anna Review Posted emotion=joy\n09:02 shop u=bert Review Posted emotion=joy")
    assert counted(world, "fond") == {"fond": ["anna"]}
    world.live("09:03 web u=anna Consent Withdrawn purpose=marketing")
    assert counted(world, "fond") == {"fond": []}
    world.live("09:04 web u=anna Consent Granted purpose=marketing")
    assert counted(world, "fond") == {"fond": []}, "what was remembered is gone"


def test_a_grant_that_ends_closes_a_segment() -> None:
    world = World(PROJECT)
    world.live(
        """
        09:00 web u=anna Consent Granted purpose=marketing until=2026-03-02T10:00:00Z
        09:02 web u=anna Review Posted emotion=joy
        """
    )
    assert counted(world, "fond") == {"fond": ["anna"]}
    world.until("10:00")
    assert counted(world, "fond") == {"fond": []}


def test_a_moment_reads_a_segment_under_its_own_purpose() -> None:
    """The windows of the moment are its own: they go with its purpose, and those of the segment stay."""
    asked = moment("asked", "a: Order Tracked where segment.buyer", purpose="marketing")
    world = World(project({**SEGMENTS, **asked}))
    world.live(
        """
        09:00 web u=anna Customer Identified plan=club
        09:01 web u=anna Consent Granted purpose=marketing
        09:10 web u=anna Order Completed
        09:11 web u=anna Order Completed
        09:12 web u=anna Order Tracked
        09:13 web u=anna Consent Withdrawn purpose=marketing
        09:14 web u=anna Consent Granted purpose=marketing
        09:15 web u=anna Order Tracked
        """
    )
    assert world.occurrences() == ["09:12 asked anna: 09:12"]
    assert counted(world)["buyer"] == ["anna"]
    (row,) = world.rows("SELECT state FROM customers")
    assert isinstance(row[0], bytes)
    folded = decode(row[0])
    assert sorted(folded.runs) == ["segment.buyer"] and encode(folded) == row[0]


def test_an_unknown_segment_is_not_counted() -> None:
    with pytest.raises(NotFound, match="did you mean 'club'"):
        counted(World(PROJECT), "clubs")


def faults_of(changes: dict[str, str]) -> list[str]:
    with pytest.raises(Invalid) as found:
        project({**SEGMENTS, **changes})
    return [str(fault) for fault in found.value.faults]


def test_an_unknown_name_has_the_nearest_as_a_hint() -> None:
    asked = moment("asked", "a: Order Tracked", more="who: segment.clubb and consent.marketin")
    assert faults_of(asked) == [
        "moments/asked.yaml:11:8: got 'segment.clubb', must be a declared segment."
        " Hint: did you mean 'club'.",
        "moments/asked.yaml:11:26: got 'consent.marketin', must be a declared purpose."
        " Hint: did you mean 'marketing'.",
    ]
    found = faults_of({"segments/fond.yaml": FOND.replace("aggregate.mood", "aggregate.mod")})
    assert found == [
        "segments/fond.yaml:5:6: got 'aggregate.mod', must be a declared aggregate."
        " Hint: did you mean 'mood'."
    ]


def test_a_circle_shows_its_path() -> None:
    one = CLUB.replace("customer.plan = 'club'", "customer.plan = 'club' or segment.buyer")
    assert faults_of({"segments/club.yaml": one}) == [
        "segments/club.yaml:4:32: got a circle: buyer asks for club asks for buyer,"
        " must be a segment that does not lead back to itself."
    ]
    own = CLUB.replace("customer.plan = 'club'", "not segment.club")
    assert faults_of({"segments/club.yaml": own})[0].startswith(
        "segments/club.yaml:4:10: got a circle: club asks for club"
    )


def test_what_a_segment_cannot_say_is_refused() -> None:
    def with_who(who: str) -> str:
        return faults_of({"segments/club.yaml": CLUB.replace("customer.plan = 'club'", who)})[0]

    assert "got 'consent.marketing', must be another name, as no purpose is known here" in with_who(
        "consent.marketing"
    )
    assert "got staffing, must be another condition" in with_who("staffing('kitchen') > 1")
    assert "got 'customer.plann', must be a trait of the catalogue" in with_who("customer.plann = 'club'")
    assert "got 'plan', must be a step's field or a customer's trait" in with_who("plan = 'club'")


def test_other_faults_of_a_segment() -> None:
    unused = FOND.replace("aggregate.mood = 'joy'", "customer.plan = 'club'")
    assert faults_of({"segments/fond.yaml": unused}) == [
        "segments/fond.yaml:6:20: got the aggregate 'mood' that nothing uses,"
        " must be asked for by a condition, as aggregate.mood, or left out."
    ]
    assert "must be a declared purpose" in faults_of({"segments/club.yaml": CLUB.replace("service", "x")})[0]
    assert (
        "must be 'club', as the file is called"
        in faults_of({"segments/club.yaml": CLUB.replace("segment: club", "segment: klub")})[0]
    )
    broken = faults_of({"segments/club.yaml": CLUB.replace("title", "titel")})
    assert all(each.startswith("segments/club.yaml") for each in broken), "others do not suffer from it"
    trait = FOND.replace("Review Posted", "Review Posted where customer.plann is null")
    assert "customer.plann" in faults_of({"segments/fond.yaml": trait})[0]


def test_check_says_a_segment_in_a_sentence() -> None:
    disk = MemoryDisk()
    for name, declared in PROJECT.files.segments.files.items():
        disk.write(name, declared.text.encode())
    for name, declared in PROJECT.files.moments.files.items():
        disk.write(name, declared.text.encode())
    for folder in (PROJECT.files.sources, PROJECT.files.actions, PROJECT.files.initiatives):
        for name, one in folder.files.items():  # type: ignore[attr-defined]
            disk.write(name, one.text.encode())
    for stem, texts in PROJECT.files.templates.items():
        disk.write(f"templates/{stem}.liquid", texts[""].encode())
    disk.write("hetki.toml", PROJECT.files.toml.text.encode())
    checked = check(disk)
    assert not checked.faults
    assert checked.segments == {
        "buyer": "A customer is in 'Buyers' when the customer is in 'Club members' and the number of Order"
        " Completed over 1 hour is at least 2.",
        "club": "A customer is in 'Club members' when the customer's plan is club.",
        "fond": "A customer is in 'Fond of us' when the last emotion of Review Posted is joy.",
    }
    assert checked.sentences["tracked"].startswith("For a customer in 'Buyers': after Order Tracked")
    assert "(the customer is not in 'Club members')" in checked.sentences["outside"]


def test_time_is_asked_for_and_not_only_the_last_event() -> None:
    world = World(PROJECT)
    world.live(STORY)
    state, program = world.engine.state, world.engine.program
    (count,) = count_segments(state, program, at("09:45"), "buyer")
    assert count.n_customers == 1
