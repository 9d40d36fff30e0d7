"""Accounts: which new facts concern which account, and whose they are there.

An account is folded as a customer is, by the same `step`, over what is its own of its members' events. A
batch that changes who belongs to it, or who its members are, has it folded again from the beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from hetki.consent.statements import SPOKEN
from hetki.engine.stitching import Stitched
from hetki.events.event import LeafId
from hetki.identity.account import AccountId, account_id, group_of, is_of, joins_account
from hetki.identity.identifier import NodeId, as_leaf
from hetki.identity.link import Link
from hetki.moments.fold import Fact, Program
from hetki.store.accounts import Member, Naming, accounts_of, add_namings, crowded, groups_of
from hetki.store.state import State


class Shares(msgspec.Struct, frozen=True):
    """What of a batch concerns accounts: facts and new links by account, and those to fold from the start."""

    facts: dict[AccountId, list[Fact]]
    links: dict[AccountId, list[Link]]
    again: set[AccountId]

    @property
    def accounts(self) -> set[AccountId]:
        """Every account that the batch concerns."""
        return {*self.facts, *self.links, *self.again}


def name_accounts(state: State, key: bytes, facts: Iterable[Fact]) -> set[AccountId]:
    """Keep which accounts new facts name; the accounts of which that changes who belongs to them."""
    found = []
    for fact in facts:
        group = group_of(fact.event)
        if group is not None:
            at = fact.event.occurred_at
            joined_at = at if joins_account(fact.event) else None
            found.append(Naming(account_id(key, group), group, fact.leaf, at, joined_at))
    return add_namings(state.db, found) if found else set()


def share(
    state: State,
    program: Program,
    by_customer: Mapping[LeafId, Sequence[Fact]],
    stitched: Stitched,
    moved: set[LeafId],
    changed: set[AccountId],
) -> Shares:
    """The shares of accounts in new facts. `moved` are the customers who are not what they were, `changed`
    the accounts that others belong to than before."""
    facts: dict[AccountId, list[Fact]] = {}
    links: dict[AccountId, list[Link]] = {}
    again = set(changed)
    if program.accounts is None:
        return Shares(facts, links, again)
    belongs = _belongs(state, {*by_customer, *stitched.joined, *moved})
    again.update(account for customer in moved for account in belongs.get(customer, {}))
    groups = groups_of(state.db, {account for each in belongs.values() for account in each})
    for customer, accounts in belongs.items():
        for account, joined_at in accounts.items():
            member = Member(account, customer, joined_at, 0, True)
            mine = theirs(program.of(account), by_customer.get(customer, ()), member, groups[account])
            if mine:
                facts.setdefault(account, []).extend(mine)
            if customer in stitched.joined:
                links.setdefault(account, []).extend(stitched.joined[customer])
    again |= crowded(state.db, {*facts, *links})
    return Shares(facts, links, again)


def _belongs(state: State, customers: Iterable[LeafId]) -> dict[LeafId, dict[AccountId, int | None]]:
    """The accounts of customers, with when each joined."""
    members = state.members(customers)
    leaves = [as_leaf(NodeId(node)) for nodes in members.values() for node in nodes]
    by_leaf = accounts_of(state.db, leaves)
    found: dict[LeafId, dict[AccountId, int | None]] = {}
    for customer, nodes in members.items():
        for node in nodes:
            for account, joined_at in by_leaf.get(as_leaf(node), ()):
                mine = found.setdefault(customer, {})
                times = [each for each in (mine.get(account), joined_at) if each is not None]
                mine[account] = min(times, default=None)
    return found


def theirs(program: Program, facts: Iterable[Fact], member: Member, group: str) -> list[Fact]:
    """What of a customer's facts an account's fold reads: its own events, and all that is said of consent."""
    found = []
    name = member.customer.hex()
    for fact in facts:
        event = fact.event
        if not program.concerns(event):
            continue
        if is_of(group_of(event), group, member.joined_at, event.occurred_at):
            found.append(msgspec.structs.replace(fact, member=name))
        elif event.gpc or event.name in SPOKEN:
            found.append(msgspec.structs.replace(fact, member=name, is_quiet=True))
    return found
