"""How fast `hetki backtest` goes over a lake, beside a floor: the same rows read and decoded, not folded.

    python bench/backtest.py PROJECT                  the lake of a CX project's data folder
    python bench/backtest.py FILE --project PROJECT --map MAP     a file, imported into a new folder first
    python bench/backtest.py --simulate 1000000       restaurants, simulated until there are so many events

The rate counts every event of the lake, read by a moment or not. The target is 1,000,000 events in 20 s.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import duckdb
import msgspec

from hetki.engine.advance import advance
from hetki.engine.backtest import backtest
from hetki.engine.engine import Engine, open_engine
from hetki.engine.history import HISTORY, ROWS_MAX, names_of
from hetki.engine.importing import import_file, load_map
from hetki.engine.project import load
from hetki.events import segment
from hetki.events.event import instant
from hetki.moments.fold import Program
from hetki.settings import DAY
from hetki.simulation.restaurants import Restaurants
from hetki.simulation.world import SeededChance, SimulatedClock
from hetki.store.lake import open_lake, refresh
from hetki.store.system import SystemClock, SystemDisk, collect_rarely

ROOT = Path(__file__).parent.parent
RESTAURANTS = ROOT / "examples" / "restaurants"
#: Events of one simulated customer in one month, about.
EVENTS_EACH = 22
TARGET_S_PER_MILLION = 20

T = TypeVar("T")


def timed(what: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    result = what()
    return time.perf_counter() - started, result


def simulated(folder: str, n_events: int) -> Engine:
    """Restaurants through accept and advance, a quarter of a day at a time."""
    project = load(SystemDisk(RESTAURANTS))
    start = instant(datetime(2026, 3, 2, tzinfo=UTC))
    clock, world = SimulatedClock(start), Restaurants(7, max(1, n_events // EVENTS_EACH), start, 30)
    engine = open_engine(project, SystemDisk(folder), clock, SeededChance(1), {})
    channel = {name: source.channel for name, source in project.sources.items()}
    limits = project.settings.limits
    for n in range(1, 4 * 31):
        clock.move(start + n * DAY // 4)
        parsed = [
            segment.parse(
                each.body, "batch", each.source, channel[each.source], each.received_at, limits, each.gpc
            )
            for each in world.until(clock.now())
        ]
        engine.acceptor.accept(parsed)
        advance(engine)
        print(f"\rsimulated {n / 4:.0f} days", end="", file=sys.stderr)
    return engine


def imported(folder: str, file: Path, project_folder: Path, of_map: Path) -> Engine:
    """A file through a map into a new folder."""
    project = load(SystemDisk(project_folder))
    engine = open_engine(project, SystemDisk(folder), SystemClock(), SeededChance(1), {})
    plan = load_map(SystemDisk(of_map.parent), of_map.name, project)
    took, done = timed(lambda: import_file(engine, SystemDisk(file.parent), file.name, plan))
    print(f"import     {done.n_rows:>12,} rows    {took:7.2f} s {done.n_rows / took:>12,.0f} rows/s")
    advance(engine)
    return engine


def opened(project_folder: Path) -> Engine:
    project = load(SystemDisk(project_folder))
    disk = SystemDisk(project_folder / project.settings.data)
    return open_engine(project, disk, SystemClock(), SeededChance(1), {})


def floor(lake: duckdb.DuckDBPyConnection, program: Program, advance_to: int) -> int:
    """Read the rows that a backtest reads, decode their JSON, and do nothing with them."""
    names = names_of(program)
    n = 0
    reader = lake.sql(HISTORY, params={"names": names, "until": advance_to}).to_arrow_reader(ROWS_MAX)
    for batch in reader:
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if row[6]:  # an event, not a link
                msgspec.json.decode(row[9])
                msgspec.json.decode(row[10])
            n += 1
    return n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("path", nargs="?", type=Path)
    parser.add_argument("--project", type=Path)
    parser.add_argument("--map", type=Path)
    parser.add_argument("--simulate", type=int)
    given = parser.parse_args()
    collect_rarely()
    if bool(given.path) == bool(given.simulate):
        parser.error("give a path, or --simulate N")
    with tempfile.TemporaryDirectory() as folder:
        if given.simulate:
            engine = simulated(folder, given.simulate)
        elif given.path.is_dir():
            engine = opened(given.path)
        else:
            engine = imported(folder, given.path, given.project, given.map)
        measure(engine)


def measure(engine: Engine) -> None:
    took, mark = timed(lambda: refresh(engine.disk, engine.journal, engine.state))
    progress = engine.state.progress()
    assert progress is not None, "a lake has an advanced state"
    n_events = mark.n_events
    print(f"\rlake       {n_events:>12,} events  {took:7.2f} s {n_events / took:>12,.0f} events/s")
    lake = open_lake(engine.disk)
    floor_s, n_rows = timed(lambda: floor(lake, engine.program, progress.advance_to))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fold_s, found = timed(lambda: backtest(lake, engine.program, progress.advance_to))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    n_found = sum(map(len, found.values()))
    print(f"floor      {n_rows:>12,} rows    {floor_s:7.2f} s {n_events / floor_s:>12,.0f} events/s")
    print(f"backtest   {n_found:>12,} caught  {fold_s:7.2f} s {n_events / fold_s:>12,.0f} events/s")
    print(f"           {n_rows / fold_s:,.0f} rows that a moment reads per second; ", end="")
    print(f"{fold_s / floor_s:.2f} times the floor, {len(engine.program.moments)} moments", end="")
    print(
        f", {fold_s / n_events * 1e6:.1f} s per million events (target: under {TARGET_S_PER_MILLION})", end=""
    )
    print(f", {grown:.0f} MB more than the floor at its peak")


if __name__ == "__main__":
    main()
