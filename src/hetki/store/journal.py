"""The journal: every event, command and rejected body, append-only, encrypted, hash-chained.

One row per batch in `journal.db`; a row's body is a run of frames, one per entry. The row's chain is
SHA-256 over the chain before it, its numbers and the SHA-256 of its ciphertext, so any changed byte is found
by `verify`. Where entries were overwritten, the row keeps the SHA-256 that was.
An entry is addressed by its row's position and its frame's byte offset.
"""

from __future__ import annotations

import hashlib
import struct
from contextlib import contextmanager, nullcontext
from enum import IntEnum
from itertools import islice
from typing import Callable, Collection, Iterable, Iterator, Mapping, NamedTuple, Sequence

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hetki.consent.retention import month_of
from hetki.errors import Fault, Invalid
from hetki.events.event import EventId, LeafId
from hetki.store.keyring import Keyring
from hetki.store.ports import Chance, Disk
from hetki.store.secrets import SECRET_BYTES, Secrets
from hetki.store.sqlite import check, opened, sound, transaction, truncate_log

FILE = "journal.db"
NONCE_BYTES = 12
#: kind, period, leaf, event id, length of nonce and ciphertext
FRAME = struct.Struct(">BI16s16sI")
#: position, received_at, n_entries, n_statements
ROW = struct.Struct(">QqII")
#: Bodies that one connection opens: Python keeps a weak reference to each until the connection is closed.
BLOBS_MAX = 50_000
#: Rows that are read, or replaced, at once: one may have as many bytes as a request.
ROWS_READ = 8
ORIGIN = hashlib.sha256(b"hetki journal").digest()

SCHEMA = """
CREATE TABLE IF NOT EXISTS journal(
    position INTEGER PRIMARY KEY,  -- 1, 2, 3 ... without a gap
    received_at INTEGER NOT NULL,  -- microseconds since 1970 UTC
    n_entries INTEGER NOT NULL,
    n_statements INTEGER NOT NULL, -- entries that speak of consent: a send waits until they are folded
    chain BLOB NOT NULL,
    body BLOB NOT NULL,
    was BLOB);                     -- SHA-256 of the body as committed, if some of it is overwritten
CREATE INDEX IF NOT EXISTS journal_statements ON journal(position) WHERE n_statements > 0;
"""


class Kind(IntEnum):
    """What an entry is."""

    EVENT = 1
    COMMAND = 2
    REJECTED = 3


class Entry(NamedTuple):
    """One thing to append, in plain text: whose it is, what it is, and its bytes."""

    kind: Kind
    leaf: LeafId
    event_id: EventId
    source: str
    retention: str
    body: bytes


class Stored(msgspec.Struct, frozen=True, gc=False):
    """One entry read back. `body` is None when a secret it needs was destroyed."""

    kind: Kind
    leaf: LeafId
    event_id: EventId
    position: int
    frame_offset: int
    received_at: int
    body: bytes | None


class Row(NamedTuple):
    """One row as it lies in the file."""

    position: int
    received_at: int
    n_entries: int
    n_statements: int
    chain: bytes
    body: bytes
    was: bytes | None = None


