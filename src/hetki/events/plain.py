"""Plain batches: the common body of a batch, read as one value, several times as fast as call by call.

Nothing is judged here. Where every call keeps every rule and has no surprise in it, the events are what
`segment` reads; anything else gives None, and `segment` looks at each call by itself. `tests/test_plain.py`
holds the two to the same events. The caller has made sure that the body needs no deep look.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Literal

import msgspec

from hetki.events import wire
from hetki.events.event import ALIASED, IDENTIFIED, PAGE_VIEWED, SCREEN_VIEWED, Event
from hetki.events.wire import EPOCH, Arrival
from hetki.settings import SECOND, Limits

MICROSECOND = timedelta(microseconds=1)
NOTHING = msgspec.Raw(b"{}")
#: Calls whose name is fixed; `track` names its event itself. `group` is not plain.
NAMES = {
    "track": "",
    "page": PAGE_VIEWED,
    "screen": SCREEN_VIEWED,
    "identify": IDENTIFIED,
    "alias": ALIASED,
}


#: Bounds that a project may widen; where it narrows one of `NARROW`, no body is plain.
DEFAULT = Limits()
#: Bytes of properties and context together up to which a call has few keys and is small.
PARTS_BYTES_MAX = 4 * DEFAULT.keys_max
NARROW = ("id_chars_max", "text_chars_max", "event_bytes_max", "keys_max")
OPENS = ord("{")
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=DEFAULT.id_chars_max)]
Text = Annotated[str, msgspec.Meta(max_length=DEFAULT.text_chars_max)]
Time = Annotated[datetime, msgspec.Meta(tz=True)]


class Call(msgspec.Struct, rename="camel", gc=False):
    """One call of a plain batch: everything that may be missing is absent or null."""

    type: Literal["track", "page", "screen", "identify", "alias"]
    message_id: Id
    timestamp: Time | None = None
    original_timestamp: Time | None = None
    event: Text | None = None
    user_id: Text | None = None
    anonymous_id: Text | None = None
    previous_id: Text | None = None
    sent_at: Time | None = None
    name: str | None = None
    category: str | None = None
    properties: msgspec.Raw = NOTHING
    traits: msgspec.Raw = NOTHING
    context: msgspec.Raw = NOTHING


class Batch(msgspec.Struct, rename="camel", gc=False):
    """The body of `/v1/batch` with plain calls alone."""

    batch: list[Call]
    sent_at: Time | None = None


class _Surprise(Exception):
    """A call is not plain."""


_BATCH = msgspec.json.Decoder(Batch)


def events(body: bytes, arrival: Arrival) -> list[Event] | None:
    """The events of a body, or None if any call of it is not plain.

    Without a backslash or a control character in it, the body's ids need not be looked at one by one.
    """
    limits = arrival.limits
    is_doubtful = b"\\" in body or b"\x7f" in body
    if not body.isascii():
        try:
            is_doubtful = not body.decode().isprintable() or is_doubtful
        except UnicodeDecodeError:
            return None
    if any(getattr(limits, name) < getattr(DEFAULT, name) for name in NARROW):
        return None
    try:
        batch = _BATCH.decode(body)
    except wire.UNREADABLE:
        return None
    if len(batch.batch) > limits.batch_events_max:
        return None
    skew = arrival.skew
    if batch.sent_at is not None:
        skew = arrival.received_at - (batch.sent_at - EPOCH) // MICROSECOND
    try:
        if is_doubtful:
            for call in batch.batch:
                _look_at(call)
        return [_event(call, index, arrival, skew) for index, call in enumerate(batch.batch)]
    except _Surprise:
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


def _look_at(call: Call) -> None:
    for text in (call.message_id, call.event, call.user_id, call.anonymous_id, call.previous_id):
        if text and not text.isprintable():
            raise _Surprise


def _event(call: Call, index: int, arrival: Arrival, skew: int) -> Event:
    kind, user_id, anonymous_id = call.type, call.user_id, call.anonymous_id
    name = NAMES[kind] or call.event
    is_identify = kind == "identify"
    properties, context = bytes(call.traits if is_identify else call.properties), bytes(call.context)
    if properties[0] != OPENS or context[0] != OPENS or len(properties) + len(context) > PARTS_BYTES_MAX:
        raise _Surprise
    if not name or name.isspace():
        raise _Surprise
    identifiers = {}
    if user_id:
        identifiers["user_id"] = user_id
    if anonymous_id:
        identifiers["anonymous_id"] = anonymous_id
    elif not user_id:
        raise _Surprise
    if kind == "alias":
        if not user_id or not call.previous_id:
            raise _Surprise
        identifiers["previous_id"] = call.previous_id
    if is_identify or b'"email"' in properties or b'"phone"' in properties or b'"traits"' in context:
        properties = _contacts(call, properties, context, identifiers, arrival.limits.text_chars_max)
    elif (call.name or call.category) and kind != "track":
        properties = _named(call, properties)
    received_at = arrival.received_at
    if call.sent_at is not None:
        skew = received_at - (call.sent_at - EPOCH) // MICROSECOND
    told_at = call.timestamp or call.original_timestamp
    at = received_at if told_at is None else (told_at - EPOCH) // MICROSECOND + skew
    if at > received_at:
        if at > received_at + arrival.limits.ahead_s_max * SECOND:
            raise _Surprise
        at = received_at
    elif at < 0:
        raise _Surprise
    return Event(
        arrival.source,
        call.message_id,
        arrival.channel,
        name,
        at,
        received_at,
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


def _named(call: Call, properties: bytes) -> bytes:
    """The properties of a page or screen with the name and category that stand beside them."""
    named = {"name": call.name, "category": call.category}
    known = wire.OBJECT.decode(properties) or {}
    return with_members(properties, {key: text for key, text in named.items() if text and key not in known})
