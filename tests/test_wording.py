"""Decisions in plain words: every reason has some; what would have changed one is decided again."""

from __future__ import annotations

import ast
import inspect

import msgspec
import pytest

from hetki.decisions import decide as deciding
from hetki.decisions.decide import decide
from hetki.decisions.question import Assignment, Candidate, Cap, Decision, Question, Reason
from hetki.dialogues import wording
from hetki.dialogues.explaining import Used, decision_words, explain
from hetki.dialogues.wording import PLAIN, Titles, reason_words

AT = 1_772_366_400_000_000
HOUR = 3_600_000_000
TITLES = Titles(
    moments={"late": "A late order"},
    initiatives={"keep_our_word": "Keep our word"},
    actions={"tell": "Tell the new time", "voucher": "Offer a voucher"},
    purposes={"service": "Orders", "marketing": "Offers"},
    sources={"kitchen": "The kitchens"},
    conditions={"late.n_minutes >= 45": "number of minutes of late is at least 45"},
    time_zone="Europe/Helsinki",
)
TELL = Candidate("tell", "service", 4, 1, 0.5, transactional=True, in_force=True)
VOUCHER = Candidate("voucher", "marketing", 3, 2, 1, transactional=False, in_force=True)


def question(*candidates: Candidate, **given: object) -> Question:
    asked = Question(
        "o1", "late", "keep_our_word", "c1", AT, AT + HOUR, AT + 1, list(candidates), 1.0, 0.2, 0.1, 0.5,
        None, None, None, ["e1", "e2"], ["c1"], "p1",
    )  # fmt: skip
    return msgspec.structs.replace(asked, **given)


def told(decision: Decision) -> str:
    return "\n".join(decision_words(decision, TITLES))


CLOSED = {
    "no_basis": question(msgspec.structs.replace(VOUCHER, in_force=False)),
    "data_closed": question(msgspec.structs.replace(VOUCHER, closed_sources=["kitchen"])),
    "not_eligible": question(
        msgspec.structs.replace(
            VOUCHER, condition="late.n_minutes >= 45", values={"late.n_minutes": 20}, eligible=False
        )
    ),
    "no_address": question(msgspec.structs.replace(VOUCHER, reachable=False)),
    "cap_reached": question(VOUCHER, cap=Cap(3, 604_800, 3)),
    "quiet": question(VOUCHER, quiet_until=AT + 2 * HOUR),
    "expired": question(VOUCHER, decided_at=AT + 2 * HOUR),
    "worth_nothing": question(msgspec.structs.replace(VOUCHER, cost=9)),
}


def reason_codes() -> set[str]:
    """The codes of every `Reason(...)` that the source of `decide` can make."""
    calls = [n for n in ast.walk(ast.parse(inspect.getsource(deciding))) if isinstance(n, ast.Call)]
    made = [n for n in calls if isinstance(n.func, ast.Name) and n.func.id == "Reason"]
    return {n.args[0].value for n in made if isinstance(n.args[0], ast.Constant)}


def test_every_reason_code_has_words_for_both_readers() -> None:
    assert reason_codes() == wording._WORDS.keys() >= {"no_basis", "holdout", "highest_value"}
    assert all(words.keys() == {"analyst", "customer"} for words in wording._WORDS.values())


def test_every_gate_that_can_be_made_to_close_says_why() -> None:
    for code, asked in CLOSED.items():
        decision = decide(asked)
        assert [reason.code for reason in decision.reasons] == [code]
        for reader in ("analyst", "customer"):
            for titles in (TITLES, PLAIN):
                words = reason_words(decision.reasons[0], titles, reader)
                assert words and "{" not in words and "_" not in words.replace("n_minutes", "")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("no_basis", "no lawful basis for 'Offers' is in force for this customer"),
        ("data_closed", "it rests on data from The kitchens that was not open to 'Offers'"),
        ("not_eligible", "number of minutes of late is at least 45 (late.n_minutes was 20)"),
        ("no_address", "no address of the customer is known there"),
        ("cap_reached", "3 messages were made in the last 7 days, and 3 is the most"),
        ("quiet", "quiet hours last until Sun 1 Mar 2026, 16:00:00, and the moment passes before"),
        ("expired", "the moment passed at Sun 1 Mar 2026, 15:00:00, before it was decided"),
        ("worth_nothing", "no open answer is worth more than doing nothing"),
    ],
)
def test_the_reasons_name_what_they_used(code: str, words: str) -> None:
    assert words in told(decide(CLOSED[code]))


