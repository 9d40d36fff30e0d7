"""Backtest: moments over the lake, by the fold that runs live.

DuckDB picks the events that the program concerns and puts them in order, customer by customer; each
customer is then folded from the beginning, exactly as repaired history is. `render` tells what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from operator import itemgetter

import duckdb
import msgspec

from hetki.consent.statements import SPOKEN
from hetki.engine.folding import Caught
from hetki.errors import Fault, NotFound, nearest, shown
from hetki.events.event import IDENTIFIED, STAFFED, Event, EventId, LeafId, utc
from hetki.moments.fold import Fact, Folded, Joined, Program, step
from hetki.patterns.staffing import NO_STAFFING, Timeline, read_report, timeline
from hetki.settings import SECOND

#: Rows that are held in Python at once, beside one customer's history.
ROWS_MAX = 20_000

#: Grain: one row per event that the fold reads, and per link that stands between two identifiers of a
#: customer who has such an event. Order: customer, then the total order; a link comes before the events of
#: its instant, as its source is empty. Ids are hex text, times microseconds. Parameters: names, until.
#: Empty ids mark a link; its two nodes stand in `message_id`.
HISTORY = """
WITH told AS (
    SELECT coalesce(c.customer, e.leaf) AS customer, epoch_us(e.occurred_at) AS told_at, e.source, e.sequence,
           e.message_id, e.leaf, e.event_id, e.channel, e.name, encode(e.properties) AS properties,
           encode(e.context) AS context, e.gpc
    FROM events e LEFT JOIN customers c ON c.leaf = e.leaf
    WHERE (e.gpc OR e.name IN (SELECT unnest($names))) AND e.occurred_at <= make_timestamptz($until)
        AND e.name <> 'Staffing Reported'),
joined AS (
    SELECT c.customer, epoch_us(l.linked_at), '', 0, l.node_a || l.node_b, '', '', '', '',
           encode(''), encode(''), false
    FROM links l JOIN customers c ON c.leaf = l.node_a
    WHERE l.status = 'stands' AND c.customer IN (SELECT customer FROM told))
SELECT * FROM told UNION ALL SELECT * FROM joined
ORDER BY customer, told_at, source, sequence, message_id
"""

#: Grain: one row per report of staffing. Times are microseconds. Parameters: name, until.
REPORTS = """
SELECT source, message_id, epoch_us(occurred_at), encode(properties), sequence
FROM events WHERE name = $name AND occurred_at <= make_timestamptz($until)
"""

_Row = tuple[str, int, str, int, str, str, str, str, str, bytes, bytes, bool]


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
    found: dict[str, list[Caught]] = {moment.name: [] for moment in program.moments}
    staffing = _staffing(lake, program, advance_to)
    histories = groupby(_rows(lake, program, advance_to), key=itemgetter(0))
    for n_customers, (customer, rows) in enumerate(histories, start=1):
        _, occurrences = step(program, Folded(), _entries(rows), advance_to, staffing)
        for each in occurrences:
            if span is None or span.since <= each.occurred_at < span.until:
                found[each.moment].append(Caught(LeafId(bytes.fromhex(customer)), each))
        if n_customers % 1_000 == 0:
            progress(n_customers)
    for caught in found.values():
        caught.sort(key=lambda each: (each.occurrence.occurred_at, each.occurrence.occurrence_id))
    return found


def only(program: Program, moments: Sequence[str]) -> Program:
    """The program with these moments alone; with none named, the program itself. Raises `NotFound`."""
    known = {moment.name: moment for moment in program.moments}
    for name in moments:
        if name not in known:
            raise NotFound(Fault("moment", shown(name), "a declared moment", nearest(name, known)))
    if not moments:
        return program
    chosen = tuple(known[name] for name in sorted(set(moments)))
    listening = {
        name: kept
        for name, each in program.listening.items()
        if (kept := tuple(moment for moment in each if moment.name in moments))
    }
    return msgspec.structs.replace(program, moments=chosen, listening=listening)


def _rows(lake: duckdb.DuckDBPyConnection, program: Program, until: int) -> Iterator[_Row]:
    names = sorted({*program.listening, *SPOKEN, IDENTIFIED})
    reader = lake.sql(HISTORY, params={"names": names, "until": until}).to_arrow_reader(ROWS_MAX)
    for batch in reader:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _staffing(lake: duckdb.DuckDBPyConnection, program: Program, until: int) -> Timeline:
    """Every report of staffing, if any moment asks for one."""
    if not program.asks_staffing:
        return NO_STAFFING
    rows = lake.execute(REPORTS, {"name": STAFFED, "until": until}).fetchall()
    events = (
        Event(row[0], row[1], "", STAFFED, row[2], row[2], _NOBODY, row[3], b"{}", row[4]) for row in rows
    )
    return timeline(report for event in events if (report := read_report(event)))


def _entries(rows: Iterable[_Row]) -> list[Fact | Joined]:
    """One customer's history as the fold reads it. Identifiers and arrival are nothing to the fold."""
    entries: list[Fact | Joined] = []
    for _, at, source, sequence, message_id, leaf, event_id, channel, name, properties, context, gpc in rows:
        if not event_id:
            half = len(message_id) // 2
            entries.append(Joined(at, message_id[:half], message_id[half:]))
            continue
        event = Event(source, message_id, channel, name, at, at, _NOBODY, properties, context, sequence, gpc)
        entries.append(Fact(event, EventId(bytes.fromhex(event_id)), LeafId(bytes.fromhex(leaf))))
    return entries


_NOBODY: dict[str, str] = {}


def render(found: Mapping[str, Sequence[Caught]], n_customers_shown: int = 5) -> str:
    """How often each moment would have fired, when, week by week (from Monday, UTC), and for whom."""
    parts: list[str] = []
    for name, caught in found.items():
        if not caught:
            parts.append(f"{name}: never")
            continue
        customers = {each.customer for each in caught}
        first, last = (utc(caught[place].occurrence.occurred_at) for place in (0, -1))
        lines = [
            f"{name}: {_times(len(caught))} for {len(customers):,} customer{'s' * (len(customers) > 1)},"
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


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n:,} times"


#: Columns of the longest bar.
_BAR = 40


def _weeks(caught: Sequence[Caught]) -> list[str]:
    counts: dict[str, int] = {}
    day = utc(caught[0].occurrence.occurred_at).date()
    week, last = day - timedelta(days=day.weekday()), utc(caught[-1].occurrence.occurred_at).date()
    while week <= last:
        counts[f"{week}"] = 0
        week += timedelta(days=7)
    for each in caught:
        day = utc(each.occurrence.occurred_at).date()
        counts[f"{day - timedelta(days=day.weekday())}"] += 1
    most = max(counts.values())
    return [f"  week of {week}  {n:>7,}  {'▪' * -(-n * _BAR // most)}".rstrip() for week, n in counts.items()]
