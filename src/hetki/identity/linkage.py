"""Linkage: which records of one table may be of one person, learned from the table itself, without labels.

Splink's model (Fellegi and Sunter, 1969) in Splink's words. `link` is the whole way, `apply` uses a kept
model without training, for a whole table or for the records of it that are new. What they find are
proposals, never merges: `proposals` cuts them to what is worth saying. Columns are typed in `columns`,
compared in `blocking` and `training`, and weights become clusters in `clusters`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Literal, NamedTuple, Sequence

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
from hetki.identity.related import TINY, Shares, classes
from hetki.identity.training import calibrated, trained, unlike

#: Bits; pairs with less evidence than this are not scored before the prior is known, or not kept after.
SCORED_MIN = -8.0
KEPT_MIN = -5.0
#: Relatives are looked for where matches differ at least so often in a date.
UNLIKE_MIN = 0.1
#: Relatives who are less likely than this take nothing from a pair's weight that would be seen.
RELATED_SCORED_MIN = -12.0
PRIOR = "probability_two_random_records_match"

Settings = dict[str, object]
#: Told the name of each stage as it begins, one of STAGES.
Stage = Callable[[str], None]
STAGES = ("columns", "blocking", "u", "m", "weights", "clusters")


class Model(msgspec.Struct, frozen=True):
    """All that scoring needs: kept as JSON, read by people, applied again without training.

    `settings` are Splink's own, with the m and u of each comparison level. `n_records` is how many records it
    was trained on; `is_taught` says whether m was learned, or is Splink's guess because hardly anybody came
    twice. `related` are the settings for pairs of relatives, if the table has such: m is how often they reach
    each level. No value of any record is in it.
    """

    columns: tuple[Column, ...]
    rules: tuple[Rule, ...]
    n_records: int
    is_taught: bool
    settings: Settings
    related: Settings | None = None


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
    n_pairs = blocked.n_records * (blocked.n_records - 1) / 2
    dates = {column.key for column in found.columns if column.kind == "date"}
    may_be = is_taught and any(share > UNLIKE_MIN for key, share in unlike(linker).items() if key in dates)
    linker._settings_obj._retain_intermediate_calculation_columns = may_be
    scored = _all(linker, SCORED_MIN)
    relatives = _relatives(con, linker, scored, found.columns, n_pairs) if may_be else None
    related: Settings | None = None
    if relatives is None:
        raw = _pairs(con, *scored)
    else:
        same, related = relatives
        linker.table_management.delete_tables_created_by_splink_from_db()  # type: ignore[no-untyped-call]
        linker = scorer(con, "blocked", same)
        raw = _weighed(con, linker, related, _all)
    share, pairs = calibrated(raw, _prior(linker), n_pairs)
    settings = _plain(linker.misc.save_model_to_json() | {PRIOR: share})
    model = Model(found.columns, rules, blocked.n_records, is_taught, settings, related)
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
        pairs = _weighed(con, linker, model.related, _all)
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

    def of_new(linker: Linker, least: float) -> list[SplinkDataFrame]:
        known, new = (linker._db_api.register(f"{side}_side") for side in ("known", "new"))
        infer, parts = linker.inference, []
        if n_known and n_new:
            parts.append(
                infer.predict_between(known, new, threshold_match_weight=least, warning_mode="never")
            )
        if n_new > 1:
            parts.append(infer.predict_within(new, threshold_match_weight=least, warning_mode="never"))
        return parts

    raw = _weighed(con, linker, model.related, of_new)
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


def _all(linker: Linker, weight_min: float) -> list[SplinkDataFrame]:
    """All pairs that the rules bring together, with a weight."""
    return [linker.inference.predict(threshold_match_weight=weight_min, warning_mode="never")]


def _weighed(
    con: duckdb.DuckDBPyConnection,
    linker: Linker,
    related: Settings | None,
    score: Callable[[Linker, float], list[SplinkDataFrame]],
) -> Pairs:
    """Pairs with their weights: against strangers, and where there are relatives against these, too."""
    pairs = _pairs(con, *score(linker, SCORED_MIN))
    if related is None:
        return pairs
    other = scorer(con, "blocked", related)
    others = _pairs(con, *score(other, RELATED_SCORED_MIN))
    other.table_management.delete_tables_created_by_splink_from_db()  # type: ignore[no-untyped-call]
    n = int(max(pairs.right.max(initial=0), others.right.max(initial=0))) + 1
    names, of_others = pairs.left * n + pairs.right, others.left * n + others.right
    place = np.minimum(np.searchsorted(of_others, names), max(len(of_others) - 1, 0))
    is_there = of_others[place] == names if len(of_others) else np.zeros(len(names), bool)
    against = (
        np.where(is_there, others.weight[place], -np.inf) if len(of_others) else np.full(len(names), -np.inf)
    )
    return Pairs(pairs.left, pairs.right, pairs.weight - surplus(against))


def surplus(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a pair's weight loses, in bits, where relatives would be so alike with this weight."""
    return np.asarray(np.logaddexp2(0.0, weight))


def _relatives(
    con: duckdb.DuckDBPyConnection,
    linker: Linker,
    scored: list[SplinkDataFrame],
    columns: Sequence[Column],
    n_pairs: float,
) -> tuple[Settings, Settings] | None:
    """Settings for pairs of one person and for pairs of relatives, if the table has such."""
    compared = linker._settings_obj.core_model_settings.comparisons
    names = ", ".join(f"mw_{each.output_column_name}" for each in compared)
    counted = con.sql(
        f"select {names}, count(*)::double from {scored[0].physical_name} group by all order by all"
    ).to_arrow_table()
    gammas, shares = [], []
    for each, found in zip(compared, counted.columns, strict=False):
        levels = each.comparison_levels[:0:-1]  # without the one for missing values, from not alike to equal
        weight = np.array([level._match_weight for level in levels])
        told = found.to_numpy()
        gammas.append(np.where(told == 0, -1, np.abs(told[:, None] - weight).argmin(axis=1)))
        u = np.array([max(level.u_probability or 0.0, TINY) for level in levels])
        shares.append(u / u.sum())
    found = classes(columns, np.stack(gammas, axis=1), counted.columns[-1].to_numpy(), shares, n_pairs)
    if found is None:
        return None
    settings = linker.misc.save_model_to_json()
    return (
        _with_m(settings, found.same, found.n_same / n_pairs),
        _plain(_with_m(settings, found.related, found.n_related / n_pairs)),
    )


def _with_m(settings: Settings, shares: Shares, prior: float) -> Settings:
    """Settings with other m, by gamma from 0, and another prior."""
    told = msgspec.json.decode(msgspec.json.encode(settings))
    for each, share in zip(told["comparisons"], shares, strict=True):
        for level, m in zip(each["comparison_levels"][:0:-1], share.tolist(), strict=True):
            level["m_probability"] = m
    return {**told, PRIOR: prior}


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
