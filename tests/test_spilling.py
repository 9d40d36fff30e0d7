"""What DuckDB puts on the disk while it works: inside the data folder, and gone when it is over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import duckdb
from serving import eventually
from world import World

import hetki
from hetki.engine.erase import erase
from hetki.events.event import LeafId
from hetki.store.lake import SPILLED, refresh, spill_inside, tidy_spilled
from hetki.store.system import SystemDisk

CANARY = "kanarialintu"
#: More rows than the memory that it is given holds.
ASKING = f"""
import sys
from hetki.store.lake import open_lake
from hetki.store.system import SystemDisk
db = open_lake(SystemDisk(sys.argv[1]))
db.execute("SET memory_limit = '60MB'")
db.execute("SET threads = 1")
db.execute("SELECT count(*) FROM (SELECT s, count(*) FROM (SELECT '{CANARY}' || i || repeat('x', 99) AS s"
           " FROM range(30000000) AS t(i)) GROUP BY s)").fetchall()
"""


def holding(folder: Path) -> list[Path]:
    """The files below a folder in which the canary can be read."""
    files = [each for each in folder.rglob("*") if each.is_file()]
    return [each for each in files if CANARY.encode() in each.read_bytes()]


def test_a_killed_question_leaves_what_it_spilled_inside_and_the_worker_or_an_erasure_deletes_it(
    tmp_path: Path,
) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    elsewhere.mkdir()
    world = World(disk=SystemDisk(data, durable=False))
    for number in range(2):
        asking = subprocess.Popen(
            [sys.executable, "-c", ASKING, str(data)],
            cwd=elsewhere,
            env={**os.environ, "TMPDIR": str(elsewhere)},
        )
        eventually("a file that was spilled", lambda: bool(holding(data / SPILLED)))
        asking.kill()
        asking.wait()
        assert holding(data / SPILLED) and not list(elsewhere.rglob("*")), "else this look is blind"
        if number == 0:
            tidy_spilled(SystemDisk(data))  # as a worker does when it starts
        else:
            world.live("09:00 web u=anna Help Searched n_results=0")
            refresh(world.disk, world.engine.journal, world.engine.state)
            erase(world.engine, LeafId(world.node("anna")), "desk")
        assert not holding(data)


def test_what_links_tables_spills_there_too(tmp_path: Path) -> None:
    """Everywhere that a database in memory is opened, it is told where to spill."""
    disk = SystemDisk(tmp_path)
    db = duckdb.connect()
    spill_inside(db, disk)
    assert db.execute("SELECT current_setting('temp_directory')").fetchall() == [(disk.path(SPILLED),)]
    source = Path(hetki.__file__).parent
    opening = [each for each in source.rglob("*.py") if "duckdb.connect(" in each.read_text()]
    assert opening and all("spill_inside(" in each.read_text() for each in opening)
