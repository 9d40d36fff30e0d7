"""Staffing: the reports of pools in `state.db`, a projection of the journal like any other."""

from __future__ import annotations

import sqlite3
from typing import Iterable

from hetki.patterns.staffing import Report

#: The table. Grain: one row per report; `share` is present by planned, null where nobody is planned.
STAFFING = """
CREATE TABLE IF NOT EXISTS staffing(
    pool TEXT NOT NULL, occurred_at INTEGER NOT NULL, source TEXT NOT NULL, sequence INTEGER NOT NULL,
    message_id TEXT NOT NULL, share REAL,
    PRIMARY KEY (pool, occurred_at, source, sequence, message_id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS staffing_occurred ON staffing(occurred_at);
"""


def add_staffing(db: sqlite3.Connection, reports: Iterable[Report]) -> None:
    """Keep reports, in the caller's transaction; one that is known stays as it is."""
    db.executemany(
        "INSERT OR IGNORE INTO staffing VALUES (?, ?, ?, ?, ?, ?)",
        [(each.pool, *each.order_key, each.share) for each in reports],
    )


def load_staffing(db: sqlite3.Connection, since: int) -> list[Report]:
    """The reports of every pool from an instant on, and of each pool the last one before it."""
    rows = db.execute("SELECT * FROM staffing WHERE occurred_at >= ?", (since,)).fetchall()
    pool = _next_pool(db, "")
    while pool is not None:
        rows += db.execute(
            "SELECT * FROM staffing WHERE pool = ? AND occurred_at < ? ORDER BY occurred_at DESC,"
            " source DESC, sequence DESC, message_id DESC LIMIT 1",
            (pool, since),
        )
        pool = _next_pool(db, pool)
    return [Report(row[0], (row[1], row[2], row[3], row[4]), row[5]) for row in rows]


def _next_pool(db: sqlite3.Connection, pool: str) -> str | None:
    found: str | None = db.execute("SELECT min(pool) FROM staffing WHERE pool > ?", (pool,)).fetchone()[0]
    return found
