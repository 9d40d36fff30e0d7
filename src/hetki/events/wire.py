"""What all wire dialects share: cutting a body into events, and the rules that each event must keep.

A parser turns one body into `Parsed`: the events, and those that broke a rule, in full and with a reason.
Only a body that cannot be cut into events raises (`Invalid`, or `Exhausted` when it is too large).
Start reading at `judged`. The dialects are beside this file: `segment.py`, `cloudevents.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b

import msgspec

from hetki.errors import Exhausted, Fault, Invalid, shown
from hetki.events.event import Event
from hetki.settings import SECOND, Limits

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INT64_MAX = 2**63 - 1
#: A body that msgspec refuses is cut by hand only up to this many JSON tokens (about 0.1 s of work).
TOKENS_MAX = 300_000

#: All that a decoder of JSON may raise.
UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
RAW = msgspec.json.Decoder(msgspec.Raw)
OBJECT = msgspec.json.Decoder(dict[str, object] | None)
#: Digits are one digit, and what may follow a number is a comma.
_DIGITS = bytes.maketrans(b"123456789E\t\n\r }]", b"000000000e,,,,,,")
#: An exponent of three digits or more: beyond a 64-bit float, or very small.
_HUGE = re.compile(rb"0e\+?000*,")
_WIDE = b"0" * 19
_BRACES = bytes.maketrans(b"[]", b"{}")
_NO_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_NO_BRACKETS_NO_QUOTES = _NO_BRACKETS.replace(b'"', b"")
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_TOKEN = re.compile(_TEXT.pattern + rb'|[\[\]{},:"]', re.DOTALL)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_EXPECTED = re.compile(r"Expected (.+?), got (.+?)(?: - at `\$\.?(.*)`)?$")
_BYTE = re.compile(r"\(byte (\d+)\)")


WIDE_NUMBER = Fault("", "a whole number beyond 64 bits", "between -2^63 and 2^63-1", "send it as text")


class Arrival(msgspec.Struct, frozen=True):
    """How a body came in: the source that its key names, and what holds for each event in it.

    `kind` says how to read one event of it again (`message`, `track`, ..., `cloudevents`). `skew` is the
    receiver's clock minus the sender's, in microseconds. `gpc`: the request carried `Sec-GPC: 1`. `scope`:
    the names of the events that the key may send; empty for all.
    """

    source: str
    channel: str
    kind: str
    received_at: int
    limits: Limits
    gpc: bool = False
    skew: int = 0
    scope: frozenset[str] = frozenset()


class Rejected(msgspec.Struct, frozen=True):
    """One event that broke a rule: its own bytes in full, and all that is needed to read them again.

    `scope` is that of the key that it came with.
    """

    source: str
    received_at: int
    body: bytes
    fault: Fault
    channel: str = ""
    kind: str = "message"
    skew: int = 0
    gpc: bool = False
    scope: frozenset[str] = frozenset()


class Parsed(msgspec.Struct, frozen=True):
    """What one body held. An event is in exactly one of the two lists."""

    events: list[Event]
    rejected: list[Rejected]


#: Reads one event: itself, its place in the body, how it came; `suspect` asks for the deep look.
Reader = Callable[[msgspec.Raw, int, Arrival, bool], Event]


def judged(items: Sequence[msgspec.Raw], body: bytes, where: str, arrival: Arrival, read: Reader) -> Parsed:
    """Read each item by itself: a broken rule rejects that item and leaves its neighbours alone.

    `where` is a format with one place for the index: `batch[{}]`.
    """
    n_max = arrival.limits.batch_events_max
    if len(items) > n_max:
        raise Exhausted(Fault("batch", f"{len(items)} events", f"at most {n_max}", "send it in parts"))
    suspect = needs_deep_look(body, arrival.limits)
    events: list[Event] = []
    rejected: list[Rejected] = []
    for index, item in enumerate(items):
        try:
            event = read(item, index, arrival, suspect)
            check_scope(event.name, arrival.scope)
            events.append(event)
        except Invalid as error:
            fault = placed(error.faults[0], where.format(index))
            rejected.append(
                Rejected(
                    arrival.source,
                    arrival.received_at,
                    bytes(item),
                    fault,
                    channel=arrival.channel,
                    kind=arrival.kind,
                    skew=arrival.skew,
                    gpc=arrival.gpc,
                    scope=arrival.scope,
                )
            )
    return Parsed(events, rejected)


def check_scope(name: str, scope: frozenset[str]) -> None:
    """Raises `Invalid` for an event that the key it came with may not send."""
    if scope and name not in scope:
        must = "an event that this write key may send"
        raise Invalid(Fault("", shown(name), must, "its events are " + ", ".join(sorted(scope)[:3])))


def placed(fault: Fault, prefix: str) -> Fault:
    """The same fault with `prefix` before its place."""
    where = ".".join(part for part in (prefix, fault.where) if part)
    return Fault(where, fault.got, fault.must, fault.hint)


def check_size(body: bytes, limits: Limits) -> None:
    """Raises `Exhausted` for a body beyond `inflated_bytes_max`."""
    if len(body) > limits.inflated_bytes_max:
        raise Exhausted(Fault("body", f"{len(body)} bytes", f"at most {limits.inflated_bytes_max} bytes"))


def needs_deep_look(body: bytes, limits: Limits) -> bool:
    """Whether a body may hold a wide or huge number, NUL or deep nesting: a few passes over all of it.

    Without escaped quotes, texts free of brackets leave pairs of quotes and nothing else; a quote that
    stays alone means a bracket inside a text, and then only a look at each event can tell.
    """
    digits = body.translate(_DIGITS)
    if _WIDE in digits or _HUGE.search(digits):
        return True
    if b"\\" in body and (b'\\"' in body or b"\\u0000" in body):
        return True
    skeleton = body.translate(_BRACES, _NO_BRACKETS_NO_QUOTES).replace(b'""', b"")
    return not _collapses(skeleton, limits.depth_max + 2)  # two for the batch around


def _collapses(brackets: bytes, n_rounds: int) -> bool:
    """Whether `n_rounds` of taking the innermost pairs away leave nothing: nested no deeper than that."""
    for _ in range(n_rounds):
        if not brackets:
            return True
        brackets = brackets.replace(b"{}", b"")
    return not brackets


def check_shape(item: bytes, limits: Limits) -> None:
    """Raises `Invalid` for one event that is too large or nested too deeply."""
    if len(item) > limits.event_bytes_max:
        raise Invalid(Fault("", f"{len(item)} bytes", f"at most {limits.event_bytes_max} bytes"))
    if not _collapses(_TEXT.sub(b"", item).translate(_BRACES, _NO_BRACKETS), limits.depth_max):
        raise Invalid(Fault("", "deeper nesting", f"at most {limits.depth_max} deep"))


def read_object(raw: bytes, where: str) -> dict[str, object]:
    """A JSON object as values; null is the empty object. Raises `Invalid` with the place inside."""
    try:
        return OBJECT.decode(raw) or {}
    except UNREADABLE as error:
        raise Invalid(placed(explained(error, len(raw)), where)) from None


def check_values(value: object, limits: Limits) -> None:
    """Raises `Invalid` if a number is beyond 64 bits, a text holds NUL, or there are too many keys.

    Looks at every value, so it is called only where the bytes say that it may be needed.
    """
    n_keys = 0
    stack: list[object] = [value]
    while stack:
        each = stack.pop()
        if isinstance(each, dict):
            n_keys += len(each)
            stack.extend(each)
            stack.extend(each.values())
        elif isinstance(each, list):
            stack.extend(each)
        elif isinstance(each, str):
            if "\x00" in each:
                raise Invalid(Fault("", "a text with NUL (\\u0000)", "text without NUL"))
        elif isinstance(each, int) and not -INT64_MAX - 1 <= each <= INT64_MAX:
            raise Invalid(WIDE_NUMBER)
    if n_keys > limits.keys_max:
        raise Invalid(Fault("", f"{n_keys} keys", f"at most {limits.keys_max} keys"))


def identifier(value: str | int | None, where: str, chars_max: int) -> str:
    """An id as text; absent, null and empty are "". Whole numbers become text. Raises `Invalid`."""
    if type(value) is str:
        if len(value) <= chars_max and value.isprintable():
            return value
        if len(value) > chars_max:
            raise Invalid(Fault(where, f"{len(value)} characters", f"at most {chars_max} characters"))
        if _CONTROL.search(value):
            raise Invalid(Fault(where, shown(value), "text without control characters"))
        return value
    if value is None:
        return ""
    assert isinstance(value, int)
    if not -INT64_MAX - 1 <= value <= INT64_MAX:
        raise Invalid(placed(WIDE_NUMBER, where))
    return str(value)


def name_of(value: str | None, where: str, limits: Limits) -> str:
    """The name of an event: never empty. Raises `Invalid`."""
    if not value or value.isspace():
        raise Invalid(Fault(where, "no name" if value is None else shown(value), "the name of what happened"))
    return identifier(value, where, limits.text_chars_max)


def message_id(value: str | int | None, where: str, item: bytes, limits: Limits) -> str:
    """The sender's id of an event; without one, a hash of the event's bytes, so that a retry is the same.

    Two events that are equal byte for byte and carry no id are therefore one event. Raises `Invalid`.
    """
    if value is None:
        return blake2b(item, digest_size=16).hexdigest()
    if value == "":
        hint = "leave it out to have one made"
        raise Invalid(Fault(where, "''", f"1 to {limits.id_chars_max} characters", hint))
    return identifier(value, where, limits.id_chars_max)


def add_contacts(
    found: dict[str, str], fields: dict[str, object], traits: dict[str, object], chars_max: int
) -> None:
    """Add `email` and `phone` from an event's own fields, else from the traits in its context.

    What is no plain text within bounds is no identifier; it stays in the properties as it is.
    """
    for key in ("email", "phone"):
        value = fields.get(key) or traits.get(key)
        if value and isinstance(value, str) and len(value) <= chars_max and not _CONTROL.search(value):
            found[key] = value


def instant_of(text: str, where: str) -> int:
    """A time in ISO 8601 as an instant; without a zone it is UTC. Raises `Invalid`.

    >>> instant_of("1970-01-01T02:00:01+02:00", "time")
    1000000
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(Fault(where, shown(text), "a time in ISO 8601", "write 2026-03-01T10:11:12Z")) from None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    since = at - EPOCH
    return (since.days * 86_400 + since.seconds) * SECOND + since.microseconds


