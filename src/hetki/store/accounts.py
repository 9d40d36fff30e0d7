"""Accounts: which accounts events have named, and which leaves belong to them: a projection in `state.db`.

A leaf belongs to an account once an event of it names the account. Its customer is a member from `joined_at`
on, if a `group` call has said so. Members are asked of customers as they are now, so they follow every merge
and unmerge by themselves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import msgspec

from hetki.events.event import LeafId
from hetki.identity.account import MEMBERS_MAX, AccountId
from hetki.store.sqlite import chunks

#: `first_at`: the earliest event that names the account; `joined_at`: the earliest by which a leaf joins it.
ACCOUNTS = """
CREATE TABLE IF NOT EXISTS accounts(
    account BLOB PRIMARY KEY, group_id TEXT NOT NULL, first_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS accounts_group ON accounts(group_id);
CREATE TABLE IF NOT EXISTS account_leaves(
    account BLOB NOT NULL, leaf BLOB NOT NULL, first_at INTEGER NOT NULL, joined_at INTEGER,
    PRIMARY KEY (account, leaf)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS account_leaves_leaf ON account_leaves(leaf);
"""

#: Grain: one row per account and customer of it. `is_folded`: one of the first `MEMBERS_MAX`, those who have
#: joined before those who only named it, by when they did.
MEMBERS = """
SELECT account, customer, joined_at, first_at, row_number() OVER (
        PARTITION BY account ORDER BY joined_at IS NULL, coalesce(joined_at, first_at), customer
    ) <= {n_max} AS is_folded
FROM (SELECT l.account, coalesce(n.customer, l.leaf) AS customer, min(l.joined_at) AS joined_at,
             min(l.first_at) AS first_at
      FROM account_leaves l LEFT JOIN nodes n ON n.node = l.leaf {where} GROUP BY 1, 2)
"""


class Naming(msgspec.Struct, frozen=True):
    """One event of a leaf that names an account; `joined_at` if the leaf joins it by that."""

    account: AccountId
    group_id: str
    leaf: LeafId
    occurred_at: int
    joined_at: int | None


class Member(msgspec.Struct, frozen=True):
    """A customer of an account: member since `joined_at`, or (None) only by events that name the account."""

    account: AccountId
    customer: LeafId
    joined_at: int | None
    first_at: int
    is_folded: bool


def add_namings(db: sqlite3.Connection, found: Sequence[Naming]) -> None:
    """Keep what events say of accounts."""
    db.executemany(
        "INSERT INTO accounts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET"
        " first_at = min(first_at, excluded.first_at)",
        [(each.account, each.group_id, each.occurred_at) for each in found],
    )
    db.executemany(
        "INSERT INTO account_leaves VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " first_at = min(first_at, excluded.first_at),"
        " joined_at = min(coalesce(joined_at, excluded.joined_at), coalesce(excluded.joined_at, joined_at))",
        [(each.account, each.leaf, each.occurred_at, each.joined_at) for each in found],
    )


def members_query(where: str = "") -> str:
    """`MEMBERS`, with a condition on the leaves (`l`) of accounts."""
    return MEMBERS.format(where=where, n_max=MEMBERS_MAX)


def accounts_of(
    db: sqlite3.Connection, leaves: Iterable[LeafId]
) -> dict[LeafId, list[tuple[AccountId, int | None]]]:
    """The accounts that each leaf belongs to, with when it joined; leaves without one are left out."""
    found: dict[LeafId, list[tuple[AccountId, int | None]]] = {}
    for marks, part in chunks(leaves):
        rows = db.execute(
            f"SELECT leaf, account, joined_at FROM account_leaves WHERE leaf IN ({marks})", part
        )
        for leaf, account, joined_at in rows:
            found.setdefault(LeafId(leaf), []).append((AccountId(account), joined_at))
    return found


def leaves_of(db: sqlite3.Connection, account: AccountId) -> set[LeafId]:
    """The leaves of which an event names an account."""
    rows = db.execute("SELECT leaf FROM account_leaves WHERE account = ?", (account,))
    return {LeafId(row[0]) for row in rows}


def groups_of(db: sqlite3.Connection, accounts: Iterable[LeafId]) -> dict[AccountId, str]:
    """The group id of each account; ids that are no account's are left out."""
    found: dict[AccountId, str] = {}
    for marks, part in chunks(accounts):
        rows = db.execute(f"SELECT account, group_id FROM accounts WHERE account IN ({marks})", part)
        found.update((AccountId(account), group_id) for account, group_id in rows)
    return found


def members_of(db: sqlite3.Connection, accounts: Iterable[AccountId]) -> dict[AccountId, list[Member]]:
    """The customers of accounts as of now, in the order in which they came."""
    found: dict[AccountId, list[Member]] = {}
    for marks, part in chunks(accounts):
        query = members_query(f"WHERE l.account IN ({marks})") + " ORDER BY account, first_at, customer"
        for account, customer, joined_at, first_at, is_folded in db.execute(query, part):
            member = Member(AccountId(account), LeafId(customer), joined_at, first_at, bool(is_folded))
            found.setdefault(member.account, []).append(member)
    return found


def crowded(db: sqlite3.Connection, accounts: Iterable[AccountId]) -> set[AccountId]:
    """The accounts that may have more customers than are folded."""
    found: set[AccountId] = set()
    for marks, part in chunks(accounts):
        rows = db.execute(
            f"SELECT account FROM account_leaves WHERE account IN ({marks}) GROUP BY 1 HAVING count(*) > ?",
            [*part, MEMBERS_MAX],
        )
        found.update(AccountId(row[0]) for row in rows)
    return found


class Counted(msgspec.Struct, frozen=True):
    """An account with how many customers have joined it, how many more only name it, and of how many the
    events are looked at."""

    account: AccountId
    group_id: str
    n_members: int
    n_named: int
    n_folded: int


def counted_accounts(db: sqlite3.Connection, n_max: int, account: AccountId | None = None) -> list[Counted]:
    """The accounts with the most members, or the one that is asked for."""
    where = "" if account is None else "WHERE l.account = ?"
    rows = db.execute(
        "SELECT a.account, a.group_id, count(m.joined_at) AS n, count(*) - count(m.joined_at),"
        f" sum(m.is_folded) FROM accounts a JOIN ({members_query(where)}) m USING (account)"
        " GROUP BY a.account"
        " ORDER BY n DESC, a.group_id LIMIT ?",
        [n_max] if account is None else [account, n_max],
    )
    return [Counted(AccountId(row[0]), *row[1:]) for row in rows]


def belongs_to(db: sqlite3.Connection, leaves: Iterable[LeafId]) -> dict[str, tuple[AccountId, int | None]]:
    """The accounts of one customer by group id, each with its id and when the customer joined."""
    joined: dict[AccountId, int | None] = {}
    for mine in accounts_of(db, leaves).values():
        for account, joined_at in mine:
            times = [each for each in (joined.get(account), joined_at) if each is not None]
            joined[account] = min(times, default=None)
    groups = groups_of(db, joined)
    return {
        group: (account, joined[account]) for account, group in sorted(groups.items(), key=lambda x: x[1])
    }
