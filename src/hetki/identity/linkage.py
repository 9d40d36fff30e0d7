"""Linkage: which records of one table may be of one person, learned from the table itself, without labels.

Splink's model (Fellegi and Sunter, 1969) in Splink's words. `link` is the whole way, `apply` uses a kept
model without training, for a whole table or for the records of it that are new. What they find are
proposals, never merges: `proposals` cuts them to what is worth saying. Columns are typed in `columns`,
compared in `blocking` and `training`, and weights become clusters in `clusters`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Literal, NamedTuple

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from splink import DuckDBAPI, Linker, block_on
from splink.internals.splink_dataframe import SplinkDataFrame

from hetki.errors import Fault, Invalid
from hetki.identity import clusters
from hetki.identity.blocking import Blocked, Rule, block, blocking_rules
from hetki.identity.clusters import Clusters, Pairs, Rows
from hetki.identity.columns import Column, Ignored, checked, clean, typed
from hetki.identity.training import calibrated, trained

#: Bits; pairs with less evidence than this are not scored before the prior is known, or not kept after.
SCORED_MIN = -8.0
KEPT_MIN = -5.0
PRIOR = "probability_two_random_records_match"

Settings = dict[str, object]
#: Told the name of each stage as it begins, one of STAGES.
Stage = Callable[[str], None]
STAGES = ("columns", "blocking", "u", "m", "weights", "clusters")


class Model(msgspec.Struct, frozen=True):
    """All that scoring needs: kept as JSON, read by people, applied again without training.

    `settings` are Splink's own, with the m and u of each comparison level. `n_records` is how many records it
    was trained on; `is_taught` says whether m was learned, or is Splink's guess because hardly anybody came
    twice. No value of any record is in it.
    """

    columns: tuple[Column, ...]
    rules: tuple[Rule, ...]
    n_records: int
    is_taught: bool
    settings: Settings


class Quarantined(NamedTuple):
    """Records that are not linked without a person: a crowd, or those too many are alike to."""

    reason: Literal["crowd", "too_many_alike"]
    rows: list[int]


@dataclass(frozen=True, slots=True)
class Linkage:
    """What was found: pairs with their match weights, and a cluster for each row of the table.

    A record that is in quarantine is alone in its cluster. `ignored` are the columns that were left out,
    `idle` the blocking rules that would have brought too many pairs together. `settings` are the model's,
    under the prior of this table.
    """

    model: Model
    settings: Settings
    pairs: Pairs
    clusters: Clusters
    quarantined: list[Quarantined]
    ignored: tuple[Ignored, ...]
    idle: tuple[Rule, ...] = ()


def _silent(stage: str) -> None: ...


def link(
    con: duckdb.DuckDBPyConnection,
    records: pa.Table,
    where: str = "table",
    customer: Rows | None = None,
    stage: Stage = _silent,
) -> Linkage:
    """Type the columns of a table, train on it, score its pairs and cluster its records.

    `con` is a scratch database: Splink makes its tables there, and the compared records stay in it as the
    table `blocked`. `customer` numbers the customers that rows already belong to. Raises `Invalid` if the
    table cannot be linked: one record, no two independent columns, texts that are not UTF-8.
    """
    stage("columns")
    found = typed(con, records, where)
    rules = blocking_rules(found.columns, records.num_rows)
    if not rules:
        got = f"columns too coarse to tell {records.num_rows} records apart"
        raise Invalid(Fault(where, got, "some with more values", "no blocking rule would bring few pairs"))
    stage("blocking")
    blocked = block(con, found.columns, rules, where)
    blocking = [block_on(f"block{number}") for number in range(len(rules))]
    linker, is_taught = trained(con, "blocked", found.columns, blocking, blocked.n_records, stage)
    stage("weights")
    raw = _pairs(con, linker.inference.predict(threshold_match_weight=SCORED_MIN, warning_mode="never"))
    n_pairs = blocked.n_records * (blocked.n_records - 1) / 2
    share, pairs = calibrated(raw, _prior(linker), n_pairs)
    settings = _plain(linker.misc.save_model_to_json() | {PRIOR: share})
    model = Model(found.columns, rules, blocked.n_records, is_taught, settings)
    linker.table_management.delete_tables_created_by_splink_from_db()  # type: ignore[no-untyped-call]
    stage("clusters")
    return _found(model, settings, pairs, records.num_rows, blocked, found.ignored, customer)


def apply(
    con: duckdb.DuckDBPyConnection,
    records: pa.Table,
    model: Model,
    where: str = "table",
    is_new: NDArray[np.bool_] | None = None,
    customer: Rows | None = None,
    stage: Stage = _silent,
) -> Linkage:
    """Link a table with a model that was trained before; with `is_new`, only pairs of which one is new.

    Then the prior takes in what the new pairs say: they are weighed with all that the model was trained on.
    Raises `Invalid` if the table lacks a column of the model, or cannot be linked.
    """
    stage("columns")
    compared = {column.key: column.name for column in model.columns}
    missing = [name for name in compared.values() if name not in records.column_names]
    if missing:
        hint = "train again, or give the table's columns the names that the model has"
        raise Invalid(
            *(Fault(where, f"no column {name!r}", "there: the model compares it", hint) for name in missing)
        )
    checked(records, where)
    clean(con, records, compared)
    others = [name for name in records.column_names if name not in compared.values()]
    ignored = tuple(Ignored(name, "not_in_the_model") for name in others)
    stage("blocking")
    blocked = block(con, model.columns, model.rules, where)
    stage("weights")
    linker = scorer(con, "blocked", model.settings)
    settings = model.settings
    if is_new is None:
        scored = linker.inference.predict(threshold_match_weight=SCORED_MIN, warning_mode="never")
        pairs = _pairs(con, scored)
    else:
        share, pairs = _of_new(con, linker, model, is_new, blocked.n_records)
        settings = settings | {PRIOR: share}
    linker.table_management.delete_tables_created_by_splink_from_db()  # type: ignore[no-untyped-call]
    stage("clusters")
    return _found(model, settings, pairs, records.num_rows, blocked, ignored, customer)


def scorer(con: duckdb.DuckDBPyConnection, table: str, settings: Settings) -> Linker:
    """A linker with settings that were learned before, and the term frequencies of a table."""
    frame = DuckDBAPI(con).register(table, table_name=f"{table}_records")
    linker = Linker(frame, dict(settings), log_level="ERROR")
    for column in linker._settings_obj._term_frequency_columns:
        linker.table_management.compute_tf_table(column.unquote().name)
    return linker


def _of_new(
    con: duckdb.DuckDBPyConnection,
    linker: Linker,
    model: Model,
    is_new: NDArray[np.bool_],
    n_records: int,
) -> tuple[float, Pairs]:
    """The prior and the pairs of which at least one record is new: with known ones, and among themselves."""
    con.register("new_rows", pa.table({"row_id": np.flatnonzero(is_new)}))
    for name, word in (("known_side", "anti"), ("new_side", "semi")):
        con.sql(
            f"""create or replace table {name} as
            from blocked {word} join new_rows using (row_id) order by row_id"""
        )
    con.unregister("new_rows")
    n_known, n_new = (
        int(con.sql(f"select count(*) from {name}").fetchall()[0][0]) for name in ("known_side", "new_side")
    )
    assert n_known + n_new == n_records, "a record is either known or new"
    known, new = (linker._db_api.register(name, table_name=f"{name}s") for name in ("known_side", "new_side"))
    parts = []
    if n_known and n_new:
        parts.append(
            linker.inference.predict_between(
                known, new, threshold_match_weight=SCORED_MIN, warning_mode="never"
            )
        )
    if n_new > 1:
        parts.append(
            linker.inference.predict_within(new, threshold_match_weight=SCORED_MIN, warning_mode="never")
        )
    raw = _pairs(con, *parts)
    before = model.n_records * (model.n_records - 1) / 2
    n_pairs = n_known * n_new + n_new * (n_new - 1) / 2
    return calibrated(raw, _prior(linker), n_pairs, before)


def _plain(settings: Settings) -> Settings:
    """Settings as they are kept: without what changes from run to run, as the last digits of sums do."""

    def rounded(value: object) -> object:
        if isinstance(value, dict):
            return {key: rounded(each) for key, each in value.items() if key != "linker_uid"}
        if isinstance(value, list):
            return [rounded(each) for each in value]
        return float(f"{value:.9g}") if isinstance(value, float) else value

    return {key: rounded(value) for key, value in settings.items() if key != "linker_uid"}


def _prior(linker: Linker) -> float:
    return float(linker.misc.save_model_to_json()[PRIOR])


def _pairs(con: duckdb.DuckDBPyConnection, *scored: SplinkDataFrame) -> Pairs:
    """What Splink scored, each pair once with its lower row at the left, in order."""
    parts = [
        con.sql(f"select row_id_l, row_id_r, match_weight from {each.physical_name}").to_arrow_table()
        for each in scored
    ]
    sides = [
        np.concatenate([np.zeros(0), *(part.column(number).to_numpy() for part in parts)])
        for number in range(3)
    ]
    left, right = np.minimum(*sides[:2]).astype(np.int64), np.maximum(*sides[:2]).astype(np.int64)
    order = np.lexsort((right, left))
    return Pairs(left[order], right[order], sides[2][order])


def _found(
    model: Model,
    settings: Settings,
    pairs: Pairs,
    n_records: int,
    blocked: Blocked,
    ignored: tuple[Ignored, ...],
    customer: Rows | None,
) -> Linkage:
    """Clusters, and what is in quarantine."""
    likely = pairs.weight >= KEPT_MIN
    pairs = Pairs(pairs.left[likely], pairs.right[likely], pairs.weight[likely])
    kept = clusters.clustered(n_records, pairs, customer)
    crowds = [np.flatnonzero(kept.crowd == number).tolist() for number in range(int(kept.crowd.max()) + 1)]
    quarantined = [Quarantined("crowd", rows) for rows in crowds]
    if blocked.alike:
        quarantined.append(Quarantined("too_many_alike", blocked.alike))
    idle = tuple(model.rules[number] for number in blocked.idle)
    return Linkage(model, settings, pairs, kept, quarantined, ignored, idle)
