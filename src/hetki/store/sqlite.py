"""What every SQLite file here shares: how a transaction begins, ends, and fails."""

from __future__ import annotations

import sqlite3
import struct
from contextlib import contextmanager
from typing import Iterable, Iterator, TypeVar

from hetki.errors import Conflict, Fault, Invalid, Unavailable
from hetki.store.ports import Disk
from hetki.store.shortage import is_held, shortage

#: The version of all tables. A change of theirs makes another, and says how old files come along.
SCHEMA = 4
#: What the Disk port hands out.
Connection = sqlite3.Connection
T = TypeVar("T")

#: Values bound in one IN (...) list.
IN_MAX = 500


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One atomic, durable write. Raises `Unavailable` if the disk is full, locked or failing, or memory is.

    On any error nothing of the block is kept, and the error goes on to the caller.
    """
    try:
        db.execute("BEGIN IMMEDIATE")
        yield db
        db.execute("COMMIT")
    except (sqlite3.OperationalError, MemoryError) as error:
        _undo(db)
        raise _unavailable(error) from error
    except BaseException:
        _undo(db)
        raise


@contextmanager
def alone(disk: Disk, name: str, taken: Fault, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock that a file of this name is, one process at a time; a process that dies lets go of it.

    Raises `Conflict` with `taken` if another still holds it after `wait_s`, or `Unavailable`.
    """
    db = disk.connect(name)
    try:
        db.execute(f"PRAGMA busy_timeout = {round(wait_s * 1_000)}")
        db.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        db.close()
        raise (Conflict(taken) if is_held(error) else _unavailable(error)) from error
    try:
        yield
    finally:
        db.close()


def _undo(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        db.execute("ROLLBACK")


def _unavailable(error: sqlite3.OperationalError | MemoryError) -> Unavailable:
    short = shortage(error)
    assert short is not None, "SQLite's refusals are shortages"
    return short


def prepare(db: sqlite3.Connection, file: str, script: str) -> None:
    """Make the tables of a file, or check that those in it are of this version.

    Raises `Conflict`, `Invalid` if it is no sound database, or `Unavailable` if the disk is full, locked or
    failing.
    """
    with sound(file):
        if _answer(db, "PRAGMA user_version") != SCHEMA:
            _mark(db, file)
        db.executescript(script)


def _mark(db: sqlite3.Connection, file: str) -> None:
    """Write the version into a file without tables. It is written before them, and read after them: another
    process may do this, too."""
    n_tables, found = _answer(db, "SELECT count(*) FROM sqlite_schema"), _answer(db, "PRAGMA user_version")
    if found == 0 and n_tables == 0:
        db.execute(f"PRAGMA user_version = {SCHEMA}")
    elif found != SCHEMA:
        hint = "use the version of hetki that made it"
        raise Conflict(Fault(file, f"tables of version {found}", f"of version {SCHEMA}", hint))


def _answer(db: sqlite3.Connection, query: str) -> int:
    number: int = db.execute(query).fetchone()[0]
    return number


def opened(disk: Disk, file: str, script: str) -> Connection:
    """A connection to a file with its tables, to be closed by whoever has it. Raises what `prepare` does.

    One that is let go without being closed keeps its cache and its files until the collector of cycles
    comes, as every connection of Python's is a cycle.
    """
    db = disk.connect(file)
    try:
        prepare(db, file, script)
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def sound(file: str) -> Iterator[None]:
    """Turn what SQLite cannot read of a file into `Invalid`; a disk that fails stays `Unavailable`."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise _unavailable(error) from error
    except (sqlite3.DatabaseError, ValueError, OverflowError, struct.error, TypeError) as error:
        raise Invalid(Fault(file, str(error), "a sound database", "restore it from a backup")) from error


def check(db: sqlite3.Connection, file: str, *tables: str) -> None:
    """Let SQLite look over a file, or some tables of it with their indexes. Raises `Invalid`."""
    with sound(file):
        for pragma in [f"integrity_check({table})" for table in tables] or ["integrity_check"]:
            (said,) = db.execute(f"PRAGMA {pragma}").fetchone()
            if said != "ok":
                raise Invalid(Fault(file, str(said), "a sound database", "restore it from a backup"))


def truncate_log(db: sqlite3.Connection) -> bool:
    """Copy the write-ahead log into its file and empty it: no earlier bytes stay in it.

    False while another connection reads or writes: it is not waited for. A database in memory has none.
    """
    wait_ms = db.execute("PRAGMA busy_timeout").fetchone()[0]
    db.execute("PRAGMA busy_timeout = 0")
    try:
        busy: int = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.OperationalError:
        return False
    finally:
        db.execute(f"PRAGMA busy_timeout = {wait_ms}")
    return not busy


def chunks(values: Iterable[T]) -> Iterator[tuple[str, list[T]]]:
    """Values in lists that fit one IN (...), each with its question marks.

    >>> list(chunks([1, 2]))
    [('?,?', [1, 2])]
    """
    listed = list(values)
    for start in range(0, len(listed), IN_MAX):
        part = listed[start : start + IN_MAX]
        yield ",".join("?" * len(part)), part
