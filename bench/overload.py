"""Overload: ten times what the server takes, for minutes, by honest and by rude senders; and what it cost.

    python bench/overload.py           (--minutes 10, --times 10, --folder to keep what was made)

One `hetki serve` with its worker on a project of its own is asked, first, for what it can take: as many
bodies a second as it answers with 200 when 16 senders wait for each answer. Then a program of its own
offers `times` as many, whatever is answered: half from honest senders, who wait as long as `Retry-After`
says, half from rude ones, who come again at once, do not read on, and open a connection for each body.
All the while a quiet sender asks once every quarter of a second, before, during and after; how long it
waits is the latency. Memory is that of the server's process and of its worker's, once a second.

What must hold is checked at the end, and the status is 1 if it does not: after a minute memory of neither
process is more than a tenth above its first third in its last, every 429 and 503 said when to come back, the
quiet sender waits as before within 5 s of the end, and every event that was answered with 200 is in the
journal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path

from hetki.consent.source import digest_of
from hetki.engine.engine import open_folder
from hetki.events.event import event_id

KEY = "overload-key"
TOML = """[hetki]
name = "Overload"
[purposes.service]
title = "What you came for"
basis = "contract"
[destinations.app]
kind = "webhook"
url = "http://127.0.0.1:9/messages"
secret = "env:NOT_SET"
inside = ["127.0.0.1"]
"""
FILES = {
    "hetki.toml": TOML,
    "sources/web.yaml": (
        f"source: web\nchannel: web\nwrite_keys: [{{digest: {digest_of(KEY)}}}]\npurposes: [service]\n"
    ),
    "initiatives/help.yaml": "initiative: help\ntitle: h\nowner: t\nhorizon: mainstream\n",
    "actions/call.yaml": (
        "action: call\ntitle: c\npurpose: service\ndestination: app\ntemplate: call\nvalue: {customer: 4}\n"
    ),
    "templates/call.liquid": "Hello.",
    "moments/searched.yaml": """moment: searched
title: Searched twice and found nothing
owner: t
initiative: help
purpose: service
identify:
  need: "?"
  steps:
    - first: Help Searched where n_results = 0
    - again: Help Searched where n_results = 0
  within: 1 hour
  expires: 1 day
design: {answers: [call]}
analyse: {solved: no Contact Started within 24 hours, holdout: 0%}
""",
}
RECOVERY_S = 5.0
NUMBER = "NUMBER__"
#: Calls in one body, and senders that wait for each answer while it is measured what the server takes.
N_CALLS, N_PATIENT = 100, 16
#: Senders at once of each kind in the flood; each body that is offered goes to whichever is free.
N_HONEST, N_RUDE = 300, 300
SENDERS_S, PROBE_S, AFTER_S = 5.0, 0.25, 20.0
#: Memory is compared from here on: until then pages are read that stay in memory, up to their bounds.
WARM_S = 60
GROWTH_MAX = 1.1


@dataclass
class Told:
    """What the senders of one program saw."""

    answers: Counter[str] = field(default_factory=Counter)
    kept: list[int] = field(default_factory=list)
    without_again: int = 0
    n_offered: int = 0


@dataclass
class Seen:
    """A whole run, times by the clock of this program."""

    before: Told
    per_s: float
    flooded: Told = field(default_factory=Told)
    waits: list[tuple[float, float, str]] = field(default_factory=list)
    held: dict[str, list[int]] = field(default_factory=dict)
    began: float = 0.0
    ended: float = 0.0


def forms(n: int) -> list[bytes]:
    """Whole requests with `NUMBER__` wherever the body's own number goes."""
    chance, found = random.Random(7), []
    for _ in range(n):
        calls = [
            {
                "type": "track",
                "messageId": f"{NUMBER}-{place}",
                "userId": f"u{chance.randrange(20_000)}",
                "event": chance.choice(["Help Searched", "Help Viewed", "Order Tracked"]),
                "properties": {"query": "where is my order", "n_results": chance.randrange(3)},
                "context": {"locale": "fi-FI", "userAgent": "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101"},
            }
            for place in range(N_CALLS)
        ]
        found.append(request(calls))
    return found


def request(calls: list[dict[str, object]]) -> bytes:
    whole = json.dumps({"batch": calls, "writeKey": KEY}).encode()
    return f"POST /v1/batch HTTP/1.1\r\nhost: x\r\ncontent-length: {len(whole)}\r\n\r\n".encode() + whole


FORMS = forms(200)


def asked(number: int) -> bytes:
    """The request of one number; no two hold the same event."""
    return FORMS[number % len(FORMS)].replace(NUMBER.encode(), f"{number:08}".encode())


