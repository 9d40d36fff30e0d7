"""The real ports: this machine's clock, chance and disk (law 11), as `hetki.store.ports` promises.

The network is in `hetki.store.network`, the simulated twins are in `hetki.simulation.world`. Start at
`SystemDisk`.
"""

from __future__ import annotations

import errno
import gc
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Iterable, Iterator, Mapping

from hetki.errors import Fault, Invalid, NotFound, shown
from hetki.store import wiping
from hetki.store.shortage import is_held, refused

#: How long a statement waits for another connection's lock.
BUSY_S = 10.0
#: How long it is waited for another process that may be settling a file; then it is one that writes.
SETTLE_S = 1.0
#: A write-ahead log is written again in parts of this size.
PART_BYTES = 1_048_576
#: Page cache of one connection to the state, in which ids lie at random, and to any other file.
CACHE_KB, OTHER_CACHE_KB = 64 * 1024, 16 * 1024
#: What SQLite holds in a process with all its connections: near it a cache gives up its own pages.
HEAP_MB = 160
#: Pages in the write-ahead log before they are copied into the file: fewer copies of hot pages.
CHECKPOINT_PAGES = 8_000

#: Pages of a database that are wiped at once, while nobody else writes (256 MB).
PAGES_WIPED = 65_536

STATE = "state.db"
_SQLITE_TAILS = ("", "-wal", "-shm", "-journal")
_creating = threading.Lock()  # while it is held, no connection of this process may be opened


class SystemClock:
    """The machine's clock, held at its highest reading when the machine sets it back."""

    def __init__(self) -> None:
        self._latest = 0
        self._lock = threading.Lock()

    def now(self) -> int:
        with self._lock:
            self._latest = max(self._latest, time.time_ns() // 1_000)
            return self._latest

    def sleep(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds))


class SystemChance:
    """The operating system's source of randomness."""

    def bytes(self, n: int) -> bytes:
        return os.urandom(n)


def collect_rarely() -> None:
    """Let the process look for cycles of garbage less often (a sixth of the time from accept to decision)."""
    gc.set_threshold(100_000, 50, 100)


def environment() -> Mapping[str, str]:
    """The process's environment: where secrets stand that declarations name as `env:NAME`."""
    return os.environ


