"""Comparing: two versions of a project over the same lake, moment by moment.

An occurrence is known by its id, so by its moment and its first event: one that both versions have is the
same, or it has moved if it comes at another instant or rests on other events. `render` tells it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import duckdb
import msgspec

from hetki.engine.backtest import Span, backtest, week_of
from hetki.engine.folding import Caught
from hetki.errors import Fault, NotFound, nearest, shown
from hetki.events.event import EventId, utc
from hetki.moments.fold import Program
from hetki.moments.moment import Occurrence

Kind = Literal["both", "new", "gone", "moved"]
KINDS: tuple[Kind, ...] = ("both", "new", "gone", "moved")


class Pair(msgspec.Struct, frozen=True):
    """One occurrence in the other version (`before`) and in this one (`after`)."""

    kind: Kind
    before: Caught | None
    after: Caught | None

    @property
    def caught(self) -> Caught:
        """As this version has it, else as the other."""
        found = self.after or self.before
        assert found is not None, "a pair has at least one of its sides"
        return found


class Compared(msgspec.Struct, frozen=True):
    """One moment in two versions. `is_here`, `is_there`: whether this one and the other declare it."""

    moment: str
    is_here: bool
    is_there: bool
    pairs: list[Pair]

    @property
    def counts(self) -> Counter[Kind]:
        """How many occurrences of each kind."""
        return Counter(each.kind for each in self.pairs)


def compare(
    lake: duckdb.DuckDBPyConnection,
    program: Program,
    other: Program,
    advance_to: int,
    moments: Sequence[str] = (),
    span: Span | None = None,
    progress: Callable[[int], None] = lambda n_customers: None,
) -> list[Compared]:
    """What one program catches over a lake and the other does not, by moment in order of name.

    Raises `NotFound` for a moment that neither has.
    """
    names = [{moment.name for moment in each.moments} for each in (program, other)]
    for name in moments:
        if name not in names[0] | names[1]:
            hint = nearest(name, names[0] | names[1])
            raise NotFound(Fault("moment", shown(name), "a moment of one of the two projects", hint))
    chosen = set(moments) or names[0] | names[1]
    here, there = (
        backtest(lake, each, advance_to, sorted(chosen & has), span, progress) if chosen & has else {}
        for each, has in zip((program, other), names, strict=True)
    )
    return [
        Compared(name, name in here, name in there, _pairs(there.get(name, []), here.get(name, [])))
        for name in sorted(chosen)
    ]


def _pairs(before: Sequence[Caught], after: Sequence[Caught]) -> list[Pair]:
    """The occurrences of two versions side by side, in order of time."""
    old = {each.occurrence.occurrence_id: each for each in before}
    new = {each.occurrence.occurrence_id: each for each in after}
    pairs = [Pair("gone", each, None) for key, each in old.items() if key not in new]
    for key, each in new.items():
        was = old.get(key)
        if was is None:
            pairs.append(Pair("new", None, each))
        else:
            same = _seen(was.occurrence) == _seen(each.occurrence)
            pairs.append(Pair("both" if same else "moved", was, each))
    pairs.sort(key=lambda each: (each.caught.occurrence.occurred_at, each.caught.occurrence.occurrence_id))
    return pairs


def _seen(occurrence: Occurrence) -> tuple[int, list[EventId]]:
    """What makes an occurrence the same: its instant and its events, whatever the steps are called."""
    return occurrence.occurred_at, [each.event_id for each in occurrence.events]


def render(compared: Sequence[Compared], n_shown: int = 5) -> str:
    """How many occurrences both versions have, which are new, gone and moved, and when."""
    parts: list[str] = []
    for each in compared:
        counts = each.counts
        alone = "" if each.is_there else ", only in this version"
        alone = alone if each.is_here else ", only in the other version"
        told = ", ".join(f"{counts[kind]:,} {'in both' if kind == 'both' else kind}" for kind in KINDS)
        lines = [f"{each.moment}{alone}: {told}"]
        if counts.total() > counts["both"]:
            lines += _weeks(each.pairs)
        for kind in KINDS[1:]:
            mine = [pair for pair in each.pairs if pair.kind == kind]
            lines += [f"  {kind:<5} {_told(pair)}" for pair in mine[::-1][:n_shown]]
            if n_shown and len(mine) > n_shown:
                lines.append(f"  and {len(mine) - n_shown:,} more {kind}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) if parts else "no moment is declared"


def _told(pair: Pair) -> str:
    text = f"for {pair.caught.customer.hex()}"
    if pair.before and pair.after:
        was, now = pair.before.occurrence, pair.after.occurrence
        if was.occurred_at == now.occurred_at:
            return f"{text} at {_at(now)}, by other events"
        return f"{text} from {_at(was)} to {_at(now)}"
    return f"{text} at {_at(pair.caught.occurrence)}"


def _at(occurrence: Occurrence) -> str:
    return f"{utc(occurrence.occurred_at):%Y-%m-%d %H:%M}"


def _weeks(pairs: Sequence[Pair]) -> list[str]:
    """How many of each kind, week by week (from Monday, UTC); weeks in which nothing differs are left out."""
    weeks: dict[str, Counter[Kind]] = {}
    for each in pairs:
        weeks.setdefault(f"{week_of(each.caught)}", Counter())[each.kind] += 1
    return [
        f"  week of {week}  " + "  ".join(f"{counts[kind]:>7,} {kind}" for kind in KINDS)
        for week, counts in weeks.items()
        if counts.total() > counts["both"]
    ]
