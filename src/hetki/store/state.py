"""State: the projections in `state.db`, rebuildable at any time from the journal.

Beside them in the same file lies the ledger (`hetki.store.ledger`), which is not: one transaction can so
move the position, the projections and the deeds together. Nothing here knows what the bytes of a
customer's state mean.
"""

from __future__ import annotations

import sqlite3
from typing import AbstractSet as Set
from typing import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from hetki.events.event import EventId, LeafId
from hetki.identity.identifier import Namespace, NodeId
from hetki.identity.link import Link, LinkKind
from hetki.store.accounts import ACCOUNTS
from hetki.store.sqlite import chunks, prepare
from hetki.store.staffing import STAFFING

FILE = "state.db"

PROJECTIONS = """
CREATE TABLE IF NOT EXISTS progress(
    only INTEGER PRIMARY KEY CHECK (only = 1), position INTEGER NOT NULL, advance_to INTEGER NOT NULL,
    program TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events(
    event_id BLOB PRIMARY KEY, position INTEGER NOT NULL, frame_offset INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leaf_events(
    leaf BLOB NOT NULL, position INTEGER NOT NULL, frame_offset INTEGER NOT NULL,
    PRIMARY KEY (leaf, position, frame_offset)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nodes(
    node BLOB PRIMARY KEY, namespace TEXT NOT NULL, value TEXT NOT NULL,
    customer BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS nodes_customer ON nodes(customer);
CREATE INDEX IF NOT EXISTS nodes_value ON nodes(value);
CREATE TABLE IF NOT EXISTS links(
    link_id BLOB PRIMARY KEY, kind TEXT NOT NULL, node_a BLOB NOT NULL, node_b BLOB NOT NULL,
    linked_at INTEGER NOT NULL, cause BLOB NOT NULL,
    refusal TEXT NOT NULL DEFAULT '', joins INTEGER NOT NULL DEFAULT 0, revoked_at INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS links_a ON links(node_a);
CREATE INDEX IF NOT EXISTS links_b ON links(node_b);
CREATE INDEX IF NOT EXISTS links_waiting ON links(link_id) WHERE refusal = 'unknown_identifier';
CREATE TABLE IF NOT EXISTS customers(
    customer BLOB PRIMARY KEY, state BLOB NOT NULL, due_at INTEGER, last_at INTEGER NOT NULL,
    n_events INTEGER NOT NULL, is_account INTEGER NOT NULL, household BLOB) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS customers_household ON customers(household) WHERE household IS NOT NULL;
CREATE INDEX IF NOT EXISTS customers_due ON customers(due_at) WHERE due_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS customers_last ON customers(last_at);
CREATE TABLE IF NOT EXISTS occurrences(
    occurrence_id TEXT PRIMARY KEY, moment TEXT NOT NULL, customer BLOB NOT NULL,
    occurred_at INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS occurrences_customer ON occurrences(customer);
CREATE INDEX IF NOT EXISTS occurrences_moment ON occurrences(moment, occurred_at);
CREATE TABLE IF NOT EXISTS rejected(
    rejected_id TEXT PRIMARY KEY, source TEXT NOT NULL, received_at INTEGER NOT NULL,
    place TEXT NOT NULL, got TEXT NOT NULL, must TEXT NOT NULL, hint TEXT NOT NULL,
    position INTEGER NOT NULL, frame_offset INTEGER NOT NULL, replayed_at INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rejected_received ON rejected(received_at);
CREATE TABLE IF NOT EXISTS counts(name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
"""
TABLES = (
    "progress events leaf_events nodes links customers occurrences rejected staffing accounts account_leaves"
    " counts"
).split()

Place = tuple[int, int]


class Progress(msgspec.Struct, frozen=True):
    """How far the fold has come: journal position, the engine's clock, the declarations' hash."""

    position: int
    advance_to: int
    program: str


class CustomerRow(msgspec.Struct, frozen=True, gc=False):
    """One customer's folded state; `due_at` is the next instant at which time alone changes it.

    An account has one, too, under its own id: what is folded of its members for moments about it. `household`
    says which customers live together.
    """

    customer: LeafId
    state: bytes
    due_at: int | None
    last_at: int
    n_events: int
    is_account: int = 0
    household: bytes | None = None


