"""Rebuild: every projection folded again from nothing is the same, and no deed is made twice (law 2)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import World, lines, project

from hetki.engine.rebuilding import digest, rebuild
from hetki.errors import Conflict, Fault, Unavailable
from hetki.events.wire import Parsed, Rejected
from hetki.store.state import TABLES, State

STORY = """
    09:00 web u=anna mail=anna@kauppa.fi Customer Identified email=anna@kauppa.fi plan=club
    09:01 web u=anna a=web1 Consent Granted purpose=marketing
    09:02 web u=anna g=kone Account Joined
    10:00 web u=anna Product Added product_id=p1
    10:00 web a=web1 Help Searched n_results=0
    10:01 app u=bertta a=web1 Help Searched n_results=0
    09:59>10:03 shop u=anna Order Tracked order_id=o1
    10:05 web u=cilla Delivery Delayed order_id=o1 promised_at=2026-03-02T10:20:00Z
    10:06 web Page Viewed
    10:06 shop Staffing Reported pool=kitchen n_present=3 n_planned=4
    10:05>10:22 app u=bertta Chat Started
"""
DEEDS = "decisions missed assignments revisions outbox attempts breakers advances".split()


def lived() -> World:
    world = World()
    world.live(STORY)
    world.until("10:15")
    world.deliver()
    world.merge("anna", "bertta")
    world.advance()
    world.tell(STORY)
    fault = Fault("batch[0]", "a list", "an object")
    body = Rejected("web", world.clock.now(), b'["anna"]', fault)
    world.engine.acceptor.accept([Parsed([], [body]), Parsed([], [body])])
    world.until("10:50")
    world.unmerge()
    world.until("11:00")
    return world


def everything(world: World, tables: list[str]) -> dict[str, list[tuple[object, ...]]]:
    return {table: sorted(world.rows(f"SELECT * FROM {table}"), key=repr) for table in tables}


def test_projections_come_back_equal_and_deeds_stay() -> None:
    world = lived()
    projections, deeds = [table for table in TABLES if table != "counts"], everything(world, DEEDS)
    before = everything(world, projections)
    assert all(before.values()) and deeds["decisions"] and deeds["revisions"] and deeds["outbox"]
    rebuilt = rebuild(world.engine)
    assert rebuilt.before == rebuilt.after == digest(world.engine)
    assert everything(world, projections) == before
    assert everything(world, DEEDS) == deeds
    assert rebuilt.n_entries == len(world.engine.journal.read(0, 10**6))
    assert world.rows("SELECT got, must FROM rejected") == [("a list", "an object")]


def test_life_goes_on_after_a_rebuild_as_if_there_had_been_none() -> None:
    one, other = lived(), lived()
    rebuild(other.engine)
    for world in (one, other):
        world.live("11:05 web a=web1 Help Searched n_results=0\n11:06 web u=anna Product Added product_id=p2")
        world.until("12:00")
    assert digest(one.engine) == digest(other.engine)
    assert one.decisions() == other.decisions() and one.outbox() == other.outbox()


@settings(max_examples=25)
@given(st.integers(1, 30), st.permutations(lines(STORY)))
def test_any_size_of_batch_rebuilds_the_same(batch_max: int, order: list[str]) -> None:
    world = World(batch_max=batch_max)
    for line in order:
        world.tell(line)
    world.until("11:00")
    expected = digest(world.engine)
    with pytest.MonkeyPatch.context() as patch:
        for size in (1, 2, 7, 2000):
            patch.setattr("hetki.engine.rebuilding.BATCH_MAX", size)
            assert rebuild(world.engine).after == expected


def test_a_rebuild_in_another_process_sees_the_same() -> None:
    world = lived()
    before = digest(world.engine)
    other = World(project(), disk=world.disk, starts="11:00")
    assert rebuild(other.engine).after == before == digest(world.engine)


def test_a_rebuild_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = lived()
    before = digest(world.engine)
    with monkeypatch.context() as patch:
        patch.setattr(State, "save_progress", _broken)
        with pytest.raises(ZeroDivisionError):
            rebuild(world.engine)
    assert digest(world.engine) == before


def _broken(*given: object) -> None:
    raise ZeroDivisionError


def test_a_changed_projection_is_found() -> None:
    for change in (
        "UPDATE customers SET n_events = n_events + 1",
        "UPDATE nodes SET customer = node WHERE namespace <> 'user_id'",
        "DELETE FROM occurrences WHERE moment = 'basket'",
        "UPDATE links SET revoked_at = 7 WHERE kind = 'login'",
        "DELETE FROM events WHERE position = 1",
    ):
        world = lived()
        good = digest(world.engine)
        world.engine.db.execute(change)
        rebuilt = rebuild(world.engine)
        assert rebuilt.before != good == rebuilt.after, change


def test_what_was_never_folded_cannot_be_rebuilt() -> None:
    with pytest.raises(Conflict, match="nothing folded"):
        rebuild(World().engine)


def test_a_store_that_cannot_be_written_says_so() -> None:
    world = lived()
    world.engine.db.execute("PRAGMA query_only = ON")
    with pytest.raises(Unavailable):
        rebuild(world.engine)
    with pytest.raises(Unavailable):
        world.advance()


def test_what_lies_in_the_journal_and_is_not_folded_stays_so() -> None:
    world = lived()
    world.tell("11:00 web u=dora Help Searched n_results=0")
    rebuilt = rebuild(world.engine)
    assert rebuilt.before == rebuilt.after
    world.until("11:12")
    assert world.decisions()[-1] == "11:12 help dora answered call"


def test_under_changed_declarations_nothing_is_rebuilt_before_they_are_in_force() -> None:
    world = lived()
    world.reopen(project({"moments/help.yaml": None}))
    with pytest.raises(Conflict, match="hetki advance first"):
        rebuild(world.engine)
    world.advance()
    world.assert_rebuilds()
