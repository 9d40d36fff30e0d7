"""CloudEvents 1.0 over HTTP: structured, batch and binary mode.

`type` becomes the name, `time` the instant, `data` (a JSON object) the properties. Extension attributes
`userid` and `anonymousid`, else `data.user_id` and `data.anonymous_id`, say whose event it is; without
them the event is its own leaf. A CloudEvent is unique by `source` and `id` together, and many sources may
stand behind one write key, so both make the message id. Rules of all dialects are in `wire.py`.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from hashlib import blake2b
from urllib.parse import unquote

import msgspec

from hetki.errors import Fault, Invalid, shown
from hetki.events import wire
from hetki.events.event import Event
from hetki.events.wire import Arrival, Parsed
from hetki.settings import Limits

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
KIND = "cloudevents"


class CloudEvent(msgspec.Struct, gc=False):
    """One event in the JSON format; other extension attributes are ignored."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str | None = None
    time: str | None = None
    userid: str | int | None = None
    anonymousid: str | int | None = None
    sequence: str | int | None = None
    data: msgspec.Raw = msgspec.Raw(b"{}")
    data_base64: str | None = None


_EVENT = msgspec.json.Decoder(CloudEvent)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])


def parse(
    body: bytes,
    content_type: str,
    headers: Mapping[str, str],
    source: str,
    channel: str,
    received_at: int,
    limits: Limits,
    gpc: bool = False,
    scope: frozenset[str] = frozenset(),
) -> Parsed:
    """Read an HTTP body of CloudEvents. `headers` (names in lower case) matter in binary mode only. `scope`:
    names of events; others are rejected, unless it is empty.

    Raises `Invalid` when the body cannot be cut into events, `Exhausted` when it is too large.
    """
    wire.check_size(body, limits)
    arrival = Arrival(source, channel, KIND, received_at, limits, gpc, scope=scope)
    media = content_type.split(";")[0].strip().lower()
    if media == BATCH:
        return wire.judged(_cut(body), body, "batch[{}]", arrival, _read)
    if media != STRUCTURED:
        if "ce-specversion" not in headers:
            got = f"content-type {shown(media)} and no ce-specversion header"
            raise Invalid(Fault("body", got, f"{STRUCTURED}, {BATCH}, or binary mode with ce- headers"))
        body = _structured(body, media, headers)
    return wire.judged([wire.single(body)], body, "body", arrival, _read)


def _cut(body: bytes) -> list[msgspec.Raw]:
    """The events of a batch. Raises `Invalid`."""
    try:
        return _LIST.decode(body)
    except wire.UNREADABLE as error:
        found = None if isinstance(error, msgspec.ValidationError) else wire.cut(body, b"")
        if found is not None and found.rest.strip() == b"[]":
            return found.items
        raise Invalid(wire.placed(wire.explained(error, len(body)), "body")) from None


def _structured(body: bytes, media: str, headers: Mapping[str, str]) -> bytes:
    """A binary-mode request as the same event in structured mode. Raises `Invalid` for broken JSON."""
    attributes = {name[3:]: unquote(text) for name, text in headers.items() if name.startswith("ce-")}
    for body_only in ("data", "data_base64"):
        attributes.pop(body_only, None)
    outer = msgspec.json.encode(attributes)[:-1]
    if not body:
        return outer + b"}"
    if media in ("", "application/json") or media.endswith("+json"):
        return outer + b',"data":' + bytes(wire.single(body)) + b"}"
    return outer + b',"data_base64":"' + b64encode(body) + b'"}'


def _read(raw: msgspec.Raw, index: int, arrival: Arrival, suspect: bool) -> Event:
    """One CloudEvent as an event. Raises `Invalid` with the rule that it breaks."""
    limits = arrival.limits
    item = bytes(raw)
    if suspect or len(item) > limits.event_bytes_max:
        wire.check_shape(item, limits)
    try:
        event = _EVENT.decode(raw)
    except wire.UNREADABLE as error:
        raise Invalid(wire.explained(error, len(item))) from None
    if not event.specversion.startswith("1."):
        raise Invalid(Fault("specversion", shown(event.specversion), "1.0"))
    for where, text in (("id", event.id), ("source", event.source)):
        if not wire.identifier(text, where, limits.text_chars_max):
            raise Invalid(Fault(where, "''", "text that is not empty"))
    data = _data(event, limits)
    fields = wire.read_object(data, "data")
    if suspect or len(item) > 4 * limits.keys_max:
        wire.check_values(fields, limits)
    context = {"ce_id": event.id, "ce_source": event.source}
    if event.subject:
        context["ce_subject"] = wire.identifier(event.subject, "subject", limits.text_chars_max)
    return Event(
        arrival.source,
        _message_id(event, limits),
        arrival.channel,
        wire.name_of(event.type, "type", limits),
        wire.occurred(event.time, "time", arrival, 0),
        arrival.received_at,
        _identifiers(event, fields, limits),
        data if fields else b"{}",
        msgspec.json.encode(context),
        _sequence(event.sequence, index),
        arrival.gpc,
    )


def _data(event: CloudEvent, limits: Limits) -> bytes:
    """The bytes of `data`, or those under `data_base64`, held to the same shape. Raises `Invalid`."""
    if event.data_base64 is None:
        return bytes(event.data)
    try:
        data = b64decode(event.data_base64, validate=True)
    except ValueError:
        raise Invalid(Fault("data_base64", shown(event.data_base64), "base64")) from None
    wire.check_shape(data, limits)
    wire.check_values(wire.read_object(data, "data_base64"), limits)
    return data


def _message_id(event: CloudEvent, limits: Limits) -> str:
    """`source` and `id` in one text; a hash of it where that is too long."""
    text = f"{event.source} {event.id}"
    if len(text) <= limits.id_chars_max:
        return text
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _identifiers(event: CloudEvent, fields: dict[str, object], limits: Limits) -> dict[str, str]:
    """Whose event it is, if it says so. Raises `Invalid`."""
    found: dict[str, str] = {}
    told = (("user_id", "userid", event.userid), ("anonymous_id", "anonymousid", event.anonymousid))
    for name, attribute, value in told:
        where = attribute if value else f"data.{name}"
        inner = fields.get(name)
        if not value and isinstance(inner, str | int) and not isinstance(inner, bool):
            value = inner
        if text := wire.identifier(value, where, limits.text_chars_max):
            found[name] = text
    wire.add_contacts(found, fields, {}, limits.text_chars_max)
    return found


def _sequence(value: str | int | None, index: int) -> int:
    """The sender's own counter (the `sequence` extension) if it is a number, else the place in the batch."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    if isinstance(value, int) and 0 <= value <= wire.INT64_MAX:
        return value
    return index
