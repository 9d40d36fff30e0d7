"""The ledger: deeds, recorded once and never re-made by replay (law 2).

Decisions, assignments, missed and revised occurrences, messages and their attempts, the declarations that
were in force, and the log of advances. It shares `state.db` with the projections so that one transaction
moves both; `hetki rebuild` leaves it untouched.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping

import msgspec

from hetki.decisions.question import Arm, Assignment, Decision
from hetki.dialogues.message import Message, Status
from hetki.events.event import LeafId
from hetki.store.chain import CHAIN, add_link
from hetki.store.erasing import ERASURES, USED, add_used
from hetki.store.pages import PAGES
from hetki.store.sqlite import chunks, prepare

LEDGER = """
CREATE TABLE IF NOT EXISTS decisions(
    decision_id TEXT PRIMARY KEY, occurrence_id TEXT NOT NULL UNIQUE, moment TEXT NOT NULL,
    initiative TEXT NOT NULL, customer BLOB NOT NULL, occurred_at INTEGER NOT NULL,
    decided_at INTEGER NOT NULL, arm TEXT NOT NULL, chosen TEXT NOT NULL, propensity REAL NOT NULL,
    holdout_share REAL NOT NULL, record BLOB NOT NULL, account BLOB, salt BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS decisions_customer ON decisions(customer);
CREATE INDEX IF NOT EXISTS decisions_account ON decisions(account) WHERE account IS NOT NULL;
CREATE INDEX IF NOT EXISTS decisions_moment ON decisions(moment, decided_at);
CREATE TABLE IF NOT EXISTS missed(
    occurrence_id TEXT PRIMARY KEY, moment TEXT NOT NULL, customer BLOB NOT NULL,
    occurred_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, missed_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS missed_at ON missed(missed_at);
CREATE INDEX IF NOT EXISTS missed_customer ON missed(customer);
CREATE TABLE IF NOT EXISTS assignments(
    initiative TEXT NOT NULL, customer BLOB NOT NULL, arm TEXT NOT NULL, holdout_share REAL NOT NULL,
    assigned_at INTEGER NOT NULL, decision_id TEXT NOT NULL,
    PRIMARY KEY (initiative, customer)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS assignments_customer ON assignments(customer);
CREATE TABLE IF NOT EXISTS revisions(
    occurrence_id TEXT NOT NULL, revised_at INTEGER NOT NULL, kind TEXT NOT NULL, cause TEXT NOT NULL,
    moment TEXT NOT NULL, customer BLOB NOT NULL, detail TEXT NOT NULL,
    PRIMARY KEY (occurrence_id, revised_at, kind)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS revisions_customer ON revisions(customer);
CREATE TABLE IF NOT EXISTS outbox(
    message_id TEXT PRIMARY KEY, decision_id TEXT NOT NULL, moment TEXT NOT NULL, action TEXT NOT NULL,
    purpose TEXT NOT NULL, transactional INTEGER NOT NULL, destination TEXT NOT NULL, customer BLOB NOT NULL,
    created_at INTEGER NOT NULL, due_at INTEGER NOT NULL, expires_at INTEGER NOT NULL,
    recipient TEXT NOT NULL, subject TEXT NOT NULL, body TEXT NOT NULL,
    status TEXT NOT NULL, detail TEXT NOT NULL, n_attempts INTEGER NOT NULL, sent_at INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outbox_waiting ON outbox(destination, due_at)
    WHERE status IN ('waiting', 'claimed');
CREATE INDEX IF NOT EXISTS outbox_decision ON outbox(decision_id);
CREATE INDEX IF NOT EXISTS outbox_customer ON outbox(customer, created_at);
CREATE INDEX IF NOT EXISTS outbox_created ON outbox(created_at);
CREATE INDEX IF NOT EXISTS outbox_status ON outbox(status, created_at);
CREATE TABLE IF NOT EXISTS attempts(
    message_id TEXT NOT NULL, n_attempt INTEGER NOT NULL, attempted_at INTEGER NOT NULL, ok INTEGER NOT NULL,
    status INTEGER NOT NULL, detail TEXT NOT NULL, PRIMARY KEY (message_id, n_attempt)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS breakers(destination TEXT PRIMARY KEY, breaker BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS advances(
    advance INTEGER PRIMARY KEY, position INTEGER NOT NULL, advance_to INTEGER NOT NULL,
    n_entries INTEGER NOT NULL, n_caught INTEGER NOT NULL, n_decided INTEGER NOT NULL,
    version TEXT NOT NULL, program TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS declarations(
    program TEXT PRIMARY KEY, taken_up_at INTEGER NOT NULL, files BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS restored(
    restored_at INTEGER PRIMARY KEY, backup_id TEXT NOT NULL, made_at INTEGER NOT NULL,
    is_held INTEGER NOT NULL);
"""

#: Why a message of a restored backup is not sent.
RESTORED = "restored from a backup; it may have been sent since"
#: The file that it shares with the projections.
FILE = "state.db"

_decisions = msgspec.json.Decoder(Decision)
_files = msgspec.msgpack.Decoder(dict[str, bytes])


class Ledger:
    """The deeds. Every method runs inside the caller's transaction on `db`."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        prepare(db, FILE, LEDGER + ERASURES + USED + CHAIN + PAGES)

    def handled(self, occurrence_ids: Iterable[str]) -> set[str]:
        """Occurrences that were decided or missed before: never again."""
        found: set[str] = set()
        for marks, part in chunks(occurrence_ids):
            for table in ("decisions", "missed"):
                rows = self.db.execute(
                    f"SELECT occurrence_id FROM {table} WHERE occurrence_id IN ({marks})", part
                )
                found.update(row[0] for row in rows)
        return found

    def record(self, decision: Decision, customer: LeafId, salt: bytes) -> None:
        """Record a decision and, if it was drawn now, the assignment: of the account, if it is about one.

        `salt` is `SALT_BYTES` random bytes of its own, which lie in its row and go with it.
        """
        question = decision.question
        account = bytes.fromhex(question.account) or None
        row = (
            decision.decision_id,
            question.occurrence_id,
            question.moment,
            question.initiative,
            customer,
            question.occurred_at,
            question.decided_at,
            decision.arm,
            decision.chosen,
            float(decision.propensity),
            float(question.standing.holdout_share if question.standing else question.holdout_share),
            msgspec.json.encode(decision),
            account,
            salt,
        )
        self.db.execute("INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        add_link(self.db, row)
        add_used(self.db, decision.decision_id, customer, question.data_of + question.known_of)
        if decision.assigned_now:
            self.db.execute(
                "INSERT INTO assignments VALUES (?, ?, ?, ?, ?, ?)",
                (
                    question.initiative,
                    account or customer,
                    decision.arm,
                    question.holdout_share,
                    question.decided_at,
                    decision.decision_id,
                ),
            )

    def decision(self, decision_id: str) -> Decision | None:
        """A decision by its id, or by the id of its occurrence."""
        row = self.db.execute(
            "SELECT record FROM decisions WHERE decision_id = ?1 OR occurrence_id = ?1", (decision_id,)
        ).fetchone()
        return _decisions.decode(row[0]) if row else None

    def add_missed(self, rows: Iterable[tuple[str, str, LeafId, int, int, int]]) -> None:
        """Record occurrences that were found too late to be answered: (occurrence_id, moment, customer,
        occurred_at, expires_at, missed_at)."""
        self.db.executemany("INSERT INTO missed VALUES (?, ?, ?, ?, ?, ?)", rows)

    def add_revisions(self, rows: Iterable[tuple[str, int, str, str, str, LeafId, str]]) -> None:
        """Record occurrences that repaired history `revised` or `retracted`: (occurrence_id, revised_at,
        kind, cause, moment, customer, detail)."""
        self.db.executemany("INSERT OR REPLACE INTO revisions VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def chosen(self, occurrence_ids: Iterable[str]) -> dict[str, tuple[str, str]]:
        """What was decided for occurrences: id -> (decision_id, chosen); those without are left out."""
        found: dict[str, tuple[str, str]] = {}
        for marks, part in chunks(occurrence_ids):
            rows = self.db.execute(
                f"SELECT occurrence_id, decision_id, chosen FROM decisions WHERE occurrence_id IN ({marks})",
                part,
            )
            found.update((row[0], (row[1], row[2])) for row in rows)
        return found

    def is_retracted(self, decision_id: str) -> bool:
        """Whether repaired history took back what a decision answered; it stays so if that comes back."""
        row = self.db.execute(
            "SELECT 1 FROM revisions WHERE kind = 'retracted' AND occurrence_id ="
            " (SELECT occurrence_id FROM decisions WHERE decision_id = ?) LIMIT 1",
            (decision_id,),
        ).fetchone()
        return row is not None

    def occurrence_of(self, decision_id: str) -> bytes | None:
        """What a decision answered, as it stands after all repairs; None once it is gone."""
        row = self.db.execute(
            "SELECT o.body FROM decisions d JOIN occurrences o USING (occurrence_id) WHERE d.decision_id = ?",
            (decision_id,),
        ).fetchone()
        return row[0] if row else None

    def standing(self, initiative: str, leaves: Iterable[LeafId]) -> Assignment | None:
        """The first assignment of any leaf of a customer in an initiative."""
        found: list[tuple[int, Arm, float]] = []
        for marks, part in chunks(leaves):
            rows = self.db.execute(
                "SELECT assigned_at, arm, holdout_share FROM assignments"
                f" WHERE initiative = ? AND customer IN ({marks})",
                [initiative, *part],
            )
            found.extend(rows)
        if not found:
            return None
        assigned_at, arm, holdout_share = min(found)
        return Assignment(arm, holdout_share, assigned_at)

    def n_contacts(self, leaves: Iterable[LeafId], since: int, action: str = "") -> int:
        """Messages made for a customer since an instant: of one action, or all that the cap counts."""
        n = 0
        for marks, part in chunks(leaves):
            row = self.db.execute(
                f"SELECT count(*) FROM outbox INDEXED BY outbox_customer WHERE customer IN ({marks})"
                " AND created_at > ?"
                " AND status IN ('waiting', 'claimed', 'sent')"
                " AND iif(? = '', transactional = 0, action = ?)",
                [*part, since, action, action],
            ).fetchone()
            n += row[0]
        return n

    def post(self, message: Message) -> None:
        """Put a message into the outbox; a repeat of its id changes nothing."""
        self.db.execute(
            "INSERT OR IGNORE INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            msgspec.structs.astuple(message),
        )

    def statuses(self, decision_ids: Iterable[str]) -> dict[str, Status]:
        """How the messages of decisions stand; decisions without one are left out."""
        found: dict[str, Status] = {}
        for marks, part in chunks(decision_ids):
            found.update(
                self.db.execute(
                    f"SELECT decision_id, status FROM outbox WHERE decision_id IN ({marks})", part
                ).fetchall()
            )
        return found

    def cancel(self, decision_ids: Collection[str], detail: str) -> int:
        """Cancel what is still unsent of these decisions; return how many messages."""
        n = 0
        for marks, part in chunks(decision_ids):
            n += self.db.execute(
                f"UPDATE outbox SET status = 'cancelled', detail = ? WHERE decision_id IN ({marks})"
                " AND status = 'waiting'",
                [detail, *part],
            ).rowcount
        return n

    def ready(self, destination: str, now: int, n_max: int) -> list[Message]:
        """Messages of a destination that are due, oldest first; claims left by a crash included."""
        rows = self.db.execute(
            "SELECT * FROM outbox WHERE destination = ? AND status IN ('waiting', 'claimed')"
            " AND due_at <= ? ORDER BY due_at, message_id LIMIT ?",
            (destination, now, n_max),
        )
        return [Message(*row) for row in rows]

    def destinations_waiting(self) -> set[str]:
        """The destinations that messages wait for."""
        rows = self.db.execute(
            "SELECT DISTINCT destination FROM outbox WHERE status IN ('waiting', 'claimed')"
        )
        return {row[0] for row in rows}

    def set_status(self, message_id: str, status: Status, detail: str, due_at: int | None = None) -> None:
        """Move a message on; `due_at` is when it is tried next."""
        self.db.execute(
            "UPDATE outbox SET status = ?, detail = ?, due_at = coalesce(?, due_at) WHERE message_id = ?",
            (status, detail, due_at, message_id),
        )

    def add_attempt(self, message_id: str, attempted_at: int, is_ok: bool, status: int, detail: str) -> int:
        """Record one attempt to send; return its number."""
        row = self.db.execute(
            "UPDATE outbox SET n_attempts = n_attempts + 1, sent_at = iif(?1, ?2, sent_at)"
            " WHERE message_id = ?3 RETURNING n_attempts",
            (is_ok, attempted_at, message_id),
        ).fetchall()
        n_attempt: int = row[0][0]
        self.db.execute(
            "INSERT INTO attempts VALUES (?, ?, ?, ?, ?, ?)",
            (message_id, n_attempt, attempted_at, is_ok, status, detail),
        )
        return n_attempt

    def hold(self, restored_at: int, backup_id: str, made_at: int, is_held: bool) -> int:
        """Note that a backup was restored. `is_held`: what it left unsent may have been sent since, so it is
        cancelled; return how many messages."""
        row = (restored_at, backup_id, made_at, is_held)
        self.db.execute("INSERT OR REPLACE INTO restored VALUES (?, ?, ?, ?)", row)
        return self.db.execute(
            "UPDATE outbox SET status = 'cancelled', detail = ? WHERE ? AND status IN ('waiting', 'claimed')",
            (RESTORED, is_held),
        ).rowcount

    def restored_at(self) -> int:
        """When a backup was restored last: what was waiting then may have been sent already. 0 if never."""
        row = self.db.execute("SELECT max(restored_at) FROM restored").fetchone()
        return row[0] or 0

    def held_until(self) -> int:
        """What occurred until then may have been answered by what was lost with a restore: 0 if nothing."""
        row = self.db.execute("SELECT max(restored_at) FROM restored WHERE is_held").fetchone()
        return row[0] or 0

    def breaker(self, destination: str) -> bytes | None:
        """The stored circuit breaker of a destination."""
        row = self.db.execute("SELECT breaker FROM breakers WHERE destination = ?", (destination,)).fetchone()
        return row[0] if row else None

    def save_breaker(self, destination: str, breaker: bytes) -> None:
        """Replace the circuit breaker of a destination."""
        self.db.execute("INSERT OR REPLACE INTO breakers VALUES (?, ?)", (destination, breaker))

    def log_advance(
        self,
        position: int,
        advance_to: int,
        n_entries: int,
        n_caught: int,
        n_decided: int,
        version: str,
        program: str,
    ) -> None:
        """Record one advance: how far, until when, under which code and declarations."""
        self.db.execute(
            "INSERT INTO advances(position, advance_to, n_entries, n_caught, n_decided, version, program)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (position, advance_to, n_entries, n_caught, n_decided, version, program),
        )

    def keep_declarations(self, program: str, taken_up_at: int, files: Mapping[str, bytes]) -> None:
        """Keep the files of the declarations that are in force from now on."""
        self.db.execute(
            "INSERT OR REPLACE INTO declarations VALUES (?, ?, ?)",
            (program, taken_up_at, msgspec.msgpack.encode(files)),
        )

    def declarations(self, program: str) -> dict[str, bytes] | None:
        """The files of declarations that were in force; None if they were not kept."""
        row = self.db.execute("SELECT files FROM declarations WHERE program = ?", (program,)).fetchone()
        return _files.decode(row[0]) if row else None

    def taken_up_at(self, program: str) -> int | None:
        """When declarations came into force last."""
        row = self.db.execute("SELECT taken_up_at FROM declarations WHERE program = ?", (program,)).fetchone()
        return row[0] if row else None

    def versions(self) -> list[str]:
        """The declarations that were in force, the latest first."""
        rows = self.db.execute("SELECT program FROM declarations ORDER BY taken_up_at DESC, program")
        return [row[0] for row in rows]
