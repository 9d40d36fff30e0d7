"""The planted truth of the simulated restaurants: how an answer changes what a customer does.

Every episode (one customer, one time that a moment calls for an answer) has two potential outcomes for
each measure, without and with an answer, drawn from the seed before anything is decided or sent:

    y0 = 1 if u < p0 else 0        y1 = 1 if u < p1 else 0        u uniform, of the episode alone
    true effect as assigned = E[y1 - y0] = p1 - p0                (in points: times 100)

`p0` and `p1` are the chances of the *measured* result (solved, or business) without and with an answer
that arrives within `IN_TIME_S` of the moment. The draw knows nothing of arms or of delivery, so the
difference of means between the arms is unbiased for it (Rubin 1974, potential outcomes). An answer that
never arrives leaves y0: the estimate then shrinks by the share of answers lost, nothing else changes.
Other orders and contacts of the customer are kept out of the seven days after an episode, so that no
other effect mixes in.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Measure = Literal["solved", "business"]

#: An answer later than this after its moment changes nothing.
IN_TIME_S = 25 * 60
#: What the customer does of his own accord begins this long after the moment: never before `IN_TIME_S`.
UNTREATED_AFTER_S = IN_TIME_S + 60


class PlantedTruth(msgspec.Struct, frozen=True):
    """The true average effect of answering one moment on one measure, in points, as assigned."""

    moment: str
    measure: Measure
    effect_points: float


class Chances(msgspec.Struct, frozen=True):
    """How likely the measured result is, without (`p0`) and with (`p1`) an answer in time."""

    p0: float
    p1: float

    @property
    def effect_points(self) -> float:
        """The true effect in points."""
        return round(100 * (self.p1 - self.p0), 6)


class Reaction(msgspec.Struct, frozen=True):
    """What is planted for one moment, and the answers that have this effect."""

    moment: str
    actions: tuple[str, ...]
    solved: Chances
    business: Chances


#: `solved` and `business` are measured as `examples/restaurants/moments/*.yaml` declare them.
REACTIONS: tuple[Reaction, ...] = (
    Reaction(
        "where_is_my_order", ("tell_new_time", "offer_voucher"), Chances(0.45, 0.65), Chances(0.30, 0.42)
    ),
    Reaction("promise_broken", ("own_the_delay",), Chances(0.50, 0.67), Chances(0.28, 0.42)),
    Reaction("complaint_unanswered", ("name_a_person",), Chances(0.45, 0.66), Chances(0.20, 0.34)),
    Reaction("contact_unresolved", ("book_call_back",), Chances(0.40, 0.60), Chances(0.30, 0.30)),
    Reaction("first_app_order", ("show_tracking", "app_offer"), Chances(0.30, 0.52), Chances(0.30, 0.42)),
    Reaction("basket_left", ("basket_reminder",), Chances(0.18, 0.18), Chances(0.34, 0.34)),
)

REACTION_TO: dict[str, Reaction] = {reaction.moment: reaction for reaction in REACTIONS}


def planted() -> list[PlantedTruth]:
    """Every planted effect, by moment: exact in expectation, whatever the seed."""
    truths: list[PlantedTruth] = []
    for reaction in REACTIONS:
        truths.append(PlantedTruth(reaction.moment, "solved", reaction.solved.effect_points))
        truths.append(PlantedTruth(reaction.moment, "business", reaction.business.effect_points))
    return truths


class Outcomes(msgspec.Struct, frozen=True):
    """Both potential outcomes of one episode."""

    moment: str
    solved_0: bool
    solved_1: bool
    business_0: bool
    business_1: bool


def draw(moment: str, u_solved: float, u_business: float) -> Outcomes:
    """Both potential outcomes of an episode from two uniform draws in [0, 1).

    >>> draw("where_is_my_order", 0.5, 0.9)
    Outcomes(moment='where_is_my_order', solved_0=False, solved_1=True, business_0=False, business_1=False)
    """
    solved, business = REACTION_TO[moment].solved, REACTION_TO[moment].business
    return Outcomes(
        moment, u_solved < solved.p0, u_solved < solved.p1, u_business < business.p0, u_business < business.p1
    )


def realised(episodes: list[Outcomes]) -> list[PlantedTruth]:
    """The mean of y1 - y0 over the very episodes given, in points: the truth of this population."""
    truths: list[PlantedTruth] = []
    for reaction in REACTIONS:
        mine = [each for each in episodes if each.moment == reaction.moment]
        n = max(1, len(mine))
        solved = sum(each.solved_1 - each.solved_0 for each in mine) / n
        business = sum(each.business_1 - each.business_0 for each in mine) / n
        truths.append(PlantedTruth(reaction.moment, "solved", round(100 * solved, 6)))
        truths.append(PlantedTruth(reaction.moment, "business", round(100 * business, 6)))
    return truths
