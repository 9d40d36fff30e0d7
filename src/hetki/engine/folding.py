"""Folding: load the customers that a batch touches, step each, save; repair the history of some.

A customer whose facts come in order takes one step. One whose past has changed (a late event, a merge, an
unmerge) is folded again from the journal, and what that changes is told as repairs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from hetki.engine.accounts import share, theirs
from hetki.engine.stitching import Stitched
from hetki.events.event import STAFFED, Event, LeafId
from hetki.identity.account import AccountId
from hetki.identity.household import household_id
from hetki.identity.identifier import NodeId, as_leaf
from hetki.identity.link import Link
from hetki.moments.fold import Fact, Folded, Joined, Program, decode, due_at, encode, is_late, step
from hetki.moments.members import adopted
from hetki.moments.moment import Occurrence
from hetki.patterns.staffing import NO_STAFFING, Report, Timeline, timeline
from hetki.store.accounts import groups_of, members_of
from hetki.store.journal import Journal, Stored
from hetki.store.sqlite import chunks
from hetki.store.staffing import load_staffing
from hetki.store.state import CustomerRow, State

_event = msgspec.msgpack.Decoder(Event)
_occurrence = msgspec.msgpack.Decoder(Occurrence)
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class Caught(msgspec.Struct, frozen=True):
    """An occurrence with its present customer, or the account that it is about."""

    customer: LeafId
    occurrence: Occurrence


class Repair(msgspec.Struct, frozen=True):
    """What repaired history did to an occurrence that had been caught before: `revised`, `retracted`."""

    kind: str
    cause: str
    caught: Caught


class Folding(msgspec.Struct, frozen=True):
    """What a batch came to: newly caught occurrences, repairs, and how many events were late."""

    caught: list[Caught]
    repairs: list[Repair]
    folded: dict[LeafId, Folded]
    n_late: int


def read_event(stored: Stored) -> Event | None:
    """The event of a journal entry; None once it was erased."""
    return None if stored.body is None else _event.decode(stored.body)


def fold_batch(
    journal: Journal,
    state: State,
    program: Program,
    key: bytes,
    facts: Sequence[Fact],
    stitched: Stitched,
    advance_to: int,
    reports: Sequence[Report] = (),
) -> Folding:
    """Fold new facts and let time pass to `advance_to` for every customer and account whom that concerns.

    `key` is that of identifiers. `reports` are new reports of staffing, kept already; who was folded beyond
    one of them is folded again.
    """
    found = _touched(state, program, key, facts, stitched)
    staffing = staffing_of(state, program, facts)
    beyond = _folded_beyond(state, reports) if program.asks_staffing else {}
    saved: list[CustomerRow] = []
    caught: list[Caught] = []
    folded: dict[LeafId, Folded] = {}
    again = dict(found.again)
    n_late = 0
    for unit in sorted(found.units - again.keys()):
        of_unit = program.of(unit) if unit in found.accounts else program
        row, mine = found.rows.get(unit), found.facts.get(unit, [])
        before = decode(row.state) if row else Folded()
        batch = ordered(of_unit, mine, found.links.get(unit, []))
        if unit in found.newcomers:
            whole = load_account(journal, state, of_unit, found.newcomers[unit])
            before, batch = adopted(of_unit, before, batch, whole.batch)
        if batch and is_late(before, batch[0]):
            again[unit] = "late event" if isinstance(batch[0], Fact) else "identity"
            late = [each for each in batch if isinstance(each, Fact) and is_late(before, each)]
            n_late += sum(not each.member for each in late)
            continue
        if unit in beyond:
            again[unit] = "staffing report"
            continue
        if row is None and not mine and not of_unit.account:
            continue
        after, occurred = step(of_unit, before, batch, advance_to, staffing)
        folded[unit] = after
        caught.extend(Caught(unit, each) for each in occurred)
        saved.append(row_of(of_unit, key, unit, after, mine, row))
    state.save_customers(saved)
    state.save_occurrences(_rows(caught))
    repairs: list[Repair] = []
    others = [unit for unit in beyond if unit not in found.units]
    for part in (again, *(dict.fromkeys(each, "staffing report") for _, each in chunks(others))):
        repaired = refold(journal, state, program, part, advance_to, key)
        caught.extend(repaired.caught)
        repairs.extend(repaired.repairs)
        folded.update(repaired.folded)
    return Folding(caught, repairs, folded, n_late)


class _Touched(msgspec.Struct, frozen=True):
    """Whom a batch concerns: customers and accounts with their rows, facts and new links, who came to which
    account, and who is folded again, with the cause."""

    units: set[LeafId]
    accounts: set[AccountId]
    rows: dict[LeafId, CustomerRow]
    facts: dict[LeafId, list[Fact]]
    links: dict[LeafId, list[Link]]
    newcomers: dict[AccountId, list[LeafId]]
    again: dict[LeafId, str]


def _touched(
    state: State, program: Program, key: bytes, facts: Sequence[Fact], stitched: Stitched
) -> _Touched:
    by_customer: dict[LeafId, list[Fact]] = {}
    for fact in facts:
        by_customer.setdefault(stitched.customers[NodeId(fact.leaf)], []).append(fact)
    customers = {*by_customer, *stitched.joined, *(each for pair in stitched.moves for each in pair)}
    rows = state.load_customers(customers)
    # Who was known and had no event has no state, but may have grown together: that is folded from history.
    moved = {
        each
        for old, new in stitched.moves
        if old in rows or NodeId(old) not in stitched.new
        for each in (old, new)
    }
    moved |= {each for each in by_customer if each not in rows and NodeId(each) not in stitched.new}
    shares = share(state, program, key, by_customer, stitched, moved)
    return _Touched(
        units=customers | shares.accounts,
        accounts=shares.accounts,
        rows=rows | state.load_customers(shares.accounts),
        facts={**by_customer, **shares.facts},
        links={**stitched.joined, **shares.links},
        newcomers=shares.newcomers,
        again={**dict.fromkeys(moved, "identity"), **shares.again},
    )


def row_of(
    program: Program,
    key: bytes,
    unit: LeafId,
    folded: Folded,
    facts: Sequence[Fact],
    before: CustomerRow | None = None,
) -> CustomerRow:
    """What is stored of a customer or an account after it was folded; `facts` are those that are new."""
    state, next_at = encode(folded), due_at(program, folded)
    if program.account:
        return CustomerRow(unit, state, next_at, folded.last_key[0] if folded.last_key else 0, 0, 1)
    last_at = max([before.last_at if before else 0, *(fact.event.occurred_at for fact in facts)])
    n_events = (before.n_events if before else 0) + len(facts)
    household = household_id(key, program.household, folded.traits)
    return CustomerRow(unit, state, next_at, last_at, n_events, 0, household)


def _folded_beyond(state: State, reports: Sequence[Report]) -> dict[LeafId, None]:
    """The customers of whom something later than a new report of staffing was folded, in order."""
    found: dict[LeafId, None] = {}
    if reports:
        reported = min(each.order_key for each in reports)
        for _, part in chunks(state.customers_since(reported[0])):
            for customer, row in state.load_customers(part).items():
                last_key = decode(row.state).last_key
                if last_key is not None and last_key > reported:
                    found[customer] = None
    return dict.fromkeys(sorted(found))


def pass_time(state: State, program: Program, advance_to: int, n_max: int = 2_000) -> Folding:
    """Let time alone pass for the customers and accounts that are due; call again until it catches up."""
    due = state.due(advance_to, n_max)
    caught: list[Caught] = []
    saved: list[CustomerRow] = []
    folded: dict[LeafId, Folded] = {}
    for unit, row in state.load_customers(due).items():
        of_unit = program.of(unit) if row.is_account else program
        after, found = step(of_unit, decode(row.state), [], advance_to)
        folded[unit] = after
        caught.extend(Caught(unit, each) for each in found)
        next_at = due_at(of_unit, after)
        assert next_at is None or next_at > advance_to, "what was due is settled"
        saved.append(msgspec.structs.replace(row, state=encode(after), due_at=next_at))
    state.save_customers(saved)
    state.save_occurrences(_rows(caught))
    return Folding(caught, [], folded, 0)


def refold(
    journal: Journal, state: State, program: Program, again: Mapping[LeafId, str], advance_to: int, key: bytes
) -> Folding:
    """Fold customers and accounts from their whole history: whom -> cause. Who is gone loses their state."""
    if not again:
        return Folding([], [], {}, 0)
    old = {
        key: Caught(customer, decode_occurrence(body))
        for key, (customer, body) in state.occurrences_of(again).items()
    }
    caught: dict[str, Caught] = {}
    saved: list[CustomerRow] = []
    folded: dict[LeafId, Folded] = {}
    for unit, of_unit, whole in load_histories(journal, state, program, again):
        if not whole.facts and not of_unit.account:
            continue
        after, found = step(of_unit, Folded(), whole.batch, advance_to, whole.staffing)
        folded[unit] = after
        caught.update((each.occurrence_id, Caught(unit, each)) for each in found)
        saved.append(row_of(of_unit, key, unit, after, whole.facts))
    state.drop_customers(again.keys() - folded.keys())
    state.save_customers(saved)
    state.drop_occurrences(old.keys() - caught.keys())
    state.save_occurrences(_rows(caught.values()))
    repairs: list[Repair] = []
    for occurrence_id, was in old.items():
        now = caught.get(occurrence_id)
        if now is None:
            repairs.append(Repair("retracted", again[was.customer], was))
        elif now.occurrence != was.occurrence:
            repairs.append(Repair("revised", again[was.customer], now))
    new = [each for key, each in caught.items() if key not in old]
    return Folding(new, repairs, folded, 0)


class History(msgspec.Struct, frozen=True):
    """All of a customer: the events, and what the fold reads of them, of links and of staffing."""

    facts: list[Fact]
    batch: list[Fact | Joined]
    staffing: Timeline


def load_histories(
    journal: Journal, state: State, program: Program, units: Collection[LeafId]
) -> Iterator[tuple[LeafId, Program, History]]:
    """The whole history of customers and accounts, each with what is folded of it, in order of their ids.

    Customers who are gone are left out.
    """
    members, groups = state.members(units), groups_of(state.db, units)
    for unit in sorted(units):
        if unit in groups:
            of_unit = program.of(unit)
            yield unit, of_unit, load_account(journal, state, of_unit)
        elif unit in members:
            yield unit, program, load_history(journal, state, program, members[unit])


def load_account(
    journal: Journal, state: State, program: Program, customers: Collection[LeafId] | None = None
) -> History:
    """The whole history of the account of a program: what is its own of its members' events, or of those of
    some of them."""
    account = AccountId(program.account)
    found = members_of(state.db, [account]).get(account, []) if program.moments else []
    members = {each.customer: each for each in found if each.is_folded}
    if customers is not None:
        members = {customer: members[customer] for customer in customers}
    group = groups_of(state.db, [account])[account]
    facts: list[Fact] = []
    nodes: list[NodeId] = []
    for customer, mine in state.members(members).items():
        nodes += mine
        told = load_facts(journal, state, [as_leaf(node) for node in mine])
        facts += theirs(program, told, members[customer], group)
    return History(
        facts, ordered(program, facts, state.joining_links(nodes)), staffing_of(state, program, facts)
    )


def load_history(journal: Journal, state: State, program: Program, nodes: Collection[NodeId]) -> History:
    """The whole history of a customer, by its identifiers."""
    facts = load_facts(journal, state, [as_leaf(node) for node in nodes])
    links = state.joining_links(nodes) if len(nodes) > 1 else []
    return History(facts, ordered(program, facts, links), staffing_of(state, program, facts))


def staffing_of(state: State, program: Program, facts: Sequence[Fact]) -> Timeline:
    """Every report that facts may see, if any moment asks for one."""
    if not program.asks_staffing or not facts:
        return NO_STAFFING
    return timeline(load_staffing(state.db, min(fact.event.occurred_at for fact in facts)))


def load_facts(journal: Journal, state: State, leaves: Sequence[LeafId]) -> list[Fact]:
    """The whole history of some leaves, from the journal; erased events are left out."""
    history = state.history(leaves)
    facts: list[Fact] = []
    for leaf in leaves:
        for stored in journal.entries(history.get(leaf, [])):
            event = read_event(stored)
            if event is not None and event.name != STAFFED:  # a report is nobody's, whoever sent it
                facts.append(Fact(event, stored.event_id, leaf))
    return facts


def ordered(program: Program, facts: Iterable[Fact], links: Iterable[Link]) -> list[Fact | Joined]:
    """What the fold reads of facts and links, in total order."""
    batch: list[Fact | Joined] = [fact for fact in facts if program.concerns(fact.event)]
    batch.extend(Joined(link.linked_at, link.node_a.hex(), link.node_b.hex()) for link in links)
    batch.sort(key=lambda item: item.order_key)
    return batch


def _rows(caught: Iterable[Caught]) -> list[tuple[str, str, LeafId, int, bytes]]:
    return [
        (
            each.occurrence.occurrence_id,
            each.occurrence.moment,
            each.customer,
            each.occurrence.occurred_at,
            _encode(each.occurrence),
        )
        for each in caught
    ]


def decode_occurrence(body: bytes) -> Occurrence:
    """An occurrence from its stored bytes."""
    return _occurrence.decode(body)
