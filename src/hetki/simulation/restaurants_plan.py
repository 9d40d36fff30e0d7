"""When each simulated customer visits, and what for: habits, Friday evenings, kitchens too busy.

One bulk draw with NumPy. A visit that would blur the planted truth of an episode (another order within
its seven days) is turned into plain browsing here.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from hetki.events.event import utc
from hetki.settings import DAY, SECOND
from hetki.simulation.restaurants_people import N_KITCHENS, Person

HOUR = 3600 * SECOND
TIME_ZONE = "Europe/Helsinki"

#: What a customer may come for. The first six call for an answer: they are the episodes.
EPISODES = ("late_searched", "late_silent", "complaint", "unresolved", "basket", "first_app")
_SHARES = {"order": 0.545, "browse": 0.120, "complaint": 0.062, "unresolved": 0.058, "basket": 0.110}
_SHARES |= {"help": 0.060, "contact": 0.045}
_KINDS = tuple(_SHARES)
#: A customer is left alone this long after the start of an episode: no other order, contact or complaint.
_CLEAR = 8 * DAY
_APART = 5 * HOUR
#: Orders an hour that a kitchen makes on time, as a multiple of its mean load.
_ROOM = 3.2


class Visit(NamedTuple):
    """One visit: its start, its place in the plan (which also seeds its details), who and what for."""

    starts_at: int
    visit: int
    person: int
    kind: str


def plan(seed: int, customers: list[Person], started_at: int, days: int) -> list[Visit]:
    """Every visit of `days` days from `started_at` on, in order of its start."""
    rng = np.random.Generator(np.random.PCG64([seed, 2]))
    zone = ZoneInfo(TIME_ZONE)
    offset = utc(started_at).astimezone(zone).utcoffset() or timedelta()
    midnight = started_at - (started_at % DAY) - int(offset.total_seconds()) * SECOND
    rates = np.array([each.n_visits for each in customers]) * days / 30
    who = np.repeat(np.arange(len(customers)), rng.poisson(rates))
    kinds = rng.choice(len(_KINDS), who.size, p=list(_SHARES.values()))
    day, seconds = _when(rng, customers, who, kinds, int(started_at // DAY), days)
    at = midnight + day * DAY + (seconds * SECOND).astype(np.int64)
    late = _late(rng, customers, who, kinds == _KINDS.index("order"), at)
    manner = rng.choice(
        np.array(["late_searched", "late_silent", "late_told"]), who.size, p=[0.44, 0.40, 0.16]
    )
    names = np.where(late, manner, np.array(_KINDS)[kinds]).tolist()
    visits = list(zip(at.tolist(), who.tolist(), names, strict=True))
    for each in customers:
        if each.installs:
            evening = midnight + int(rng.integers(0, days)) * DAY + int(rng.normal(16.5, 1.8) * 3600) * SECOND
            visits.append((evening, each.number, "first_app"))
    ends_at = started_at + days * DAY
    kept = _apart(customers, [each for each in sorted(visits) if started_at <= each[0] < ends_at])
    return [Visit(at_, number, person, kind) for number, (at_, person, kind) in enumerate(kept)]


def _when(
    rng: np.random.Generator,
    customers: list[Person],
    who: NDArray[np.int64],
    kinds: NDArray[np.int64],
    epoch_day: int,
    days: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The day (0 ..) and the local second of the day of each visit: the habit, or any other time."""
    first_weekday = (epoch_day + 3) % 7
    favourite = np.array([each.weekday for each in customers])[who]
    habitual = rng.random(who.size) < 0.6
    on_habit = (favourite - first_weekday) % 7 + 7 * rng.integers(0, max(1, days // 7 + 1), who.size)
    on_habit = np.where(on_habit >= days, on_habit % max(1, days), on_habit)
    day = np.where(habitual, on_habit, rng.integers(0, days, who.size))
    hour = np.array([each.hour for each in customers])[who] + rng.normal(0, 0.8, who.size)
    hour = np.where(habitual, hour, np.clip(rng.normal(16.0, 3.4, who.size), 9.0, 22.5))
    # The contact centre is open in daytime, and most baskets are left at work, not at the dinner table.
    by_day = np.isin(kinds, [_KINDS.index("unresolved"), _KINDS.index("contact")])
    by_day |= (kinds == _KINDS.index("basket")) & (rng.random(who.size) < 0.8)
    hour = np.where(by_day, rng.uniform(9.0, 17.0, who.size), hour)
    return day, hour * 3600


def _late(
    rng: np.random.Generator,
    customers: list[Person],
    who: NDArray[np.int64],
    ordered: NDArray[np.bool_],
    at: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Which orders come late: the fuller the kitchen in that hour, the likelier."""
    kitchen = np.array([each.kitchen for each in customers])[who]
    cell = ((at - at.min(initial=0)) // HOUR if at.size else at) * N_KITCHENS + kitchen
    _, place, counts = np.unique(cell[ordered], return_inverse=True, return_counts=True)
    load = np.zeros(who.size)
    if counts.size:
        load[ordered] = counts[place] / (_ROOM * counts.mean())
    chance = np.clip(0.14 + 0.50 * load, 0.0, 0.75)
    return ordered & (rng.random(who.size) < chance)


def _apart(customers: list[Person], visits: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Keep visits of one customer apart, and the days after an episode clear of other orders."""
    clear_until: dict[int, int] = {}
    last: dict[int, int] = {}
    kept: list[tuple[int, int, str]] = []
    for at, number, kind in visits:
        person = customers[number]
        if at - last.get(number, -_APART) < _APART:
            continue
        last[number] = at
        if at < clear_until.get(number, 0) or (kind in EPISODES and (person.shares or not person.user_id)):
            kind = "browse"
        elif kind in EPISODES:
            clear_until[number] = at + _CLEAR
        kept.append((at, number, kind))
    return kept