def occurred(text: str | None, where: str, arrival: Arrival, skew: int) -> int:
    """When an event happened by the receiver's clock: its time plus `skew`, never after its arrival.

    Without a time it happened when it arrived. Before 1970, or further ahead than `ahead_s_max`, is a
    clock that cannot be trusted: raises `Invalid`.
    """
    if not text:
        return arrival.received_at
    at = instant_of(text, where) + skew
    if at < 0:
        raise Invalid(Fault(where, shown(text), "1970 or later", "check the sender's clock"))
    if at <= arrival.received_at:
        return at
    if at > arrival.received_at + arrival.limits.ahead_s_max * SECOND:
        ahead = f"at most {arrival.limits.ahead_s_max} seconds after its arrival"
        raise Invalid(Fault(where, shown(text), ahead, "check the sender's clock"))
    return arrival.received_at


def explained(error: Exception, n_bytes: int) -> Fault:
    """What msgspec refused, as a fault in our form; broken JSON names the byte.

    `n_bytes`: the length of the text, which is where a text that ends too early breaks.
    """
    said = str(error)
    found = _EXPECTED.match(said)
    if found:
        return Fault(found[3] or "", found[2].replace("`", ""), found[1].replace("`", ""))
    if isinstance(error, UnicodeDecodeError):
        return Fault("", f"byte 0x{error.object[error.start]:02x} that is not UTF-8", "JSON in UTF-8")
    if isinstance(error, RecursionError):
        return Fault("", "nesting without end", "JSON nested less deeply")
    if "out of range" in said:
        return Fault("", "a number beyond a 64-bit float", "a number below 1.8e308", "send it as text")
    if "required field" in said:
        return Fault("", said[:1].lower() + said[1:], "an object with that field")
    place = _BYTE.search(said)
    hint = "numbers cannot be NaN or Infinity, and \\ud800-\\udfff come in pairs"
    return Fault("", f"broken JSON at byte {place[1] if place else n_bytes}", "JSON", hint)


