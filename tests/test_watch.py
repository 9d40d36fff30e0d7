"""Watching a folder: what is settled, sound and new is taken up; what has faults is refused and told."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
from test_warming import ADDED, HELP, WIDER
from world import World, moment, project

from hetki.engine.advance import Advanced
from hetki.engine.engine import Engine, version_of
from hetki.engine.files import Kept
from hetki.engine.project import Project
from hetki.engine.warming import begin
from hetki.errors import Unavailable
from hetki.server import worker
from hetki.server.watch import Watch
from hetki.simulation.world import SimulatedClock
from hetki.store.ports import Disk
from hetki.store.state import FILE
from hetki.store.system import SystemDisk

EXAMPLE = b"""
moment: help
cases:
  - {name: fires, events: [{at: 0 minutes, name: Help Searched, n_results: 3}], fires: [10 minutes]}
"""


class Folder:
    """A folder whose files are changed, with its watch and a world that advances."""

    def __init__(self, disk: Disk | None = None) -> None:
        self.world = World(disk=disk)
        self.world.live("10:00 web u=anna Help Searched n_results=3\n10:01 web u=bertta Page Viewed")
        self.shelf = Kept(dict(self.world.engine.project.texts))
        self.watch = Watch(self.shelf, "data")

    def becomes(self, with_project: Project, **more: bytes) -> None:
        self.shelf.texts.clear()
        self.shelf.texts.update(with_project.texts)
        self.shelf.texts.update({f"tests/{name}.yaml": text for name, text in more.items()})

    def look(self, n: int = 2) -> None:
        for _ in range(n):
            self.watch.look(self.world.engine)

    def step(self) -> bool:
        return self.watch.take_step(self.world.engine)

    def faults(self) -> list[str]:
        refused = self.world.engine.shadow.refused()
        return [str(fault) for fault in refused.faults] if refused else []

    def version(self) -> str:
        progress = self.world.engine.state.progress()
        assert progress is not None
        return progress.program


@pytest.fixture
def folder() -> Folder:
    return Folder()


def test_what_is_in_force_is_left_alone(folder: Folder) -> None:
    folder.look(5)
    assert folder.watch.target is None and not folder.step()


def test_a_look_at_what_is_in_force_waits_for_nobody_who_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under overload the state is hardly ever free, and a look after each start said that it was locked."""
    monkeypatch.setattr("hetki.store.system.BUSY_S", 0.0)
    folder = Folder(SystemDisk(tmp_path, durable=False))
    writer = folder.world.disk.connect(FILE)
    writer.execute("BEGIN IMMEDIATE")
    folder.look(3)
    folder.becomes(WIDER)
    with pytest.raises(Unavailable, match="locked"):
        folder.look(2)  # what is to be taken up is written down
    writer.execute("ROLLBACK")
    folder.look(1)
    assert folder.watch.target is not None
    writer.execute("BEGIN IMMEDIATE")
    begin(folder.world.engine, folder.watch.target)  # as it is already
    writer.close()


class Folded:
    """What the loop that folds meets, batch by batch, and how long each takes."""

    def __init__(self, clock: SimulatedClock, batches: list[tuple[Advanced, float]]) -> None:
        self.clock = clock
        self.batches = batches

    def __call__(self, engine: Engine) -> Advanced:
        done, seconds = self.batches.pop(0)
        self.clock.sleep(seconds)
        return done


