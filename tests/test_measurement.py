"""The formulas of an effect: published numbers, edges that must not look sure, and symmetries."""

from __future__ import annotations

import csv
from math import sqrt
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetki.declarations.read import read
from hetki.events.catalogue import SHIPPED
from hetki.events.event import Event
from hetki.measurement.effect import (
    NO_EFFECT,
    NOT_BELIEVED,
    NOT_ENOUGH,
    Arm,
    Sums,
    aggregates,
    difference,
    estimate,
    mean_difference,
    sample_ratio,
)
from hetki.measurement.outcome import Hit, Measured, hits, measured, rules, settlers
from hetki.moments.moment import MomentSpec, compile_moment
from hetki.patterns.choices import Choice, EventWithin, parse_outcome

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

MOMENT = """
moment: late
title: A late order
owner: delivery_team
initiative: keep_our_word
purpose: service
identify:
  need: When will it come?
  steps: [{late: Delivery Delayed}]
  expires: 20 minutes
design: {answers: [tell_new_time]}
analyse:
  solved: no Contact Started within 24 hours
  business: Order Completed within 60 days
  guardrails: [Unsubscribed, Complaint Opened]
"""

#: A customer: decisions, and those of them with the result.
Customers = list[tuple[int, int]]


def sums(customers: Customers) -> Sums:
    return Sums(
        n_customers=len(customers),
        n_decisions=sum(n for n, _ in customers),
        n_good=sum(g for _, g in customers),
        nn=sum(n * n for n, _ in customers),
        ng=sum(n * g for n, g in customers),
        gg=sum(g * g for _, g in customers),
        n_with_good=sum(g > 0 for _, g in customers),
        n_with_bad=sum(g < n for n, g in customers),
    )


def ratio_p(*arms: tuple[Arm, float, int]) -> float:
    found = sample_ratio({(arm, share): sums([(1, 0)] * n) for arm, share, n in arms})
    assert found is not None
    return found


def test_an_experiment_that_others_published() -> None:
    """LaLonde's job training, as in Dehejia & Wahba (1999): 1,794 dollars, robust standard error 671."""
    path = SHARED / "decisions" / "nsw_dw.csv"
    if not path.exists():
        pytest.skip("nsw_dw.csv is not beside the repository")
    with path.open() as file:
        rows = [(row["treat"], round(float(row["re78"]) * 1000)) for row in csv.DictReader(file)]
    treated, control = ([(1, earned) for arm, earned in rows if arm == each] for each in ("1", "0"))
    assert (len(treated), len(control)) == (185, 260)
    found = mean_difference(aggregates(sums(treated), 0), aggregates(sums(control), 0))
    assert found.effect / 1000 == pytest.approx(1794.34, abs=0.01)
    # Welch's t with 307 degrees of freedom: 1.9677 standard errors to each side.
    assert (found.high - found.low) / 2 / 1.9677 / 1000 == pytest.approx(671.0, abs=0.5)
    assert found.p_value == pytest.approx(0.0079, abs=0.0001)


def test_the_delta_method_equals_its_residuals_worked_out_one_by_one() -> None:
    answered = [(1, 1), (2, 1), (5, 4), (3, 0), (1, 0), (4, 4), (2, 2), (1, 1), (3, 2), (2, 0)]
    holdout = [(1, 0), (3, 1), (2, 2), (5, 1), (1, 1), (2, 0), (4, 1), (1, 0), (2, 1), (1, 1), (3, 1)]

    def share_and_variance(customers: Customers) -> tuple[float, float]:
        count, n, g = len(customers), sum(n for n, _ in customers), sum(g for _, g in customers)
        residuals = [each_g - g / n * each_n for each_n, each_g in customers]
        return g / n, sum(each**2 for each in residuals) / (count - 1) / (n / count) ** 2 / count

    (share_a, var_a), (share_b, var_b) = share_and_variance(answered), share_and_variance(holdout)
    freedom = (var_a + var_b) ** 2 / (var_a**2 / 9 + var_b**2 / 10)
    assert 15 < freedom < 16
    found = difference(sums(answered), sums(holdout))
    assert found is not None
    assert found.effect == pytest.approx(share_a - share_b)
    # Student's t at 0.975 is 2.1314 with 15 and 2.1199 with 16 degrees of freedom.
    half = (found.high - found.low) / 2 / sqrt(var_a + var_b)
    assert 2.1199 < half < 2.1314


