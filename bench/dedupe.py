"""Memory and speed of exactly-once as the ids of a journal grow.

    python bench/dedupe.py DIR 1000000 10000000

For each size an index is made in DIR, if it is not there yet, as folding makes it: so many ids of events,
their places by leaf (ten events of each), and the secret of every leaf. Then 100,000 events are accepted by
one process and folded by another, a third of them repeats. Told are the largest resident memory of both
processes, and what each event costs in CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from erasing import event, opened

from hetki.engine.advance import advance
from hetki.events.event import Event
from hetki.events.wire import Parsed
from hetki.settings import DAY
from hetki.store.system import collect_rarely

EACH, N_TOLD, N_BODY = 10, 100_000, 500
AT_ONCE = 500_000


def ids(seed: int, n: int) -> Iterator[list[bytes]]:
    """Random ids of 16 bytes in their order, in parts: as hashes lie in an index."""
    dice = np.random.default_rng(seed)
    step = 2**64 // n
    for start in range(0, n, AT_ONCE):
        n_part = min(AT_ONCE, n - start)
        high = (np.arange(start, start + n_part, dtype=np.float64) * step).astype(np.uint64)
        high += dice.integers(0, step, n_part, dtype=np.uint64)
        low = dice.integers(0, 2**63, n_part, dtype=np.uint64)
        whole = np.stack([high, low], axis=1).astype(">u8").tobytes()
        yield [whole[at : at + 16] for at in range(0, len(whole), 16)]


def prepare(folder: Path, n: int) -> None:
    """An index of so many ids, in the tables of a project that has folded nothing else."""
    engine = opened(folder)
    advance(engine)
    secrets = engine.disk.connect("secrets.db")
    for db in (engine.db, secrets):
        db.execute("BEGIN")
    place = 0
    for part in ids(1, n):
        rows = [(each, 1, place + k) for k, each in enumerate(part)]
        engine.db.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
        place += len(part)
    place = 0
    for part in ids(2, n // EACH):
        rows = [(each, 1, place + k) for k, each in enumerate(leaf for leaf in part for _ in range(EACH))]
        engine.db.executemany("INSERT INTO leaf_events VALUES (?, ?, ?)", rows)
        made = [(each, os.urandom(32), 0) for each in part]
        secrets.executemany("INSERT INTO leaves VALUES (?, ?, ?)", made)
        place += len(rows)
    for db in (engine.db, secrets):
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def bodies(start: int, now: int) -> Iterator[list[Event]]:
    """What is told: each third body repeats the one before it."""
    dice = random.Random(start)
    body: list[Event] = []
    for number in range(start, start + N_TOLD, N_BODY):
        if number // N_BODY % 3 < 2 or not body:
            body = [
                event(number + k, f"u{dice.randrange(N_TOLD)}", now + start * 1_000) for k in range(N_BODY)
            ]
        yield body


def told(folder: Path, what: str) -> dict[str, float]:
    """What one process does, its largest resident memory in MB, and microseconds of CPU for each event."""
    ran = subprocess.run(
        [sys.executable, __file__, str(folder), "--do", what], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(ran.stdout)
    return found


def do(folder: Path, what: str) -> None:
    collect_rarely()
    engine = opened(folder)
    now = engine.clock.now() + DAY
    began = time.process_time()
    if what == "accept":
        for body in bodies(engine.journal.head()[0] * N_BODY, now):
            engine.acceptor.accept([Parsed(body, [])])
    else:
        engine.clock.move(now + 10 * DAY)
        advance(engine)
    spent = time.process_time() - began
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    peak = int(found[1]) / 1_024
    print(json.dumps({"mb": peak, "us": spent / N_TOLD * 1e6}))


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory and speed as the ids of a journal grow.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("sizes", type=int, nargs="*")
    parser.add_argument("--do", default="")
    asked = parser.parse_args()
    if asked.do:
        do(asked.folder, asked.do)
        return
    for n in asked.sizes:
        folder = asked.folder / str(n)
        if not folder.exists():
            prepare(folder, n)
        megabytes = sum(each.stat().st_size for each in (folder / "data").glob("*.db")) / 1e6
        accepted, folded = told(folder, "accept"), told(folder, "fold")
        print(
            f"{n:>11,} ids, {megabytes:,.0f} MB on disk: accept {accepted['mb']:.0f} MB,"
            f" {accepted['us']:.1f} us an event; fold {folded['mb']:.0f} MB, {folded['us']:.1f} us an event",
            flush=True,
        )


if __name__ == "__main__":
    main()
