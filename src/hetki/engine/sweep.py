"""Sweep: moments over the lake by the fast form of the matcher, and by the fold where that does not reach.

The lake is read in parts of whole customers. In each part conditions are asked of columns, and the automaton
goes over all customers at once. Folded one by one, by the fold itself, are the customers whose consent has an
end or is spread over several leaves, those with a value that columns cannot hold, and the moments that the
automaton refuses, for whoever has an event that could begin one. What comes out is what the fold alone gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

import duckdb
import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hetki.consent.columns import Allows, Spoken, purposes_of
from hetki.consent.statements import SPOKEN, mask, spoken
from hetki.engine.columns import Events, EventsFrame, Numbers, Traits
from hetki.engine.history import Row, entries, names_of
from hetki.engine.parts import Part, parts
from hetki.events.event import Event, EventId, LeafId
from hetki.events.fields import Fields
from hetki.moments.fold import REACH, Fact, Folded, Joined, Program, step
from hetki.moments.moment import Moment, Occurrence, occurrence_id
from hetki.patterns import tree as t
from hetki.patterns.automaton import PATTERNS_MAX, Automaton, refusal
from hetki.patterns.columnar import Texts
from hetki.patterns.fast import Found, Runs, fold, look, settle
from hetki.patterns.pools import Batch
from hetki.patterns.run import UNBOUND, Seen
from hetki.patterns.standing import bound_by
from hetki.patterns.tables import compiled
from hetki.settings import SECOND

#: Fewer events are folded one by one sooner than the kernel is loaded.
EVENTS_MIN: Final = 50_000


History = list[Fact | Joined]


class Swept(NamedTuple):
    """What the automaton runs of a program, and what is left to the fold."""

    moments: tuple[Moment, ...]
    automaton: Automaton
    left: tuple[str, ...]


def swept(program: Program) -> Swept | None:
    """A program's moments, as far as the automaton takes them; none if it takes none."""
    taken = [moment for moment in program.moments if not refusal(moment.pattern)][:PATTERNS_MAX]
    while taken:
        try:
            automaton = compiled([moment.pattern for moment in taken])
        except OverflowError:
            taken.pop()
            continue
        names = {moment.name for moment in taken}
        left = tuple(moment.name for moment in program.moments if moment.name not in names)
        return Swept(tuple(taken), automaton, left)
    return None


def sweep(
    lake: duckdb.DuckDBPyConnection, program: Program, runs: Swept, rest: Program, advance_to: int
) -> Iterator[tuple[str, list[Occurrence]]]:
    """The occurrences of customers, each customer at most twice: of what was swept, and of the `rest`, which
    is the program with the moments that are left to the fold."""
    for part in parts(lake, names_of(program), advance_to):
        yield from _sweep_part(part, program, runs, rest, advance_to)


def _sweep_part(
    part: Part, program: Program, runs: Swept, rest: Program, advance_to: int
) -> Iterator[tuple[str, list[Occurrence]]]:
    events, texts = Events(part.table, part.customer, len(part.customers)), Texts()
    purposes, closed, closed_at, slow = _consent(events, part, program)
    batch, odd = _looked(events, program, runs, purposes, closed, texts)
    batch = batch._replace(closed_at=closed_at)
    slow[events.customer[odd]] = True
    state = Runs(runs.automaton, events.n_customers)
    until = advance_to - program.lateness_s * SECOND
    fold(runs.automaton, state, batch, until)
    settle(runs.automaton, state, until)
    slow |= state.state.odd
    found = [each for each in state.taken() if not slow[each.customer]]
    for customer, occurrence in _occurrences(found, events, runs, purposes):
        yield part.customers[customer], [occurrence]
    for customer, history in _histories(events, part, slow):
        yield part.customers[customer], step(program, Folded(), history, advance_to)[1]
    if runs.left:
        for customer, history in _histories(events, part, _candidates(events, rest) & ~slow):
            yield part.customers[customer], step(rest, Folded(), history, advance_to)[1]


# -- consent --------------------------------------------------------------------------------------------


