"""What a request, and a failure, leave behind: nothing that waits for the collector of cycles, which both
processes run rarely.

A cycle keeps what it holds until the collector comes, and a body of megabytes counts there like an empty
one: whoever sends many could fill the memory. One connection for each request, against the true protocol.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from keyed import keyed
from serving import eventually, n_stores_open

from hetki.consent.source import Source, admitted
from hetki.engine.engine import Engine, open_folder
from hetki.engine.skeleton import skeleton
from hetki.errors import Fault, Unavailable
from hetki.events.wire import Parsed
from hetki.server import serve, trouble, worker
from hetki.server.committer import Committer
from hetki.server.ingest import Ingest
from hetki.server.rates import Rates
from hetki.server.threads import start_threads
from hetki.server.watch import Watch
from hetki.settings import Connections, Limits, Server
from hetki.simulation.world import SimulatedClock
from hetki.store.network import SystemNet
from hetki.store.system import SystemDisk

N_REQUESTS = 10
LIMITS = Limits(body_bytes_max=1_000_000, inflated_bytes_max=2_000_000)
WEB = Source(source="web", channel="site", purposes=[], write_keys=keyed("key-web"))
CALL = {"type": "track", "messageId": "m1", "userId": "u", "event": "Order Completed"}


def body(key: str = "key-web", padding: int = 0) -> bytes:
    return json.dumps({"batch": [CALL], "writeKey": key, "padding": "x" * padding}).encode()


def request(sent: bytes, headers: str = "", length: int | None = None) -> bytes:
    n_bytes = len(sent) if length is None else length
    return f"POST /v1/batch HTTP/1.1\r\nhost: x\r\n{headers}content-length: {n_bytes}\r\n\r\n".encode() + sent


FULL = Fault("journal", "a full disk", "one with room")
PACKED = "content-encoding: gzip\r\n"
#: For a status: the sender leaves before there is an answer, and in the second case as if cut off.
LEAVES, BREAKS_OFF = 0, -1
#: What is sent, and the status of the answer, or of the answers to all of it.
ASKED: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", LEAVES),
    "an event": (request(body()), 200),
    "two events, one behind the other": (request(body()) * 2, 200),
    "an event, and nobody waits for the answer": (request(body()), BREAKS_OFF),
    "half a head": (request(body())[:30], BREAKS_OFF),
    "an event, and the connection ends": (request(body(), "connection: close\r\n"), 200),
    "a large body": (request(body(padding=400_000)), 200),
    "no such path": (b"GET /v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n", 404),
    "no HTTP": (b"no HTTP\r\n\r\n", 400),
    "a long address": (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414),
    "an unknown key in a header": (request(body(), "authorization: Bearer nobody\r\n"), 401),
    "an unknown key in the body": (request(body("nobody")), 401),
    "an unknown key in a large body": (request(body("nobody", padding=400_000)), 401),
    "no JSON": (request(b"{", "authorization: Bearer key-web\r\n"), 400),
    "a large body that is no JSON": (request(b"{" * 400_000, "authorization: Bearer key-web\r\n"), 400),
    "more than may be inflated": (request(gzip.compress(b" " * 3_000_000), PACKED), 413),
    "more than a body may be": (request(b" " * 9_999, length=9_999_999), 413),
    "half a body": (request(body()[:-9], length=len(body())), LEAVES),
    "what fails to be committed": (request(body()), 503),
}  # fmt: skip


class House:
    """A server in this process; commits fail while `is_full`."""

    def __init__(self) -> None:
        self.is_full = False
        self._config = serve._config("127.0.0.1", Connections(), Server())
        self._committer = Committer(self._commit)
        rates = Rates(Server(refused_per_s=10_000))
        clock = SimulatedClock(10**15)
        self._config.app = Ingest(admitted([WEB]), self._committer, clock, LIMITS, rates)
        self._server = serve.uvicorn.Server(self._config)
        self._listening = socket.create_server(("127.0.0.1", 0))

    def hear(self, story: Callable[[], None]) -> None:
        """Have a story told in a thread of its own while the server runs, in the event loop that it has."""

        async def heard() -> None:
            self._committer.start()
            await start_threads()
            serving = asyncio.ensure_future(self._server._serve([self._listening]))
            try:
                await asyncio.to_thread(story)
            finally:
                self._server.should_exit = True
                await serving
                self._committer.stop()

        with asyncio.Runner(loop_factory=self._config.get_loop_factory()) as runner:
            runner.run(heard())

    def ask(self, sent: bytes, status: int) -> None:
        n_answers = max(1, sent.count(b" HTTP/1.1\r\n"))
        with socket.create_connection(self._listening.getsockname(), 30) as line:
            line.sendall(sent)
            if status == BREAKS_OFF:
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            answer = b""
            while status > 0 and not (answer.count(b"HTTP/1.1 ") == n_answers and answer.endswith(b"}")):
                more = line.recv(9_999)
                assert more, answer
                answer += more
        assert answer.count(f"HTTP/1.1 {status} ".encode()) == (n_answers if status > 0 else 0), answer

    def is_quiet(self) -> bool:
        return not self._server.server_state.connections and not self._server.server_state.tasks

    def _commit(self, group: list[Parsed]) -> None:
        if self.is_full:
            raise Unavailable(FULL)


@pytest.fixture
def without_collector() -> Iterator[None]:
    """What is there already is not looked at again."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