class Sender:
    """One connection at a time; `ask` gives the status, "closed" where none came, and when to come back."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, patience_s: float = 60.0) -> tuple[str, str]:
        try:
            async with asyncio.timeout(patience_s):
                if self._line is None:
                    self._line = await asyncio.open_connection("127.0.0.1", self._port)
                reader, writer = self._line
                writer.write(request)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                await reader.readexactly(int(head.partition("content-length:")[2].split("\r\n")[0]))
        except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError):
            self.close()
            return "closed", ""
        if "connection: close" in head:
            self.close()
        return head[9:12], head.partition("retry-after:")[2].split("\r\n")[0].strip()

    def close(self) -> None:
        if self._line is not None:
            self._line[1].transport.abort()
            self._line = None


def count(told: Told, number: int, status: str, again: str) -> None:
    told.answers[status] += 1
    if status == "200":
        told.kept.append(number)
    elif status in ("429", "503") and not again.isdigit():
        told.without_again += 1


async def patient(port: int, seconds: float, first: int) -> tuple[Told, float]:
    """What the server takes: bodies a second, when everybody waits for the answer."""
    told, stop_at = Told(), time.perf_counter() + seconds
    numbers = iter(range(first, first + 10**7))

    async def one() -> None:
        sender = Sender(port)
        while time.perf_counter() < stop_at:
            number = next(numbers)
            count(told, number, *await sender.ask(asked(number)))
        sender.close()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(N_PATIENT)))
    return told, told.answers["200"] / (time.perf_counter() - began)


async def flood(port: int, seconds: float, per_s: float, first: int) -> Told:
    """Offer so many bodies a second, whatever is answered; honest and rude senders by turns."""
    told, stop_at = Told(), time.perf_counter() + seconds
    due: asyncio.Queue[int] = asyncio.Queue(maxsize=N_HONEST + N_RUDE)

    async def honest() -> None:
        sender = Sender(port)
        while True:
            number = await due.get()
            status = ""
            while status != "200":
                status, again = await sender.ask(asked(number))
                count(told, number, status, again)
                if status != "200":
                    await asyncio.sleep(float(again) if again.isdigit() else 1.0)

    async def rude() -> None:
        while True:
            number = await due.get()
            sender = Sender(port)
            count(told, number, *await sender.ask(asked(number), 2.0))
            sender.close()

    senders = [asyncio.ensure_future(each()) for each in [honest] * N_HONEST + [rude] * N_RUDE]
    began = time.perf_counter()
    while (now := time.perf_counter()) < stop_at:
        for _ in range(int((now - began) * per_s) - told.n_offered):
            told.n_offered += 1
            if due.full():
                told.answers["not sent, as all senders wait"] += 1
            else:
                due.put_nowait(first + told.n_offered)
        await asyncio.sleep(0.01)
    for each in senders:
        each.cancel()
    await asyncio.gather(*senders, return_exceptions=True)
    return told


def flooding(port: int, seconds: float, per_s: float, first: int, said: Queue[Told]) -> None:
    said.put(asyncio.run(flood(port, seconds, per_s, first)))


async def probe(port: int, until: float, waits: list[tuple[float, float, str]]) -> None:
    """A quiet sender: when it asked, how long it waited for its answer, and the status."""
    number = 9 * 10**8
    while time.perf_counter() < until:
        number += 1
        call = {"type": "track", "event": "Help Viewed", "userId": "probe", "messageId": f"probe-{number}"}
        sender, began = Sender(port), time.perf_counter()
        status, _ = await sender.ask(request([call]))
        sender.close()
        waits.append((began, time.perf_counter() - began, status))
        await asyncio.sleep(max(0.0, PROBE_S - (time.perf_counter() - began)))


def memory_of(pid: int) -> int:
    """Bytes that a process holds and that are not files: `RssAnon`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def worker_of(server: int) -> int:
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                fields = (each / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == server and b"spawn_main" in (each / "cmdline").read_bytes():
                    return int(each.name)
            except OSError:
                continue
    raise SystemExit("no worker")


async def watch(pids: dict[str, int], until: float, held: dict[str, list[int]]) -> None:
    """Memory of each process, once a second."""
    while time.perf_counter() < until:
        for name, pid in pids.items():
            held[name].append(memory_of(pid))
        await asyncio.sleep(1.0)


def p99(waits: list[float]) -> float:
    return sorted(waits)[max(0, math.ceil(0.99 * len(waits)) - 1)] if waits else math.inf


def started(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """`hetki serve` on a project of its own, and its port."""
    for name, text in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    log = folder / "serve.log"
    words = [sys.executable, "-m", "hetki", "serve", "-C", str(folder), "--port", "0"]
    with log.open("wb") as said:
        server = subprocess.Popen(words, stdout=said, stderr=said, start_new_session=True)
    for _ in range(600):
        found = re.search(r"http://127.0.0.1:(\d+)/", log.read_text())
        if found:
            return server, int(found[1])
        time.sleep(0.1)
    raise SystemExit(f"no server: {log.read_text()}")


async def told_of(server: int, port: int, given: argparse.Namespace) -> Seen:
    """Measure, flood, and look on while it recovers."""
    seen = Seen(Told(), 0.0)
    await patient(port, SENDERS_S / 2, 10**7)
    seen.before, seen.per_s = await patient(port, SENDERS_S, 2 * 10**7)
    pids = {"server": server, "worker": worker_of(server)}
    seen.held = {name: [] for name in pids}
    quiet_until = time.perf_counter() + SENDERS_S
    await probe(port, quiet_until, seen.waits)
    seen.began = time.perf_counter()
    seen.ended = seen.began + 60.0 * given.minutes
    said: Queue[Told] = get_context("spawn").Queue()
    wanted = (port, 60.0 * given.minutes, given.times * seen.per_s, 3 * 10**7, said)
    program = get_context("spawn").Process(target=flooding, args=wanted)
    program.start()
    probing = asyncio.ensure_future(probe(port, seen.ended + AFTER_S, seen.waits))
    await watch(pids, seen.ended, seen.held)
    seen.flooded = await asyncio.to_thread(said.get)
    seen.ended = time.perf_counter()
    await probing
    program.join()
    assert worker_of(server) == pids["worker"], "the worker ended and another was started"
    return seen


def lost(folder: Path, kept: list[int]) -> tuple[int, int]:
    """How many bodies that were answered with 200 are not whole in the journal, and how many are."""
    engine = open_folder(str(folder))
    wanted = {
        event_id(engine.keys.event, "web", f"{number:08}-{place}")
        for number in kept
        for place in (0, N_CALLS - 1)
    }
    n_wanted, position = len(wanted), 0
    folded, head = engine.state.progress(), engine.journal.head()[0]
    print(f"of {head:,} bodies in the journal {folded.position if folded else 0:,} were folded meanwhile")
    while stored := engine.journal.read(position, 20_000):
        wanted.difference_update(each.event_id for each in stored)
        position = stored[-1].position
    return len(wanted), n_wanted


def judged(seen: Seen, folder: Path) -> list[str]:
    """Print what was seen; return what does not hold."""
    wrong = []
    flooded = seen.flooded
    n_asked = sum(n for status, n in flooded.answers.items() if not status.startswith("not"))
    print(f"takes {seen.per_s * N_CALLS:,.0f} events/s ({seen.per_s:,.0f} bodies/s of {N_CALLS})")
    print(f"offered {flooded.n_offered:,} bodies, asked {n_asked:,} times:")
    for status, n in sorted(flooded.answers.items()):
        print(f"  {status}: {n:,} ({n / max(1, n_asked):.1%})")
    if flooded.without_again:
        wrong.append(f"{flooded.without_again} answers of 429 or 503 without Retry-After")
    for name, held in seen.held.items():
        warm = held[WARM_S:] or held
        third, top = max(1, len(warm) // 3), max(held)
        first, last = statistics.mean(warm[:third]), statistics.mean(warm[-third:])
        print(
            f"{name}: {first / 2**20:,.0f} MiB in the first third, {last / 2**20:,.0f} in the last,"
            f" {top / 2**20:,.0f} at most"
        )
        every = max(1, len(held) // 12)
        print("  " + " ".join(f"{each / 2**20:,.0f}" for each in held[::every]))
        if last > GROWTH_MAX * first and third > WARM_S:
            wrong.append(f"memory of the {name} grows")
    quiet = [wait for at, wait, _ in seen.waits if at < seen.began]
    during = [wait for at, wait, _ in seen.waits if seen.began <= at < seen.ended]
    normal = max(2 * p99(quiet), 0.1)
    slow = [
        at + wait
        for at, wait, status in seen.waits
        if at + wait >= seen.ended and (wait > normal or status != "200")
    ]
    recovery = max(slow) - seen.ended if slow else 0.0
    served = sum(status == "200" for at, _, status in seen.waits if seen.began <= at < seen.ended)
    print(
        f"the quiet sender waits {p99(quiet) * 1e3:,.0f} ms before (p99), {p99(during) * 1e3:,.0f} ms during"
    )
    print(f"  of {len(during)} of its events during the flood {served} were answered with 200 at once")
    print(f"  it waits no longer than {normal * 1e3:,.0f} ms again {recovery:.1f} s after the end")
    if recovery > RECOVERY_S:
        wrong.append(f"{recovery:.1f} s until it is as before")
    n_lost, n_wanted = lost(folder, seen.before.kept + flooded.kept)
    print(f"of {n_wanted // 2:,} bodies that were answered with 200, {n_lost} ends are not in the journal")
    if n_lost:
        wrong.append(f"{n_lost} acknowledged bodies are lost")
    told = (folder / "serve.log").read_text()
    if "Traceback" in told:
        wrong.append("the log has a traceback")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--times", type=float, default=10)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="hetki-bench-"))
    server, port = started(folder)
    try:
        seen = asyncio.run(told_of(server.pid, port, given))
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    wrong = judged(seen, folder)
    for each in wrong:
        print(f"NOT HELD: {each}")
    if given.folder is None:
        shutil.rmtree(folder)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
