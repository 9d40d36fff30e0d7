"""History: every customer's events out of the lake, in the order and form in which the fold reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter

import duckdb

from hetki.consent.statements import SPOKEN
from hetki.errors import Fault, NotFound, nearest, shown
from hetki.events.event import IDENTIFIED, STAFFED, Event, EventId, LeafId
from hetki.moments.fold import Fact, Folded, Joined, Program, step
from hetki.moments.moment import Occurrence
from hetki.patterns.staffing import NO_STAFFING, Timeline, read_report, timeline

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

Row = tuple[str, int, str, int, str, str, str, str, str, bytes, bytes, bool]


def names_of(program: Program) -> list[str]:
    """The names of the events that the fold reads."""
    return sorted({*program.listening, *SPOKEN, IDENTIFIED})


def only(program: Program, moments: Sequence[str]) -> Program:
    """The program with these moments alone; with none named, the program itself. Raises `NotFound`."""
    known = {moment.name: moment for moment in program.moments}
    for name in moments:
        if name not in known:
            raise NotFound(Fault("moment", shown(name), "a declared moment", nearest(name, known)))
    return program.only(moments) if moments else program


def one_by_one(
    lake: duckdb.DuckDBPyConnection,
    program: Program,
    advance_to: int,
    progress: Callable[[int], None] = lambda n_customers: None,
) -> Iterator[tuple[str, list[Occurrence]]]:
    """The occurrences of each customer that has events, by the fold itself."""
    staffing = staffing_of(lake, program, advance_to)
    histories = groupby(_rows(lake, program, advance_to), key=itemgetter(0))
    for n_customers, (customer, rows) in enumerate(histories, start=1):
        yield customer, step(program, Folded(), entries(rows), advance_to, staffing)[1]
        if n_customers % 1_000 == 0:
            progress(n_customers)


def staffing_of(lake: duckdb.DuckDBPyConnection, program: Program, until: int) -> Timeline:
    """Every report of staffing, if any moment asks for one."""
    if not program.asks_staffing:
        return NO_STAFFING
    rows = lake.execute(REPORTS, {"name": STAFFED, "until": until}).fetchall()
    events = (
        Event(row[0], row[1], "", STAFFED, row[2], row[2], _NOBODY, row[3], b"{}", row[4]) for row in rows
    )
    return timeline(report for event in events if (report := read_report(event)))


def _rows(lake: duckdb.DuckDBPyConnection, program: Program, until: int) -> Iterator[Row]:
    params = {"names": names_of(program), "until": until}
    for batch in lake.sql(HISTORY, params=params).to_arrow_reader(ROWS_MAX):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def entries(rows: Iterable[Row]) -> list[Fact | Joined]:
    """One customer's history as the fold reads it. Identifiers and arrival are nothing to the fold."""
    found: list[Fact | Joined] = []
    for _, at, source, sequence, message_id, leaf, event_id, channel, name, properties, context, gpc in rows:
        if not event_id:
            half = len(message_id) // 2
            found.append(Joined(at, message_id[:half], message_id[half:]))
            continue
        event = Event(source, message_id, channel, name, at, at, _NOBODY, properties, context, sequence, gpc)
        found.append(Fact(event, EventId(bytes.fromhex(event_id)), LeafId(bytes.fromhex(leaf))))
    return found


_NOBODY: dict[str, str] = {}
