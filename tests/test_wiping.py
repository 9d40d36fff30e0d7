"""Wiping: older copies of rows in the gaps of pages are overwritten, and no row is touched."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetki.errors import Unavailable
from hetki.store import system, wiping
from hetki.store.sqlite import truncate_log
from hetki.store.system import SystemDisk

WORD = b"an older copy of a row "


def gaps(data: bytes) -> Iterator[tuple[int, int]]:
    """Between the pointers and the rows of each page of rows but the first, by what SQLite says of the form
    of its files."""
    for page in range(4_096, len(data), 4_096):
        head = 8 if data[page] in (10, 13) else 12 if data[page] in (2, 5) else 0
        if head:
            n_rows, rows = (int.from_bytes(data[page + at : page + at + 2]) for at in (3, 5))
            yield page + head + 2 * n_rows, page + rows


def fill_gaps(path: Path) -> int:
    """Fill all gaps of a database that nobody has open; return how many bytes."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    data, n_bytes = bytearray(path.read_bytes()), 0
    for start, end in gaps(bytes(data)):
        data[start:end] = (WORD * 200)[: end - start]
        n_bytes += end - start
    path.write_bytes(data)
    return n_bytes


def made(folder: Path, seed: int) -> tuple[SystemDisk, list[tuple[object, ...]]]:
    """A database of rows of all sizes, some of which look as pages do, grown and deleted in any order."""
    draw, disk = random.Random(seed), SystemDisk(folder, durable=False)
    db = disk.connect("rows.db")
    db.execute("CREATE TABLE by_key(id BLOB PRIMARY KEY, text BLOB) WITHOUT ROWID")
    db.execute("CREATE INDEX by_text ON by_key(text)")
    db.execute("CREATE TABLE by_number(id INTEGER PRIMARY KEY, text BLOB)")
    db.execute("BEGIN")
    for _ in range(300):
        n_bytes = draw.choice([1, 40, 40, 300, 2_000, 9_000])
        text = draw.choice([draw.randbytes(n_bytes), (b"\x0d\0\0\0\1\xff\xff\0" * 1_200)[:n_bytes]])
        db.execute("INSERT OR REPLACE INTO by_key VALUES (?, ?)", (draw.randbytes(2), text))
        db.execute("INSERT INTO by_number(text) VALUES (?)", (text,))
        if draw.random() < 0.3:
            db.execute("DELETE FROM by_key WHERE id > ? LIMIT 2", (draw.randbytes(2),))
            db.execute("DELETE FROM by_number WHERE id = ?", (draw.randrange(300),))
    db.execute("COMMIT")
    rows = rows_of(db)
    db.close()
    return disk, rows


def rows_of(db: sqlite3.Connection) -> list[tuple[object, ...]]:
    return db.execute("SELECT * FROM by_key").fetchall() + db.execute("SELECT * FROM by_number").fetchall()


def wiped(disk: SystemDisk) -> int:
    """Wipe all of it; how many steps that took."""
    page, n_steps = 1, 0
    while (after := disk.wipe("rows.db", page)) != 0:
        assert after > page
        page, n_steps = after, n_steps + 1
    return n_steps + 1


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32))
def test_gaps_are_emptied_and_no_row_is_touched(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    folder = tmp_path_factory.mktemp("wiped")
    disk, rows = made(folder, seed)
    assert fill_gaps(folder / "rows.db") > 1_000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(system, "PAGES_WIPED", 200)
        assert wiped(disk) > 1
    data = (folder / "rows.db").read_bytes()
    assert all(not any(data[start:end]) for start, end in gaps(data))
    db = disk.connect("rows.db")
    assert rows_of(db) == rows and db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def changed(patch: pytest.MonkeyPatch, folder: Path, old: str, new: str) -> None:
    """Have another program run."""
    text = Path(wiping.__file__).read_text()
    assert old in text
    (folder / "program.py").write_text(text.replace(old, new))
    patch.setattr(wiping, "__file__", str(folder / "program.py"))


def test_who_had_read_the_pages_before_does_not_bring_the_copies_back(tmp_path: Path) -> None:
    """Copying the log has them read again, too, but they may do so before the gaps are overwritten."""
    disk, _ = made(tmp_path, 1)
    fill_gaps(tmp_path / "rows.db")
    db = disk.connect("rows.db")
    rows_of(db)  # every page is in its memory
    with pytest.MonkeyPatch.context() as patch:
        changed(patch, tmp_path, 'db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]', "False")
        wiped(disk)
    db.execute("UPDATE by_number SET text = substr(text, 2)")
    db.execute("UPDATE by_key SET text = substr(text, 2)")
    assert truncate_log(db)
    assert WORD not in (tmp_path / "rows.db").read_bytes()


def test_while_somebody_reads_or_writes_nothing_is_wiped(tmp_path: Path) -> None:
    disk, _ = made(tmp_path, 1)
    fill_gaps(tmp_path / "rows.db")
    reader, writer = disk.connect("rows.db"), disk.connect("rows.db")
    reader.execute("BEGIN")
    reader.execute("SELECT 1 FROM by_number").fetchall()
    writer.execute("UPDATE by_number SET text = 'another'")
    assert disk.wipe("rows.db", 1) == 1
    reader.close()
    assert WORD in (tmp_path / "rows.db").read_bytes()
    assert disk.wipe("rows.db", 1) == 0
    assert WORD not in (tmp_path / "rows.db").read_bytes()


def test_whoever_writes_is_waited_for_by_nobody_elses_lock(tmp_path: Path) -> None:
    """The program has the right to write itself: it may outlive the process that has begun it."""
    disk, _ = made(tmp_path, 1)
    fill_gaps(tmp_path / "rows.db")
    writer = disk.connect("rows.db")
    writer.execute("BEGIN IMMEDIATE")
    with pytest.MonkeyPatch.context() as patch:
        changed(patch, tmp_path, "WAIT_S = 10.0", "WAIT_S = 0.01")
        assert disk.wipe("rows.db") == 1
    assert WORD in (tmp_path / "rows.db").read_bytes()
    writer.execute("ROLLBACK")
    assert disk.wipe("rows.db") == 0


def test_a_file_in_which_pages_cannot_be_told_apart_is_left_as_it_is(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "rows.db")
    db.execute("PRAGMA auto_vacuum = FULL")
    db.execute("CREATE TABLE t(text)")
    db.close()
    disk = SystemDisk(tmp_path, durable=False)
    disk.connect("rows.db").close()
    before = (tmp_path / "rows.db").read_bytes()
    with pytest.raises(Unavailable, match="cannot be overwritten"):
        disk.wipe("rows.db")
    assert (tmp_path / "rows.db").read_bytes() == before
