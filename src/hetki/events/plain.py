"""Plain batches: the common body of a batch, read as one value, several times as fast as call by call.

Nothing is judged here. Where every call keeps every rule and has no surprise in it, the events are what
`segment` reads; anything else gives None, and `segment` looks at each call by itself. `tests/test_plain.py`
holds the two to the same events. The caller has made sure that the body needs no deep look.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hetki.errors import Invalid
from hetki.events import wire
from hetki.events.event import ALIASED, IDENTIFIED, PAGE_VIEWED, SCREEN_VIEWED, Event
from hetki.events.wire import Arrival

NOTHING = msgspec.Raw(b"{}")
#: Calls whose name is fixed; `track` names its event itself. `group` is not plain.
NAMES = {
    "track": "",
    "page": PAGE_VIEWED,
    "screen": SCREEN_VIEWED,
    "identify": IDENTIFIED,
    "alias": ALIASED,
}


class Call(msgspec.Struct, rename="camel", gc=False):
    """One call of a plain batch: everything that may be missing is absent or null."""

    type: str
    message_id: str
    timestamp: str
    event: str | None = None
    user_id: str | None = None
    anonymous_id: str | None = None
    previous_id: str | None = None
    original_timestamp: str | None = None
    sent_at: str | None = None
    name: str | None = None
    category: str | None = None
    properties: msgspec.Raw = NOTHING
    traits: msgspec.Raw = NOTHING
    context: msgspec.Raw = NOTHING


class Batch(msgspec.Struct, rename="camel", gc=False):
    """The body of `/v1/batch` with plain calls alone."""

    batch: list[Call]
    sent_at: str | None = None


class _Surprise(Exception):
    """A call is not plain."""


_BATCH = msgspec.json.Decoder(Batch)


def events(body: bytes, arrival: Arrival) -> list[Event] | None:
    """The events of a body, or None if any call of it is not plain."""
    if not _is_utf8(body):
        return None
    try:
        batch = _BATCH.decode(body)
        skew = arrival.skew
        if batch.sent_at:
            skew = arrival.received_at - wire.instant_of(batch.sent_at, "sentAt")
        if len(batch.batch) > arrival.limits.batch_events_max:
            return None
        return [_event(call, index, arrival, skew) for index, call in enumerate(batch.batch)]
    except (_Surprise, Invalid, *wire.UNREADABLE):
        return None


def with_members(raw: bytes, added: Mapping[str, str]) -> bytes:
    """A JSON object with members added at its end; it has none of them.

    >>> with_members(b'{"path": "/"}', {"name": "Home"})
    b'{"path": "/","name":"Home"}'
    """
    if not added:
        return raw
    tail = msgspec.json.encode(added)
    return tail if not raw[1:-1].strip() else raw[:-1] + b"," + tail[1:]


def _event(call: Call, index: int, arrival: Arrival, skew: int) -> Event:
    limits = arrival.limits
    name = NAMES.get(call.type)
    message_id, user_id, anonymous_id = call.message_id, call.user_id or "", call.anonymous_id or ""
    if name is None or not 0 < len(message_id) <= limits.id_chars_max or not message_id.isprintable():
        raise _Surprise
    if not name:
        name = call.event or ""
        if not name or len(name) > limits.text_chars_max or not name.isprintable() or name.isspace():
            raise _Surprise
    ids_max = limits.text_chars_max
    if len(user_id) > ids_max or len(anonymous_id) > ids_max or not (user_id or anonymous_id):
        raise _Surprise
    if not user_id.isprintable() or not anonymous_id.isprintable():
        raise _Surprise
    properties = bytes(call.traits if call.type == "identify" else call.properties)
    context = bytes(call.context)
    if properties[:1] != b"{" or context[:1] != b"{" or len(properties) + len(context) > 4 * limits.keys_max:
        raise _Surprise
    identifiers = {"user_id": user_id} if user_id else {}
    if anonymous_id:
        identifiers["anonymous_id"] = anonymous_id
    if call.type == "alias":
        previous_id = call.previous_id or ""
        if not (user_id and previous_id) or len(previous_id) > ids_max or not previous_id.isprintable():
            raise _Surprise
        identifiers["previous_id"] = previous_id
    if call.type == "identify" or b'"traits"' in context or _tells(properties):
        properties = _contacts(call, properties, context, identifiers, ids_max)
    elif (call.name or call.category) and call.type != "track":
        properties = _named(call, properties)
    if call.sent_at:
        skew = arrival.received_at - wire.instant_of(call.sent_at, "sentAt")
    return Event(
        arrival.source,
        message_id,
        arrival.channel,
        name,
        wire.occurred(call.timestamp, "timestamp", arrival, skew),
        arrival.received_at,
        identifiers,
        properties,
        context,
        index,
        arrival.gpc,
    )


def _contacts(
    call: Call, properties: bytes, context: bytes, identifiers: dict[str, str], chars_max: int
) -> bytes:
    """Add e-mail and phone to the identifiers; return the properties."""
    fields = wire.OBJECT.decode(properties) or {}
    told = (wire.OBJECT.decode(context) or {}).get("traits")
    traits = told if isinstance(told, dict) else {}
    if call.type == "identify" and not fields:
        properties = msgspec.json.encode(traits)
    wire.add_contacts(identifiers, fields, traits, chars_max)
    return _named(call, properties) if call.type in ("page", "screen") else properties


def _tells(properties: bytes) -> bool:
    """Whether properties may tell an address."""
    return b'"email"' in properties or b'"phone"' in properties


def _named(call: Call, properties: bytes) -> bytes:
    """The properties of a page or screen with the name and category that stand beside them."""
    named = {"name": call.name, "category": call.category}
    known = wire.OBJECT.decode(properties) or {}
    return with_members(properties, {key: text for key, text in named.items() if text and key not in known})


def _is_utf8(body: bytes) -> bool:
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
