"""Trouble: what goes wrong again and again is told to the operator once, and tried again ever less often."""

from __future__ import annotations

import logging

#: How long is waited after the first failure, and at most after many.
AGAIN_S = 1.0
AGAIN_S_MAX = 10.0
#: Different things that are told of one trouble; of more only the count.
TOLD_MAX = 10


class Trouble:
    """One thing that fails again and again. `name` is how its lines begin; for one thread at a time."""

    def __init__(self, log: logging.Logger, name: str) -> None:
        self._log = log
        self._name = name
        self._told: set[str] = set()
        self.n_failed = 0

    def tell(self, said: str) -> None:
        """Log a failure: the first time that this is said, then at the 10th, 100th, 1,000th failure."""
        self.n_failed += 1
        is_new = said not in self._told and len(self._told) < TOLD_MAX
        if is_new or (self.n_failed > 1 and str(self.n_failed).strip("0") == "1"):
            self._told.add(said)
            self._log.warning("%s %s n_failed=%d", self._name, said, self.n_failed)

    def over(self) -> None:
        """It works again: log that, if anything was told before."""
        if self.n_failed:
            self._log.warning("%s works again n_failed=%d", self._name, self.n_failed)
            self.n_failed = 0
            self._told.clear()

    def rest_s(self) -> float:
        """How long to wait before it is tried again: twice as long after each failure, up to the most."""
        return min(AGAIN_S * 2.0 ** min(max(self.n_failed - 1, 0), 10), AGAIN_S_MAX)
