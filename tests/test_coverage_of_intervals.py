"""The promise behind every figure: of many experiments with a known truth, 95 % of the intervals hold it.

All experiments of a kind lie in one lake and go through the same report as real ones. Customers differ (some
are hard to please), and the hard ones have more decisions: a report that forgot the clusters would fail.
"""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from numpy.typing import NDArray

from hetki.engine.report import report
from hetki.measurement.effect import NO_EFFECT, NOT_BELIEVED, Effect
from hetki.measurement.outcome import Measured
from hetki.patterns.choices import Choice, EventWithin

N_EXPERIMENTS = 200
DAY_US = 86_400_000_000
WHEN = pa.timestamp("us", tz="UTC")
TEXT = pa.string()
#: The tables that these experiments have no rows of.
NOTHING = {
    "deliveries": pa.schema([("decision_id", TEXT), ("status", TEXT)]),
    "accounts": pa.schema([("account", TEXT), ("group_id", TEXT)]),
    "account_members": pa.schema(
        [("account", TEXT), ("customer", TEXT), ("joined_at", WHEN), ("is_folded", pa.bool_())]
    ),
}
OUTCOMES = {"solved": EventWithin(True, (Choice("Contact Started"),), 86_400)}


def simulated(
    seed: int,
    planted: float,
    holdout_share: float,
    drawn_share: float,
    n_customers: int,
    base: float = 0.5,
    restricting: tuple[float, float] = (0.0, 0.0),
    is_told: bool = True,
) -> list[Effect]:
    """The initiatives' effects on `solved`; `drawn_share` is the holdout that is really drawn.

    Of customers who are easy to please the first share of `restricting` is restricted, of others the second:
    no event of theirs is seen. `is_told`: the report is told so.
    """
    rng = np.random.default_rng(seed)
    n = N_EXPERIMENTS * n_customers
    is_holdout = rng.random(n) < drawn_share
    easy = base + min(base, 1 - base) * 0.8 * rng.choice([-1, 1], n)
    n_decisions = rng.integers(1, 4, n) + 2 * (easy < base)
    customer = np.repeat(np.arange(n), n_decisions)
    place = np.arange(len(customer)) - np.repeat(np.cumsum(n_decisions) - n_decisions, n_decisions)
    at = place * 3 * DAY_US
    is_solved = rng.random(len(customer)) < easy[customer] + planted * ~is_holdout[customer]
    is_restricted = rng.random(n) < np.where(easy > base, *restricting)
    is_seen = ~is_solved & ~is_restricted[customer]
    lake = duckdb.connect()
    lake.register("restricted", restricted_of(np.flatnonzero(is_restricted & is_told)))
    lake.register("customers", pa.table({"leaf": names(np.arange(n)), "customer": names(np.arange(n))}))
    lake.register("decisions", decisions_of(customer, n_customers, at, is_holdout, holdout_share))
    lake.register("events", contacts_of(customer[is_seen], at[is_seen] + DAY_US // 2))
    for name, schema in NOTHING.items():
        lake.register(name, schema.empty_table())
    moments = [Measured(f"m{i:03}", f"i{i:03}", OUTCOMES) for i in range(N_EXPERIMENTS)]
    effects = [each for each in report(lake, moments, 100 * DAY_US) if each.moment == ""]
    assert len(effects) == N_EXPERIMENTS
    return effects


def names(numbers: NDArray[np.int64], letter: str = "c", n_digits: int = 1) -> pa.Array:
    digits = pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), n_digits, "0")
    return pc.binary_join_element_wise(letter, digits, "")


def decisions_of(
    customer: NDArray[np.int64],
    n_customers: int,
    at: NDArray[np.int64],
    is_holdout: NDArray[np.bool_],
    holdout_share: float,
) -> pa.Table:
    experiment = customer // n_customers
    return pa.table(
        {
            "decision_id": names(np.arange(len(customer)), "d"),
            "moment": names(experiment, "m", 3),
            "initiative": names(experiment, "i", 3),
            "customer": names(customer),
            "leaf": names(customer),
            "arm": np.where(is_holdout[customer], "holdout", "answered"),
            "decided_at": pa.array(at, WHEN),
            "holdout_share": np.full(len(customer), holdout_share),
            "account": pa.nulls(len(customer), pa.string()),
        }
    )


