"""Segments: who is in one now. Reads every customer's folded state; writes nothing."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from hetki.errors import Fault, NotFound, nearest, shown
from hetki.events.event import LeafId
from hetki.moments.fold import Program, decode
from hetki.moments.present import in_segments
from hetki.store.state import State

CUSTOMERS_AT_ONCE = 500


class Count(msgspec.Struct, frozen=True):
    """A segment at an instant: how many customers are in it, of how many, and the first of them by id."""

    segment: str
    title: str
    n_customers: int
    n_of: int
    customers: list[LeafId]


def count_segments(
    state: State,
    program: Program,
    now: int,
    name: str = "",
    n_max: int = 0,
    progress: Callable[[int], None] = lambda n_customers: None,
) -> list[Count]:
    """Every declared segment (or the named one) as it is now, with up to `n_max` of its customers.

    Windows end now, so a segment shrinks as time passes although nothing happens. Raises `NotFound`.
    """
    titles = {each.name: each.title for each in program.segments}
    if name and name not in titles:
        raise NotFound(Fault("segment", shown(name), "a declared segment", nearest(name, titles)))
    counts = dict.fromkeys([name] if name else titles, 0)
    first: dict[str, list[LeafId]] = {each: [] for each in counts}
    n_of, last = 0, b""
    while counts and (customers := state.customers_after(last, CUSTOMERS_AT_ONCE)):
        for customer, row in sorted(state.load_customers(customers).items()):
            for segment in in_segments(program, decode(row.state), now):
                if segment.name in counts:
                    counts[segment.name] += 1
                    first[segment.name] += [customer] if len(first[segment.name]) < n_max else []
        n_of, last = n_of + len(customers), customers[-1]
        progress(n_of)
    return [Count(each, titles[each], n, n_of, first[each]) for each, n in counts.items()]
