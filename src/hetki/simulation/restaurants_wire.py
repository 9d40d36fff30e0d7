"""How the simulated systems put events on the wire: Segment messages in batches, as their SDKs send them."""

from __future__ import annotations

from datetime import datetime
from random import Random
from typing import Iterable

import msgspec

from hetki.events.event import utc
from hetki.settings import SECOND
from hetki.simulation.restaurants_people import Person
from hetki.simulation.restaurants_scene import Properties, Told

#: An SDK sends at this size, or at the latest after this long.
_BATCH_EVENTS_MAX = 100
_BATCH_SPAN = 600 * SECOND
_SENDING = 200_000
_LIBRARIES = {
    "web": "analytics.js",
    "app": "analytics-kotlin",
    "desk": "analytics-node",
    "kitchen": "analytics-python",
}


class WireBody(msgspec.Struct, frozen=True):
    """One HTTP body as it reaches the server: Segment's `/v1/batch`.

    `source` is the name of the source whose write key it carries, `gpc` says that it has `Sec-GPC: 1`.
    """

    source: str
    received_at: int
    body: bytes
    gpc: bool = False


class _Message(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    type: str
    message_id: str
    timestamp: datetime
    context: msgspec.Raw
    user_id: str | None = None
    anonymous_id: str | None = None
    event: str | None = None
    name: str | None = None
    properties: Properties | None = None
    traits: Properties | None = None
    previous_id: str | None = None


class _Batch(msgspec.Struct, frozen=True, rename="camel"):
    batch: list[msgspec.Raw]
    sent_at: datetime


class Arriving(msgspec.Struct, frozen=True, gc=False):
    """One encoded event that reaches the server at an instant, from one sender's queue."""

    arrives_at: int
    source: str
    gpc: bool
    skew_s: int
    message: bytes


class Encoder:
    """Encodes events; remembers the contexts it has written."""

    def __init__(self) -> None:
        self._contexts: dict[tuple[str, str, str, str], msgspec.Raw] = {}
        self._encode = msgspec.json.Encoder().encode

    def _context(self, told: Told, person: Person) -> msgspec.Raw:
        locale = person.locale if told.device else ""
        place = (told.system, told.device, locale, told.path if told.system == "web" else "")
        if place not in self._contexts:
            context: Properties = {"library": {"name": _LIBRARIES[told.system], "version": "4.0.0"}}
            if told.device:
                context |= {"device": {"type": told.device}, "locale": locale, "timezone": "Europe/Helsinki"}
            if place[3]:
                context["page"] = {"path": told.path}
            self._contexts[place] = msgspec.Raw(self._encode(context))
        return self._contexts[place]

    def message(self, told: Told, person: Person, message_id: str) -> bytes:
        """One Segment message. A device with a wrong clock puts the same wrong time on its batch."""
        named = told.name in ("identify", "alias", "page", "screen")
        skew_s = person.skew_s if told.device else 0
        properties = dict(told.properties)
        name = properties.pop("name", None) if told.name in ("page", "screen") else None
        previous = properties.pop("previous_id", None)
        return self._encode(
            _Message(
                type=told.name if named else "track",
                message_id=message_id,
                timestamp=utc(told.happens_at + skew_s * SECOND),
                context=self._context(told, person),
                user_id=told.user_id or None,
                anonymous_id=told.anonymous_id or None,
                event=None if named else told.name,
                name=str(name) if name is not None else None,
                properties=properties if told.name not in ("identify", "alias") else None,
                previous_id=str(previous) if previous is not None else None,
                traits=properties if told.name == "identify" else None,
            )
        )

    def bodies(self, arriving: Iterable[Arriving]) -> list[WireBody]:
        """Batch events per source (and per device whose clock is wrong), in the order of receipt."""
        queues: dict[tuple[str, bool, int], list[Arriving]] = {}
        full: list[list[Arriving]] = []
        for each in arriving:
            place = (each.source, each.gpc, each.skew_s)
            queue = queues.setdefault(place, [])
            if queue and (
                len(queue) >= _BATCH_EVENTS_MAX or each.arrives_at - queue[0].arrives_at > _BATCH_SPAN
            ):
                full.append(queue)
                queue = queues[place] = []
            queue.append(each)
        made = [self._body(queue) for queue in [*full, *queues.values()]]
        return sorted(made, key=lambda body: (body.received_at, body.source))

    def _body(self, queue: list[Arriving]) -> WireBody:
        received_at = queue[-1].arrives_at
        sent_at = utc(received_at - _SENDING + queue[0].skew_s * SECOND)
        batch = _Batch([msgspec.Raw(each.message) for each in queue], sent_at)
        return WireBody(queue[0].source, received_at, self._encode(batch), queue[0].gpc)


def delay(told: Told, rng: Random) -> int:
    """How long an event is under way: most a second, a few wait in a pocket without signal."""
    if told.device and rng.random() < 0.015:
        seconds = rng.uniform(4, 55) if rng.random() < 0.5 else rng.uniform(120, 2700)
        return int(seconds * SECOND)
    if told.system == "kitchen" and rng.random() < 0.001:
        return int(rng.uniform(60, 600) * SECOND)
    return SECOND


def broken(rng: Random, started_at: int, days: int) -> list[Arriving]:
    """A few messages that break a rule each, spread over the days, in order of arrival."""
    made: list[Arriving] = []
    for n in range(days):
        at = started_at + int((n + rng.random()) * 86_400) * SECOND
        stamp = utc(at).isoformat().replace("+00:00", "Z")
        faults: list[Properties] = [
            {"type": "track", "event": 42, "anonymousId": "w-broken", "timestamp": stamp},
            {"type": "track", "event": "Order Completed", "timestamp": stamp},
            {"type": "purchase", "event": "Order Completed", "userId": "c-broken", "timestamp": stamp},
            {"type": "track", "event": "Order Tracked", "userId": "c-broken", "timestamp": "yesterday"},
            {"type": "track", "event": "Help Searched", "userId": "c-broken", "properties": ["soup"]},
        ]
        message = faults[n % len(faults)] | {"messageId": f"broken-{n}"}
        made.append(Arriving(at, "web", False, 0, msgspec.json.encode(message)))
    return made
