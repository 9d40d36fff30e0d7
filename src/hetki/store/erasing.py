"""Erasing: the rows of `state.db` that an erased customer owns, taken out of projections and ledger.

Deletes only, inside the caller's transaction; SQLite overwrites what it deletes (`secure_delete`). What is
derived again is not known here. The ledger of erasures has no identifier in it, and survives a rebuild.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable
from collections.abc import Set as AbstractSet

import msgspec

from hetki.decisions.question import Decision, blanked
from hetki.dialogues.message import UNHEARD
from hetki.events.event import EventId, LeafId, event_id
from hetki.identity.account import AccountId
from hetki.store.chain import leave_blanked, leave_links
from hetki.store.journal import Journal
from hetki.store.places import Framed
from hetki.store.sqlite import chunks

#: Grain: one row per erasure. `destroyed` counts what was; the receipt is signed once nothing is left to do.
ERASURES = """
CREATE TABLE IF NOT EXISTS erasures(
    erasure_id TEXT PRIMARY KEY, said_by TEXT NOT NULL, said_at INTEGER NOT NULL,
    rewritten_at INTEGER NOT NULL, destroyed BLOB NOT NULL, finished_at INTEGER, receipt BLOB,
    signature BLOB) WITHOUT ROWID;
"""
#: Grain: one row per decision and leaf whose data it used, but the leaf that it is about: erasures look here.
USED = """
CREATE TABLE IF NOT EXISTS decisions_used(
    leaf BLOB NOT NULL, decision_id TEXT NOT NULL, PRIMARY KEY (leaf, decision_id)) WITHOUT ROWID;
