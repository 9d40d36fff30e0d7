"""A disk in memory that several processes share, and on which each may die at any point.

Between two points nothing durable happens: every begin, commit and single statement of every database,
every file that is written or removed, and (`crashing.py`) every message that is sent. What was committed
when a process dies is there for the next one; what was not is gone. `Fate` says what goes wrong, and when.
"""

from __future__ import annotations

import io
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

import pyarrow.parquet as pq

from hetki.engine.manifests import FILE as MANIFEST
from hetki.errors import Fault, Unavailable
from hetki.simulation.world import MemoryDisk

#: `crash`: the process dies. `full`: the disk refuses. `lost`: the commit fails, and its pages with it,
#: though a second try is told that all is well. `unsure`: the commit fails for the process, and yet is
#: there. `visit`: another process does something just then.
What = Literal["crash", "full", "lost", "unsure", "visit"]
#: Files that are nothing but a lock: who holds one holds up nobody but who wants it, too.
LOCKS = ("backup.db", "erasing.db", "lake.db")
FULL, BROKEN = "database or disk is full", "disk I/O error"
PAGE_BYTES = 4_096
#: Where Linux keeps files in memory.
IN_MEMORY = "/dev/shm"
#: What a connection that was given back stands for.
CLOSED = sqlite3.connect(":memory:")
CLOSED.close()


class Crashed(BaseException):
    """The process is dead: whatever it does next raises this, too."""


class Strike(NamedTuple):
    """What goes wrong so many points after the one before: points of one operation, if it is named."""

    n_points: int
    what: What
    operation: str = ""


class Fate:
    """What goes wrong next: after so many points, this. Counts every point by operation, file and place.

    A strike that is aimed at an operation counts the points of that alone.
    """

    def __init__(self, plan: Iterable[Strike] = (), is_blank: bool = False) -> None:
        self.is_blank = is_blank
        self._plan = deque(plan)
        self._left = self._plan[0].n_points if self._plan else -1
        self.points: Counter[tuple[str, str, str]] = Counter()
        self.struck: Counter[tuple[str, str, str, What]] = Counter()
        self.operation = ""
        self.visit: Callable[[], None] | None = None
        self._is_visited = False

    def stop(self) -> None:
        """Nothing goes wrong from here on."""
        self._plan.clear()

    def point(self, process: Process, file: str, place: str) -> What | None:
        """Note one point; raise what happens at it, or say what the caller must make happen."""
        if process.is_dead:
            raise Crashed
        if self._is_visited:
            return None
        self.points[(self.operation, file, place)] += 1
        if not self._plan or self._plan[0].operation not in ("", self.operation):
            return None
        self._left -= 1
        if self._left > 0:
            return None
        what = self._plan[0].what
        if not self._strikes(what, process, place):
            return None  # not here: at the next point that it can happen at
        self._plan.popleft()
        self._left = self._plan[0].n_points if self._plan else -1
        self.struck[(self.operation, file, place, what)] += 1
        if what == "crash":
            process.die()
            raise Crashed
        if what == "visit":
            self._visited()
            return None
        return what

    def _strikes(self, what: What, process: Process, place: str) -> bool:
        if what == "visit":
            return self.visit is not None and not process.holds_lock()
        if what == "full":
            return place in ("begin", "commit", "write", "truncate")
        return place == "commit" if what in ("lost", "unsure") else True

    def _visited(self) -> None:
        assert self.visit is not None
        self._is_visited = True
        try:
            self.visit()
        finally:
            self._is_visited = False


