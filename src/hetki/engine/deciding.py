"""Deciding: newly caught occurrences -> decisions, assignments and messages, in one order.

The question is put together here from what the stores hold; the answer is `hetki.decisions.decide`, which
looks at nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from hetki.consent.statements import Why, whole, why
from hetki.decisions.action import Action
from hetki.decisions.contact import quiet_until, zone_of
from hetki.decisions.decide import decide
from hetki.decisions.question import Candidate, Cap, Decision, Question, Scalar, draw
from hetki.dialogues.destination import Destination, is_address
from hetki.dialogues.message import Message, message_id
from hetki.dialogues.template import render
from hetki.engine.across import traits_of
from hetki.engine.engine import Engine
from hetki.engine.folding import Caught, Repair
from hetki.engine.project import Project
from hetki.errors import Invalid
from hetki.events.event import LeafId, utc
from hetki.identity.identifier import LEAVES, NodeId, as_leaf
from hetki.identity.survival import is_taken_back
from hetki.moments.fold import Folded, Program, decode
from hetki.moments.moment import Moment, Occurrence
from hetki.patterns.condition import Condition, holds
from hetki.patterns.run import OPEN_TO, Bound
from hetki.patterns.scope import ACCOUNT, CONTEXT, CUSTOMER
from hetki.patterns.tree import Known, walk
from hetki.settings import SECOND
from hetki.store.accounts import groups_of
from hetki.store.chain import SALT_BYTES
from hetki.store.ledger import Ledger
from hetki.store.state import State

#: What stands in the place of a source for the events that a moment's aggregates count.
EARLIER = "earlier events that it rests on"


class Situation(msgspec.Struct, frozen=True):
    """One occurrence with all that is known of its customer: folded state, leaves, names, and the time.

    `owners` are those of the leaves that events can belong to.

    `leaf` is the one that deeds are recorded for; they stay with it, also after an unmerge. Of a moment about
    an account, the customer is the member whose event was bound last, and `n_members` is how many customers'
    events it rests on.
    """

    occurrence: Occurrence
    customer: LeafId
    leaf: LeafId
    folded: Folded
    leaves: list[LeafId]
    owners: list[LeafId]
    names: dict[str, str]
    now: int
    account: LeafId | None = None
    group: str = ""
    n_members: int = 1

    def recipient(self, destination: Destination) -> str:
        """Where a destination reaches the customer; "" if it does not.

        That is an address for e-mail; a webhook knows customers by user id, else anonymous id, else ours.
        """
        if destination.kind == "email":
            name = "" if is_taken_back(self.folded.heard, "email") else self.names.get("email", "")
            address = str(self.folded.traits.get("email") or name)
            return address if is_address(address) else ""
        return self.names.get("user_id") or self.names.get("anonymous_id") or self.customer.hex()


class Decided(msgspec.Struct, frozen=True):
    """How many occurrences were decided, and how many came too late."""

    n_decided: int
    n_missed: int


def decide_all(
    engine: Engine,
    project: Project,
    program: Program,
    caught: Sequence[Caught],
    folded: Mapping[LeafId, Folded],
    now: int,
) -> Decided:
    """Decide every occurrence that was not handled before, in order of (occurred_at, moment, id).

    Missed is what has expired, and what a restored backup knows nothing of but may have been answered.
    `project` and `program` are those that are in force from now on.
    """
    ledger = engine.ledger
    handled = ledger.handled(each.occurrence.occurrence_id for each in caught)
    new = [each for each in caught if each.occurrence.occurrence_id not in handled]
    new.sort(
        key=lambda each: (each.occurrence.occurred_at, each.occurrence.moment, each.occurrence.occurrence_id)
    )
    missed = []
    in_time = []
    held_until = ledger.held_until() if new else 0
    for each in new:
        occurrence = each.occurrence
        if held_until < occurrence.occurred_at and now <= occurrence.expires_at:
            in_time.append(each)
            continue
        leaf = _leaf_of(project, occurrence)
        expired = occurrence.occurred_at, occurrence.expires_at
        missed.append((occurrence.occurrence_id, occurrence.moment, leaf, *expired, now))
    for situation in _situations(project, engine.state, in_time, folded, now):
        decision = decide(ask(project, program, ledger, situation))
        ledger.record(decision, situation.leaf, engine.chance.bytes(SALT_BYTES))
        message = compose(project, decision, situation)
        if message is not None:
            ledger.post(message)
    ledger.add_missed(missed)
    return Decided(len(new) - len(missed), len(missed))


def miss_all(project: Project, ledger: Ledger, caught: Sequence[Caught], now: int) -> None:
    """Record occurrences as missed, so that they are never answered; those handled before stay so."""
    handled = ledger.handled(each.occurrence.occurrence_id for each in caught)
    new = [each.occurrence for each in caught if each.occurrence.occurrence_id not in handled]
    ledger.add_missed(
        (each.occurrence_id, each.moment, _leaf_of(project, each), each.occurred_at, each.expires_at, now)
        for each in new
    )


def _leaf_of(project: Project, occurrence: Occurrence) -> LeafId:
    """The leaf that deeds about an occurrence are recorded for: that of its first event, or, if it is about
    an account, of the member whose event was bound last."""
    is_about_account = project.moments[occurrence.moment].is_about_account
    return occurrence.last.leaf if is_about_account else occurrence.events[0].leaf


def _situations(
    project: Project,
    state: State,
    caught: Sequence[Caught],
    folded: Mapping[LeafId, Folded],
    now: int,
) -> Iterator[Situation]:
    """Everything known of the customers of occurrences, one after the other."""
    of_accounts = {each.customer for each in caught if _about(project, each)}
    leaves = {one.leaf for each in caught if _about(project, each) for one in each.occurrence.events}
    owners = state.customers_of(NodeId(leaf) for leaf in leaves)
    groups = groups_of(state.db, of_accounts)
    customers = {*(each.customer for each in caught if not _about(project, each)), *owners.values()}
    members = state.members(customers)
    rows = state.load_customers(customers - folded.keys())
    known = {**{customer: decode(row.state) for customer, row in rows.items()}, **folded}
    for each in caught:
        leaf, customer = _leaf_of(project, each.occurrence), each.customer
        situation = Situation(each.occurrence, customer, leaf, Folded(), [], [], {}, now)
        if _about(project, each):
            customer = owners[NodeId(leaf)]
            n_members = len({owners[NodeId(one.leaf)] for one in each.occurrence.events})
            situation = msgspec.structs.replace(
                situation, account=each.customer, group=groups[each.customer], n_members=n_members
            )
        yield msgspec.structs.replace(
            situation,
            customer=customer,
            folded=known[customer],
            leaves=[as_leaf(node) for node in members[customer]],
            owners=[as_leaf(node) for node, space in members[customer].items() if space in LEAVES],
            names=state.values_of(members[customer]),
        )


def _about(project: Project, caught: Caught) -> bool:
    return project.moments[caught.occurrence.moment].is_about_account


def apply_repairs(ledger: Ledger, repairs: Sequence[Repair], now: int) -> None:
    """Tell in the ledger what repaired history changed; a retraction cancels what is unsent."""
    decided = ledger.chosen(each.caught.occurrence.occurrence_id for each in repairs)
    retracted: dict[str, list[str]] = {}
    for each in repairs:
        decision_id, _ = decided.get(each.caught.occurrence.occurrence_id, ("", ""))
        if each.kind == "retracted" and decision_id:
            retracted.setdefault(each.cause, []).append(decision_id)
    for cause, decision_ids in retracted.items():
        ledger.cancel(decision_ids, f"retracted: {cause}")
    statuses = ledger.statuses(each for decision_ids in retracted.values() for each in decision_ids)
    rows = []
    for repair in repairs:
        occurrence, detail = repair.caught.occurrence, "not decided"
        if occurrence.occurrence_id in decided:
            decision_id, chosen = decided[occurrence.occurrence_id]
            status = statuses.get(decision_id)
            detail = f"decided: {chosen}" + (f", message is {status}" if status else "")
        told = (occurrence.moment, repair.caught.customer, detail)
        rows.append((occurrence.occurrence_id, now, repair.kind, repair.cause, *told))
    ledger.add_revisions(rows)


def ask(project: Project, program: Program, ledger: Ledger, situation: Situation) -> Question:
    """Everything that the decision about an occurrence may look at."""
    occurrence, now = situation.occurrence, situation.now
    moment = project.moments[occurrence.moment]
    said = whole(situation.folded.statements)
    bits = {name: 1 << number for number, (name, _) in enumerate(program.purposes)}
    candidates = []
    for name in moment.answers:
        action = project.actions[name]
        because = why(action.purpose, project.purposes[action.purpose], said, now)
        candidates.append(
            _candidate(project, ledger, moment, action, situation, bits[action.purpose], because)
        )
    cap = None
    if project.contact_cap is not None:
        n_max, period_s = project.contact_cap
        cap = Cap(n_max, period_s, ledger.n_contacts(situation.leaves, now - period_s * SECOND))
    zone = zone_of(situation.folded.traits.get("timezone"), project.settings.time_zone)
    customer, account = situation.customer.hex(), (situation.account or b"").hex()
    data_of = {each.leaf.hex() for each in occurrence.events}
    drawn_for = [situation.account] if situation.account else situation.leaves
    return Question(
        occurrence_id=occurrence.occurrence_id,
        moment=moment.name,
        initiative=moment.initiative,
        customer=customer,
        occurred_at=occurrence.occurred_at,
        expires_at=occurrence.expires_at,
        decided_at=now,
        candidates=candidates,
        customer_weight=project.weights.customer_weight,
        business_weight=project.weights.business_weight,
        holdout_share=moment.holdout_share,
        draw=draw(project.settings.holdout_salt, moment.initiative, account or customer),
        standing=ledger.standing(moment.initiative, drawn_for),
        cap=cap,
        quiet_until=quiet_until(now, project.quiet_hours, zone),
        data_used=[each.event_id.hex() for each in occurrence.events],
        data_of=sorted(data_of),
        program=program.version,
        context=context_of(occurrence),
        told_by=_told_by(project, moment, situation),
        account=account,
        group=situation.group,
        known_of=sorted({each.hex() for each in situation.owners} - data_of),
        n_members=situation.n_members,
    )


def context_of(occurrence: Occurrence) -> dict[str, Scalar]:
    """What a decision records of what was known beside the events of an occurrence."""
    return {name: _scalar(value) for name, value in occurrence.context.items() if name != OPEN_TO}


def _told_by(project: Project, moment: Moment, situation: Situation) -> dict[str, str]:
    """Who told the traits that the conditions of a moment's answers look at, as far as they are known."""
    conditions = [project.eligible.get((moment.name, action)) for action in moment.answers]
    names = {name for each in conditions if each is not None for name in traits_of(each)}
    words = {name: heard.word for name, heard in sorted(situation.folded.heard.items()) if name in names}
    return {f"{CUSTOMER}.{name}": word.source for name, word in words.items() if word is not None}


