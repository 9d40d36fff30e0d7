"""Shortage: room, memory, files or a disk that is missing, said in words that tell an operator what to do.

Everything here would work at another time, so it is `Unavailable`: whoever asked may ask again, and what
goes round in a loop goes on by itself once the machine has what it lacked.
"""

from __future__ import annotations

import errno
import sqlite3

from hetki.errors import Fault, Unavailable

ROOM = "a disk with room"
ROOM_HINT = "make room; it goes on by itself"
WRITABLE = "a disk that can be read and written"
WRITABLE_HINT = "see whether it is full, read-only or broken (df, mount, dmesg)"
HELD_HINT = "another process holds the store; try again later"

#: What DuckDB raises for want of memory. It is known by its name, as most commands never load DuckDB.
OF_LAKE = "OutOfMemoryException"
#: What is always a shortage, and never a mistake of ours.
SHORT = (MemoryError, sqlite3.OperationalError)
NO_MEMORY = Fault("memory", "no more of it", "enough for what was asked", "send less at once, or try later")
NO_THREAD = Fault("memory", "no room for another thread", "enough for what was asked", "try again later")
_BY_ERRNO = {
    errno.ENOSPC: (ROOM, ROOM_HINT),
    errno.EDQUOT: (ROOM, ROOM_HINT),
    errno.EROFS: (WRITABLE, WRITABLE_HINT),
    errno.EIO: (WRITABLE, WRITABLE_HINT),
    errno.EMFILE: ("fewer files open at once", "raise the limit (ulimit -n), or try again later"),
    errno.ENFILE: ("fewer files open at once", "try again later"),
}


def shortage(error: BaseException, where: str = "store") -> Unavailable | None:
    """What the machine lacks, if that is why something failed; None for any other error."""
    if isinstance(error, MemoryError) or type(error).__name__ == OF_LAKE:
        return Unavailable(NO_MEMORY)
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return Unavailable(NO_THREAD)
    if isinstance(error, sqlite3.OperationalError):
        must, hint = _of_sqlite(error)
        return Unavailable(Fault(where, str(error), must, hint))
    if isinstance(error, OSError):
        if error.errno == errno.ENOMEM:
            return Unavailable(NO_MEMORY)
        if error.errno in _BY_ERRNO:
            must, hint = _BY_ERRNO[error.errno]
            return Unavailable(Fault(where, error.strerror or str(error), must, hint))
    return None


def refused(error: sqlite3.Error | OSError | UnicodeError, name: str) -> Unavailable:
    """Why a file could not be opened, read or written."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    must = "a file that can be opened, read and written"
    return shortage(error, name) or Unavailable(Fault(name, said, must))


def is_held(error: sqlite3.OperationalError) -> bool:
    """Whether another process, or another connection of this one, holds what was asked for."""
    return _primary(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _primary(error: sqlite3.OperationalError) -> int:
    """SQLite's error code: the lowest byte of the one that says it exactly."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _of_sqlite(error: sqlite3.OperationalError) -> tuple[str, str]:
    """What must be, and a hint."""
    primary = _primary(error)
    if primary == sqlite3.SQLITE_FULL:
        return ROOM, ROOM_HINT
    if is_held(error):
        return "a store that no other process holds for long", HELD_HINT
    if primary in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        return WRITABLE, WRITABLE_HINT
    return "a store that works", "try again later"