def contacts_of(customer: NDArray[np.int64], at: NDArray[np.int64]) -> pa.Table:
    same = {"source": "web", "channel": "web", "name": "Contact Started"}
    empty = dict.fromkeys(("identifiers", "properties", "context"), "{}")
    return pa.table(
        {
            "leaf": names(customer),
            "message_id": names(np.arange(len(customer)), "e"),
            **{column: pa.array([value] * len(customer)) for column, value in (same | empty).items()},
            "occurred_at": pa.array(at, WHEN),
            "received_at": pa.array(at, WHEN),
            "sequence": np.zeros(len(customer), np.int64),
            "gpc": np.zeros(len(customer), np.bool_),
        }
    )


def restricted_of(customer: NDArray[np.int64]) -> pa.Table:
    n = len(customer)
    return pa.table(
        {
            "unit": names(customer),
            "restricted_at": pa.array(np.full(n, 5 * DAY_US), WHEN),
            "lifted_at": pa.nulls(n, WHEN),
        }
    )


def holding(effects: list[Effect], truth: float) -> float:
    """The share of experiments whose interval holds the truth."""
    kept = [e.low <= truth <= e.high for e in effects if e.low is not None and e.high is not None]
    assert len(kept) == len(effects)
    return sum(kept) / len(kept)


def middle_of(effects: list[Effect]) -> float:
    return float(np.mean([each.effect for each in effects if each.effect is not None]))


@pytest.mark.parametrize("seed, holdout_share, n_customers", [(1, 0.5, 200), (2, 0.1, 600)])
def test_19_of_20_intervals_hold_the_planted_truth(seed: int, holdout_share: float, n_customers: int) -> None:
    effects = simulated(seed, 0.08, holdout_share, holdout_share, n_customers)
    assert 0.92 <= holding(effects, 0.08) <= 0.98
    assert middle_of(effects) == pytest.approx(0.08, abs=0.015)


def test_the_truth_is_held_without_those_who_restricted_processing() -> None:
    """Most of those who are hard to please have restricted it, and of the others some: whole clusters leave
    both arms, and what is left is still compared as it was drawn."""
    effects = simulated(9, 0.08, 0.5, 0.5, 300, restricting=(0.2, 0.6))
    n_left_out = [each.n_left_out_answered + each.n_left_out_holdout for each in effects]
    assert 110 < np.mean(n_left_out) < 130
    assert 0.92 <= holding(effects, 0.08) <= 0.98
    assert middle_of(effects) == pytest.approx(0.08, abs=0.015)


def test_to_keep_their_decisions_without_what_they_did_would_be_wrong() -> None:
    """So that the test above can fail."""
    effects = simulated(9, 0.08, 0.5, 0.5, 200, restricting=(0.2, 0.6), is_told=False)
    assert middle_of(effects) < 0.055


@pytest.mark.parametrize("seed, holdout_share, n_customers", [(3, 0.5, 200), (4, 0.1, 600)])
def test_a_planted_zero_is_said_to_be_one(seed: int, holdout_share: float, n_customers: int) -> None:
    effects = simulated(seed, 0.0, holdout_share, holdout_share, n_customers)
    assert sum(each.verdict == NO_EFFECT for each in effects) >= 0.92 * N_EXPERIMENTS


def test_a_rare_result_is_not_taken_for_an_effect() -> None:
    """97 of 100 solved and a holdout of 20 to 60 customers: often none of them has the result."""
    effects = simulated(5, 0.0, 0.1, 0.1, 400, base=0.97)
    assert holding(effects, 0.0) >= 0.92


def test_an_effect_that_is_there_is_found() -> None:
    """So that 'no effect shown' is not simply always said."""
    effects = simulated(6, 0.15, 0.5, 0.5, 400)
    assert sum(each.verdict.startswith("+") for each in effects) > 0.9 * N_EXPERIMENTS


def test_a_broken_assignment_is_flagged_and_a_sound_one_is_not() -> None:
    broken = simulated(7, 0.0, 0.1, 0.2, 400)
    assert sum(each.verdict == NOT_BELIEVED for each in broken) > 0.95 * N_EXPERIMENTS
    sound = simulated(8, 0.0, 0.1, 0.1, 400)
    assert sum(each.grade == "broken" for each in sound) <= 2
