"""Workers that deliver over HTTP until they are killed: `python delivery_life.py`.

Each line on standard input is one worker as JSON (`folder`, `url`, `at`, `n_points`) that lives in a fork of
this process: its process id is printed, and then how it ended. It is killed at the point of that number: a
begin or a commit of any database, before and after it, or before or after a message is sent.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys

from faults import Fate, Process, What
from receiving import SECRET
from world import TOML, moment, project

from hetki.engine.advance import advance
from hetki.engine.deliver import deliver
from hetki.engine.engine import open_engine
from hetki.engine.project import Project
from hetki.simulation.world import SimulatedClock
from hetki.store.network import SystemNet
from hetki.store.ports import Sent
from hetki.store.system import SystemChance, SystemDisk

INSIDE = ("localhost",)


def declared(url: str) -> Project:
    """A search in vain is answered at once, by a webhook that tries for two days."""
    toml = "\n".join(
        f'url = "{url}"' if line.startswith("url") else f'secret = "{SECRET}"' if "whsec" in line else line
        for line in TOML.splitlines()
    )
    help_now = moment("help", "a: Help Searched where n_results = 0", more="expires: 2 days")
    return project({**help_now, "hetki.toml": toml})


class Doom(Fate):
    """kill -9 at one point, once it is armed."""

    n_points = 0

    def point(self, process: Process, file: str, place: str) -> What | None:
        self.n_points -= 1
        if self.n_points == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return None


class Disk(SystemDisk):
    """The real disk, whose logs and connections are its own."""

    def lend(self, name: str) -> sqlite3.Connection:
        return self.connect(name)

    def take_back(self, name: str, db: sqlite3.Connection) -> None:
        db.close()

    def wrote(self, name: str) -> None:
        pass

    def emptied(self, name: str) -> None:
        pass


class Net:
    """The real network, with a point before and after each exchange."""

    def __init__(self, doom: Doom, process: Process) -> None:
        self._doom, self._process, self._net = doom, process, SystemNet(INSIDE)

    def post(self, url: str, headers: dict[str, str], body: bytes, timeout_s: float) -> Sent:
        self._doom.point(self._process, "network", "send")
        sent = self._net.post(url, headers, body, timeout_s)
        self._doom.point(self._process, "network", "sent")
        return sent

    def mail(self, server: str, sender: str, recipient: str, message: bytes, timeout_s: float) -> Sent:
        raise AssertionError("there is no mail here")


def live(folder: str, url: str, at: int, n_points: int) -> None:
    """Fold, and deliver all that is due."""
    doom = Doom()
    process = Process(Disk(folder, durable=False), doom)  # type: ignore[arg-type]
    engine = open_engine(declared(url), process, SimulatedClock(at), SystemChance(), {})  # type: ignore[arg-type]
    advance(engine)
    doom.n_points = n_points
    deliver(engine, Net(doom, process), "app")


def main() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        given = json.loads(line)
        declared(given["url"])
        pid = os.fork()
        if pid == 0:
            live(**given)
            os._exit(0)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