"""


#: What a receipt calls decisions of which only the values were taken.
BLANKED = "decision_values"


class ErasedRows(msgspec.Struct, frozen=True):
    """How many events can no longer be read, the accounts that were named by them, and since when a report of
    staffing is missing, if one was among them."""

    n_events: int
    accounts: set[AccountId]
    reported_at: int | None


class Ledgered(msgspec.Struct, frozen=True):
    """How many deeds were taken out of the ledger."""

    decisions: int
    assignments: int
    messages: int


class _Asked(msgspec.Struct, frozen=True):
    data_of: list[str]
    known_of: list[str] = []


class _Recorded(msgspec.Struct, frozen=True):
    question: _Asked


_recorded = msgspec.json.Decoder(_Recorded)
_decisions = msgspec.json.Decoder(Decision)


def add_used(db: sqlite3.Connection, decision_id: str, customer: bytes, data_of: Iterable[str]) -> None:
    """Note whose data a decision used."""
    rows = [(leaf, decision_id) for each in data_of if (leaf := bytes.fromhex(each)) != customer]
    db.executemany("INSERT OR IGNORE INTO decisions_used VALUES (?, ?)", rows)


def fill_used(db: sqlite3.Connection) -> None:
    """Note it of every decision again, from what is recorded: after a restore."""
    db.execute("DELETE FROM decisions_used")
    for decision_id, customer, record in db.execute("SELECT decision_id, customer, record FROM decisions"):
        add_used(db, decision_id, customer, data_of(record))


def data_of(record: bytes) -> list[str]:
    """Whose data a recorded decision used, or may have put into words: hex ids of leaves."""
    asked = _recorded.decode(record).question
    return asked.data_of + asked.known_of


def unfinished(db: sqlite3.Connection) -> list[str]:
    """The erasures of which something is left to do."""
    return [row[0] for row in db.execute("SELECT erasure_id FROM erasures WHERE finished_at IS NULL")]


def erase_leaves(
    db: sqlite3.Connection, journal: Journal, event_key: bytes, leaves: Collection[LeafId]
) -> ErasedRows:
    """Forget which events, rejected bodies, reports and accounts are of these leaves."""
    places: set[tuple[int, int]] = set()
    accounts: set[AccountId] = set()
    for marks, part in chunks(leaves):
        rows = db.execute(f"SELECT position, frame_offset FROM leaf_events WHERE leaf IN ({marks})", part)
        places.update((position, frame_offset) for position, frame_offset in rows)
        found = db.execute(f"SELECT account FROM account_leaves WHERE leaf IN ({marks})", part)
        accounts.update(AccountId(row[0]) for row in found)
        for table in ("leaf_events", "account_leaves"):
            db.execute(f"DELETE FROM {table} WHERE leaf IN ({marks})", part)
    # a rejected body's leaf is its own id
    db.executemany("DELETE FROM rejected WHERE rejected_id = ?", [(leaf.hex(),) for leaf in leaves])
    settle_accounts(db, accounts)
    has_reports = db.execute("SELECT 1 FROM staffing LIMIT 1").fetchone() is not None
    stored = journal.entries(sorted(places)) if has_reports else ()
    reported_at = _erase_reports(db, event_key, {each.event_id for each in stored})
    return ErasedRows(len(places), accounts, reported_at)


def erase_places(db: sqlite3.Connection, event_key: bytes, events: Collection[Framed]) -> ErasedRows:
    """Forget events by where they lie, and what their leaves have said of accounts: what is left of that is
    to be added again before `settle_accounts`."""
    accounts: set[AccountId] = set()
    db.executemany(
        "DELETE FROM leaf_events WHERE leaf = ? AND position = ? AND frame_offset = ?",
        [(each.leaf, each.position, each.frame_offset) for each in events],
    )
    for marks, part in chunks({each.leaf for each in events}):
        found = db.execute(f"SELECT account FROM account_leaves WHERE leaf IN ({marks})", part)
        accounts.update(AccountId(row[0]) for row in found)
        db.execute(f"DELETE FROM account_leaves WHERE leaf IN ({marks})", part)
    places = {(each.position, each.frame_offset) for each in events}
    reported_at = _erase_reports(db, event_key, {each.event_id for each in events})
    return ErasedRows(len(places), accounts, reported_at)


def erase_rejected(db: sqlite3.Connection, bodies: Collection[Framed]) -> int:
    """Forget rejected bodies by where they lie; return how many."""
    n = 0
    for each in bodies:
        where = "rejected_id = ? AND position = ? AND frame_offset = ?"
        place = each.event_id.hex(), each.position, each.frame_offset
        n += db.execute(f"DELETE FROM rejected WHERE {where}", place).rowcount
    return n


def settle_accounts(db: sqlite3.Connection, accounts: Collection[AccountId]) -> None:
    """Take away accounts that nobody names any more, and set since when the others are named."""
    for marks, part in chunks(accounts):
        db.execute(
            f"DELETE FROM accounts WHERE account IN ({marks})"
            " AND NOT EXISTS (SELECT 1 FROM account_leaves l WHERE l.account = accounts.account)",
            part,
        )
        db.execute(
            "UPDATE accounts SET first_at = (SELECT min(first_at) FROM account_leaves l"
            f" WHERE l.account = accounts.account) WHERE account IN ({marks})",
            part,
        )


def _erase_reports(db: sqlite3.Connection, event_key: bytes, event_ids: AbstractSet[EventId]) -> int | None:
    """Reports of staffing that were sent in a customer's name are the customer's events; since when."""
    if not event_ids:
        return None
    reported = db.execute("SELECT DISTINCT source, message_id, occurred_at FROM staffing")
    mine = [row for row in reported if event_id(event_key, row[0], row[1]) in event_ids]
    db.executemany("DELETE FROM staffing WHERE source = ? AND message_id = ? AND occurred_at = ?", mine)
    return min((each[2] for each in mine), default=None)


def erase_deeds(
    db: sqlite3.Connection,
    leaves: Collection[LeafId],
    units: Collection[bytes],
    occurrence_ids: Collection[str],
) -> Ledgered:
    """Delete the deeds about these leaves, and about occurrences that are gone; `units` are the ids that
    customers and accounts had.

    A decision about somebody else that used data of these leaves becomes a missed occurrence: a mark that it
    is not decided again. A message that is being sent is cancelled and emptied instead.
    """
    mine, others = _decisions_of(db, leaves)
    decisions = mine + others
    db.executemany(
        "INSERT OR IGNORE INTO missed SELECT occurrence_id, moment, customer, occurred_at, occurred_at,"
        " decided_at FROM decisions d WHERE decision_id = ?1 AND (?2 OR EXISTS"
        " (SELECT 1 FROM occurrences o WHERE o.occurrence_id = d.occurrence_id))",
        [*((each, False) for each in mine), *((each, True) for each in others)],
    )
    n_messages = _erase_messages(db, decisions, leaves)
    _drop_used(db, decisions)
    for marks, listed in chunks(mine):
        db.execute(
            "DELETE FROM revisions WHERE occurrence_id IN"
            f" (SELECT occurrence_id FROM decisions WHERE decision_id IN ({marks}))",
            listed,
        )
    for marks, listed in chunks(decisions):
        db.execute(f"DELETE FROM decisions WHERE decision_id IN ({marks})", listed)
    for marks, part in chunks({*leaves, *units}):
        db.execute(f"DELETE FROM page_links WHERE customer IN ({marks})", part)
    n_assignments = _drop_about(db, {*leaves, *units})
    leave_links(db, decisions)
    db.executemany("DELETE FROM revisions WHERE occurrence_id = ?", [(each,) for each in occurrence_ids])
    db.executemany("DELETE FROM missed WHERE occurrence_id = ?", [(each,) for each in occurrence_ids])
    return Ledgered(len(decisions), n_assignments, n_messages)


def _drop_about(db: sqlite3.Connection, units: Collection[bytes]) -> int:
    """Delete what is kept beside decisions under these ids; return how many assignments.

    What was decided, or missed, about somebody else who was known by one of them stays with whoever has it
    now: a browser is nobody's while two have told it, and the other's once one of them is erased.
    """
    n_assignments = 0
    for marks, part in chunks(units):
        db.execute(
            "UPDATE missed SET customer ="
            " (SELECT o.customer FROM occurrences o WHERE o.occurrence_id = missed.occurrence_id)"
            f" WHERE customer IN ({marks}) AND EXISTS"
            " (SELECT 1 FROM occurrences o WHERE o.occurrence_id = missed.occurrence_id)",
            part,
        )
        db.execute(
            f"DELETE FROM missed WHERE customer IN ({marks}) AND NOT EXISTS"
            " (SELECT 1 FROM occurrences o WHERE o.occurrence_id = missed.occurrence_id)",
            part,
        )
        n_assignments += db.execute(
            f"DELETE FROM assignments WHERE customer IN ({marks})"
            " AND NOT EXISTS (SELECT 1 FROM decisions d WHERE d.decision_id = assignments.decision_id)",
            part,
        ).rowcount
        db.execute(
            f"DELETE FROM revisions WHERE customer IN ({marks})"
            " AND NOT EXISTS (SELECT 1 FROM decisions d WHERE d.occurrence_id = revisions.occurrence_id)"
            " AND NOT EXISTS (SELECT 1 FROM missed m WHERE m.occurrence_id = revisions.occurrence_id)",
            part,
        )
    return n_assignments


def _decisions_of(db: sqlite3.Connection, leaves: Collection[LeafId]) -> tuple[list[str], list[str]]:
    """The decisions about leaves, and those about others that used their data."""
    mine: set[str] = set()
    used: set[str] = set()
    for marks, part in chunks(leaves):
        about = db.execute(f"SELECT decision_id FROM decisions WHERE customer IN ({marks})", part)
        mine.update(row[0] for row in about)
        rows = db.execute(f"SELECT decision_id FROM decisions_used WHERE leaf IN ({marks})", part)
        used.update(row[0] for row in rows)
    return sorted(mine), sorted(used - mine)


def _drop_used(db: sqlite3.Connection, decisions: Iterable[str]) -> None:
    """Forget whose data these decisions used."""
    for marks, part in chunks(decisions):
        rows = db.execute(f"SELECT decision_id, record FROM decisions WHERE decision_id IN ({marks})", part)
        used = [
            (bytes.fromhex(leaf), decision_id) for decision_id, record in rows for leaf in data_of(record)
        ]
        db.executemany("DELETE FROM decisions_used WHERE leaf = ? AND decision_id = ?", used)


def blank_deeds(
    db: sqlite3.Connection,
    leaves: Collection[LeafId],
    is_told_of: Callable[[Decision], bool],
    since: int,
    detail: str,
    accounts: Collection[AccountId] = (),
) -> tuple[int, int]:
    """Blank the values in decisions made since an instant that are about leaves or accounts, or used the data
    of leaves, as far as `is_told_of` says, and empty their messages: how many of each.

    What was decided, for whom and by which rules stays; what is still to be sent is cancelled.
    """
    mine, others = _decisions_of(db, leaves)
    asked = {*mine, *others}
    for marks, some in chunks(accounts):
        rows = db.execute(f"SELECT decision_id FROM decisions WHERE account IN ({marks})", some)
        asked.update(row[0] for row in rows)
    found: dict[str, bytes] = {}
    for marks, part in chunks(sorted(asked)):
        query = (
            f"SELECT decision_id, record FROM decisions WHERE decision_id IN ({marks}) AND decided_at >= ?"
        )
        for decision_id, record in db.execute(query, [*part, since]).fetchall():
            decision = _decisions.decode(record)
            if is_told_of(decision):
                found[decision_id] = msgspec.json.encode(blanked(decision))
    n_messages = 0
    for decision_id, record in found.items():
        leave_blanked(db, decision_id, record)
        db.execute(
            "UPDATE attempts SET detail = '' WHERE message_id IN"
            " (SELECT message_id FROM outbox WHERE decision_id = ?)",
            (decision_id,),
        )
        n_messages += db.execute(
            "UPDATE outbox SET recipient = '', subject = '', body = '',"
            " detail = iif(status IN ('waiting', 'claimed'), ?1, ''),"
            " status = iif(status IN ('waiting', 'claimed'), 'cancelled', status)"
            " WHERE decision_id = ?2 AND recipient || subject || body <> ''",
            (detail, decision_id),
        ).rowcount
    return len(found), n_messages


def drop_warmed(db: sqlite3.Connection, units: Collection[LeafId]) -> None:
    """Forget what other declarations made of customers and accounts, and of all who are to be warmed again:
    what is kept of those is of before, and may be of somebody else by now."""
    for table in ("warmed", "changes"):
        db.execute(f"DELETE FROM {table} WHERE customer IN (SELECT customer FROM touched)")
        for marks, part in chunks(units):
            db.execute(f"DELETE FROM {table} WHERE customer IN ({marks})", part)


def _erase_messages(db: sqlite3.Connection, decisions: Iterable[str], leaves: Collection[LeafId]) -> int:
    ids: set[str] = set()
    for marks, listed in chunks(decisions):
        rows = db.execute(f"SELECT message_id FROM outbox WHERE decision_id IN ({marks})", listed)
        ids.update(row[0] for row in rows)
    for marks, mine in chunks(leaves):
        rows = db.execute(f"SELECT message_id FROM outbox WHERE customer IN ({marks})", mine)
        ids.update(row[0] for row in rows)
    for marks, part in chunks(ids):
        db.execute(f"DELETE FROM attempts WHERE message_id IN ({marks})", part)
        db.execute(f"DELETE FROM outbox WHERE status <> 'claimed' AND message_id IN ({marks})", part)
        db.execute(
            "UPDATE outbox SET status = 'cancelled', detail = ?, recipient = '', subject = '', body = '',"
            f" n_attempts = 0 WHERE message_id IN ({marks})",
            [f"erased; {UNHEARD}", *part],
        )
    return len(ids)
