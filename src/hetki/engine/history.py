"""History: every customer's events out of the lake, in the order and form in which the fold reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final

import duckdb
import msgspec

from hetki.consent.statements import SPOKEN
from hetki.engine.accounts import theirs
from hetki.errors import Fault, NotFound, nearest, shown
from hetki.events.event import STAFFED, Event, EventId, LeafId
from hetki.identity.account import AccountId
from hetki.moments.fold import Fact, Folded, Joined, Program, step
from hetki.moments.moment import Occurrence
from hetki.patterns.staffing import NO_STAFFING, Timeline, read_report, timeline
from hetki.store.accounts import Member

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

#: Grain, order and parameters: as of `HISTORY`, with accounts for customers; a row for each account that the
#: customer of an event or a link belongs to, with the customer and when they joined.
OF_ACCOUNTS = """
WITH belongs AS (
    SELECT m.account, a.group_id, m.customer, epoch_us(m.joined_at) AS joined_at, c.leaf
    FROM account_members m JOIN accounts a USING (account) JOIN customers c USING (customer)
    WHERE m.is_folded),
told AS (
    SELECT b.account, b.group_id, b.customer, b.joined_at, encode(e.identifiers),
           epoch_us(e.occurred_at) AS told_at, e.source, e.sequence, e.message_id, e.leaf, e.event_id,
           e.channel, e.name, encode(e.properties), encode(e.context), e.gpc
    FROM events e JOIN belongs b ON b.leaf = e.leaf
    WHERE (e.gpc OR e.name IN (SELECT unnest($names))) AND e.occurred_at <= make_timestamptz($until)
        AND e.name <> 'Staffing Reported'),
joined AS (
    SELECT b.account, b.group_id, b.customer, b.joined_at, encode('{}'), epoch_us(l.linked_at), '', 0,
           l.node_a || l.node_b, '', '', '', '', encode(''), encode(''), false
    FROM links l JOIN belongs b ON b.leaf = l.node_a
    WHERE l.status = 'stands' AND b.account IN (SELECT account FROM told))
SELECT * FROM told UNION ALL SELECT * FROM joined
ORDER BY account, told_at, source, sequence, message_id
"""

#: Grain: one row per report of staffing. Times are microseconds. Parameters: name, until.
REPORTS = """
SELECT source, message_id, epoch_us(occurred_at), encode(properties), sequence
FROM events WHERE name = $name AND occurred_at <= make_timestamptz($until)
"""

_NOBODY: Final[dict[str, str]] = {}
#: Stands for any account where it matters only that it is one.
NO_ACCOUNT: Final = b"account"
_names = msgspec.json.Decoder(dict[str, str])

Row = tuple[str, int, str, int, str, str, str, str, str, bytes, bytes, bool]


def names_of(program: Program) -> list[str]:
    """The names of the events that the fold reads."""
    return sorted({*program.listening, *SPOKEN, program.traits_told_by})


def only(program: Program, moments: Sequence[str]) -> Program:
    """The program with these moments alone; with none named, the program itself. Raises `NotFound`."""
    known = {moment.name: moment for moment in program.every_moment}
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


def of_accounts(
    lake: duckdb.DuckDBPyConnection, program: Program, advance_to: int
) -> Iterator[tuple[str, list[Occurrence]]]:
    """The occurrences of each account, by the fold itself: no other form takes what is of several people."""
    staffing = staffing_of(lake, program, advance_to)
    params = {"names": names_of(program.of(NO_ACCOUNT)), "until": advance_to}
    found = lake.sql(OF_ACCOUNTS, params=params).to_arrow_reader(ROWS_MAX)
    rows = (row for part in found for row in zip(*(each.to_pylist() for each in part.columns), strict=True))
    for (account, group), told in groupby(rows, key=itemgetter(0, 1)):
        of_account = program.of(bytes.fromhex(account))
        history: list[Fact | Joined] = []
        for _, _, customer, joined_at, identifiers, *row in told:
            (item,) = entries([(customer, *row)], _names.decode(identifiers))
            if isinstance(item, Joined):
                history.append(item)
            else:
                owner = Member(AccountId(bytes(16)), LeafId(bytes.fromhex(customer)), joined_at, 0, True)
                history += theirs(of_account, [item], owner, group)
        yield account, step(of_account, Folded(), history, advance_to, staffing)[1]


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


def entries(rows: Iterable[Row], identifiers: Mapping[str, str] = _NOBODY) -> list[Fact | Joined]:
    """One customer's history as the fold reads it. Arrival is nothing to the fold, and identifiers are
    nothing but to that of an account."""
    found: list[Fact | Joined] = []
    for _, at, source, sequence, message_id, leaf, event_id, channel, name, properties, context, gpc in rows:
        if not event_id:
            half = len(message_id) // 2
            found.append(Joined(at, message_id[:half], message_id[half:]))
            continue
        names = dict(identifiers)
        event = Event(source, message_id, channel, name, at, at, names, properties, context, sequence, gpc)
        found.append(Fact(event, EventId(bytes.fromhex(event_id)), LeafId(bytes.fromhex(leaf))))
    return found
