"""Expiry, and ranges that are erased, struck at their points: the process dies, the disk refuses, or another
process does something just then.

On the disk in memory of the lives (`faults.py`), which do neither: one command, one strike, then the end
without any. `make torture` strikes every point, `make test` a few.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import pytest
from faults import Crashed, Fate, Process, SharedDisk, Strike, What
from test_erasure import GREETED
from test_expiry import SOURCES, month
from test_removal import LEAK
from world import World, event, lines, moment, project

from hetki.engine.advance import advance
from hetki.engine.backup import backup
from hetki.engine.deliver import deliver
from hetki.engine.engine import Engine, open_engine
from hetki.engine.erase import erase, finish
from hetki.engine.expiring import expire
from hetki.engine.project import Project
from hetki.engine.rebuilding import rebuild
from hetki.engine.receipts import listed
from hetki.engine.removing import remove
from hetki.engine.restoring import choose, restore
from hetki.engine.verifying import verify
from hetki.errors import Conflict, NotFound, Unavailable
from hetki.events.wire import Parsed
from hetki.identity.identifier import identifier
from hetki.settings import SECOND
from hetki.simulation.world import LocalNet, MemoryDisk, SeededChance, SimulatedClock
from hetki.store.lake import refresh
from hetki.store.ports import Disk, Sent

TORTURE = float(os.environ.get("HETKI_TORTURE", "0"))
#: A silence that would be answered if the event that breaks it were only missing.
WAITS = moment(
    "wait",
    "searched: Help Searched where n_results = 0 | no chat: Chat Started, for 1 hour",
    "greet",
    more="expires: 1 year",
)


#: What breaks the silence is kept for a shorter time than what begins it.
FOR_LONG = {name: text.replace("Help Searched: 2 months, ", "") for name, text in SOURCES.items()}


class Scene(NamedTuple):
    """What has happened, what is done then, the words that go and stay, and a late event of one whose silence
    was broken. `stride`: of so many points `make test` strikes one."""

    story: str
    project: Project
    done: Callable[[Engine], object]
    goes: str
    stays: str
    late: str
    stride: int
    now: int = 0


SCENES = {
    "a range": Scene(
        """
        09:00 web u=anna mail=keptmail@x.fi Customer Identified name=keptname
        09:02 web u=bertta Customer Identified name=berttaname
        09:30 web u=dora Help Searched n_results=0 query=keptquery
        10:00 web u=anna a=leakid mail=leakmail@x.fi Customer Identified name=leakname
        10:02 web u=anna Help Searched n_results=0 query=leakquery
        10:03 web u=cilla gpc Page Viewed page=leakpage
        10:05 app u=anna Chat Started text=leakchat
        10:10 app u=dora Chat Started text=leakchat
        10:59 web u=anna Consent Withdrawn purpose=marketing
        11:00 web u=bertta Help Searched n_results=3 query=berttaquery
        10:02>11:10 web u=anna Help Searched n_results=0 query=leakquery
        """,
        project(GREETED | WAITS),
        lambda engine: remove(engine, LEAK, "desk"),
        "leakid leakmail leakname leakquery leakpage leakchat",
        "berttaname berttaquery",
        "09:20>11:12 web u=dora Page Viewed page=keptlate",
        15,
    ),
    "what is over": Scene(
        """
        09:00 web u=anna mail=mailwillgo@x.fi Page Viewed page=pagewillgo
        09:01 web u=anna Customer Identified name=keptname
        09:02 web u=dora Help Searched n_results=0 query=keptquery
        09:03 app u=dora Chat Started text=chatwillgo
        09:04 web u=cilla gpc Page Viewed page=pagewillgo
        09:05 web u=cilla Customer Identified name=keptname
        09:05 app u=cilla Help Searched n_results=0 query=querywillgo
        09:06 app u=cilla Chat Started text=chatwillgo
        23/09:00 web u=bertta Customer Identified name=berttaname
        """,
        project(GREETED | FOR_LONG | WAITS),
        expire,
        "mailwillgo pagewillgo chatwillgo querywillgo",
        "berttaname",
        "08:59>100/00:00 web u=dora Customer Identified name=keptlate",
        40,
        month(6),
    ),
}


Done = Callable[[Engine], object]


class Case:
    """A scene on a disk of its own. `strike`: what strikes at the n-th point of what is done."""

    def __init__(self, name: str, n: int, strike: str) -> None:
        self.scene = SCENES[name]
        disk, now = prepared(name)
        self.disk = SharedDisk()
        self.disk.copy_from(disk)
        self.clock, self.chance = SimulatedClock(now + SECOND), SeededChance(n)
        self.net = LocalNet(lambda *given: Sent(True, 200), lambda *given: Sent(True, 250))
        self.vault = MemoryDisk(), MemoryDisk()
        self.backups: list[str] = []
        what: What = "visit" if strike in VISITS else strike  # type: ignore[assignment]
        self.fate = Fate([Strike(n, what, "done")])
        if what == "visit":
            self.fate.visit = lambda: self.by_another(lambda engine: VISITS[strike](self, engine))

    def opened(self, disk: Disk) -> Engine:
        return open_engine(self.scene.project, disk, self.clock, self.chance, {})

    def by_another(self, done: Done) -> None:
        """A process of its own; what it is refused is not this test's."""
        process = Process(self.disk, self.fate)
        try:
            done(self.opened(process))
        except (Crashed, Conflict, NotFound, Unavailable):
            pass
        finally:
            process.end()

    def lived(self) -> bool:
        """Do it under the strike, then to its end; whether it was struck."""

        def struck(engine: Engine) -> None:
            self.fate.operation = "done"
            try:
                self.scene.done(engine)
            finally:
                self.fate.operation = ""

        self.by_another(struck)
        self.fate.stop()
        process = Process(self.disk, self.fate)
        engine = self.opened(process)
        self.ended(engine)
        assert_taken(self.scene, engine, self.disk)
        for each in self.backups:
            self.back_up(engine)
            data, chosen = SharedDisk(), choose(self.vault[0], each, self.vault[1])
            restore(chosen, MemoryDisk(), data, self.clock, self.chance, {})
            there = Process(data, self.fate)
            restored = self.opened(there)
            self.ended(restored)
            assert_taken(self.scene, restored, data)
            there.end()
        process.end()
        return bool(self.fate.struck)

    def ended(self, engine: Engine) -> None:
        advance(engine)
        self.scene.done(engine)
        finish(engine)
        refresh(engine.disk, engine.journal, engine.state)

    def back_up(self, engine: Engine) -> str:
        self.clock.sleep(1)
        return backup(engine, *self.vault).backup

    # -- what another process does just then

    def backed_up(self, engine: Engine) -> None:
        self.backups.append(self.back_up(engine))

    def refreshed(self, engine: Engine) -> None:
        refresh(engine.disk, engine.journal, engine.state)

    def late(self, engine: Engine) -> None:
        """A late event of somebody, folded by itself."""
        engine.acceptor.accept([Parsed([event(self.scene.late)], [])])
        advance(engine, 1)

    def delivered(self, engine: Engine) -> None:
        deliver(engine, self.net, "app")

    def erased(self, engine: Engine) -> None:
        cilla = identifier(engine.keys.node, "user_id", "cilla")
        assert cilla is not None
        erase(engine, engine.state.customers_of([cilla.node])[cilla.node], "desk")

    def verified(self, engine: Engine) -> None:
        verify(engine)


