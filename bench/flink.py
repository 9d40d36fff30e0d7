"""The matcher against Flink's MATCH_RECOGNIZE: A, one or more B, C within an hour, from the same CSV.

    python -m venv FOLDER && FOLDER/bin/pip install 'apache-flink==2.3.*'        Python 3.11, and Java 17
    python bench/flink.py --flink FOLDER/bin/python [--events 2000000] [--customers 50000]

What is compared: rows of SQL follow each other strictly, so the moment says `next` and `in a row`. A, B and C
exclude each other, so greedy and reluctant B+ are the same, no two matches overlap, and SKIP PAST LAST ROW
drops none. Flink's WITHIN ends before the hour and Hetki's with it: times are multiples of 7 seconds, so no
two events are an hour apart, and no customer has two events at one time. A run of B is shorter than 100.
Both give the ids of A, of the first and the last B, of C, and how many B there were.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
from numpy.random import default_rng

from hetki.engine.columns import in_order
from hetki.events.catalogue import Catalogue, EventSpec
from hetki.patterns.columnar import Column, Texts
from hetki.patterns.fast import Runs, fold, look
from hetki.patterns.pattern import parse_pattern
from hetki.patterns.pools import Batch
from hetki.patterns.sequence import Pattern
from hetki.patterns.tables import compiled
from hetki.settings import DAY

NAMES = ["A", "B", "C", "D"]
SHARES = [0.25, 0.4, 0.25, 0.1]
STEPS = [{"a": "A"}, {"b": "next at least 1 times in a row B"}, {"no d": "D"}, {"c": "next C"}]
STEP_MS = 7_000
COLUMNS = ["customer", "id", "name", "at_ms"]

Matches = set[tuple[int, ...]]


class Told(msgspec.Struct):
    """What the job in Flink's environment measured, in seconds."""

    job_s: float
    whole_s: float


def make(path: Path, n_events: int, n_customers: int, seed: int) -> None:
    """Events of a month in order of time; some pairs of name and hour match."""
    rng = default_rng(seed)
    customer = rng.integers(0, n_customers, n_events)
    start = rng.integers(0, 30 * DAY // 1_000_000, n_customers) * 1000
    place = rng.integers(0, 4_000, n_events)
    at = (start[customer] // STEP_MS + place) * STEP_MS
    _, first = np.unique(customer * (at.max() + 1) + at, return_index=True)
    first = first[np.argsort(at[first], kind="stable")]
    names = np.array(NAMES, object)[rng.choice(len(NAMES), len(first), p=SHARES)]
    columns = [customer[first], np.arange(len(first)), names, at[first]]
    table = pa.table(dict(zip(COLUMNS, map(pa.array, columns), strict=True)))
    pc_csv.write_csv(table, path, pc_csv.WriteOptions(include_header=False, quoting_style="none"))


def pattern() -> Pattern:
    catalogue = Catalogue({name: EventSpec(name, name, {}) for name in NAMES})
    found, faults = parse_pattern(STEPS, "", "1 hour", "", catalogue, (), lambda *keys, offset=0: f"{keys}")
    assert found is not None, faults
    return found


class Nameless:
    """Events of which no condition asks a field."""

    def __init__(self, n: int) -> None:
        self.texts, self.odd = Texts(), np.zeros(n, np.bool_)

    def field(self, name: str, taken: str) -> Column:
        raise AssertionError("the pattern has no condition")

    trait = field


def by_hetki(path: Path, known: Pattern) -> Matches:
    """The fast form, from the CSV on."""
    table = pc_csv.read_csv(path, pc_csv.ReadOptions(column_names=COLUMNS)).combine_chunks()
    automaton = compiled([known])
    customers = pc.dictionary_encode(table["customer"]).combine_chunks()
    customer = customers.indices.to_numpy().astype(np.int64)
    at = table["at_ms"].to_numpy() * 1000
    zeros = np.zeros(len(at), np.int64)
    rows = in_order(customer, len(customers.dictionary), at, zeros, zeros)
    names = pc.dictionary_encode(table["name"]).combine_chunks()
    number = names.indices.to_numpy()[rows]
    concerns, opens, name = zeros.copy(), zeros.copy(), zeros.copy()
    for place, each in enumerate(names.dictionary.to_pylist()):
        if each in automaton.names:
            mine = np.flatnonzero(number == place)
            looked = look(automaton, each, Nameless(len(mine)))
            concerns[mine], opens[mine], name[mine] = looked.concerns, looked.opens, automaton.names[each]
    columns = np.zeros((len(rows), automaton.n_columns))
    batch = Batch(rows, customer[rows], at[rows], name, zeros, concerns, opens, zeros, zeros, columns)
    runs = Runs(automaton, len(customers.dictionary))
    fold(automaton, runs, batch, int(at.max()))
    ids = table["id"].to_numpy()
    return {_ids(each.rows, ids) for each in runs.taken()}


def _ids(rows: Sequence[Sequence[int]], ids: np.ndarray) -> tuple[int, ...]:
    (a,), several, (c,) = rows
    return int(ids[a]), int(ids[several[0]]), int(ids[several[-1]]), len(several), int(ids[c])


def by_flink(python: str, path: Path, folder: Path) -> tuple[Matches, Told]:
    job = Path(__file__).with_name("flink_job.py")
    done = subprocess.run(
        [python, str(job), str(path), str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    files = [each for each in folder.rglob("*") if each.is_file()]
    lines = [line for each in files for line in each.read_text().splitlines()]
    found = {tuple(map(int, line.split(","))) for line in lines}
    assert len(found) == len(lines), "no match twice"
    return found, msgspec.json.decode(done.stdout.splitlines()[-1], type=Told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--flink", required=True, help="the Python that has apache-flink")
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--customers", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    known = pattern()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.csv"
        make(path, given.events, given.customers, given.seed)
        by_hetki(path, known)  # compiled, or loaded as compiled before
        started = time.process_time()
        ours = by_hetki(path, known)
        took_s = time.process_time() - started
        theirs, told = by_flink(given.flink, path, Path(folder) / "matches")
    print(f"events   {given.events:>10,} drawn; matches: Hetki {len(ours):,}, Flink {len(theirs):,}")
    print(f"equal    {ours == theirs}")
    print(f"hetki    {took_s:>10.2f} CPU-seconds from the CSV to the matches")
    print(f"flink    {told.job_s:>10.2f} CPU-seconds of the job, {told.whole_s:.2f} with its start")
    print(f"ratio    {told.job_s / took_s:>10.1f} times per CPU-second (asked: 20)")


if __name__ == "__main__":
    main()
