"""The episodes: visits that call for an answer, with both futures written down beforehand.

Each episode tells what leads to its moment, then both potential outcomes on their branches. Which of
the two is sent is settled only when the time comes (`restaurants.Restaurants.until`).
"""

from __future__ import annotations

from typing import Callable

import msgspec

from hetki.settings import SECOND
from hetki.simulation import restaurants_orders as act
from hetki.simulation.restaurants_orders import MINUTE
from hetki.simulation.restaurants_scene import Branch, Scene, System
from hetki.simulation.restaurants_truth import UNTREATED_AFTER_S, Outcomes, draw


class Episode(msgspec.Struct, frozen=True):
    """One time that a moment calls for an answer: whose, when, and both potential outcomes."""

    visit: int
    person: int
    user_id: str
    moment: str
    occurred_at: int
    outcomes: Outcomes


def _branches(y0: bool, y1: bool) -> list[Branch]:
    if y0 and y1:
        return ["always"]
    return ["untreated"] if y0 else ["treated"] if y1 else []


def _contacts(scene: Scene, moment_s: float, y0: bool, y1: bool, topic: str) -> None:
    after_s = moment_s + UNTREATED_AFTER_S + scene.rng.uniform(0, 150) * MINUTE
    for branch in _branches(y0, y1):
        act.contact(scene, after_s, topic, "z", branch)


def _comes_back(scene: Scene, outcomes: Outcomes, day_min: int = 1) -> None:
    """The next order, within seven days of the moment, at about the same hour of the day."""
    after_s = scene.rng.randint(day_min, 5) * 86_400 + scene.rng.uniform(-3600, 3600)
    for branch in _branches(outcomes.business_0, outcomes.business_1):
        act.order_on_time(scene, after_s, "r", branch)


def _late_searched(scene: Scene, outcomes: Outcomes) -> float:
    ordered = act.order(scene)
    n_minutes = scene.rng.randint(25, 70)
    searched_s = act.delayed(scene, ordered, n_minutes) + scene.rng.uniform(1.5, 6) * MINUTE
    words: dict[str, object] = {"query": "where is my order", "n_results": 0, "order_id": ordered.order_id}
    scene.tell(searched_s, "Help Searched", words, device="mobile", path="/help")
    act.deliver(scene, ordered, ordered.promised_s + n_minutes * MINUTE)
    moment_s = searched_s + 10 * MINUTE
    _contacts(scene, moment_s, not outcomes.solved_0, not outcomes.solved_1, "late order")
    _comes_back(scene, outcomes)
    return moment_s


def _late_silent(scene: Scene, outcomes: Outcomes) -> float:
    ordered = act.order(scene)
    act.deliver(scene, ordered, ordered.promised_s + scene.rng.uniform(30, 80) * MINUTE)
    _contacts(scene, ordered.promised_s, not outcomes.solved_0, not outcomes.solved_1, "late order")
    _comes_back(scene, outcomes)
    return ordered.promised_s


def _complaint(scene: Scene, outcomes: Outcomes) -> float:
    ordered = act.order_on_time(scene)
    opened_s = ordered.promised_s + scene.rng.uniform(10, 60) * MINUTE
    facts: dict[str, object] = {"complaint_id": f"p{scene.key}", "order_id": ordered.order_id}
    system: System | None = "desk" if scene.system == "desk" else None
    scene.tell(
        opened_s, "Complaint Opened", facts | {"topic": "cold food"}, system=system, path="/complaints"
    )
    scene.tell(opened_s + scene.rng.uniform(8, 20) * 3600, "Complaint Answered", facts, system="desk")
    moment_s = opened_s + 120 * MINUTE
    _contacts(scene, moment_s, not outcomes.solved_0, not outcomes.solved_1, "complaint")
    _comes_back(scene, outcomes)
    return moment_s


def _unresolved(scene: Scene, outcomes: Outcomes) -> float:
    act.contact(scene, 0.0, "wrong invoice", "a", ends=False)
    moment_s = 120 * MINUTE
    _contacts(scene, moment_s, not outcomes.solved_0, not outcomes.solved_1, "wrong invoice")
    _comes_back(scene, outcomes)
    return moment_s


def _basket(scene: Scene, outcomes: Outcomes) -> float:
    moment_s = act.basket(scene) + 120 * MINUTE
    soon_s = moment_s + UNTREATED_AFTER_S + scene.rng.uniform(0, 20) * 3600
    for branch in _branches(outcomes.solved_0, outcomes.solved_1):
        act.order_on_time(scene, soon_s, "s", branch)
    if not outcomes.solved_0:
        _comes_back(scene, outcomes, day_min=2)
    if scene.rng.random() < 0.03:
        annoyed_s = moment_s + UNTREATED_AFTER_S
        scene.tell(annoyed_s, "Unsubscribed", {"list_name": "news"}, "treated")
        scene.tell(annoyed_s + 1, "Consent Withdrawn", {"purpose": "marketing"}, "treated")
    return moment_s


def _first_app(scene: Scene, outcomes: Outcomes) -> float:
    scene.tell(0.0, "Application Installed", {"version": "4.2"})
    scene.tell(3.0, "Application Opened", {"version": "4.2"})
    ordered = act.order(scene, 90.0)
    act.deliver(scene, ordered, ordered.promised_s - 60)
    for branch in _branches(outcomes.solved_0, outcomes.solved_1):
        after_s = ordered.ordered_s + UNTREATED_AFTER_S + scene.rng.uniform(0, 6) * MINUTE
        act.track(scene, ordered, after_s, branch)
    _comes_back(scene, outcomes)
    return ordered.ordered_s


_EPISODES: dict[str, tuple[str, Callable[[Scene, Outcomes], float]]] = {
    "late_searched": ("where_is_my_order", _late_searched),
    "late_silent": ("promise_broken", _late_silent),
    "complaint": ("complaint_unanswered", _complaint),
    "unresolved": ("contact_unresolved", _unresolved),
    "basket": ("basket_left", _basket),
    "first_app": ("first_app_order", _first_app),
}


def play(kind: str, visit: int, scene: Scene) -> Episode:
    """Tell an episode of this kind, both futures; the outcomes are drawn before anything else."""
    moment, tell = _EPISODES[kind]
    u_solved, u_business = scene.rng.random(), scene.rng.random()
    # An order within a day is an order within seven: the two results of a basket share one draw.
    outcomes = draw(moment, u_solved, u_solved if moment == "basket_left" else u_business)
    moment_s = tell(scene, outcomes)
    person = scene.person
    occurred_at = scene.starts_at + int(moment_s * SECOND)
    return Episode(visit, person.number, person.user_id, moment, occurred_at, outcomes)