def plain_name(name: str) -> str:
    """A file's name inside a disk, in its one spelling; raises `Invalid` if it could lead out of the root.

    >>> plain_name("lake/./events//1.parquet")
    'lake/events/1.parquet'
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or not name.isprintable():
        raise Invalid(Fault("file name", shown(name), "a relative path inside the data folder"))
    return "/".join(parts)


def listed(name: str, pattern: str) -> bool:
    """Whether a relative name matches a glob; `**` is any number of folders, a leading dot never matches.

    >>> listed("moments/late.yaml", "moments/*.yaml"), listed("a/b/c.db", "**/*.db"), listed("a/b.db", "*.db")
    (True, True, False)
    """
    parts = name.split("/")
    return not any(part.startswith(".") for part in parts) and _fits(parts, pattern.split("/"))


def _fits(parts: list[str], globs: list[str]) -> bool:
    if not globs:
        return not parts
    if globs[0] == "**":
        return any(_fits(parts[n:], globs[1:]) for n in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], globs[0]) and _fits(parts[1:], globs[1:])


class SystemDisk:
    """Files under one folder of this machine, readable by their owner alone.

    `durable=False` leaves the moment of writing to the operating system: for simulations and tests, where
    a power cut costs nothing.
    """

    def __init__(self, root: str | Path, durable: bool = True) -> None:
        self._root = Path(root).resolve()
        self._durable = durable

    def connect(self, name: str) -> sqlite3.Connection:
        """A connection in autocommit (write `BEGIN IMMEDIATE` yourself), for one thread at a time."""
        path = self._inside(name)
        with _as_unavailable(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _creating:
                created = _created(path)
                connection = sqlite3.connect(
                    path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
                )
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'OFF'}")
                connection.execute("PRAGMA secure_delete=ON")
                connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
                connection.execute("PRAGMA temp_store=MEMORY")
                connection.execute(f"PRAGMA cache_size=-{CACHE_KB if path.name == STATE else OTHER_CACHE_KB}")
                connection.execute(f"PRAGMA soft_heap_limit={HEAP_MB * 1_048_576}")
                if created:
                    _sync_folder(path.parent)
            except (sqlite3.Error, OSError, UnicodeError):
                connection.close()
                raise
            return connection

    def settle(self, name: str) -> None:
        """Write the write-ahead log again as it is, and sync it, before anything is built upon it.

        After a sync that failed, pages of the log can be read that are not on the disk, and the next sync
        reports success without them. Who opens the file anew takes them for committed, commits behind them
        and copies them into the file; a power cut then takes what rests on them, or leaves half a copy. A
        page that is written again is synced in truth. There is no log where all was closed well.
        """
        path = self._inside(name)
        log = path.with_name(path.name + "-wal")
        with _as_unavailable(name):
            if not self._durable or not log.exists() or log.stat().st_size == 0:
                return
            # Who closes a file last copies its log into it. What only reads cannot, and keeps others from it.
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as reading:
                reading.execute("PRAGMA user_version").fetchall()
                with closing(self.connect(name)) as db:
                    try:
                        db.execute(f"PRAGMA busy_timeout = {round(SETTLE_S * 1_000)}")
                        db.execute("BEGIN IMMEDIATE")
                    except sqlite3.OperationalError as error:
                        if not is_held(error):
                            raise
                        return  # a process that writes for so long has settled it before
                    _write_again(log)

    def wipe(self, name: str, first: int = 1) -> int:
        path = self._inside(name)
        with _as_unavailable(name), closing(self.connect(name)) as db:
            (n_pages,) = db.execute("PRAGMA page_count").fetchone()
            if first >= n_pages:
                return 0
            given = [str(path), str(first), str(PAGES_WIPED)]
            ended = subprocess.run([sys.executable, "-I", "-S", wiping.__file__, *given], capture_output=True)
            if ended.returncode == wiping.BUSY:
                return first
            if ended.returncode:
                raise OSError(errno.EIO, "what it no longer uses cannot be overwritten")
        return first + PAGES_WIPED if first + PAGES_WIPED < n_pages else 0

    def read(self, name: str) -> bytes:
        path = self._inside(name)
        with _as_unavailable(name):
            try:
                return path.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                raise NotFound(Fault(name, "no such file", "an existing file")) from None

    def write(self, name: str, data: bytes | Iterable[bytes]) -> None:
        path = self._inside(name)
        pieces = [data] if isinstance(data, bytes) else data
        beside = path.with_name(f".{path.name}.{os.urandom(8).hex()}.new")
        with _as_unavailable(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.writelines(pieces)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(beside, path)
            except BaseException:  # making a piece may raise anything
                beside.unlink(missing_ok=True)
                raise
            _sync_folder(path.parent)

    def names(self, pattern: str) -> list[str]:
        """Files only, no folders; names with a leading dot are never listed."""
        with _as_unavailable(pattern):
            found: list[str] = []
            n_parts = 0 if "**" in pattern else len(PurePosixPath(pattern).parts)  # no deeper than asked
            for folder, folders, files in os.walk(self._root):
                depth = len(Path(folder).relative_to(self._root).parts) + 1
                folders[:] = [each for each in folders if depth != n_parts and not each.startswith(".")]
                names = (Path(folder, file).relative_to(self._root).as_posix() for file in files)
                found.extend(name for name in names if listed(name, pattern))
            return sorted(found)

    def path(self, name: str) -> str:
        """An absolute path whose folder exists."""
        path = self._inside(name)
        with _as_unavailable(name):
            path.parent.mkdir(parents=True, exist_ok=True)
        return str(path)

    def remove(self, name: str) -> None:
        """A database goes with its log: SQLite would play a log left behind into the next one."""
        path = self._inside(name)
        with _as_unavailable(name):
            if path.is_dir():
                shutil.rmtree(path)
            for tail in _SQLITE_TAILS:
                path.with_name(path.name + tail).unlink(missing_ok=True)
            if path.parent.is_dir():
                _sync_folder(path.parent)

    def tidy(self, folder: str) -> None:
        with _as_unavailable(folder):
            for left in self._inside(folder).rglob(".*.new"):
                left.unlink(missing_ok=True)

    def _inside(self, name: str) -> Path:
        path = self._root / plain_name(name)
        if not path.resolve().is_relative_to(self._root):
            raise Invalid(Fault("file name", shown(name), "a path that no link leads out of the data folder"))
        return path


@contextmanager
def _as_unavailable(name: str) -> Iterator[None]:
    """Turn what the disk or SQLite says into `Unavailable`."""
    try:
        yield
    except (sqlite3.Error, OSError, UnicodeError) as error:  # SQLite may quote broken bytes
        raise refused(error, name) from error


def _created(path: Path) -> bool:
    """Make an empty file for its owner alone, unless there is one.

    A database that exists is never opened here: closing any handle of a file drops every lock that this
    process holds on it, and another process would take away the write-ahead log under our connections.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    return True


def _write_again(log: Path) -> None:
    """Make what can be read of a write-ahead log what is on the disk; the caller keeps writers away.

    SQLite holds its locks on the other two files, so that this one may be opened and closed beside it.
    """
    handle = os.open(log, os.O_RDWR | os.O_CLOEXEC)
    try:
        at = 0
        while part := os.pread(handle, PART_BYTES, at):
            at += os.pwrite(handle, part, at)
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    """Make a new or replaced name in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
