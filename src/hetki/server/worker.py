"""The worker: a process of its own that folds, decides, delivers and keeps the lake fresh.

Accepting stays in the server's process and never waits for it. One thread advances, one watches the
folder, one delivers per destination (a dead one costs the others nothing), one refreshes the lake; each has
its own connections. When other declarations have come into force the threads begin again under them.
The server starts another worker when one has ended, and a worker ends when its server has.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from multiprocessing import get_context, resource_tracker
from multiprocessing.process import parent_process

from hetki.engine.advance import advance_once
from hetki.engine.deliver import deliver
from hetki.engine.engine import Engine, open_engine
from hetki.engine.erase import finish
from hetki.engine.expiring import expire_next
from hetki.engine.project import Project
from hetki.engine.warming import OTHER_DECLARATIONS, activate, is_in_force, keep, open_in_force
from hetki.errors import HetkiError
from hetki.server.logs import set_up, without_values
from hetki.server.trouble import AGAIN_S, Trouble
from hetki.server.watch import Watch
from hetki.settings import SECOND
from hetki.store.lake import refresh, tidy_spilled
from hetki.store.network import SystemNet
from hetki.store.ports import Disk, Net, Shelf
from hetki.store.shortage import shortage
from hetki.store.system import SystemChance, SystemClock, SystemDisk, collect_rarely, environment

#: How long a thread rests when it found nothing to do.
REST_S = 0.1
#: SQLite keeps no queue of writers: who waits, as whoever delivers does, looks ten times a second, and would
#: hardly ever find the state free between one batch and the next. So it is left alone for a moment after each
#: batch, and while more is waiting than one batch takes, for `GAP_S` after each `FOLDING_S`.
MOMENT_S = 0.005
FOLDING_S, GAP_S = 2.0, 0.12
#: How often the lake takes in what is new, and the share of one core's time that it may take for it: its
#: small tables are written whole, which takes long where there are many customers.
LAKE_S, LAKE_SHARE = 30.0, 0.05
#: A worker that ended by itself within this time of its start is not started again at once.
YOUNG_S = 30.0
#: How long a worker may take to end what it has begun; then it is killed, which loses nothing.
STOPPING_S = 5.0
#: The status of a worker that met what it does not know.
FAILED = 1

log = logging.getLogger("hetki.worker")


class Keeper:
    """A thread of the server that keeps one worker process running."""

    def __init__(self, folder: str, data: str) -> None:
        self._folder = folder
        self._data = data
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hetki-keeper", daemon=True)

    def start(self) -> None:
        """Start the thread and with it the worker. A repeat is an error."""
        self._thread.start()

    def stop(self) -> None:
        """End the worker, by force if it must be. Blocks; a repeat does nothing."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        # Ctrl-C reaches the whole group, but the server says when the worker stops: what is blocked here,
        # the worker inherits. The tracker that comes with a first process unblocks it, so it comes before.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        trouble = Trouble(log, "worker")
        while not self._stopping.is_set():
            try:
                self._keep_one(trouble)
            except (OSError, MemoryError) as error:  # no room for one more process
                trouble.tell(f"not started error={without_values(error)}")
            self._stopping.wait(trouble.rest_s())

    def _keep_one(self, trouble: Trouble) -> None:
        """Start a worker, afresh so that it shares nothing with this process; return when it has ended."""
        worker = get_context("spawn").Process(target=work, args=(self._folder, self._data), daemon=True)
        worker.start()
        n_looks = 0
        while worker.is_alive() and not self._stopping.is_set():
            worker.join(REST_S)
            n_looks += 1
        if not self._stopping.is_set():
            if n_looks * REST_S > YOUNG_S or (worker.exitcode or 0) < 0:  # what was killed is not to blame
                trouble.over()
            trouble.tell(f"ended exitcode={worker.exitcode}")
            return
        worker.terminate()
        worker.join(STOPPING_S + REST_S)
        worker.kill()
        worker.join()


def work(folder: str, data: str) -> None:
    """Work until told by SIGTERM, then end what was begun; or until the parent process is gone, then at once.

    Nothing is lost by ending at once: whatever was under way is taken up again by the next worker. `data`
    is where the project is served: what its settings say may have faults by now.
    """
    set_up()
    try:
        _work(folder, data)
    except Exception:
        log.exception("worker=failed")
        raise SystemExit(FAILED) from None


def _work(folder: str, data: str) -> None:
    collect_rarely()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    shelf, disk = SystemDisk(folder), SystemDisk(f"{folder}/{data}")
    watch = Watch(shelf, data)
    with suppress(HetkiError):  # a disk that refuses is told below
        tidy_spilled(disk)
    known: Project | None = None
    trouble = Trouble(log, "worker")
    while not stop.is_set():
        try:
            opened = _opened(shelf, disk, known)
        except HetkiError as error:
            trouble.tell(f"not started {error.code}={without_values(error)}")
            if not _rest(stop, trouble.rest_s()):
                return
            continue
        trouble.over()
        with closing(opened):
            if not _work_under(opened, watch, stop):
                return
        known = watch.taken_up()


