"""Make a lake for the benches: events that the moments of a project listen to, straight as Parquet.

    python bench/make_lake.py FOLDER --events 1000000 [--project examples/twelve_moments] [--seed 1]

Customers come in sessions. Fields take the values that conditions ask for, or others. About 30 % of the
events have names that no moment listens to, and what could begin a moment is rarer than other events. Of the
customers a tenth have two leaves that were joined, and half grant the purposes that need consent, of whom a
tenth withdraw. It is not what a shop sees, only what a fold has to read.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.random import Generator, default_rng

from hetki.engine.project import Project, load
from hetki.events.event import instant
from hetki.patterns import tree as t
from hetki.patterns.condition import Condition
from hetki.patterns.sequence import EventStep
from hetki.settings import DAY, SECOND
from hetki.store.lake import EVENTS, TABLES
from hetki.store.system import SystemDisk

ROOT = Path(__file__).parent.parent
TWELVE = ROOT / "examples" / "twelve_moments"
STARTED_AT = instant(datetime(2026, 3, 1, tzinfo=UTC))
DAYS = 30
EVENTS_EACH = 20
ROWS_A_FILE = 1_000_000
#: How often an event with which a moment could begin comes, against one that only goes on or ends it.
BEGINS = 0.25
OTHER_NAMES = ["Product List Viewed", "Product Clicked", "Screen Viewed", "Application Opened"]

Values = dict[tuple[str, str], tuple[t.Kind, list[object]]]


def values_of(project: Project) -> tuple[list[str], Values]:
    """The names that moments listen to; and for each field that conditions read, constants to choose from."""
    names: set[str] = set()
    values: Values = {}
    for moment in project.moments.values():
        pattern = moment.pattern
        names |= pattern.names
        bound = {step.index: [choice.event for choice in step.choices] for step in pattern.events}
        for step in pattern.steps:
            for choice in step.choices:
                _collect(choice.where, [choice.event], bound, values)
            by = None if isinstance(step, EventStep) else step.by
            if by is not None:
                for event in bound[step.anchor]:
                    values.setdefault((event, by), ("time", []))
        if pattern.repeat.once == "field":
            for event in bound[pattern.repeat.index]:
                values.setdefault((event, pattern.repeat.field), ("text", []))
    return sorted(names), values


def _collect(where: Condition | None, events: list[str], bound: dict[int, list[str]], values: Values) -> None:
    for node in t.walk(where.tree) if where is not None else ():
        parts = t.children(node)
        constants = [each.value for each in parts if isinstance(each, t.Constant)]
        for part in parts:
            if isinstance(part, (t.Field, t.StepField)):
                name = part.name.removeprefix("first.")
                for event in events if isinstance(part, t.Field) else bound[part.index]:
                    known = values.setdefault((event, name), (part.kind, []))[1]
                    known += [each for each in constants if each is not None and each not in known]


class Maker:
    """Batches of events, one after another."""

    def __init__(self, project: Project, n_events: int, seed: int) -> None:
        self.rng = default_rng(seed)
        self.names, self.values = values_of(project)
        self.all_names = [*self.names, *OTHER_NAMES]
        begins = {name for each in project.moments.values() for name in each.pattern.opening}
        weights = np.array([BEGINS if name in begins else 1.0 for name in self.names])
        others = [0.3 / len(OTHER_NAMES)] * len(OTHER_NAMES)
        self.shares = np.concatenate([0.7 * weights / weights.sum(), others])
        self.sources = sorted(project.sources)
        self.channels = [project.sources[name].channel for name in self.sources]
        self.consents = [name for name, each in sorted(project.purposes.items()) if each.basis == "consent"]
        self.n_events = n_events
        self.n_customers = max(10, n_events // EVENTS_EACH)
        self.leaves = hex_of(self.rng, 2 * self.n_customers)
        self.is_double = self.rng.random(self.n_customers) < 0.1

    def batches(self) -> Iterator[pa.Table]:
        done = 0
        while done < self.n_events:
            n = min(ROWS_A_FILE, self.n_events - done)
            yield self.batch(n, done, done + n == self.n_events)
            done += n

    def batch(self, n: int, done: int, is_last: bool) -> pa.Table:
        """Events in order of arrival. A customer is in one batch only."""
        rng = self.rng
        low = done * self.n_customers // self.n_events
        high = self.n_customers if is_last else (done + n) * self.n_customers // self.n_events
        customer = rng.integers(low, max(high, low + 1), n)
        session = rng.integers(0, 3, n)
        starts = STARTED_AT + (rng.random((max(high, low + 1) - low, 3)) * DAYS * DAY).astype(np.int64)
        at = starts[customer - low, session] + (rng.exponential(1200, n) * SECOND).astype(np.int64)
        at = at // 1000 * 1000
        order = np.argsort(at, kind="stable")
        customer, at = customer[order], at[order]
        number = rng.choice(len(self.all_names), n, p=self.shares)
        properties = np.empty(n, object)
        for place, name in enumerate(self.all_names):
            rows = np.flatnonzero(number == place)
            properties[rows] = self.properties(name, at[rows])
        names = np.array(self.all_names, object)[number]
        self.consented(customer, names, properties)
        second = self.is_double[customer] & (rng.random(n) < 0.5)
        source = rng.integers(0, len(self.sources), n)
        device = np.array(['{"device":{"type":"mobile"}}', '{"device":{"type":"desktop"}}', "{}"], object)
        columns = {
            "leaf": self.leaves[2 * customer + second],
            "event_id": hex_of(rng, n),
            "source": np.array(self.sources, object)[source],
            "message_id": hex_of(rng, n),
            "channel": np.array(self.channels, object)[source],
            "name": names,
            "occurred_at": at,
            "received_at": at + 2 * SECOND,
            "sequence": rng.integers(0, 20, n),
            "gpc": np.zeros(n, bool),
            "identifiers": np.full(n, "{}", object),
            "properties": properties,
            "context": device[rng.integers(0, 3, n)],
        }
        return pa.table([pa.array(columns[each.name]).cast(each.type) for each in EVENTS], schema=EVENTS)

    def consented(self, customer: np.ndarray, names: np.ndarray, properties: np.ndarray) -> None:
        """The first event of half of the customers grants, a later one of a tenth of those withdraws."""
        if not self.consents:
            return
        first = np.unique(customer, return_index=True)[1]
        chosen = first[self.rng.random(len(first)) < 0.5]
        purposes = self.rng.choice(self.consents, len(chosen))
        names[chosen] = "Consent Granted"
        properties[chosen] = [f'{{"purpose":"{each}"}}' for each in purposes]
        last = len(customer) - 1 - np.unique(customer[::-1], return_index=True)[1]
        gone = np.flatnonzero(np.isin(first, chosen) & (self.rng.random(len(first)) < 0.1) & (last > first))
        names[last[gone]] = "Consent Withdrawn"
        properties[last[gone]] = [f'{{"purpose":"{self.consents[0]}"}}' for _ in gone]

    def properties(self, name: str, at: np.ndarray) -> np.ndarray:
        """JSON objects: the fields that conditions read, and some that nobody does."""
        n, rng = len(at), self.rng
        parts: list[object] = ['{"n_of_nobody":', pa.array(rng.integers(0, 1000, n)).cast(pa.string())]
        for (event, field), (kind, constants) in sorted(self.values.items()):
            if event == name and field not in (
                "channel",
                "source",
                "device",
                "locale",
                "page_path",
                "occurred_at",
            ):
                parts += [f',"{field}":', self.column(kind, constants, at)]
        parts += [',"title":"', pa.array(hex_of(rng, n)), '","currency":"EUR","n_pages":3}']
        texts = [each if isinstance(each, pa.Array) else pa.scalar(each) for each in parts]
        joined = pc.binary_join_element_wise(*texts, "") if n else pa.array([], pa.string())
        return np.asarray(joined.to_numpy(zero_copy_only=False))

    def column(self, kind: t.Kind, constants: list[object], at: np.ndarray) -> pa.Array:
        n, rng = len(at), self.rng
        if kind == "number":
            found = [float(each) for each in constants if isinstance(each, (int, float))] or [0.0, 50.0]
            choices = np.array([*found, min(found) - 1, max(found) + 1, max(found) + 20])
            return pa.array(choices[rng.integers(0, len(choices), n)]).cast(pa.string())
        if kind == "boolean":
            return pa.array(np.array(["true", "false"], object)[rng.integers(0, 2, n)])
        if kind == "time":
            later = (at + rng.integers(1, 72, n) * 3600 * SECOND).astype("datetime64[us]")
            return pa.array([f'"{each}Z"' for each in later.astype("datetime64[s]").astype(str)])
        texts = [str(each) for each in constants if isinstance(each, str)]
        texts = [*texts, "other"] if texts else [f"id-{number:05}" for number in range(4)]
        return pa.array(np.array([f'"{each}"' for each in texts], object)[rng.integers(0, len(texts), n)])


def hex_of(rng: Generator, n: int) -> np.ndarray:
    """Random ids, as 32 hex digits."""
    digits = np.frombuffer(rng.bytes(16 * n).hex().encode(), "S32")
    return np.array(digits.astype(str), object)


def make(folder: Path, project: Project, n_events: int, seed: int = 1) -> None:
    """The lake's files below a data folder."""
    maker = Maker(project, n_events, seed)
    lake = folder / "lake"
    for number, table in enumerate(maker.batches()):
        bucket = pc.utf8_slice_codeunits(table["leaf"], 0, 1)
        month = pc.strftime(table["occurred_at"], "%Y-%m")
        for digit in "0123456789abcdef":
            mine = table.filter(pc.equal(bucket, digit))
            for each in sorted(set(pc.filter(month, pc.equal(bucket, digit)).to_pylist())):
                part = lake / "events" / f"bucket={digit}" / f"month={each}"
                part.mkdir(parents=True, exist_ok=True)
                rows = mine.filter(pc.equal(pc.strftime(mine["occurred_at"], "%Y-%m"), each))
                pq.write_table(rows, part / f"from-{number:012}.parquet", compression="zstd")
        print(f"made {number + 1} of {-(-n_events // ROWS_A_FILE)} million events", end="\r")
    _customers(lake, maker)


def _customers(lake: Path, maker: Maker) -> None:
    first, second = maker.leaves[0::2], maker.leaves[1::2][maker.is_double]
    owners = first[maker.is_double]
    spaces = np.array(["user_id"] * len(first) + ["anonymous_id"] * len(second), object)
    customers = [np.concatenate([first, second]), spaces, np.concatenate([first, owners])]
    n = len(second)
    linked = np.full(n, STARTED_AT - DAY)
    kinds, stands = np.full(n, "login", object), np.full(n, "stands", object)
    links = [hex_of(maker.rng, n), kinds, owners, second, linked, stands]
    for name, columns in (("customers", customers), ("links", links)):
        schema = TABLES[name][0]
        arrays = [pa.array(column).cast(field.type) for column, field in zip(columns, schema, strict=True)]
        pq.write_table(
            pa.Table.from_arrays(arrays, schema=schema), lake / f"{name}.parquet", compression="zstd"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--project", type=Path, default=TWELVE)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    make(given.folder, load(SystemDisk(given.project)), given.events, given.seed)


if __name__ == "__main__":
    main()
