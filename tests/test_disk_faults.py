"""The real SQLite on a disk that fails: syncs that fail or lie, short writes, no room, and the power cut.

A process under `faulty_disk.c` accepts, folds and delivers until it is killed at a random step, in the middle
of a write; twice, and then a clean process looks at what is there.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from disk_life import declared
from world import at

from hetki.engine.advance import advance
from hetki.engine.deliver import deliver
from hetki.engine.engine import Engine, open_engine
from hetki.engine.folding import read_event
from hetki.engine.rebuilding import rebuild
from hetki.errors import HetkiError
from hetki.simulation.world import LocalNet, SimulatedClock
from hetki.store.journal import Kind
from hetki.store.ports import Sent
from hetki.store.system import SystemChance, SystemDisk

TORTURE = float(os.environ.get("HETKI_TORTURE", "0"))
N_DISKS = round(5_000 * TORTURE) or 100
N_CHUNK = 50
#: Per mille of steps that fail, and of syncs that lie.
MOODS = ((0, 0), (5, 0), (30, 0), (0, 300), (5, 300))
HERE = Path(__file__).parent


class Failing:
    """A process whose disk fails; lives are lived in forks of it."""

    def __init__(self, folder: Path) -> None:
        library = folder / "faulty_disk.so"
        command = ["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(HERE / "faulty_disk.c")]
        subprocess.run(command, check=True, capture_output=True)
        paths = os.pathsep.join([str(HERE), *sys.path])
        environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": paths}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "disk_life.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        assert self._heard() == "ready"

    def live(self, **given: object) -> int:
        """Live one life; its exit code, or minus the signal that ended it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(given) + "\n")
        self._process.stdin.flush()
        return int(self._heard())

    def _heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failing]:
    if not sys.platform.startswith("linux") or shutil.which("gcc") is None:
        pytest.skip("needs Linux and gcc (scripts/install-test-tools)")
    found = Failing(tmp_path_factory.mktemp("shim"))
    yield found
    found.stop()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the databases are made."""
    folder = tmp_path_factory.mktemp("prepared")
    advance(looked_at(folder))
    return folder


def looked_at(folder: Path) -> Engine:
    """The engine of a clean process, later than all that was lived."""
    clock = SimulatedClock(at("15:00"))
    return open_engine(declared(), SystemDisk(folder, durable=False), clock, SystemChance(), {})


@pytest.mark.parametrize("first", range(0, N_DISKS, N_CHUNK))
def test_on_a_disk_that_fails_nothing_acknowledged_is_lost(
    first: int, failing: Failing, prepared: Path, tmp_path: Path
) -> None:
    came_to: Counter[str] = Counter()
    last = min(first + N_CHUNK, N_DISKS)
    for seed in range(first, last):
        try:
            came_to += lived(seed, failing, prepared, tmp_path / str(seed))
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    assert came_to["killed"] > last - first and came_to["told"] > 20 * (last - first)
    assert came_to["refused"] > (last - first) // 4
    if first < 100:  # too rare to be met by each fifty of thousands
        assert came_to["effect"] > 0
    print({"disks": last - first, **came_to})


def test_a_disk_that_is_never_synced_is_found(failing: Failing, prepared: Path, tmp_path: Path) -> None:
    """Else the power cut would prove nothing."""
    for seed in range(1, 40):
        try:
            lived(seed, failing, prepared, tmp_path / str(seed), durable=False)
        except (AssertionError, HetkiError, sqlite3.DatabaseError) as error:
            print({"disks": seed, "found as": f"{type(error).__name__}: {error}"[:100]})
            return
    raise AssertionError("nothing was lost")


def test_after_a_sync_that_failed_a_store_that_is_settled_loses_nothing(
    failing: Failing, tmp_path: Path
) -> None:
    """The power goes at every step from then on, each with several draws of what is lost."""
    came_to: Counter[str] = Counter()
    for n_steps in range(1, 100):
        lives = []
        for draw in range(4):
            folder = tmp_path / f"{n_steps}-{draw}"
            folder.mkdir()
            seed = n_steps * 10 + draw
            ended = failing.live(folder=str(folder), seed=seed, n_steps=n_steps, is_directed=True)
            error = folder / "error.txt"
            assert ended in (0, -9), error.read_text() if error.exists() else ended
            lives.append(ended)
            told = [int(line.split()[1]) for line in (folder / "told.txt").read_text().splitlines()]
            came_to.update(["killed" if ended else "ended", f"told {told[-1]}"])
            with closing(SystemDisk(folder).connect("one.db")) as db:
                assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], (n_steps, draw)
                kept = {row[0] for row in db.execute("SELECT value FROM done")}
                pages = db.execute("SELECT n / 4, value FROM pages").fetchall()
            assert set(told) <= kept, (n_steps, draw)
            assert pages == [(n // 4, n // 4 if n // 4 in kept else 0) for n in range(20)], (n_steps, draw)
        if not any(lives):
            break
    else:
        raise AssertionError("the power was cut in every life")
    assert came_to["told 2"] == 0 and min(came_to[each] for each in ("told 1", "told 3", "told 4")) > 0
    print(came_to)


def lived(seed: int, failing: Failing, prepared: Path, folder: Path, durable: bool = True) -> Counter[str]:
    """Two lives on one disk, and a look at what is there; how often what happened."""
    if seed % 8:
        shutil.copytree(prepared, folder)
    else:  # the machine may die while the databases are made
        folder.mkdir()
    dice = random.Random(seed)
    came_to: Counter[str] = Counter()
    for life in range(2):
        fails, lies = dice.choice(MOODS)
        ended = failing.live(
            folder=str(folder),
            seed=seed * 1_000 + life * 500,
            durable=durable,
            n_steps=dice.randint(1, 1_000),
            fails=fails,
            lies=lies if durable else 0,
            is_directed=False,
        )
        error = folder / "error.txt"
        assert ended in (0, -9), error.read_text() if error.exists() else ended
        came_to["killed"] += ended == -9
    file = folder / "told.txt"
    told = file.read_text().splitlines() if file.exists() else []
    came_to.update(line.split()[0] for line in told)
    all_is_there(folder, told)
    shutil.rmtree(folder)
    return came_to


def all_is_there(folder: Path, told: list[str]) -> None:
    """A clean process finds everything that was acknowledged, once, and nothing that is broken."""
    engine = looked_at(folder)
    effects: dict[str, str] = {}
    for line in told:
        if line.startswith("effect"):
            _, message_id, decision_id = line.split()
            assert effects.setdefault(message_id, decision_id) == decision_id
    answered = set(effects.values())
    assert len(answered) == len(effects), "one decision has an effect under two ids"

    def posted(url: str, headers: dict[str, str], body: bytes) -> Sent:
        data = json.loads(body)["data"]
        assert effects.setdefault(data["message_id"], data["decision_id"]) == data["decision_id"]
        return Sent(True, 200)

    for _ in range(3):
        advance(engine)
        deliver(engine, LocalNet(posted), "app", 1_000)
        engine.clock.sleep(200)
    events = [each for each in engine.journal.read(0, 10**9) if each.kind is Kind.EVENT]
    stored = {each.event_id: read_event(each) for each in events}
    assert None not in stored.values(), "an event whose key is lost"
    names = {each.message_id for each in stored.values() if each is not None}
    assert {line.split()[1] for line in told if line.startswith("told")} <= names, "acknowledged, and missing"
    assert engine.db.execute("SELECT count(*) FROM events").fetchone() == (len(stored),)
    decided = Counter(row[0] for row in engine.db.execute("SELECT occurrence_id FROM decisions"))
    caught = {row[0] for row in engine.db.execute("SELECT occurrence_id FROM occurrences")}
    missed = {row[0] for row in engine.db.execute("SELECT occurrence_id FROM missed")}
    assert caught == set(decided) | missed and not missed & set(decided) and set(decided.values()) <= {1}
    outbox = dict(engine.db.execute("SELECT message_id, decision_id FROM outbox"))
    assert effects.items() <= outbox.items(), "an effect that no decision stands behind"
    sent = {row[0] for row in engine.db.execute("SELECT message_id FROM outbox WHERE status = 'sent'")}
    assert sent <= effects.keys(), "marked as sent, and never sent"
    assert engine.journal.verify() == engine.journal.head()[0]
    rebuilt = rebuild(engine)
    assert rebuilt.before == rebuilt.after
    for name in ("journal.db", "state.db", "secrets.db"):
        assert engine.disk.connect(name).execute("PRAGMA integrity_check").fetchone() == ("ok",)