def test_rare_results_get_one_success_and_one_failure_more_in_each_arm() -> None:
    """Agresti & Caffo (2000): centre 1/102 - 3/102, where the plain interval of 0 of 100 is too sure."""
    none, two = sums([(1, 0)] * 100), sums([(1, 1)] * 2 + [(1, 0)] * 98)
    found = difference(none, two)
    assert found is not None and found.effect == pytest.approx(-0.02)
    assert (found.low + found.high) / 2 == pytest.approx(1 / 102 - 3 / 102)
    p, q = 1 / 102, 3 / 102
    error = sqrt(p * (1 - p) / 101 + q * (1 - q) / 101)
    assert (found.high - found.low) / 2 / error == pytest.approx(1.974, abs=0.005)  # t, about 160 degrees


@pytest.mark.parametrize(
    "answered, holdout",
    [
        ([(1, 1)] * 40, [(1, 1)] * 40),
        ([(1, 0)] * 40, [(1, 0)] * 40),
        ([(3, 3)] * 40, [(2, 1)] * 40),
        ([(2, 1)] * 400, [(2, 1)] * 400),
        ([(50, 50)], [(50, 0)]),
    ],
    ids=["all", "none", "all against halves", "halves without spread", "one customer each"],
)
def test_no_interval_has_no_width(answered: Customers, holdout: Customers) -> None:
    found = difference(sums(answered), sums(holdout))
    assert found is not None
    assert found.high - found.low > 0.5 / len(answered)
    assert -1 <= found.low <= found.effect <= found.high <= 1


def test_an_empty_arm_has_no_figure_and_says_so() -> None:
    effect = estimate("i", "m", "solved", {("answered", 0.0): sums([(1, 1)] * 40)})
    assert (effect.effect, effect.low, effect.high, effect.p_value) == (None, None, None, None)
    assert (effect.share_holdout, effect.grade, effect.verdict) == (None, "none", NOT_ENOUGH)
    nobody = estimate("i", "m", "solved", {})
    assert (nobody.n_answered, nobody.ratio_p_value, nobody.verdict) == (0, None, NOT_ENOUGH)


def test_grades_and_words() -> None:
    good, bad = [(1, 1)] * 300 + [(1, 0)] * 100, [(1, 1)] * 200 + [(1, 0)] * 200
    better = estimate("i", "m", "solved", {("answered", 0.5): sums(good), ("holdout", 0.5): sums(bad)})
    assert (better.grade, better.verdict) == ("randomised", "+25.0 points (95 % from +18.5 to +31.5)")
    same = estimate("i", "m", "solved", {("answered", 0.5): sums(bad), ("holdout", 0.5): sums(bad)})
    assert (same.effect, same.verdict) == (0, NO_EFFECT)
    few = estimate(
        "i", "m", "solved", {("answered", 0.5): sums(good[290:320]), ("holdout", 0.5): sums(bad[190:210])}
    )
    assert few.grade == "randomised, small" and few.low is not None
    broken = estimate("i", "m", "solved", {("answered", 0.1): sums(good), ("holdout", 0.1): sums(bad)})
    assert (broken.grade, broken.verdict) == ("broken", NOT_BELIEVED)


