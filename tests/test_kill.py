"""What was acknowledged survives: processes beside each other on one store, and kill -9 at any instant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hetki.store.system import SystemDisk

# -- stores that several processes hold at once

COUNTING = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
print(db.execute("SELECT count(*) FROM told").fetchone()[0])
db.close()
"""


def counted_elsewhere(file: Path) -> int:
    """What another process, which opens and closes the database, finds in it."""
    ran = subprocess.run([sys.executable, "-c", COUNTING, str(file)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


def test_a_process_that_comes_and_goes_takes_nothing_from_one_that_stays(tmp_path: Path) -> None:
    """A second connection in one process must not drop the locks of the first: else a visitor takes
    itself for the last user, and removes the write-ahead log that the others still write to."""
    disk = SystemDisk(tmp_path)
    first = disk.connect("x.db")
    first.execute("CREATE TABLE told(n INTEGER)")
    second = disk.connect("x.db")
    second.execute("INSERT INTO told VALUES (1)")
    assert counted_elsewhere(tmp_path / "x.db") == 1
    first.execute("INSERT INTO told VALUES (2)")
    assert counted_elsewhere(tmp_path / "x.db") == 2
    second.execute("INSERT INTO told VALUES (3)")
    assert counted_elsewhere(tmp_path / "x.db") == 3
