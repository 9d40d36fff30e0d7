"""What many small refreshes of the lake cost: writing it, asking it, and erasing somebody from it.

    hetki demo PROJECT --no-serve
    python bench/refreshes.py PROJECT

The journal of the project is written into a lake three times: at once, in refreshes of `--events` rows each
whose files are left as they are, and in the same with small files merged. Told are the files, and the CPU
seconds of writing all, of one report and of erasing one customer. The project is not changed: it is copied.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hetki.engine.engine import open_folder
from hetki.engine.erase import erase
from hetki.engine.report import report
from hetki.events.event import LeafId
from hetki.measurement.outcome import measured
from hetki.store import lake, lake_files
from hetki.store.system import collect_rarely

AT_ONCE, NEVER = 100_000, 10**9


def timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def measure(project: Path, n_rows: int, small_max: int) -> None:
    lake.ENTRIES_MAX, lake_files.SMALL_MAX = n_rows, small_max
    with tempfile.TemporaryDirectory(dir=project.parent) as copied:
        folder = shutil.copytree(project, Path(copied) / "project")
        engine = open_folder(str(folder))
        lake.remove_lake(engine.disk)
        moments = [measured(each) for each in engine.project.moments.values()]
        until = engine.state.progress().advance_to
        written = timed(lambda: written_by_and_by(engine))
        n_files = len(lake_files.event_files(engine.disk))
        asked = timed(lambda: lake.ask(engine.disk, lambda tables: report(tables, moments, until)))
        (row,) = engine.db.execute("SELECT customer FROM decisions ORDER BY decided_at LIMIT 1").fetchall()
        erased = timed(lambda: erase(engine, LeafId(row[0]), "bench"))
        engine.close()
    what = (
        "at once"
        if n_rows == AT_ONCE
        else f"{n_rows} rows each, " + ("as it is", "merged")[small_max < NEVER]
    )
    print(
        f"{what:24} {n_files:7} files  write {written:6.1f}  report {asked:6.2f}  erase {erased:6.2f}",
        flush=True,
    )


def written_by_and_by(engine: object) -> None:
    """As refreshes in turn do: each writes what is new, and then merges."""
    write, merge = lake._write_events, lake_files.merge_small

    def write_and_merge(disk, state, stored, start):  # type: ignore[no-untyped-def]
        merge(disk, lake_files.read_mark(disk))
        return write(disk, state, stored, start)

    lake._write_events = write_and_merge
    try:
        lake.refresh(engine.disk, engine.journal, engine.state)  # type: ignore[attr-defined]
    finally:
        lake._write_events = write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--events", type=int, default=300, help="rows of the journal in one refresh")
    given = parser.parse_args()
    collect_rarely()
    for n_rows, small_max in ((AT_ONCE, NEVER), (given.events, NEVER), (given.events, lake_files.SMALL_MAX)):
        measure(given.project, n_rows, small_max)


if __name__ == "__main__":
    main()
