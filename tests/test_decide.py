"""Decide: gates in order with reasons, the holdout, caps, quiet hours, and why is always recorded."""

from __future__ import annotations

from datetime import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import World, action, moment, project

from hetki.decisions.contact import quiet_until
from hetki.decisions.decide import GATES, decide
from hetki.decisions.question import NOTHING, Assignment, Candidate, Cap, Decision, Question, draw
from hetki.settings import SECOND

HELP = "searched: Help Searched where n_results = 0 | no chat: Chat Started, for 10 minutes"
#: Answers the whole of the help moment with these.
SEARCH = "10:00 web u={} Help Searched n_results=0 topic={}"


def helped(answers: str, holdout: str = "0%", more: str = "") -> dict[str, str]:
    return moment("help", HELP, answers, holdout=holdout, more=more)


def trace(world: World) -> list[str]:
    """Each candidate of each decision: what passed, what dropped it."""
    return [
        f"{each.action} {len(each.passed)} {each.dropped_by or 'open'} {each.score:g}"
        for record in world.records()
        for each in record.weighed
    ]


def assert_recomputes(world: World) -> None:
    """Every decision is what its own record says, bit for bit, also after it was written down and read."""
    for record in world.records():
        again = decide(msgspec.json.decode(msgspec.json.encode(record.question), type=Question))
        assert msgspec.json.encode(again) == msgspec.json.encode(record)
        assert again == record


def test_the_highest_value_wins_and_says_why() -> None:
    changes = (
        helped("call, chat, guide")
        | action("chat", customer=6, more="cost: 1")
        | action("guide", customer=-1)
    )
    world = World(project(changes))
    world.live(SEARCH.format("anna", "where"))
    world.until("10:12")
    (record,) = world.records()
    assert trace(world) == ["call 7 open 4", "chat 7 open 5", "guide 7 open -1"]
    assert (record.arm, record.chosen, record.propensity) == ("answered", "chat", 1.0)
    assert [(each.code, each.values.get("score"), each.values.get("action")) for each in record.reasons] == [
        ("highest_value", 5.0, None),
        ("instead_of", 4.0, "call"),
    ]
    assert record.question.data_of == [world.node("anna").hex()] and len(record.question.data_used) == 1
    assert_recomputes(world)


def test_nothing_is_always_a_candidate() -> None:
    world = World(project(helped("guide") | action("guide", customer=1, more="cost: 1")))
    world.live(SEARCH.format("anna", "where"))
    world.until("10:12")
    (record,) = world.records()
    assert (record.arm, record.chosen, record.propensity) == ("answered", NOTHING, 1.0)
    assert [each.code for each in record.reasons] == ["worth_nothing"] and world.outbox() == []


def test_an_answer_that_is_not_eligible_is_dropped_with_what_was_looked_at() -> None:
    only = "eligible: searched.topic = 'where' and customer.plan = 'private'"
    world = World(project(helped("call, chat") | action("chat", customer=9, more=only)))
    world.live(
        "09:00 web u=anna Customer Identified plan=private\n09:00 web u=bertta Customer Identified plan=club"
    )
    for name in ("anna", "bertta", "cilla"):
        world.live(SEARCH.format(name, "where"))
    world.until("10:12")
    chosen = sorted(line.split(" ", 1)[1] for line in world.decisions())
    assert chosen == ["help anna answered chat", "help bertta answered call", "help cilla answered call"]
    for record in world.records():
        (chat,) = [each for each in record.weighed if each.action == "chat"]
        if chat.dropped_by:
            assert chat.dropped_by == "eligibility" and chat.reason is not None
            plan = chat.reason.values["customer.plan"]
            assert plan in ("club", None) and chat.reason.values["searched.topic"] == "where"
    assert_recomputes(world)


CAPPED = '[contact]\ncap = "1 per 2 hours"\n'


def test_the_cap_counts_what_was_sent_and_what_waits() -> None:
    world = World(project(toml=CAPPED))
    for hour in ("10:00", "10:30", "11:00"):
        world.live(f"{hour} web u=anna Help Searched n_results=0")
    world.until("11:11")
    assert world.decisions() == [
        "10:30 help anna answered call",
        "11:00 help anna none nothing",
        "11:11 help anna none nothing",
    ]
    assert [each.weighed[0].dropped_by for each in world.records()] == ["", "frequency_cap", "frequency_cap"]
    world.live("12:31 web u=anna Help Searched n_results=0")
    world.until("12:42")
    assert world.decisions()[-1] == "12:42 help anna answered call", "the period is over"
    assert_recomputes(world)


