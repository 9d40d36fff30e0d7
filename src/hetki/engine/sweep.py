"""Sweep: moments over the lake by the fast form of the matcher, and by the fold where that does not reach.

The lake is read in parts of whole customers. In each part conditions are asked of columns, and the automaton
goes over all customers at once. Folded one by one, by the fold itself, are the customers whose consent has an
end or is spread over several leaves, those with a value that columns cannot hold, and the moments that the
automaton refuses, for whoever has an event that could begin one. What comes out is what the fold alone gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hetki.engine.columns import Events, EventsFrame, Numbers, Traits
from hetki.engine.consenting import histories_of, open_events
from hetki.engine.history import names_of, staffing_of
from hetki.engine.parts import Part, parts
from hetki.events.event import Event, EventId, LeafId
from hetki.events.fields import Fields
from hetki.moments.context import conditions
from hetki.moments.fold import Folded, Program, step
from hetki.moments.moment import Moment, Occurrence, occurrence_id
from hetki.patterns import tree as t
from hetki.patterns.automaton import PATTERNS_MAX, Automaton, is_pure, parts_of, refusal
from hetki.patterns.columnar import Texts, is_true
from hetki.patterns.fast import Found, Runs, fold, look, settle
from hetki.patterns.pools import Batch
from hetki.patterns.run import UNBOUND, Seen
from hetki.patterns.staffing import Timeline
from hetki.patterns.standing import bound_by
from hetki.patterns.tables import compiled
from hetki.settings import SECOND

#: Fewer events are folded one by one sooner than the kernel is loaded.
EVENTS_MIN: Final = 50_000


class Swept(NamedTuple):
    """What the automaton runs of a program, and what is left to the fold."""

    moments: tuple[Moment, ...]
    automaton: Automaton
    left: tuple[str, ...]


def swept(program: Program) -> Swept | None:
    """A program's moments, as far as the automaton takes them; none if it takes none."""
    # What a moment asks beside events and traits (aggregates, consents, staffing) only the fold knows.
    moments = [moment for moment in program.moments if not (moment.asks or moment.aggregates)]
    taken = [moment for moment in moments if not refusal(moment.pattern)][:PATTERNS_MAX]
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
    lake: duckdb.DuckDBPyConnection,
    program: Program,
    runs: Swept,
    rest: Program,
    advance_to: int,
    progress: Callable[[int], None] = lambda n_customers: None,
) -> Iterator[tuple[str, list[Occurrence]]]:
    """The occurrences of customers, each customer at most twice: of what was swept, and of the `rest`, which
    is the program with the moments that are left to the fold. `progress` is told how many are done."""
    staffing = staffing_of(lake, program, advance_to)
    n_customers = 0
    for part in parts(lake, names_of(program), advance_to):
        yield from _sweep_part(part, program, runs, rest, advance_to, staffing)
        n_customers += len(part.customers)
        progress(n_customers)


def _sweep_part(
    part: Part, program: Program, runs: Swept, rest: Program, advance_to: int, staffing: Timeline
) -> Iterator[tuple[str, list[Occurrence]]]:
    events, texts = Events(part.table, part.customer, len(part.customers)), Texts()
    purposes, closed, closed_at, slow = open_events(events, part, program)
    traits = Traits(events, _traits_of(program.moments), program.traits)
    batch, odd = _looked(events, program, runs, purposes, closed, traits, texts)
    batch = batch._replace(closed_at=closed_at)
    slow[events.customer[odd]] = True
    state = Runs(runs.automaton, events.n_customers)
    until = advance_to - program.lateness_s * SECOND
    fold(runs.automaton, state, batch, until)
    settle(runs.automaton, state, until)
    slow |= state.state.odd
    found = [each for each in state.taken() if not slow[each.customer]]
    for customer, occurrence in _occurrences(found, events, runs, purposes, traits):
        yield part.customers[customer], [occurrence]
    for customer, history in histories_of(events, part, program, slow):
        yield part.customers[customer], step(program, Folded(), history, advance_to, staffing)[1]
    if runs.left:
        for customer, history in histories_of(
            events, part, rest, _candidates(events, rest, traits, texts) & ~slow
        ):
            yield part.customers[customer], step(rest, Folded(), history, advance_to, staffing)[1]


# -- conditions -----------------------------------------------------------------------------------------


def _looked(
    events: Events,
    program: Program,
    runs: Swept,
    purposes: Numbers,
    closed: Numbers,
    traits: Traits,
    texts: Texts,
) -> tuple[Batch, Numbers]:
    """The batch of all events, and the places of those that columns cannot say."""
    automaton, n = runs.automaton, len(events.at)
    bits, concerns, opens, names = (np.zeros(n, np.int64) for _ in range(4))
    columns, odd = np.full((n, automaton.n_columns), np.nan), [np.zeros(0, np.int64)]
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
    return _fields_in(nodes)


def _fields_in(nodes: Iterable[t.Node]) -> list[str]:
    return sorted({each.name for node in nodes for each in t.walk(node) if isinstance(each, t.Field)})


def _traits_of(moments: Iterable[Moment]) -> set[str]:
    """The traits that conditions and context look up."""
    trees = [tree for moment in moments for tree in moment.kept.values()]
    trees += [each.tree for moment in moments for each in conditions(moment.pattern)]
    return {node.name for tree in trees for node in t.walk(tree) if isinstance(node, t.Trait)}


def _candidates(events: Events, rest: Program, traits: Traits, texts: Texts) -> NDArray[np.bool_]:
    """The customers with an event that could begin a moment of the rest, as far as columns say it."""
    begins = np.zeros(events.n_customers, np.bool_)
    for moment in rest.moments:
        pattern = moment.pattern
        choices = [choice for step in pattern.events for choice in step.choices]
        for choice in choices:
            if choice.event in pattern.opening:
                places = events.of_name(choice.event)
                asked = [node for node in (*parts_of(choice.where), *parts_of(pattern.who)) if is_pure(node)]
                names = sorted(
                    {each.name for node in asked for each in t.walk(node) if isinstance(each, t.Field)}
                )
                frame = EventsFrame(events, places, names, traits, texts)
                fits = np.ones(len(places), np.bool_)
                with np.errstate(all="ignore"):
                    for node in asked:
                        fits &= is_true(node, frame)
                begins[events.customer[places[fits | frame.odd]]] = True
    return begins


# -- what was found -------------------------------------------------------------------------------------


def _occurrences(
    found: Sequence[Found], events: Events, runs: Swept, purposes: Numbers, traits: Traits
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
        place = max(place for rows in each.rows for place in rows)
        known = traits.known_at(place) if moment.pattern.context else {}
        tests = ((name, test(seens[place].fields, bound, known)) for name, test in moment.pattern.context)
        yield (
            each.customer,
            Occurrence(
                occurrence_id(moment.name, start_id),
                moment.name,
                each.occurred_at,
                each.occurred_at + moment.expires_s * SECOND,
                bound,
                each.deadline,
                {name: value for name, value in tests if value is not None},
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
