"""Following: the way in and the console take up the declarations that have come into force."""

from __future__ import annotations

import logging
import threading

from hetki.engine.warming import kept_project
from hetki.errors import HetkiError
from hetki.server.app import Served
from hetki.server.logs import without_values
from hetki.server.trouble import Trouble
from hetki.store.shortage import shortage
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
        trouble = Trouble(log, "loop=follow")
        rest_s = LOOK_S
        while not self._stopping.wait(rest_s):
            try:
                self.look()
                trouble.over()
                rest_s = LOOK_S
            except Exception as error:
                _tell(error, trouble)
                rest_s = trouble.rest_s()

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


def _tell(error: Exception, trouble: Trouble) -> None:
    """Log what went wrong; the loop itself keeps no name for it, nor with it what it was reading."""
    known = error if isinstance(error, HetkiError) else shortage(error)
    if known is None:
        log.exception("loop=follow failed")
    else:
        trouble.tell(f"{known.code}={without_values(known)}")
