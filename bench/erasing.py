"""Erasing a customer: how long each step takes, as the number of customers and events grows.

    python bench/erasing.py DIR 250000 500000 1000000

One project is built in DIR (a new folder) through accepting and folding: 100 events of each customer over a
year, and a decision for one event in twenty. At each number of events the lake is brought up to date, and
three customers are erased: a plain one, one with a thousand events, and one who shares an address with twenty
others. Each step is timed, in seconds of CPU as the machine is shared, and the whole by the clock, too: who
it is (`asked`), what nobody can read from then on (`said`), projections and ledger (`folded`), the keys, the
lake, the emptied logs, older copies of rows (`wiped`) and the receipt. At the end: what accepting costs once
somebody was erased.
"""

from __future__ import annotations

import argparse
import random
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from hetki.engine import erase as erasing
from hetki.engine.advance import advance
from hetki.engine.engine import Engine, open_engine
from hetki.engine.project import load
from hetki.events.event import Event, instant
from hetki.events.wire import Parsed
from hetki.identity.identifier import identifier
from hetki.settings import DAY, SECOND
from hetki.simulation.world import SimulatedClock
from hetki.store.lake import refresh
from hetki.store.secrets import Secrets
from hetki.store.system import SystemChance, SystemDisk, collect_rarely

BEGINS = instant(datetime(2026, 1, 1, tzinfo=UTC))
EACH = 100
N_BODY = 500
FILES = {
    "hetki.toml": """
[hetki]
name = "Erasing"
[purposes.service]
title = "What you came for"
basis = "contract"
[destinations.app]
kind = "webhook"
url = "https://example.com/messages"
secret = "env:NOT_SET"
""",
    "sources/web.yaml": "source: web\nchannel: web\npurposes: [service]\n",
    "initiatives/help.yaml": "initiative: help\ntitle: h\nowner: t\nhorizon: mainstream\n",
    "actions/call.yaml": (
        "action: call\ntitle: c\npurpose: service\ndestination: app\ntemplate: call\nvalue: {customer: 4}\n"
    ),
    "templates/call.liquid": "Hello.",
    "moments/vain.yaml": """
moment: vain
title: t
owner: t
initiative: help
purpose: service
identify:
  need: "?"
  steps: [{searched: Help Searched where n_results = 0}]
  expires: 900 days
design: {answers: [call]}
analyse: {solved: no Contact Started within 24 hours, holdout: 20%}
""",
}
OTHER = ("Page Viewed", "Product Viewed", "Product Added", "Order Completed", "Help Viewed")


def event(number: int, who: str, occurred_at: int, identifiers: dict[str, str] | None = None) -> Event:
    """One event; one in twenty is a search in vain, which is answered."""
    name = "Help Searched" if number % 20 == 0 else OTHER[number % len(OTHER)]
    told = {"user_id": who, "anonymous_id": f"browser of {who}", **(identifiers or {})}
    text = b'{"n_results":0,"product_id":"p%d","text":"%s"}' % (number % 997, b"x" * 60)
    return Event("web", f"m{number}", "web", name, occurred_at, occurred_at, told, text)


