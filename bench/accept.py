"""Accept over HTTP: events a second made durable, beside a bare ASGI program that commits the same bodies.

    python bench/accept.py DATA        (DATA from bench/make_data.py; --connections 32, --seconds 10)

Both run under uvicorn in a process of their own and are sent the same bodies over the same number of
connections by another process. Both answer after one durable commit (SQLite, WAL, synchronous=FULL) of all
the bodies that came meanwhile, so their groups are of the same size. The bare program looks at no byte of
a body; Hetki parses, checks, hashes and encrypts every event. They run by turns, and the ratio is of the
medians.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import socket
import sqlite3
import statistics
import tempfile
import time
from base64 import b64encode
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import msgspec
import uvicorn
from make_data import Line

import hetki.simulation
from hetki.consent.source import Source, WriteKey, admitted, digest_of
from hetki.engine.engine import open_engine
from hetki.engine.project import Project, load
from hetki.server.committer import Committer
from hetki.server.ingest import Ingest
from hetki.server.rates import Rates
from hetki.settings import Server
from hetki.store.system import SystemChance, SystemClock, SystemDisk, collect_rarely

PROJECT = Path(hetki.simulation.__file__).parent / "restaurants_project"


class Bare(msgspec.Struct):
    """A body as the bare program queues it: the committer counts `events`."""

    events: tuple[int, ...]
    rejected: tuple[int, ...]
    body: bytes


def run_bare(folder: str, port: int) -> None:
    """The bare program: read the body, commit it with its group, answer."""
    db = sqlite3.connect(f"{folder}/bare.db", isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE bodies(position INTEGER PRIMARY KEY, body BLOB)")

    def commit(group: list[Bare]) -> None:
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO bodies(body) VALUES (?)", [(each.body,) for each in group])
        db.execute("COMMIT")

    committer = Committer(commit)  # type: ignore[arg-type]
    committer.start()

    async def bare(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        parts = []
        while True:
            message = await receive()
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        body = b"".join(parts)
        await committer.commit(Bare((0,) * 100, (), body), len(body))  # type: ignore[arg-type]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})

    uvicorn.run(bare, port=port, log_level="error", access_log=False, lifespan="off")


def run_hetki(folder: str, port: int) -> None:
    """Hetki's own way in, with the stores on disk."""
    collect_rarely()
    project = load(SystemDisk(PROJECT))
    engine = open_engine(project, SystemDisk(folder), SystemClock(), SystemChance(), {})
    committer = Committer(engine.acceptor.accept)
    committer.start()
    rates = Rates(Server(key_events_per_s=10**7, address_events_per_s=10**7))  # what is measured is no sender
    app = Ingest(admitted(_keyed(project)), committer, engine.clock, project.settings.limits, rates)
    uvicorn.run(app, port=port, log_level="error", access_log=False, lifespan="off")


def _keyed(project: Project) -> list[Source]:
    """The sources of a project, each with a key that is known here."""
    return [
        msgspec.structs.replace(each, write_keys=[WriteKey(digest_of(f"bench-{each.source}"))])
        for each in project.sources.values()
    ]


def requests(data: Path, n_max: int) -> list[tuple[bytes, int]]:
    """Whole HTTP requests as bytes, with the number of events in each."""
    found = []
    with data.open("rb") as file:
        for text in file:
            line = msgspec.json.decode(text, type=Line)
            key = f"bench-{line.source}"
            body = bytes(line.body)
            head = (
                "POST /v1/batch HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                f"authorization: Basic {b64encode(f'{key}:'.encode()).decode()}\r\n"
                f"content-length: {len(body)}\r\n\r\n"
            )
            n_events = len(msgspec.json.decode(body)["batch"])
            found.append((head.encode() + body, n_events))
            if len(found) >= n_max:
                break
    return found


def load_with(port: int, wanted: Sequence[tuple[bytes, int]], n_connections: int, seconds: float) -> float:
    """Send bodies over so many connections, one at a time on each; return events a second answered 200."""
    done = {"events": 0, "refused": 0}
    stop_at = time.perf_counter() + seconds

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        place = number * len(wanted) // n_connections
        while time.perf_counter() < stop_at:
            request, n_events = wanted[place % len(wanted)]
            place += 1
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            if head.startswith(b"HTTP/1.1 200"):
                done["events"] += n_events
            else:
                done["refused"] += 1
        writer.close()

    async def everyone() -> None:
        await asyncio.gather(*(one(number) for number in range(n_connections)))

    began = time.perf_counter()
    asyncio.run(everyone())
    assert not done["refused"], f"{done['refused']} requests were not answered 200"
    return done["events"] / (time.perf_counter() - began)


def measure(target, wanted, given) -> float:  # type: ignore[no-untyped-def]
    """One turn of one program, in a process and on a folder of its own."""
    folder = tempfile.mkdtemp(prefix="hetki-bench-")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = get_context("spawn").Process(target=target, args=(folder, port))
    process.start()
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        load_with(port, wanted, given.connections, given.seconds / 5)
        return load_with(port, wanted, given.connections, given.seconds)
    finally:
        process.terminate()
        process.join()
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    wanted = requests(given.data, 3_000)
    rates: dict[str, list[float]] = {"bare ASGI, same bodies committed": [], "hetki": []}
    for _ in range(given.turns):
        for name, target in zip(rates, (run_bare, run_hetki), strict=True):
            rates[name].append(measure(target, wanted, given))
    for name, each in rates.items():
        print(f"{name}: {statistics.median(each):,.0f} events/s (from {min(each):,.0f} to {max(each):,.0f})")
    floor, ours = (statistics.median(each) for each in rates.values())
    print(f"hetki accepts {ours / floor:.2f} of the bare program's rate")


if __name__ == "__main__":
    main()
