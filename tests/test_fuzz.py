"""10,000 requests that no honest program sends: none is answered 500, none harms what stands beside it.

`make torture` sends a million. A seed is the report of a bug: `World(seed)` does the same again. What was
found has a test of its own below.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from fuzzing import Fuzz, Sent
from keyed import open_sources

from hetki.consent.source import admitted
from hetki.engine.advance import advance
from hetki.engine.engine import open_engine
from hetki.engine.folding import read_event
from hetki.engine.project import load
from hetki.engine.rebuilding import rebuild
from hetki.events.wire import Rejected
from hetki.server.committer import Committer
from hetki.server.ingest import Answer, Ingest
from hetki.server.status import Refusal
from hetki.settings import SECOND
from hetki.simulation.world import MemoryDisk, SeededChance, SimulatedClock
from hetki.store.journal import Kind
from hetki.store.lake import refresh
from hetki.store.system import SystemDisk

PROJECT = Path(__file__).parent.parent / "examples" / "twelve_moments"
FAULT = re.compile(r"^\S.*: got .+, must be .+$", re.DOTALL)
NOW = 1_772_366_400 * SECOND
N_REQUESTS, N_AT_ONCE = 2_000, 40
TORTURE = float(os.environ.get("HETKI_TORTURE", "0"))
N_WORLDS = max(5, round(500 * TORTURE))
#: Memory of this process after each world, in torture.
HELD: list[int] = []
GROWTH_MAX = 1.2
#: What every world answers: of the statuses of the ways in, those that need no clock and no crowd.
ANSWERS = {200, 400, 401, 413}
#: Beside them, where many requests without a valid key come by chance in one second.
TOO_MANY = 429


class World:
    """A project in memory with its way in, and what it was sent and answered."""

    def __init__(self, seed: int, folder: Path) -> None:
        files = folder / "project"
        for name in SystemDisk(PROJECT).names("**/*"):
            target = files / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((PROJECT / name).read_bytes())
        open_sources(files, "key-")
        self.fuzz = Fuzz(seed, "key-web")
        self.clock = SimulatedClock(NOW)
        project = load(SystemDisk(files))
        disk = MemoryDisk(str(folder / "data"))
        self.engine = open_engine(project, disk, self.clock, SeededChance(seed), {})
        self.committer = Committer(self.engine.acceptor.accept, queue_s=3_600.0)
        keys = admitted(project.sources.values())
        self.app = Ingest(keys, self.committer, self.clock, project.settings.limits)
        self.good: set[str] = set()
        self.n_rejected = 0
        self.answers: Counter[int] = Counter()

    def run(self, n: int) -> None:
        """Send so many requests, many at once."""
        self.committer.start()
        try:
            for _ in range(n // N_AT_ONCE):
                asyncio.run(self._some([self.fuzz.next() for _ in range(N_AT_ONCE)]))
                self.clock.move(self.clock.now() + SECOND)
        finally:
            self.committer.stop()

    async def _some(self, requests: list[Sent]) -> None:
        for sent, (status, body) in zip(
            requests, await asyncio.gather(*(ask(self.app, each) for each in requests)), strict=True
        ):
            self.answers[status] += 1
            is_keyless = status == TOO_MANY and b"without a valid key" in body
            assert status in ANSWERS or is_keyless, (self.fuzz.seed, sent, body)
            if status == 200:
                self.n_rejected += msgspec.json.decode(body, type=Answer).n_rejected
                self.good.update(sent.good)
            else:
                assert FAULT.match(msgspec.json.decode(body, type=Refusal).message), body
                assert not (sent.is_sound and sent.good), (self.fuzz.seed, sent, body)


async def ask(app: Ingest, sent: Sent) -> tuple[int, bytes]:
    """One request through the callable, its body in pieces."""
    edges = [0, *sent.cuts, len(sent.body)]
    parts = [sent.body[a:b] for a, b in pairwise(edges)]
    said: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: dict[str, object]) -> None:
        said.append(message)

    scope = {"type": "http", "method": "POST", "path": sent.path, "headers": sent.headers}
    await app(scope, receive, send)  # type: ignore[arg-type]
    start, body = said
    assert isinstance(start["status"], int) and isinstance(body["body"], bytes)
    return start["status"], body["body"]


@pytest.mark.parametrize("seed", range(1_000, 1_000 + N_WORLDS))
def test_no_request_harms_what_stands_beside_it(
    seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(seed, tmp_path)
    with caplog.at_level(logging.WARNING):
        world.run(N_REQUESTS)
        engine = world.engine
        advance(engine)
        refresh(engine.disk, engine.journal, engine.state)
    assert [each.getMessage() for each in caplog.records] == []
    stored = engine.journal.read(0, 10**9)
    events = [each for found in stored if found.kind is Kind.EVENT and (each := read_event(found))]
    assert world.good and world.good <= {each.message_id for each in events}
    ids = {each.event_id for each in stored if each.kind is Kind.EVENT}
    assert engine.state.counts()["events"] == len(ids), "each is folded, once"
    refused = [each for each in stored if each.kind is Kind.REJECTED]
    rejected = [msgspec.msgpack.decode(each.body or b"", type=Rejected) for each in refused]
    assert len(rejected) == world.n_rejected > 0
    assert [each for each in rejected if not FAULT.match(str(each.fault))] == []
    n_listed = len({each.event_id for each in refused})
    assert len(engine.state.rejected(10**6)) == n_listed, "each is a row with its reason"
    assert set(world.answers) - {TOO_MANY} == ANSWERS, "the requests try what they are to try"
    if seed == 1_000 or TORTURE:
        again = rebuild(engine)
        assert again.before == again.after
    gc.collect()  # a store in memory is large, and weighs little to the collector
    HELD.append(held())


def test_memory_is_flat_over_many_worlds() -> None:
    n = len(HELD) // 3
    if n < 10:
        pytest.skip("a few worlds say nothing; make torture has many")
    first, last = sum(HELD[:n]) / n, sum(HELD[-n:]) / n
    print(f"{len(HELD)} worlds: {first / 2**20:,.0f} MiB in the first third, {last / 2**20:,.0f} in the last")
    assert last < GROWTH_MAX * first


def held() -> int:
    """Bytes that this process holds and that are no files."""
    status = Path("/proc/self/status")
    found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else 0