def test_who_folds_without_end_leaves_the_state_to_others_now_and_then(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, some, none = Advanced(1, 1, 9, is_behind=True), Advanced(1, 1, 9), Advanced(1, 1)
    batches = [(more, 0.9), (more, 0.9), (more, 0.9), (more, 0.9), (some, 9.0), (none, 0.0), (more, 2.0)]
    monkeypatch.setattr(worker, "advance_once", Folded(folder.world.clock, list(batches)))
    loop = worker.Advancing(folder.watch, threading.Event())
    rests = [loop(folder.world.engine) for _ in batches]
    gap, moment_s, rest = worker.GAP_S, worker.MOMENT_S, worker.REST_S
    assert rests == [0.0, 0.0, gap, 0.0, moment_s, rest, gap]
    assert gap > 0.1, "SQLite lets whoever waits look so often"


def test_a_change_is_taken_up_once_two_looks_see_the_same(folder: Folder) -> None:
    folder.look()
    folder.becomes(WIDER)
    folder.look(1)
    assert folder.watch.target is None, "it may still be written"
    folder.look(1)
    assert folder.watch.target is not None
    assert folder.step() and folder.version() == version_of(WIDER)
    known = folder.watch.taken_up()
    assert known is not None and version_of(known) == folder.version()


def test_faults_are_refused_told_once_and_forgotten_when_mended(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.becomes(WIDER)
    folder.shelf.texts["moments/help.yaml"] = b"moment: help"
    with caplog.at_level(logging.ERROR):
        folder.look(6)
    told = [each.getMessage() for each in caplog.records]
    assert len(told) == len(set(told)) == len(folder.faults()) > 1
    assert all(each.startswith("declarations=refused fault=moments/help.yaml") for each in told)
    assert folder.watch.target is None and not folder.step()
    folder.becomes(WIDER)
    folder.look()
    assert folder.faults() == [] and folder.step()


def test_an_example_that_fails_refuses_and_a_mended_example_takes_up(folder: Folder) -> None:
    folder.becomes(ADDED, help=EXAMPLE)
    folder.look()
    assert folder.watch.target is None
    assert "a moment that never fires" in folder.faults()[0]
    folder.becomes(WIDER, help=EXAMPLE)
    folder.look()
    assert folder.watch.target is not None and folder.faults() == []


def test_a_folder_that_is_gone_or_that_moves_its_data_is_refused(folder: Folder) -> None:
    folder.shelf.texts.clear()
    folder.look()
    assert "hetki.toml" in folder.faults()[0]
    folder.becomes(WIDER)
    toml = folder.shelf.texts["hetki.toml"].replace(b"lateness_s", b'data = "other"\nlateness_s')
    folder.shelf.texts["hetki.toml"] = toml
    folder.look()
    assert folder.faults() == [
        "hetki.toml: hetki.data: got 'other', must be 'data' as long as the project is served."
    ]


def test_a_fault_after_a_sound_change_drops_what_was_being_warmed(folder: Folder) -> None:
    folder.becomes(WIDER)
    folder.look()
    assert folder.world.engine.shadow.warming() is not None
    folder.shelf.texts["moments/help.yaml"] = b"moment: help"
    folder.look()
    assert folder.watch.target is None and folder.world.engine.shadow.warming() is None


def test_a_folder_that_goes_back_is_left_alone_again(folder: Folder) -> None:
    before = folder.world.engine.project
    folder.becomes(WIDER)
    folder.look()
    folder.becomes(before)
    folder.look()
    assert folder.watch.target is None and folder.world.engine.shadow.warming() is None


def test_what_cannot_be_folded_is_refused_and_the_old_goes_on(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.becomes(WIDER)
    folder.look()
    with monkeypatch.context() as patch:
        patch.setattr("hetki.engine.warming.step", lambda *given: 1 // 0)
        assert not folder.step()
    assert folder.faults() == [
        "declarations: got ZeroDivisionError, must be declarations under which every customer can be folded."
        " Hint: the log says more."
    ]
    folder.world.live("10:02 web u=cilla Help Searched n_results=0")
    folder.world.until("10:20")
    assert folder.world.occurrences() == ["10:12 help cilla: 10:02"]


def test_what_another_process_put_in_force_is_not_undone_by_an_older_judgement(folder: Folder) -> None:
    folder.becomes(WIDER)
    folder.look()
    others = project(moment("help", HELP.replace("10 minutes", "9 minutes")))
    folder.world.reopen(others)
    folder.world.advance()
    assert not folder.step() and folder.version() == version_of(others)
    folder.watch.taken_up()
    folder.look()
    assert folder.watch.target is not None and folder.watch.target.instead_of == version_of(others)
    assert folder.step() and folder.version() == version_of(WIDER)
    folder.world.reopen(WIDER)
    folder.world.assert_rebuilds()
