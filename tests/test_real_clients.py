"""The real SDKs against a running server that fails at first: no event lost, none doubled.

Each client meets, in this order, a 500, an answer that is lost after the commit, a 429, and a connection
that is cut before the commit. Their own retry logic has to bring every event in; what comes twice must
carry the same message id, so that deduplication by (source, message id) leaves exactly one.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rudderstack.analytics.client
import segment.analytics.client
import uvicorn
from keyed import keyed

from hetki.consent.source import Source, admitted
from hetki.events.event import Event
from hetki.events.wire import Parsed
from hetki.server.committer import Committer
from hetki.server.ingest import Ingest
from hetki.settings import Limits
from hetki.store.system import SystemClock

CLIENTS = Path(__file__).parent / "clients"
SOURCE = Source(source="shop", channel="web", purposes=["service"], write_keys=keyed("key-shop"))
KEY = "key-shop"
N_TRACKS = 230
PLAN = ("500", "lost answer", "429", "cut")


class Flaky:
    """An ASGI app before the real one: follows `plan` for the first requests, then steps aside."""

    def __init__(self, app: Ingest) -> None:
        self.app = app
        self.plan = list(PLAN)
        self.met: list[str] = []
        self.encodings: set[str] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope["headers"])
        self.encodings.add(headers.get(b"content-encoding", b"").decode())
        todo = self.plan.pop(0) if self.plan else "pass"
        self.met.append(todo)
        if todo == "pass":
            await self.app(scope, receive, send)
        elif todo == "lost answer":
            await self.app(scope, receive, _nowhere)
            send.__self__.transport.abort()
        elif todo == "cut":
            send.__self__.transport.abort()
        else:
            retry = [(b"retry-after", b"1")] if todo == "429" else []
            await send({"type": "http.response.start", "status": int(todo), "headers": retry})
            await send({"type": "http.response.body", "body": b'{"code":"unavailable","message":"a test"}'})


async def _nowhere(message: Any) -> None:
    pass


class Server:
    """A running server with what it committed."""

    def __init__(self) -> None:
        self.bodies: list[Parsed] = []
        self.committer = Committer(self.bodies.extend)
        self.flaky = Flaky(Ingest(admitted([SOURCE]), self.committer, SystemClock(), Limits()))
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(self.flaky, lifespan="off", log_level="warning"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listening]})

    def start(self) -> None:
        self.committer.start()
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.listening.close()
        self.committer.stop()

    def once(self) -> dict[str, Event]:
        """What deduplication by message id leaves of the one source; a repeat must say the same."""
        events: dict[str, Event] = {}
        for parsed in self.bodies:
            assert parsed.rejected == [], "a real client's event is never rejected"
            for event in parsed.events:
                first = events.setdefault(event.message_id, event)
                same = (first.name, first.identifiers, first.properties)
                assert same == (event.name, event.identifiers, event.properties)
        return events


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.start()
    yield server
    server.stop()


def send_all(client: Any) -> None:
    """One call of each kind and many tracks: both Python clients have the same methods."""
    client.identify(
        user_id="u", traits={"email": "py@example.com", "city": "Jyväskylä"}, message_id="identify"
    )
    client.alias(previous_id="a", user_id="u", message_id="alias")
    client.group(user_id="u", group_id="g", traits={"plan": "family"}, message_id="group")
    client.page(anonymous_id="a", name="Home", message_id="page")
    client.screen(anonymous_id="a", name="Menu", message_id="screen")
    for n in range(N_TRACKS):
        client.track(user_id="u", event="Order Completed", properties={"n": n}, message_id=f"track-{n}")
    client.shutdown()


def check(server: Server, user_id: str, anonymous_id: str) -> None:
    """Every event is there, under its name, with its ids; the trouble was really met."""
    assert server.flaky.met[: len(PLAN)] == list(PLAN)
    events = server.once()
    assert Counter(event.name for event in events.values()) == {
        "Order Completed": N_TRACKS,
        "Customer Identified": 1,
        "Customer Aliased": 1,
        "Account Joined": 1,
        "Page Viewed": 1,
        "Screen Viewed": 1,
    }
    assert {json.loads(events[f"track-{n}"].properties)["n"] for n in range(N_TRACKS)} == set(range(N_TRACKS))
    assert sum(len(parsed.events) for parsed in server.bodies) > len(events), (
        "the lost answer brought repeats"
    )
    identified = events["identify"]
    assert identified.identifiers["user_id"] == user_id and "@example.com" in identified.identifiers["email"]
    assert json.loads(identified.properties)["city"] == "Jyväskylä"
    assert events["alias"].identifiers == {"user_id": user_id, "previous_id": anonymous_id}
    assert events["group"].identifiers["group_id"].startswith("g")
    assert events["page"].identifiers == {"anonymous_id": anonymous_id}
    assert json.loads(events["page"].properties)["name"] == "Home"
    assert {(event.source, event.channel) for event in events.values()} == {("shop", "web")}
    for event in events.values():
        assert 0 <= event.received_at - event.occurred_at < 60_000_000, "skew of one machine is nothing"


@pytest.mark.parametrize("packed", [True, False], ids=["gzip", "plain"])
def test_segment_analytics_python(server: Server, packed: bool) -> None:
    failed: list[object] = []
    client = segment.analytics.client.Client(
        KEY, host=server.address, gzip=packed, on_error=lambda error, batch: failed.append(error)
    )
    send_all(client)
    assert failed == []
    assert server.flaky.encodings == {"gzip" if packed else ""}
    check(server, "u", "a")


def test_rudder_sdk_python(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    # It waits a random time before it tries again, up to many seconds: here none.
    monkeypatch.setattr("backoff._jitter.random", SimpleNamespace(uniform=lambda least, most: least))
    failed: list[object] = []
    client = rudderstack.analytics.client.Client(
        KEY, host=server.address, on_error=lambda error, batch: failed.append(error)
    )
    send_all(client)
    assert failed == []
    assert server.flaky.encodings == {"gzip"}
    check(server, "u", "a")


def test_segment_analytics_node(server: Server) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if not (CLIENTS / "node_modules" / "@segment" / "analytics-node").exists():
        pytest.skip("tests/clients/node_modules is absent: run npm ci in tests/clients")
    ran = subprocess.run(
        [node, "segment_node.mjs", server.address, KEY, str(N_TRACKS)],
        cwd=CLIENTS,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {"errors": []}
    check(server, "u-node", "a-node")