def _consent(
    events: Events, part: Part, program: Program
) -> tuple[Numbers, Numbers, Numbers, NDArray[np.bool_]]:
    """The purposes open to each event, those that have closed by it and when, and the customers whom the fold
    must judge."""
    n, names = len(events.at), [name for name, _ in program.purposes]
    purpose, granted = np.zeros(n, np.int64), np.zeros(n, np.bool_)
    slow, speaks = np.zeros(events.n_customers, np.bool_), np.zeros(events.n_customers, np.bool_)
    for name in sorted(SPOKEN):
        places = events.of_name(name)
        told: dict[str, list[int]] = {}  # few texts, as most say the same
        texts = events.table["properties"].take(pa.array(events.rows[places])).to_pylist()
        for place, properties in zip(places.tolist(), texts, strict=True):
            told.setdefault(properties, []).append(place)
        for properties, mine in told.items():
            event = Event("", "", "", name, 0, 0, {}, properties.encode())
            said = spoken(event, dict(program.purposes), {})
            if len(said) > 1 or any(each.until is not None for each in said.values()):
                slow[events.customer[mine]] = True
            for each, statement in said.items():
                purpose[mine], granted[mine] = 1 << names.index(each), statement.granted
        speaks[events.customer[places]] = True
    speaks[events.customer[events.gpc]] = True
    many = _has_many_leaves(events, speaks) & ~slow
    contracts = np.array([program.contracts.get(each, 0) for each in events.sources] or [0], np.int64)
    given = [each for _, each in program.purposes]
    allows = Allows(
        _bits(each.allows(None) for each in given),
        _bits(each.allows("granted") for each in given),
        _bits(each.allows("refused") for each in given),
        _bits(each.gpc for each in given),
    )
    contract = contracts[events.source]
    told_of = Spoken(events.customer, purpose, granted, events.gpc, contract)
    opened, closed = purposes_of(told_of, allows)
    closed_at = events.at.copy()
    for customer, history in _histories(events, part, many):
        consent = _Consent(program, int(events.starts[customer]), contract)
        if not consent.told(history, opened, closed, closed_at):
            slow[customer] = True
    return opened, closed, closed_at, slow


class _Consent:
    """Consent of one customer with several leaves: the fold over what is said and joined, without moments."""

    def __init__(self, program: Program, start: int, contract: Numbers) -> None:
        self.program = msgspec.structs.replace(program, moments=(), listening={}, traits=frozenset())
        self.start, self.contract = start, contract
        self.folded = Folded()

    def told(self, history: History, opened: Numbers, closed: Numbers, closed_at: Numbers) -> bool:
        """Write down what is open to each event and what has closed by it; false if the fold must judge, as
        purposes close between two events at different times, or behind the last."""
        place, waiting, open_to = self.start, 0, dict[str, int]()
        for item in history:
            joins = isinstance(item, Joined)
            event = None if isinstance(item, Joined) else item.event
            if event is None or event.gpc or event.name in SPOKEN:
                gone = self._closed_by(item)
                open_to = {}
                if joins and gone and waiting:
                    return False
                if joins and gone:
                    waiting, waiting_since = gone, item.order_key[0]
                elif gone and waiting:
                    return False
                if not joins:
                    closed[place], closed_at[place] = gone, item.order_key[0]
            if isinstance(item, Joined):
                continue
            if waiting:
                closed[place], closed_at[place], waiting = waiting, waiting_since, 0
            group = self._group(item.leaf.hex())
            if group not in open_to:
                open_to[group] = self._mask(group, item.order_key[0])
            opened[place] = open_to[group] & int(self.contract[place])
            place += 1
        return not waiting

    def _group(self, node: str) -> str:
        return self.folded.groups.get(node, node)

    def _mask(self, group: str, at: int) -> int:
        return mask(self.program.purposes, self.folded.statements.get(group, {}), at)

    def _closed_by(self, item: Fact | Joined) -> int:
        """Fold one item; the purposes that were open to whom it concerns and are not any more."""
        nodes = [item.node_a, item.node_b] if isinstance(item, Joined) else [item.leaf.hex()]
        at, before = item.order_key[0], 0
        if len({self._group(node) for node in nodes}) < len(nodes):
            nodes = nodes[:1]  # they are joined already
        for node in nodes:
            before |= self._mask(self._group(node), at)
        self.folded, _ = step(self.program, self.folded, [item], 0)
        return before & ~self._mask(self._group(nodes[0]), at)


def _bits(truths: Iterable[bool]) -> int:
    return sum(1 << number for number, truth in enumerate(truths) if truth)


