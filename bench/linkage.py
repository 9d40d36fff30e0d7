"""Linkage against a known truth, beside plain Splink: precision, recall, F1, B3, largest cluster and time.

    python bench/linkage.py TABLE... --truth COLUMN

    python bench/linkage.py historical_figures_with_errors_50k.parquet --truth cluster
    python bench/linkage.py febrl4a.csv.gz febrl4b.csv.gz --truth rec_id --pattern 'rec-([0-9]+)'

TABLE is CSV or Parquet; several are put below each other. The truth column is taken away before anything
looks at the table; with --pattern its first group is the truth, and a record without truth is a person of
its own. Both sides get the same typed columns, comparisons and rules, and train for themselves. Plain Splink
is given those for nothing, has no bound on a block, takes pairs from --threshold up and joins connected
components; ours pays for the typing. A record in quarantine counts as linked with nobody.
With --runs they take turns, who begins changes, and the least time of each counts.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from splink import block_on

from hetki.errors import Fault, Invalid, shown
from hetki.identity import blocking, clusters
from hetki.identity.blocking import blocking_rules
from hetki.identity.clusters import renumbered
from hetki.identity.columns import quoted, typed
from hetki.identity.linkage import Linkage, link
from hetki.identity.training import trained

#: More pairs than this plain Splink is not asked to compare.
PLAIN_PAIRS_MAX = 50_000_000
Labels = NDArray[np.int64]
T = TypeVar("T")


class Measured(NamedTuple):
    """How well clusters meet the truth: pairwise, and per record (Bagga and Baldwin, 1998)."""

    precision: float
    recall: float
    f1: float
    b3: float
    largest: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+", metavar="TABLE")
    parser.add_argument("--truth", required=True, metavar="COLUMN")
    parser.add_argument("--pattern", help="of the truth within its column")
    parser.add_argument("--ignore", action="append", default=[], metavar="COLUMN")
    parser.add_argument("--runs", type=int, default=2, help="how often each runs (2)")
    parser.add_argument(
        "--with",
        dest="bounds",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another bound, to try",
    )
    parser.add_argument("--threshold", type=float, default=0.95, help="plain Splink's match probability")
    given = parser.parse_args()
    try:
        for bound in given.bounds:
            bounded(bound)
        truth, records = read(given.tables, given.truth, given.pattern, given.ignore)
        found, ours = timed(lambda: link(scratch(), records, str(given.tables[0])))
        plain_run = plain_splink(records, given.threshold)
        joined, plain = timed(plain_run) if plain_run else (None, (0.0, 0.0))
        for number in range(1, given.runs if plain_run else 1):
            for is_ours in (True, False) if number % 2 == 0 else (False, True):
                if is_ours:
                    _, again = timed(lambda: link(scratch(), records, str(given.tables[0])))
                    ours = (min(ours[0], again[0]), min(ours[1], again[1]))
                else:
                    _, again = timed(plain_splink(records, given.threshold) or plain_run)
                    plain = (min(plain[0], again[0]), min(plain[1], again[1]))
    except Invalid as fault:
        sys.exit(str(fault))
    print(f"{records.num_rows} records of {truth.max() + 1}, {len(found.model.rules)} blocking rules")
    told(found)
    share = found.model.settings["probability_two_random_records_match"]
    size = np.bincount(truth)
    print(f"prior: {share:.4g}, in truth {(size * (size - 1)).sum() / (len(truth) * (len(truth) - 1)):.4g}")
    print(f"{'':24}precision  recall      F1      B3  largest  seconds  CPU seconds")
    line("hetki", measure(truth, found.clusters.cluster), ours)
    if joined is None:
        print(f"plain Splink was not run: it would compare more than {PLAIN_PAIRS_MAX:,} pairs")
        return
    line("plain Splink", measure(truth, joined), plain)
    print(f"time of hetki / plain: {ours[0] / plain[0]:.2f} by the clock, {ours[1] / plain[1]:.2f} of CPU")


def read(paths: list[Path], truth: str, pattern: str | None, ignored: list[str]) -> tuple[Labels, pa.Table]:
    """The truth of each row, numbered from 0, and the table without it."""
    con = scratch()
    readers = {".parquet": "read_parquet({})"}
    parts = []
    for path in paths:
        name = "'" + str(path).replace("'", "''") + "'"
        parts.append(
            "from " + readers.get(path.suffix.lower(), "read_csv({}, all_varchar = true)").format(name)
        )
    try:
        table = con.sql(" union all by name ".join(f"({part})" for part in parts)).to_arrow_table()
    except duckdb.Error as error:
        raise Invalid(
            Fault(", ".join(map(str, paths)), shown(str(error), 200), "CSV or Parquet in UTF-8")
        ) from None
    for name in (truth, *ignored):
        if name not in table.column_names:
            raise Invalid(Fault(str(paths[0]), f"no column {name!r}", f"one of {table.column_names}"))
    con.register("given", table)
    value = f"{quoted(truth)}::varchar"
    if pattern is not None:
        value = f"nullif(regexp_extract({value}, $1, 1), '')"
    try:
        rows = con.execute(f"select {value} from given", [pattern][: pattern is not None]).fetchall()
    except duckdb.Error as error:
        raise Invalid(Fault("--pattern", shown(str(error), 200), "a regular expression")) from None
    names = [each if each is not None else row for row, (each,) in enumerate(rows)]  # unknown: one's own
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names], np.int64), table.drop_columns([truth, *ignored])


def scratch() -> duckdb.DuckDBPyConnection:
    """A scratch database that draws no bars."""
    con = duckdb.connect()
    con.execute("SET enable_progress_bar = false")
    return con


def bounded(text: str) -> None:
    """Set a bound of linkage for this run, as `DENSITY_MIN=0.5`."""
    name, _, value = text.partition("=")
    homes = [module for module in (clusters, blocking) if hasattr(module, name)]
    if not homes or not value.replace(".", "", 1).isdigit():
        raise Invalid(
            Fault("--with", shown(text), "NAME=VALUE with a bound of identity/clusters or blocking")
        )
    setattr(homes[0], name, type(getattr(homes[0], name))(float(value)))


def timed(work: Callable[[], T]) -> tuple[T, tuple[float, float]]:
    """What it gave, and the seconds by the clock and of CPU."""
    clock, cpu = time.perf_counter(), time.process_time()
    given = work()
    return given, (time.perf_counter() - clock, time.process_time() - cpu)


def plain_splink(records: pa.Table, threshold: float) -> Callable[[], Labels] | None:
    """Splink as its own guide has it, on columns that are typed already; None where it would not end."""
    con = scratch()
    columns = typed(con, records, "table").columns
    rules = blocking_rules(columns, records.num_rows)
    coarse = "".join(f", {column.coarse_sql} as {column.coarse}" for column in columns if column.coarse)
    con.sql(f"create table plain as select *{coarse} from cleaned order by row_id")
    n_pairs = 0.0
    for rule in rules:
        known = " and ".join(f"{key} is not null" for key in rule.keys)
        n_pairs += con.sql(
            f"""select coalesce(sum(n * (n - 1) / 2), 0) from (select count(*)::double as n from plain
            where {known} group by {", ".join(rule.keys)})"""
        ).fetchall()[0][0]
    if n_pairs > PLAIN_PAIRS_MAX:
        return None

    def run() -> Labels:
        blocking = [block_on(*rule.keys) for rule in rules]
        linker, _ = trained(con, "plain", columns, blocking, records.num_rows)
        pairs = linker.inference.predict(threshold_match_probability=threshold)
        joined = linker.clustering.cluster_pairwise_predictions_at_threshold(pairs, threshold)
        sql = f"select cluster_id from {joined.physical_name} order by row_id"
        return renumbered(con.sql(sql).to_arrow_table()["cluster_id"].to_numpy())

    return run


def measure(truth: Labels, cluster: Labels) -> Measured:
    """Precision, recall and F1 of pairs, B3's F1, and the size of the largest cluster."""
    both = renumbered(cluster * (truth.max() + 1) + truth)
    shared, found, real = (np.bincount(each) for each in (both, cluster, truth))
    n_shared, n_found, n_real = (int((n * (n - 1) // 2).sum()) for n in (shared, found, real))
    precision, recall = n_shared / max(n_found, 1), n_shared / max(n_real, 1)
    b3_precision, b3_recall = (shared[both] / found[cluster]).mean(), (shared[both] / real[truth]).mean()
    return Measured(
        precision, recall, harmonic(precision, recall), harmonic(b3_precision, b3_recall), int(found.max())
    )


def harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0


def told(found: Linkage) -> None:
    """What was compared, what was left out, what is in quarantine."""
    print("compared:", ", ".join(f"{each.name} ({each.kind})" for each in found.model.columns))
    print("left out:", ", ".join(f"{each.name} ({each.reason})" for each in found.ignored) or "nothing")
    for each in found.quarantined:
        print(f"in quarantine: {len(each.rows)} records ({each.reason})")


def line(name: str, result: Measured, seconds: tuple[float, float]) -> None:
    figures = "".join(f"{figure:8.4f}" for figure in result[:4])
    print(f"{name:24} {figures}{result.largest:9}{seconds[0]:9.1f}{seconds[1]:13.1f}")


if __name__ == "__main__":
    main()
