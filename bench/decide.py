"""From accept to decision: how many events a second pass the whole corridor, and whether memory stays flat.

    python bench/decide.py DATA        (DATA from bench/make_data.py; --moments 5, --batch 10000)

Bodies are parsed, committed durably and folded, and their moments decided, in one process on a real disk;
the clock is simulated, so that moments are answered as they would have been live. The floor is the same
work without the fold: parse and durable commit alone.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

import msgspec
from make_data import Line

import hetki.simulation
from hetki.engine.advance import BATCH_MAX, advance
from hetki.engine.engine import Engine, open_engine
from hetki.engine.project import load
from hetki.events import segment
from hetki.events.wire import Parsed
from hetki.simulation.world import SeededChance, SimulatedClock
from hetki.store.system import SystemDisk, collect_rarely

PROJECT = Path(hetki.simulation.__file__).parent / "restaurants_project"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--moments", type=int, default=5)
    parser.add_argument("--batch", type=int, default=BATCH_MAX)
    parser.add_argument("--events-max", type=int, default=10**9)
    given = parser.parse_args()
    collect_rarely()
    rates = {}
    for name, folds in (("parse and durable commit alone", False), ("accept to decision", True)):
        folder = Path(tempfile.mkdtemp(prefix="hetki-bench-"))
        try:
            engine, clock = opened(folder, given.moments)
            rates[name] = measure(engine, clock, given, folds)
        finally:
            shutil.rmtree(folder)
    floor, whole = rates.values()
    print(f"accept to decision is {whole / floor:.2f} of parse and durable commit alone")


def opened(folder: Path, n_moments: int) -> tuple[Engine, SimulatedClock]:
    """An engine with the first moments of the restaurants' project."""
    project_folder = folder / "project"
    shutil.copytree(PROJECT, project_folder)
    for spare in sorted(project_folder.glob("moments/*.yaml"))[n_moments:]:
        spare.unlink()
        (project_folder / "tests" / spare.name).unlink()
    project = load(SystemDisk(project_folder))
    clock = SimulatedClock(0)
    return open_engine(project, SystemDisk(folder / "data"), clock, SeededChance(1), {}), clock


def measure(engine: Engine, clock: SimulatedClock, given: argparse.Namespace, folds: bool) -> float:
    """Events a second over the whole file; prints the memory at each quarter."""
    limits = engine.project.settings.limits
    n = n_waiting = 0
    spent = 0.0
    memory: list[str] = []
    group: list[Parsed] = []
    with given.data.open("rb") as file:
        for text in file:
            line = msgspec.json.decode(text, type=Line)
            began = time.perf_counter()
            clock.move(line.received_at)
            channel = engine.project.sources[line.source].channel
            parsed = segment.parse(bytes(line.body), "batch", line.source, channel, line.received_at, limits)
            group.append(parsed)
            n_waiting += len(parsed.events)
            if n_waiting >= given.batch:
                engine.acceptor.accept(group)
                if folds:
                    advance(engine, given.batch)
                n, n_waiting, group = n + n_waiting, 0, []
                if n // 250_000 > len(memory):
                    memory.append(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB at {n:,}")
            spent += time.perf_counter() - began
            if n >= given.events_max:
                break
    decided = engine.db.execute("SELECT count(*) FROM decisions").fetchone()[0]
    label = "accept to decision" if folds else "parse and durable commit alone"
    print(f"{label}: {n / spent:,.0f} events/s ({n:,} events, {decided:,} decisions)")
    if memory:
        print(f"  peak memory: {', '.join(memory)}")
    return n / spent


if __name__ == "__main__":
    main()