def test_the_sample_ratio_is_judged_per_declared_share() -> None:
    assert ratio_p(("answered", 0.1, 900), ("holdout", 0.1, 100)) > 0.9
    assert ratio_p(("answered", 0.1, 800), ("holdout", 0.1, 200)) < 1e-9
    # 10 % was changed to 50 %: 280 of 1,400 is no mismatch, although it is neither 10 % nor 50 %.
    changed = [("answered", 0.1, 900), ("holdout", 0.1, 100), ("answered", 0.5, 200), ("holdout", 0.5, 200)]
    assert ratio_p(*changed) > 0.9  # type: ignore[arg-type]
    # Two mismatches whose total looks right do not hide each other.
    hidden = [
        ("answered", 0.5, 300),
        ("holdout", 0.5, 100),
        ("answered", 0.5001, 100),
        ("holdout", 0.5001, 300),
    ]
    assert ratio_p(*hidden) < 1e-9  # type: ignore[arg-type]
    # Exact for few: 9 of 30 at 10 % has p = 0.002; the normal approximation would say 0.0008 and cry wolf.
    assert ratio_p(("answered", 0.1, 21), ("holdout", 0.1, 9)) == pytest.approx(0.0020, abs=0.0002)
    assert ratio_p(("answered", 0.0, 50)) == 1 and ratio_p(("answered", 0.0, 50), ("holdout", 0.0, 1)) == 0


CUSTOMERS = st.lists(
    st.integers(1, 5).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=1, max_size=60
)


@settings(max_examples=60, deadline=None)
@given(CUSTOMERS, CUSTOMERS)
def test_relabelling_the_arms_flips_the_sign(left: Customers, right: Customers) -> None:
    there, back = difference(sums(left), sums(right)), difference(sums(right), sums(left))
    assert there is not None and back is not None
    assert (there.effect, there.p_value) == pytest.approx((-back.effect, back.p_value))
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert there.low < there.high


@settings(max_examples=60, deadline=None)
@given(CUSTOMERS, CUSTOMERS)
def test_sums_add_up_over_any_split_of_the_customers(left: Customers, right: Customers) -> None:
    assert sums(left) + sums(right) == sums(left + right) == sums(right) + sums(left)


def event(name: str, occurred_at: int = 5, properties: bytes = b"{}") -> Event:
    return Event("web", f"{name}{occurred_at}", "web", name, occurred_at, occurred_at, {}, properties)


def test_an_event_settles_the_outcomes_that_name_it_and_that_it_fits() -> None:
    big, faults = parse_outcome("Order Completed where total > 20 within 1 day", SHIPPED, str)
    assert big is not None and not faults
    contact = (Choice("Contact Started"), Choice("Complaint Opened"))
    moment = Measured(
        "late",
        "keep_our_word",
        {
            "solved": EventWithin(True, contact, 3600),
            "business": big,
            "Complaint Opened": EventWithin(False, contact[1:], 3600),
        },
    )
    twin = Measured("wrong", "keep_our_word", {"Complaint Opened": moment.outcomes["Complaint Opened"]})
    assert [(r.moment, r.measure, r.settler, r.within_us, r.negated) for r in rules([moment, twin])] == [
        ("late", "solved", 0, 3_600_000_000, True),
        ("late", "business", 1, 86_400_000_000, False),
        ("late", "Complaint Opened", 2, 3_600_000_000, False),
        ("wrong", "Complaint Opened", 2, 3_600_000_000, False),
    ]
    waiting = settlers([moment, twin])
    assert hits(waiting, "c", event("Complaint Opened")) == [Hit(0, "c", 5), Hit(2, "c", 5)]
    assert hits(waiting, "c", event("Order Completed")) == []
    assert hits(waiting, "c", event("Order Completed", properties=b'{"total":21}')) == [Hit(1, "c", 5)]
    assert hits(waiting, "c", event("Page Viewed")) == []


def test_a_declared_moment_is_judged_by_its_results_and_then_its_guardrails() -> None:
    declared = read(MOMENT, "moments/late.yaml", MomentSpec)
    moment, faults = compile_moment(declared, SHIPPED)
    assert moment is not None and not faults
    found = measured(moment)
    assert (found.moment, found.initiative) == ("late", "keep_our_word")
    assert list(found.outcomes) == ["solved", "business", "Unsubscribed", "Complaint Opened"]
    assert found.outcomes["solved"] == EventWithin(True, (Choice("Contact Started"),), 86_400)
    assert found.outcomes["Unsubscribed"] == EventWithin(False, (Choice("Unsubscribed"),), 86_400)