class SharedDisk(MemoryDisk):
    """The disk that all processes share, with the logs of its databases.

    A database in memory has no write-ahead log. On a real disk the log holds the pages that were written, and
    the file what was there before, until the log is emptied: from `keep_logs` on, these are kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self._logs: dict[str, list[bytes]] | None = None
        self._latest: dict[str, bytes] = {}
        self._idle: dict[str, list[sqlite3.Connection]] = {}

    def copy_from(self, other: MemoryDisk, pattern: str = "*.db") -> None:
        """Take over databases of another disk, if they are not here; that one stays as it is."""
        for name in set(other.names(pattern)) - self._databases.keys():
            source, copy = other.connect(name), self.lend(name)
            source.backup(copy)
            source.close()
            self.take_back(name, copy)

    def lend(self, name: str) -> sqlite3.Connection:
        """A connection for a process: one that an earlier process gave back knows the tables already."""
        idle = self._idle.get(name)
        if idle:
            return idle.pop()
        db = self.connect(name)
        db.execute("PRAGMA busy_timeout = 0")  # all is one thread: who waits would wait for ever
        return db

    def take_back(self, name: str, db: sqlite3.Connection) -> None:
        """What was not committed is gone."""
        db.rollback()
        self._idle.setdefault(name, []).append(db)

    def keep_logs(self) -> None:
        """From here on; what was written before may still be in the logs, too."""
        if self._logs is None:
            self._latest = {name: self.image(name) for name in self._databases}
            self._logs = {name: [image] for name, image in self._latest.items()}

    def wrote(self, name: str) -> None:
        """A commit: the pages that it changed are in the log."""
        if self._logs is not None:
            was, image = self._latest.get(name, b""), self.image(name)
            pages = zip_longest(_pages(was), _pages(image))
            self._logs.setdefault(name, []).extend(page for old, page in pages if page and page != old)
            self._latest[name] = image

    def emptied(self, name: str) -> None:
        """The log was copied into its file."""
        if self._logs is not None:
            self._logs[name] = []

    def image(self, name: str) -> bytes:
        """Every byte of a database."""
        return b"" if name in LOCKS else self._databases[name][1].serialize()  # what is empty has no bytes

    def every_byte(self) -> Iterator[tuple[str, bytes]]:
        """Every file and log; Parquet is decoded."""
        for name in self._databases:
            yield name, self.image(name)
        for name, pages in (self._logs or {}).items():
            yield f"the log of {name}", b"".join(pages)
        for name, data in self._files.items():
            yield name, _decoded(data) if name.endswith(".parquet") else data


def _pages(image: bytes) -> list[bytes]:
    return [image[start : start + PAGE_BYTES] for start in range(0, len(image), PAGE_BYTES)]


@lru_cache(64)
def _decoded(parquet: bytes) -> bytes:
    """Every value of a Parquet file, which is compressed."""
    return repr(pq.ParquetFile(io.BytesIO(parquet)).read(use_threads=False).to_pylist()).encode()


class Process:
    """One process on the shared disk: the Disk port as it sees it.

    `label`: what its points call the files of another disk. `empty`: the databases that it makes are those,
    with their tables; that this may be struck, too, lives on a blank disk show.
    """

    def __init__(
        self, shared: SharedDisk, fate: Fate, label: str = "", empty: MemoryDisk | None = None
    ) -> None:
        self._shared = shared
        self._fate = fate
        self._label = label
        self._disks = [self]
        self._connections: list[Watched] = []
        self._copies: TemporaryDirectory[str] | None = None
        self._copied: dict[str, bytes] = {}
        self._empty = empty
        self.is_dead = False

    def beside(self, shared: SharedDisk, label: str) -> Process:
        """Another disk, as this process sees it: what it dies of there it dies of here."""
        other = Process(shared, self._fate, label)
        other._disks = self._disks
        self._disks.append(other)
        return other

    def die(self) -> None:
        """Do nothing any more."""
        for each in self._disks:
            each.is_dead = True

    def connect(self, name: str) -> sqlite3.Connection:
        self._alive()
        if self._empty is not None:
            self._shared.copy_from(self._empty, name)
        watched = Watched(self._shared.lend(name), name, self, self._fate)
        self._connections.append(watched)
        return watched  # type: ignore[return-value]

    def settle(self, name: str) -> None:
        self._alive()

    def wipe(self, name: str, first: int = 1) -> int:
        self._alive()
        return 0

    def read(self, name: str) -> bytes:
        self._alive()
        return self._shared.read(name)

    def write(self, name: str, data: bytes | Iterable[bytes]) -> None:
        if self._fate.point(self, self._kind(name), "write") == "full":
            raise Unavailable(Fault(name, FULL, "a disk with room"))
        self._shared.write(name, data)
        self._fate.point(self, self._kind(name), "written")

    def names(self, pattern: str) -> list[str]:
        self._alive()
        return self._shared.names(pattern)

    def path(self, name: str) -> str:
        """Where a library that opens files by itself finds a copy."""
        self._alive()
        self._copies = self._copies or TemporaryDirectory(dir=IN_MEMORY if Path(IN_MEMORY).is_dir() else None)
        copy = Path(self._copies.name, name.replace("/", "-"))
        data = self._shared.read(name)
        if self._copied.get(name) is not data:
            copy.write_bytes(data)
            self._copied[name] = data
        return str(copy)

    def tidy(self, folder: str) -> None:
        self._alive()

    def remove(self, name: str) -> None:
        """File by file; what says that a folder is whole goes last, which is the worst that can happen."""
        files = self._shared.names(f"{name}/**/*") or [name]
        for each in sorted(files, key=lambda each: (each.endswith(MANIFEST), each)):
            if self._fate.point(self, self._kind(each), "write") == "full":
                raise Unavailable(Fault(name, FULL, "a disk with room"))
            self._shared.remove(each)
            self._fate.point(self, self._kind(each), "written")

    def holds_lock(self) -> bool:
        return any(each.in_transaction for each in self._connections if each.file not in LOCKS)

    def wrote(self, file: str) -> None:
        self._shared.wrote(file)

    def emptied(self, file: str) -> None:
        self._shared.emptied(file)

    def closed(self, connection: Watched) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
            self._shared.take_back(connection.file, connection.db)
            connection.db = CLOSED

    def end(self) -> None:
        """Die now, if not before: what was not committed is gone."""
        self.die()
        for each in list(self._connections):
            self.closed(each)
        if self._copies is not None:
            self._copies.cleanup()

    def _alive(self) -> None:
        if self.is_dead:
            raise Crashed

    def _kind(self, name: str) -> str:
        """Files by what they are: those of the lake (the mark, events, tables), those of another disk."""
        parts = name.split("/")
        if self._label:
            return f"{self._label}/{parts[1]}"
        return "/".join(parts[:2]) if parts[0] == "lake" else name


class Watched:
    """A connection whose every durable step is a point."""

    def __init__(self, db: sqlite3.Connection, file: str, process: Process, fate: Fate) -> None:
        self.db = db
        self.file = file
        self._process = process
        self._fate = fate
        self._is_lost = False
        self._is_read_only = False

    @property
    def in_transaction(self) -> bool:
        return self.db.in_transaction

    def execute(self, sql: str, values: object = ()) -> sqlite3.Cursor:
        if self._process.is_dead:
            raise Crashed
        if sql == "BEGIN IMMEDIATE":
            self._refuse(self._fate.point(self._process, self.file, "begin"))
            self._is_read_only = False
        elif sql == "BEGIN":
            self._is_read_only = True
        elif sql == "COMMIT" and not self._is_read_only:
            return self._commit()
        elif sql == "ROLLBACK":
            self._is_lost = False
            if self._is_read_only:  # what is read next may be of a later instant
                done = self.db.execute(sql)
                self._is_read_only = False
                self._fate.point(self._process, self.file, "read")
                return done
        elif sql.startswith("PRAGMA busy_timeout ="):
            sql = "SELECT 1"  # all is one thread: who waits would wait for ever
        elif sql == "PRAGMA wal_checkpoint(TRUNCATE)":
            return self._empty(sql)
        elif not self.db.in_transaction and _writes(sql):
            self._refuse(self._fate.point(self._process, self.file, "write"))
            done = self.db.execute(sql, values)  # type: ignore[arg-type]
            self._process.wrote(self.file)
            self._fate.point(self._process, self.file, "written")
            return done
        return self.db.execute(sql, values)  # type: ignore[arg-type]

    def executemany(self, sql: str, values: Iterable[object]) -> sqlite3.Cursor:
        if self._process.is_dead:
            raise Crashed
        assert self.db.in_transaction, f"outside a transaction, each row would be one: {sql}"
        return self.db.executemany(sql, values)  # type: ignore[arg-type]

    def executescript(self, script: str) -> None:
        """Each statement commits by itself; a disk that is prepared has all tables, and needs none."""
        if not self._fate.is_blank:
            return
        statement = ""
        for line in script.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                self._refuse(self._fate.point(self._process, self.file, "write"))
                self.db.execute(statement)
                statement = ""
        assert not statement.strip(), statement

    def blobopen(self, *given: object, **named: object) -> sqlite3.Blob:
        if self._process.is_dead:
            raise Crashed
        return self.db.blobopen(*given, **named)  # type: ignore[arg-type]

    def close(self) -> None:
        self._process.closed(self)

    def _commit(self) -> sqlite3.Cursor:
        if self._is_lost:
            self._is_lost = False
            return self.db.execute("ROLLBACK")
        what = self._fate.point(self._process, self.file, "commit")
        if what == "lost":
            self._is_lost = True
        self._refuse(what if what != "unsure" else None)
        done = self.db.execute("COMMIT")
        self._process.wrote(self.file)
        if what == "unsure":
            self._refuse(what)
        self._fate.point(self._process, self.file, "committed")
        return done

    def _empty(self, sql: str) -> sqlite3.Cursor:
        self._refuse(self._fate.point(self._process, self.file, "truncate"))
        done = self.db.execute(sql)
        self._process.emptied(self.file)
        self._fate.point(self._process, self.file, "truncated")
        return done

    def _refuse(self, what: What | None) -> None:
        if what is not None:
            raise sqlite3.OperationalError(FULL if what == "full" else BROKEN)


@lru_cache(1_024)
def _writes(sql: str) -> bool:
    word = sql.lstrip()[:7].upper()
    return word.startswith(("INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE")) or (
        word.startswith("PRAGMA") and "user_version =" in sql
    )
