"""Explaining: a recorded decision as sentences: what was caught, what it rests on, what was weighed, and why.

What would have been decided under other circumstances is not guessed but decided again, by
`hetki.decisions.decide`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hetki.decisions.decide import GATES, decide, weigh
from hetki.decisions.question import NOTHING, Assignment, Candidate, Decision, Question
from hetki.declarations.durations import spoken
from hetki.dialogues.wording import (
    PLAIN,
    Titles,
    capital,
    counted,
    gate_words,
    points,
    purpose_words,
    reason_words,
    spoken_at,
    values_words,
)

_replace = msgspec.structs.replace


class Used(msgspec.Struct, frozen=True):
    """An event that a decision rests on, and `owner`, whose it was."""

    event: str
    source: str
    occurred_at: int
    owner: str


class Weighing(msgspec.Struct, frozen=True):
    """A candidate in words. `passed` are the gates that let it through; `closed_by` is empty if all did."""

    action: str
    title: str
    score: float
    passed: list[str]
    closed_by: str
    verdict: str


class Explanation(msgspec.Struct, frozen=True):
    """A decision in words: sentences for the analyst, and `to_customer` for the one it is about."""

    caught: str
    data: list[str]
    candidates: list[Weighing]
    choice: list[str]
    otherwise: list[str]
    to_customer: list[str]


def decision_words(decision: Decision, titles: Titles = PLAIN, used: Sequence[Used] = ()) -> list[str]:
    """The whole of why, as lines of text: what `hetki explain` prints."""
    told = explain(decision, titles, used)
    lines = [told.caught, "", "What it rests on", *_indented(told.data), "", "What was weighed"]
    for each in told.candidates:
        lines += _indented([f"{each.title} ({each.action}), {points(each.score)}: {each.verdict}"])
    lines += ["", "What was chosen, and why", *_indented(told.choice)]
    if told.otherwise:
        lines += ["", "What would have changed it", *_indented(told.otherwise)]
    return [*lines, "", "In words for the customer", *_indented(told.to_customer)]


def explain(decision: Decision, titles: Titles, used: Sequence[Used] = ()) -> Explanation:
    """A decision in words. `used` are the events that it rests on, in order, as far as they can be read."""
    question = decision.question
    moment = titles.moments.get(question.moment, question.moment)
    return Explanation(
        caught=f"'{moment}' was caught at {spoken_at(question.occurred_at, titles.time_zone)} and decided at "
        f"{spoken_at(question.decided_at, titles.time_zone)} ({titles.time_zone}).",
        data=_data(question, titles, used),
        candidates=[_weighing(decision, candidate, titles) for candidate in question.candidates],
        choice=_choice(decision, titles),
        otherwise=_otherwise(decision, titles),
        to_customer=_to_customer(decision, titles),
    )


def chosen_words(decision: Decision, titles: Titles) -> str:
    """What was chosen, as a short phrase."""
    if decision.chosen != NOTHING:
        return titles.actions.get(decision.chosen, decision.chosen)
    return "Nothing, held out" if decision.arm == "holdout" else "Nothing"


def _data(question: Question, titles: Titles, used: Sequence[Used]) -> list[str]:
    if used:
        lines = [
            f"{each.event}, from {titles.sources.get(each.source, each.source)}, at "
            f"{spoken_at(each.occurred_at, titles.time_zone)}: data of {each.owner}."
            for each in used
        ]
    else:
        lines = [f"{counted(len(question.data_used), 'event')}, of {counted(len(question.data_of), 'leaf')}."]
    if question.account:
        people = "1 person" if question.n_members == 1 else f"{question.n_members} people"
        lines.append(f"These are data of {people} of the account '{question.group}', as the moment declares.")
    if question.cap is not None:
        made = counted(question.cap.n_contacts, "message")
        lines.append(f"How often we have written: {made} in the last {spoken(question.cap.period_s)}.")
    if question.context:
        lines.append(f"What it was like then: {values_words(question.context)}.")
    looked_at = {name: value for each in question.candidates for name, value in each.values.items()}
    if looked_at:
        lines.append(f"What conditions looked at: {values_words(looked_at)}.")
    for name, source in question.told_by.items():
        lines.append(f"Who told {name}: {titles.sources.get(source, source)}.")
    return lines


def _weighing(decision: Decision, candidate: Candidate, titles: Titles) -> Weighing:
    weighed = next(each for each in decision.weighed if each.action == candidate.action)
    if weighed.reason is not None:
        verdict = (
            f"dropped at {gate_words(weighed.dropped_by)}, because {reason_words(weighed.reason, titles)}"
        )
    elif weighed.action == decision.chosen:
        verdict = "chosen; every gate let it through"
    else:
        verdict = "not chosen; every gate let it through"
    return Weighing(
        candidate.action,
        titles.actions.get(candidate.action, candidate.action),
        weighed.score,
        [gate_words(gate) for gate in weighed.passed],
        gate_words(weighed.dropped_by),
        verdict + ".",
    )


def _choice(decision: Decision, titles: Titles) -> list[str]:
    question = decision.question
    initiative = titles.initiatives.get(question.initiative, question.initiative)
    lines = [f"{chosen_words(decision, titles)}: {reason_words(decision.reasons[0], titles)}."]
    lines += [f"Also: {reason_words(reason, titles)}." for reason in decision.reasons[1:]]
    match decision.arm:
        case "none":
            lines.append("No answer was open, so this decision is not part of the experiment.")
        case arm:
            drawn = "drawn now" if decision.assigned_now else "drawn at an earlier decision"
            lines.append(f"Arm '{arm}' of initiative '{initiative}', {drawn} and kept for good.")
    lines.append(f"The chance of choosing this was {decision.propensity:.0%}, over the draw of the arm.")
    if decision.send_at is not None and decision.send_at > question.decided_at:
        lines.append(f"It is sent at {spoken_at(decision.send_at, titles.time_zone)}.")
    return lines


def _to_customer(decision: Decision, titles: Titles) -> list[str]:
    because = reason_words(decision.reasons[0], titles, "customer")
    if decision.chosen == NOTHING:
        lines = [f"We sent you nothing, because {because}."]
    else:
        lines = [f"We chose '{chosen_words(decision, titles)}' for you, because {because}."]
    lines += [f"{capital(reason_words(each, titles, 'customer'))}." for each in decision.reasons[1:]]
    if decision.question.n_members > 1:
        lines.append("We looked at what your colleagues and you had done, as one company.")
    return list(dict.fromkeys(lines))


def _otherwise(decision: Decision, titles: Titles) -> list[str]:
    """Each circumstance that would have led to another choice, found by deciding again."""
    question = decision.question
    if decision.arm == "holdout":
        other = decide(_answered(question))
        if other.chosen == NOTHING:
            return []
        chosen = titles.actions.get(other.chosen, other.chosen)
        return [f"Had the draw put the customer among those who are answered: '{chosen}'."]
    lines = []
    for candidate in question.candidates:
        if candidate.action == decision.chosen:
            refused = f"{purpose_words(candidate.purpose, titles)} been refused"
            lines += _told(decision, _without(question, candidate.purpose), refused, titles)
            continue
        changed, opened = _opened(question, candidate)
        if opened:
            gates = " and ".join(f"'{gate_words(gate)}'" for gate in opened)
            title = titles.actions.get(candidate.action, candidate.action)
            lines += _told(decision, changed, f"{gates} let '{title}' through", titles)
    scores = {each.action: each.score for each in decision.weighed if not each.dropped_by}
    rest = [(score, action) for action, score in scores.items() if action != decision.chosen]
    if decision.chosen != NOTHING and rest:
        score, action = max(rest)
        short = points(scores[decision.chosen] - score)
        lines.append(
            f"Had '{titles.actions.get(action, action)}' been worth {short} more: a draw between both."
        )
    return lines


def _told(decision: Decision, changed: Question, circumstance: str, titles: Titles) -> list[str]:
    other = decide(_answered(changed))
    if other.chosen == decision.chosen:
        return []
    chosen = "nothing" if other.chosen == NOTHING else f"'{titles.actions.get(other.chosen, other.chosen)}'"
    drawn = ", if the draw allows" if decision.arm == "none" and decision.question.holdout_share else ""
    return [f"Had {circumstance}: {chosen}{drawn}."]


def _answered(question: Question) -> Question:
    """The same question about a customer who is answered."""
    share = question.standing.holdout_share if question.standing else question.holdout_share
    return _replace(question, standing=Assignment("answered", share, question.decided_at))


def _opened(question: Question, candidate: Candidate) -> tuple[Question, list[str]]:
    """The question in which every gate that closes on a candidate is open, and those gates."""
    opened: list[str] = []
    for _ in GATES:
        gate = weigh(question, candidate).dropped_by
        if not gate:
            break
        opened.append(gate)
        match gate:
            case "consent":
                candidate = _replace(candidate, in_force=True)
            case "data_contract":
                candidate = _replace(candidate, closed_sources=[])
            case "eligibility":
                candidate = _replace(candidate, eligible=True)
            case "reach":
                candidate = _replace(candidate, reachable=True)
            case "frequency_cap":
                candidate = _replace(candidate, cap=None)
                question = _replace(question, cap=None)
            case "quiet_hours":
                question = _replace(question, quiet_until=None)
            case _:
                question = _replace(question, decided_at=min(question.decided_at, question.expires_at))
        question = _with(question, candidate)
    return question, opened


def _without(question: Question, purpose: str) -> Question:
    candidates = [
        _replace(each, in_force=each.in_force and each.purpose != purpose) for each in question.candidates
    ]
    return _replace(question, candidates=candidates)


def _with(question: Question, candidate: Candidate) -> Question:
    candidates = [candidate if each.action == candidate.action else each for each in question.candidates]
    return _replace(question, candidates=candidates)


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]
