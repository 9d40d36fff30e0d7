"""Make the data of the benches: Segment calls as JSON Lines, one line per HTTP body of `--batch` calls.

    python bench/make_data.py DATA --events 200000

The calls are a simulated chain of restaurants (`hetki.simulation`): about 10 % of the customers merge
fragments, about 1 % of the events are late. Each line is one body for `/v1/batch`; `received_at` beside it
says when it would have arrived (microseconds).
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from hetki.events.event import instant
from hetki.settings import DAY, SECOND
from hetki.simulation.restaurants import Restaurants

STARTED_AT = instant(datetime(2026, 3, 1, tzinfo=UTC))
EVENTS_PER_CUSTOMER = 23


class Line(msgspec.Struct, frozen=True):
    """One line of the data: a body, and when it would have arrived."""

    received_at: int
    source: str
    body: msgspec.Raw


class Body(msgspec.Struct):
    """A body of `/v1/batch` as the simulation makes it. Calls of one source are sent on together, without
    `sentAt`, which would shift their times by the waiting."""

    batch: list[msgspec.Raw]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    n_customers = max(100, given.events // EVENTS_PER_CUSTOMER)
    world = Restaurants(given.seed, n_customers, STARTED_AT, 30)
    waiting: dict[str, list[msgspec.Raw]] = {}
    n = 0
    with given.data.open("wb") as file:
        for now in range(STARTED_AT, STARTED_AT + 38 * DAY, 900 * SECOND):
            for arrived in world.until(now):
                try:
                    body = msgspec.json.decode(arrived.body, type=Body)
                except msgspec.MsgspecError:
                    continue
                key = arrived.source
                waiting.setdefault(key, []).extend(body.batch)
                while len(waiting[key]) >= given.batch:
                    calls, waiting[key] = waiting[key][: given.batch], waiting[key][given.batch :]
                    line = Line(now, arrived.source, msgspec.Raw(msgspec.json.encode({"batch": calls})))
                    file.write(msgspec.json.encode(line) + b"\n")
                    n += len(calls)
    print(f"{n} calls of {n_customers} customers in {given.data}")


if __name__ == "__main__":
    main()
