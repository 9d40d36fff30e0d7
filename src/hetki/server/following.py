"""Following: the way in and the console take up the declarations that have come into force."""

from __future__ import annotations

import logging
import threading

from hetki.engine.warming import kept_project
from hetki.errors import HetkiError
from hetki.server.app import Served
from hetki.store.views import reading

#: How often it is asked which declarations are in force.
LOOK_S = 0.5

log = logging.getLogger("hetki.server")


class Follower:
    """A thread of the server that has it serve what is in force."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hetki-follower", daemon=True)

    def start(self) -> None:
        """Start the thread. A repeat is an error."""
        self._thread.start()

    def stop(self) -> None:
        """End it. Blocks; a repeat does nothing."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            try:
                self.look()
            except HetkiError as error:
                log.warning("loop=follow %s=%s", error.code, error)
            except Exception:
                log.exception("loop=follow failed again_s=%s", LOOK_S)

    def look(self) -> None:
        """Take up what is in force, if it is something else. Raises `Unavailable`."""
        engine = self._served.engine
        with reading(engine.disk) as views:
            progress = views.state.progress()
            if progress is None or progress.program == engine.program.version:
                return
            project = kept_project(views.ledger, progress.program)
        if project is not None:
            self._served.take_up(project)
