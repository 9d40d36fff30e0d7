"""Watch: looks at the project's folder, checks what has changed, and has it warmed and swapped in.

What `hetki check` finds fault with is refused: the declarations in force go on, and the faults stand in the
log and in `hetki status` until the folder is mended. One thread looks, and the one that advances takes the
steps, so that nothing is folded under two declarations in turn.
"""

from __future__ import annotations

import logging

from hetki.engine.changing import Target, target
from hetki.engine.check import run_examples
from hetki.engine.engine import Engine
from hetki.engine.files import fingerprint
from hetki.engine.project import Project, load
from hetki.engine.warming import begin, refuse, warm_once
from hetki.errors import Conflict, Fault, HetkiError, Unavailable
from hetki.store.ports import Shelf

#: How often the folder is looked at. A change is taken up when two looks in a row see the same.
LOOK_S = 0.5

log = logging.getLogger("hetki.worker")


class Watch:
    """What is to be taken up of a project's folder. `data` is the setting under which it is served."""

    def __init__(self, folder: Shelf, data: str) -> None:
        self._folder = folder
        self._data = data
        self._seen = b""
        self._judged = b""
        self._faults: list[Fault] = []
        self.target: Target | None = None

    def look(self, engine: Engine) -> float:
        """Look once; return how long to rest. What has faults is looked at again and again."""
        seen = self._fingerprint()
        is_settled, self._seen = seen == self._seen, seen
        if not is_settled or seen == self._judged:
            return LOOK_S
        project, faults = self._checked(engine.project.identity.version)
        if project is None:
            self._refuse(engine, faults)
            return 10 * LOOK_S
        self._faults = []
        found = target(project, engine.program.version, engine.project)
        begin(engine, found)
        self._judged = seen
        if found.program.version == engine.program.version:
            self.target = None
        else:
            self.target = found
            log.warning(
                "declarations=warming program=%s instead_of=%s n_moments_kept=%s",
                found.program.version,
                found.instead_of,
                len(found.kept),
            )
        return LOOK_S

    def take_step(self, engine: Engine) -> bool:
        """Warm some customers, if there is something to take up; whether it is in force now."""
        found = self.target
        if found is None:
            return False
        try:
            is_in_force = warm_once(engine, found)
        except Conflict:  # another process warms others, or has put them in force
            if self.target is found:
                self.target, self._judged = None, b""
            return False
        except Unavailable:
            raise
        except Exception as error:
            log.exception("declarations=failed program=%s", found.program.version)
            self.target = None
            must = "declarations under which every customer can be folded"
            self._refuse(engine, [Fault("declarations", type(error).__name__, must, "the log says more")])
            return False
        if is_in_force:
            log.warning("declarations=in force program=%s", found.program.version)
        return is_in_force

    def taken_up(self) -> Project | None:
        """What has come into force, if it was this that had it warmed. The folder is judged anew."""
        found, self.target, self._judged = self.target, None, b""
        return found.project if found else None

    def _checked(self, policy: str) -> tuple[Project | None, list[Fault]]:
        try:
            project = load(self._folder)
            faults = run_examples(project)
        except HetkiError as error:
            return None, list(error.faults)
        if project.settings.data != self._data:
            got, must = repr(project.settings.data), f"{self._data!r} as long as the project is served"
            faults.append(Fault("hetki.toml: hetki.data", got, must))
        if project.identity.version != policy:
            hint = "hetki identity --dry-run shows what it would do; stop the server, then hetki advance"
            must = "the one in force as long as the project is served"
            faults.append(Fault("hetki.toml: identity", "another policy of identity", must, hint))
        return (None, faults) if faults else (project, [])

    def _refuse(self, engine: Engine, faults: list[Fault]) -> None:
        self.target = None
        if faults != self._faults:
            self._faults = faults
            refuse(engine, faults)
            for fault in faults:
                log.error("declarations=refused fault=%s", fault)

    def _fingerprint(self) -> bytes:
        try:
            return fingerprint(self._folder)
        except HetkiError as error:  # what cannot be read is judged, too
            return str(error).encode()
