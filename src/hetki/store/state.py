"""State: the projections in `state.db`, rebuildable at any time from the journal.

Beside them in the same file lies the ledger (`hetki.store.ledger`), which is not: one transaction can so
move the position, the projections and the deeds together. Nothing here knows what the bytes of a
customer's state mean.
"""

from __future__ import annotations

import sqlite3
from typing import Iterable, Iterator, Sequence

import msgspec

from hetki.events.event import EventId, LeafId
from hetki.store.accounts import ACCOUNTS
from hetki.store.identities import IDENTITIES, Identities
from hetki.store.sqlite import chunks, prepare
from hetki.store.staffing import STAFFING

FILE = "state.db"

PROJECTIONS = """
CREATE TABLE IF NOT EXISTS progress(
    only INTEGER PRIMARY KEY CHECK (only = 1), position INTEGER NOT NULL, advance_to INTEGER NOT NULL,
    program TEXT NOT NULL, policy TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events(
    event_id BLOB PRIMARY KEY, position INTEGER NOT NULL, frame_offset INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leaf_events(
    leaf BLOB NOT NULL, position INTEGER NOT NULL, frame_offset INTEGER NOT NULL,
    PRIMARY KEY (leaf, position, frame_offset)) WITHOUT ROWID;
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

#: Links that nothing refuses: they stand, or wait for an identifier or a person.
_WAITING = "'', 'unknown_identifier', 'needs_review'"

Place = tuple[int, int]


class Progress(msgspec.Struct, frozen=True):
    """How far the fold has come: journal position, the engine's clock, the declarations' hash, and the
    version of the policy by which customers are derived."""

    position: int
    advance_to: int
    program: str
    policy: str


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


class State(Identities):
    """The projections. Every method runs inside the caller's transaction on `db`."""

    def __init__(self, db: sqlite3.Connection) -> None:
        super().__init__(db)
        prepare(db, FILE, PROJECTIONS + IDENTITIES + STAFFING + ACCOUNTS)

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
        row = self.db.execute("SELECT position, advance_to, program, policy FROM progress").fetchone()
        return Progress(*row) if row else None

    def save_progress(self, progress: Progress) -> None:
        """Replace the progress."""
        self.db.execute(
            "INSERT OR REPLACE INTO progress VALUES (1, ?, ?, ?, ?)",
            (progress.position, progress.advance_to, progress.program, progress.policy),
        )

    def seen(self, ids: Iterable[EventId]) -> set[EventId]:
        """Those of the ids that were folded before."""
        known: set[EventId] = set()
        for marks, part in chunks(ids):
            rows = self.db.execute(f"SELECT event_id FROM events WHERE event_id IN ({marks})", part)
            known.update(EventId(row[0]) for row in rows)
        return known

    def add_events(self, rows: Sequence[tuple[EventId, LeafId | None, Place]]) -> None:
        """Remember where new events lie, by id and by leaf; without a leaf those that cannot be read."""
        self.db.executemany(
            "INSERT INTO events VALUES (?, ?, ?)", [(event_id, *place) for event_id, _, place in rows]
        )
        self.db.executemany(
            "INSERT INTO leaf_events VALUES (?, ?, ?)", [(leaf, *place) for _, leaf, place in rows if leaf]
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
        """The running counts, and how many identifiers, customers, accounts and refused links there are."""
        found: dict[str, int] = dict(self.db.execute("SELECT name, n FROM counts"))
        for name, query in (
            ("identifiers", "SELECT count(*) FROM nodes WHERE namespace <> 'event'"),
            ("customers", "SELECT count(*) FROM customers WHERE NOT is_account"),
            ("accounts", "SELECT count(*) FROM accounts"),
            ("refused links", f"SELECT count(*) FROM links WHERE refusal NOT IN ({_WAITING})"),
        ):
            found[name] = self.db.execute(query).fetchone()[0]
        return found