def _candidate(
    project: Project,
    ledger: Ledger,
    moment: Moment,
    action: Action,
    situation: Situation,
    bit: int,
    because: Why,
) -> Candidate:
    bound = situation.occurrence.bound
    known = {**situation.folded.traits, **situation.occurrence.context}
    condition = project.eligible.get((moment.name, action.action))
    cap = None
    if action.action in project.action_caps:
        n_max, period_s = project.action_caps[action.action]
        since = situation.now - period_s * SECOND
        cap = Cap(n_max, period_s, ledger.n_contacts(situation.leaves, since, action.action))
    return Candidate(
        action=action.action,
        purpose=action.purpose,
        value_customer=action.value.customer,
        value_business=action.value.business,
        cost=action.cost,
        transactional=action.transactional,
        in_force=because in ("granted", "basis"),
        closed_sources=closed_sources(situation.occurrence, bit),
        condition=action.eligible,
        values=_values(condition, situation) if condition else {},
        eligible=condition is None or holds(condition, bound, known),
        reachable=bool(situation.recipient(project.destinations[action.destination])),
        cap=cap,
        why_closed=because if because in ("refused", "restricted") else "",
    )


def closed_sources(occurrence: Occurrence, bit: int) -> list[str]:
    """The sources whose data an occurrence rests on and that is not open to a purpose."""
    closed = {one.source for one in occurrence.events if not one.purposes & bit}
    open_to = occurrence.context.get(OPEN_TO, bit)
    if isinstance(open_to, int) and not open_to & bit:
        closed.add(EARLIER)
    return sorted(closed)


