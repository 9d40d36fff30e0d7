"""The Segment HTTP tracking API, as its SDKs and RudderStack's speak it: one body in, events out.

`track` keeps its own name; the other calls become events of the catalogue (`NAMES`). Traits of `identify`
and `group` become properties. The envelope is typed, unknown members of it are ignored; `properties` and
`context` stay the bytes that were received. Rules that every dialect shares are in `wire.py`.
"""

from __future__ import annotations

import re

import msgspec

from hetki.errors import Fault, Invalid, nearest, shown
from hetki.events import plain, wire
from hetki.events.event import ALIASED, GROUPED, IDENTIFIED, PAGE_VIEWED, SCREEN_VIEWED, Event
from hetki.events.wire import Arrival, Parsed
from hetki.settings import Limits

#: The calls of the API and the catalogue's names for them; `track` names its event itself.
NAMES = {
    "track": "",
    "identify": IDENTIFIED,
    "page": PAGE_VIEWED,
    "screen": SCREEN_VIEWED,
    "group": GROUPED,
    "alias": ALIASED,
}
#: Calls that tell traits where the others tell properties.
TRAITS = ("identify", "group")
NOTHING = msgspec.Raw(b"{}")


class Message(msgspec.Struct, rename="camel", gc=False):
    """One call, as it stands in a body."""

    type: str | None = None
    message_id: str | int | None = None
    event: str | None = None
    user_id: str | int | None = None
    anonymous_id: str | int | None = None
    previous_id: str | int | None = None
    group_id: str | int | None = None
    timestamp: str | None = None
    original_timestamp: str | None = None
    sent_at: str | None = None
    name: str | None = None
    category: str | None = None
    properties: msgspec.Raw = NOTHING
    traits: msgspec.Raw = NOTHING
    context: msgspec.Raw = NOTHING


class Batch(msgspec.Struct, rename="camel", gc=False):
    """The body of `/v1/batch`."""

    batch: list[msgspec.Raw]
    sent_at: str | None = None


#: The name of the list of calls, whichever of its letters are escaped.
_SPELLED = re.compile(rb'"(?:b|\\u0062)(?:a|\\u0061)(?:t|\\u0074)(?:c|\\u0063)(?:h|\\u0068)"')
_BATCH = msgspec.json.Decoder(Batch)
_MESSAGE = msgspec.json.Decoder(Message)


def parse(
    body: bytes,
    kind: str,
    source: str,
    channel: str,
    received_at: int,
    limits: Limits,
    gpc: bool = False,
    skew: int = 0,
    scope: frozenset[str] = frozenset(),
) -> Parsed:
    """Read a body of the tracking API.

    `kind`: `batch`, or the call that the path names (`track`, `identify`, ...), or `message` for one call
    that says by its own `type` what it is (a rejected event that is replayed). `skew`: microseconds to add
    to times when the body has no `sentAt` of its own. `scope`: names of events; others are rejected, unless
    it is empty. Raises `Invalid` when the body cannot be cut into events, `Exhausted` when it is too large or
    has too many.
    """
    assert kind in NAMES or kind in ("batch", "message"), kind
    wire.check_size(body, limits)
    if kind != "batch":
        arrival = Arrival(source, channel, kind, received_at, limits, gpc, skew, scope)
        return wire.judged([wire.single(body)], body, "body", arrival, _read)
    # small letters, which hardly anybody escapes; one byte is looked for much faster than several
    is_escaped = b"\\" in body and (b"\\u006" in body or b"\\u007" in body)
    spelled = _SPELLED.sub(b'"batch"', body) if is_escaped else body
    if spelled.count(b'"batch"') > 1 and _is_doubled(spelled):
        raise Invalid(
            Fault("body.batch", "more than one list", "one", "the first would vanish without a word")
        )
    if not wire.needs_deep_look(body, limits):
        arrival = Arrival(source, channel, "message", received_at, limits, gpc, skew, scope)
        events = plain.events(body, arrival)
        if events is not None and (not scope or all(event.name in scope for event in events)):
            return Parsed(events, [])
    items, sent_at = _cut(body)
    if sent_at:
        skew = received_at - wire.instant_of(sent_at, "body.sentAt")
    arrival = Arrival(source, channel, "message", received_at, limits, gpc, skew, scope)
    return wire.judged(items, body, "batch[{}]", arrival, _read)


def _is_doubled(body: bytes) -> bool:
    """Whether a body has two lists of calls, of which a JSON parser would keep the last."""
    found = wire.cut(body, b"batch")
    if found is None:
        return False
    try:
        return list(map(bytes, _BATCH.decode(body).batch)) != list(map(bytes, found.items))
    except wire.UNREADABLE:  # something in a list is broken, and the first of them is cut by hand
        pass
    try:
        return bool(_BATCH.decode(found.rest).batch)
    except wire.UNREADABLE:
        return False  # to be told as what it is


def _cut(body: bytes) -> tuple[list[msgspec.Raw], str | None]:
    """The calls of a batch as bytes, and its `sentAt`. Raises `Invalid`."""
    try:
        batch = _BATCH.decode(body)
        return batch.batch, batch.sent_at
    except wire.UNREADABLE as error:
        fault = wire.placed(wire.explained(error, len(body)), "body")
        if not isinstance(error, msgspec.ValidationError):
            found = wire.cut(body, b"batch")
            if found is not None:
                try:
                    return found.items, _BATCH.decode(found.rest).sent_at
                except wire.UNREADABLE:
                    pass
        raise Invalid(fault) from None