def _opened(shelf: Shelf, disk: Disk, known: Project | None) -> Engine:
    """The engine under the declarations in force, put in force if they were not. Raises `HetkiError`."""
    opened = open_in_force(shelf, disk, SystemClock(), SystemChance(), environment(), known)
    try:
        if is_in_force(opened):
            keep(opened)
        else:
            activate(opened)
    except BaseException:
        opened.close()
        raise
    return opened


def _rest(stop: threading.Event, rest_s: float) -> bool:
    """Wait before another try; False if there is to be none."""
    parent = parent_process()
    for _ in range(round(rest_s / REST_S)):
        if stop.wait(REST_S) or (parent is not None and not parent.is_alive()):
            return False
    return True


def _work_under(opened: Engine, watch: Watch, stop: threading.Event) -> bool:
    """Run all loops until told to stop, or until other declarations are in force: then it is true.

    Who delivers is not waited for then: a dead destination would hold up what is decided.
    """
    over = threading.Event()
    loops: list[tuple[str, Callable[[Engine], float]]] = [
        ("advance", Advancing(watch, over)),
        ("watch", watch.look),
        ("lake", _lake),
    ]
    for name, declared in opened.project.destinations.items():
        loops.append((name, partial(_deliver, destination=name, net=SystemNet(declared.inside))))
    threads = [
        threading.Thread(target=_loop, args=(opened, name, once, over), name=name, daemon=True)
        for name, once in loops
    ]
    for thread in threads:
        thread.start()
    parent = parent_process()
    while not over.wait(REST_S) and not stop.is_set():
        if parent is not None and not parent.is_alive():
            return False
    if over.is_set() and not stop.is_set():
        return True
    over.set()
    for thread in threads:
        thread.join(STOPPING_S / len(threads))
    return False


def _loop(opened: Engine, name: str, once: Callable[[Engine], float], over: threading.Event) -> None:
    """Call `once` again and again, on connections of its own; it returns how long to rest.

    Whatever fails is logged and tried again on fresh connections: the other loops go on meanwhile. Only
    other declarations that have come into force end them all, and they begin again under those.
    """
    engine: Engine | None = None
    trouble = Trouble(log, f"loop={name}")
    while not over.is_set():
        try:
            if engine is None:
                engine = open_engine(
                    opened.project, opened.disk, opened.clock, opened.chance, opened.environment
                )
            rest_s = once(engine)
            trouble.over()
        except Exception as error:
            if engine is not None:
                engine.close()
                engine = None
            if isinstance(error, HetkiError) and OTHER_DECLARATIONS in error.faults:
                log.warning("declarations=others loop=%s", name)
                over.set()
                return
            rest_s = _failed(error, trouble, name)
        over.wait(rest_s)
    if engine is not None:
        engine.close()


def _failed(error: Exception, trouble: Trouble, name: str) -> float:
    """Tell what went wrong; return how long to rest. The loop itself keeps no name for it, nor with it what
    it was reading."""
    known = error if isinstance(error, HetkiError) else shortage(error)
    if known is None:
        log.exception("loop=%s failed again_s=%s", name, AGAIN_S)
        return AGAIN_S
    trouble.tell(f"{known.code}={without_values(known)}")
    return trouble.rest_s()


class Advancing:
    """The loop that folds live: a batch, then a step towards what is to be taken up."""

    def __init__(self, watch: Watch, over: threading.Event) -> None:
        self._watch = watch
        self._over = over
        self._since: int | None = None

    def __call__(self, engine: Engine) -> float:
        """Do both once, as neither waits long for the other; return how long to rest."""
        since = engine.clock.now() if self._since is None else self._since
        done = advance_once(engine)
        if self._watch.take_step(engine):
            self._over.set()
        self._since = None
        if not done.is_behind and self._watch.target is None:
            return MOMENT_S if done.n_entries else REST_S
        if engine.clock.now() - since >= FOLDING_S * SECOND:
            return GAP_S
        self._since = since
        return 0.0


def _deliver(engine: Engine, destination: str, net: Net) -> float:
    per_s = engine.project.destinations[destination].per_s
    delivered = deliver(engine, net, destination, max(1, round(per_s)))
    n_tried = delivered.n_sent + delivered.n_failed + delivered.n_waiting
    return max(n_tried / per_s, REST_S)


def _lake(engine: Engine) -> float:
    expire_next(engine)
    finish(engine)
    since = engine.clock.now()
    refresh(engine.disk, engine.journal, engine.state)
    took_s = (engine.clock.now() - since) / SECOND
    return max(LAKE_S, took_s / LAKE_SHARE)
