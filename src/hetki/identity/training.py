"""Training: comparisons of typed columns, their u and m from the table itself, and the prior.

In Splink's words: comparison levels say how alike two values are, m and u how often matches and others are
so alike, and the prior is the share of pairs that match. Start at `trained`, then `calibrated`.
"""

from __future__ import annotations

from typing import Callable, Sequence

import duckdb
import numpy as np
from splink import DuckDBAPI, Linker, SettingsCreator, block_on
from splink import comparison_level_library as levels
from splink.comparison_library import CustomComparison
from splink.internals.blocking_rule_creator import BlockingRuleCreator
from splink.internals.comparison_creator import ComparisonCreator
from splink.internals.comparison_level_creator import ComparisonLevelCreator
from splink.internals.exceptions import SplinkException

from hetki.identity.clusters import Pairs
from hetki.identity.columns import Column, units

#: Pairs from which u and, for each training rule, m are estimated.
TRAINING_PAIRS = 1_000_000
TRAINING_RULES = 3
SEED = 1


def trained(
    con: duckdb.DuckDBPyConnection,
    table: str,
    columns: Sequence[Column],
    blocking: Sequence[BlockingRuleCreator],
    n_records: int,
    stage: Callable[[str], None] = lambda stage: None,
) -> tuple[Linker, bool]:
    """Splink's linker with u from random pairs and m from expectation maximisation, with a fixed seed.

    m stays at Splink's defaults, and what is given beside it is false, where the table has too few repeated
    persons to learn it from.
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
    stage("u")
    linker.training.estimate_u_using_random_sampling(TRAINING_PAIRS, seed=SEED)
    best = sorted(
        (min(unit, key=lambda column: column.agreement / column.known_share**2) for unit in units(columns)),
        key=lambda column: column.agreement / column.known_share**2,
    )
    untaught = linker.misc.save_model_to_json()
    stage("m")
    for column in best[:TRAINING_RULES]:
        before = linker._settings_obj.core_model_settings.copy()  # type: ignore[no-untyped-call]
        try:
            linker.training.estimate_parameters_using_expectation_maximisation(
                block_on(column.key), max_pairs=TRAINING_PAIRS, estimate_without_term_frequencies=True
            )
        except (SplinkException, ValueError):
            # No two agree on it, or no two match: no lesson. It has taken comparisons out for its time.
            linker._settings_obj.core_model_settings = before
    if is_of_persons(linker):
        return linker, True
    again = database.register(table, table_name="records_again")
    return Linker(again, untaught, log_level="ERROR"), False


def is_of_persons(linker: Linker) -> bool:
    """Whether what was learned are records of one person, and not the best split of records that are none.

    Where hardly anybody comes twice there is nothing to learn, and expectation maximisation finds the pairs
    that are alike by chance: their other columns then mostly differ. Records of one person are mostly alike.
    """
    shares = unlike(linker).values()
    return bool(2 * sum(share > 0.5 for share in shares) < len(shares))


def unlike(linker: Linker) -> dict[str, float]:
    """How often matches differ in each comparison, as it was learned."""
    compared = linker.misc.save_model_to_json()["comparisons"]
    return {each["output_column_name"]: _unlike(each["comparison_levels"]) for each in compared}


def _unlike(levels: Sequence[dict[str, float]]) -> float:
    """How often matches differ in one comparison: m of its last level, which no pair may have shown.

    1 where nothing was learned.
    """
    return levels[-1].get("m_probability", 1 - sum(level.get("m_probability", 0.0) for level in levels[:-1]))


def comparisons(columns: Sequence[Column]) -> list[ComparisonCreator]:
    """One comparison for each unit of columns, its levels from alike to not alike."""
    return [_together(unit) if len(unit) > 1 else _alone(unit[0]) for unit in units(columns)]


def _alone(column: Column) -> CustomComparison:
    key = column.key
    between: list[ComparisonLevelCreator] = []
    if column.kind in ("text", "email"):
        between = [levels.JaroWinklerLevel(key, 0.92), levels.JaroWinklerLevel(key, 0.8)]
    elif column.kind == "date" or (column.kind == "code" and column.coarse):
        between = [_edited(key, 1), _edited(key, 2)]
        if column.coarse and (column.kind == "date" or column.spaced):
            between.append(levels.ExactMatchLevel(column.coarse))
    exact = levels.ExactMatchLevel(key, term_frequency_adjustments=True)
    return CustomComparison([levels.NullLevel(key), exact, *between, levels.ElseLevel()], key)


def _edited(key: str, n: int) -> ComparisonLevelCreator:
    """At most `n` letters are other, missing, too many or swapped. The distance that knows no swaps is asked
    first: it is at most twice as large, and a tenth of the work, which is most of the work there is."""
    sides = f"({key}_l, {key}_r)"
    sql = f"levenshtein{sides} <= {2 * n} and damerau_levenshtein{sides} <= {n}"
    return levels.CustomLevel(sql, label_for_charts=f"Damerau-Levenshtein distance of {key} <= {n}")


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


def calibrated(
    pairs: Pairs, prior: float, n_pairs: float, n_pairs_before: float = 0.0
) -> tuple[float, Pairs]:
    """The share of all pairs that match, and the weights under it.

    The prior that makes the expected number of matches equal to what the weights under it add up to: the
    step of expectation maximisation for the prior alone, over all scored pairs, until it stands. `n_pairs`
    counts those that could have been scored. Of `n_pairs_before` others the given prior is known to hold.
    """
    n_all = n_pairs + n_pairs_before
    n_before = prior * n_pairs_before
    evidence = pairs.weight - np.log2(prior / (1 - prior))
    share = prior
    for _ in range(200):
        odds = np.exp2(np.clip(evidence + np.log2(share / (1 - share)), -100, 100))
        n_matches = n_before + float(np.sum(odds / (1 + odds)))
        expected = min(max(n_matches, 0.5), n_all / 2) / n_all
        done = abs(expected - share) <= 1e-9 * share
        share = expected
        if done:
            break
    return share, Pairs(pairs.left, pairs.right, evidence + np.log2(share / (1 - share)))
