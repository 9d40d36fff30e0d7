"""Advance: from events to occurrences and decisions, in stories; time, late events, and repaired history."""

from __future__ import annotations

import pytest
from world import World, action, lines, moment, project

from hetki.engine.advance import advance_once
from hetki.errors import Conflict
from hetki.store.ports import Sent


def test_a_silence_is_caught_although_no_further_event_comes() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=0")
    world.until("10:10:59")
    assert world.occurrences() == []
    world.until("10:11")  # the deadline and one minute of lateness, to the second
    assert world.occurrences() == ["10:10 help anna: 10:00"]
    assert world.decisions() == ["10:11 help anna answered call"]
    world.until("23:00")
    assert len(world.decisions()) == 1


def test_a_deadline_from_a_field_is_kept_to_the_second() -> None:
    world = World()
    world.live("10:00 web u=anna Delivery Delayed order_id=o1 promised_at=2026-03-02T11:30:00Z")
    world.until("11:30:59")
    assert world.occurrences() == []
    world.until("11:31")
    assert world.occurrences() == ["11:30 promise anna: 10:00"]


def test_an_event_within_the_lateness_still_breaks_the_silence() -> None:
    world = World()
    world.live(
        """
        10:00 web u=anna Help Searched n_results=0
        10:09>10:10:59 web u=anna Chat Started
        """
    )
    world.until("11:00")
    assert world.occurrences() == [] and world.revisions() == [] and world.missed() == []


def test_a_late_event_retracts_and_cancels_what_is_unsent() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=0")
    world.until("10:12")
    assert world.outbox() == ["10:12 call to anna: waiting"]
    world.live("10:05>10:13 web u=anna Chat Started")
    assert world.occurrences() == []
    assert world.revisions() == ["retracted help: late event; decided: call, message is cancelled"]
    assert world.outbox() == ["10:12 call to anna: cancelled retracted: late event"]
    assert world.deliver().n_sent == 0
    world.assert_rebuilds()


def test_what_was_sent_before_a_retraction_is_shown_as_sent() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=0")
    world.until("10:12")
    world.deliver()
    world.live("10:05>10:13 web u=anna Chat Started")
    assert world.occurrences() == []
    assert world.revisions() == ["retracted help: late event; decided: call, message is sent"]
    assert world.outbox() == ["10:12 call to anna: sent"]
    assert world.decisions() == ["10:12 help anna answered call"], "a deed stays a deed"


def test_a_late_event_at_the_very_deadline_retracts() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=0")
    world.until("10:30")
    world.live("10:10>10:31 web u=anna Chat Started")
    assert world.occurrences() == []


def test_a_late_start_whose_time_has_passed_is_missed_not_answered() -> None:
    world = World()
    world.live("12:00 web u=anna Page Viewed")
    world.live("10:00>12:01 web u=anna Help Searched n_results=0")
    assert world.occurrences() == ["10:10 help anna: 10:00"]
    assert world.missed() == ["10:10 help anna"] and world.decisions() == []
    world.until("13:00")
    assert world.missed() == ["10:10 help anna"]


def test_a_late_start_that_is_still_in_time_is_answered_now() -> None:
    world = World()
    world.live("10:25 web u=anna Order Completed")
    world.live("10:10>10:26 web u=anna Help Searched n_results=0")
    assert world.occurrences() == ["10:20 help anna: 10:10"]
    assert world.decisions() == ["10:26 help anna answered call"]


def test_a_late_start_revises_an_occurrence() -> None:
    world = World(project(moment("pair", "a: Order Tracked | b: Chat Started", more="within: 1 hour")))
    world.live(
        """
        10:00 web u=anna Order Tracked order_id=o1
        10:30 web u=anna Chat Started
        10:20>10:40 web u=anna Chat Started
        """
    )
    assert world.occurrences("pair") == ["10:20 pair anna: 10:00 10:20"]
    assert world.revisions() == ["revised pair: late event; decided: call"]
    assert world.decisions() == ["10:30 pair anna answered call"]


def test_an_occurrence_that_comes_back_is_not_decided_again() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=0")
    world.until("10:12")
    world.live("10:05>10:13 web u=bertta a=web2 Chat Started")
    world.merge("anna", "bertta")
    world.advance()
    assert world.occurrences() == []
    world.unmerge()
    world.advance()
    assert world.occurrences() == ["10:10 help anna: 10:00"]
    assert world.decisions() == ["10:12 help anna answered call"]
    assert world.outbox() == ["10:12 call to anna: cancelled retracted: identity"]


