"""Decide: which answer a customer gets, as a pure function of a question.

Gates close, then the assignment is drawn, then what is left is weighed. Gates are an ordered tuple of
functions, each returning the reason why it closes, or None; the explanation is their trace.
"""

from __future__ import annotations

from typing import Callable

from hetki.decisions.question import (
    NOTHING,
    Arm,
    Candidate,
    Decision,
    Question,
    Reason,
    Weighed,
    decision_id,
)

Gate = Callable[[Question, Candidate], Reason | None]


def consent(question: Question, candidate: Candidate) -> Reason | None:
    """Closes without a lawful basis in force for the answer's purpose (law 4)."""
    if candidate.in_force:
        return None
    match candidate.why_closed:
        case "restricted":
            return Reason("restricted")
        case "refused":
            return Reason("refused", {"purpose": candidate.purpose})
        case _:
            return Reason("no_basis", {"purpose": candidate.purpose})


def data_contract(question: Question, candidate: Candidate) -> Reason | None:
    """Closes when the occurrence rests on data that may not be used for the answer's purpose."""
    if not candidate.closed_sources:
        return None
    closed = ", ".join(candidate.closed_sources)
    return Reason("data_closed", {"purpose": candidate.purpose, "sources": closed})


def eligibility(question: Question, candidate: Candidate) -> Reason | None:
    """Closes when the answer's own condition is not true."""
    if candidate.eligible:
        return None
    return Reason("not_eligible", {"condition": candidate.condition, **candidate.values})


def reach(question: Question, candidate: Candidate) -> Reason | None:
    """Closes when no address of the customer is known where the answer would be sent."""
    return None if candidate.reachable else Reason("no_address")


def frequency_cap(question: Question, candidate: Candidate) -> Reason | None:
    """Closes when the answer, or all contact together, has reached its cap."""
    caps = [("action", candidate.cap)]
    if not candidate.transactional:
        caps.append(("all", question.cap))
    for of, cap in caps:
        if cap is not None and cap.n_contacts >= cap.n_max:
            return Reason(
                "cap_reached",
                {"of": of, "n_max": cap.n_max, "period_s": cap.period_s, "n_contacts": cap.n_contacts},
            )
    return None


def quiet_hours(question: Question, candidate: Candidate) -> Reason | None:
    """Closes when quiet hours outlast the occurrence; shorter ones only make the message wait."""
    until = question.quiet_until
    if candidate.transactional or until is None or until <= question.expires_at:
        return None
    return Reason("quiet", {"quiet_until": until, "expires_at": question.expires_at})


def expiry(question: Question, candidate: Candidate) -> Reason | None:
    """Closes when the moment has passed."""
    if question.decided_at <= question.expires_at:
        return None
    return Reason("expired", {"expires_at": question.expires_at, "decided_at": question.decided_at})


GATES: tuple[tuple[str, Gate], ...] = (
    ("consent", consent),
    ("data_contract", data_contract),
    ("eligibility", eligibility),
    ("reach", reach),
    ("frequency_cap", frequency_cap),
    ("quiet_hours", quiet_hours),
    ("expiry", expiry),
)


def decide(question: Question) -> Decision:
    """The decision about an occurrence: gates, then assignment, then arbitration by declared value.

    Equal questions give equal decisions. The holdout is drawn only if an answer is open, so that both arms
    hold customers who could have been answered.
    """
    weighed = [weigh(question, candidate) for candidate in question.candidates]
    still_open = sorted((w for w in weighed if not w.dropped_by), key=lambda w: (-w.score, w.action))
    best = still_open[0] if still_open and still_open[0].score > 0 else None
    arm, share, assigned_now = _assign(question, bool(still_open))
    if arm == "answered" and best is not None:
        chosen, propensity = best.action, 1.0 - share
    elif best is None:
        chosen, propensity = NOTHING, 1.0
    else:
        chosen, propensity = NOTHING, share
    candidate = next((each for each in question.candidates if each.action == chosen), None)
    send_at = None
    if candidate is not None:
        waits = question.quiet_until is not None and not candidate.transactional
        send_at = question.quiet_until if waits else question.decided_at
    return Decision(
        decision_id(question.occurrence_id),
        question,
        weighed,
        arm,
        assigned_now,
        chosen,
        propensity,
        _reasons(question, weighed, still_open, chosen, share if arm == "holdout" else None),
        send_at,
    )


def weigh(question: Question, candidate: Candidate) -> Weighed:
    """One candidate through the gates, with its score: declared values less the cost of contact."""
    score = (
        question.customer_weight * candidate.value_customer
        + question.business_weight * candidate.value_business
        - candidate.cost
    )
    passed: list[str] = []
    for name, gate in GATES:
        reason = gate(question, candidate)
        if reason is not None:
            return Weighed(candidate.action, score, passed, name, reason)
        passed.append(name)
    return Weighed(candidate.action, score, passed)


def _assign(question: Question, is_open: bool) -> tuple[Arm, float, bool]:
    """The arm, the holdout share it was drawn with, and whether it was drawn just now."""
    if question.standing is not None:
        standing = question.standing
        return (standing.arm if is_open else "none"), standing.holdout_share, False
    if not is_open:
        return "none", question.holdout_share, False
    arm: Arm = "holdout" if question.draw < question.holdout_share else "answered"
    return arm, question.holdout_share, True


def _reasons(
    question: Question,
    weighed: list[Weighed],
    still_open: list[Weighed],
    chosen: str,
    held_out_at: float | None,
) -> list[Reason]:
    """At most four reasons, the weightiest first; `held_out_at` is the share of a holdout."""
    if held_out_at is not None:
        of = {"of": "account"} if question.account else {}
        return [Reason("holdout", {"initiative": question.initiative, "share": held_out_at, **of})]
    if chosen == NOTHING:
        closed = [w.reason for w in weighed if w.reason is not None]
        return closed[:4] or [Reason("worth_nothing", {})]
    winner = next(c for c in question.candidates if c.action == chosen)
    reasons = [
        Reason(
            "highest_value",
            {
                "score": still_open[0].score,
                "customer": question.customer_weight * winner.value_customer,
                "business": question.business_weight * winner.value_business,
                "cost": winner.cost,
            },
        )
    ]
    if len(still_open) > 1:
        second = still_open[1]
        reasons.append(Reason("instead_of", {"action": second.action, "score": second.score}))
    if winner.condition:
        reasons.append(Reason("eligible", {"condition": winner.condition, **winner.values}))
    if question.quiet_until is not None and not winner.transactional:
        reasons.append(Reason("waits_for_morning", {"quiet_until": question.quiet_until}))
    return reasons
