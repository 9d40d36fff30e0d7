"""The Segment API: what becomes of a call, and what each broken rule says."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hetki.errors import Exhausted, Invalid
from hetki.events import segment, wire
from hetki.events.event import Event, instant
from hetki.events.wire import Parsed
from hetki.settings import SECOND, Limits

NOW = wire.instant_of("2026-03-01T12:00:00Z", "now")
GOOD = {"type": "track", "messageId": "good", "userId": "u1", "event": "Order Completed"}
PAGE = {"type": "page", "messageId": "m", "anonymousId": "a"}


def track(**changes: object) -> dict[str, object]:
    return {**GOOD, "messageId": "m", **changes}


def batch(*calls: object, **outer: object) -> bytes:
    return json.dumps({"batch": list(calls), **outer}).encode()


def parse(body: bytes, kind: str = "batch", limits: Limits | None = None, **more: object) -> Parsed:
    return segment.parse(body, kind, "web", "site", NOW, limits or Limits(), **more)  # type: ignore[arg-type]


def one(call: object, **outer: object) -> Event:
    parsed = parse(batch(call, **outer))
    assert parsed.rejected == []
    return parsed.events[0]


def reason(call: object, limits: Limits | None = None, **outer: object) -> str:
    """Why a call is rejected; its neighbours on both sides are always kept, itself in full."""
    text = call if isinstance(call, bytes) else json.dumps(call).encode()
    good = json.dumps(GOOD).encode()
    tail = "".join(f', "{key}": {json.dumps(value)}' for key, value in outer.items()).encode()
    parsed = parse(b'{"batch": [' + good + b", " + text + b"," + good + b"]" + tail + b"}", limits=limits)
    assert [event.message_id for event in parsed.events] == ["good", "good"]
    assert [each.body for each in parsed.rejected] == [text]
    return str(parsed.rejected[0].fault)


# -- stories ---------------------------------------------------------------------------------------------


def test_a_track_call_keeps_its_name_its_ids_and_its_bytes() -> None:
    call = track(
        anonymousId="a1", timestamp="2026-03-01T11:59:00.5Z", properties={"total": 12.5}, context={"a": 1}
    )
    event = one(call)
    assert event == Event(
        source="web",
        message_id="m",
        channel="site",
        name="Order Completed",
        occurred_at=NOW - 59_500_000,
        received_at=NOW,
        identifiers={"user_id": "u1", "anonymous_id": "a1"},
        properties=b'{"total": 12.5}',
        context=b'{"a": 1}',
    )


@pytest.mark.parametrize(
    ("call", "name", "properties", "identifiers"),
    [
        (
            {"type": "identify", "userId": "u", "traits": {"plan": "private", "email": "a@b.fi"}},
            "Customer Identified",
            {"plan": "private", "email": "a@b.fi"},
            {"user_id": "u", "email": "a@b.fi"},
        ),
        (  # RudderStack tells traits in the context only
            {"type": "identify", "userId": "u", "context": {"traits": {"phone": "+358 40 1"}}},
            "Customer Identified",
            {"phone": "+358 40 1"},
            {"user_id": "u", "phone": "+358 40 1"},
        ),
        (
            {
                "type": "page",
                "anonymousId": "a",
                "name": "Home",
                "category": "Shop",
                "properties": {"name": "own"},
            },
            "Page Viewed",
            {"name": "own", "category": "Shop"},
            {"anonymous_id": "a"},
        ),
        ({"type": "screen", "anonymousId": "a"}, "Screen Viewed", {}, {"anonymous_id": "a"}),
        (  # an account's e-mail is not the customer's
            {"type": "group", "userId": "u", "groupId": "g", "traits": {"email": "office@b.fi"}},
            "Account Joined",
            {"email": "office@b.fi"},
            {"user_id": "u", "group_id": "g"},
        ),
        (
            {"type": "alias", "userId": "u", "previousId": "a"},
            "Customer Aliased",
            {},
            {"user_id": "u", "previous_id": "a"},
        ),
        (
            {
                "type": "track",
                "event": "Signed Up",
                "userId": 7,
                "anonymousId": "",
                "properties": {"email": "c@d.fi"},
            },
            "Signed Up",
            {"email": "c@d.fi"},
            {"user_id": "7", "email": "c@d.fi"},
        ),
        (
            {
                "type": "track",
                "event": "E",
                "userId": "u",
                "properties": None,
                "context": None,
                "groupId": None,
            },
            "E",
            {},
            {"user_id": "u"},
        ),
    ],
)
def test_each_call_becomes_an_event_of_the_catalogue(
    call: dict[str, object], name: str, properties: dict[str, object], identifiers: dict[str, str]
) -> None:
    event = one({"messageId": "m", **call})
    assert (event.name, json.loads(event.properties), event.identifiers) == (name, properties, identifiers)
    del call["type"]
    kind = {"Signed Up": "track", "E": "track"}.get(name) or next(
        k for k, v in segment.NAMES.items() if v == name
    )
    assert parse(json.dumps({"messageId": "m", **call}).encode(), kind).events == [event], (
        "same by its own path"
    )


def test_times_are_corrected_by_the_senders_clock_and_never_lie_ahead() -> None:
    hour = 3600 * SECOND
    late_clock = one(track(timestamp="2026-03-01T10:00:00Z"), sentAt="2026-03-01T11:00:00Z")
    assert late_clock.occurred_at == NOW - hour, "sent an hour after it happened, by the sender's own clock"
    flat_battery = one(track(timestamp="1970-01-01T00:00:00Z"), sentAt="1970-01-01T00:00:05Z")
    assert flat_battery.occurred_at == NOW - 5 * SECOND
    assert one(track(timestamp="2026-03-01T13:00:00Z")).occurred_at == NOW, "ahead by less than a day"
    assert one(track(timestamp="2026-03-01T13:00:00+02:00")).occurred_at == NOW - hour
    assert one(track(timestamp="2026-03-01T11:00:00")).occurred_at == NOW - hour, "no zone is UTC"
    assert one(track(originalTimestamp="2026-03-01")).occurred_at == NOW - 12 * hour
    assert one(track()).occurred_at == NOW
    own = one(
        track(timestamp="2026-03-01T09:00:00Z", sentAt="2026-03-01T09:00:01Z"), sentAt="2026-03-01T12:00:00Z"
    )
    assert own.occurred_at == NOW - SECOND, "a call's own sentAt stands before the batch's"


def test_a_call_without_an_id_gets_the_same_one_at_every_retry() -> None:
    call = {"type": "track", "userId": "u", "event": "E"}
    first, again = one(call), one(call, sentAt="2026-03-01T12:00:00Z")
    assert first.message_id == again.message_id and len(first.message_id) == 32
    assert one({**call, "userId": "v"}).message_id != first.message_id


def test_events_of_one_batch_keep_their_order_within_one_instant() -> None:
    parsed = parse(batch(*(track(messageId=name, timestamp="2026-03-01T11:00:00Z") for name in "zya")))
    assert [each.message_id for each in sorted(parsed.events, key=lambda event: event.order_key)] == [
        "z",
        "y",
        "a",
    ]


def test_gpc_of_the_request_is_on_every_event_and_survives_a_rejection() -> None:
    parsed = parse(batch(GOOD, {}), gpc=True)
    assert parsed.events[0].gpc and parsed.rejected[0].gpc


def test_a_rejected_event_can_be_repaired_and_read_again_as_it_came() -> None:
    call = track(timestamp="2026-03-01T10:00:00Z", event=7)
    rejected = parse(batch(call, sentAt="2026-03-01T11:00:00Z"), gpc=True).rejected[0]
    repaired = rejected.body.replace(b"7", b'"Seven"')
    again = segment.parse(
        repaired,
        rejected.kind,
        rejected.source,
        rejected.channel,
        rejected.received_at,
        Limits(),
        gpc=rejected.gpc,
        skew=rejected.skew,
    )
    good = one({**call, "event": "Seven"}, sentAt="2026-03-01T11:00:00Z")
    assert again.events == [msgspec.structs.replace(good, gpc=True)]


# -- what each broken rule says --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (7, ": got int, must be object."),
        ([], ": got array, must be object."),
        ({}, ".type: got None, must be one of track, identify, page"),
        (
            track(type="trck"),
            ".type: got 'trck', must be one of track, identify, page, screen, group, alias.",
        ),
        (track(type=7), ".type: got int, must be str | null."),
        (track(event=None), ".event: got no name, must be the name of what happened."),
        (track(event=" "), ".event: got ' ', must be the name"),
        (track(event=["x"]), ".event: got array, must be str | null."),
        (track(event="a\x00b"), ".event: got 'a\\x00b', must be text without control"),
        (track(event="x" * 513), ".event: got 513 characters, must be at most 512"),
        (track(messageId=""), ".messageId: got '', must be 1 to 100 characters. Hint: leave it out"),
        (track(messageId="x" * 101), ".messageId: got 101 characters, must be at most 100 characters."),
        (track(messageId="a\nb"), ".messageId: got 'a\\nb', must be text without control"),
        (track(userId="a\x7fb"), ".userId: got 'a\\x7fb', must be text without control"),
        (track(userId=1.5), ".userId: got float, must be text or a whole number."),
        (track(userId=True), ".userId: got bool, must be text or a whole number."),
        (track(userId={"id": 1}), ".userId: got object, must be text or a whole number."),
        (track(userId=10**20), ".userId: got a whole number beyond 64 bits, must be between"),
        (track(userId=None), ".userId: got neither userId nor anonymousId, must be at least one of them."),
        (track(userId="", anonymousId=""), ".userId: got neither userId nor anonymousId"),
        ({**PAGE, "type": "alias"}, ".userId: got none, must be the id that previousId becomes."),
        (
            {**PAGE, "type": "alias", "userId": "u"},
            ".previousId: got none, must be the id that becomes userId.",
        ),
        ({**PAGE, "type": "group"}, ".groupId: got none, must be the id of the account."),
        (track(properties=[1]), ".properties: got array, must be object | null."),
        (track(context="x"), ".context: got str, must be object | null."),
        ({**PAGE, "type": "identify", "traits": 1}, ".traits: got int, must be object | null."),
        (track(properties={"n": 2**63}), ": got a whole number beyond 64 bits, must be between"),
        (track(properties={"n": -(2**63) - 1}), ": got a whole number beyond 64 bits"),
        (track(properties={"a": ["x\x00"]}), ": got a text with NUL (\\u0000), must be text without NUL."),
        (track(properties={"\x00": 1}), ": got a text with NUL"),
        (track(timestamp="yesterday"), ".timestamp: got 'yesterday', must be a time in ISO 8601."),
        (track(timestamp=1772359872), ".timestamp: got int, must be a time in ISO 8601."),
        (
            track(timestamp="1900-01-01T00:00:00Z"),
            ".timestamp: got '1900-01-01T00:00:00Z', must be 1970 or later.",
        ),
        (track(timestamp="2200-01-01T00:00:00Z"), ".timestamp: got '2200-01-01T00:00:00Z', must be at"),
        (track(timestamp="2026-03-02T12:00:01Z"), ".timestamp: got '2026-03-02T12:00:01Z', must be at"),
        (track(sentAt="x"), ".sentAt: got 'x', must be a time in ISO 8601."),
        (track(properties={"text": "x" * 33_000}), "bytes, must be at most 32768 bytes."),
        (track(properties={f"k{n}": 1 for n in range(1_100)}), ": got 1100 keys, must be at most 1000 keys."),
    ],
)
def test_a_broken_rule_rejects_the_event_and_keeps_its_neighbours(call: object, says: str) -> None:
    assert says in reason(call).removeprefix("batch[1]")


@pytest.mark.parametrize(
    ("properties", "says"),
    [
        (b'{"n": 1e999}', ".properties: got a number beyond a 64-bit float"),
        (b'{"n": -1' + b"0" * 400 + b".5}", ".properties: got a number beyond a 64-bit float"),
        (b'{"n": NaN}', ": got broken JSON at byte 86, must be JSON. Hint: numbers cannot be NaN"),
        (b'{"n": -Infinity}', ": got broken JSON at byte 87"),
        (b'{"s": "\\ud800"}', "\\ud800-\\udfff come in pairs"),
        (b'{"s": "\xff"}', ".properties: got byte 0xff that is not UTF-8, must be JSON in UTF-8."),
        (b'{"s": "\x01"}', ": got broken JSON at byte"),
        (b'{"a": ' * 20 + b"1" + b"}" * 20, ": got deeper nesting, must be at most 16 deep."),
        (b"[" * 3_000 + b"]" * 3_000, ": got deeper nesting, must be at most 16 deep."),
        (b'{"a": [}}', ": got broken JSON at byte"),
        (b'{"a" 1}', ": got broken JSON at byte"),
        (b"tru", ": got broken JSON at byte"),
    ],
)
def test_what_no_json_library_agrees_on_is_cut_out_of_the_batch(properties: bytes, says: str) -> None:
    call = (
        b'{"messageId": "m", "type": "track", "userId": "u1", "event": "E", "properties": '
        + properties
        + b"}"
    )
    assert says in reason(call).removeprefix("batch[1]")


def test_nesting_cannot_hide_behind_brackets_in_texts() -> None:
    for shut, opened in (("}", "{"), ('\\"}', '\\"{'), ('}"', '"{')):
        nest: object = 1
        for _ in range(30):
            nest = {"s": shut, "a": nest, "t": opened}
        assert reason(track(properties=nest)) == "batch[1]: got deeper nesting, must be at most 16 deep."


def test_what_looks_deep_or_wide_but_is_not_is_kept() -> None:
    texts = ("[[[[{{{{" * 9, '"]}\\', "9" * 40, "\\u0000", "é\u00a0🏳️\u200d🌈")
    for value in (*texts, -(2**63), 2**63 - 1, 1e308):
        event = one(track(properties={"v": value}))
        assert json.loads(event.properties) == {"v": value}
    nest: object = 1
    for _ in range(14):
        nest = {"a": nest}
    assert one(track(properties=nest)), "with the call itself 15 deep"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "body: got broken JSON at byte 0, must be JSON."),
        (b'{"batch": [', "body: got broken JSON at byte 11"),
        (b'{"batch": [{"type": "track", "us', "body: got broken JSON at byte 32"),
        (b'{"batch": []} x', "body: got broken JSON at byte 15"),
        (b'{"batch": [{}], "sentAt": NaN}', "body: got broken JSON at byte 26"),
        (b'{"batch": [{},]}', "body: got broken JSON at byte"),
        (b'{"batch": [{"a": "b}]}', "body: got broken JSON at byte"),
        (b'{"batch": ' + b"[" * 200_000, "body: got nesting without end"),
        (b"[]", "body: got array, must be object."),
        (b"7", "body: got int, must be object."),
        (b"\xff\xfe", "body: got broken JSON at byte 0"),
        (b"{}", "body: got object missing required field `batch`, must be"),
        (b'{"batch": {}}', "body.batch: got object, must be array."),
        (b'{"batch": [], "sentAt": 5}', "body.sentAt: got int, must be str | null."),
        (b'{"batch": [{}], "batch": []}', "body.batch: got more than one list, must be one."),
        (b'{"batch": [{}], "b\\u0061tch": []}', "body.batch: got more than one list, must be one."),
        (b'{"\\u0062atc\\u0068": [{}], "batch": []}', "body.batch: got more than one list, must be one."),
        (b'{"batch": [{"a": NaN}], "batch": [{}]}', "body.batch: got more than one list, must be one."),
        (b'{"batch": [], "sentAt": "soon"}', "body.sentAt: got 'soon', must be a time in ISO 8601."),
    ],
)
def test_a_body_that_cannot_be_cut_is_refused_whole(body: bytes, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(body)
    assert says in str(caught.value)


def test_a_broken_single_call_is_refused_whole() -> None:
    with pytest.raises(Invalid, match="body: got broken JSON at byte 14"):
        parse(b'{"userId": tru', "track")
    assert str(parse(b'{"userId": "u"}', "track").rejected[0].fault).startswith("body.event: got no name")


def test_a_single_call_that_is_broken_inside_its_brackets_is_kept() -> None:
    for body in (b'{"userId": "u", "event": "E", "n": NaN}', b' {"userId": "half an emoji \\ud83c"} '):
        parsed = parse(body, "track")
        assert [each.body for each in parsed.rejected] == [body.strip()] and not parsed.events
        assert str(parsed.rejected[0].fault).startswith("body: got broken JSON at byte")
    for body in (b"{},{}", b"NaN", b"[NaN]", b'{"a": NaN}]['):
        with pytest.raises(Invalid):
            parse(body, "track")


def test_bounds_on_the_whole_body() -> None:
    with pytest.raises(Exhausted, match="batch: got 3 events, must be at most 2"):
        parse(batch(GOOD, GOOD, GOOD), limits=Limits(batch_events_max=2))
    with pytest.raises(Exhausted, match="body: got 95 bytes, must be at most 94 bytes"):
        parse(batch(GOOD), limits=Limits(inflated_bytes_max=len(batch(GOOD)) - 1))
    assert parse(batch()) == Parsed([], [])


# -- properties ------------------------------------------------------------------------------------------

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = "type messageId event userId anonymousId timestamp sentAt properties context traits".split()
CALLS = st.dictionaries(st.sampled_from(FIELDS), JSONS)


@given(st.binary() | st.text().map(str.encode), st.sampled_from(["batch", "message", *segment.NAMES]))
def test_random_bytes_raise_only_our_own_errors(body: bytes, kind: str) -> None:
    try:
        parse(body, kind)
    except (Invalid, Exhausted) as error:
        assert error.faults[0].must


@given(st.lists(CALLS.map(lambda call: {**GOOD, **call}) | JSONS), st.data())
def test_every_call_is_an_event_or_a_rejected_one(calls: list[object], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(calls)))
    parsed = parse(batch(*calls[:at], GOOD, *calls[at:]))
    assert len(parsed.events) + len(parsed.rejected) == len(calls) + 1
    assert at in [event.sequence for event in parsed.events], "the good one is among the events"
    for event in parsed.events:
        assert 0 <= event.occurred_at <= NOW and 0 < len(event.message_id) <= 100 and event.name
        assert event.identifiers.get("user_id") or event.identifiers.get("anonymous_id")
        msgspec.json.decode(event.properties, type=dict)
        msgspec.json.decode(event.context, type=dict)


@given(st.data())
def test_a_mutated_body_raises_only_our_own_errors(data: st.DataObject) -> None:
    body = bytearray(batch(GOOD, track(properties={"a": [1, {"b": "c"}]}), sentAt="2026-03-01T12:00:00Z"))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = parse(bytes(body))
    except (Invalid, Exhausted):
        return
    assert len(parsed.events) + len(parsed.rejected) >= 1


@given(st.binary(max_size=40))
def test_whatever_an_event_holds_between_its_brackets_the_good_ones_are_kept(noise: bytes) -> None:
    noise = bytes(byte for byte in noise if byte not in b'"\\[]{}')
    call = json.dumps(GOOD)[:-1].encode() + b', "x": {' + noise + b"}}"
    good = json.dumps(GOOD).encode()
    parsed = parse(b'{"batch":[' + good + b"," + call + b"," + good + b"]}")
    assert [event.sequence for event in parsed.events if event.sequence != 1] == [0, 2]
    assert [each.body for each in parsed.rejected] in ([], [call])


def test_instants_are_whole_microseconds() -> None:
    at = one(track(timestamp="2026-02-28T23:59:59.123456Z")).occurred_at
    assert at % SECOND == 123_456
    assert at == instant(wire.EPOCH) + wire.instant_of("2026-02-28T23:59:59.123456+00:00", "")
