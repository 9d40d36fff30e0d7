"""Rates: how much one key, one address and one name may take, as buckets that fill up again with time.

Each bucket is one number (GCRA, the generic cell rate algorithm of ATM Forum TM 4.0, 1996): the instant at
which it is full again. All sums are of whole numbers, so nothing is ever let in by a rounding. Start at
`Buckets`; `Rates` has those of the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import blake2b

from hetki.errors import Fault, HetkiError
from hetki.server.status import Busy
from hetki.settings import BURST_S, SECOND, Server
from hetki.store.staff import handle_of

#: Buckets of one kind that are kept apart; beyond them newcomers share one.
KEPT_MAX = 50_000
#: Sign-ins: so many at once, then one in so many seconds; of one address and of one name.
SIGN_INS_OF_ADDRESS, SIGN_IN_OF_ADDRESS_S = 30, 2
SIGN_INS_OF_NAME, SIGN_IN_OF_NAME_S = 10, 60
KEYLESS = "requests without a valid key"
#: What the link of an own page may be asked for in a minute, and so much of it at once; what costs much has
#: its own bound. And what an address may ask of links that lead nowhere.
LOOKS_MAX, COSTLY_MAX, MISSES_MAX = 60, 6, 60


class Buckets:
    """Buckets of one size by key: `n` come back in `per_us` microseconds, up to `burst`.

    At most `kept_max` are kept. One that is full again is the same as a new one and may be forgotten; one
    that is not full is never forgotten, or whoever brings enough other keys would have it full again. So
    where every place is taken by such, newcomers share one bucket, and whoever leaves it for a place of their
    own begins as full as that one was. Thus no key ever takes more than `burst`, and `n` in each `per_us`.
    """

    def __init__(self, n: int, per_us: int, burst: int, kept_max: int = KEPT_MAX) -> None:
        self.n, self.per_us, self.burst = n, per_us, burst
        self._kept_max = kept_max
        self._full_at: dict[str, int] = {}  # in microseconds times n, as all instants here
        self._shared = 0
        self._look_at = 0

    def wait_us(self, key: str, cost: int, now: int) -> int:
        """How long until `cost` can be taken; 0: it can now. What is above `burst` never can."""
        assert 0 < cost <= self.burst, "more than a whole bucket"
        due = self._full(key, now) + (cost - self.burst) * self.per_us - now * self.n
        return max(0, -(-due // self.n))

    def take(self, key: str, cost: int, now: int) -> None:
        """Take `cost`; only where `wait_us` is 0."""
        full_at = self._full(key, now) + cost * self.per_us
        if key in self._full_at or self._has_room(now):
            self._full_at[key] = full_at
        else:
            self._shared = full_at

    def _full(self, key: str, now: int) -> int:
        """When a bucket is full, not before now."""
        return max(self._full_at.get(key, self._shared), now * self.n)

    def _has_room(self, now: int) -> bool:
        """Whether one more can be kept, after those that are full again were forgotten.

        They are looked for eight times in the span in which an empty bucket fills, so that a crowd of
        newcomers cannot have all of them looked through for each.
        """
        if len(self._full_at) >= self._kept_max and now * self.n >= self._look_at:
            self._full_at = {key: at for key, at in self._full_at.items() if at > now * self.n}
            self._look_at = now * self.n + self.burst * self.per_us // 8
        return len(self._full_at) < self._kept_max


#: What is taken: of which buckets, of whose, and how much.
Taken = tuple[Buckets, str, int]


def ticks() -> int:
    """Microseconds of the loop's clock, which nobody sets back as they may the clock of the machine."""
    return int(asyncio.get_running_loop().time() * SECOND)


class Rates:
    """Every bucket of one server. `now` says what time it is, in microseconds since anything."""

    def __init__(self, server: Server, now: Callable[[], int] = ticks) -> None:
        self._now = now
        self._of_address = Buckets(1, SIGN_IN_OF_ADDRESS_S * SECOND, SIGN_INS_OF_ADDRESS)
        self._of_name = Buckets(1, SIGN_IN_OF_NAME_S * SECOND, SIGN_INS_OF_NAME)
        self._looks, self._costly, self._misses = map(_in_a_minute, (LOOKS_MAX, COSTLY_MAX, MISSES_MAX))
        self._set(server)

    def take_up(self, server: Server) -> None:
        """Other rates from now on. Where they differ the buckets of ingest are full again."""
        if server != self._server:
            self._set(server)

    def check_address(self, address: str) -> None:
        """Raises `Busy` for an address that has come without a valid key too often."""
        self._check([(self._refusals, address, 1)], KEYLESS)

    def refused(self, address: str, error: HetkiError) -> HetkiError:
        """Count a request without a valid key; what to answer it with."""
        try:
            self._take([(self._refusals, address, 1)], KEYLESS)
        except Busy as busy:
            return busy
        return error

    def check_key(self, key: str, address: str) -> None:
        """Raises `Busy` where not even one event would be let in, before any work is done for it."""
        self._check(self._of_body(key, address, 1, 1), "events or bytes")

    def take(self, key: str, address: str, n_events: int, n_bytes: int) -> None:
        """Take the events and bytes of a body, all or none. Raises `Busy`."""
        self._take(self._of_body(key, address, max(n_events, 1), max(n_bytes, 1)), "events or bytes")

    def sign_in(self, address: str, name: str = "") -> None:
        """Count an attempt to sign in, by a name or by a token. Raises `Busy`.

        Whether the name is known makes no difference. An address that tries too often uses up nobody's name.
        """
        self._take([(self._of_address, address, 1)], "attempts to sign in")
        if name:
            whose = blake2b(handle_of(name).encode("utf-8", "replace"), digest_size=16).hexdigest()
            self._take([(self._of_name, whose, 1)], "attempts to sign in")

    def look(self, link: str, is_costly: bool) -> None:
        """Count a look at an own page. Raises `Busy`."""
        self._take([(self._costly if is_costly else self._looks, link, 1)], "looks at one page")

    def miss(self, address: str) -> None:
        """Count a link that leads nowhere. Raises `Busy`."""
        self._take([(self._misses, address, 1)], "links that lead nowhere")

    def _set(self, server: Server) -> None:
        self._server = server
        self._events_of_key = _per_second(server.key_events_per_s)
        self._bytes_of_key = _per_second(server.key_bytes_per_s)
        self._events_of_address = _per_second(server.address_events_per_s)
        self._bytes_of_address = _per_second(server.address_bytes_per_s)
        self._refusals = _per_second(server.refused_per_s)

    def _of_body(self, key: str, address: str, n_events: int, n_bytes: int) -> list[Taken]:
        return [
            (self._events_of_key, key, n_events),
            (self._events_of_address, address, n_events),
            (self._bytes_of_key, key, n_bytes),
            (self._bytes_of_address, address, n_bytes),
        ]

    def _take(self, wanted: list[Taken], what: str) -> None:
        now = self._check(wanted, what)
        for buckets, key, cost in wanted:
            buckets.take(key, cost, now)

    def _check(self, wanted: list[Taken], what: str) -> int:
        """The instant at which all of this can be taken: now. Raises `Busy`."""
        now = self._now()
        wait_us = max(buckets.wait_us(key, cost, now) for buckets, key, cost in wanted)
        if wait_us:
            after_s = -(-wait_us // SECOND)
            raise Busy(Fault("rate", f"too many {what}", "fewer", f"come back in {after_s} s"), after_s)
        return now


def _per_second(n: int) -> Buckets:
    return Buckets(n, SECOND, n * BURST_S)


def _in_a_minute(n: int) -> Buckets:
    return Buckets(n, 60 * SECOND, n)
