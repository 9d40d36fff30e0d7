"""Linkage: which records of one table may be of one person, learned from the table itself, without labels.

Splink's model (Fellegi and Sunter, 1969) in Splink's words: blocking rules say which pairs are compared,
comparison levels how alike two values are, m and u how often matches and others are so alike, and the match
weight is the sum of log2(m / u) and of the prior. `link` is the whole way; what it finds are proposals,
never merges. Columns are typed in `columns`, and weights become clusters in `clusters`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal, NamedTuple, Sequence

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
from splink import DuckDBAPI, Linker, SettingsCreator, block_on
from splink import comparison_level_library as levels
from splink.comparison_library import CustomComparison
from splink.internals.blocking_rule_creator import BlockingRuleCreator
from splink.internals.comparison_creator import ComparisonCreator
from splink.internals.comparison_level_creator import ComparisonLevelCreator
from splink.internals.exceptions import EMTrainingException

from hetki.errors import Fault, Invalid
from hetki.identity import clusters
from hetki.identity.clusters import Clusters, Pairs
from hetki.identity.columns import Column, Ignored, checked, clean, typed, units

#: A blocking rule may bring together this many random pairs for each record.
PAIRS_PER_RECORD = 40
#: A value shared by more records than this brings none of them together by itself.
BLOCK_MAX = 300
#: Blocking rules are made of the columns that tell most, and there are no more of them than this.
RULE_UNITS_MAX = 12
RULES_MAX = 40
#: Pairs from which u and, for each training rule, m are estimated.
TRAINING_PAIRS = 1_000_000
TRAINING_RULES = 3
#: Bits; pairs with less evidence than this are not scored before the prior is known, or not kept after.
SCORED_MIN = -8.0
KEPT_MIN = -5.0
SEED = 1


class Rule(msgspec.Struct, frozen=True):
    """A blocking rule: records that agree on all of these keys, of columns or coarse forms, are compared."""

    keys: tuple[str, ...]


class Model(msgspec.Struct, frozen=True):
    """All that scoring needs: kept as JSON, read by people, applied again without training.

    `settings` are Splink's own, with the m and u of each comparison level.
    """

    columns: tuple[Column, ...]
    rules: tuple[Rule, ...]
    settings: dict[str, object]


class Quarantined(NamedTuple):
    """Records that are not linked without a person: a crowd, or those too many are alike to."""

    reason: Literal["crowd", "too_many_alike"]
    rows: list[int]


@dataclass(frozen=True, slots=True)
class Linkage:
    """What was found: pairs with their match weights, and a cluster for each row of the table.

    A record that is in quarantine is alone in its cluster. `ignored` are the columns that were left out.
    """

    model: Model
    pairs: Pairs
    clusters: Clusters
    quarantined: list[Quarantined]
    ignored: tuple[Ignored, ...]


def link(con: duckdb.DuckDBPyConnection, records: pa.Table, where: str = "table") -> Linkage:
    """Type the columns of a table, train on it, score its pairs and cluster its records.

    `con` is a scratch database: Splink makes its tables there. Raises `Invalid` if the table cannot be
    linked: one record, no two independent columns, texts that are not UTF-8.
    """
    found = typed(con, records, where)
    rules = blocking_rules(found.columns, records.num_rows)
    if not rules:
        got = f"columns too coarse to tell {records.num_rows} records apart"
        raise Invalid(Fault(where, got, "some with more values", "no blocking rule would bring few pairs"))
    n_left, alike = _block(con, found.columns, rules, where)
    blocking = [block_on(f"block{number}") for number in range(len(rules))]
    linker = trained(con, "blocked", found.columns, blocking, n_left)
    raw = _scored(con, linker)
    prior = float(linker.misc.save_model_to_json()["probability_two_random_records_match"])
    share, pairs = calibrated(raw, prior, n_left)
    settings = linker.misc.save_model_to_json() | {"probability_two_random_records_match": share}
    model = Model(found.columns, rules, settings)
    return _found(linker, model, pairs, records.num_rows, alike, found.ignored)


def apply(con: duckdb.DuckDBPyConnection, records: pa.Table, model: Model, where: str = "table") -> Linkage:
    """Link a table with a model that was trained before. Raises `Invalid` if a column is missing."""
    missing = [column.name for column in model.columns if column.name not in records.column_names]
    if missing:
        faults = [Fault(where, f"no column {name!r}", "there: the model compares it") for name in missing]
        raise Invalid(*faults)
    checked(records, where)
    clean(con, records, {column.key: column.name for column in model.columns})
    _, alike = _block(con, model.columns, model.rules, where)
    database = DuckDBAPI(con)
    linker = Linker(
        database.register("blocked", table_name="records"), dict(model.settings), log_level="ERROR"
    )
    return _found(linker, model, _scored(con, linker), records.num_rows, alike, ())


def blocking_rules(columns: Sequence[Column], n_records: int) -> tuple[Rule, ...]:
    """Rules that bring few random pairs together, the widest first.

    A rule takes one, two or three columns, whole or coarse; it is left out if one that is already there
    brings all of its pairs. Within a unit only the innermost columns are combined with others.
    """
    agreement = {column.key: column.agreement for column in columns}
    wholes = {column.coarse: column.key for column in columns if column.coarse}
    agreement |= {column.coarse: column.coarse_agreement for column in columns if column.coarse}
    wide = sorted(units(columns), key=lambda unit: unit[0].agreement / unit[0].known_share)[:RULE_UNITS_MAX]
    inner = [[key for column in unit if not column.holds for key in _forms(column)] for unit in wide]
    found: list[tuple[str, ...]] = [(key,) for unit in wide for column in unit for key in _forms(column)]
    for n_columns in (2, 3):
        for some in itertools.combinations(inner, n_columns):
            found.extend(itertools.product(*some))
    share = {keys: float(np.prod([agreement[key] for key in keys])) for keys in found}
    allowed = [keys for keys in found if share[keys] * n_records / 2 <= PAIRS_PER_RECORD]
    allowed.sort(key=lambda keys: (len(keys), -sum(key in wholes for key in keys), share[keys], keys))
    kept: list[tuple[str, ...]] = []
    for keys in allowed:
        said = {*keys, *(coarse for coarse, whole in wholes.items() if whole in keys)}
        if not any(said.issuperset(wider) for wider in kept):
            kept.append(keys)
    return tuple(Rule(keys) for keys in kept[:RULES_MAX])


def _forms(column: Column) -> list[str]:
    return [column.key, column.coarse] if column.coarse else [column.key]


def comparisons(columns: Sequence[Column]) -> list[ComparisonCreator]:
    """One comparison for each unit of columns, its levels from alike to not alike."""
    return [_together(unit) if len(unit) > 1 else _alone(unit[0]) for unit in units(columns)]


def _alone(column: Column) -> CustomComparison:
    key = column.key
    between: list[ComparisonLevelCreator] = []
    if column.kind in ("text", "email"):
        between = [levels.JaroWinklerLevel(key, 0.92), levels.JaroWinklerLevel(key, 0.8)]
    elif column.kind == "date" or (column.kind == "code" and column.coarse):
        between = [levels.DamerauLevenshteinLevel(key, 1), levels.DamerauLevenshteinLevel(key, 2)]
        if column.coarse and (column.kind == "date" or column.spaced):
            between.append(levels.ExactMatchLevel(column.coarse))
    exact = levels.ExactMatchLevel(key, term_frequency_adjustments=True)
    return CustomComparison([levels.NullLevel(key), exact, *between, levels.ElseLevel()], key)


def _together(unit: Sequence[Column]) -> CustomComparison:
    """The whole, then what it contains: names in full, without the middle, by surname, by first name."""
    whole, *within = unit
    middle = next((column for column in within if column.holds), whole)
    parts = sorted((column for column in within if not column.holds), key=lambda column: column.agreement)
    exact = [whole] if middle is whole else [whole, middle]
    return CustomComparison(
        [
            levels.NullLevel(whole.key),
            *(levels.ExactMatchLevel(column.key, term_frequency_adjustments=True) for column in exact),
            levels.JaroWinklerLevel(middle.key, 0.92),
            *(levels.ExactMatchLevel(column.key, term_frequency_adjustments=True) for column in parts),
            levels.JaroWinklerLevel(middle.key, 0.8),
            levels.ElseLevel(),
        ],
        whole.key,
    )


def _block(
    con: duckdb.DuckDBPyConnection, columns: Sequence[Column], rules: Sequence[Rule], where: str
) -> tuple[int, list[int]]:
    """Make the table `blocked`: the cleaned columns, their coarse forms, and a key for each rule.

    A key is null where a value is missing, and where more than BLOCK_MAX records share it: then it says
    little, and the pairs would be the square of their number. Gives the number of its records, and the rows
    that are not among them, because most of what they could be found by is shared by too many.
    """
    coarse = "".join(f", {column.coarse_sql} as {column.coarse}" for column in columns if column.coarse)
    keys, counts, blocks, large, known_keys = "", "", "", "0", "0"
    for number, rule in enumerate(rules):
        known = " and ".join(f"{key} is not null" for key in rule.keys)
        keys += f", case when {known} then hash({', '.join(rule.keys)}) end as key{number}"
        counts += f", count(*) over (partition by key{number}) as n{number}"
        blocks += f", case when n{number} <= {BLOCK_MAX} then key{number} end as block{number}"
        known_keys += f" + (key{number} is not null)::int"
        large += f" + (key{number} is not null and n{number} > {BLOCK_MAX})::int"
    shown = ", ".join(name for column in columns for name in _forms(column))
    con.sql(
        f"""create or replace table blocked as
        with coarsened as (select *{coarse} from cleaned),
        keyed as (select *{keys} from coarsened),
        counted as (select *{counts} from keyed)
        select row_id, {shown}{blocks}, 2 * ({large}) > {known_keys} as is_alike
        from counted order by row_id"""
    )
    alike = [row for (row,) in con.sql("select row_id from blocked where is_alike order by 1").fetchall()]
    con.sql("delete from blocked where is_alike")
    n_left = con.sql("select count(*) from blocked").fetchall()[0][0]
    if n_left < 2:
        hint = "is it one person, or a table of test data?"
        raise Invalid(
            Fault(where, f"{n_left} records that are not like {BLOCK_MAX} others", "2 or more", hint)
        )
    return n_left, alike


def trained(
    con: duckdb.DuckDBPyConnection,
    table: str,
    columns: Sequence[Column],
    blocking: Sequence[BlockingRuleCreator],
    n_records: int,
) -> Linker:
    """Splink's linker with u from random pairs and m from expectation maximisation, with a fixed seed.

    m stays at Splink's defaults where the table has too few repeated persons to learn it from.
    """
    settings = SettingsCreator(
        link_type="dedupe_only",
        comparisons=[*comparisons(columns)],
        blocking_rules_to_generate_predictions=[*blocking],
        unique_id_column_name="row_id",
        probability_two_random_records_match=1 / n_records,
        retain_matching_columns=False,
    )
    database = DuckDBAPI(con)
    linker = Linker(database.register(table, table_name="records"), settings, log_level="ERROR")
    linker.training.estimate_u_using_random_sampling(TRAINING_PAIRS, seed=SEED)
    best = sorted(
        (min(unit, key=lambda column: column.agreement / column.known_share**2) for unit in units(columns)),
        key=lambda column: column.agreement / column.known_share**2,
    )
    untaught = linker.misc.save_model_to_json()
    for column in best[:TRAINING_RULES]:
        try:
            linker.training.estimate_parameters_using_expectation_maximisation(
                block_on(column.key), max_pairs=TRAINING_PAIRS, estimate_without_term_frequencies=True
            )
        except (EMTrainingException, ValueError):  # no two records agree on it, or no two match: no lesson
            continue
    if is_of_persons(linker):
        return linker
    return Linker(database.register(table, table_name="records_again"), untaught, log_level="ERROR")


def is_of_persons(linker: Linker) -> bool:
    """Whether what was learned are records of one person, and not the best split of records that are none.

    Where hardly anybody comes twice there is nothing to learn, and expectation maximisation finds the pairs
    that are alike by chance: their other columns then mostly differ. Records of one person are mostly alike.
    """
    unlike = [
        comparison["comparison_levels"][-1].get("m_probability", 1.0)
        for comparison in linker.misc.save_model_to_json()["comparisons"]
    ]
    return bool(2 * sum(share > 0.5 for share in unlike) < len(unlike))


def _scored(con: duckdb.DuckDBPyConnection, linker: Linker) -> Pairs:
    """All pairs that the rules bring together and that have some evidence."""
    scored = linker.inference.predict(threshold_match_weight=SCORED_MIN, warning_mode="never")
    found = con.sql(f"select row_id_l, row_id_r, match_weight from {scored.physical_name}").to_arrow_table()
    left, right, weight = (column.to_numpy() for column in found.columns)
    order = np.lexsort((right, left))
    return Pairs(left[order], right[order], weight[order])


def calibrated(pairs: Pairs, prior: float, n_records: int) -> tuple[float, Pairs]:
    """The share of all pairs that match, and the weights under it.

    The prior that makes the expected number of matches equal to what the weights under it add up to: the
    step of expectation maximisation for the prior alone, over all scored pairs, until it stands.
    """
    n_pairs = n_records * (n_records - 1) / 2
    evidence = pairs.weight - np.log2(prior / (1 - prior))
    share = prior
    for _ in range(200):
        odds = np.exp2(np.clip(evidence + np.log2(share / (1 - share)), -100, 100))
        expected = min(max(float(np.sum(odds / (1 + odds))), 0.5), n_pairs / 2) / n_pairs
        done = abs(expected - share) <= 1e-9 * share
        share = expected
        if done:
            break
    return share, Pairs(pairs.left, pairs.right, evidence + np.log2(share / (1 - share)))


def _found(
    linker: Linker,
    model: Model,
    pairs: Pairs,
    n_records: int,
    alike: list[int],
    ignored: tuple[Ignored, ...],
) -> Linkage:
    """Clusters, and what is in quarantine; the scratch tables go."""
    likely = pairs.weight >= KEPT_MIN
    pairs = Pairs(pairs.left[likely], pairs.right[likely], pairs.weight[likely])
    kept = clusters.clustered(n_records, pairs)
    crowds = [np.flatnonzero(kept.crowd == number).tolist() for number in range(int(kept.crowd.max()) + 1)]
    quarantined = [Quarantined("crowd", rows) for rows in crowds]
    if alike:
        quarantined.append(Quarantined("too_many_alike", alike))
    linker.table_management.delete_tables_created_by_splink_from_db()  # type: ignore[no-untyped-call]
    return Linkage(model, pairs, kept, quarantined, ignored)
