"""Exactly once for the life of the journal: what is sent three times, in any order, across restarts and
kills of those who take it in and those who fold it, comes to the state of having been sent once, in order.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from functools import _lru_cache_wrapper
from http.client import HTTPException
from pathlib import Path

import msgspec
import pytest
from serving import Command, Warm, post
from test_fold_property import PROJECT, random_event
from test_kill import FILES, SECRET
from world import World, event

from hetki.engine.advance import advance
from hetki.engine.engine import Engine, open_engine, open_folder
from hetki.events import segment
from hetki.events.wire import Parsed
from hetki.identity.identifier import REMEMBERED_CHARS_MAX, _identifier, _named, identifier, leaf_of
from hetki.settings import DAY, Limits
from hetki.simulation.world import SimulatedClock
from hetki.store import keyring, secrets

N_EVENTS, N_TOLD = 60, 150


def state_of(engine: Engine) -> list[tuple[object, ...]]:
    """Every row of every projection but where in the journal the first copy of an event lies."""
    rows: list[tuple[object, ...]] = []
    table = ""
    for row in engine.state.rows():
        table = str(row[0]) if len(row) == 1 else table
        if table == "progress":
            row = row[2:]
        elif table in ("events", "leaf_events") and len(row) > 1:
            row = row[:1]
        rows.append(row)
    return sorted(rows, key=repr)


class Cut(BaseException):
    """The process is gone."""


def cut_short(world: World, dice: random.Random, patch: pytest.MonkeyPatch) -> None:
    """A worker that dies in the middle of an advance, before or after it has written what it derived."""
    step = dice.choice(("add_events", "save_customers", "save_occurrences", "save_progress", "count"))

    def die(*given: object) -> None:
        raise Cut

    with patch.context() as planted, suppress(Cut):
        planted.setattr(world.engine.state, step, die)
        world.advance()
    world.reopen()


@pytest.mark.parametrize("seed", range(6))
def test_thrice_shuffled_and_restarted_is_once_in_order(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(seed)
    events = [random_event(dice, number) for number in range(N_EVENTS)]
    once = World(PROJECT, seed=seed)
    for each in sorted(events, key=lambda one: one.order_key):
        once.accept([each])
        once.advance()
    thrice = World(PROJECT, seed=seed, batch_max=dice.choice((1, 4, 50)))
    sent = events * 3
    dice.shuffle(sent)
    n_cut = 0
    while sent:
        thrice.accept([sent.pop() for _ in range(min(len(sent), dice.randint(1, 9)))])
        now = dice.randrange(4)
        if now == 0:
            thrice.advance()
        elif now == 1:
            thrice.reopen()  # who accepts and who folds are others from here on
        elif now == 2:
            cut_short(thrice, dice, monkeypatch)
            n_cut += 1
    for world in (once, thrice):
        world.until("20:00")
    assert n_cut > 2 and thrice.engine.state.counts()["duplicates"] == 2 * N_EVENTS
    assert state_of(once.engine) == state_of(thrice.engine)
    thrice.assert_rebuilds()


# -- how much is remembered


def filled(n: int) -> World:
    """A world whose index holds so many ids, each of another leaf, beside what it has folded."""
    world = World()
    world.live("09:00 web u=anna Page Viewed")
    ids = [number.to_bytes(16, "big") for number in range(n)]
    db, keys = world.engine.db, world.disk.connect("secrets.db")
    db.executemany("INSERT INTO events VALUES (?, 1, ?)", [(each, k) for k, each in enumerate(ids)])
    db.executemany("INSERT INTO leaf_events VALUES (?, 1, ?)", [(each, k) for k, each in enumerate(ids)])
    keys.executemany("INSERT INTO leaves VALUES (?, ?, 0)", [(each, bytes(32)) for each in ids])
    return world


def peak_of(world: World) -> int:
    """The most that Python allocates while events of new and known leaves, and repeats, are taken in."""
    events = [event(f"10:00 web u=u{n % 300} id=m{n % 400} Page Viewed") for n in range(600)]
    tracemalloc.start()
    try:
        world.accept(events)
        world.advance()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_ids_that_are_known() -> None:
    peak_of(filled(10))  # what is made once is made
    small, large = peak_of(filled(100)), peak_of(filled(50_000))
    assert large < 1.05 * small, (small, large)


def test_what_is_remembered_of_leaves_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "CACHED_MAX", 100)
    monkeypatch.setattr(keyring, "KEYS_MAX", 100)
    monkeypatch.setattr(keyring, "CIPHERS_MAX", 10)
    world = World()
    for start in range(0, 1_000, 50):
        world.accept([event(f"10:00 web u=u{n} Page Viewed") for n in range(start, start + 50)])
        world.advance()
    kept = world.engine.journal
    n_keys, n_ciphers = kept._keys.n_remembered()
    assert 0 < n_keys <= 100 and 0 < n_ciphers <= 10 and len(kept.secrets._leaves) <= 100 + 50
    assert world.engine.state.counts()["customers"] == 1_000


def test_whatever_is_looked_up_and_kept_has_a_bound() -> None:
    bounds = {
        f"{module.__name__}.{name}": each.cache_parameters()["maxsize"]
        for module in list(sys.modules.values())
        if module.__name__.startswith("hetki.")
        for name, each in vars(module).items()
        if isinstance(each, _lru_cache_wrapper)
    }
    assert "hetki.identity.identifier._identifier" in bounds
    unbounded = {name for name, bound in bounds.items() if bound is None or bound > 20_000}
    assert unbounded == {"hetki.declarations.read._type_of", "hetki.declarations.walk._kind_table"}, "by type"


@pytest.mark.parametrize("n_chars, n_kept", [(REMEMBERED_CHARS_MAX, 1), (REMEMBERED_CHARS_MAX + 1, 0)])
def test_long_identifiers_are_not_remembered(n_chars: int, n_kept: int) -> None:
    _named.cache_clear()
    _identifier.cache_clear()
    told = msgspec.structs.replace(event("10:00 web u=u Page Viewed"), identifiers={"user_id": "a" * n_chars})
    assert leaf_of(b"key", told) == identifier(b"key", "user_id", "a" * n_chars)
    assert _named.cache_info().currsize == _identifier.cache_info().currsize == n_kept


# -- the same with true processes, which are killed


class Killed:
    """A project served by processes that are killed again and again."""

    def __init__(self, folder: Path, warm: Warm) -> None:
        self.folder = folder
        self._warm = warm
        for name, text in FILES.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("PORT", "9").replace("SECRET", SECRET))
        open_folder(str(folder))  # its keys are made
        self.start()

    def start(self) -> None:
        self.server: Command = self._warm.start("serve", "-C", str(self.folder), "--port", "0")
        self.address = self.server.address()

    def send(self, body: bytes) -> bool:
        try:
            return post(self.address, "/v1/batch", body)[0] == 200
        except (OSError, HTTPException, ValueError):
            return False


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[Warm]:
    if not sys.platform.startswith("linux"):
        pytest.skip("needs /proc")
    found = Warm(tmp_path)
    yield found
    found.stop()


def told(number: int) -> dict[str, object]:
    """One of the events: few people, each with an account, a browser and now and then a search in vain."""
    dice = random.Random(number)
    who = f"u{dice.randrange(20)}"
    return {
        "type": "track",
        "messageId": f"m{number}",
        "event": dice.choice(("Help Searched", "Product Added", "Order Completed", "Page Viewed")),
        "userId": who,
        "anonymousId": f"a{who}{dice.randrange(2)}",
        "properties": {"n_results": 0, "order_id": f"o{number}"},
        "timestamp": f"2026-03-02T{8 + number // 60:02}:{number % 60:02}:00Z",
    }


def body_of(events: list[dict[str, object]]) -> bytes:
    return json.dumps({"batch": events, "writeKey": "key-web"}).encode()


def test_thrice_shuffled_over_killed_processes_is_once_in_order(tmp_path: Path, warm: Warm) -> None:
    dice = random.Random(7)
    events = [told(number) for number in range(N_TOLD)]
    served = Killed(tmp_path / "served", warm)
    in_order = tmp_path / "in_order"
    sent = events * 3
    dice.shuffle(sent)
    for number, each in enumerate(sent):  # one by one: a place in a batch is part of an event
        while not served.send(body_of([each])):
            pass
        if number % 150 == 60:
            served.server.kill()  # both, at any point of what they do
            served.start()
        elif number % 150 == 130:
            os.kill(served.server.worker(), signal.SIGKILL)
    served.server.signal(signal.SIGTERM)
    assert served.server.wait() == 0
    engine = at_rest(str(served.folder))
    others = shutil.ignore_patterns("journal.db*", "state.db*", "lake*")
    shutil.copytree(served.folder, in_order, ignore=others)  # under the same keys
    once = open_folder(str(in_order))
    source = once.project.sources["web"]
    for each in events:
        parsed: Parsed = segment.parse(
            body_of([each]), "batch", source.source, source.channel, once.clock.now(), Limits()
        )
        once.acceptor.accept([parsed])
    once = at_rest(str(in_order))
    assert engine.state.counts()["duplicates"] >= 2 * N_TOLD
    assert engine.state.counts()["events"] == once.state.counts()["events"] == N_TOLD
    assert state_of(engine) == state_of(once)


def at_rest(folder: str) -> Engine:
    """The project when all is folded, and time has come to the same instant for all."""
    was = open_folder(folder)
    clock = SimulatedClock(was.clock.now() // DAY * DAY + 2 * DAY)
    engine = open_engine(was.project, was.disk, clock, was.chance, {})
    advance(engine)
    return engine
