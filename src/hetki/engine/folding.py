"""Folding: load the customers that a batch touches, step each, save; repair the history of some.

A customer whose facts come in order takes one step. One whose past has changed (a late event, a merge, an
unmerge) is folded again from the journal, and what that changes is told as repairs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from hetki.engine.stitching import Stitched
from hetki.events.event import STAFFED, Event, LeafId
from hetki.identity.identifier import NodeId, as_leaf
from hetki.identity.link import Link
from hetki.moments.fold import Fact, Folded, Joined, Program, decode, due_at, encode, is_late, step
from hetki.moments.moment import Occurrence
from hetki.patterns.staffing import NO_STAFFING, Report, Timeline, timeline
from hetki.store.journal import Journal, Stored
from hetki.store.sqlite import chunks
from hetki.store.staffing import load_staffing
from hetki.store.state import CustomerRow, State

_event = msgspec.msgpack.Decoder(Event)
_occurrence = msgspec.msgpack.Decoder(Occurrence)
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class Caught(msgspec.Struct, frozen=True):
    """An occurrence with its present customer."""

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
    facts: Sequence[Fact],
    stitched: Stitched,
    advance_to: int,
    reports: Sequence[Report] = (),
) -> Folding:
    """Fold new facts and let time pass to `advance_to` for every customer whom that concerns.

    `reports` are new reports of staffing, kept already; who was folded beyond one of them is folded again.
    """
    by_customer: dict[LeafId, list[Fact]] = {}
    for fact in facts:
        by_customer.setdefault(stitched.customers[NodeId(fact.leaf)], []).append(fact)
    touched = {*by_customer, *stitched.joined, *(each for pair in stitched.moves for each in pair)}
    rows = state.load_customers(touched)
    staffing = staffing_of(state, program, facts)
    beyond = _folded_beyond(state, reports) if program.asks_staffing else {}
    # Who was known and had no event has no state, but may have grown together: that is folded from history.
    moved = {
        each
        for old, new in stitched.moves
        if old in rows or NodeId(old) not in stitched.new
        for each in (old, new)
    }
    moved |= {each for each in by_customer if each not in rows and NodeId(each) not in stitched.new}
    saved: list[CustomerRow] = []
    caught: list[Caught] = []
    folded: dict[LeafId, Folded] = {}
    again: dict[LeafId, str] = dict.fromkeys(moved, "identity")
    n_late = 0
    for customer in sorted(touched - moved):
        row = rows.get(customer)
        before = decode(row.state) if row else Folded()
        mine = by_customer.get(customer, [])
        batch = ordered(program, mine, stitched.joined.get(customer, []))
        if batch and is_late(before, batch[0]):
            again[customer] = "late event" if isinstance(batch[0], Fact) else "identity"
            n_late += sum(is_late(before, item) for item in batch if isinstance(item, Fact))
            continue
        if customer in beyond:
            again[customer] = "staffing report"
            continue
        if row is None and not mine:
            continue
        after, found = step(program, before, batch, advance_to, staffing)
        folded[customer] = after
        caught.extend(Caught(customer, each) for each in found)
        last_at = max([row.last_at if row else 0, *(fact.event.occurred_at for fact in mine)])
        n_events = (row.n_events if row else 0) + len(mine)
        saved.append(CustomerRow(customer, encode(after), due_at(program, after), last_at, n_events))
    state.save_customers(saved)
    state.save_occurrences(_rows(caught))
    repairs: list[Repair] = []
    others = [customer for customer in beyond if customer not in touched]
    for part in (again, *(dict.fromkeys(each, "staffing report") for _, each in chunks(others))):
        repaired = refold(journal, state, program, part, advance_to)
        caught.extend(repaired.caught)
        repairs.extend(repaired.repairs)
        folded.update(repaired.folded)
    return Folding(caught, repairs, folded, n_late)


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
    """Let time alone pass for the customers who are due; call again until it catches up."""
    due = state.due(advance_to, n_max)
    caught: list[Caught] = []
    saved: list[CustomerRow] = []
    folded: dict[LeafId, Folded] = {}
    for customer, row in state.load_customers(due).items():
        after, found = step(program, decode(row.state), [], advance_to)
        folded[customer] = after
        caught.extend(Caught(customer, each) for each in found)
        next_at = due_at(program, after)
        assert next_at is None or next_at > advance_to, "what was due is settled"
        saved.append(CustomerRow(customer, encode(after), next_at, row.last_at, row.n_events))
    state.save_customers(saved)
    state.save_occurrences(_rows(caught))
    return Folding(caught, [], folded, 0)


def refold(
    journal: Journal, state: State, program: Program, again: Mapping[LeafId, str], advance_to: int
) -> Folding:
    """Fold customers from their whole history: customer -> cause. Those that are gone lose their state."""
    if not again:
        return Folding([], [], {}, 0)
    old = {
        key: Caught(customer, decode_occurrence(body))
        for key, (customer, body) in state.occurrences_of(again).items()
    }
    members = state.members(again)
    caught: dict[str, Caught] = {}
    saved: list[CustomerRow] = []
    folded: dict[LeafId, Folded] = {}
    for customer in sorted(members):
        whole = load_history(journal, state, program, members[customer])
        facts = whole.facts
        if not facts:
            continue
        after, found = step(program, Folded(), whole.batch, advance_to, whole.staffing)
        folded[customer] = after
        caught.update((each.occurrence_id, Caught(customer, each)) for each in found)
        last_at = max(fact.event.occurred_at for fact in facts)
        saved.append(CustomerRow(customer, encode(after), due_at(program, after), last_at, len(facts)))
    state.drop_customers(again.keys() - folded.keys())
    state.save_customers(saved)
    state.drop_occurrences(old.keys() - caught.keys())
    state.save_occurrences(_rows(caught.values()))
    repairs: list[Repair] = []
    for key, was in old.items():
        now = caught.get(key)
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
