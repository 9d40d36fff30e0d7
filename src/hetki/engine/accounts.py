"""Accounts: which new facts concern which account, and whose they are there.

An account is folded as a customer is, by the same `step`, over what is its own of its members' events. Who
joins it brings what they said of consent before; what changes who its members were has it folded again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

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

#: Why an account is folded again: other customers count for it, or since another time.
MEMBERSHIP: Final = "membership"


class Shares(msgspec.Struct, frozen=True):
    """What of a batch concerns accounts: facts and new links by account, the customers who came to each, and
    the accounts that are folded from the beginning, with the cause."""

    facts: dict[AccountId, list[Fact]]
    links: dict[AccountId, list[Link]]
    newcomers: dict[AccountId, list[LeafId]]
    again: dict[AccountId, str]

    @property
    def accounts(self) -> set[AccountId]:
        """Every account that the batch concerns."""
        return {*self.facts, *self.links, *self.newcomers, *self.again}


def share(
    state: State,
    program: Program,
    key: bytes,
    by_customer: Mapping[LeafId, Sequence[Fact]],
    stitched: Stitched,
    moved: set[LeafId],
) -> Shares:
    """Keep which accounts new facts name, and give the share of each account in them.

    `moved` are the customers who are not what they were.
    """
    found = [each for facts in by_customer.values() for each in namings(key, facts)]
    shares = Shares({}, {}, {}, {})
    if program.accounts is None:
        add_namings(state.db, found)
        named = {each.account for each in found}
        new = named - state.load_customers(named).keys()
        return msgspec.structs.replace(shares, again=dict.fromkeys(new, MEMBERSHIP))
    members = state.members({*by_customer, *stitched.joined, *moved})
    before = _belongs(state, members)
    add_namings(state.db, found)
    after = _belongs(state, members)
    groups = groups_of(state.db, {account for each in after.values() for account in each})
    for customer, accounts in after.items():
        for account, joined_at in accounts.items():
            since = before.get(customer, {})
            if customer in moved:
                shares.again[account] = "identity"
            elif since.get(account, joined_at) != joined_at:
                shares.again.setdefault(account, MEMBERSHIP)
            elif account not in since:
                shares.newcomers.setdefault(account, []).append(customer)
            else:
                member = Member(account, customer, joined_at, 0, True)
                mine = theirs(program.of(account), by_customer.get(customer, ()), member, groups[account])
                shares.facts.setdefault(account, []).extend(mine)
                shares.links.setdefault(account, []).extend(stitched.joined.get(customer, ()))
    for account in crowded(state.db, shares.accounts):
        shares.again.setdefault(account, MEMBERSHIP)
    return shares


def accounts_around(state: State, customers: Iterable[LeafId]) -> set[AccountId]:
    """The accounts that customers belong to."""
    return {account for mine in _belongs(state, state.members(customers)).values() for account in mine}


def namings(key: bytes, facts: Iterable[Fact]) -> Iterator[Naming]:
    """What facts say of accounts."""
    for fact in facts:
        group = group_of(fact.event)
        if group is not None:
            at = fact.event.occurred_at
            joined_at = at if joins_account(fact.event) else None
            yield Naming(account_id(key, group), group, fact.leaf, at, joined_at)


def _belongs(
    state: State, members: Mapping[LeafId, Iterable[NodeId]]
) -> dict[LeafId, dict[AccountId, int | None]]:
    """The accounts of customers, with when each joined."""
    by_leaf = accounts_of(state.db, [as_leaf(node) for nodes in members.values() for node in nodes])
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
