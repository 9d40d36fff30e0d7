"""Lives on a disk that fails, under the real SQLite: `python disk_life.py`, loaded with `faulty_disk.c`.

Each line on standard input is one life as JSON (`folder`, `seed`, `durable`, `n_steps`, `fails`,
`lies`, `is_directed`); each is lived in a fork of this process, and how it ended is printed. What was
acknowledged, and what had an effect, is written to `told.txt` in the folder, a file that the failing disk
leaves alone.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import sqlite3
import sys
from pathlib import Path

from world import action, at, clock, event, moment, project

from hetki.engine.advance import advance
from hetki.engine.deliver import deliver
from hetki.engine.engine import Engine, open_engine
from hetki.engine.project import Project
from hetki.errors import HetkiError
from hetki.events.wire import Parsed
from hetki.simulation.world import LocalNet, SimulatedClock
from hetki.store import system
from hetki.store.ports import Sent
from hetki.store.sqlite import transaction

#: A checkpoint after so many pages: the write-ahead log is copied into the file many times in a life.
CHECKPOINT_PAGES = 24
N_ROUNDS = 60


def declared() -> Project:
    """Two searches in vain are answered at once."""
    twice = moment(
        "twice", "a: Help Searched | b: Help Searched", "call", more="within: 1 day\nexpires: 1 day"
    )
    return project({**twice, "moments/help.yaml": None, **action("call")})


def live(folder: str, seed: int, durable: bool) -> None:
    """Accept, advance and deliver until the machine dies, or all is told."""
    told = os.open(f"{folder}/told.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    dice = random.Random(seed)
    time = SimulatedClock(at("10:00") + seed % 1_000 * 7_200_000)  # a second life, an hour later

    def posted(url: str, headers: dict[str, str], body: bytes) -> Sent:
        data = json.loads(body)["data"]
        os.write(told, f"effect {data['message_id']} {data['decision_id']}\n".encode())
        return Sent(True, 200)

    engine: Engine | None = None
    for number in range(N_ROUNDS):
        ids = [f"{seed}-{number}-{n}" for n in range(dice.choice((2, 2, 3, 20)))]
        line = f"{clock(time.now())} web u=u{{}} id={{}} Help Searched n_results=0"
        events = [event(line.format(dice.randrange(30), each)) for each in ids]
        try:
            disk = system.SystemDisk(folder, durable)
            engine = engine or open_engine(declared(), disk, time, system.SystemChance(), {})
            engine.acceptor.accept([Parsed(events, [])])
            os.write(told, "".join(f"told {each}\n" for each in ids).encode())
            if dice.random() < 0.5:
                advance(engine)
            if dice.random() < 0.3:
                time.sleep(130)
                deliver(engine, LocalNet(posted), "app")
        except HetkiError as error:
            os.write(told, f"refused {error.code}\n".encode())
            engine = None  # as every loop of the worker begins again on fresh connections
            time.sleep(1)


def live_on(folder: str, seed: int, n_steps: int) -> None:
    """A commit's sync fails, and so does the one when its store is closed; it is settled and written again.

    By an odd seed the sync of settling fails, too. The power goes at one step of all that comes after.
    """
    told = os.open(f"{folder}/told.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    disk, shim = system.SystemDisk(folder), ctypes.CDLL(None)
    shim.disk_arm(seed, 1_000_000, 0, 0)

    def write(db: sqlite3.Connection, value: int) -> None:
        with transaction(db):
            db.execute("INSERT INTO done VALUES (?)", (value,))
            db.execute("UPDATE pages SET value = ?1 WHERE n / 4 = ?1", (value,))
        os.write(told, f"told {value}\n".encode())

    db = disk.connect("one.db")
    db.executescript("CREATE TABLE done(value); CREATE TABLE pages(n INTEGER PRIMARY KEY, value, body)")
    with transaction(db):
        db.executemany("INSERT INTO pages VALUES (?, 0, zeroblob(3000))", [(n,) for n in range(20)])
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # what a commit does not touch is in the file alone
    write(db, 1)
    try:
        shim.disk_fail_syncs(2 + seed % 2)
        write(db, 2)
    except HetkiError:
        db.close()
    shim.disk_arm(seed, n_steps, 0, 0)
    try:
        disk.settle("one.db")
    except HetkiError:
        disk.settle("one.db")
    db = disk.connect("one.db")
    write(db, 3)
    write(db, 4)
    db.close()


def main() -> None:
    system.CHECKPOINT_PAGES = CHECKPOINT_PAGES
    shim = ctypes.CDLL(None)
    declared()
    print("ready", flush=True)
    for line in sys.stdin:
        given = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                if given["is_directed"]:
                    live_on(given["folder"], given["seed"], given["n_steps"])
                else:
                    shim.disk_arm(given["seed"], given["n_steps"], given["fails"], given["lies"])
                    live(given["folder"], given["seed"], given["durable"])
            except BaseException as error:
                Path(given["folder"], "error.txt").write_text(f"{type(error).__name__}: {error}")
                os._exit(3)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
