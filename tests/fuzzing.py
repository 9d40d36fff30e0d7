"""Requests that no honest program sends, from a seed: bodies of real SDKs, broken in every way we know.

A body has a good event, broken ones, and a good one again. `Sent.is_sound` says that what was broken keeps
its brackets and quotes, so that whoever reads it must find where the last event begins.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
from dataclasses import dataclass, field
from urllib.parse import quote

from hetki.events.catalogue import SHIPPED
from hetki.settings import Limits

BATCHES = ("batch", "b", "import")
CALLS = ("track", "identify", "page", "screen", "group", "alias")
#: Raw JSON where a value is expected: what a strict parser takes, and what it does not.
PLAIN = rb"""null true false [] {} [null] "" 0 -0 -0.0 1e308 5e-324 1.7976931348623157e308
    "a\u0000b" "\u202e" "\uFFFF"    {"email":["a@b.fi",7]} [{"a":1},"+358401234567"] "\"" """.split()
BROKEN = rb"""1e309 -1e999999999 1e-999999999 NaN Infinity -Infinity nan undefined 01 1. .5 +1 0x10 'a'
    "\ud800" "\udc00\ud800" "a\ud83c" "\x41" """.split()
#: Bytes of which no UTF-8 is made.
NO_TEXT = [0x80, 0xC0, 0xED, 0xA0, 0xFF, 0xF5, 0xC1]
TIMES = [
    "2026-03-01T10:11:12Z",
    "2026-03-01",
    "10:11",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999+23:59",
    "0001-01-01T00:00:00+23:59",
    "2026-02-30T00:00:00Z",
    "1969-12-31T23:59:59Z",
    "2026-03-01T24:00:00Z",
    "soon",
    "2026-W09-7",
    "20260301T101112Z",
    "-2026-03-01T10:11:12Z",
    "2026-03-01T10:11:12.1234567890Z",
    "１２",
]
KEYS = [
    "__proto__",
    "constructor",
    "",
    " ",
    "a.b",
    "$ref",
    "\u0000",
    "query'; DROP TABLE events",
    "=1+1",
    "é",
    "漢",
    "email",
    "phone",
    "traits",
    "locale",
    "timezone",
    "device",
    "externalIds",
    "plan",
    "order_id",
    "promised_at",
]
MEMBERS = [
    "type",
    "messageId",
    "event",
    "userId",
    "anonymousId",
    "previousId",
    "groupId",
    "timestamp",
    "sentAt",
    "originalTimestamp",
    "name",
    "category",
    "properties",
    "traits",
    "context",
    "channel",
    "integrations",
    "_x",
]
CONTEXT = {
    "library": {"name": "analytics.js", "version": "next-1.70.0"},
    "page": {"path": "/help", "url": "https://shop.example/help?q=%C3%A9", "title": "Help — Shop"},
    "userAgent": "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101",
    "locale": "fi-FI",
    "device": {"id": "d-1", "token": "t-1"},
    "externalIds": [{"id": "c-1", "type": "loyalty_card", "collection": "users", "encoding": "none"}],
}


def value(chance: random.Random) -> bytes:
    """Something where a value is expected."""
    draw = chance.randrange(9)
    if draw == 0:
        n = chance.choice([99, 101, 513, 600, 40_000 if chance.random() < 0.2 else 200])
        return b'"' + b"x" * n + b'"'
    if draw == 1:
        return b"%s%d" % (chance.choice([b"", b"-"]), 10 ** chance.choice([3, 9, 15, 18, 19, 20, 40, 400]))
    if draw == 2:
        return b'"' + bytes(chance.choices(NO_TEXT, k=chance.randint(1, 4))) + b'"'
    if draw == 3:
        return b'"' + bytes([chance.choice([*range(0x20), 0x7F])]) + b'"'
    if draw == 4:
        return nested(chance, chance.choice([3, 15, 16, 17, 17, 18, 40, 60, 900]))
    if draw == 5:
        n = chance.choice([5, 5, 5, 5, 999, 1_001])
        return b"{" + b",".join(b'"k%d":%d' % (place, place) for place in range(n)) + b"}"
    if draw == 6:
        return json.dumps(chance.choice(TIMES)).encode()
    return chance.choice(PLAIN if draw == 7 else BROKEN)


def nested(chance: random.Random, depth: int) -> bytes:
    """Lists and objects in each other."""
    opens = [chance.random() < 0.5 for _ in range(depth)]
    begins = b"".join(b"[" if each else b'{"a":' for each in opens)
    return begins + b"1" + b"".join(b"]" if each else b"}" for each in reversed(opens))


@dataclass
class Sent:
    """One request. `good` are the ids of its good events; of one that is not sound only the first is sure."""

    path: str
    body: bytes
    headers: list[tuple[bytes, bytes]]
    good: list[str] = field(default_factory=list)
    is_sound: bool = True
    cuts: list[int] = field(default_factory=list)


class Fuzz:
    """All requests of one seed. `key` is a write key; good events are of `Help Viewed`."""

    def __init__(self, seed: int, key: str) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        self.key = key
        self.n = 0
        self.names = sorted(SHIPPED.events)

    def next(self) -> Sent:
        """The next request."""
        self.n += 1
        draw = self.chance.random()
        if draw < 0.7:
            sent = self._batch()
        elif draw < 0.85:
            sent = self._single()
        else:
            sent = self._cloudevents()
        if self.chance.random() < 0.15:
            self._mutate(sent)
        if self.chance.random() < 0.15:
            self._pack(sent)
        self._odd_headers(sent)
        if self.chance.random() < 0.1 and sent.body:
            sent.cuts = sorted(
                self.chance.randrange(len(sent.body)) for _ in range(self.chance.randint(1, 9))
            )
        return sent

    # -- bodies

    def _good(self, sent: Sent) -> bytes:
        message_id = f"{self.seed}-{self.n}-{len(sent.good)}"
        sent.good.append(message_id)
        call = self._call("track")
        return json.dumps(
            {**call, "event": "Help Viewed", "messageId": message_id, "userId": f"g{self.n}"}
        ).encode()

    def _call(self, kind: str) -> dict[str, object]:
        """One call as an SDK makes it, of an event of the catalogue with its own fields."""
        chance = self.chance
        name = chance.choice(self.names)
        fields: dict[str, object] = {
            each: chance.choice(["o-1", 1, 2.5, True, "2026-03-01T10:00:00Z", "mobile", None])
            for each in chance.sample(
                sorted(SHIPPED.events[name].fields), k=min(3, len(SHIPPED.events[name].fields))
            )
        }
        call: dict[str, object] = {
            "type": kind,
            "messageId": f"ajs-next-{chance.randrange(10**12)}",
            "anonymousId": f"a{chance.randrange(50)}",
            "timestamp": f"2026-02-{chance.randint(10, 28)}T10:11:{chance.randrange(60):02}.123Z",
            "context": CONTEXT if chance.random() < 0.3 else {},
            "integrations": {},
        }
        if chance.random() < 0.7:
            call["userId"] = f"u{chance.randrange(50)}"
        if kind == "track":
            call |= {"event": name, "properties": fields}
        elif kind in ("page", "screen"):
            call |= {"name": "Help", "category": "Docs", "properties": fields}
        elif kind == "identify":
            call["traits"] = {
                "email": f"m{chance.randrange(40)}@shop.example",
                "phone": "+358401234567",
                "plan": "private",
            }
        elif kind == "group":
            call |= {"groupId": f"acc{chance.randrange(9)}", "traits": {"name": "Ltd"}}
        else:
            call |= {"userId": f"u{chance.randrange(50)}", "previousId": f"a{chance.randrange(50)}"}
        return call

    def _broken(self, kind: str) -> bytes:
        """A call with some of its values, or those in its parts, replaced; members doubled or left out."""
        chance = self.chance
        call = self._call(kind)
        raw = {key: json.dumps(each).encode() for key, each in call.items()}
        for _ in range(chance.choice([0, 1, 1, 2, 4])):
            told = value(chance)
            if chance.random() < 0.5:
                raw[chance.choice(MEMBERS)] = told
            else:
                part = chance.choice(["properties", "traits", "context"])
                name = chance.choice(KEYS + sorted(SHIPPED.events[chance.choice(self.names)].fields))
                raw[part] = b"{" + json.dumps(name).encode() + b":" + told + b"}"
        members = [
            json.dumps(key).encode() + b":" + each for key, each in raw.items() if chance.random() < 0.97
        ]
        if members and chance.random() < 0.1:
            members.append(chance.choice(members))
        gap = chance.choice([b"", b" ", b"\n\t"])
        return b"{" + gap + (b"," + gap).join(members) + b"}"

    def _batch(self) -> Sent:
        chance = self.chance
        sent = Sent(f"/v1/{chance.choice(BATCHES)}", b"", [])
        items = [self._good(sent)]
        for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
            kind = chance.choice(CALLS)
            whole = value(chance) if chance.random() < 0.05 else self._broken(kind)
            items.append(whole)
        items.append(self._good(sent))
        sent.body = b'{"batch":[' + b",".join(items) + b"]"
        if chance.random() < 0.3:
            sent.body += b',"sentAt":"2026-03-01T10:11:12.000Z"'
        if chance.random() < 0.05:
            sent.is_sound, sent.good = False, []
            sent.body += b',"%s":%s' % (
                chance.choice([b"sentAt", b"batch", b"x"]),
                value(chance),
            )
        sent.body += b"}"
        return sent

    def _single(self) -> Sent:
        kind = self.chance.choice(CALLS)
        return Sent(f"/v1/{self.chance.choice([kind, kind[0]])}", self._broken(kind), [], is_sound=False)

    def _cloudevents(self) -> Sent:
        chance = self.chance
        event: dict[str, object] = {
            "specversion": "1.0",
            "id": str(chance.randrange(10**9)),
            "source": "/desk",
            "type": chance.choice(self.names),
            "time": "2026-02-20T10:11:12Z",
            "userid": f"u{chance.randrange(50)}",
            "sequence": chance.choice([1, "7", "x"]),
            "data": {"order_id": "o-1", "email": "m1@shop.example"},
        }
        raw = {key: json.dumps(each).encode() for key, each in event.items()}
        for _ in range(chance.choice([0, 1, 2])):
            raw[chance.choice([*event, "data_base64", "subject", "anonymousid", "x"])] = value(chance)
        body = b"{" + b",".join(json.dumps(key).encode() + b":" + each for key, each in raw.items()) + b"}"
        mode = chance.randrange(4)
        if mode == 0:
            return Sent(
                "/v1/cloudevents", body, [(b"content-type", b"application/cloudevents+json")], is_sound=False
            )
        if mode == 1:
            many = b"[" + b",".join([body] * chance.randint(0, 3)) + b"]"
            kind = b"application/cloudevents-batch+json; charset=utf-8"
            return Sent("/v1/cloudevents", many, [(b"content-type", kind)], is_sound=False)
        if mode == 2:
            packed = json.dumps({**event, "data_base64": base64.b64encode(raw["data"]).decode()}).encode()
            kind = b"Application/CloudEvents+JSON"
            return Sent("/v1/cloudevents", packed, [(b"content-type", kind)], is_sound=False)
        headers = [(f"ce-{key}".encode(), each.strip(b'"')[:2_000]) for key, each in raw.items()]
        headers.append((b"ce-" + bytes(chance.choices(range(256), k=3)), quote("漢é\x00").encode()))
        headers.append(
            (
                b"content-type",
                chance.choice([b"application/json", b"text/plain", b"", b"\xff/\xfe", b"a/b+json"]),
            )
        )
        return Sent("/v1/cloudevents", raw["data"], headers, is_sound=False)

    # -- what happens to a whole request

    def _mutate(self, sent: Sent) -> None:
        """Bytes that flip, go, come twice or come from elsewhere; everything behind them is unsure."""
        sent.is_sound, sent.good = False, []
        body = bytearray(sent.body)
        for _ in range(self.chance.choice([1, 1, 2, 8])):
            if not body:
                break
            at = self.chance.randrange(len(body))
            kind = self.chance.randrange(5)
            if kind == 0:
                body[at] ^= 1 << self.chance.randrange(8)
            elif kind == 1:
                del body[at : at + self.chance.randint(1, 20)]
            elif kind == 2:
                body[at:at] = body[at : at + self.chance.randint(1, 50)]
            elif kind == 3:
                body[at:at] = self.chance.choice(
                    [b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"\xff", b"\x00"]
                )
            else:
                del body[at:]
        sent.body = bytes(body)

    def _pack(self, sent: Sent) -> None:
        chance = self.chance
        packed = gzip.compress(sent.body, compresslevel=1, mtime=0)
        kind = chance.choice([0, 0, 0, 0, 1, 2, 4, 3 if chance.random() < 0.2 else 1])
        if kind == 1:
            packed = packed[: chance.randrange(len(packed))]
        elif kind == 2:
            packed += chance.choice([b"x", packed])
        elif kind == 3:
            packed = BOMB
        elif kind == 4:
            at = chance.randrange(len(packed))
            packed = packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :]
        if kind in (1, 2, 3, 4):
            sent.is_sound, sent.good = False, []
        name = chance.choice([b"gzip", b"GZIP ", b"x-gzip"]) if chance.random() < 0.95 else b"br, gzip"
        if name == b"br, gzip":
            sent.is_sound, sent.good = False, []
        sent.body = packed
        sent.headers.append((b"content-encoding", name))

    def _odd_headers(self, sent: Sent) -> None:
        chance = self.chance
        sent.headers.append((b"authorization", b"Basic " + base64.b64encode(f"{self.key}:".encode())))
        if chance.random() < 0.1:
            odd = [
                (b"content-length", chance.choice([b"-1", b"abc", b"9" * 400, b"\xb2", b"1e3", b"", b"+5"])),
                (
                    b"authorization",
                    chance.choice([b"Basic", b"Basic \xff", b"Basic //79", b"Bearer ", b"", b"basic =="]),
                ),
                (
                    b"content-type",
                    chance.choice([b"multipart/form-data", b"\xff", b"application/cloudevents-batch+json"]),
                ),
                (b"sec-gpc", chance.choice([b"1", b" 1 ", b"0", b"\xb9"])),
                (
                    b"x-" + bytes(chance.choices(range(128, 256), k=4)),
                    bytes(chance.choices(range(128, 256), k=9)),
                ),
            ]
            sent.headers.append(chance.choice(odd))
            sent.is_sound, sent.good = False, []


#: More than a project takes, in a few bytes.
BOMB = gzip.compress(b'{"batch":[' + b" " * (Limits().inflated_bytes_max + 1), mtime=0)