def test_a_customer_is_told_what_was_chosen_without_our_figures() -> None:
    customer = " ".join(explain(decide(question(TELL, VOUCHER)), TITLES).to_customer)
    assert "We chose 'Tell the new time' for you" in customer and "better for you than 'Offer a" in customer
    assert "points" not in customer and "business" not in customer


def test_the_whole_of_why() -> None:
    asked = question(TELL, msgspec.structs.replace(VOUCHER, in_force=False))
    used = [Used("Delivery Delayed", "kitchen", AT - HOUR, "anna")]
    lines = decision_words(decide(asked), TITLES, used)
    assert [line.strip() for line in lines if line] == [
        "'A late order' was caught at Sun 1 Mar 2026, 14:00:00 and decided at Sun 1 Mar 2026, 14:00:00"
        " (Europe/Helsinki).",
        "What it rests on",
        "Delivery Delayed, from The kitchens, at Sun 1 Mar 2026, 13:00:00: data of anna.",
        "What was weighed",
        "Tell the new time (tell), 3.7 points: chosen; every gate let it through.",
        "Offer a voucher (voucher), 2.4 points: dropped at consent, because no lawful basis for 'Offers' is"
        " in force for this customer.",
        "What was chosen, and why",
        "Tell the new time: it is worth most, 3.7 points: 4 to the customer, 0.2 to the business, less 0.5"
        " for the contact.",
        "Arm 'answered' of initiative 'Keep our word', drawn now and kept for good.",
        "The chance of choosing this was 90%, over the draw of the arm.",
        "What would have changed it",
        "Had 'Orders' been refused: nothing.",
        "In words for the customer",
        "We chose 'Tell the new time' for you, because it seemed to be worth most to you.",
    ]


def test_what_would_have_changed_it_is_decided_again() -> None:
    best = msgspec.structs.replace(VOUCHER, value_customer=9, in_force=False, closed_sources=["kitchen"])
    assert "Had 'consent' and 'data contract' let 'Offer a voucher' through: 'Offer a voucher'." in told(
        decide(question(TELL, best))
    )
    assert "Had 'Orders' been refused: 'Offer a voucher'." in told(decide(question(TELL, VOUCHER)))
    assert "Had 'Offer a voucher' been worth 1.3 points more" in told(decide(question(TELL, VOUCHER)))
    held_out = told(decide(question(TELL, draw=0.05)))
    assert "Had the draw put the customer among those who are answered: 'Tell the new time'." in held_out
    assert "Nothing, held out: the customer is held out of 'Keep our word': 10% of customers" in held_out


def test_all_of_one_purpose_is_refused_at_once() -> None:
    both = question(TELL, msgspec.structs.replace(VOUCHER, purpose="service"))
    assert "Had 'Orders' been refused: nothing." in told(decide(both))


def test_a_standing_arm_and_a_waiting_message_are_told() -> None:
    standing = Assignment("answered", 0.1, AT - HOUR)
    lines = told(decide(question(VOUCHER, standing=standing, quiet_until=AT + HOUR)))
    assert "drawn at an earlier decision" in lines
    assert "it waits, as quiet hours last until Sun 1 Mar 2026, 15:00:00" in lines
    assert "It is sent at Sun 1 Mar 2026, 15:00:00." in lines


def test_a_reason_without_words_is_an_error_not_silence() -> None:
    with pytest.raises(KeyError):
        reason_words(Reason("made_up"))