def test_a_late_event_behind_a_settled_silence_keeps_the_order_of_repeats() -> None:
    # The later start has the earlier deadline: once both are known, it is the first of the two.
    by = "late: Delivery Delayed | no chat: Chat Started, by late.promised_at"
    world = World(project(moment("soon", by, more="repeat: once per 5 hours")))
    world.live("10:00 web u=anna Delivery Delayed order_id=o1 promised_at=2026-03-02T12:00:00Z")
    world.until("12:05")
    assert world.occurrences("soon") == ["12:00 soon anna: 10:00"]
    world.live("10:30>12:06 web u=anna Delivery Delayed order_id=o2 promised_at=2026-03-02T11:00:00Z")
    assert world.occurrences("soon") == ["11:00 soon anna: 10:30"]
    world.assert_rebuilds()


def test_changed_declarations_fold_again_without_deciding_old_moments() -> None:
    world = World()
    world.live(
        """
        08:00 web u=anna Help Searched n_results=3
        10:00 web u=bertta Help Searched n_results=3
        10:05 web u=cilla Help Searched n_results=0
        """
    )
    world.until("10:18")
    assert world.occurrences() == ["10:15 help cilla: 10:05"]
    wider = moment(
        "help", "searched: Help Searched where n_results < 5 | no chat: Chat Started, for 10 minutes"
    )
    world.reopen(project(wider))
    world.advance()
    assert world.occurrences() == [
        "08:10 help anna: 08:00",
        "10:10 help bertta: 10:00",
        "10:15 help cilla: 10:05",
    ]
    assert world.missed() == ["08:10 help anna"]
    assert world.decisions() == ["10:18 help bertta answered call", "10:18 help cilla answered call"]
    world.assert_rebuilds()


def test_a_moment_that_is_taken_away_retracts_what_it_caught() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=0")
    world.until("10:12")
    world.reopen(project({"moments/help.yaml": None}))
    world.advance()
    assert world.occurrences() == []
    assert world.outbox() == ["10:12 call to anna: cancelled retracted: declarations changed"]
    world.assert_rebuilds()


def test_three_times_every_body_across_reopened_engines_has_one_effect() -> None:
    story = lines(
        """
        10:00 web a=web1 Help Searched n_results=0
        10:01 web u=anna a=web1 Customer Identified
        10:02 web u=anna Consent Granted purpose=marketing
        10:03 app u=anna Product Added product_id=p1
        10:04 web u=bertta Help Searched n_results=0
        """
    )
    once = World()
    once.tell("\n".join(story))
    once.until("10:16")
    once.deliver()
    thrice = World()
    for _ in range(3):
        for line in reversed(story):
            thrice.tell(line)
            thrice.tell(line)
        thrice.reopen()
    thrice.until("10:16")
    thrice.deliver()
    for body in reversed(story):
        thrice.live(body)
        thrice.reopen()
    thrice.deliver()
    for table in ("occurrences", "decisions", "outbox", "customers", "missed"):
        assert getattr(once, table)() == getattr(thrice, table)()
    assert len(thrice.posts) == len(once.posts) == 2
    assert thrice.rows("SELECT n FROM counts WHERE name = 'duplicates'") == [(6 * 5 - 5 + 5,)]
    thrice.assert_rebuilds()


def test_a_failed_transaction_leaves_nothing_and_the_next_does_it_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    world.tell("10:00 web u=anna Help Searched n_results=0")
    world.clock.move(world.clock.now() + 3600 * 1_000_000)
    with monkeypatch.context() as patch:
        patch.setattr(type(world.engine.ledger), "log_advance", _broken)
        with pytest.raises(ZeroDivisionError):
            advance_once(world.engine)
    tables = ("progress", "events", "nodes", "customers", "occurrences", "missed", "decisions", "outbox")
    assert {table: world.rows(f"SELECT count(*) FROM {table}") for table in tables} == {
        table: [(0,)] for table in tables
    }
    world.advance()
    assert world.missed() == ["10:10 help anna"]


def _broken(*given: object) -> None:
    raise ZeroDivisionError


def test_a_customer_without_a_name_is_still_answered_once() -> None:
    world = World(project(action("call", more="transactional: true")))
    world.live("10:00 web Help Searched n_results=0")
    world.until("10:12")
    world.answers = [Sent(True, 200)]
    world.deliver()
    world.until("13:00")
    (headers, _), *others = world.posts
    assert others == [] and headers["webhook-id"]
    assert [line.split(": ")[1] for line in world.outbox()] == ["sent"]


def test_a_process_with_older_declarations_folds_no_further_once_others_are_in_force() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=0")
    older = world.engine
    world.reopen(project({"moments/help.yaml": None}))
    world.advance()
    world.tell("10:30 web u=bertta Help Searched n_results=0")
    with pytest.raises(Conflict, match="declarations"):
        advance_once(older)
    world.until("11:00")
    assert world.occurrences() == []
    world.assert_rebuilds()