def _values(condition: Condition, situation: Situation) -> dict[str, Scalar]:
    """What a condition looked at, by the names in it."""
    steps = {bound.step: bound.values for bound in situation.occurrence.bound if bound.step}
    values: dict[str, Scalar] = {}
    traits = [(CUSTOMER, name) for name in sorted(traits_of(condition))]
    for step, field in [*condition.references(), *traits]:
        value = situation.folded.traits.get(field) if step == CUSTOMER else steps[step].get(field)
        values[f"{step}.{field}"] = _scalar(value)
    for node in walk(condition.tree):
        if isinstance(node, Known):
            values[node.key] = _scalar(situation.occurrence.context.get(node.key))
    return values


def _scalar(value: object) -> Scalar:
    return value if isinstance(value, (str, int, float, bool)) else None


def _printed(bound: Bound) -> dict[str, object]:
    """What a template may print of a step: its instants as texts, like every other time."""
    instants = {"occurred_at": bound.occurred_at, "first.occurred_at": bound.first.occurred_at}
    return {**bound.values, **{name: utc(at).isoformat() for name, at in instants.items()}}


def compose(project: Project, decision: Decision, situation: Situation) -> Message | None:
    """The one message of a decision, in words; None when nothing is to be said.

    A message that cannot be put into words is kept as failed with its reason.
    """
    if decision.send_at is None:
        return None
    occurrence = situation.occurrence
    action = project.actions[decision.chosen]
    traits: dict[str, object] = {**situation.names, **situation.folded.traits}
    values = {bound.step: _printed(bound) for bound in occurrence.bound if bound.step}
    values[CONTEXT] = occurrence.context
    kept = {name.partition(".") for name in occurrence.context}
    values[ACCOUNT] = {
        name: occurrence.context[f"{ACCOUNT}.{name}"] for head, _, name in kept if head == ACCOUNT
    }
    zone = zone_of(traits.get("timezone"), project.settings.time_zone)
    subject = body = detail = ""
    try:
        template, locale = project.templates[action.template], str(traits.get("locale", ""))
        rendered = render(template, locale, {**values, "customer": traits}, zone)
        subject, body = rendered.subject, rendered.body
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
        customer=situation.leaf,
        created_at=decision.question.decided_at,
        due_at=decision.send_at,
        expires_at=occurrence.expires_at,
        recipient=situation.recipient(project.destinations[action.destination]),
        subject=subject,
        body=body,
        status="failed" if detail else "waiting",
        detail=detail,
    )
