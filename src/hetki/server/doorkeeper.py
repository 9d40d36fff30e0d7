"""The doorkeeper: all connections of the server, how many may be in, and which has to leave for another.

Where every place is taken, one that waits for its sender is given up: first those that have asked for
nothing, then those whose headers and those whose bodies are still coming, and of these whoever has kept us
waiting the longest. So connections that do nothing hold nobody up. Those that we are working for never have
to leave; when there are no others, who comes new is refused. Once a second all deadlines are looked at.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from operator import itemgetter

from hetki.errors import Exhausted, Fault, Unavailable
from hetki.server.door import Door
from hetki.server.site import Site, known_as
from hetki.settings import Connections

#: How often the log tells what was refused, at most.
TOLD_S = 10.0

log = logging.getLogger("hetki.server")


class Doorkeeper:
    """Counts doors, in all and by address. `n_lingering` is kept by the doors themselves."""

    def __init__(self, bounds: Connections, site: Site) -> None:
        self.bounds = bounds
        self._site = site
        self.n_lingering = 0
        self._doors: set[Door] = set()
        self._by_address: dict[str, set[Door]] = {}
        self._noted: Counter[str] = Counter()
        self._told_at = 0.0

    def enter(self, door: Door) -> None:
        """Let a new connection in, if need be in another's place; else refuse it."""
        address = known_as(door.address)
        of_address = self._by_address.get(address, set())
        n_max = self.bounds.per_address_max
        if len(of_address) >= n_max and not self._site.speaks_for_others(door.address):
            if not self._makes_room(of_address):
                self.note("too many of one address")
                got = f"{len(of_address)} of one address"
                door.refuse(429, Exhausted(Fault("connections", got, f"at most {n_max}", "close some")))
                return
        if len(self._doors) >= self.bounds.connections_max and not self._makes_room(self._doors):
            self.note("too many")
            full = Fault("connections", f"{len(self._doors)}", f"at most {self.bounds.connections_max}")
            door.refuse(503, Unavailable(full))
            return
        self._doors.add(door)
        self._by_address.setdefault(address, set()).add(door)

    def leave(self, door: Door) -> None:
        """Forget a connection. A repeat does nothing."""
        self._doors.discard(door)
        address = known_as(door.address)
        of_address = self._by_address.get(address)
        if of_address is not None:
            of_address.discard(door)
            if not of_address:
                del self._by_address[address]

    def note(self, why: str) -> None:
        """Count a refusal for the log."""
        self._noted[why] += 1

    async def sweep(self) -> None:
        """Look at every deadline, and tell the operator what was refused."""
        now = asyncio.get_running_loop().time()
        for door in list(self._doors):
            door.look(now)
        if self._noted and now - self._told_at >= TOLD_S:
            told = " ".join(f"{why.replace(' ', '_')}={n}" for why, n in sorted(self._noted.items()))
            log.warning("connections=%d refused %s", len(self._doors), told)
            self._noted.clear()
            self._told_at = now

    def _makes_room(self, doors: Iterable[Door]) -> bool:
        """Whether one of these left: of those that have asked for least, the one waited for the longest."""
        waiting = [
            (door.asked_for, since, door) for door in doors if (since := door.waits_since()) is not None
        ]
        if not waiting:
            return False
        _, _, longest = min(waiting, key=itemgetter(0, 1))
        self.note("left for another")
        self.leave(longest)
        must = f"at most {self.bounds.connections_max}"
        longest.give_way(Unavailable(Fault("connections", "more, and this one slow", must)))
        return True
