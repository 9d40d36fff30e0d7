"""The worker: a process of its own that folds, decides, delivers and keeps the lake fresh.

Accepting stays in the server's process and never waits for it. One thread advances, one delivers per
destination (a dead one costs the others nothing), one refreshes the lake; each has its own connections.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.process import parent_process

from hetki.engine.advance import advance
from hetki.engine.deliver import deliver
from hetki.engine.engine import Engine, open_folder
from hetki.errors import Unavailable
from hetki.store.lake import refresh
from hetki.store.system import SystemNet

#: How long a thread rests when it found nothing to do.
REST_S = 0.1
#: How often the lake takes in what is new.
LAKE_S = 30.0
#: How long a thread waits after the store was unavailable.
AGAIN_S = 1.0

log = logging.getLogger("hetki.worker")


def work(folder: str, stopping: threading.Event | None = None) -> None:
    """Work until the parent process is gone, or `stopping` is set. Blocks."""
    stop = stopping or threading.Event()
    first = open_folder(folder)
    loops: list[tuple[str, Callable[[Engine], float]]] = [("advance", _advance), ("lake", _lake)]
    loops += [(name, partial(_deliver, destination=name)) for name in first.project.destinations]
    threads = [
        threading.Thread(target=_loop, args=(folder, name, once, stop), name=name, daemon=True)
        for name, once in loops
    ]
    for thread in threads:
        thread.start()
    parent = parent_process()
    while not stop.wait(REST_S):
        if parent is not None and not parent.is_alive():
            stop.set()
    for thread in threads:
        thread.join()


def _loop(folder: str, name: str, once: Callable[[Engine], float], stop: threading.Event) -> None:
    """Call `once` again and again; it returns how long to rest. A store that fails is tried again."""
    engine = open_folder(folder)
    while not stop.is_set():
        try:
            rest_s = once(engine)
        except Unavailable as error:
            log.warning("loop=%s unavailable=%s", name, error)
            rest_s = AGAIN_S
        stop.wait(rest_s)


def _advance(engine: Engine) -> float:
    done = advance(engine)
    return 0.0 if done.n_entries else REST_S


def _deliver(engine: Engine, destination: str) -> float:
    per_s = engine.project.destinations[destination].per_s
    delivered = deliver(engine, SystemNet(), destination, max(1, round(per_s)))
    n_tried = delivered.n_sent + delivered.n_failed + delivered.n_waiting
    return max(n_tried / per_s, REST_S)


def _lake(engine: Engine) -> float:
    refresh(engine.disk, engine.journal, engine.state)
    return LAKE_S
