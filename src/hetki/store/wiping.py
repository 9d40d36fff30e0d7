"""Wiping: bytes of a SQLite file that no row uses any more, overwritten with zeros (law 8).

`secure_delete` overwrites a row where it lies. But where SQLite builds a page anew, as its rows go over to a
neighbour, an older copy of some stays in the gap between the page's pointers and its rows, and is not deleted
with them. Nothing reads a gap, so it may be overwritten below SQLite, by whoever holds the right to write
while the write-ahead log is empty: then the file is all there is.

It is run as a program of its own, by `hetki.store.system.SystemDisk.wipe`: closing a file drops every lock
that a process holds on it. It holds its lock itself, so that it may go on when whoever has begun it is gone.
"""

from __future__ import annotations

import os
import sqlite3
import sys

#: The first byte of a page of rows or keys (inner ones of an index and a table, leaves of both), and how long
#: the page's header is. Any other page begins with the number of another one, so it is below these in files
#: of fewer pages than `PAGES_MAX`.
HEADERS = {2: 12, 5: 12, 10: 8, 13: 8}
PAGES_MAX = 2 << 24
#: Bytes of the file's own header: where the size of a page stands, and what is not 0 if pages of another kind
#: lie between (auto_vacuum).
PAGE_BYTES_AT, VACUUMED_AT, HEADER_BYTES = 16, 52, 100
PART_BYTES = 16 << 20
#: How long it waits for whoever writes.
WAIT_S = 10.0
#: Its status where somebody reads or writes just now.
BUSY = 3


def wipe(path: str, first: int, n_pages: int) -> bool:
    """Empty the gaps of pages from `first` on, durably; page 0 holds the schema, and is left as it is. False,
    and nothing is done, if somebody reads or writes just now.

    Raises `OSError`, `sqlite3.Error`, and `ValueError` for a file in which rows cannot be told from other
    pages. For a process that does nothing else: what it opens it leaves open.
    """
    db = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        if db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            return False
        db.execute(f"PRAGMA busy_timeout = {round(WAIT_S * 1_000)}")
        db.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return False
        raise
    if os.stat(f"{path}-wal").st_size:
        return False  # somebody has written since
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # not closed: the lock would go with it
    page_bytes = _page_bytes(os.pread(handle, HEADER_BYTES, 0), os.fstat(handle).st_size)
    at, until = max(first, 1) * page_bytes, (first + n_pages) * page_bytes
    while at < until and (part := os.pread(handle, min(PART_BYTES, until - at), at)):
        for start, end in _gaps(part, page_bytes):
            os.pwrite(handle, bytes(end - start), at + start)
        at += len(part)
    os.fsync(handle)
    # Whoever has read these pages before is to read them anew: a commit of whatever kind tells them.
    (version,) = db.execute("PRAGMA user_version").fetchone()
    db.execute(f"PRAGMA user_version = {version}")
    db.execute("COMMIT")
    return True


def _page_bytes(header: bytes, n_bytes: int) -> int:
    size = int.from_bytes(header[PAGE_BYTES_AT : PAGE_BYTES_AT + 2])
    page_bytes = 65_536 if size == 1 else size
    if any(header[VACUUMED_AT : VACUUMED_AT + 4]) or page_bytes < 512 or n_bytes // page_bytes >= PAGES_MAX:
        raise ValueError("pages of rows cannot be told from others")
    return page_bytes


def _gaps(part: bytes, page_bytes: int) -> list[tuple[int, int]]:
    """Where the gaps lie that are not empty."""
    found, zeros = [], bytes(page_bytes)
    for page in range(0, len(part) - page_bytes + 1, page_bytes):
        kind = part[page]
        if kind in HEADERS:
            n_rows = part[page + 3] << 8 | part[page + 4]
            start = page + HEADERS[kind] + 2 * n_rows
            end = page + (part[page + 5] << 8 | part[page + 6] or page_bytes)
            if start < end and part[start:end] != zeros[: end - start]:
                found.append((start, end))
    return found


if __name__ == "__main__":
    sys.exit(0 if wipe(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])) else BUSY)
