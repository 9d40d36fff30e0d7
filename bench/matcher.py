"""How fast the matcher is, its fast form beside the reference: alone, from Parquet, live; and how large.

    python bench/matcher.py [--project examples/twelve_moments] [--events 1000000] [--more 10000000]

A lake is made from a seed (`make_lake`) and its moments run over it. `--more` makes a second, larger one and
compares the cost of an event (0: no second one). Rates are per CPU-second, over all events of the lake, those
that no moment listens to included, unless a line says otherwise. The target stands behind each figure.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import duckdb
import numpy as np
from make_lake import STARTED_AT, TWELVE, make
from numpy.random import default_rng

from hetki.engine import sweep as sweeping
from hetki.engine.backtest import histories
from hetki.engine.columns import Events, EventsFrame, Traits
from hetki.engine.consenting import open_events
from hetki.engine.engine import compile_program
from hetki.engine.history import names_of
from hetki.engine.parts import parts
from hetki.engine.project import load
from hetki.events.event import Event, EventId, LeafId
from hetki.events.fields import Fields
from hetki.moments.fold import Program
from hetki.moments.moment import Moment
from hetki.patterns import matcher
from hetki.patterns.columnar import Texts
from hetki.patterns.fast import FieldsFrame, Runs, fold, look, settle
from hetki.patterns.pools import TOP_HEAP, Batch
from hetki.patterns.run import Run, Seen
from hetki.patterns.tables import compiled
from hetki.settings import DAY, SECOND
from hetki.store.lake import open_lake
from hetki.store.system import SystemDisk, collect_rarely

T = TypeVar("T")
BATCH = 1_000
N_BATCHES = 300


def timed(what: Callable[[], T], cpu: bool = True) -> tuple[float, T]:
    clock = time.process_time if cpu else time.perf_counter
    started = clock()
    result = what()
    return clock() - started, result


def rate(label: str, n: int, took_s: float, asked: str = "") -> None:
    print(f"{label:<58} {n / took_s:>13,.0f} events/s{f'   asked {asked}' if asked else ''}")


class Bench:
    """A lake and the moments that run over it."""

    def __init__(self, folder: Path, project_folder: Path, n_events: int) -> None:
        project = load(SystemDisk(project_folder))
        make(folder, project, n_events)
        self.program: Program = compile_program(project)
        self.lake: duckdb.DuckDBPyConnection = open_lake(SystemDisk(folder))
        self.lake.execute("SET threads = 1")
        self.n_events = n_events
        self.advance_to = STARTED_AT + 90 * DAY

    def found(self, events_min: int) -> int:
        told = histories(self.lake, self.program, self.advance_to, events_min=events_min)
        return sum(len(caught) for _, caught in told)


# -- history --------------------------------------------------------------------------------------------


def history(bench: Bench) -> None:
    runs = sweeping.swept(bench.program)
    assert runs is not None, "the moments are such that the automaton takes some"
    print(
        f"moments: {len(runs.moments)} by the automaton, {len(runs.left)} by the fold {' '.join(runs.left)}"
    )
    bench.found(0)  # compiled, or loaded as compiled before
    took_s, n_found = timed(lambda: bench.found(0))
    rate(f"from Parquet to {n_found:,} occurrences with bindings", bench.n_events, took_s, "1,000,000")
    reference_s, n_reference = timed(lambda: bench.found(10**12))
    assert n_reference == n_found, "the same came out"
    rate("  the same by the reference", bench.n_events, reference_s)
    print(f"{'  fast against reference':<58} {reference_s / took_s:>13.1f} times")
    alone(bench, runs)


def alone(bench: Bench, runs: sweeping.Swept) -> None:
    """The matcher on columns that are there: conditions to bits, then the automaton."""
    look_s = fold_s = one_s = seen_s = 0.0
    n_listened = n_seen = 0
    one = compiled([runs.moments[0].pattern])
    for part in parts(bench.lake, names_of(bench.program), bench.advance_to):
        events, texts = Events(part.table, part.customer, len(part.customers)), Texts()
        purposes, closed, closed_at, _ = open_events(events, part, bench.program)
        traits = Traits(events, sweeping._traits_of(bench.program.moments), bench.program.traits)
        args = (events, bench.program, runs, purposes, closed, traits, texts)
        batch = sweeping._looked(*args)[0]._replace(closed_at=closed_at)
        n_listened += len(batch.at)
        for name in runs.automaton.names:
            frame = EventsFrame(
                events, events.of_name(name), sweeping.fields_of(runs.automaton, name), traits, texts
            )
            look(runs.automaton, name, frame)  # now its columns are there
            look_s += timed(lambda name=name, frame=frame: look(runs.automaton, name, frame))[0]
        n = events.n_customers
        fold_s += timed(lambda n=n, batch=batch: run(runs.automaton, n, batch, bench.advance_to))[0]
        only = sweeping.Swept(runs.moments[:1], one, ())
        single = sweeping._looked(events, bench.program, only, purposes, closed, traits, texts)[0]
        single = single._replace(closed_at=closed_at)
        one_s += timed(lambda n=n, batch=single: run(one, n, batch, bench.advance_to))[0]
        if not n_seen:
            n_seen, seen_s = by_reference(events, runs.moments, bench.program)
    rate("the matcher alone: conditions and automaton", bench.n_events, look_s + fold_s, "5,000,000")
    rate("  the automaton alone", bench.n_events, fold_s)
    rate("  per event that a moment listens to, both", n_listened, look_s + fold_s)
    rate("  the automaton alone, one pattern", bench.n_events, one_s)
    rate("  the reference alone, per event that a moment listens to", n_seen, seen_s)
    both = (look_s + fold_s) / n_listened
    print(f"{'  fast against reference':<58} {seen_s / n_seen / both:>13.1f} times")


def run(automaton: sweeping.Automaton, n_customers: int, batch: Batch, until: int) -> int:
    runs = Runs(automaton, n_customers)
    fold(automaton, runs, batch, until)
    settle(automaton, runs, until)
    return int(runs.state.tops[7])


def by_reference(events: Events, moments: tuple[Moment, ...], program: Program) -> tuple[int, float]:
    """`observe` and `settle` over some of the same events, that were made before."""
    n = min(50_000, len(events.at))
    seens = list(sweeping._seen(events, list(range(n)), np.full(n, -1)))
    customers = events.customer[:n].tolist()

    def go() -> None:
        state: dict[tuple[int, str], Run] = {}
        for customer, seen in zip(customers, seens, strict=True):
            for moment in program.listening.get(seen.name, ()):
                kept = state.setdefault((customer, moment.name), Run())
                if kept.partials:
                    matcher.settle(moment.pattern, kept, seen.occurred_at - 1)
                matcher.observe(moment.pattern, kept, seen, {})

    return n, timed(go)[0]


# -- live -----------------------------------------------------------------------------------------------


class Live:
    """Batches of events as they come, all customers mixed, over a state that stays in memory."""

    def __init__(self, bench: Bench, runs: sweeping.Swept) -> None:
        query = (
            "SELECT leaf, name, epoch_us(occurred_at), properties, context, source, channel FROM events"
            f" WHERE name IN (SELECT unnest($names)) ORDER BY occurred_at LIMIT {BATCH * N_BATCHES}"
        )
        rows = bench.lake.sql(query, params={"names": sorted(bench.program.listening)}).fetchall()
        customers: dict[str, int] = {}
        self.seens: list[Seen] = []
        self.customer: list[int] = []
        for number, (leaf, name, at, properties, context, source, channel) in enumerate(rows):
            event = Event(
                source, f"{number}", channel, name, at, at, {}, properties.encode(), context.encode()
            )
            ids = EventId(number.to_bytes(16, "big")), LeafId(bytes(16))
            self.seens.append(Seen(*ids, event.order_key, name, at, source, -1, Fields(event)))
            self.customer.append(customers.setdefault(leaf, len(customers)))
        self.program, self.swept, self.texts = bench.program, runs, Texts()
        self.runs = Runs(runs.automaton, len(customers), is_live=True)
        self.matches = 0

    def batches(self) -> list[tuple[list[Seen], list[int]]]:
        starts = range(0, len(self.seens), BATCH)
        return [(self.seens[n : n + BATCH], self.customer[n : n + BATCH]) for n in starts]

    def columns(self, seens: list[Seen], customers: list[int]) -> tuple[Batch, list[tuple[str, FieldsFrame]]]:
        """A batch whose columns are there, before any condition was asked."""
        automaton, n = self.swept.automaton, len(seens)
        zeros = np.zeros(n, np.int64)
        at = np.array([each.occurred_at for each in seens], np.int64)
        name = np.array([automaton.names.get(each.name, -1) for each in seens], np.int64)
        customer = np.array(customers, np.int64)
        columns = np.full((n, automaton.n_columns), np.nan)
        empty = Batch(np.arange(n), customer, at, name, zeros, zeros, zeros, zeros, zeros, columns)
        frames = []
        for each in automaton.names:
            mine = [seen.fields for seen in seens if seen.name == each]
            if mine:
                frame = FieldsFrame(mine, [{}] * len(mine), self.texts)
                look(automaton, each, frame)
                frames.append((each, frame))
        return empty, frames

    def advance(self, empty: Batch, frames: list[tuple[str, FieldsFrame]]) -> None:
        """What is timed: conditions over columns, then the automaton, then time."""
        automaton, n = self.swept.automaton, len(empty.at)
        bits, concerns, opens = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
        for name, frame in frames:
            places = np.flatnonzero(empty.name == automaton.names[name])
            looked = look(automaton, name, frame)
            bits[places], concerns[places], opens[places] = looked.bits, looked.concerns, looked.opens
            empty.columns[places] = looked.columns
        until = int(empty.at[0]) - 10 * SECOND
        fold(automaton, self.runs, empty._replace(bits=bits, concerns=concerns, opens=opens), until)
        settle(automaton, self.runs, until)
        self.matches += len(self.runs.taken())


def live(bench: Bench, runs: sweeping.Swept) -> None:
    state = Live(bench, runs)
    took = []
    for seens, customers in state.batches():
        empty, frames = state.columns(seens, customers)
        took.append(timed(lambda empty=empty, frames=frames: state.advance(empty, frames), cpu=False)[0])
    low, high = np.quantile(took[10:], [0.5, 0.99]) * 1e3
    print(f"live, batches of {BATCH:,}, columns there: p50 {low:.2f} ms, p99 {high:.2f} ms   asked 0.5 and 2")
    reference: dict[tuple[int, str], Run] = {}
    took, each = [], []
    for seens, customers in state.batches()[: N_BATCHES // 3]:
        started = time.perf_counter()
        for seen, customer in zip(seens, customers, strict=True):
            begun = time.perf_counter()
            for moment in bench.program.listening[seen.name]:
                kept = reference.setdefault((customer, moment.name), Run())
                if kept.partials:
                    matcher.settle(moment.pattern, kept, seen.occurred_at - 1)
                matcher.observe(moment.pattern, kept, seen, {})
            each.append(time.perf_counter() - begun)
        took.append(time.perf_counter() - started)
    low, high = np.quantile(took[10:], [0.5, 0.99]) * 1e3
    print(f"  the same by the reference, which runs live:  p50 {low:.2f} ms, p99 {high:.2f} ms")
    low, high = np.quantile(each, [0.5, 0.99]) * 1e6
    print(f"one event in the reference: p50 {low:.1f} us, p99 {high:.1f} us   asked 50")


# -- deadlines and memory -------------------------------------------------------------------------------


def deadlines(bench: Bench, runs: sweeping.Swept) -> None:
    """A million open deadlines: what they cost an advance in which none is due, and that they fire."""
    waiting = [moment for moment in runs.moments if moment.pattern.ending and len(moment.pattern.events) == 1]
    if not waiting:
        print("no moment with one event and a silence")
        return
    automaton = compiled([waiting[0].pattern])
    n = 1_000_000
    name = next(iter(waiting[0].pattern.opening))
    number, rng = automaton.names[name], default_rng(1)

    def batch(customer: np.ndarray, at: np.ndarray) -> Batch:
        zeros, size = np.zeros(len(at), np.int64), len(at)
        columns = np.arange(size * max(1, automaton.n_columns), dtype=np.float64).reshape(size, -1)
        bits = np.full(size, -1)
        return Batch(
            np.arange(size),
            customer,
            at,
            np.full(size, number),
            bits,
            zeros + 1,
            zeros + 1,
            zeros,
            at,
            columns,
        )

    def cost(n_open: int) -> tuple[float, Runs]:
        state = Runs(automaton, 2 * n, is_live=True)
        if n_open:
            fold(automaton, state, batch(np.arange(n_open), STARTED_AT + np.arange(n_open)), 0)
        took = []
        for round_ in range(200):
            customers = n + rng.integers(0, n, BATCH)
            at = STARTED_AT + n + round_ * 1_000 + np.arange(BATCH)
            made = batch(customers, at)

            def go(made: Batch = made, at: np.ndarray = at) -> None:
                fold(automaton, state, made, int(at[0]))
                settle(automaton, state, int(at[-1]) - 10 * SECOND)

            took.append(timed(go, cpu=False)[0])
        return float(np.median(took)), state

    cost(0)
    without, _ = cost(0)
    with_open, state = cost(n)
    more = (with_open / without - 1) * 100
    print(f"advance of {BATCH:,} events with no open deadline: {without * 1e6:.0f} us")
    print(
        f"  with a million that are not due: {with_open * 1e6:.0f} us, {more:+.1f} %   asked less than 10 %"
    )
    due = int(state.state.heap[: state.state.tops[TOP_HEAP], 0].max())
    state.taken()
    took_s, _ = timed(lambda: settle(automaton, state, due))
    print(f"  the first advance after them tells {len(state.taken()):,} occurrences, in {took_s:.2f} s")


def memory(runs: sweeping.Swept) -> None:
    """A million customers, each with a try open in every moment."""
    automaton, n = runs.automaton, 1_000_000
    state = Runs(automaton, n, is_live=False).state
    fixed = state.run_of.nbytes + state.active.nbytes + state.odd.nbytes
    n_moments = len(automaton.patterns)
    each = fixed / n / n_moments
    print(f"state: {each:.1f} bytes for each of 1,000,000 customers and {n_moments} moments, asked 16;")
    a_run, a_try = state.runs[0].nbytes, state.partials[0].nbytes
    a_node = state.nodes[0].nbytes + state.registers[0].nbytes
    print(
        f"  and {a_run} where a moment has begun, {a_try} for an open try, {a_node} for an event bound in it"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--project", type=Path, default=TWELVE)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--more", type=int, default=0)
    given = parser.parse_args()
    collect_rarely()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), given.project, given.events)
        runs = sweeping.swept(bench.program)
        assert runs is not None, "the moments are such that the automaton takes some"
        history(bench)
        live(bench, runs)
        deadlines(bench, runs)
        memory(runs)
        small_s, _ = timed(lambda: bench.found(0))
    if given.more:
        with tempfile.TemporaryDirectory() as folder:
            large = Bench(Path(folder), given.project, given.more)
            large_s, n_found = timed(lambda: large.found(0))
            rate(f"from Parquet, {given.more:,} events, {n_found:,} occurrences", given.more, large_s)
            ratio = large_s / given.more / (small_s / given.events)
            print(f"{'  cost of an event against the smaller lake':<58} {ratio:>13.2f} times   asked 1.2")


if __name__ == "__main__":
    main()