def single(body: bytes) -> msgspec.Raw:
    """A body that is one event. One that is broken inside its brackets is cut, to be kept with its reason.

    Raises `Invalid` when it is no JSON object at all, or ends too early.
    """
    try:
        return RAW.decode(body)
    except UNREADABLE as error:
        found = cut(b"[" + body + b"]", b"")
        if found is not None and len(found.items) == 1 and found.rest == b"[]" and body.lstrip()[:1] == b"{":
            return found.items[0]
        raise Invalid(placed(explained(error, len(body)), "body")) from None


class Cut(msgspec.Struct, frozen=True):
    """A batch cut by hand: the items' bytes and the body with the list emptied."""

    items: list[msgspec.Raw]
    rest: bytes


def cut(body: bytes, key: bytes) -> Cut | None:
    """Cut a batch that a strict parser refuses, so that one broken event does not harm its neighbours.

    `key` names the member of the outer object that holds the list; `b""` when the body is the list. A
    sender whose JSON writer knows NaN or unpaired surrogates is the usual cause. None if the brackets do
    not lead through: then nobody can say where an event ends.
    """
    if sum(body.count(each) for each in (b'"', b"{", b"}", b"[", b"]", b",", b":")) > TOKENS_MAX:
        return None
    tokens = [found.span() for found in _TOKEN.finditer(body)]
    first = _list_start(body, tokens, key)
    if first is None:
        return None
    items: list[bytes] = []
    level = 0
    begin = tokens[first][1]
    for start, stop in tokens[first + 1 :]:
        token = body[start]
        if token in b"{[":
            level += 1
        elif token in b"}]":
            if level == 0:
                items.append(body[begin:start].strip())
                if token != ord("]") or not all(items):
                    return None
                rest = body[: tokens[first][0]] + b"[]" + body[stop:]
                return Cut([msgspec.Raw(item) for item in items], rest)
            level -= 1
        elif token == ord(",") and level == 0:
            items.append(body[begin:start].strip())
            begin = stop
        elif stop - start == 1 and token == ord('"'):
            return None
    return None


def _list_start(body: bytes, tokens: list[tuple[int, int]], key: bytes) -> int | None:
    """The index of the token that opens the list: the first one, or the one after `"key":` at the top."""
    if not key:
        return 0 if tokens and body[tokens[0][0]] == ord("[") else None
    level = 0
    for index, (start, stop) in enumerate(tokens[:-2]):
        token = body[start]
        if token in b"{[":
            level += 1
        elif token in b"}]":
            level -= 1
        elif level == 1 and body[start:stop] == b'"' + key + b'"' and body[tokens[index + 1][0]] == ord(":"):
            return index + 2 if body[tokens[index + 2][0]] == ord("[") else None
        elif stop - start == 1 and token == ord('"'):
            return None
    return None
