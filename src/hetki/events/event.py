"""Event: a received fact, and the total order in which facts are folded.

Nothing here knows a wire format; the parsers beside this file turn bodies into `Event`.
Instants are whole microseconds since 1970-01-01 UTC (see docs/design.md, "Why integers for time").
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from typing import NewType

import msgspec

#: Keyed hash (16 bytes) of `(source, message_id)`: what deduplication compares for ever.
EventId = NewType("EventId", bytes)
#: Keyed hash (16 bytes) of an event's narrowest owner: user id, else anonymous id, else the event.
LeafId = NewType("LeafId", bytes)

IDENTIFIED = "Customer Identified"
ALIASED = "Customer Aliased"
GROUPED = "Account Joined"
PAGE_VIEWED = "Page Viewed"
SCREEN_VIEWED = "Screen Viewed"
#: By it a system tells of a pool's staff. It belongs to no customer.
STAFFED = "Staffing Reported"

#: By these it comes back what became of a message.
DELIVERED = frozenset({"Message Sent", "Message Failed"})
#: The source of our own events: what was delivered, and what staff enter for a customer.
OWN_SOURCE = "hetki"

OrderKey = tuple[int, str, int, str]

#: The first and the last instant of the calendar. A sender in another zone may tell one up to a day beyond.
FIRST, LAST = -62_135_596_800_000_000, 253_402_300_799_999_999


class Event(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What happened, where, to whom, as one source told it.

    `identifiers` maps a namespace (`user_id`, `anonymous_id`, `previous_id`, `email`, `phone`,
    `group_id`) to its text as received. `properties` and `context` are JSON objects kept as bytes and
    parsed only for the fields that a declaration touches. `sequence` is the source's own counter, 0 if
    it has none. `gpc` says that the request carried `Sec-GPC: 1`.
    """

    source: str
    message_id: str
    channel: str
    name: str
    occurred_at: int
    received_at: int
    identifiers: dict[str, str]
    properties: bytes = b"{}"
    context: bytes = b"{}"
    sequence: int = 0
    gpc: bool = False

    @property
    def order_key(self) -> OrderKey:
        """The total order of all folds: never the position in the journal."""
        return (self.occurred_at, self.source, self.sequence, self.message_id)


def instant(at: datetime) -> int:
    """An aware datetime as an instant (microseconds since 1970-01-01 UTC).

    >>> instant(datetime(1970, 1, 2, tzinfo=UTC))
    86400000000
    """
    assert at.tzinfo is not None, "instants are made from aware datetimes"
    whole = int((at.replace(microsecond=0) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    return whole * 1_000_000 + at.microsecond


def utc(at: int) -> datetime:
    """An instant as an aware datetime in UTC; one beyond the calendar as its first or last.

    >>> utc(86_400_000_000).isoformat()
    '1970-01-02T00:00:00+00:00'
    """
    seconds, micros = divmod(min(max(at, FIRST), LAST), 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)


def event_id(key: bytes, source: str, message_id: str) -> EventId:
    """The keyed hash by which repeats of one message are one event, for ever (16 bytes)."""
    hashed = _of_source(key, source).copy()
    hashed.update(message_id.encode())
    return EventId(hashed.digest())


@lru_cache(maxsize=256)
def _of_source(key: bytes, source: str) -> blake2b:
    return blake2b(f"{source}\0".encode(), key=key, digest_size=16)
