"""Dead destinations: what they cost the others. Messages a second at good ones, without and with dead ones.

    python bench/destinations.py       (--messages 1000, --rounds 3)

A worker as `hetki serve` starts it, in a process of its own on a project of its own, delivers what waits for
two good destinations and for three dead ones, as much for each: one that accepts and never answers, one that
refuses connections, one that answers 500. All are real HTTP receivers in another process. In every other run
what waits for the dead ones waits until tomorrow, so that the stores are the same and nothing is tried there.
Both run by turns; the rate is taken from the first arrival at a good destination to the last of all.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import ClassVar

import msgspec

from hetki.engine.advance import advance
from hetki.engine.engine import open_folder
from hetki.events.event import Event
from hetki.events.wire import Parsed
from hetki.server.worker import work
from hetki.settings import DAY

GOOD = ("good_1", "good_2")
DEAD = ("silent", "refusing", "broken")
SECRET = "whsec_aGV0a2ktYmVuY2gtaGV0a2ktYmVuY2gtaGV0a2k="

SETTINGS = """
[hetki]
name = "Bench"
[purposes.service]
title = "What you came for"
basis = "contract"
"""
DESTINATION = """
[destinations.{name}]
kind = "webhook"
url = "{url}"
inside = ["localhost"]
secret = "{secret}"
timeout_s = {timeout_s}
per_s = 1000
"""
SOURCE = "source: web\nchannel: web\npurposes: [service]\n"
INITIATIVE = "initiative: help\ntitle: h\nowner: t\nhorizon: mainstream\n"
ACTION = """
action: {name}
title: c
purpose: service
destination: {name}
template: call
value: {{customer: 4}}
"""
MOMENT = """
moment: for_{name}
title: t
owner: t
initiative: help
purpose: service
identify:
  need: "?"
  steps: [{{one: "Help Searched where query = '{name}'"}}]
  expires: 1 day
design: {{answers: [{name}]}}
analyse: {{solved: no Contact Started within 24 hours, holdout: 0%}}
"""


class Handler(BaseHTTPRequestHandler):
    """Keeps when each message arrived at a good destination; the broken one answers 500."""

    arrived: ClassVar[dict[str, float]] = {}
    lock = threading.Lock()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        is_good = self.path.startswith("/good")
        if is_good:
            with self.lock:
                self.arrived.setdefault(self.headers["webhook-id"], time.monotonic())
        self.send_response(200 if is_good else 500)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


def receive(told: Connection) -> None:
    """Tell the ports; then, asked for a number of messages, the seconds from the first to the last."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    silent, closed = socket.create_server(("127.0.0.1", 0), backlog=1_000), socket.socket()
    closed.bind(("127.0.0.1", 0))  # nobody listens there
    told.send((server.server_address[1], silent.getsockname()[1], closed.getsockname()[1]))
    while n := told.recv():
        while len(Handler.arrived) < n:
            time.sleep(0.01)
        told.send(max(Handler.arrived.values()) - min(Handler.arrived.values()))
        Handler.arrived.clear()


def prepare(
    folder: Path, urls: dict[str, str], n: int, resting: Sequence[str] = (), timeout_s: int = 2
) -> None:
    """A project in which `n` messages wait for each destination; those for `resting` ones until tomorrow."""
    shown = {"secret": SECRET, "timeout_s": timeout_s}
    destinations = [DESTINATION.format(name=name, url=url, **shown) for name, url in urls.items()]
    texts = {
        "hetki.toml": SETTINGS + "".join(destinations),
        "sources/web.yaml": SOURCE,
        "initiatives/help.yaml": INITIATIVE,
        "templates/call.liquid": "Hello.",
        **{f"actions/{name}.yaml": ACTION.format(name=name) for name in urls},
        **{f"moments/for_{name}.yaml": MOMENT.format(name=name) for name in urls},
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    engine = open_folder(str(folder))
    now = engine.clock.now()
    events = [searched(f"{name}-{k}", name, now) for k in range(n) for name in urls]
    engine.acceptor.accept([Parsed(events, [])])
    advance(engine)
    waiting = dict(engine.db.execute("SELECT destination, count(*) FROM outbox GROUP BY 1").fetchall())
    assert waiting == dict.fromkeys(urls, n), waiting
    marks = ",".join("?" * len(resting))
    engine.db.execute(f"UPDATE outbox SET due_at = due_at + {DAY} WHERE destination IN ({marks})", resting)
    engine.db.close()


def searched(number: str, name: str, now: int) -> Event:
    """A search that is answered at the destination of this name."""
    properties = msgspec.json.encode({"query": name})
    return Event("web", number, "web", "Help Searched", now, now, {"user_id": number}, properties)


def measured(urls: dict[str, str], n: int, resting: Sequence[str], told: Connection) -> float:
    """Messages a second at the good destinations."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), urls, n, resting)
        worker = get_context("spawn").Process(target=work, args=(folder, "data"), daemon=True)
        worker.start()
        told.send(n * len(GOOD))
        elapsed_s: float = told.recv()
        worker.kill()
        worker.join()
    return (n * len(GOOD) - 1) / elapsed_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000, help="for each destination")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    told, theirs = get_context("spawn").Pipe()
    receiver = get_context("spawn").Process(target=receive, args=(theirs,), daemon=True)
    receiver.start()
    port, silent, refusing = told.recv()
    good = {name: f"http://127.0.0.1:{port}/{name}" for name in GOOD}
    ports = dict(zip(DEAD, (silent, refusing, port), strict=True))
    dead = {name: f"http://127.0.0.1:{port}/{name}" for name, port in ports.items()}
    rates: dict[str, list[float]] = {"good alone": [], "beside dead ones": []}
    for _ in range(given.rounds):
        rates["good alone"].append(measured(good | dead, given.messages, DEAD, told))
        rates["beside dead ones"].append(measured(good | dead, given.messages, (), told))
        print({name: [round(each) for each in found] for name, found in rates.items()}, flush=True)
    alone, beside = (statistics.median(each) for each in rates.values())
    print(f"median {alone:.0f} messages/s alone, {beside:.0f} beside dead ones: {beside / alone:.1%}")
    told.send(0)
    receiver.join()


if __name__ == "__main__":
    main()
