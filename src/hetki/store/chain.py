"""The chain over decisions: any changed byte of a decision, or one that is gone, is found by `verify_chain`.

Each decision has one link: the SHA-256 of its row, chained to the link before it. The link of an erased
decision stays, with its hash and without its name, so that the chain outlives it; that of a blanked one
names the hash of what is left, too.

A row has random bytes of its own, its salt, which are hashed with it and go with it, in every backup, too: so
the hash that stays tells nothing, not even to who knows all but one value of the decision and tries each.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Collection, Sequence

import msgspec

from hetki.errors import Fault, Invalid
from hetki.store.sqlite import check, chunks, sound

CHAIN = """
CREATE TABLE IF NOT EXISTS chain(
    number INTEGER PRIMARY KEY, -- 1, 2, 3 ... in the order of decisions, without a gap
    decision_id TEXT UNIQUE,    -- NULL once the decision was erased
    digest BLOB NOT NULL,       -- SHA-256 of the decision's row
    chain BLOB NOT NULL,
    blanked BLOB);              -- SHA-256 of the row once the values in it were blanked
"""

#: The columns of a decision's row, in the order in which they are hashed.
COLUMNS = (
    "decision_id, occurrence_id, moment, initiative, customer, occurred_at, decided_at, arm, chosen,"
    " propensity, holdout_share, record, account, salt"
)
#: Random bytes of a decision.
SALT_BYTES = 16
ORIGIN = hashlib.sha256(b"hetki decisions").digest()
FILE = "state.db"

_encode = msgspec.msgpack.Encoder().encode


class Chained(msgspec.Struct, frozen=True):
    """How many links the chain has, how many of them are of erased and of blanked decisions, and its last
    link."""

    n_links: int
    n_erased: int
    n_blanked: int
    chain: bytes


def add_link(db: sqlite3.Connection, row: tuple[object, ...]) -> None:
    """Link a decision's row (`COLUMNS`) to the chain, in the caller's transaction."""
    number, chain = chain_head(db)
    digest = hashlib.sha256(_encode(row)).digest()
    link = (number + 1, row[0], digest, _link(chain, number + 1, digest))
    db.execute("INSERT INTO chain VALUES (?, ?, ?, ?, NULL)", link)


def chain_head(db: sqlite3.Connection) -> tuple[int, bytes]:
    """The last number and its link; 0 and the origin when nothing was decided."""
    row = db.execute("SELECT number, chain FROM chain ORDER BY number DESC LIMIT 1").fetchone()
    return (row[0], row[1]) if row else (0, ORIGIN)


def link_at(db: sqlite3.Connection, number: int) -> bytes | None:
    """One link of the chain; None if it is not so long."""
    row = db.execute("SELECT chain FROM chain WHERE number = ?", (number,)).fetchone()
    return row[0] if row else None


def leave_links(db: sqlite3.Connection, decision_ids: Collection[str]) -> None:
    """Keep the links of decisions that are erased, without their names."""
    for marks, part in chunks(decision_ids):
        db.execute(
            f"UPDATE chain SET decision_id = NULL, blanked = NULL WHERE decision_id IN ({marks})", part
        )


def leave_blanked(db: sqlite3.Connection, decision_id: str, record: bytes) -> None:
    """Put the record of a decision whose values were blanked into its row; the hash of what is left stays."""
    row = db.execute(f"SELECT {COLUMNS} FROM decisions WHERE decision_id = ?", (decision_id,)).fetchone()
    left = dict(zip(COLUMNS.split(", "), left_of(row, record), strict=True))
    db.execute("UPDATE decisions SET record = :record, salt = :salt WHERE decision_id = :decision_id", left)
    keep_blanked(db, (*left.values(),))


def left_of(row: Sequence[object], record: bytes) -> tuple[object, ...]:
    """A decision's row (`COLUMNS`) with the record whose values were blanked.

    The salt becomes its own SHA-256, from which nobody gets back to the one that the first hash has.
    """
    columns = dict(zip(COLUMNS.split(", "), row, strict=True))
    salt = columns["salt"]
    assert isinstance(salt, bytes)
    return (*(columns | {"record": record, "salt": hashlib.sha256(salt).digest()}).values(),)


def keep_blanked(db: sqlite3.Connection, row: Sequence[object]) -> None:
    """Keep the hash of a decision's row (`COLUMNS`) in which the values are blanked."""
    digest = hashlib.sha256(_encode(row)).digest()
    db.execute("UPDATE chain SET blanked = ? WHERE decision_id = ?", (digest, row[0]))


def verify_chain(db: sqlite3.Connection) -> Chained:
    """Walk the chain over decisions. Raises `Invalid` at the first broken one, or at one without a link."""
    check(db, FILE, "chain", "decisions")
    expected, n_named, n_blanked, chain = 1, 0, 0, ORIGIN
    columns = ", ".join(f"d.{each}" for each in COLUMNS.split(", "))
    with sound(FILE):
        rows = db.execute(
            f"SELECT c.number, c.decision_id, c.digest, c.chain, c.blanked, {columns} FROM chain c"
            " LEFT JOIN decisions d ON d.decision_id = c.decision_id ORDER BY c.number"
        )
        for number, decision_id, digest, stored, blanked, *row in rows:
            got = ""
            chain = _link(chain, expected, digest)
            if number != expected or chain != stored:
                got = "a link that does not fit the chain"
            elif decision_id is not None and row[0] is None:
                got = "no such decision"
            elif decision_id is not None and hashlib.sha256(_encode(tuple(row))).digest() != (
                blanked or digest
            ):
                got = "other bytes than were recorded"
            if got:
                rows.close()
                raise _broken(f"decision {expected} ({decision_id or 'erased'})", got)
            expected += 1
            n_named += decision_id is not None
            n_blanked += decision_id is not None and blanked is not None
        (n_decisions,) = db.execute("SELECT count(*) FROM decisions").fetchone()
    if n_decisions != n_named:
        raise _broken("decisions", f"{n_decisions} of which {n_named} are in the chain")
    return Chained(expected - 1, expected - 1 - n_named, n_blanked, chain)


def _broken(where: str, got: str) -> Invalid:
    hint = "restore it from a backup; decisions before this one are intact"
    return Invalid(Fault(f"{FILE}: {where}", got, "what was once decided", hint))


def _link(chain: bytes, number: int, digest: bytes) -> bytes:
    return hashlib.sha256(chain + number.to_bytes(8) + digest).digest()
