"""Secrets: the keys by which personal data can be read, kept apart from the data (law 8).

A leaf (the narrowest owner of an event) and a period (source, retention class, month) have a random
secret each; the key of an entry is HKDF of both. Destroying a leaf's secret erases a person, destroying a
period's lets data expire. Both are durable before the journal commit that uses them.

An erasure is written here first (`erase`): from then on its leaves have no secret for any process, although
the bytes go later (`destroy`), once nothing is left to be rewritten. Every process looks at one number
before it trusts what it remembers.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from hetki.events.event import LeafId
from hetki.store.ports import Chance, Disk
from hetki.store.sqlite import chunks, opened, transaction, truncate_log

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
CREATE TABLE IF NOT EXISTS erased(
    node BLOB PRIMARY KEY, erasure BLOB NOT NULL, number INTEGER NOT NULL, is_leaf INTEGER NOT NULL,
    is_name INTEGER NOT NULL, erased_at INTEGER NOT NULL, back_at INTEGER) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS erased_erasure ON erased(erasure);
CREATE TABLE IF NOT EXISTS erasures(number INTEGER PRIMARY KEY CHECK (number > 0));
CREATE TABLE IF NOT EXISTS expired(
    period INTEGER PRIMARY KEY, source TEXT NOT NULL, retention TEXT NOT NULL, month TEXT NOT NULL,
    number INTEGER NOT NULL, expired_at INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS removed(
    position INTEGER NOT NULL, frame_offset INTEGER NOT NULL, erasure BLOB NOT NULL, number INTEGER NOT NULL,
    removed_at INTEGER NOT NULL, PRIMARY KEY (position, frame_offset)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heads(name TEXT PRIMARY KEY, number INTEGER NOT NULL, chain BLOB NOT NULL)
    WITHOUT ROWID; -- how far chains were known to go: what is cut off at their end is found by it
"""
#: What a copy holds, table by table, and how each is read. A secret that is about to be overwritten is left
#: out; `sequence` keeps the number of a destroyed period from being given again.
COPIED = {
    "keys": "SELECT name, secret FROM keys",
    "leaves": "SELECT leaf, secret, made_at FROM leaves WHERE leaf NOT IN"
    " (SELECT node FROM erased WHERE is_leaf AND back_at IS NULL)",
    "periods": "SELECT period, source, retention, month, secret FROM periods",
    "erased": "SELECT node, erasure, number, is_leaf, is_name, erased_at, back_at FROM erased",
    "erasures": "SELECT number FROM erasures",
    "expired": "SELECT period, source, retention, month, number, expired_at FROM expired",
    "removed": "SELECT position, frame_offset, erasure, number, removed_at FROM removed",
    "sequence": "SELECT name, seq FROM sqlite_sequence",
}

Period = tuple[str, str, str]


class Erased(msgspec.Struct, frozen=True, gc=False):
    """A keyed hash that was erased: as the owner of events (`is_leaf`), as a name that events tell
    (`is_name`). `back_at`: the person has come back since, by consent given then."""

    is_leaf: bool
    is_name: bool
    erased_at: int
    back_at: int | None

    def refuses(self, occurred_at: int) -> bool:
        """Whether what happened at an instant is refused."""
        return self.back_at is None or occurred_at < self.back_at


class Kept(msgspec.Struct, frozen=True):
    """A period by its number: a source's events of one class of retention that arrived in one month."""

    period: int
    source: str
    retention: str
    month: str