def _read(raw: msgspec.Raw, index: int, arrival: Arrival, suspect: bool) -> Event:
    """One call as an event. Raises `Invalid` with the rule that it breaks."""
    limits = arrival.limits
    item = bytes(raw)
    if suspect or len(item) > limits.event_bytes_max:
        wire.check_shape(item, limits)
    try:
        message = _MESSAGE.decode(raw)  # twice as fast from Raw as from bytes
        call = message.type if arrival.kind == "message" else arrival.kind
        told = message.traits if call in TRAITS else message.properties
        fields = wire.OBJECT.decode(told) or {}
        context = wire.OBJECT.decode(message.context) or {}
    except wire.UNREADABLE as error:
        raise Invalid(_unreadable(item, arrival.kind, error)) from None
    name = NAMES.get(call or "")
    if name is None or call is None:
        raise Invalid(Fault("type", shown(call), "one of " + ", ".join(NAMES), nearest(call or "", NAMES)))
    if suspect or len(item) > 4 * limits.keys_max:
        wire.check_values([fields, context], limits)
    skew = arrival.skew
    if message.sent_at:
        skew = arrival.received_at - wire.instant_of(message.sent_at, "sentAt")
    properties = bytes(told) if fields else b"{}"
    return Event(
        arrival.source,
        wire.message_id(message.message_id, "messageId", item, limits),
        arrival.channel,
        name or wire.name_of(message.event, "event", limits),
        wire.occurred(message.timestamp or message.original_timestamp, "timestamp", arrival, skew),
        arrival.received_at,
        _identifiers(message, call, fields, context, limits),
        properties if call == "track" else _properties(message, call, fields, context, properties),
        bytes(message.context) if context else b"{}",
        index,
        arrival.gpc,
    )


def _unreadable(item: bytes, kind: str, error: Exception) -> Fault:
    """Which part of a call is broken, found by reading it again part by part."""
    try:
        message = _MESSAGE.decode(item)
    except wire.UNREADABLE as outer:
        return _hinted(wire.explained(outer, len(item)))
    call = message.type if kind == "message" else kind
    part, raw = ("traits", message.traits) if call in TRAITS else ("properties", message.properties)
    try:
        wire.read_object(bytes(raw), part)
        wire.read_object(bytes(message.context), "context")
    except Invalid as inner:
        return inner.faults[0]
    return wire.explained(error, len(item))


def _properties(
    message: Message, call: str, fields: dict[str, object], context: dict[str, object], raw: bytes
) -> bytes:
    """The properties of every call but `track`: traits, or the page's own name and category added."""
    if call == "identify" and not fields:
        return msgspec.json.encode(_object(context.get("traits")))
    if call in ("page", "screen"):
        named = {"name": message.name, "category": message.category}
        added = {key: text for key, text in named.items() if text and key not in fields}
        return plain.with_members(raw, added) if added else raw
    return raw


def _identifiers(
    message: Message, call: str, fields: dict[str, object], context: dict[str, object], limits: Limits
) -> dict[str, str]:
    """Every id that the call tells of its customer; absent ones are left out. Raises `Invalid`."""
    chars_max = limits.text_chars_max
    found: dict[str, str] = {}
    if user_id := wire.identifier(message.user_id, "userId", chars_max):
        found["user_id"] = user_id
    if anonymous_id := wire.identifier(message.anonymous_id, "anonymousId", chars_max):
        found["anonymous_id"] = anonymous_id
    if not found:
        hint = "every call says whose it is; a visitor has an anonymousId"
        raise Invalid(Fault("userId", "neither userId nor anonymousId", "at least one of them", hint))
    if call == "alias":
        if not user_id:
            raise Invalid(Fault("userId", "none", "the id that previousId becomes"))
        previous_id = wire.identifier(message.previous_id, "previousId", chars_max)
        if not previous_id:
            raise Invalid(Fault("previousId", "none", "the id that becomes userId"))
        found["previous_id"] = previous_id
    elif call == "group":
        group_id = wire.identifier(message.group_id, "groupId", chars_max)
        if not group_id:
            raise Invalid(Fault("groupId", "none", "the id of the account"))
        found["group_id"] = group_id
        fields = {}  # an account's e-mail and phone are not the customer's
    traits = _object(context["traits"]) if "traits" in context else {}
    if traits or "email" in fields or "phone" in fields:
        wire.add_contacts(found, fields, traits, chars_max)
    return found


def _object(value: object) -> dict[str, object]:
    """The value if it is a JSON object, else the empty one."""
    return value if isinstance(value, dict) else {}


def _hinted(fault: Fault) -> Fault:
    """A type fault with what senders usually meant."""
    if fault.where in ("timestamp", "originalTimestamp", "sentAt"):
        return Fault(fault.where, fault.got, "a time in ISO 8601", "write 2026-03-01T10:11:12Z")
    if fault.where.endswith("Id"):
        return Fault(fault.where, fault.got, "text or a whole number")
    return fault
