"""Arrivals: the bodies that are on their way, and how much memory they may hold.

All together have a bound, and so have those of one address. A body that does not come on leaves for those
that do: else a few senders that stop halfway could keep everybody out for as long as a body may take.
Start at `Arrivals.grow`.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from hetki.errors import Fault, Unavailable
from hetki.server.site import Site
from hetki.settings import ADDRESS_BYTES_MAX, ARRIVING_BYTES_MAX

#: A body comes on while so much of it arrives in such a time; one that does not gives way to others.
STEP_BYTES, STALLED_S = 16 * 1024, 1.0
SLOW = Fault(
    "server", "a body that is slow to arrive while others wait", "one that comes on", "send it again"
)


class Arriving:
    """One body: of which address, how much of it is here, and since when it has not come on by a step.

    `task` is who waits for it; None once it is whole. `has_left`: it has given way.
    """

    __slots__ = ("address", "has_left", "n_bytes", "n_bytes_then", "since", "task")

    def __init__(self, address: str, task: asyncio.Task[None] | None, since: float) -> None:
        self.address = address
        self.task = task
        self.since = since
        self.n_bytes = self.n_bytes_then = 0
        self.has_left = False


class Arrivals:
    """All bodies of one way in, for its event loop alone. `n_bytes` is what they hold."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._bodies: set[Arriving] = set()
        self._of_address: Counter[str] = Counter()
        self.n_bytes = 0

    def begin(self, address: str) -> Arriving:
        """A body of which nothing is here yet; the present task waits for it."""
        arriving = Arriving(address, asyncio.current_task(), asyncio.get_running_loop().time())
        self._bodies.add(arriving)
        return arriving

    def grow(self, arriving: Arriving, n_bytes: int) -> None:
        """More of a body is here, if need be in the place of one that does not come on.

        Raises `Unavailable` where there is no room.
        """
        now = asyncio.get_running_loop().time()
        self._add(arriving, n_bytes)
        if arriving.n_bytes - arriving.n_bytes_then >= STEP_BYTES:
            arriving.n_bytes_then, arriving.since = arriving.n_bytes, now
        of_address = self._of_address[arriving.address]
        if of_address > ADDRESS_BYTES_MAX and not self._site.speaks_for_others(arriving.address):
            got = f"{of_address} bytes arriving at once from one address"
            raise Unavailable(Fault("server", got, f"at most {ADDRESS_BYTES_MAX}"))
        while self.n_bytes > ARRIVING_BYTES_MAX:
            waiting = [each for each in self._bodies if each.task is not None and each is not arriving]
            slowest = min(waiting, key=lambda each: each.since, default=arriving)
            if slowest is arriving or now - slowest.since < STALLED_S:
                got = f"{self.n_bytes} bytes arriving at once"
                raise Unavailable(Fault("server", got, f"at most {ARRIVING_BYTES_MAX}"))
            self._give_way(slowest)

    def end(self, arriving: Arriving) -> None:
        """What a body held is free. A repeat does nothing."""
        self._bodies.discard(arriving)
        self._add(arriving, -arriving.n_bytes)
        if not self._of_address[arriving.address]:
            del self._of_address[arriving.address]

    def _give_way(self, slow: Arriving) -> None:
        assert slow.task is not None, "one that somebody waits for"
        slow.has_left = True
        self.end(slow)
        slow.task.cancel()

    def _add(self, arriving: Arriving, n_bytes: int) -> None:
        arriving.n_bytes += n_bytes
        self._of_address[arriving.address] += n_bytes
        self.n_bytes += n_bytes