@pytest.mark.usefixtures("without_collector")
def test_nothing_of_a_request_waits_for_the_collector() -> None:
    house = House()
    left: dict[str, int] = {}

    def story() -> None:
        for name, (sent, status) in ASKED.items():
            house.is_full = status == 503
            for n in range(2 + N_REQUESTS):
                if n == 2:  # the first ones load what is loaded once
                    eventually("every connection closed", house.is_quiet)
                    gc.collect()
                house.ask(sent, status)
            eventually("every connection closed", house.is_quiet)
            left[name] = gc.collect()

    house.hear(story)
    assert {name: n for name, n in left.items() if n >= N_REQUESTS} == {}
    assert left.keys() == ASKED.keys()


@pytest.mark.usefixtures("without_collector")
def test_nothing_of_a_message_that_could_not_be_sent_waits_for_the_collector() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    def nobody(name: str) -> list[str]:
        raise OSError(f"no {name}")

    for net, host, why in (
        (SystemNet(["127.0.0.1"]), "127.0.0.1", "connection refused"),
        (SystemNet(resolve=nobody), "nobody.example", "OSError"),
    ):
        for n in range(2 + N_REQUESTS):
            if n == 2:
                gc.collect()
            assert net.post(f"http://{host}:{port}/", {}, b"{}", 30).detail == why
        assert gc.collect() < N_REQUESTS, why


@pytest.mark.usefixtures("without_collector")
def test_nothing_of_a_look_at_the_folder_waits_for_the_collector(tmp_path: Path) -> None:
    """Twice a second, as long as the project is served."""
    for name, text in skeleton("Shop").items():
        SystemDisk(tmp_path).write(name, text.encode())
    engine = open_folder(str(tmp_path))
    watch = Watch(SystemDisk(tmp_path), "data")
    for _ in range(3):  # it is checked
        watch.look(engine)
    gc.collect()
    for _ in range(N_REQUESTS):
        watch.look(engine)
    assert gc.collect() < N_REQUESTS
    engine.close()


@pytest.mark.usefixtures("without_collector")
def test_a_loop_that_fails_again_and_again_keeps_no_store_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one was reading when it failed would also stand in the way of an erasure."""
    monkeypatch.setattr(trouble, "AGAIN_S", 0.0)
    for name, text in skeleton("Shop").items():
        SystemDisk(tmp_path).write(name, text.encode())
    n_before = n_stores_open()
    engine, over, n_open = open_folder(str(tmp_path)), threading.Event(), []

    def fail(opened: Engine) -> float:
        n_open.append(n_stores_open())
        reading = opened.db.execute("SELECT name FROM sqlite_schema")
        reading.fetchone()
        if len(n_open) == 5:
            over.set()
        raise Unavailable(FULL)

    worker._loop(engine, "lake", fail, over)
    assert n_open[0] > n_before and set(n_open) == {n_open[0]}
    engine.close()
    assert n_stores_open() == n_before
