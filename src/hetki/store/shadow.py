"""Shadow: what the customers would be under other declarations, in `state.db` beside what they are.

Only differences are kept: the states and occurrences that the other declarations change. Triggers mark
every customer whom something live has written meanwhile, so that no writer can forget to, with the accounts
of theirs, and those whom a report of staffing comes late for. `swap` moves it all into the state, inside the
caller's transaction. It can be dropped at any time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from hetki.errors import Fault
from hetki.events.event import LeafId
from hetki.store.sqlite import chunks, prepare
from hetki.store.state import FILE, CustomerRow

SHADOW = """
CREATE TABLE IF NOT EXISTS warming(
    only INTEGER PRIMARY KEY CHECK (only = 1), program TEXT NOT NULL, instead_of TEXT NOT NULL,
    begun_at INTEGER NOT NULL, cursor BLOB, n_warmed INTEGER NOT NULL, n_rounds INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS touched(customer BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS warmed(
    customer BLOB PRIMARY KEY, state BLOB NOT NULL, due_at INTEGER, last_at INTEGER NOT NULL,
    n_events INTEGER NOT NULL, is_account INTEGER NOT NULL, household BLOB) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS warmed_due ON warmed(due_at) WHERE due_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS changes(
    occurrence_id TEXT PRIMARY KEY, moment TEXT NOT NULL, customer BLOB NOT NULL,
    occurred_at INTEGER NOT NULL, body BLOB NOT NULL, kind TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS changes_customer ON changes(customer);
CREATE TABLE IF NOT EXISTS refused(
    only INTEGER PRIMARY KEY CHECK (only = 1), refused_at INTEGER NOT NULL, faults BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS customer_added AFTER INSERT ON customers WHEN EXISTS (SELECT 1 FROM warming)
    BEGIN INSERT OR IGNORE INTO touched VALUES (NEW.customer);
    INSERT OR IGNORE INTO touched SELECT l.account FROM nodes n JOIN account_leaves l ON l.leaf = n.node
        WHERE n.customer = NEW.customer; END;
CREATE TRIGGER IF NOT EXISTS customer_changed AFTER UPDATE ON customers WHEN EXISTS (SELECT 1 FROM warming)
    BEGIN INSERT OR IGNORE INTO touched VALUES (NEW.customer);
    INSERT OR IGNORE INTO touched SELECT l.account FROM nodes n JOIN account_leaves l ON l.leaf = n.node
        WHERE n.customer = NEW.customer; END;
CREATE TRIGGER IF NOT EXISTS customer_dropped AFTER DELETE ON customers WHEN EXISTS (SELECT 1 FROM warming)
    BEGIN INSERT OR IGNORE INTO touched VALUES (OLD.customer); END;
CREATE TRIGGER IF NOT EXISTS staffing_reported AFTER INSERT ON staffing WHEN EXISTS (SELECT 1 FROM warming)
    BEGIN INSERT OR IGNORE INTO touched
        SELECT customer FROM customers WHERE last_at >= NEW.occurred_at; END;
"""

#: Steps may grow to this many times the first.
_ROUNDS_MAX = 20

_faults = msgspec.json.Decoder(list[Fault])


class Warming(msgspec.Struct, frozen=True):
    """How far warming has come. `cursor` is the last customer of the first walk, None once that has ended;
    `n_rounds` counts the steps since."""

    program: str
    instead_of: str
    begun_at: int
    cursor: bytes | None
    n_warmed: int
    n_rounds: int


class Change(msgspec.Struct, frozen=True):
    """What the other declarations do to an occurrence: `new`, `revised` (the new body) or `retracted`."""

    occurrence_id: str
    moment: str
    customer: LeafId
    occurred_at: int
    body: bytes
    kind: str


class Refused(msgspec.Struct, frozen=True):
    """Declarations that were not taken up, and why."""

    refused_at: int
    faults: list[Fault]


class Shadow:
    """The shadow tables. Every method runs inside the caller's transaction on `db`."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        prepare(db, FILE, SHADOW)

    def warming(self) -> Warming | None:
        """What is being warmed; None when nothing is."""
        row = self.db.execute(
            "SELECT program, instead_of, begun_at, cursor, n_warmed, n_rounds FROM warming"
        ).fetchone()
        return Warming(*row) if row else None

    def begin(self, program: str, instead_of: str, now: int) -> None:
        """Start anew, from the first customer."""
        self.drop()
        self.db.execute("INSERT INTO warming VALUES (1, ?, ?, ?, ?, 0, 0)", (program, instead_of, now, b""))

    def drop(self) -> None:
        """Forget all that was warmed."""
        for table in ("warming", "touched", "warmed", "changes"):
            self.db.execute(f"DELETE FROM {table}")

    def next(self, warming: Warming, until: int, n_max: int) -> list[LeafId]:
        """The customers of the next step: those not warmed yet; after them who was touched or became due.

        What comes after the first walk comes in steps that double, so that it ends under any load.
        """
        if warming.cursor is not None:
            rows = self.db.execute(
                "SELECT customer, is_account FROM customers WHERE customer > ? ORDER BY customer LIMIT ?",
                (warming.cursor, n_max),
            ).fetchall()
            cursor = rows[-1][0] if len(rows) == n_max else None
            n_customers = sum(not is_account for _, is_account in rows)
            self.db.execute("UPDATE warming SET cursor = ?, n_warmed = n_warmed + ?", (cursor, n_customers))
            return [LeafId(row[0]) for row in rows]
        self.db.execute("UPDATE warming SET n_rounds = n_rounds + 1")
        rows = self.db.execute(
            "SELECT customer FROM touched UNION SELECT customer FROM warmed WHERE due_at <= ? LIMIT ?",
            (until, n_max << min(warming.n_rounds, _ROUNDS_MAX)),
        ).fetchall()
        return [LeafId(row[0]) for row in rows]

    def is_behind(self, until: int) -> bool:
        """Whether anybody is left to be warmed."""
        row = self.db.execute(
            "SELECT EXISTS (SELECT 1 FROM warming WHERE cursor IS NOT NULL) OR EXISTS (SELECT 1 FROM touched)"
            " OR EXISTS (SELECT 1 FROM warmed WHERE due_at <= ?)",
            (until,),
        ).fetchone()
        return bool(row[0])

    def n_touched(self) -> int:
        """How many customers are to be warmed again."""
        n: int = self.db.execute("SELECT count(*) FROM touched").fetchone()[0]
        return n

    def replace(
        self, customers: Iterable[LeafId], rows: Iterable[CustomerRow], changes: Iterable[Change]
    ) -> None:
        """Keep what is now known of customers, instead of all that was known of them."""
        for marks, part in chunks(customers):
            for table in ("touched", "warmed", "changes"):
                self.db.execute(f"DELETE FROM {table} WHERE customer IN ({marks})", part)
        self.db.executemany(
            "INSERT INTO warmed VALUES (?, ?, ?, ?, ?, ?, ?)",
            [msgspec.structs.astuple(row) for row in rows],
        )
        self.db.executemany(
            "INSERT OR REPLACE INTO changes VALUES (?, ?, ?, ?, ?, ?)",
            [(x.occurrence_id, x.moment, x.customer, x.occurred_at, x.body, x.kind) for x in changes],
        )

    def changes(self) -> list[Change]:
        """What the other declarations do to occurrences."""
        return [Change(*row) for row in self.db.execute("SELECT * FROM changes ORDER BY occurrence_id")]

    def swap(self) -> None:
        """Move everything into the state."""
        self.db.execute("DELETE FROM warming")  # from here on nothing is marked
        self.db.execute("INSERT OR REPLACE INTO customers SELECT * FROM warmed")
        self.db.execute(
            "DELETE FROM occurrences WHERE occurrence_id IN"
            " (SELECT occurrence_id FROM changes WHERE kind = 'retracted')"
        )
        self.db.execute(
            "INSERT OR REPLACE INTO occurrences SELECT occurrence_id, moment, customer, occurred_at, body"
            " FROM changes WHERE kind <> 'retracted'"
        )
        self.drop()

    def refuse(self, now: int, faults: list[Fault]) -> None:
        """Remember why the declarations in the folder were not taken up; no fault forgets it."""
        self.db.execute("DELETE FROM refused")
        if faults:
            self.db.execute("INSERT INTO refused VALUES (1, ?, ?)", (now, msgspec.json.encode(faults)))

    def refused(self) -> Refused | None:
        """What was refused last, if nothing was taken up since."""
        row = self.db.execute("SELECT refused_at, faults FROM refused").fetchone()
        return Refused(row[0], _faults.decode(row[1])) if row else None
