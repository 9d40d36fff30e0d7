"""CloudEvents 1.0: the three modes give the same event, and each broken rule says so."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetki.errors import Exhausted, Invalid
from hetki.events import cloudevents, wire
from hetki.events.event import Event
from hetki.events.wire import Parsed
from hetki.settings import SECOND, Limits

NOW = wire.instant_of("2026-03-01T12:00:00Z", "now")
GOOD: dict[str, object] = {
    "specversion": "1.0",
    "id": "7",
    "source": "/kitchens/kamppi",
    "type": "Order Delayed",
    "time": "2026-03-01T11:59:50Z",
    "userid": "u1",
    "data": {"order_id": "o1", "n_minutes": 20},
}


def parse(body: bytes, content_type: str = cloudevents.STRUCTURED, **headers: str) -> Parsed:
    ce = {f"ce-{name}": value for name, value in headers.items()}
    return cloudevents.parse(body, content_type, ce, "kitchens", "kitchen", NOW, Limits())


def reason(**changes: object) -> str:
    """Why an event in a batch is rejected; its neighbours on both sides are always kept."""
    parts = [json.dumps(each).encode() for each in (GOOD, {**GOOD, **changes}, GOOD)]
    parsed = parse(b"[" + b",".join(parts) + b"]", cloudevents.BATCH)
    assert [event.sequence for event in parsed.events] == [0, 2]
    assert [each.body for each in parsed.rejected] == [parts[1]]
    return str(parsed.rejected[0].fault).removeprefix("batch[1]")


def test_the_three_modes_give_the_same_event() -> None:
    event = Event(
        source="kitchens",
        message_id="/kitchens/kamppi 7",
        channel="kitchen",
        name="Order Delayed",
        occurred_at=NOW - 10 * SECOND,
        received_at=NOW,
        identifiers={"user_id": "u1"},
        properties=b'{"order_id": "o1", "n_minutes": 20}',
        context=b'{"ce_id":"7","ce_source":"/kitchens/kamppi"}',
    )
    assert parse(json.dumps(GOOD).encode()).events == [event]
    assert parse(json.dumps([GOOD]).encode(), cloudevents.BATCH + "; charset=utf-8").events == [event]
    attributes = {name: str(value) for name, value in GOOD.items() if name != "data"}
    binary = {**attributes, "type": "Order%20Delayed"}
    assert parse(b'{"order_id": "o1", "n_minutes": 20}', "application/json", **binary).events == [event]


@pytest.mark.parametrize(
    ("changes", "identifiers"),
    [
        ({"userid": "u"}, {"user_id": "u"}),
        ({"userid": None, "anonymousid": 5}, {"anonymous_id": "5"}),
        ({"userid": "", "data": {"user_id": "d", "email": "a@b.fi"}}, {"user_id": "d", "email": "a@b.fi"}),
        ({"userid": "u", "data": {"user_id": "d"}}, {"user_id": "u"}),
        ({"userid": None}, {}),
        ({"userid": None, "data": {"user_id": True, "phone": 5}}, {}),
    ],
)
def test_whose_event_it_is(changes: dict[str, object], identifiers: dict[str, str]) -> None:
    parsed = parse(json.dumps({**GOOD, **changes}).encode())
    assert [event.identifiers for event in parsed.events] == [identifiers]


def test_two_sources_behind_one_key_may_use_the_same_id() -> None:
    other = {**GOOD, "source": "/kitchens/" + "x" * 100}
    parsed = parse(json.dumps([GOOD, other, other]).encode(), cloudevents.BATCH)
    first, second, third = (event.message_id for event in parsed.events)
    assert first != second == third and len(second) == 32


def test_the_senders_own_counter_orders_events_of_one_instant() -> None:
    counted = [{**GOOD, "id": str(n), "sequence": value} for n, value in enumerate(["0042", 7, "high", None])]
    parsed = parse(json.dumps(counted).encode(), cloudevents.BATCH)
    assert [event.sequence for event in parsed.events] == [42, 7, 2, 3]


def test_data_may_come_as_base64_or_not_at_all() -> None:
    body = {name: value for name, value in GOOD.items() if name != "data"}
    assert parse(json.dumps(body).encode()).events[0].properties == b"{}"
    body["data_base64"] = base64.b64encode(b'{"a":1}').decode()
    assert parse(json.dumps(body).encode()).events[0].properties == b'{"a":1}'


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"specversion": "0.3"}, ".specversion: got '0.3', must be 1.0."),
        ({"id": ""}, ".id: got '', must be text that is not empty."),
        ({"id": "a\x00"}, ".id: got 'a\\x00', must be text without control"),
        ({"source": 7}, ".source: got int, must be str."),
        ({"type": ""}, ".type: got '', must be the name of what happened."),
        ({"time": "noon"}, ".time: got 'noon', must be a time in ISO 8601."),
        ({"time": "1900-01-01T00:00:00Z"}, ".time: got '1900-01-01T00:00:00Z', must be 1970 or later."),
        ({"time": "2200-01-01T00:00:00Z"}, ".time: got '2200-01-01T00:00:00Z', must be at most"),
        ({"data": "text"}, ".data: got str, must be object | null."),
        ({"data": {"n": 10**30}}, ": got a whole number beyond 64 bits"),
        ({"data": {"a": float("nan")}}, ": got broken JSON at byte"),
        ({"data_base64": "?"}, ".data_base64: got '?', must be base64."),
        ({"data_base64": "e30x"}, ".data_base64: got broken JSON at byte"),
        (
            {"data_base64": base64.b64encode(b'{"n":' + b"9" * 30 + b"}").decode()},
            ": got a whole number beyond",
        ),
        ({"data_base64": base64.b64encode(b"[" * 50).decode()}, ": got deeper nesting"),
        ({"subject": "a\nb"}, ".subject: got 'a\\nb', must be text without control"),
    ],
)
def test_a_broken_rule_rejects_the_event_and_keeps_its_neighbours(
    changes: dict[str, object], says: str
) -> None:
    assert reason(**changes).startswith(says)


def test_a_binary_event_is_rejected_with_its_attributes_so_that_it_can_be_repaired() -> None:
    headers = {"specversion": "1.0", "id": "1", "source": "s", "type": "T"}
    parsed = parse(b"<xml/>", "text/xml", **headers)
    assert "must be JSON" in str(parsed.rejected[0].fault)
    kept = json.loads(parsed.rejected[0].body)
    assert kept.pop("data_base64") == base64.b64encode(b"<xml/>").decode() and kept == headers
    parsed = parse(b'{"n": NaN}', "application/json", **headers)
    assert parsed.rejected[0].body.endswith(b',"data":{"n": NaN}}')
    del headers["id"]
    assert "required field `id`" in str(parse(b"{}", "application/json", **headers).rejected[0].fault)


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (b"{", cloudevents.STRUCTURED, "body: got broken JSON at byte 1"),
        (b"{}", cloudevents.BATCH, "body: got object, must be array."),
        (b"[{]", cloudevents.BATCH, "body: got broken JSON at byte"),
        (b"[{}] []", cloudevents.BATCH, "body: got broken JSON at byte"),
        (b"{}", "application/json", "body: got content-type 'application/json' and no ce-specversion header"),
    ],
)
def test_a_body_that_cannot_be_cut_is_refused_whole(body: bytes, content_type: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(body, content_type)
    assert str(caught.value).startswith(says)
    with pytest.raises(Invalid, match="body: got broken JSON"):
        parse(b"{", "application/json", specversion="1.0")


@given(st.binary(), st.sampled_from([cloudevents.STRUCTURED, cloudevents.BATCH, "application/json", ""]))
def test_random_bytes_raise_only_our_own_errors(body: bytes, content_type: str) -> None:
    try:
        parse(body, content_type, specversion="1.0", id="1", source="s", type="T")
    except (Invalid, Exhausted) as error:
        assert error.faults[0].must
