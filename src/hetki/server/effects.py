"""Effects: the report over the lake for the pages, computed once for each state of the lake."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import duckdb
import msgspec

from hetki.engine.report import report
from hetki.errors import Unavailable
from hetki.measurement.effect import Effect
from hetki.measurement.outcome import Measured
from hetki.settings import SECOND
from hetki.store.lake import ask
from hetki.store.lake_files import read_mark
from hetki.store.ports import Clock, Disk

#: A lake that grows all the time is not estimated anew more often than this.
KEPT_S = 60


class Estimated(msgspec.Struct, frozen=True):
    """The effects by what the lake held when its newest event was received."""

    until: int
    effects: list[Effect]


class Effects:
    """The newest estimates. One thread computes; the others wait for it."""

    def __init__(self, disk: Disk, clock: Clock, moments: Sequence[Measured]) -> None:
        self._disk = disk
        self._clock = clock
        self._moments = moments
        self._lock = threading.Lock()
        self._known: tuple[int, int, Estimated] | None = None

    def load(self) -> Estimated | None:
        """The effects; None while there is no lake. Raises `Unavailable` while it is written anew."""
        with self._lock:
            now, position = self._clock.now(), read_mark(self._disk).position
            if position == 0:
                return None
            known = self._known
            if known is not None and (known[0] == position or now - known[1] < KEPT_S * SECOND):
                return known[2]
            try:
                estimated = ask(self._disk, self._estimate)
            except Unavailable:
                if known is not None:
                    return known[2]
                raise
            self._known = (position, now, estimated)
            return estimated

    def _estimate(self, lake: duckdb.DuckDBPyConnection) -> Estimated:
        """Results are judged by what had been received; a window beyond it is not over yet."""
        lake.execute("SET threads = 1")
        newest = lake.execute("SELECT coalesce(max(epoch_us(received_at)), 0) FROM events").fetchall()
        until: int = newest[0][0]
        return Estimated(until, report(lake, self._moments, until))