def test_a_cancelled_message_is_no_contact() -> None:
    world = World(project(toml=CAPPED))
    world.live("10:00 web u=anna Help Searched n_results=0")
    world.until("10:12")
    world.live("10:05>10:13 web u=anna Chat Started\n10:20 web u=anna Help Searched n_results=0")
    world.until("10:31")
    assert [line.split(": ")[1] for line in world.outbox()] == ["cancelled retracted", "waiting"]


def test_a_transactional_answer_is_exempt_from_the_cap_and_does_not_count() -> None:
    changes = (
        action("call", more="transactional: true")
        | helped("call")
        | moment("seen", "a: Order Tracked", "note")
    )
    world = World(project(changes | action("note"), toml=CAPPED))
    for hour in ("10:00", "10:20"):
        world.live(f"{hour} web u=anna Help Searched n_results=0")
    world.until("10:31")
    world.live("10:32 web u=anna Order Tracked")
    assert [line.split(" ", 2)[2] for line in world.decisions()] == [
        "anna answered call",
        "anna answered call",
        "anna answered note",
    ]


def test_the_cap_of_an_action_counts_only_it() -> None:
    world = World(project(helped("call, chat") | action("chat", customer=9, more="cap: 1 per 1 day")))
    for hour in ("10:00", "10:30"):
        world.live(f"{hour} web u=anna Help Searched n_results=0")
    world.until("10:41")
    assert [line.split()[-1] for line in world.decisions()] == ["chat", "call"]
    reason = world.records()[1].weighed[1].reason
    assert reason is not None and reason.values["of"] == "action"


def test_the_cap_counts_over_all_leaves_of_a_merged_customer() -> None:
    world = World(project(toml=CAPPED))
    world.live("10:00 web u=anna Help Searched n_results=0")
    world.until("10:12")
    world.live("10:13 web u=bertta Page Viewed")
    world.merge("anna", "bertta")
    world.live("10:20 web u=bertta Help Searched n_results=0")
    world.until("10:31")
    assert world.decisions()[-1] == "10:31 help anna+bertta none nothing"
    assert_recomputes(world)


NIGHT = '[contact]\nquiet_hours = "21:00-08:00"\n'


def test_in_quiet_hours_a_message_waits_for_the_morning() -> None:
    world = World(project(moment("help", HELP, more="expires: 12 hours"), toml=NIGHT))
    world.live("22:00 web u=anna Help Searched n_results=0")
    world.until("22:11")
    assert world.decisions() == ["22:11 help anna answered call"]
    assert world.outbox() == ["2/08:00 call to anna: waiting"]
    assert [each.code for each in world.records()[0].reasons] == ["highest_value", "waits_for_morning"]
    world.until("2/07:59:59")
    assert world.deliver().n_sent == 0
    world.until("2/08:00")
    assert world.deliver().n_sent == 1
    assert_recomputes(world)


def test_quiet_hours_that_outlast_the_moment_close_it() -> None:
    world = World(project(toml=NIGHT))
    world.live("22:00 web u=anna Help Searched n_results=0")
    world.until("22:11")
    assert world.decisions() == ["22:11 help anna none nothing"]
    assert world.records()[0].weighed[0].dropped_by == "quiet_hours"


def test_quiet_hours_are_those_of_the_customers_zone() -> None:
    world = World(project(toml=NIGHT))
    world.live(
        "09:00 web u=anna Customer Identified timezone=Asia/Tokyo\n13:00 web u=anna Help Searched n_results=0"
    )
    world.live("13:00 web u=bertta Help Searched n_results=0")
    world.until("13:11")
    assert world.decisions() == ["13:11 help anna none nothing", "13:11 help bertta answered call"]


def test_a_transactional_answer_may_break_the_silence_of_the_night() -> None:
    world = World(project(action("call", more="transactional: true"), toml=NIGHT))
    world.live("22:00 web u=anna Help Searched n_results=0")
    world.until("22:11")
    assert world.outbox() == ["22:11 call to anna: waiting"] and world.deliver().n_sent == 1


