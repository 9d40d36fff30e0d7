"""Backtest: moments over the lake, by the fold that runs live.

DuckDB picks the events that the program concerns and puts them in order, customer by customer; each
customer is then folded from the beginning, exactly as repaired history is. `render` tells what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import date, timedelta

import duckdb
import msgspec

from hetki.engine.folding import Caught
from hetki.engine.history import names_of, of_accounts, one_by_one, only
from hetki.engine.parts import count
from hetki.engine.sweep import EVENTS_MIN, sweep, swept
from hetki.events.event import LeafId, utc
from hetki.moments.fold import Program
from hetki.moments.moment import Occurrence
from hetki.settings import SECOND


class Span(msgspec.Struct, frozen=True):
    """Occurrences from `since` on and before `until` are told (instants). History before `since` counts."""

    since: int
    until: int


def backtest(
    lake: duckdb.DuckDBPyConnection,
    program: Program,
    advance_to: int,
    moments: Sequence[str] = (),
    span: Span | None = None,
    progress: Callable[[int], None] = lambda n_customers: None,
) -> dict[str, list[Caught]]:
    """What each moment would have caught, by name and in order of (occurred_at, id); none named: all.

    `advance_to` is the engine's time: with that of the state (`State.progress`), the result equals what is
    live. `progress` is told the number of customers from time to time. Raises `NotFound` for a moment
    that the program does not have.
    """
    program = msgspec.structs.replace(only(program, moments), segments=(), watching={})
    if span is not None:
        advance_to = min(advance_to, span.until + program.lateness_s * SECOND)
    found: dict[str, list[Caught]] = {moment.name: [] for moment in program.every_moment}
    for customer, caught_of in histories(lake, program, advance_to, progress):
        for each in caught_of:
            if span is None or span.since <= each.occurred_at < span.until:
                found[each.moment].append(Caught(LeafId(bytes.fromhex(customer)), each))
    for caught in found.values():
        caught.sort(key=lambda each: (each.occurrence.occurred_at, each.occurrence.occurrence_id))
    return found


def histories(
    lake: duckdb.DuckDBPyConnection,
    program: Program,
    advance_to: int,
    progress: Callable[[int], None] = lambda n_customers: None,
    events_min: int = EVENTS_MIN,
) -> Iterator[tuple[str, list[Occurrence]]]:
    """Customers and accounts with occurrences of theirs, in no order: by the fast form of the matcher where
    there are many events and it takes a moment of them, else one by one. What comes out is the same."""
    if program.moments:
        yield from _of_customers(lake, program, advance_to, progress, events_min)
    if program.accounts is not None and program.accounts.moments:
        yield from of_accounts(lake, program, advance_to)


def _of_customers(
    lake: duckdb.DuckDBPyConnection,
    program: Program,
    advance_to: int,
    progress: Callable[[int], None],
    events_min: int,
) -> Iterator[tuple[str, list[Occurrence]]]:
    runs = swept(program) if count(lake, names_of(program), advance_to) >= events_min else None
    if runs is None:
        return one_by_one(lake, program, advance_to, progress)
    rest = only(program, runs.left) if runs.left else program
    return sweep(lake, program, runs, rest, advance_to, progress)


def render(
    found: Mapping[str, Sequence[Caught]], n_customers_shown: int = 5, about_accounts: Collection[str] = ()
) -> str:
    """How often each moment would have fired, when, week by week (from Monday, UTC), and for whom: for
    customers, and for accounts if it is one `about_accounts`."""
    parts: list[str] = []
    for name, caught in found.items():
        if not caught:
            parts.append(f"{name}: never")
            continue
        customers = {each.customer for each in caught}
        first, last = (utc(caught[place].occurrence.occurred_at) for place in (0, -1))
        unit = "account" if name in about_accounts else "customer"
        lines = [
            f"{name}: {_times(len(caught))} for {len(customers):,} {unit}{'s' * (len(customers) > 1)},"
            f" first {first:%Y-%m-%d %H:%M}, last {last:%Y-%m-%d %H:%M} UTC"
        ]
        lines += _weeks(caught)
        newest = list(dict.fromkeys(each.customer for each in reversed(caught)))[:n_customers_shown]
        of = {each.customer: each.occurrence.occurred_at for each in caught}
        lines += [f"  for {customer.hex()} at {utc(of[customer]):%Y-%m-%d %H:%M}" for customer in newest]
        if newest and len(customers) > len(newest):
            lines.append(f"  and {len(customers) - len(newest):,} more")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) if parts else "no moment is declared"


def week_of(caught: Caught) -> date:
    """The Monday (UTC) of the week in which it occurred."""
    day = utc(caught.occurrence.occurred_at).date()
    return day - timedelta(days=day.weekday())


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n:,} times"


#: Columns of the longest bar.
_BAR = 40


def _weeks(caught: Sequence[Caught]) -> list[str]:
    counts: dict[str, int] = {}
    week, last = week_of(caught[0]), week_of(caught[-1])
    while week <= last:
        counts[f"{week}"] = 0
        week += timedelta(days=7)
    for each in caught:
        counts[f"{week_of(each)}"] += 1
    most = max(counts.values())
    return [f"  week of {week}  {n:>7,}  {'▪' * -(-n * _BAR // most)}".rstrip() for week, n in counts.items()]