VISITS: dict[str, Callable[[Case, Engine], None]] = {
    "backup": Case.backed_up,
    "refresh": Case.refreshed,
    "late": Case.late,
    "deliver": Case.delivered,
    "erase": Case.erased,
    "verify": Case.verified,
}


@cache
def prepared(name: str) -> tuple[MemoryDisk, int]:
    """The disk on which a story has happened, and when that was."""
    scene, disk = SCENES[name], MemoryDisk()
    world = World(scene.project, disk=disk)
    for line in lines(scene.story):
        world.live(line)
    world.deliver("app")
    world.clock.move(max(world.clock.now(), scene.now))
    return disk, world.clock.now()


def assert_taken(scene: Scene, engine: Engine, disk: SharedDisk) -> None:
    """What was to go is in no byte and cannot be read, all else is there, and nobody was answered for it."""
    read = b"".join(each.body for each in engine.journal.read(0, 10**6) if each.body is not None)
    for word in map(str.encode, scene.goes.split()):
        assert word not in read
        assert [name for name, data in disk.every_byte() if word in data] == []
    assert all(word.encode() in read for word in scene.stays.split())
    assert engine.db.execute("SELECT count(*) FROM decisions WHERE moment = 'wait'").fetchone() == (0,)
    assert all(each.is_genuine for each in listed(engine.journal.secrets, engine.db))
    verify(engine)
    rebuilt = rebuild(engine)
    assert rebuilt.before == rebuilt.after


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("strike", ["crash", "full", "lost", "unsure", *VISITS])
def test_whatever_strikes_it_comes_to_the_same_end(name: str, strike: str) -> None:
    stride = 1 if TORTURE else SCENES[name].stride
    n = 1 + len(strike) * 7 % stride
    while Case(name, n, strike).lived():
        n += stride
    assert n > stride
