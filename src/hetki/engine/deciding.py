"""Deciding: newly caught occurrences -> decisions, assignments and messages, in one order.

The question is put together here from what the stores hold; the answer is `hetki.decisions.decide`, which
looks at nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from hetki.decisions.action import Action
from hetki.decisions.contact import quiet_until, zone_of
from hetki.decisions.decide import decide
from hetki.decisions.question import Candidate, Cap, Decision, Question, Scalar, draw
from hetki.dialogues.message import Message, message_id
from hetki.dialogues.template import render
from hetki.engine.folding import Caught, Repair
from hetki.engine.project import Project
from hetki.errors import Invalid
from hetki.events.event import LeafId
from hetki.identity.identifier import Namespace, NodeId, as_leaf
from hetki.moments.fold import Folded, Program, in_force
from hetki.moments.moment import Moment, Occurrence
from hetki.patterns.condition import holds
from hetki.settings import SECOND
from hetki.store.ledger import Ledger
from hetki.store.state import State


class Decided(msgspec.Struct, frozen=True):
    """How many occurrences were decided, and how many came too late."""

    n_decided: int
    n_missed: int


def decide_all(
    project: Project,
    program: Program,
    state: State,
    ledger: Ledger,
    caught: Sequence[Caught],
    folded: Mapping[LeafId, Folded],
    now: int,
) -> Decided:
    """Decide every occurrence that was not handled before, in order of (occurred_at, moment, id)."""
    handled = ledger.handled(each.occurrence.occurrence_id for each in caught)
    new = [each for each in caught if each.occurrence.occurrence_id not in handled]
    new.sort(
        key=lambda each: (each.occurrence.occurred_at, each.occurrence.moment, each.occurrence.occurrence_id)
    )
    members = state.members({each.customer for each in new})
    n_decided = 0
    for each in new:
        occurrence, customer = each.occurrence, each.customer
        if now > occurrence.expires_at:
            ledger.add_missed(
                occurrence.occurrence_id,
                occurrence.moment,
                customer,
                occurrence.occurred_at,
                occurrence.expires_at,
                now,
            )
            continue
        nodes = members[customer]
        question = ask(project, program, ledger, each, folded[customer], nodes, now)
        decision = decide(question)
        ledger.record(decision, customer)
        n_decided += 1
        message = compose(project, state, decision, occurrence, folded[customer], customer, nodes)
        if message is not None:
            ledger.post(message)
    return Decided(n_decided, len(new) - n_decided)


def apply_repairs(state: State, ledger: Ledger, repairs: Iterable[Repair], now: int) -> None:
    """Tell in the ledger what repaired history changed; a retraction cancels what is unsent."""
    for repair in repairs:
        occurrence = repair.caught.occurrence
        found = ledger.decision(occurrence.occurrence_id)
        detail = "not decided"
        if found is not None:
            detail = f"decided: {found.chosen}"
            if repair.kind == "retracted":
                ledger.cancel([found.decision_id], f"retracted: {repair.cause}")
                status = ledger.status_of(found.decision_id)
                detail += f", message is {status}" if status else ""
        ledger.add_revision(
            occurrence.occurrence_id,
            now,
            repair.kind,
            repair.cause,
            occurrence.moment,
            repair.caught.customer,
            detail,
        )


def ask(
    project: Project,
    program: Program,
    ledger: Ledger,
    caught: Caught,
    folded: Folded,
    nodes: Mapping[NodeId, Namespace],
    now: int,
) -> Question:
    """Everything that the decision about an occurrence may look at."""
    occurrence, customer = caught.occurrence, caught.customer
    moment = project.moments[occurrence.moment]
    leaves = [as_leaf(node) for node in nodes]
    open_bits = in_force(program, folded, now)
    bits = {name: 1 << number for number, (name, _) in enumerate(program.purposes)}
    candidates = [
        _candidate(
            project, ledger, moment, project.actions[name], caught, folded, leaves, now, open_bits, bits
        )
        for name in moment.answers
    ]
    zone = zone_of(folded.traits.get("timezone"), project.settings.time_zone)
    cap = None
    if project.contact_cap is not None:
        n_max, period_s = project.contact_cap
        cap = Cap(n_max, period_s, ledger.n_contacts(leaves, now - period_s * SECOND))
    initiative = moment.initiative or moment.name
    return Question(
        occurrence_id=occurrence.occurrence_id,
        moment=moment.name,
        initiative=initiative,
        customer=customer.hex(),
        occurred_at=occurrence.occurred_at,
        expires_at=occurrence.expires_at,
        decided_at=now,
        candidates=candidates,
        customer_weight=project.weights.customer_weight,
        business_weight=project.weights.business_weight,
        holdout_share=moment.holdout_share,
        draw=draw(project.settings.holdout_salt, initiative, customer.hex()),
        standing=ledger.standing(initiative, leaves),
        cap=cap,
        quiet_until=quiet_until(now, project.quiet_hours, zone),
        data_used=[bound.event_id.hex() for bound in occurrence.bound],
        data_of=sorted({bound.leaf.hex() for bound in occurrence.bound}),
        program=program.version,
    )


def _candidate(
    project: Project,
    ledger: Ledger,
    moment: Moment,
    action: Action,
    caught: Caught,
    folded: Folded,
    leaves: Sequence[LeafId],
    now: int,
    open_bits: int,
    bits: Mapping[str, int],
) -> Candidate:
    occurrence = caught.occurrence
    bit = bits[action.purpose]
    condition = project.eligible.get((moment.name, action.action))
    cap = None
    if action.action in project.action_caps:
        n_max, period_s = project.action_caps[action.action]
        cap = Cap(n_max, period_s, ledger.n_contacts(leaves, now - period_s * SECOND, action.action))
    return Candidate(
        action=action.action,
        purpose=action.purpose,
        value_customer=action.value.customer,
        value_business=action.value.business,
        cost=action.cost,
        transactional=action.transactional,
        in_force=bool(open_bits & bit),
        closed_sources=sorted({bound.source for bound in occurrence.bound if not bound.purposes & bit}),
        condition=action.eligible,
        values=_values(condition.references() if condition else [], occurrence, folded),
        eligible=condition is None or holds(condition, occurrence.bound, folded.traits),
        cap=cap,
    )


def _values(
    references: Iterable[tuple[str, str]], occurrence: Occurrence, folded: Folded
) -> dict[str, Scalar]:
    """What a condition looked at, by the names in it."""
    steps = {bound.step: bound.values for bound in occurrence.bound}
    values: dict[str, Scalar] = {}
    for step, field in references:
        value = folded.traits.get(field) if step == "customer" else steps.get(step, {}).get(field)
        values[f"{step}.{field}"] = value if isinstance(value, (str, int, float, bool)) else None
    return values


def compose(
    project: Project,
    state: State,
    decision: Decision,
    occurrence: Occurrence,
    folded: Folded,
    customer: LeafId,
    nodes: Mapping[NodeId, Namespace],
) -> Message | None:
    """The one message of a decision, in words; None when nothing is to be said.

    A message that cannot be put into words, or has nobody to go to, is kept as failed with its reason.
    """
    if decision.send_at is None:
        return None
    action = project.actions[decision.chosen]
    destination = project.destinations[action.destination]
    names = state.values_of(nodes)
    traits: dict[str, object] = {**names, **folded.traits}
    values = {bound.step: dict(bound.values) for bound in occurrence.bound}
    recipient = str(traits.get("email", "")) if destination.kind == "email" else _known_as(names, customer)
    subject = body = detail = ""
    try:
        rendered = render(
            project.templates[action.template],
            str(traits.get("locale", "")),
            {**values, "customer": traits},
            zone_of(traits.get("timezone"), project.settings.time_zone),
        )
        subject, body = rendered.subject, rendered.body
        if not recipient:
            detail = "no e-mail address is known"
    except Invalid as error:
        detail = str(error)
    return Message(
        message_id=message_id(decision.decision_id, action.destination),
        decision_id=decision.decision_id,
        moment=occurrence.moment,
        action=action.action,
        purpose=action.purpose,
        transactional=action.transactional,
        destination=action.destination,
        customer=customer,
        created_at=decision.question.decided_at,
        due_at=decision.send_at,
        expires_at=occurrence.expires_at,
        recipient=recipient,
        subject=subject,
        body=body,
        status="failed" if detail else "waiting",
        detail=detail,
    )


def _known_as(names: Mapping[str, str], customer: LeafId) -> str:
    """How a webhook knows the customer: by user id, else by anonymous id, else by ours."""
    return names.get("user_id") or names.get("anonymous_id") or customer.hex()