class Journal:
    """`journal.db`. Any process may append; rows are never changed, but for what is erased by its place."""

    def __init__(self, disk: Disk, chance: Chance, secrets: Secrets) -> None:
        self._disk = disk
        self._db = opened(disk, FILE, SCHEMA)
        self._n_blobs = 0
        self._chance = chance
        self.secrets = secrets
        self._is_held = False
        self._keys = Keyring(secrets)

    def close(self) -> None:
        """Give the connection back; that of the secrets is theirs."""
        self._db.close()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else writes until the block ends; what is written in it is durable then.

        Raises `Unavailable`; then nothing of it is kept.
        """
        with transaction(self._db):
            self._is_held = True
            try:
                yield
            finally:
                self._is_held = False

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One durable transaction, or a part of that of `held`."""
        with nullcontext() if self._is_held else transaction(self._db):
            yield

    def append(
        self,
        batches: Sequence[Sequence[Entry]],
        received_at: int,
        n_statements: int,
        looked_at: int | None = None,
    ) -> int:
        """Append one row per batch in one durable transaction; return the last position.

        0, and nothing is appended, if a statement stands after `looked_at`: whoever gave that has not seen
        it yet. Raises `Unavailable`; then nothing is kept. A repeat appends again: equal events are told
        apart later, by their ids.
        """
        month = month_of(received_at)
        leaves = {entry.leaf for batch in batches for entry in batch}
        periods = {(entry.source, entry.retention, month) for batch in batches for entry in batch}
        self._keys.forget_erased()
        self.secrets.ensure(leaves, periods, received_at)
        bodies = [(len(batch), self._seal(batch, month)) for batch in batches]
        with self._writing():
            if looked_at is not None and self.has_statements_after(looked_at):
                return 0
            position, chain = self.head()
            rows = []
            for n_entries, body in bodies:
                position += 1
                digest = hashlib.sha256(body).digest()
                chain = _link(chain, position, received_at, n_entries, n_statements, digest)
                rows.append(Row(position, received_at, n_entries, n_statements, chain, body))
            self._db.executemany("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        return position

    def head(self) -> tuple[int, bytes]:
        """The last position and its chain; 0 and the origin of the chain when empty."""
        row = self._db.execute(
            "SELECT position, chain FROM journal ORDER BY position DESC LIMIT 1"
        ).fetchone()
        return (row[0], row[1]) if row else (0, ORIGIN)

    def has_statements_after(self, position: int) -> bool:
        """Whether a consent statement was accepted after this position."""
        row = self._db.execute(
            "SELECT 1 FROM journal WHERE n_statements > 0 AND position > ? LIMIT 1", (position,)
        ).fetchone()
        return row is not None

    def commands_after(self, position: int) -> list[Stored]:
        """The commands that count as statements, after a position."""
        self._keys.forget_erased()
        rows = self._db.execute(
            "SELECT position, received_at, body FROM journal WHERE n_statements > 0 AND position > ?"
            " ORDER BY position",
            (position,),
        )
        return [
            each
            for place, received_at, body in rows
            for each in self._open_row(place, received_at, body, Kind.COMMAND)
        ]

    def accepted(
        self, places: Mapping[EventId, tuple[int, int]], ids: Collection[EventId], after: int
    ) -> dict[EventId, int]:
        """When those of some events were accepted that were: the ones at known places, and the ones in rows
        after a position. Nothing is deciphered."""
        found: dict[EventId, int] = {}
        for own_id, (position, _) in places.items():
            query = "SELECT received_at FROM journal WHERE position = ?"
            found[own_id] = self._db.execute(query, (position,)).fetchone()[0]
        query = "SELECT received_at, body FROM journal WHERE position > ? ORDER BY position"
        for received_at, body in self._db.execute(query, (after,)):
            for own_id in ids:
                if own_id in body:
                    found.setdefault(own_id, received_at)
        return found

    def read(self, after: int, n_entries_max: int) -> list[Stored]:
        """The entries of whole rows after a position, in order: at least one row, if there is one."""
        stored: list[Stored] = []
        self._keys.forget_erased()
        rows = self._db.execute(
            "SELECT position, received_at, body FROM journal WHERE position > ? ORDER BY position", (after,)
        )
        for position, received_at, body in rows:
            stored.extend(self._open_row(position, received_at, body))
            if len(stored) >= n_entries_max:
                break
        rows.close()
        return stored

    def entries(self, places: Sequence[tuple[int, int]]) -> list[Stored]:
        """The entries at `(position, frame offset)`, in the order asked; all must exist."""
        found: dict[tuple[int, int], Stored] = {}
        by_row: dict[int, list[int]] = {}
        self._keys.forget_erased()
        for position, frame_offset in places:
            by_row.setdefault(position, []).append(frame_offset)
        self._renew(len(by_row))
        for position, offsets in by_row.items():
            received_at = self._db.execute(
                "SELECT received_at FROM journal WHERE position = ?", (position,)
            ).fetchone()[0]
            with self._db.blobopen("journal", "body", position, readonly=True) as blob:
                for frame_offset in offsets:
                    blob.seek(frame_offset)
                    frame = blob.read(FRAME.size)
                    sealed = blob.read(FRAME.unpack(frame)[4])
                    found[(position, frame_offset)] = self._open(
                        position, received_at, frame_offset, frame, sealed
                    )
        return [found[place] for place in places]

    def _renew(self, n_blobs: int) -> None:
        """Read on by another connection before this one has opened too many blobs. The other is opened first:
        who closes a file last empties its log."""
        if self._n_blobs > BLOBS_MAX and not self._db.in_transaction:
            before, self._db, self._n_blobs = self._db, opened(self._disk, FILE, SCHEMA), 0
            before.close()
        self._n_blobs += n_blobs

    def rows(self, after: int, until: int) -> Iterator[Row]:
        """The rows behind one position up to another, as they lie in the file."""
        while after < until:
            found = self._db.execute(
                "SELECT position, received_at, n_entries, n_statements, chain, body, was FROM journal"
                " WHERE position > ? AND position <= ? ORDER BY position LIMIT ?",
                (after, until, ROWS_READ),
            ).fetchall()
            if not found:
                return
            for row in found:
                yield Row(*row)
            after = found[-1][0]

    def positions(self, since: int, until: int) -> list[int]:
        """The rows that were received from one instant until another (that one not), in order."""
        query = "SELECT position FROM journal WHERE received_at >= ? AND received_at < ? ORDER BY position"
        return [row[0] for row in self._db.execute(query, (since, until))]

    def replace(self, bodies: Iterable[tuple[int, bytes]]) -> None:
        """Put other bodies into rows, by position, durably; each row keeps the SHA-256 of the first.

        A few rows at a time, so that who appends waits for no more. Raises `Unavailable`; some may be done.
        """
        left = iter(bodies)
        while part := list(islice(left, ROWS_READ)):
            with self._writing():
                for position, body in part:
                    before = next(self.rows(position - 1, position))
                    was = before.was or hashlib.sha256(before.body).digest()
                    self._db.execute(
                        "UPDATE journal SET body = ?, was = ? WHERE position = ?", (body, was, position)
                    )

    def chain_at(self, position: int) -> bytes | None:
        """The chain of a row; None without such a row."""
        row = self._db.execute("SELECT chain FROM journal WHERE position = ?", (position,)).fetchone()
        return row[0] if row else None

    def verify(
        self,
        progress: Callable[[int], None] = lambda position: None,
        tell_overwritten: Callable[[int, bytes], None] = lambda position, digest: None,
    ) -> int:
        """Walk the whole chain; return the number of rows. Raises `Invalid` at the first broken row.

        `tell_overwritten` hears of rows with overwritten entries, and the SHA-256 of the body that is left:
        whether that is what it must be is not known here.
        """
        check(self._db, FILE)
        n_rows = 0
        with sound(FILE):
            for row in chained(self.rows(0, self.head()[0])):
                n_rows += 1
                if row.was is not None:
                    tell_overwritten(row.position, hashlib.sha256(row.body).digest())
                progress(row.position)
        return n_rows

    def bring_back(self, rows: Iterable[Row]) -> None:
        """Put rows of a backup into an empty journal, durably. Raises `Invalid` at a row that breaks the
        chain; then nothing is kept."""
        with transaction(self._db):
            assert self.head() == (0, ORIGIN), "rows are brought back into an empty journal"
            self._db.executemany("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?)", chained(rows))

    def truncate_log(self) -> bool:
        """Copy the write-ahead log into the file and empty it; False while a reader is in the way."""
        return truncate_log(self._db)

    def _seal(self, batch: Sequence[Entry], month: str) -> bytes:
        nonces = self._chance.bytes(NONCE_BYTES * len(batch))
        parts: list[bytes] = []
        at = 0
        for kind, leaf, event_id, source, retention, body in batch:
            period = self.secrets.period((source, retention, month))[0]
            cipher = self._keys.cipher(leaf, period)
            if cipher is None:  # erased since it was looked at: sealed with what nobody keeps
                cipher = AESGCM(self._chance.bytes(SECRET_BYTES))
            nonce = nonces[at : at + NONCE_BYTES]
            at += NONCE_BYTES
            sealed = cipher.encrypt(nonce, body, event_id)
            parts += (FRAME.pack(kind, period, leaf, event_id, NONCE_BYTES + len(sealed)), nonce, sealed)
        return b"".join(parts)

    def _open_row(
        self, position: int, received_at: int, body: bytes, only: Kind | None = None
    ) -> Iterator[Stored]:
        frame_offset = 0
        while frame_offset < len(body):
            start = frame_offset + FRAME.size
            frame = body[frame_offset:start]
            end = start + FRAME.unpack(frame)[4]
            if only is None or frame[0] == only:
                yield self._open(position, received_at, frame_offset, frame, body[start:end])
            frame_offset = end

    def _open(
        self, position: int, received_at: int, frame_offset: int, frame: bytes, sealed: bytes
    ) -> Stored:
        kind, period, leaf, event_id, _ = FRAME.unpack(frame)
        cipher = self._keys.cipher(leaf, period)
        body = None
        if cipher is not None:
            try:
                body = cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], event_id)
            except InvalidTag as error:
                if any(sealed) and not self.secrets.is_newer(leaf, received_at):
                    where = f"{FILE}: row {position} at byte {frame_offset}"
                    got, must = "bytes that its key does not open", "what was once sealed"
                    raise Invalid(Fault(where, got, must, "hetki verify")) from error
        return Stored(Kind(kind), leaf, event_id, position, frame_offset, received_at, body)


def chained(rows: Iterable[Row]) -> Iterator[Row]:
    """The same rows, from the first one on. Raises `Invalid` at the first that does not fit the chain."""
    chain, expected = ORIGIN, 1
    for row in rows:
        digest = row.was or hashlib.sha256(row.body).digest()
        chain = _link(chain, row.position, row.received_at, row.n_entries, row.n_statements, digest)
        if row.position != expected or chain != row.chain:
            hint = f"restore {FILE} from a backup; rows before this one are intact"
            got, must = "bytes that do not fit the hash chain", "what was once committed"
            raise Invalid(Fault(f"{FILE}: row {expected}", got, must, hint))
        expected += 1
        yield row


def _link(
    chain: bytes, position: int, received_at: int, n_entries: int, n_statements: int, digest: bytes
) -> bytes:
    numbers = ROW.pack(position, received_at, n_entries, n_statements)
    return hashlib.sha256(chain + numbers + digest).digest()
