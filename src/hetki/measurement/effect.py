"""Effect: what answering did against the holdout, with its interval, its n and its grade of evidence (law 7).

Arms are compared *as assigned*, whatever was delivered, and customers, not decisions, are the independent
units. Start at `estimate`; all it needs are the whole-number sums of one SQL query (`Sums`), so the order of
rows and the way they are split over files cannot matter.

Two formulas, both through tea-tasting's `RatioOfMeans` (Welch's t, unequal variances):

* the delta method for a ratio of per-customer sums: Deng, Knoblich & Lu (2018), "Applying the Delta Method
  in Metric Analytics", KDD, section 3;
* where a result is so rare, or so common, that the delta method's variance is unreliable or zero: the same
  after adding two customers to each arm, one with the result in all and one in none of an average customer's
  decisions. This is Agresti & Caffo (2000), The American Statistician 54(4), "one success and one failure to
  each sample", carried over from persons to clusters. It is wide rather than falsely sure.

The sample-ratio check: Fabijan et al. (2019), "Diagnosing Sample Ratio Mismatch in Online Controlled
Experiments", KDD. A mismatch at p < 0.001 says that the assignment, or the data about it, is broken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
from tea_tasting.aggr import Aggregates
from tea_tasting.metrics import RatioOfMeans, SampleRatio

Arm = Literal["answered", "holdout"]

#: How far a figure can be trusted.
#: `randomised`: drawn by chance, the arms have the declared sizes, enough customers in both.
#: `randomised, small`: as above, with fewer than `CUSTOMERS_MIN` customers in an arm: the interval is rough.
#: `broken`: the arms do not have the declared sizes: nothing about this effect is to be believed.
#: `none`: an arm is empty: there is nothing to compare.
Grade = Literal["randomised", "randomised, small", "broken", "none"]

CUSTOMERS_MIN = 30
#: With fewer customers than this on either side of a result, in either arm, two customers are added to each.
RARE_MAX = 5
RATIO_P_MIN = 0.001

NO_EFFECT = "no effect shown"
NOT_ENOUGH = "not enough data"
NOT_BELIEVED = "not to be believed: the arms do not have the declared sizes"


class Sums(msgspec.Struct, frozen=True):
    """One arm, as sums over its customers; n and g are a customer's decisions and those with the result.

    Of moments about accounts, an account stands for a customer here and in all that follows.
    `nn`, `ng`, `gg` are the sums of n*n, n*g, g*g. Whole numbers, so that adding them is exact.
    """

    n_customers: int
    n_decisions: int
    n_good: int
    nn: int
    ng: int
    gg: int
    n_with_good: int
    n_with_bad: int
    n_delivered: int = 0
    n_crossed: int = 0

    def __add__(self, other: Sums) -> Sums:
        """The two groups of customers as one (they share no customer)."""
        return Sums(*(mine + theirs for mine, theirs in zip(_row(self), _row(other), strict=True)))

    @property
    def share(self) -> float | None:
        """The share of decisions with the result; None when there are no decisions."""
        return self.n_good / self.n_decisions if self.n_decisions else None


EMPTY = Sums(0, 0, 0, 0, 0, 0, 0, 0)

#: The sums of one comparison per arm and declared holdout share (a share may be changed while running).
ByShare = Mapping[tuple[Arm, float], Sums]
NOBODY: Mapping[Arm, int] = {}


class Difference(msgspec.Struct, frozen=True):
    """Answered minus holdout, with its 95 % interval and two-sided p-value."""

    effect: float
    low: float
    high: float
    p_value: float


class Effect(msgspec.Struct, frozen=True):
    """One row of the report: a measure of a moment, or of a whole initiative (`moment` is empty).

    `effect`, `low`, `high` are differences of shares (0.08 is 8 points), answered minus holdout, with a 95 %
    interval; None where they cannot be had. `n_answered`, `n_holdout` count decisions. `ratio_p_value` is the
    sample-ratio check. `n_crossed` customers were drawn into both arms before a merge and count under the
    first. `n_left_out_*` customers are in none of these figures, as their processing is restricted, or was
    while a result was waited for: if they are more in one arm, the answer may be why. `n_delivered_*`
    decisions had a message sent: what separates being assigned from being answered.
    """

    initiative: str
    moment: str
    measure: str
    n_answered: int
    n_holdout: int
    n_customers_answered: int
    n_customers_holdout: int
    n_delivered_answered: int
    n_delivered_holdout: int
    n_crossed: int
    n_left_out_answered: int
    n_left_out_holdout: int
    share_answered: float | None
    share_holdout: float | None
    effect: float | None
    low: float | None
    high: float | None
    p_value: float | None
    ratio_p_value: float | None
    grade: Grade
    verdict: str


def estimate(
    initiative: str, moment: str, measure: str, by_share: ByShare, left_out: Mapping[Arm, int] = NOBODY
) -> Effect:
    """The effect of one comparison, from the sums of its arms; `left_out` customers are in none of them."""
    answered, holdout = arm_sums(by_share, "answered"), arm_sums(by_share, "holdout")
    ratio_p_value = sample_ratio(by_share)
    found = difference(answered, holdout)
    grade = _grade(answered, holdout, ratio_p_value)
    return Effect(
        initiative,
        moment,
        measure,
        n_answered=answered.n_decisions,
        n_holdout=holdout.n_decisions,
        n_customers_answered=answered.n_customers,
        n_customers_holdout=holdout.n_customers,
        n_delivered_answered=answered.n_delivered,
        n_delivered_holdout=holdout.n_delivered,
        n_crossed=answered.n_crossed + holdout.n_crossed,
        n_left_out_answered=left_out.get("answered", 0),
        n_left_out_holdout=left_out.get("holdout", 0),
        share_answered=answered.share,
        share_holdout=holdout.share,
        effect=found.effect if found else None,
        low=found.low if found else None,
        high=found.high if found else None,
        p_value=found.p_value if found else None,
        ratio_p_value=ratio_p_value,
        grade=grade,
        verdict=_verdict(found, grade),
    )


def arm_sums(by_share: ByShare, arm: Arm) -> Sums:
    """One arm over all declared shares."""
    total = EMPTY
    for (each, _), sums in by_share.items():
        total = total + sums if each == arm else total
    return total


def difference(answered: Sums, holdout: Sums) -> Difference | None:
    """Answered minus holdout in shares of decisions, clustered by customer; None when an arm is empty.

    The interval stays within -1..1. Resting on added customers, it is centred nearer to zero than `effect`.
    """
    if answered.share is None or holdout.share is None:
        return None
    n_added = 2 if _is_degenerate(answered) or _is_degenerate(holdout) else 0
    found = mean_difference(aggregates(answered, n_added), aggregates(holdout, n_added))
    return Difference(
        answered.share - holdout.share, max(found.low, -1.0), min(found.high, 1.0), found.p_value
    )


def mean_difference(answered: Aggregates, holdout: Aggregates) -> Difference:
    """The delta method for g over n: sum of results over sum of decisions, per customer."""
    metric = RatioOfMeans(
        "g", "n", confidence_level=0.95, alternative="two-sided", equal_var=False, use_t=True
    )
    found = metric.analyze_aggregates(control=holdout, treatment=answered)
    return Difference(
        float(found.effect_size),
        float(found.effect_size_ci_lower),
        float(found.effect_size_ci_upper),
        float(found.pvalue),
    )


def sample_ratio(by_share: ByShare) -> float | None:
    """The p-value of the customers' arms against their declared holdout shares; None without customers.

    Each declared share is checked on its own (exact below 1,000 customers), and the smallest p-value is
    multiplied by the number of shares (Bonferroni): a share that was changed in between is no mismatch, and
    two mismatches cannot hide each other.
    """
    p_values = [_one_ratio(by_share, share) for share in sorted({share for _, share in by_share})]
    return min(1.0, min(p_values) * len(p_values)) if p_values else None


def _one_ratio(by_share: ByShare, share: float) -> float:
    """The check for the customers assigned under one declared share; at 0 and 1 chance plays no part."""
    n_answered = by_share.get(("answered", share), EMPTY).n_customers
    n_holdout = by_share.get(("holdout", share), EMPTY).n_customers
    if share <= 0 or share >= 1:
        return 0.0 if (n_holdout if share <= 0 else n_answered) else 1.0
    arms: dict[object, Aggregates] = {"answered": Aggregates(n_answered), "holdout": Aggregates(n_holdout)}
    ratio = SampleRatio(ratio={"answered": 1 - share, "holdout": share})
    return float(ratio.analyze(arms, control="holdout", treatment="answered").pvalue)


def _is_degenerate(sums: Sums) -> bool:
    """Whether the delta method's variance of this arm is zero, or rests on too few customers."""
    share, of = sums.n_good, sums.n_decisions
    spread = of * of * sums.gg - 2 * of * share * sums.ng + share * share * sums.nn
    return spread == 0 or min(sums.n_with_good, sums.n_with_bad) < RARE_MAX