class Secrets:
    """Leaf, period and project secrets in `secrets.db`. Safe to open from several processes."""

    def __init__(self, disk: Disk, chance: Chance) -> None:
        self._db = opened(disk, FILE, SCHEMA)
        self._chance = chance
        self._leaves: dict[LeafId, bytes] = {}
        self._periods: dict[Period, tuple[int, bytes]] = {}
        self._by_number: dict[int, bytes] = {}
        self._number = 0
        self._erased: dict[bytes, Erased] = {}
        self.number()

    def close(self) -> None:
        """Give the connection back."""
        self._db.close()

    def number(self) -> int:
        """How many changes erasures have made; what is remembered here is from then on as of this one."""
        row = self._db.execute("SELECT max(number) FROM erasures").fetchone()
        number: int = row[0] or 0
        if number != self._number:
            self._leaves.clear()
            self._periods.clear()
            self._by_number.clear()
            rows = self._db.execute("SELECT node, is_leaf, is_name, erased_at, back_at FROM erased")
            self._erased = {
                node: Erased(bool(is_leaf), bool(is_name), erased_at, back_at)
                for node, is_leaf, is_name, erased_at, back_at in rows
            }
            self._number = number
        return number

    def erased(self) -> Mapping[bytes, Erased]:
        """Every hash that was erased, as of now. The mapping must not be changed."""
        self.number()
        return self._erased

    def erase(
        self, erasure: bytes, leaves: AbstractSet[bytes], names: AbstractSet[bytes], erased_at: int
    ) -> None:
        """Take the secrets of leaves away from every reader, and refuse what tells one of these names.

        Durable when it returns; a repeat changes nothing. The bytes go with `destroy`.
        """
        if self.erased_by(erasure):
            return
        with transaction(self._db):
            number = self._next_number()
            self._db.executemany(
                "INSERT INTO erased VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL) ON CONFLICT(node) DO UPDATE SET"
                " erasure = ?2, number = ?3, is_leaf = max(is_leaf, ?4), is_name = max(is_name, ?5),"
                " erased_at = ?6, back_at = NULL WHERE erased_at < ?6",
                [
                    (node, erasure, number, node in leaves, node in names, erased_at)
                    for node in sorted(leaves | names)
                ],
            )
        self.number()

    def destroy(self, erasure: bytes) -> int:
        """Overwrite the secrets of an erasure's leaves; return how many there were. A repeat finds none."""
        with transaction(self._db):
            return self._db.execute(
                "DELETE FROM leaves WHERE leaf IN"
                " (SELECT node FROM erased WHERE erasure = ? AND is_leaf AND back_at IS NULL)",
                (erasure,),
            ).rowcount

    def come_back(self, nodes: Collection[bytes], back_at: int) -> bool:
        """Take what happens from an instant on of these names again, of all or of none: while the secret of
        one is still to be destroyed, of none, and False. Of two instants the earlier stands, whichever was
        told first."""
        with transaction(self._db):
            for marks, part in chunks(nodes):
                query = f"SELECT 1 FROM leaves JOIN erased ON node = leaf WHERE leaf IN ({marks})"
                if self._db.execute(f"{query} AND back_at IS NULL LIMIT 1", part).fetchone():
                    return False
            self._next_number()
            self._db.executemany(
                "UPDATE erased SET back_at = ?1 WHERE node = ?2 AND (back_at IS NULL OR back_at > ?1)",
                [(back_at, node) for node in nodes],
            )
        self.number()
        return True

    def erased_after(self, number: int) -> set[LeafId]:
        """The leaves that were erased after a number of changes."""
        rows = self._db.execute("SELECT node FROM erased WHERE is_leaf AND number > ?", (number,))
        return {LeafId(row[0]) for row in rows}

    def erased_by(self, erasure: bytes) -> set[bytes]:
        """The leaves and names that an erasure stands for; none if it took a period or places."""
        return {row[0] for row in self._db.execute("SELECT node FROM erased WHERE erasure = ?", (erasure,))}

    def periods(self) -> list[Kept]:
        """Every period that has a secret, in order of number."""
        rows = self._db.execute("SELECT period, source, retention, month FROM periods ORDER BY period")
        return [Kept(*row) for row in rows]

    def expire(self, periods: Collection[int], expired_at: int) -> None:
        """Destroy the secrets of periods, for every reader. Durable when it returns; a repeat finds none."""
        with transaction(self._db):
            there = {each.period for each in self.periods()} & set(periods)
            if there:
                number = self._next_number()
            for period in sorted(there):
                self._db.execute(
                    "INSERT INTO expired SELECT period, source, retention, month, ?, ? FROM periods"
                    " WHERE period = ?",
                    (number, expired_at, period),
                )
                self._db.execute("DELETE FROM periods WHERE period = ?", (period,))
        self.number()

    def expired_all(self) -> list[tuple[Kept, int]]:
        """Every period that was destroyed, and when."""
        rows = self._db.execute("SELECT period, source, retention, month, expired_at FROM expired ORDER BY 1")
        return [(Kept(*row[:4]), row[4]) for row in rows]

    def expired_after(self, number: int) -> list[Kept]:
        """The periods that were destroyed after a number of changes, in order."""
        rows = self._db.execute(
            "SELECT period, source, retention, month FROM expired WHERE number > ? ORDER BY period", (number,)
        )
        return [Kept(*row) for row in rows]

    def remove(self, erasure: bytes, places: Collection[tuple[int, int]], removed_at: int) -> None:
        """Note which entries of the journal are overwritten, so that a restore does it again. Durable when it
        returns; a repeat changes nothing."""
        if self.has_removed(erasure):
            return
        with transaction(self._db):
            number = self._next_number()
            self._db.executemany(
                "INSERT OR IGNORE INTO removed VALUES (?, ?, ?, ?, ?)",
                [(*place, erasure, number, removed_at) for place in sorted(places)],
            )
        self.number()

    def has_removed(self, erasure: bytes) -> bool:
        """Whether entries of the journal were overwritten for an erasure."""
        row = self._db.execute("SELECT 1 FROM removed WHERE erasure = ? LIMIT 1", (erasure,)).fetchone()
        return row is not None

    def removed_after(self, number: int) -> list[tuple[int, int]]:
        """The entries of the journal that were overwritten after a number of changes."""
        rows = self._db.execute("SELECT position, frame_offset FROM removed WHERE number > ?", (number,))
        return rows.fetchall()

    def removed_by(self, until: int) -> dict[bytes, tuple[int, list[tuple[int, int]]]]:
        """What each erasure has overwritten, in order, and when; what lies behind a position is forgotten, as
        other entries may come to lie there."""
        with transaction(self._db):
            self._db.execute("DELETE FROM removed WHERE position > ?", (until,))
        found: dict[bytes, tuple[int, list[tuple[int, int]]]] = {}
        for position, frame_offset, erasure, removed_at in self._db.execute(
            "SELECT position, frame_offset, erasure, removed_at FROM removed ORDER BY number, 1, 2"
        ):
            found.setdefault(erasure, (removed_at, []))[1].append((position, frame_offset))
        return found

    def truncate_log(self) -> bool:
        """Copy the write-ahead log into the file and empty it; False while a reader is in the way."""
        return truncate_log(self._db)

    def _next_number(self) -> int:
        row = self._db.execute("INSERT INTO erasures VALUES (?) RETURNING number", (self._last() + 1,))
        number: int = row.fetchall()[0][0]
        return number

    def _last(self) -> int:
        last: int = self._db.execute("SELECT coalesce(max(number), 0) FROM erasures").fetchone()[0]
        return last

    def copied(self) -> Iterator[tuple[object, ...]]:
        """Every row of a copy as of one instant, behind the name of its table (`COPIED`)."""
        self._db.execute("BEGIN")
        try:
            for table, query in COPIED.items():
                for row in self._db.execute(query):
                    yield table, *row
        finally:
            self._db.execute("ROLLBACK")

    def bring_back(self, rows: Iterable[tuple[str, Sequence[object]]]) -> None:
        """Put the rows of a copy into an empty file, durably. Raises `Unavailable`; then nothing is kept."""
        with transaction(self._db):
            for table, row in rows:
                assert table in COPIED, table
                name = "sqlite_sequence" if table == "sequence" else table
                if table == "sequence":
                    self._db.execute("DELETE FROM sqlite_sequence WHERE name = ?", row[:1])
                marks = ", ".join("?" * len(row))
                self._db.execute(f"INSERT INTO {name} VALUES ({marks})", row)
        self.number()

    def erased_leaves(self) -> dict[bytes, tuple[int, set[bytes], set[bytes]]]:
        """Every erasure by its id: when it was, the leaves and the names that it still stands for."""
        found: dict[bytes, tuple[int, set[bytes], set[bytes]]] = {}
        rows = self._db.execute("SELECT erasure, erased_at, node, is_leaf, is_name FROM erased")
        for erasure, erased_at, node, is_leaf, is_name in rows:
            _, leaves, names = found.setdefault(erasure, (erased_at, set(), set()))
            leaves |= {node} if is_leaf else set()
            names |= {node} if is_name else set()
        return found

    def is_erased(self, leaf: bytes) -> bool:
        """Whether a leaf was erased and has not come back."""
        erased = self._erased.get(leaf)
        return erased is not None and erased.is_leaf and erased.back_at is None

    def head(self, name: str) -> tuple[int, bytes] | None:
        """How far a chain was known to go, and its link there; None if that was never kept."""
        row = self._db.execute("SELECT number, chain FROM heads WHERE name = ?", (name,)).fetchone()
        return (row[0], row[1]) if row else None

    def keep_head(self, name: str, number: int, chain: bytes) -> None:
        """Keep how far a chain goes, durably: it is never shorter from now on."""
        with transaction(self._db):
            self._db.execute(
                "INSERT INTO heads VALUES (?1, ?2, ?3) ON CONFLICT(name)"
                " DO UPDATE SET number = ?2, chain = ?3 WHERE number < ?2",
                (name, number, chain),
            )

    def is_new(self) -> bool:
        """Whether no key was ever made."""
        return self._db.execute("SELECT 1 FROM keys LIMIT 1").fetchone() is None

    def key(self, name: str) -> bytes:
        """A secret of the project, made at the first call; a repeat returns the same, and writes nothing."""
        query = "SELECT secret FROM keys WHERE name = ?"
        row = self._db.execute(query, (name,)).fetchone()
        if row is None:
            made = (name, self._chance.bytes(SECRET_BYTES))
            with transaction(self._db):
                self._db.execute("INSERT OR IGNORE INTO keys(name, secret) VALUES (?, ?)", made)
                row = self._db.execute(query, (name,)).fetchone()
        return bytes(row[0])

    def ensure(self, leaves: Collection[LeafId], periods: Collection[Period], now: int) -> None:
        """Make what is missing, durably, in one transaction; nothing is written when nothing is.

        An erased leaf gets none: what is sealed for it in the moment of its erasure nobody can open.
        """
        new_leaves = self._missing([leaf for leaf in leaves if leaf not in self._leaves])
        new_leaves = [leaf for leaf in new_leaves if not self.is_erased(leaf)]
        new_periods = [period for period in periods if period not in self._periods]
        if new_leaves or new_periods:
            with transaction(self._db):
                self._db.executemany(
                    "INSERT OR IGNORE INTO leaves(leaf, secret, made_at) SELECT ?1, ?2, ?3 WHERE NOT EXISTS"
                    " (SELECT 1 FROM erased WHERE node = ?1 AND is_leaf AND back_at IS NULL)",
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
        """A leaf's secret; None once it was erased."""
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
            self._leaves.update((LeafId(leaf), secret) for leaf, secret in rows if not self.is_erased(leaf))
        missing = [leaf for leaf in wanted if leaf not in self._leaves]
        excess = len(self._leaves) - CACHED_MAX
        if excess > len(wanted):
            for leaf in list(self._leaves)[:excess]:
                del self._leaves[leaf]
        return missing
