"""Pace: how often something may be asked for, by key, in memory that has a bound."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from hetki.settings import SECOND

KEYS_MAX: Final = 10_000


class Pace:
    """At most `n_max` in each `per_s` seconds for one key. Beyond `KEYS_MAX` keys the oldest is forgotten."""

    def __init__(self, n_max: int, per_s: int) -> None:
        self._n_max, self._per = n_max, per_s * SECOND
        self._began: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, key: str, now: int) -> int:
        """Count one; 0 if it may be, else for how many seconds to wait."""
        with self._lock:
            began, n = self._began.get(key, (now, 0))
            if now - began >= self._per:
                began, n = now, 0
            self._began[key] = began, n + 1
            self._began.move_to_end(key)
            if len(self._began) > KEYS_MAX:
                self._began.popitem(last=False)
            return 0 if n < self._n_max else max(1, -(-(began + self._per - now) // SECOND))
