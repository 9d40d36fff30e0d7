"""Present: what a folded state says of its customer at one instant, and what bounds have cost it."""

from __future__ import annotations

from hetki.moments.fold import Folded, Program, in_force
from hetki.patterns.around import Around
from hetki.patterns.condition import holds
from hetki.patterns.run import Run
from hetki.patterns.segments import Segment
from hetki.patterns.staffing import NO_STAFFING


def in_segments(program: Program, folded: Folded, at: int) -> list[Segment]:
    """The segments that the customer is in at an instant, as far as their purposes are in force then."""
    bits = in_force(program, folded, at)
    found = []
    for segment in program.segments:
        if bits & program.bits[segment.key]:
            run = folded.runs.get(segment.key, Run())
            known = Around(
                folded.traits, segment.aggregates, run.windows, (at, "", 0, ""), _nothing, NO_STAFFING
            )
            if holds(segment.who, (), known):
                found.append(segment)
    return found


def _nothing() -> frozenset[str]:
    return frozenset()


def dropped(folded: Folded) -> dict[str, tuple[int, int]]:
    """What bounds have pushed out, by moment or segment: tries, and values of aggregates."""
    counts = {
        name: (run.n_dropped, sum(window.n_dropped for window in run.windows))
        for name, run in folded.runs.items()
    }
    return {name: pair for name, pair in sorted(counts.items()) if any(pair)}
