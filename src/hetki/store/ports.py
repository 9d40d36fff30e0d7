"""The ports: the few ways in which the engine touches clock, chance, disk and network (law 11).

Rooms never see these. `hetki.store.system` holds the real ones; `hetki.simulation.world` the simulated
twins, and one suite (`tests/test_ports.py`) holds both to the same promises.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Protocol

import msgspec


class Clock(Protocol):
    """What time it is."""

    def now(self) -> int:
        """The present instant (microseconds since 1970-01-01 UTC); never runs backwards."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait. A simulated clock moves instead."""
        ...


class Chance(Protocol):
    """Where secrets and nonces come from."""

    def bytes(self, n: int) -> bytes:
        """`n` random bytes; a repeat gives others."""
        ...


class Shelf(Protocol):
    """Files to read, and no more: where declarations come from. Every `Disk` is one."""

    def read(self, name: str) -> bytes:
        """A file's bytes. Raises `NotFound`."""
        ...

    def names(self, pattern: str) -> list[str]:
        """Relative names that match a glob, sorted."""
        ...


class Disk(Protocol):
    """The only way to files. Paths are relative to the root that the disk was opened on."""

    def connect(self, name: str) -> sqlite3.Connection:
        """Open (or create) a SQLite database. A repeat gives another connection to the same data.

        Raises `Unavailable` if the file cannot be opened.
        """
        ...

    def settle(self, name: str) -> None:
        """Rest on nothing of a database that a sync failed for. Call it before the first connection; a
        repeat does no harm. Raises `Unavailable` if the disk is failing."""
        ...

    def wipe(self, name: str, first: int = 1) -> int:
        """Overwrite what a database no longer uses of some of its pages, from number `first` on: older copies
        of rows, which their deletion leaves. Return with which page to go on: `first` itself if somebody
        reads or writes just now, 0 if there is none. A repeat does nothing. Raises `Unavailable`."""
        ...

    def read(self, name: str) -> bytes:
        """A file's bytes. Raises `NotFound`."""
        ...

    def write(self, name: str, data: bytes | Iterable[bytes]) -> None:
        """Replace a file at once and durably: a reader sees the old or the new bytes, never a mixture.

        `data` may come in pieces, of which no more than one is held. If making one raises, the file stays.
        """
        ...

    def names(self, pattern: str) -> list[str]:
        """Relative names that match a glob, sorted."""
        ...

    def path(self, name: str) -> str:
        """An absolute path for a library that opens files by itself (DuckDB, PyArrow)."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file or a folder with all in it; a repeat does nothing."""
        ...

    def tidy(self, folder: str) -> None:
        """Delete what writes that were interrupted have left in a folder. The caller sees to it that nobody
        writes there; a repeat does nothing."""
        ...


class Sent(msgspec.Struct, frozen=True):
    """What a destination answered. `status` is HTTP's or SMTP's; 0 when no answer came."""

    ok: bool
    status: int
    detail: str = ""
    retry_after_s: float | None = None


class Net(Protocol):
    """The only way out to destinations. Neither method raises: a failure is a `Sent` with `ok` false."""

    def post(self, url: str, headers: dict[str, str], body: bytes, timeout_s: float) -> Sent:
        """POST a body. A repeat posts again: the receiver tells repeats by `webhook-id`."""
        ...

    def mail(self, server: str, sender: str, recipient: str, message: bytes, timeout_s: float) -> Sent:
        """Hand a complete RFC 5322 message to an SMTP server given as `host:port`."""
        ...
