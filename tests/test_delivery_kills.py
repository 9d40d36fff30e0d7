"""kill -9 around claim, send and receipt: every message arrives, repeats have its id, one effect is seen.

A real receiver over HTTP, real databases, and workers that die at a point that is drawn, or because the
receiver kills them in the middle of an exchange.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from delivery_life import INSIDE, declared
from receiving import Receiver
from world import at, clock, event

from hetki.engine.advance import advance
from hetki.engine.deliver import CLAIM_S, deliver
from hetki.engine.engine import Engine, open_engine
from hetki.engine.folding import read_event
from hetki.engine.rebuilding import rebuild
from hetki.events.event import Event
from hetki.events.wire import Parsed
from hetki.simulation.world import SimulatedClock
from hetki.store.journal import Kind
from hetki.store.network import SystemNet
from hetki.store.system import SystemChance, SystemDisk

N_KILLS = 50
#: `make torture` sets the share of the full number: 1,000 kills.
N_ROUNDS = max(1, round(1_000 / N_KILLS * float(os.environ.get("HETKI_TORTURE", "0"))))
#: Points of about three messages.
POINTS_MAX = 36


class Workers:
    """Workers that live one after the other, each until it dies or nothing is left to be sent."""

    def __init__(self) -> None:
        paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("delivery_life.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
            text=True,
        )
        assert self._heard() == "ready"

    def live(self, receiver: Receiver, **given: object) -> int:
        """One worker; its exit code, or minus the signal that ended it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(given) + "\n")
        self._process.stdin.flush()
        receiver.victim = int(self._heard())
        ended = int(self._heard())
        receiver.victim = 0
        return ended

    def _heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def stop(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    found = Workers()
    yield found
    found.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver(seed=3)
    yield found
    found.stop()


@pytest.mark.parametrize("number", range(N_ROUNDS))
def test_killed_around_claim_send_and_receipt_every_message_has_one_effect(
    number: int, workers: Workers, receiver: Receiver, tmp_path: Path
) -> None:
    dice = random.Random(number)
    url = f"http://127.0.0.1:{receiver.port}/messages"
    time = SimulatedClock(at("08:00"))
    disk = SystemDisk(tmp_path, durable=False)
    engine = open_engine(declared(url), disk, time, SystemChance(), {})
    ended: Counter[int] = Counter()
    n_told = 0
    while ended[-9] < N_KILLS:
        n_waiting = engine.db.execute(
            "SELECT count(*) FROM outbox WHERE status IN ('waiting', 'claimed')"
        ).fetchone()[0]
        for _ in range(max(0, 3 - n_waiting)):
            line = f"{clock(time.now())} web u=u{n_told} id=e{n_told} Help Searched n_results=0"
            engine.acceptor.accept([Parsed([event(line)], [])])
            n_told += 1
        advance(engine)
        given = {"url": url, "at": time.now(), "n_points": dice.randint(1, POINTS_MAX)}
        ended[workers.live(receiver, folder=str(tmp_path), **given)] += 1
        assert set(ended) <= {0, -9}, ended
        time.sleep(CLAIM_S + 1)
    deliver_the_rest(engine, time)
    every_message_has_one_effect(engine, receiver, n_told)
    print(
        {
            "messages": n_told,
            "killed": ended[-9],
            "by the receiver": receiver.n_killed,
            "repeats": receiver.n_repeats,
        }
    )


def deliver_the_rest(engine: Engine, time: SimulatedClock) -> None:
    """A worker that nobody kills."""
    for _ in range(60):
        advance(engine)
        deliver(engine, SystemNet(INSIDE), "app")
        (due_at,) = engine.db.execute(
            "SELECT min(due_at) FROM outbox WHERE status IN ('waiting', 'claimed')"
        ).fetchone()
        if due_at is None:
            break
        time.move(due_at)
        time.sleep(15)  # longer than a pause of the breaker
    advance(engine)


def every_message_has_one_effect(engine: Engine, receiver: Receiver, n_told: int) -> None:
    """No message is missing, none was changed, and one event tells of each."""
    outbox = engine.db.execute("SELECT message_id, decision_id, status FROM outbox").fetchall()
    assert {row[2] for row in outbox} == {"sent"}
    assert len(outbox) == n_told and set(receiver.effects) == {row[0] for row in outbox}
    data = {each: msgspec.json.decode(body)["data"] for each, body in receiver.effects.items()}
    assert all(data[row[0]]["decision_id"] == row[1] for row in outbox)
    assert {each["recipient"] for each in data.values()} == {f"u{number}" for number in range(n_told)}
    assert receiver.wrong == [] and receiver.n_repeats > 0 and receiver.n_killed > 0
    entries = [each for each in engine.journal.read(0, 10**9) if each.kind is Kind.EVENT]
    told = {each.event_id: read_event(each) for each in entries}
    own = [each for each in told.values() if isinstance(each, Event) and each.source == "hetki"]
    assert {each.name for each in own} == {"Message Sent"}
    deeds = Counter(msgspec.json.decode(each.properties)["decision_id"] for each in own)
    assert deeds == Counter(row[1] for row in outbox)
    went_well = engine.db.execute("SELECT message_id FROM attempts WHERE ok").fetchall()
    assert sorted(went_well) == sorted((row[0],) for row in outbox)
    rebuilt = rebuild(engine)
    assert rebuilt.before == rebuilt.after