@given(
    st.integers(0, 86_399), st.integers(0, 23), st.integers(0, 23), st.sampled_from(["UTC", "Asia/Kathmandu"])
)
def test_quiet_hours_end_within_a_day_and_then_it_is_not_quiet(
    at_s: int, begins: int, ends: int, zone: str
) -> None:
    until = quiet_until(at_s * SECOND, (time(begins), time(ends)), zone)
    if until is not None:
        assert 0 < until - at_s * SECOND <= 24 * 3600 * SECOND
        assert quiet_until(until, (time(begins), time(ends)), zone) is None


# -- assignment

HALF = project(helped("call", holdout="50%") | moment("seen", "a: Order Tracked", "call", holdout="50%"))


def test_a_customer_keeps_the_arm_in_every_moment_of_an_initiative() -> None:
    world = World(HALF)
    users = [f"user{number}" for number in range(40)]
    for user in users:
        world.tell(f"10:00 web u={user} Help Searched n_results=0")
    world.until("10:12")
    for user in users:
        world.tell(f"10:13 web u={user} Order Tracked")
    world.advance()
    arms: dict[str, set[str]] = {}
    for line in world.decisions():
        _, _, user, arm, chosen = line.split()
        arms.setdefault(user, set()).add(arm)
        assert chosen == {"holdout": NOTHING, "answered": "call"}[arm]
    assert all(len(each) == 1 for each in arms.values())
    held_out = sum(each == {"holdout"} for each in arms.values())
    assert 10 <= held_out <= 30
    assert len(world.rows("SELECT 1 FROM assignments")) == 40
    assert {record.propensity for record in world.records()} == {0.5}
    assert sum(record.assigned_now for record in world.records()) == 40
    assert_recomputes(world)


def test_the_share_may_change_but_a_drawn_arm_stays() -> None:
    world = World(HALF)
    world.tell("\n".join(f"10:00 web u=user{number} Help Searched n_results=0" for number in range(20)))
    world.until("10:12")
    before = {str(row[0]): row[1] for row in world.rows("SELECT customer, arm FROM assignments")}
    world.reopen(project(helped("call", holdout="0%")))
    world.tell("\n".join(f"10:20 web u=user{number} Help Searched n_results=0" for number in range(20)))
    world.until("10:32")
    rows = world.rows(
        "SELECT customer, arm, holdout_share FROM decisions WHERE decided_at > ?", world.clock.now() - 1
    )
    assert {str(row[0]): row[1] for row in rows} == before and {row[2] for row in rows} == {0.5}
    assert_recomputes(world)


def two_arms() -> tuple[World, str, str]:
    """A world with one customer in each arm: (world, answered, held out)."""
    world = World(HALF)
    arms: dict[str, str] = {}
    for number in range(20):
        world.tell(f"10:00 web u=user{number} Help Searched n_results=0")
    world.until("10:12")
    for line in world.decisions():
        arms.setdefault(line.split()[3], line.split()[2])
    return world, arms["answered"], arms["holdout"]


@pytest.mark.parametrize("first", ["answered", "holdout"])
def test_on_a_merge_the_first_assignment_stands_and_the_crossover_is_seen(first: str) -> None:
    world = World(HALF)
    _, answered, held_out = two_arms()
    one, other = (answered, held_out) if first == "answered" else (held_out, answered)
    world.live(f"10:00 web u={one} Help Searched n_results=0")
    world.until("10:11")
    world.live(f"10:11 web u={other} Help Searched n_results=0")
    world.until("10:22")
    world.merge(one, other)
    world.advance()
    world.live(f"10:30 web u={other} Order Tracked\n10:31 web u={one} Order Tracked")
    assert [line.split()[3] for line in world.decisions()][-2:] == [first, first]
    assert len(world.rows("SELECT DISTINCT arm FROM assignments")) == 2, (
        "both draws are kept, so it is counted"
    )
    world.unmerge()
    world.advance()
    world.live(f"10:40 web u={one} Order Tracked")
    assert world.decisions()[-1].split()[3] == first
    world.live(f"10:41 web u={other} Order Tracked")
    assert world.decisions()[-1].split()[3] != first, "each has its own again"
    assert_recomputes(world)