def aggregates(sums: Sums, n_added: int) -> Aggregates:
    """Means, variances and covariance per customer, with `n_added` average ones, half with the result."""
    average = sums.n_decisions / sums.n_customers
    half = n_added / 2
    count = sums.n_customers + n_added
    n, g = sums.n_decisions + n_added * average, sums.n_good + half * average
    nn = sums.nn + n_added * average**2
    ng, gg = sums.ng + half * average**2, sums.gg + half * average**2
    scale = count * (count - 1)
    return Aggregates(
        count,
        mean_={"n": n / count, "g": g / count},
        var_={"n": (count * nn - n * n) / scale, "g": (count * gg - g * g) / scale},
        cov_={("g", "n"): (count * ng - n * g) / scale},
    )


def _grade(answered: Sums, holdout: Sums, ratio_p_value: float | None) -> Grade:
    if ratio_p_value is not None and ratio_p_value < RATIO_P_MIN:
        return "broken"
    n_least = min(answered.n_customers, holdout.n_customers)
    if n_least == 0:
        return "none"
    return "randomised, small" if n_least < CUSTOMERS_MIN else "randomised"


def _verdict(found: Difference | None, grade: Grade) -> str:
    if grade == "broken":
        return NOT_BELIEVED
    if found is None:
        return NOT_ENOUGH
    if found.low <= 0 <= found.high:
        return NO_EFFECT
    return f"{_points(found.effect)} points (95 % from {_points(found.low)} to {_points(found.high)})"


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _row(sums: Sums) -> tuple[int, ...]:
    return msgspec.structs.astuple(sums)
