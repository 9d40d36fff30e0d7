"""A dead destination costs the others nothing: each has its own queue, budget, breaker and thread."""

from __future__ import annotations

import importlib.util
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from serving import eventually
from world import SECRET, World, action, at, moment, project

from hetki.engine.engine import Engine, open_engine, open_folder
from hetki.server import worker
from hetki.server.watch import Watch
from hetki.settings import SECOND
from hetki.simulation.world import LocalNet, SimulatedClock
from hetki.store.ports import Sent
from hetki.store.system import SystemDisk

BENCH = Path(__file__).parent.parent / "bench" / "destinations.py"
GOOD, DEAD = ("good_1", "good_2"), ("silent", "refusing", "broken")
#: What a destination answers, and after how many seconds.
ANSWERS = {
    "silent": (Sent(False, 0, "timed out"), 10.0),
    "refusing": (Sent(False, 0, "connection refused"), 0.001),
    "broken": (Sent(False, 500, "status 500"), 0.05),
    "good_1": (Sent(True, 200), 0.05),
    "good_2": (Sent(True, 200), 0.05),
}
#: Messages that wait for each destination, and how long they are sent.
N_WAITING, SPAN_S = 150, 12
DESTINATION = """
[destinations.{name}]
kind = "webhook"
url = "http://localhost:9/{name}"
inside = ["localhost"]
secret = "{secret}"
per_s = 10
"""


# -- counts, in virtual time


class Lane:
    """A thread of the worker that delivers, on a clock of its own: it waits alone for its destination."""

    def __init__(self, world: World, names: tuple[str, ...]) -> None:
        self.clock = SimulatedClock(world.clock.now())
        self.names = names
        self.arrived: Counter[str] = Counter()
        self._ends = self.clock.now() + SPAN_S * SECOND
        self._net = LocalNet(self._post)
        self._engine: Engine = open_engine(
            world.engine.project, world.disk, self.clock, world.chance, world.environment
        )

    def runs(self) -> bool:
        return self.clock.now() < self._ends

    def turn(self) -> None:
        """What a thread does between two rests, and the rest."""
        self.clock.sleep(max(worker._deliver(self._engine, each, self._net) for each in self.names))

    def _post(self, url: str, headers: dict[str, str], body: bytes) -> Sent:
        name = url.rpartition("/")[2]
        sent, took_s = ANSWERS[name]
        self.clock.sleep(took_s)
        self.arrived[name] += sent.ok and self.clock.now() <= self._ends
        return sent


def arrived(names: tuple[str, ...], has_lanes: bool = True) -> int:
    """How many messages arrive at good destinations in the span, while as many wait for each of these."""
    files = {}
    toml = ""
    for name in names:
        toml += DESTINATION.format(name=name, secret=SECRET)
        asks = f"a: Help Searched where query = '{name}'"
        files |= action(name, destination=name) | moment(name, asks, name, more="expires: 2 days")
    world = World(project(files, toml), starts="10:00")
    world.tell(
        "\n".join(
            f"10:00 web u={name}-{number} Help Searched query={name}"
            for name in names
            for number in range(N_WAITING)
        )
    )
    world.advance()
    assert len(world.outbox()) == len(names) * N_WAITING and world.clock.now() == at("10:00")
    lanes = [Lane(world, (name,)) for name in names] if has_lanes else [Lane(world, names)]
    while running := [lane for lane in lanes if lane.runs()]:
        min(running, key=lambda lane: lane.clock.now()).turn()
    return sum(lane.arrived[name] for lane in lanes for name in GOOD)


def test_dead_destinations_cost_the_others_less_than_a_tenth() -> None:
    alone = arrived(GOOD)
    assert 100 < alone < len(GOOD) * N_WAITING, "there was more to send than time"
    assert arrived(GOOD + DEAD) > 0.9 * alone
    assert arrived(GOOD + DEAD, has_lanes=False) < 0.9 * alone, "one thread for all would be seen"


# -- the worker's own threads


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_destinations", BENCH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def port(bench: ModuleType) -> Iterator[int]:
    """Of a receiver that keeps what comes to good destinations, and answers 500 for the broken one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), bench.Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def test_all_arrives_while_one_destination_holds_its_first_message(
    bench: ModuleType, port: int, tmp_path: Path
) -> None:
    n = 10
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and never answers
        ports = dict.fromkeys((*GOOD, "broken"), port) | {"silent": silent.getsockname()[1]}
        urls = {name: f"http://127.0.0.1:{at}/{name}" for name, at in ports.items()}
        bench.prepare(tmp_path, urls, n, timeout_s=60)
        engine = open_folder(str(tmp_path))
        stop = threading.Event()
        watch = Watch(SystemDisk(tmp_path), "data")
        thread = threading.Thread(target=worker._work_under, args=(engine, watch, stop))
        thread.start()
        try:
            eventually("what good destinations get", lambda: len(bench.Handler.arrived) == len(GOOD) * n)
            found = engine.db.execute("SELECT count(*) FROM outbox WHERE status = 'claimed'").fetchone()
            tried = engine.db.execute(
                "SELECT count(*) FROM attempts JOIN outbox USING (message_id) WHERE destination = 'silent'"
            ).fetchone()
            assert found[0] >= 1 and tried == (0,), "the silent one still holds its first message"
        finally:
            stop.set()
            silent.close()
            thread.join()
