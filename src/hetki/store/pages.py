"""Pages: the links by which customers open their own page. Only hashes of tokens are kept.

It shares `state.db` with the ledger: who may open a page is a deed, and a rebuild leaves it alone.
"""

from __future__ import annotations

import sqlite3
from hashlib import blake2b
from typing import Final

from hetki.events.event import LeafId
from hetki.identity.identifier import LEAVES, NodeId
from hetki.store.ports import Chance
from hetki.store.state import State

#: Grain: one row per link. `nodes` are the identifiers of the customer when it was made, one after the other.
PAGES = """
CREATE TABLE IF NOT EXISTS page_links(
    digest BLOB PRIMARY KEY, customer BLOB NOT NULL, nodes BLOB NOT NULL, made_at INTEGER NOT NULL,
    made_by TEXT NOT NULL, expires_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS page_links_customer ON page_links(customer);
"""
TOKEN_BYTES: Final = 32
NODE_BYTES: Final = 16
#: What names a visit rather than a person: of these a customer may come to have more, and a link stays open.
_OF_VISITS: Final = ("anonymous_id", "event", "device")


class PageLinks:
    """The links of a project. Each method is a transaction of the caller's, or a single statement."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def make(self, state: State, chance: Chance, customer: LeafId, by: str, now: int, expires_at: int) -> str:
        """A new link to a customer's page: its token (64 hex digits), which is kept nowhere. Those that have
        ended in time go."""
        self._db.execute("DELETE FROM page_links WHERE expires_at <= ?", (now,))
        token = chance.bytes(TOKEN_BYTES).hex()
        nodes = b"".join(sorted(state.members([customer]).get(customer, {})))
        row = (_digest(token), customer, nodes, now, by, expires_at)
        self._db.execute("INSERT INTO page_links VALUES (?, ?, ?, ?, ?, ?)", row)
        return token

    def opened(self, state: State, token: str, now: int) -> LeafId | None:
        """The present customer whom a token opens; None if it opens nobody, or nobody any more.

        A link shows the customer it was made for: once its identifiers are of several customers, or the
        customer has come to have another user id, record, address or number, it opens nothing.
        """
        row = self._db.execute(
            "SELECT nodes FROM page_links WHERE digest = ? AND expires_at > ?", (_digest(token), now)
        ).fetchone()
        if row is None:
            return None
        bound = [NodeId(row[0][at : at + NODE_BYTES]) for at in range(0, len(row[0]), NODE_BYTES)]
        known = state.known(bound)
        customers = {each.customer for each in known.values() if each.node.namespace in LEAVES}
        if len(known) < len(bound) or len(customers) != 1:
            return None
        (customer,) = customers
        members = state.members([customer])[customer]
        added = {space for node, space in members.items() if node not in known}
        return customer if added <= set(_OF_VISITS) else None

    def revoke(self, state: State, customer: LeafId) -> int:
        """End every link that was made for a customer, or for what is part of it now; how many there were."""
        leaves = [customer, *state.members([customer]).get(customer, {})]
        return self._db.executemany(
            "DELETE FROM page_links WHERE customer = ?", [(each,) for each in dict.fromkeys(leaves)]
        ).rowcount


def _digest(token: str) -> bytes:
    return blake2b(token.encode("utf-8", "replace"), digest_size=32, person=b"hetki page").digest()
