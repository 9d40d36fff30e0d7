"""Question and Decision: everything a decision used, and what it came to.

A `Question` holds every value that `decide` may look at: the occurrence, the candidates, the consents, the
contacts so far, the standing assignment, the draw. So a decision is recomputed from its own record, bit for
bit, and a customer can be told whose data was used.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import msgspec

#: Doing nothing is always a candidate.
NOTHING = "nothing"
#: Codes of reasons that say what a condition of an answer looked at.
OF_VALUES = frozenset({"eligible", "not_eligible"})
Arm = Literal["answered", "holdout", "none"]
Scalar = str | int | float | bool | None


class Cap(msgspec.Struct, frozen=True):
    """At most `n_max` contacts in `period_s`; `n_contacts` were made in it so far."""

    n_max: int
    period_s: int
    n_contacts: int


class Candidate(msgspec.Struct, frozen=True):
    """One answer as it stood when it was weighed.

    `in_force`: its purpose has a lawful basis for this customer now; without one `why_closed` says why, as
    far as the customer closed it: `refused` or `restricted`. `closed_sources`: sources whose data
    the occurrence rests on and that may not be used for this purpose. `eligible` is the verdict on
    `condition` over `values`. `reachable`: an address is known at its destination.
    """

    action: str
    purpose: str
    value_customer: float
    value_business: float
    cost: float
    transactional: bool
    in_force: bool
    closed_sources: list[str] = []
    condition: str = ""
    values: dict[str, Scalar] = {}
    eligible: bool = True
    reachable: bool = True
    cap: Cap | None = None
    why_closed: Literal["", "refused", "restricted"] = ""


class Assignment(msgspec.Struct, frozen=True):
    """The arm of a customer in an initiative: drawn once, never again."""

    arm: Arm
    holdout_share: float
    assigned_at: int


class Question(msgspec.Struct, frozen=True):
    """All that a decision may look at. `quiet_until`: when quiet hours end, if it is quiet now.

    `draw` is uniform in [0, 1), fixed by salt, initiative and customer. `data_used` names the bound events
    (hex ids) and `data_of` the leaves they belong to: whose data it was. `context` is what was kept of the
    situation as of the last event that the moment bound, by name. `told_by` names the source of each trait
    that a condition of an answer looked at (`customer.plan`). A moment about an account names the
    `account` (hex id) and its `group`: there the draw is the account's, and the data are of `n_members`.
    `known_of` are the customer's other leaves at that time: its traits may be theirs.
    """

    occurrence_id: str
    moment: str
    initiative: str
    customer: str
    occurred_at: int
    expires_at: int
    decided_at: int
    candidates: list[Candidate]
    customer_weight: float
    business_weight: float
    holdout_share: float
    draw: float
    standing: Assignment | None
    cap: Cap | None
    quiet_until: int | None
    data_used: list[str]
    data_of: list[str]
    program: str
    context: dict[str, Scalar] = {}
    told_by: dict[str, str] = {}
    account: str = ""
    group: str = ""
    n_members: int = 1
    known_of: list[str] = []


class Reason(msgspec.Struct, frozen=True):
    """Why, as a code and its values; `hetki.dialogues.wording` puts it into words."""

    code: str
    values: dict[str, Scalar] = {}


class Weighed(msgspec.Struct, frozen=True):
    """A candidate after gates and scores: `dropped_by` names the gate that closed, with its reason.

    `passed` lists the gates that let it through, in order.
    """

    action: str
    score: float
    passed: list[str]
    dropped_by: str = ""
    reason: Reason | None = None


class Decision(msgspec.Struct, frozen=True):
    """What was decided, and the whole of why. `send_at` is set when a message is to go out.

    `propensity` is the probability with which `chosen` was chosen, over the draw of the assignment.
    """

    decision_id: str
    question: Question
    weighed: list[Weighed]
    arm: Arm
    assigned_now: bool
    chosen: str
    propensity: float
    reasons: list[Reason]
    send_at: int | None


def blanked(decision: Decision) -> Decision:
    """The same decision without the values that it looked at: what was chosen, and by which rules, stays.

    `decide` gives it again from what is left of its question.
    """
    question = decision.question
    candidates = [msgspec.structs.replace(each, values={}) for each in question.candidates]
    question = msgspec.structs.replace(question, candidates=candidates, context={}, group="")
    weighed = [
        msgspec.structs.replace(each, reason=_without_values(each.reason) if each.reason else None)
        for each in decision.weighed
    ]
    reasons = [_without_values(each) for each in decision.reasons]
    return msgspec.structs.replace(decision, question=question, weighed=weighed, reasons=reasons)


def _without_values(reason: Reason) -> Reason:
    if reason.code not in OF_VALUES:
        return reason
    return Reason(reason.code, {"condition": reason.values["condition"]})


def decision_id(occurrence_id: str) -> str:
    """The id of the one decision about an occurrence (32 hex characters)."""
    return blake2b(b"decision\0" + occurrence_id.encode(), digest_size=16).hexdigest()


def draw(salt: str, initiative: str, customer: str) -> float:
    """A uniform number in [0, 1) that is the customer's, or the account's, own in this initiative.

    >>> draw("s", "keep_our_word", "ab") == draw("s", "keep_our_word", "ab")
    True
    """
    digest = blake2b(f"{salt}\0{initiative}\0{customer}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) / (1 << 53)
