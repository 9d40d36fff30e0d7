"""The simulated ports: time that is moved, chance from a seed, databases in memory, a network of functions.

They keep the promises of `hetki.store.ports`, held to them by the same tests as the real ones; where they
cannot, the class says so. Customers, staff and faults live beside this file.
"""

from __future__ import annotations

import random
import sqlite3
import threading
from itertools import count
from typing import Callable, Iterable

from hetki.errors import Fault, NotFound, Unavailable
from hetki.store.ports import Sent
from hetki.store.system import BUSY_S, SystemDisk, listed, plain_name

_DISKS = count()


class SimulatedClock:
    """A clock that stands still until it is moved, or until someone sleeps."""

    def __init__(self, at: int) -> None:
        self._now = at

    def now(self) -> int:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += max(0, round(seconds * 1_000_000))

    def move(self, to: int) -> None:
        """Go forward to an instant; an earlier one changes nothing, because no clock runs backwards."""
        self._now = max(self._now, to)


class SeededChance:
    """The same bytes for the same seed and the same sequence of calls. Never for real secrets."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def bytes(self, n: int) -> bytes:
        return self._random.randbytes(n)


class MemoryDisk:
    """Databases in memory, and files in memory too unless a folder for them is given.

    Each instance is a disk of its own. Libraries that open files by themselves need the folder: without
    one `path` raises `Unavailable`. Weaker than the real disk: while one connection has written inside a
    transaction, others wait instead of reading the state before it; a database holds 1 GB at most.
    """

    def __init__(self, folder: str | None = None) -> None:
        self._number = next(_DISKS)
        self._opened = count()
        self._databases: dict[str, tuple[str, sqlite3.Connection]] = {}
        self._files: dict[str, bytes] = {}
        self._folder = SystemDisk(folder) if folder else None
        self._lock = threading.Lock()

    def connect(self, name: str) -> sqlite3.Connection:
        """A first connection is kept, so that the data outlives the callers' own."""
        name = plain_name(name)
        with self._lock:
            if name not in self._databases:
                uri = f"file:/hetki-{self._number}-{next(self._opened)}?vfs=memdb"
                self._databases[name] = (uri, _open(uri))
            return _open(self._databases[name][0])

    def settle(self, name: str) -> None:
        """Memory is written at once; only a name that leads out of the disk is refused."""
        plain_name(name)

    def wipe(self, name: str, first: int = 1) -> int:
        """A database in memory is no file that anybody could read."""
        plain_name(name)
        return 0

    def read(self, name: str) -> bytes:
        name = plain_name(name)
        if self._folder is not None:
            return self._folder.read(name)
        if name not in self._files:
            raise NotFound(Fault(name, "no such file", "an existing file"))
        return self._files[name]

    def write(self, name: str, data: bytes | Iterable[bytes]) -> None:
        name = plain_name(name)
        if self._folder is not None:
            self._folder.write(name, data)
        else:
            self._files[name] = data if isinstance(data, bytes) else b"".join(data)

    def names(self, pattern: str) -> list[str]:
        with self._lock:
            known = {*self._databases, *self._files}
        in_folder = self._folder.names(pattern) if self._folder is not None else []
        return sorted({*in_folder, *(name for name in known if listed(name, pattern))})

    def path(self, name: str) -> str:
        name = plain_name(name)
        if self._folder is None:
            raise Unavailable(Fault(name, "a disk in memory", "a disk with a folder for files"))
        return self._folder.path(name)

    def tidy(self, folder: str) -> None:
        if self._folder is not None:
            self._folder.tidy(folder)

    def remove(self, name: str) -> None:
        name = plain_name(name)
        if self._folder is not None:
            self._folder.remove(name)
        with self._lock:
            for each in [each for each in self._databases if _within(each, name)]:
                self._databases.pop(each)[1].close()
            for each in [each for each in self._files if _within(each, name)]:
                del self._files[each]


def _open(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute("PRAGMA secure_delete=ON")
    return connection


def _within(name: str, removed: str) -> bool:
    return name == removed or name.startswith(removed + "/")


class LocalNet:
    """A network whose destinations are functions in this process, which see what the real ones would.

    A function that raises `OSError` is a destination that does not answer. `n_posts` and `n_mails` count
    the attempts.
    """

    def __init__(
        self,
        post: Callable[[str, dict[str, str], bytes], Sent] | None = None,
        mail: Callable[[str, str, str, bytes], Sent] | None = None,
    ) -> None:
        self._post = post
        self._mail = mail
        self.n_posts = 0
        self.n_mails = 0

    def post(self, url: str, headers: dict[str, str], body: bytes, timeout_s: float) -> Sent:
        self.n_posts += 1
        if self._post is None:
            return Sent(False, 0, "connection refused")
        try:
            return self._post(url, headers, body)
        except OSError as error:
            return Sent(False, 0, type(error).__name__)

    def mail(self, server: str, sender: str, recipient: str, message: bytes, timeout_s: float) -> Sent:
        self.n_mails += 1
        if self._mail is None:
            return Sent(False, 0, "connection refused")
        try:
            return self._mail(server, sender, recipient, message)
        except OSError as error:
            return Sent(False, 0, type(error).__name__)