def _has_many_leaves(events: Events, speaks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the customers who said something have events of several leaves."""
    many = np.zeros(events.n_customers, np.bool_)
    places = np.flatnonzero(speaks[events.customer])
    leaves = events.table["leaf"].take(pa.array(events.rows[places])).to_numpy()
    same = events.customer[places][1:] == events.customer[places][:-1]
    other = places[1:][same & (leaves[1:] != leaves[:-1])]
    many[events.customer[other]] = True
    return many


# -- conditions -----------------------------------------------------------------------------------------


def _looked(
    events: Events, program: Program, runs: Swept, purposes: Numbers, closed: Numbers, texts: Texts
) -> tuple[Batch, Numbers]:
    """The batch of all events, and the places of those that columns cannot say."""
    automaton, n = runs.automaton, len(events.at)
    bits, concerns, opens, names = (np.zeros(n, np.int64) for _ in range(4))
    columns, odd = np.full((n, automaton.n_columns), np.nan), [np.zeros(0, np.int64)]
    traits = Traits(events, _traits_of(automaton), REACH)
    for name, number in automaton.names.items():
        places = events.of_name(name)
        if not len(places):
            continue
        frame = EventsFrame(events, places, fields_of(automaton, name), traits, texts)
        looked = look(automaton, name, frame)
        bits[places], concerns[places], opens[places] = looked.bits, looked.concerns, looked.opens
        columns[places], names[places] = looked.columns, number
        odd.append(places[frame.odd])
    open_to, closes = np.zeros(n, np.int64), np.zeros(n, np.int64)
    for number, moment in enumerate(runs.moments):
        bit = program.bits[moment.name]
        open_to |= ((purposes & bit) != 0).astype(np.int64) << number
        closes |= ((closed & bit) != 0).astype(np.int64) << number
    batch = Batch(
        np.arange(n),
        events.customer,
        events.at,
        names,
        bits,
        concerns & open_to,
        opens & open_to,
        closes,
        events.at,
        columns,
    )
    return batch, np.concatenate(odd)


def fields_of(automaton: Automaton, name: str) -> list[str]:
    """The fields that are read of the events of one name."""
    reads = automaton.reads[automaton.names[name]]
    nodes = [*reads.bits, *(node for node, _ in reads.columns)]
    return sorted({each.name for node in nodes for each in t.walk(node) if isinstance(each, t.Field)})


def _traits_of(automaton: Automaton) -> set[str]:
    nodes = [
        node for reads in automaton.reads for node in (*reads.bits, *(each for each, _ in reads.columns))
    ]
    return {each.name for node in nodes for each in t.walk(node) if isinstance(each, t.Trait)}


def _candidates(events: Events, rest: Program) -> NDArray[np.bool_]:
    """The customers who have an event with which a moment of the rest could begin."""
    begins = np.zeros(events.n_customers, np.bool_)
    for moment in rest.moments:
        for name in moment.pattern.opening:
            begins[events.customer[events.of_name(name)]] = True
    return begins


# -- what was found -------------------------------------------------------------------------------------


def _occurrences(
    found: Sequence[Found], events: Events, runs: Swept, purposes: Numbers
) -> Iterator[tuple[int, Occurrence]]:
    """Occurrences as the fold makes them, with every event that is bound."""
    places = sorted({place for each in found for rows in each.rows for place in rows})
    seens = dict(zip(places, _seen(events, places, purposes), strict=True))
    for each in found:
        moment = runs.moments[each.pattern]
        bound = []
        for event_step, rows in zip(moment.pattern.events, each.rows, strict=True):
            last = UNBOUND
            for place in rows:
                last = bound_by(event_step, seens[place], last)
            bound.append(last)
        start_id = seens[each.start_row].event_id
        yield (
            each.customer,
            Occurrence(
                occurrence_id(moment.name, start_id),
                moment.name,
                each.occurred_at,
                each.occurred_at + moment.expires_s * SECOND,
                bound,
                each.deadline,
            ),
        )


def _seen(events: Events, places: list[int], purposes: Numbers) -> Iterator[Seen]:
    table = events.table.take(pa.array(events.rows[places]))
    wanted = ("told_at", "source", "sequence", "message_id", "leaf", "event_id", "channel", "name")
    columns = [table[each].to_pylist() for each in (*wanted, "properties", "context")]
    for place, row in zip(places, zip(*columns, strict=True), strict=True):
        at, source, sequence, message_id, leaf, event_id, channel, name, properties, context = row
        event = Event(
            source, message_id, channel, name, at, at, {}, properties.encode(), context.encode(), sequence
        )
        ids = EventId(bytes.fromhex(event_id)), LeafId(bytes.fromhex(leaf))
        yield Seen(*ids, event.order_key, name, at, source, int(purposes[place]), Fields(event))


def _histories(events: Events, part: Part, chosen: NDArray[np.bool_]) -> Iterator[tuple[int, History]]:
    """Some customers of a part one by one, as the fold reads them: their events and links, in order."""
    places = np.flatnonzero(chosen[events.customer])
    table = events.table.take(pa.array(events.rows[places])).drop_columns(["code"])
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    links = part.links(np.flatnonzero(chosen).tolist())
    numbered = zip(events.customer[places].tolist(), rows, strict=True)
    for customer, mine in groupby(numbered, key=itemgetter(0)):
        told: list[Row] = [("", *row[:8], row[8].encode(), row[9].encode(), row[10]) for _, row in mine]
        linked = links.get(part.customers[customer])
        yield customer, entries(sorted(told + linked, key=itemgetter(1, 2, 3, 4)) if linked else told)