def test_who_could_not_be_answered_is_not_in_the_experiment() -> None:
    world = World(project(helped("remind", holdout="50%")))
    world.tell("\n".join(f"10:00 web u=user{number} Help Searched n_results=0" for number in range(9)))
    world.until("10:12")
    assert {line.split(" ", 3)[3] for line in world.decisions()} == {"none nothing"}
    assert world.rows("SELECT 1 FROM assignments") == []


# -- the pure function

CANDIDATES = st.lists(
    st.builds(
        Candidate,
        action=st.sampled_from(["a", "b", "c"]),
        purpose=st.just("service"),
        value_customer=st.floats(-5, 5),
        value_business=st.floats(-5, 5),
        cost=st.floats(0, 3),
        transactional=st.booleans(),
        in_force=st.booleans(),
        closed_sources=st.lists(st.just("shop"), max_size=1),
        eligible=st.booleans(),
        cap=st.none() | st.builds(Cap, st.integers(0, 2), st.just(60), st.integers(0, 2)),
    ),
    max_size=3,
    unique_by=lambda each: each.action,
)
QUESTIONS = st.builds(
    Question,
    occurrence_id=st.just("0" * 32),
    moment=st.just("m"),
    initiative=st.just("i"),
    customer=st.just("c"),
    occurred_at=st.just(0),
    expires_at=st.just(10),
    decided_at=st.integers(0, 12),
    candidates=CANDIDATES,
    customer_weight=st.floats(0, 2),
    business_weight=st.floats(0, 2),
    holdout_share=st.floats(0, 0.5),
    draw=st.floats(0, 1, exclude_max=True),
    standing=st.none()
    | st.builds(Assignment, st.sampled_from(["answered", "holdout"]), st.floats(0, 0.5), st.just(0)),
    cap=st.none() | st.builds(Cap, st.integers(0, 2), st.just(60), st.integers(0, 2)),
    quiet_until=st.none() | st.integers(0, 20),
    data_used=st.just([]),
    data_of=st.just([]),
    program=st.just("p"),
)


@given(QUESTIONS)
def test_a_decision_is_a_function_of_its_question(question: Question) -> None:
    decision = decide(question)
    again = msgspec.json.decode(msgspec.json.encode(decision), type=Decision)
    assert decide(again.question) == again == decision
    assert 0 <= decision.propensity <= 1 and 1 <= len(decision.reasons) <= 4
    gates = [name for name, _ in GATES]
    by_action = {each.action: each for each in decision.weighed}
    for each in decision.weighed:
        assert each.passed == gates[: len(each.passed)]
        assert (each.dropped_by == "") == (len(each.passed) == len(gates)) == (each.reason is None)
        assert each.dropped_by in ("", *gates[len(each.passed) : len(each.passed) + 1])
    if decision.chosen != NOTHING:
        chosen = by_action[decision.chosen]
        assert not chosen.dropped_by and decision.arm == "answered" and decision.send_at is not None
        assert chosen.score == max(each.score for each in decision.weighed if not each.dropped_by) > 0
    else:
        assert decision.send_at is None
    is_open = any(not each.dropped_by for each in decision.weighed)
    assert (decision.arm == "none") == (not is_open)
    if question.standing is not None and is_open:
        assert decision.arm == question.standing.arm and not decision.assigned_now


@given(QUESTIONS)
def test_propensities_are_the_shares_of_the_draw(question: Question) -> None:
    """Over a uniform draw the chosen answers come with the probability that is recorded."""
    question = msgspec.structs.replace(question, standing=None)
    low = decide(msgspec.structs.replace(question, draw=0.0))
    high = decide(msgspec.structs.replace(question, draw=0.999999))
    if low.chosen != high.chosen:
        assert (low.arm, high.arm) == ("holdout", "answered")
        assert low.propensity + high.propensity == pytest.approx(1)
        assert low.propensity == question.holdout_share
    else:
        assert low.propensity == 1.0 or question.holdout_share == 0


def test_draws_are_uniform_and_a_customers_own() -> None:
    drawn = [draw("salt", "i", f"{number:032x}") for number in range(2000)]
    assert all(0 <= each < 1 for each in drawn) and len(set(drawn)) == 2000
    assert 0.47 < sum(drawn) / 2000 < 0.53
    assert draw("salt", "other", f"{0:032x}") != drawn[0] != draw("pepper", "i", f"{0:032x}")