class State:
    """The projections. Every method runs inside the caller's transaction on `db`."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        prepare(db, FILE, PROJECTIONS + STAFFING + ACCOUNTS)

    def clear(self) -> None:
        """Delete every projection, and nothing of the ledger."""
        for table in TABLES:
            self.db.execute(f"DELETE FROM {table}")

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Every row of every projection, in order of the tables' keys: for comparing two states."""
        for table in TABLES:
            if table != "counts":
                yield (table,)
                yield from self.db.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3")

    def progress(self) -> Progress | None:
        """How far the fold has come; None before the first advance."""
        row = self.db.execute("SELECT position, advance_to, program FROM progress").fetchone()
        return Progress(*row) if row else None

    def save_progress(self, progress: Progress) -> None:
        """Replace the progress."""
        self.db.execute(
            "INSERT OR REPLACE INTO progress VALUES (1, ?, ?, ?)",
            (progress.position, progress.advance_to, progress.program),
        )

    def seen(self, ids: Iterable[EventId]) -> set[EventId]:
        """Those of the ids that were folded before."""
        known: set[EventId] = set()
        for marks, part in chunks(ids):
            rows = self.db.execute(f"SELECT event_id FROM events WHERE event_id IN ({marks})", part)
            known.update(EventId(row[0]) for row in rows)
        return known

    def add_events(self, rows: Sequence[tuple[EventId, LeafId, Place]]) -> None:
        """Remember where new events lie, by id and by leaf."""
        self.db.executemany(
            "INSERT INTO events VALUES (?, ?, ?)", [(event_id, *place) for event_id, _, place in rows]
        )
        self.db.executemany(
            "INSERT INTO leaf_events VALUES (?, ?, ?)", [(leaf, *place) for _, leaf, place in rows]
        )

    def places_of(self, ids: Sequence[EventId]) -> dict[EventId, Place]:
        """Where events lie in the journal, by id; unknown ids are left out."""
        found: dict[EventId, Place] = {}
        for marks, part in chunks(ids):
            rows = self.db.execute(f"SELECT * FROM events WHERE event_id IN ({marks})", part)
            found.update((EventId(row[0]), (row[1], row[2])) for row in rows)
        return found

    def history(self, leaves: Iterable[LeafId]) -> dict[LeafId, list[Place]]:
        """Where the events of leaves lie in the journal, in journal order."""
        found: dict[LeafId, list[Place]] = {}
        for marks, part in chunks(leaves):
            rows = self.db.execute(f"SELECT * FROM leaf_events WHERE leaf IN ({marks})", part)
            for leaf, position, frame_offset in rows:
                found.setdefault(LeafId(leaf), []).append((position, frame_offset))
        return found

    def customers_of(self, nodes: Iterable[NodeId]) -> dict[NodeId, LeafId]:
        """The present customer of each known node."""
        found: dict[NodeId, LeafId] = {}
        for marks, part in chunks(nodes):
            rows = self.db.execute(f"SELECT node, customer FROM nodes WHERE node IN ({marks})", part)
            found.update((NodeId(node), LeafId(customer)) for node, customer in rows)
        return found

    def add_nodes(self, rows: Iterable[tuple[NodeId, Namespace, str, LeafId]]) -> None:
        """Add identifiers; known ones stay as they are."""
        self.db.executemany("INSERT OR IGNORE INTO nodes VALUES (?, ?, ?, ?)", rows)

    def move_nodes(self, roots: Mapping[NodeId, LeafId]) -> None:
        """Set the customer of nodes."""
        self.db.executemany(
            "UPDATE nodes SET customer = ? WHERE node = ?", [(root, node) for node, root in roots.items()]
        )

    def members(self, customers: Iterable[LeafId]) -> dict[LeafId, dict[NodeId, Namespace]]:
        """The nodes of each customer, with their namespaces."""
        found: dict[LeafId, dict[NodeId, Namespace]] = {}
        for marks, part in chunks(customers):
            rows = self.db.execute(
                f"SELECT customer, node, namespace FROM nodes WHERE customer IN ({marks})", part
            )
            for customer, node, namespace in rows:
                found.setdefault(LeafId(customer), {})[NodeId(node)] = namespace
        return found

    def values_of(self, nodes: Iterable[NodeId]) -> dict[str, str]:
        """One value for each namespace that a customer's nodes have: the first in order of value.

        A name under which events came is preferred to one that an alias only mentioned.
        """
        found: list[tuple[bool, str, str]] = []
        for marks, part in chunks(nodes):
            rows = self.db.execute(
                "SELECT NOT EXISTS (SELECT 1 FROM leaf_events WHERE leaf = node), value, namespace FROM nodes"
                f" WHERE node IN ({marks})",
                part,
            )
            found.extend(rows)
        return {namespace: value for _, value, namespace in sorted(found, reverse=True)}

    def linked_at(self, link_ids: Iterable[bytes]) -> dict[bytes, int]:
        """When known links were first seen."""
        found: dict[bytes, int] = {}
        for marks, part in chunks(link_ids):
            rows = self.db.execute(f"SELECT link_id, linked_at FROM links WHERE link_id IN ({marks})", part)
            found.update(rows)
        return found

    def save_links(self, links: Iterable[Link]) -> None:
        """Add links; of a known one the earlier sight stands, and a revoked one stays revoked."""
        self.db.executemany(
            "INSERT INTO links(link_id, kind, node_a, node_b, linked_at, cause) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT(link_id) DO UPDATE SET cause = iif(excluded.linked_at < linked_at,"
            " excluded.cause, cause), linked_at = min(linked_at, excluded.linked_at)",
            [(x.link_id, x.kind, x.node_a, x.node_b, x.linked_at, x.cause) for x in links],
        )

    def revoke(self, link_id: bytes, revoked_at: int) -> bool:
        """Take a link back; False when there is none, or it was taken back before."""
        done = self.db.execute(
            "UPDATE links SET revoked_at = ?, refusal = '', joins = 0"
            " WHERE link_id = ? AND revoked_at IS NULL",
            (revoked_at, link_id),
        )
        return done.rowcount == 1

    def ends_of(self, link_id: bytes) -> set[NodeId]:
        """The two nodes of a link; empty when there is none."""
        row = self.db.execute("SELECT node_a, node_b FROM links WHERE link_id = ?", (link_id,)).fetchone()
        return {NodeId(row[0]), NodeId(row[1])} if row else set()

    def evidence_around(
        self, nodes: Collection[NodeId], n_max: int = 100_000
    ) -> tuple[dict[NodeId, Namespace], list[Link]]:
        """Every node and standing link reachable from the nodes, refused links included."""
        reached: dict[NodeId, Namespace] = {}
        links: dict[bytes, Link] = {}
        edge = asked = set(nodes)
        while edge and len(links) < n_max:
            for marks, part in chunks(edge):
                rows = self.db.execute(f"SELECT node, namespace FROM nodes WHERE node IN ({marks})", part)
                reached.update((NodeId(node), namespace) for node, namespace in rows)
                for side in ("node_a", "node_b"):
                    found = self.db.execute(
                        "SELECT link_id, kind, node_a, node_b, linked_at, cause FROM links"
                        f" WHERE revoked_at IS NULL AND {side} IN ({marks})",
                        part,
                    )
                    links.update((row[0], _link(row)) for row in found)
            edge = {node for link in links.values() for node in (link.node_a, link.node_b)} - asked
            asked = asked | edge
        return reached, list(links.values())

    def judge_links(self, links: Sequence[Link], refused: Mapping[bytes, str], joining: Set[bytes]) -> None:
        """Write which of these links were refused, with the reason, and which joined groups (ids)."""
        self.db.executemany(
            "UPDATE links SET refusal = ?1, joins = ?2 WHERE link_id = ?3 AND (refusal <> ?1 OR joins <> ?2)",
            [(refused.get(each.link_id, ""), each.link_id in joining, each.link_id) for each in links],
        )

    def waiting_links(self) -> list[Link]:
        """Links to identifiers that were never seen."""
        rows = self.db.execute(
            "SELECT link_id, kind, node_a, node_b, linked_at, cause FROM links"
            " WHERE refusal = 'unknown_identifier' AND revoked_at IS NULL ORDER BY link_id"
        )
        return [_link(row) for row in rows]

    def joining_links(self, nodes: Iterable[NodeId]) -> list[Link]:
        """The links by which these nodes grew together, by time."""
        found: dict[bytes, Link] = {}
        for marks, part in chunks(nodes):
            rows = self.db.execute(
                "SELECT link_id, kind, node_a, node_b, linked_at, cause FROM links"
                f" WHERE revoked_at IS NULL AND joins = 1 AND node_a IN ({marks})",
                part,
            )
            found.update((row[0], _link(row)) for row in rows)
        return sorted(found.values(), key=lambda link: (link.linked_at, link.link_id))

    def load_customers(self, customers: Iterable[LeafId]) -> dict[LeafId, CustomerRow]:
        """The folded states of customers that have one."""
        found: dict[LeafId, CustomerRow] = {}
        for marks, part in chunks(customers):
            rows = self.db.execute(f"SELECT * FROM customers WHERE customer IN ({marks})", part)
            found.update((LeafId(row[0]), CustomerRow(*row)) for row in rows)
        return found

    def save_customers(self, rows: Iterable[CustomerRow]) -> None:
        """Replace the folded states of customers."""
        self.db.executemany(
            "INSERT OR REPLACE INTO customers VALUES (?, ?, ?, ?, ?, ?, ?)",
            [msgspec.structs.astuple(row) for row in rows],
        )

    def drop_customers(self, customers: Iterable[LeafId]) -> None:
        """Delete the states of customers that are now part of others."""
        self.db.executemany("DELETE FROM customers WHERE customer = ?", [(each,) for each in customers])

    def customers_since(self, at: int) -> list[LeafId]:
        """Customers with an event at an instant or later."""
        rows = self.db.execute("SELECT customer FROM customers WHERE last_at >= ? ORDER BY customer", (at,))
        return [LeafId(row[0]) for row in rows]

    def due(self, until: int, n_max: int) -> list[LeafId]:
        """Customers whom time alone changes by an instant, the most overdue first."""
        rows = self.db.execute(
            "SELECT customer FROM customers WHERE due_at <= ? ORDER BY due_at, customer LIMIT ?",
            (until, n_max),
        )
        return [LeafId(row[0]) for row in rows]

    def customers_after(self, customer: bytes, n_max: int) -> list[LeafId]:
        """The next customers that have a state, in order of id; accounts are left out."""
        rows = self.db.execute(
            "SELECT customer FROM customers WHERE customer > ? AND NOT is_account ORDER BY customer LIMIT ?",
            (customer, n_max),
        )
        return [LeafId(row[0]) for row in rows]

    def occurrences_of(self, customers: Iterable[LeafId]) -> dict[str, tuple[LeafId, bytes]]:
        """The present occurrences of customers: id -> (customer, body)."""
        found: dict[str, tuple[LeafId, bytes]] = {}
        for marks, part in chunks(customers):
            rows = self.db.execute(
                f"SELECT occurrence_id, customer, body FROM occurrences WHERE customer IN ({marks})", part
            )
            found.update((row[0], (LeafId(row[1]), row[2])) for row in rows)
        return found

    def save_occurrences(self, rows: Iterable[tuple[str, str, LeafId, int, bytes]]) -> None:
        """Replace occurrences: (id, moment, customer, occurred_at, body)."""
        self.db.executemany("INSERT OR REPLACE INTO occurrences VALUES (?, ?, ?, ?, ?)", rows)

    def drop_occurrences(self, ids: Iterable[str]) -> None:
        """Delete occurrences that the repaired history no longer has."""
        self.db.executemany("DELETE FROM occurrences WHERE occurrence_id = ?", [(each,) for each in ids])

    def add_rejected(self, rows: Iterable[tuple[str, str, int, str, str, str, str, int, int]]) -> None:
        """List rejected bodies: (id, source, received_at, where, got, must, hint, position, offset)."""
        self.db.executemany("INSERT OR IGNORE INTO rejected VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)", rows)

    def rejected(self, n_max: int = 1_000) -> list[tuple[str, str, int, str, str, str, str, int, int, None]]:
        """The rows of what was rejected and not replayed since, newest first."""
        return self.db.execute(
            "SELECT * FROM rejected WHERE replayed_at IS NULL ORDER BY received_at DESC, rejected_id LIMIT ?",
            (n_max,),
        ).fetchall()

    def rejected_place(self, rejected_id: str) -> Place | None:
        """Where a rejected body lies in the journal."""
        row = self.db.execute(
            "SELECT position, frame_offset FROM rejected WHERE rejected_id = ?", (rejected_id,)
        ).fetchone()
        return (row[0], row[1]) if row else None

    def mark_replayed(self, rejected_id: str, replayed_at: int) -> None:
        """Note that a rejected body was repaired and accepted."""
        self.db.execute(
            "UPDATE rejected SET replayed_at = ? WHERE rejected_id = ?", (replayed_at, rejected_id)
        )

    def count(self, name: str, n: int) -> None:
        """Add to a running count (`duplicates`, `late`, ...)."""
        if n:
            self.db.execute(
                "INSERT INTO counts VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET n = n + excluded.n",
                (name, n),
            )

    def counts(self) -> dict[str, int]:
        """The running counts, and how many identifiers, customers and refused links there are."""
        found: dict[str, int] = dict(self.db.execute("SELECT name, n FROM counts"))
        for name, query in (
            ("identifiers", "SELECT count(*) FROM nodes WHERE namespace <> 'event'"),
            ("customers", "SELECT count(*) FROM customers WHERE NOT is_account"),
            ("accounts", "SELECT count(*) FROM accounts"),
            ("refused links", "SELECT count(*) FROM links WHERE refusal <> ''"),
        ):
            found[name] = self.db.execute(query).fetchone()[0]
        return found


def _link(row: tuple[bytes, LinkKind, bytes, bytes, int, bytes]) -> Link:
    return Link(row[0], row[1], NodeId(row[2]), NodeId(row[3]), row[4], row[5])
