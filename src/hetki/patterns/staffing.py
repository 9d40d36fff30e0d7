"""Staffing: how many of a pool's planned staff were there, as it was last reported. Nouns and lookups.

It is the one thing that conditions ask of the company and not of the customer. Reports are put in the total
order of all events, and an event sees the last one before it.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final, Iterable, Mapping

import msgspec

from hetki.events.event import STAFFED, Event, OrderKey
from hetki.events.fields import json_object
from hetki.patterns.evaluate import number


class Report(msgspec.Struct, frozen=True):
    """One report about a pool. `share` is present by planned; `None` where nobody is planned."""

    pool: str
    order_key: OrderKey
    share: float | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """The reports of a stretch of time, by pool and in order. It never changes."""

    pools: Mapping[str, tuple[tuple[OrderKey, ...], tuple[float | None, ...]]] = field(default_factory=dict)

    def share(self, pool: str, before: OrderKey) -> float | None:
        """The share of the planned staff that was there, by the last report before a place in the order."""
        keys, shares = self.pools.get(pool, ((), ()))
        place = bisect_left(keys, before)
        return shares[place - 1] if place else None


#: Where no condition asks for staffing.
NO_STAFFING: Final = Timeline()


def timeline(reports: Iterable[Report]) -> Timeline:
    """Reports in any order as a timeline."""
    by_pool: dict[str, list[Report]] = {}
    for each in sorted(reports, key=_order_key):
        by_pool.setdefault(each.pool, []).append(each)
    return Timeline(
        {
            pool: (tuple(each.order_key for each in mine), tuple(each.share for each in mine))
            for pool, mine in by_pool.items()
        }
    )


def read_report(event: Event) -> Report | None:
    """What an event says of a pool; `None` if it says nothing of any, or nothing that can be read."""
    if event.name != STAFFED:
        return None
    told = json_object(event.properties)
    pool, present, planned = told.get("pool"), number(told.get("n_present")), number(told.get("n_planned"))
    if not isinstance(pool, str) or not pool or present is None or planned is None:
        return None
    return Report(pool, event.order_key, present / planned if planned > 0 else None)


def _order_key(report: Report) -> OrderKey:
    return report.order_key