def ordinary(n_from: int, n_to: int) -> Iterator[list[Event]]:
    """The events of a year in the order of their time, body by body; customers grow with the events."""
    dice = random.Random(n_from)
    step = 365 * DAY // 2 // max(n_to - n_from, 1)
    began = BEGINS + (365 * DAY // 2 if n_from else 0)
    body: list[Event] = []
    for number in range(n_from, n_to):
        who = dice.randrange(n_from // EACH, n_to // EACH)
        body.append(event(number, f"u{who}", began + (number - n_from) * step))
        if len(body) == N_BODY:
            yield body
            body = []
    if body:
        yield body


def of_the_erased(n: int, now: int) -> list[list[Event]]:
    """A plain customer, one with a thousand events, and one who shares an address with twenty others."""
    ids = count(10**12 + n * 10_000)
    plain = [event(next(ids), f"plain {n}", now - k * DAY) for k in range(1, EACH)]
    large = [event(next(ids), f"large {n}", now - k * 1_000 * SECOND) for k in range(1, 10 * EACH)]
    shared = [
        event(next(ids), f"{who} {n}", now - k * DAY, {"email": f"family{n}@example.com"})
        for who in ("shared", *(f"other {k}" for k in range(20)))
        for k in range(1, EACH)
    ]
    return [sorted(each, key=lambda one: one.occurred_at) for each in (plain, large, shared)]


Times = dict[str, float]


#: The steps of an erasure by the functions that take them, where they are called.
STEPS = {
    "asked": (erasing, "erasure_of"),
    "said": (erasing, "take_secrets"),
    "folded": (erasing, "catch_up"),
    "keys": (Secrets, "destroy"),
    "lake": (erasing, "forget_in_lake"),
    "logs": (erasing, "empty_logs"),
    "wiped": (erasing, "wipe"),
    "receipt": (erasing, "sign"),
}


def erase(engine: Engine, who: str) -> Times:
    """How long an erasure takes, and each of its steps."""
    times: Times = {}
    found = identifier(engine.keys.node, "user_id", who)
    assert found is not None
    (customer,) = set(engine.state.customers_of([found.node]).values())
    with ExitStack() as stack:
        for step, (owner, name) in STEPS.items():
            stack.enter_context(timing(times, step, owner, name))
        began, clock = spent(), time.perf_counter()
        erasing.erase(engine, customer, "bench")
        times["all"] = spent() - began
        times["clock"] = time.perf_counter() - clock
    return times


def spent() -> float:
    """Seconds of CPU of this process, and of those that it has run."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@contextmanager
def timing(times: Times, step: str, owner: object, name: str) -> Iterator[None]:
    """Time every call of a function while the block runs."""
    was = getattr(owner, name)
    times[step] = 0.0

    def timed(*given: object) -> object:
        began = spent()
        try:
            return was(*given)
        finally:
            times[step] += spent() - began

    setattr(owner, name, timed)
    try:
        yield
    finally:
        setattr(owner, name, was)


def accepting(engine: Engine, n: int) -> float:
    """Microseconds of CPU for each event that is accepted."""
    now = engine.clock.now()
    dice = random.Random(n)
    bodies = [
        [event(n + k, f"sender {dice.randrange(1_000)}", now) for k in range(start, start + N_BODY)]
        for start in range(0, 20_000, N_BODY)
    ]
    best = float("inf")
    for _ in range(3):
        began = spent()
        for body in bodies:
            engine.acceptor.accept([Parsed(body, [])])
        best = min(best, spent() - began)
    return best / 20_000 * 1e6


def opened(folder: Path) -> Engine:
    for name, text in FILES.items():
        file = folder / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    project = load(SystemDisk(folder / "project"))
    disk = SystemDisk(folder / "data", durable=False)
    return open_engine(project, disk, SimulatedClock(BEGINS), SystemChance(), {})


def say(what: str, times: Times) -> None:
    print(f"  {what:8}" + "".join(f"  {step} {seconds:7.3f}" for step, seconds in times.items()), flush=True)


def grow(engine: Engine, n_from: int, n_to: int) -> None:
    """Accept and fold so many events more."""
    for number, body in enumerate(ordinary(n_from, n_to)):
        engine.clock.move(body[-1].received_at)
        engine.acceptor.accept([Parsed(body, [])])
        if number % 20 == 19:
            advance(engine)
    advance(engine)


def main() -> None:
    parser = argparse.ArgumentParser(description="Erasing a customer, step by step, at growing sizes.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("sizes", type=int, nargs="+")
    asked = parser.parse_args()
    collect_rarely()
    engine = opened(asked.folder)
    print(f"before any erasure: {accepting(engine, 10**9):.2f} us of CPU to accept an event")
    n_before = 0
    for n in asked.sizes:
        began = time.perf_counter()
        grow(engine, n_before, n)
        for body in of_the_erased(n, engine.clock.now()):
            engine.acceptor.accept([Parsed(body, [])])
        advance(engine)
        built_s = time.perf_counter() - began
        began = time.perf_counter()
        refresh(engine.disk, engine.journal, engine.state)
        n_decisions = engine.db.execute("SELECT count(*) FROM decisions").fetchone()[0]
        n_customers = engine.state.counts()["customers"]
        print(
            f"{n:,} events, {n_customers:,} customers, {n_decisions:,} decisions; built in {built_s:,.0f} s,"
            f" lake in {time.perf_counter() - began:,.1f} s"
        )
        for who in ("plain", "large", "shared"):
            say(who, erase(engine, f"{who} {n}"))
        n_before = n
    print(f"after erasures: {accepting(engine, 10**10):.2f} us of CPU to accept an event")


if __name__ == "__main__":
    main()
