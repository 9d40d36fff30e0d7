"""Plain batches: the fast reader and the careful one read the same events, or the fast one steps aside."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hetki.events import plain, segment, wire
from hetki.events.wire import Arrival, Parsed
from hetki.settings import Limits

RECEIVED_AT = 1_767_225_600_000_000
ARRIVAL = Arrival("web", "web", "message", RECEIVED_AT, Limits())


def carefully(body: bytes) -> Parsed:
    """What `segment` reads when every call is looked at by itself."""
    items, sent_at = segment._cut(body)
    skew = RECEIVED_AT - wire.instant_of(sent_at, "sentAt") if sent_at else 0
    arrival = Arrival("web", "web", "message", RECEIVED_AT, Limits(), False, skew)
    return wire.judged(items, body, "batch[{}]", arrival, segment._read)


def call(**given: Any) -> dict[str, Any]:
    made = {"type": "track", "event": "Order Completed", "messageId": "m1", "userId": "anna"}
    return {**made, "timestamp": "2025-12-31T23:00:00Z", **given}


def read(*calls: dict[str, Any], **around: Any) -> bytes:
    return json.dumps({"batch": list(calls), **around}).encode()


PLAIN = {
    "a track": call(properties={"order_id": "o1"}),
    "an anonymous page with a name": call(
        type="page", event=None, userId=None, anonymousId="a1", name="Home"
    ),
    "a screen whose name is a property, too": call(type="screen", name="Cart", properties={"name": "cart"}),
    "an identify with an address": call(
        type="identify", traits={"email": "A@b.fi", "phone": "+358 40 1234567"}
    ),
    "an identify that tells its traits beside": call(
        type="identify", context={"traits": {"email": "a@b.fi"}}
    ),
    "an alias": call(type="alias", previousId="a1"),
    "a clock that is wrong": call(timestamp="2025-12-31T22:00:00Z", sentAt="2025-12-31T22:30:00Z"),
    "a little ahead": call(timestamp="2026-01-01T01:00:00Z"),
    "letters of other languages": call(userId="Äänekoski", properties={"city": "Tübingen 東京"}),
    "an address among properties": call(properties={"email": "a@b.fi"}),
    "nested context": call(context={"device": {"type": "mobile"}, "page": {"path": "/"}}),
    "unknown members": call(integrations={"All": True}, version=3),
}
SURPRISES = {
    "no id of the customer": call(userId=None),
    "a number as id": call(userId=7),
    "an id too long": call(messageId="m" * 101),
    "no id of its own": {key: value for key, value in call().items() if key != "messageId"},
    "a control character in an id": call(userId="a\u0001b"),
    "a far future": call(timestamp="2200-01-01T00:00:00Z"),
    "before 1970": call(timestamp="1900-01-01T00:00:00Z"),
    "a time without a zone": call(timestamp="2025-12-31T23:00:00"),
    "properties that are a list": call(properties=[1]),
    "properties that are null": call(properties=None),
    "a group": call(type="group", groupId="g1"),
    "an unknown call": call(type="shout"),
    "a name of spaces": call(event="  "),
    "too large": call(properties={"text": "x" * 40_000}),
    "many keys": call(properties={f"k{n}": n for n in range(1_200)}),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_calls_are_read_at_once_as_they_are_read_one_by_one(name: str) -> None:
    body = read(call(), PLAIN[name])
    events = plain.events(body, ARRIVAL)
    assert events is not None
    assert Parsed(events, []) == carefully(body)


@pytest.mark.parametrize("name", SURPRISES)
def test_anything_else_is_left_to_the_careful_reader(name: str) -> None:
    body = read(call(), SURPRISES[name])
    assert plain.events(body, ARRIVAL) is None
    assert segment.parse(body, "batch", "web", "web", RECEIVED_AT, Limits()) == carefully(body)


def test_the_batch_tells_when_it_was_sent() -> None:
    body = read(call(), sentAt="2025-12-31T23:30:00Z")
    events = plain.events(body, ARRIVAL)
    assert events is not None and Parsed(events, []) == carefully(body)
    assert events[0].occurred_at == RECEIVED_AT - 30 * 60 * 1_000_000


TEXT = st.text(max_size=12) | st.sampled_from(["anna", "m1", "", "a\nb", "\x7f", "ä", "\x85"])
VALUE = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.just(1e308)
FIELDS = st.dictionaries(TEXT | st.sampled_from(["email", "phone", "traits", "name"]), VALUE, max_size=3)
TIME = st.sampled_from(
    (
        "2025-12-31T23:00:00Z 2025-12-31T23:00:00.123456+02:00 2025-12-31 1901-01-01T00:00:00Z soon"
        " 2026-01-01T05:00:00Z 2026-02-01T05:00:00Z 2025-12-31T23:00:00.1Z 20251231T230000Z"
    ).split(" ")
)
CALL = st.fixed_dictionaries(
    {"type": st.sampled_from(["track", "page", "screen", "identify", "alias", "group", "x"])},
    optional={
        "messageId": TEXT | st.none(),
        "event": TEXT | st.none(),
        "userId": TEXT | st.none() | st.integers(),
        "anonymousId": TEXT | st.none(),
        "previousId": TEXT | st.none(),
        "timestamp": TIME | st.none(),
        "originalTimestamp": TIME | st.none(),
        "sentAt": TIME | st.none(),
        "name": TEXT | st.none(),
        "category": TEXT | st.none(),
        "properties": FIELDS | st.none() | st.lists(VALUE, max_size=2),
        "traits": FIELDS | st.none(),
        "context": FIELDS | st.none(),
    },
)


@given(calls=st.lists(CALL, max_size=3), ascii_only=st.booleans())
@settings(max_examples=1_500, deadline=None)
def test_whatever_is_read_at_once_is_what_is_read_one_by_one(calls: list[Any], ascii_only: bool) -> None:
    try:
        body = json.dumps({"batch": calls}, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        return
    events = None if wire.needs_deep_look(body, Limits()) else plain.events(body, ARRIVAL)
    if events is not None:
        assert Parsed(events, []) == carefully(body)


@given(
    user=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20),
    fields=st.dictionaries(st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=5), max_size=4),
    kind=st.sampled_from(["track", "page", "screen", "identify"]),
)
@settings(max_examples=500, deadline=None)
def test_good_calls_are_the_same_in_both(user: str, fields: dict[str, Any], kind: str) -> None:
    body = read(call(type=kind, userId=user, properties=fields, traits=fields, name="Home"))
    events = None if wire.needs_deep_look(body, Limits()) else plain.events(body, ARRIVAL)
    if events is not None:
        assert Parsed(events, []) == carefully(body)
