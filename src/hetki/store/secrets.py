"""Secrets: the keys by which personal data can be read, kept apart from the data (law 8).

A leaf (the narrowest owner of an event) and a period (source, retention class, month) have a random
secret each; the key of an entry is HKDF of both. Destroying a leaf's secret erases a person, destroying a
period's lets data expire. Both are durable before the journal commit that uses them.
"""

from __future__ import annotations

from typing import Collection

from hetki.events.event import LeafId
from hetki.store.ports import Chance, Disk
from hetki.store.sqlite import chunks, prepare, settle, transaction

FILE = "secrets.db"
SECRET_BYTES = 32
#: Leaf secrets kept in memory; beyond this the oldest are read from disk again.
CACHED_MAX = 200_000

SCHEMA = """
CREATE TABLE IF NOT EXISTS keys(name TEXT PRIMARY KEY, secret BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leaves(
    leaf BLOB PRIMARY KEY, secret BLOB NOT NULL, made_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS periods(
    period INTEGER PRIMARY KEY AUTOINCREMENT, -- the number of a destroyed one is never given again
    source TEXT NOT NULL, retention TEXT NOT NULL, month TEXT NOT NULL,
    secret BLOB NOT NULL, UNIQUE(source, retention, month));
"""

Period = tuple[str, str, str]


class Secrets:
    """Leaf, period and project secrets in `secrets.db`. Safe to open from several processes."""

    def __init__(self, disk: Disk, chance: Chance) -> None:
        self._db = disk.connect(FILE)
        self._chance = chance
        prepare(self._db, FILE, SCHEMA)
        self._leaves: dict[LeafId, bytes] = {}
        self._periods: dict[Period, tuple[int, bytes]] = {}
        self._by_number: dict[int, bytes] = {}

    def settle(self) -> None:
        """Rest on nothing that a sync failed for (`hetki.store.sqlite.settle`). Raises `Unavailable`."""
        settle(self._db)

    def is_new(self) -> bool:
        """Whether no key was ever made."""
        return self._db.execute("SELECT 1 FROM keys LIMIT 1").fetchone() is None

    def key(self, name: str) -> bytes:
        """A secret of the project, made at the first call; a repeat returns the same."""
        with transaction(self._db):
            self._db.execute(
                "INSERT OR IGNORE INTO keys(name, secret) VALUES (?, ?)",
                (name, self._chance.bytes(SECRET_BYTES)),
            )
            row = self._db.execute("SELECT secret FROM keys WHERE name = ?", (name,)).fetchone()
        return bytes(row[0])

    def ensure(self, leaves: Collection[LeafId], periods: Collection[Period], now: int) -> None:
        """Make what is missing, durably, in one transaction; nothing is written when nothing is."""
        new_leaves = self._missing([leaf for leaf in leaves if leaf not in self._leaves])
        new_periods = [period for period in periods if period not in self._periods]
        if new_leaves or new_periods:
            with transaction(self._db):
                self._db.executemany(
                    "INSERT OR IGNORE INTO leaves(leaf, secret, made_at) VALUES (?, ?, ?)",
                    [(leaf, self._chance.bytes(SECRET_BYTES), now) for leaf in sorted(new_leaves)],
                )
                self._db.executemany(
                    "INSERT OR IGNORE INTO periods(source, retention, month, secret) VALUES (?, ?, ?, ?)",
                    [(*period, self._chance.bytes(SECRET_BYTES)) for period in sorted(new_periods)],
                )
            self._missing(new_leaves)
        if new_periods:
            for number, source, retention, month, secret in self._db.execute("SELECT * FROM periods"):
                self._periods[(source, retention, month)] = (number, secret)

    def leaf(self, leaf: LeafId) -> bytes | None:
        """A leaf's secret; None once it was destroyed."""
        if leaf not in self._leaves:
            self._missing([leaf])
        return self._leaves.get(leaf)

    def is_newer(self, leaf: LeafId, at: int) -> bool:
        """Whether a leaf's secret was made at or after an instant: it returned after an erasure."""
        row = self._db.execute("SELECT made_at FROM leaves WHERE leaf = ?", (leaf,)).fetchone()
        return row is not None and row[0] >= at

    def load(self, leaves: Collection[LeafId]) -> None:
        """Read the secrets of many leaves at once, ahead of single look-ups."""
        self._missing([leaf for leaf in leaves if leaf not in self._leaves])

    def period(self, period: Period) -> tuple[int, bytes]:
        """The number and secret of a period that was ensured."""
        return self._periods[period]

    def period_secret(self, number: int) -> bytes | None:
        """A period's secret by its number; None once it was destroyed."""
        if number not in self._by_number:
            row = self._db.execute("SELECT secret FROM periods WHERE period = ?", (number,)).fetchone()
            if row is None:
                return None
            self._by_number[number] = row[0]
        return self._by_number[number]

    def _missing(self, leaves: Collection[LeafId]) -> list[LeafId]:
        """Read these leaves into the cache; return those that do not exist."""
        wanted = list(leaves)
        for marks, part in chunks(wanted):
            rows = self._db.execute(f"SELECT leaf, secret FROM leaves WHERE leaf IN ({marks})", part)
            self._leaves.update((LeafId(leaf), secret) for leaf, secret in rows)
        missing = [leaf for leaf in wanted if leaf not in self._leaves]
        excess = len(self._leaves) - CACHED_MAX
        if excess > len(wanted):
            for leaf in list(self._leaves)[:excess]:
                del self._leaves[leaf]
        return missing
