"""The way in over HTTP: keys, bounds, what is answered, and that 200 means committed."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from keyed import keyed
from starlette.concurrency import run_in_threadpool

from hetki.consent.source import Source, admitted
from hetki.errors import Fault, HetkiError, Unavailable
from hetki.events.wire import Parsed, Rejected
from hetki.server import arrivals, ingest
from hetki.server.committer import Committer, Waiting, _answer
from hetki.server.ingest import Ingest
from hetki.server.site import Site, known_as
from hetki.server.status import STATUS
from hetki.server.threads import N_PAGES, start_threads
from hetki.settings import Limits, Server
from hetki.simulation.world import SimulatedClock

WEB = Source(source="web", channel="site", purposes=["service"], write_keys=keyed("key-web"))
KITCHENS = Source(
    source="kitchens", channel="kitchen", purposes=["service"], write_keys=keyed("key-kitchens")
)
KEYS = admitted([WEB, KITCHENS])
NOW = 1_772_366_400_000_000
AUTH = {"authorization": "Basic " + base64.b64encode(b"key-web:").decode()}
GOOD = {"type": "track", "messageId": "m1", "userId": "u", "event": "Order Completed"}
BATCH = json.dumps({"batch": [GOOD]}).encode()
#: Without the time of making, so that a test is called the same in every process.
PACKED = gzip.compress(BATCH, mtime=0)
BOMB = gzip.compress(b" " * 900_000, mtime=0)


class Journal:
    """What was committed; `fails` makes the next commits fail, `gate` holds them up."""

    def __init__(self) -> None:
        self.bodies: list[Parsed] = []
        self.groups: list[int] = []
        self.fails: list[Exception] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def commit(self, bodies: list[Parsed]) -> None:
        self.entered.set()
        assert self.gate.wait(30)
        if self.fails:
            raise self.fails.pop(0)
        self.groups.append(len(bodies))
        self.bodies += bodies

    @property
    def ids(self) -> list[str]:
        return [event.message_id for parsed in self.bodies for event in parsed.events]

    @property
    def rejected(self) -> list[Rejected]:
        return [each for parsed in self.bodies for each in parsed.rejected]


class House:
    """An ingest app with its journal; `send` makes one request through ASGI."""

    def __init__(self, limits: Limits | None = None, **bounds: float) -> None:
        self.journal = Journal()
        self.committer = Committer(self.journal.commit, **bounds)  # type: ignore[arg-type]
        self.app = Ingest(KEYS, self.committer, SimulatedClock(NOW), limits or Limits())
        self.committer.start()

    def run(self, story: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
        async def told() -> Any:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
            async with httpx.AsyncClient(transport=transport, base_url="http://hetki") as client:
                return await story(client)

        return asyncio.run(told())

    def send(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
        headers = AUTH if headers is None else headers
        answer: httpx.Response = self.run(lambda client: client.post(path, content=body, headers=headers))
        return answer


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.journal.gate.set()
    house.committer.stop()


def refused(answer: httpx.Response, status: int, code: str) -> str:
    """The message of a refusal, which has the form that SDKs read."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert set(answer.json()) == {"code", "message"}
    message: str = answer.json()["message"]
    return message


# -- stories ---------------------------------------------------------------------------------------------


def test_a_batch_is_answered_200_after_it_was_committed(house: House) -> None:
    answer = house.send("/v1/batch", json.dumps({"batch": [GOOD, {}, {**GOOD, "messageId": "m2"}]}).encode())
    assert answer.status_code == 200 and answer.json() == {"success": True, "n_rejected": 1}
    assert house.journal.ids == ["m1", "m2"]
    event = house.journal.bodies[0].events[0]
    assert (event.source, event.channel, event.received_at, event.gpc) == ("web", "site", NOW, False)
    assert [each.body for each in house.journal.rejected] == [b"{}"]


def test_200_waits_for_the_commit(house: House) -> None:
    async def story(client: httpx.AsyncClient) -> httpx.Response:
        house.journal.gate.clear()
        asked = asyncio.create_task(client.post("/v1/batch", content=BATCH, headers=AUTH))
        await asyncio.to_thread(house.journal.entered.wait, 30)
        for _ in range(50):
            await asyncio.sleep(0)
        assert not asked.done(), "the commit is under way, and nobody has said 200"
        house.journal.gate.set()
        return await asked

    assert house.run(story).status_code == 200


def test_while_one_group_is_committed_the_next_gathers_and_a_failure_hits_one_group_only(
    house: House,
) -> None:
    async def story(client: httpx.AsyncClient) -> list[int]:
        house.journal.gate.clear()
        house.journal.fails = [OSError("disk")]
        bodies = [json.dumps({"batch": [{**GOOD, "messageId": f"m{n}"}]}) for n in range(21)]
        first = asyncio.create_task(client.post("/v1/batch", content=bodies[0], headers=AUTH))
        await asyncio.to_thread(house.journal.entered.wait, 30)
        rest = [
            asyncio.create_task(client.post("/v1/batch", content=body, headers=AUTH)) for body in bodies[1:]
        ]
        while len(house.committer._queue) < 20:
            await asyncio.sleep(0)
        house.journal.gate.set()
        answers = [await first, *[await each for each in rest]]
        refused(answers[0], 503, "unavailable")
        assert answers[0].headers["retry-after"] == "1"
        return [answer.status_code for answer in answers]

    assert house.run(story) == [503] + [200] * 20
    assert house.journal.groups == [20], "twenty requests, one durable commit"
    assert sorted(house.journal.ids) == sorted(f"m{n}" for n in range(1, 21))


def test_a_full_queue_is_answered_429_and_what_was_queued_is_kept() -> None:
    house = House(n_requests_max=2)

    async def story(client: httpx.AsyncClient) -> None:
        house.journal.gate.clear()
        kept = [asyncio.create_task(client.post("/v1/batch", content=BATCH, headers=AUTH))]
        await asyncio.to_thread(house.journal.entered.wait, 30)
        kept += [asyncio.create_task(client.post("/v1/batch", content=BATCH, headers=AUTH)) for _ in range(2)]
        while len(house.committer._queue) < 2:
            await asyncio.sleep(0)
        answer = await client.post("/v1/batch", content=BATCH, headers=AUTH)
        assert "queue: got 2 requests" in refused(answer, 429, "exhausted")
        assert answer.headers["retry-after"] == "1"
        house.journal.gate.set()
        assert [(await each).status_code for each in kept] == [200] * 3

    house.run(story)
    house.committer.stop()
    assert house.journal.ids == ["m1"] * 3


def test_ten_times_what_the_journal_takes_is_refused_in_time_and_nothing_acknowledged_is_lost() -> None:
    """Honest senders wait before they come again, rude ones do not; `bench/overload.py` is the true one."""
    house = House(queue_s=0)
    commit = house.committer._commit

    def slowly(bodies: list[Parsed]) -> None:
        threading.Event().wait(0.02)
        commit(bodies)

    house.committer._commit = slowly
    house.committer._n_events_max = 1
    kept: list[str] = []
    answers: Counter[int] = Counter()

    async def sender(client: httpx.AsyncClient, number: int) -> None:
        for n in range(30):
            call = {**GOOD, "messageId": f"{number}-{n}"}
            body = json.dumps({"batch": [call]})
            answer = await client.post("/v1/batch", content=body, headers=AUTH)
            answers[answer.status_code] += 1
            if answer.status_code == 200:
                kept.append(f"{number}-{n}")
            else:
                assert "queue: got" in refused(answer, 429, "exhausted")
                assert answer.headers["retry-after"] == "1"
                await asyncio.sleep(0.1 if number % 2 else 0)

    async def story(client: httpx.AsyncClient) -> int:
        await asyncio.gather(*(sender(client, number) for number in range(20)))
        return (await client.post("/v1/batch", content=BATCH, headers=AUTH)).status_code

    assert house.run(story) == 200, "as soon as nobody floods"
    house.committer.stop()
    assert answers[200] == len(kept) > 0 and answers[429] > answers[200]
    assert Counter(house.journal.ids) == Counter([*kept, "m1"])


def test_stop_commits_what_is_queued_and_refuses_what_comes_later() -> None:
    house = House()

    async def story(client: httpx.AsyncClient) -> None:
        house.journal.gate.clear()
        asked = [asyncio.create_task(client.post("/v1/batch", content=BATCH, headers=AUTH))]
        await asyncio.to_thread(house.journal.entered.wait, 30)
        asked += [
            asyncio.create_task(client.post("/v1/batch", content=BATCH, headers=AUTH)) for _ in range(2)
        ]
        while len(house.committer._queue) < 2:
            await asyncio.sleep(0)
        stopping = asyncio.create_task(asyncio.to_thread(house.committer.stop))
        while not house.committer._stopping:
            await asyncio.sleep(0)
        refused(await client.post("/v1/batch", content=BATCH, headers=AUTH), 503, "unavailable")
        house.journal.gate.set()
        await stopping
        assert [(await each).status_code for each in asked] == [200] * 3

    house.run(story)
    assert house.journal.ids == ["m1"] * 3


def test_a_large_body_waits_for_no_page(house: House) -> None:
    """However many pages take long: an effect that is estimated, a customer who is exported."""
    turned = threading.Event()

    async def story(client: httpx.AsyncClient) -> httpx.Response:
        await start_threads()
        pages = [asyncio.ensure_future(run_in_threadpool(turned.wait, 30)) for _ in range(2 * N_PAGES)]
        large = json.dumps({"batch": [GOOD], "padding": " " * ingest.INLINE_BYTES_MAX}).encode()
        answer = await client.post("/v1/batch", content=large, headers=AUTH)
        assert not any(page.done() for page in pages)
        turned.set()
        await asyncio.gather(*pages)
        return answer

    assert house.run(story).status_code == 200


def test_a_large_body_is_read_beside_the_others(house: House) -> None:
    calls = [{**GOOD, "messageId": f"m{n}", "properties": {"text": "x" * 400}} for n in range(1_000)]
    assert house.send("/v1/batch", json.dumps({"batch": calls}).encode()).status_code == 200
    assert len(house.journal.ids) == 1_000
    refused(house.send("/v1/batch", b"[" * 300_000), 400, "invalid")


def test_our_own_errors_from_the_journal_keep_their_words(house: House) -> None:
    house.journal.fails = [Unavailable(Fault("journal.db", "a full disk", "a disk with room"))]
    assert refused(house.send("/v1/batch", BATCH), 503, "unavailable") == (
        "journal.db: got a full disk, must be a disk with room."
    )
    assert house.send("/v1/batch", BATCH).status_code == 200, "the thread lives on"


# -- paths, keys and headers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "call", "name"),
    [
        ("/v1/track", {"event": "E"}, "E"),
        ("/v1/t", {"event": "E"}, "E"),
        ("/v1/identify", {}, "Customer Identified"),
        ("/v1/page/", {}, "Page Viewed"),
        ("/v1/screen", {}, "Screen Viewed"),
        ("/v1/group", {"groupId": "g"}, "Account Joined"),
        ("/v1/alias", {"previousId": "a"}, "Customer Aliased"),
        ("/v1/b", {"batch": [GOOD]}, "Order Completed"),
        ("/v1/import", {"batch": [GOOD]}, "Order Completed"),
    ],
)
def test_every_path_of_the_sdks(house: House, path: str, call: dict[str, object], name: str) -> None:
    body = {"userId": "u", "messageId": "m", "writeKey": "key-web", **call}
    assert house.send(path, json.dumps(body).encode(), headers={}).json() == {
        "success": True,
        "n_rejected": 0,
    }
    assert [event.name for event in house.journal.bodies[0].events] == [name]


def test_cloudevents_in_three_modes(house: House) -> None:
    bearer = {"authorization": "Bearer key-kitchens"}
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "T"}
    structured = bearer | {"content-type": "application/cloudevents+json"}
    batch = bearer | {"content-type": "application/cloudevents-batch+json"}
    binary = (
        bearer | {"Content-Type": "application/json"} | {f"Ce-{name}": text for name, text in event.items()}
    )
    assert house.send("/v1/cloudevents", json.dumps(event).encode(), structured).status_code == 200
    assert house.send("/v1/cloudevents", json.dumps([event, {}]).encode(), batch).json()["n_rejected"] == 1
    assert house.send("/v1/cloudevents", b"{}", binary).status_code == 200
    assert [(parsed.events[0].source, parsed.events[0].name) for parsed in house.journal.bodies] == [
        ("kitchens", "T")
    ] * 3


@pytest.mark.parametrize(
    ("headers", "body", "says"),
    [
        ({}, BATCH, "write key: got no write key, must be one of a source of this project. Hint: Basic auth"),
        (
            {"authorization": "Basic " + base64.b64encode(b"wrong:").decode()},
            BATCH,
            "got an unknown write key",
        ),
        ({"authorization": "Basic ???"}, BATCH, "authorization: got a header that is not base64"),
        ({"authorization": "Bearer wrong"}, BATCH, "got an unknown write key"),
        ({}, b'{"writeKey": "wrong", "batch": []}', "got an unknown write key"),
        ({}, b'{"writeKey": 7}', "got no write key"),
        ({}, b"{", "got no write key"),
    ],
)
def test_without_a_valid_key_nothing_is_stored(
    house: House, headers: dict[str, str], body: bytes, says: str
) -> None:
    message = refused(house.send("/v1/batch", body, headers), 401, "forbidden")
    assert says in message and "wrong" not in message
    assert house.journal.bodies == []


@pytest.mark.parametrize(
    ("name", "text", "status"),
    [
        (b"authorization", b"Basic \xff", 401),
        (b"authorization", b"Basic //79", 401),
        (b"content-length", b"\xb2", 200),
        (b"content-type", b"\xff", 200),
    ],
)
def test_headers_that_are_no_text_are_refused_or_passed_over(
    house: House, name: bytes, text: bytes, status: int
) -> None:
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    async def gone() -> Any:
        return {"type": "http.disconnect"}

    asked = {**scope(), "headers": [*scope()["headers"], (name, text)]}
    whole = [{"type": "http.request", "body": BATCH, "more_body": False}]
    asyncio.run(house.app(asked, receiving(whole, gone), send))
    assert said[0]["status"] == status


def test_a_browser_whose_key_is_in_a_body_with_half_an_emoji_loses_one_event_only(house: House) -> None:
    bad = b'{"type": "track", "userId": "u", "event": "half \\ud83c"}'
    body = b'{"batch": [' + bad + b", " + json.dumps(GOOD).encode() + b'], "writeKey": "key-web"}'
    assert house.send("/v1/b", body, {"content-type": "text/plain"}).json()["n_rejected"] == 1
    assert house.journal.ids == ["m1"] and house.journal.rejected[0].body == bad


def test_gpc_is_taken_from_the_request(house: House) -> None:
    house.send("/v1/batch", BATCH, AUTH | {"Sec-GPC": "1"})
    assert [event.gpc for event in house.journal.bodies[0].events] == [True]


def test_browsers_may_send_from_any_page(house: House) -> None:
    asked = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    answer = house.run(lambda client: client.options("/v1/t", headers=asked))
    assert answer.status_code == 204 and answer.headers["access-control-allow-origin"] == "*"
    assert "authorization" in answer.headers["access-control-allow-headers"]
    assert house.send("/v1/batch", b"{").headers["access-control-allow-origin"] == "*", (
        "errors can be read too"
    )


def test_health_and_what_is_not_there(house: House) -> None:
    assert house.run(lambda client: client.get("/v1/health")).status_code == 200
    refused(house.run(lambda client: client.get("/v1/batch")), 405, "invalid")
    wrong = house.send("/v1/health", BATCH)
    refused(wrong, 405, "invalid")
    assert wrong.headers["allow"] == "GET, OPTIONS"
    refused(house.send("/v1/nothing", BATCH), 404, "not_found")
    refused(house.send("/other", BATCH), 404, "not_found")


# -- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "headers", "status", "code", "says"),
    [
        (b"{", {}, 400, "invalid", "body: got broken JSON at byte 1"),
        (b"{}", {}, 400, "invalid", "missing required field `batch`"),
        (b"x" * 2_001, {}, 413, "exhausted", "body: got 2001 bytes, must be at most 2000 bytes"),
        (b"x", {"content-length": "9" * 40}, 413, "exhausted", "must be at most 2000 bytes"),
        (json.dumps({"batch": [{}] * 6}).encode(), {}, 413, "exhausted", "batch: got 6 events"),
        (b"abc", {"content-encoding": "gzip"}, 400, "invalid", "body: got bytes that are not gzip"),
        (PACKED[:-9], {"content-encoding": "gzip"}, 400, "invalid", "gzip that ends too early"),
        (PACKED + b"x", {"content-encoding": "gzip"}, 400, "invalid", "bytes after the end"),
        (BOMB, {"content-encoding": "gzip"}, 413, "exhausted", "than 3000 bytes"),
        (b"abc", {"content-encoding": "br"}, 400, "invalid", "content-encoding: got 'br', must be"),
        (b"{}", {"x-path": "/v1/cloudevents"}, 400, "invalid", "no ce-specversion header"),
    ],
)  # fmt: skip
def test_bad_bodies_are_refused_with_a_reason(
    body: bytes, headers: dict[str, str], status: int, code: str, says: str
) -> None:
    house = House(Limits(body_bytes_max=2_000, inflated_bytes_max=3_000, batch_events_max=5))
    path = headers.get("x-path", "/v1/batch")
    assert says in refused(house.send(path, body, AUTH | headers), status, code)
    assert (
        house.send("/v1/batch", gzip.compress(BATCH), AUTH | {"content-encoding": "gzip"}).status_code == 200
    )
    house.committer.stop()
    assert house.journal.ids == ["m1"] and house.app._arrivals.n_bytes == 0


def scope(path: str = "/v1/batch") -> dict[str, Any]:
    headers = [(name.encode(), text.encode()) for name, text in AUTH.items()]
    return {"type": "http", "method": "POST", "path": path, "headers": headers}


def receiving(
    messages: list[dict[str, Any]], then: Callable[[], Awaitable[Any]]
) -> Callable[[], Awaitable[Any]]:
    async def receive() -> Any:
        return messages.pop(0) if messages else await then()

    return receive


def test_a_body_that_stops_halfway_stores_nothing_and_harms_nothing(house: House) -> None:
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    async def gone() -> Any:
        return {"type": "http.disconnect"}

    half = [{"type": "http.request", "body": BATCH[:20], "more_body": True}]
    asyncio.run(house.app(scope(), receiving(half, gone), send))
    assert said == [] and house.journal.bodies == [] and house.app._arrivals.n_bytes == 0
    assert house.send("/v1/batch", BATCH).status_code == 200


def test_whom_a_server_that_stops_waits_for_no_longer_is_told_so(house: House) -> None:
    """Whether it is stored is not known then: the sender sends it again, which has no further effect."""
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    async def story() -> None:
        house.journal.gate.clear()
        whole = [{"type": "http.request", "body": BATCH}]
        asked = asyncio.ensure_future(house.app(scope(), receiving(whole, asyncio.Event().wait), send))
        assert await asyncio.to_thread(house.journal.entered.wait, 30)
        asked.cancel()
        await asked

    asyncio.run(story())
    assert said[0]["status"] == 503 and (b"retry-after", b"1") in said[0]["headers"]
    assert json.loads(said[1]["body"])["code"] == "unavailable"


def test_a_loop_that_ends_just_then_does_not_end_whoever_commits() -> None:
    loop = Mock(is_closed=lambda: False, call_soon_threadsafe=Mock(side_effect=RuntimeError("closed")))
    _answer([Waiting(Parsed([], []), 0, loop, Mock(), 0.0)], None)
    assert loop.call_soon_threadsafe.called


def test_a_body_without_a_told_length_is_cut_off_at_the_bound(house: House) -> None:
    asked = 0

    async def chunks() -> Any:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": b"x" * 1_000_000, "more_body": True}

    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    asyncio.run(house.app(scope(), chunks, send))
    assert said[0]["status"] == 413 and asked == 5, "4 MiB and one chunk, whatever the sender has"


def test_bodies_arriving_together_share_one_bound(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "ARRIVING_BYTES_MAX", 10)
    answer = house.send("/v1/batch", BATCH)
    assert "bytes arriving at once" in refused(answer, 503, "unavailable")
    assert house.app._arrivals.n_bytes == 0


def test_bodies_that_stop_halfway_leave_for_those_that_come(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a few senders without a key could keep everybody out, for as long as a body may take to arrive."""
    monkeypatch.setattr(arrivals, "ARRIVING_BYTES_MAX", 1_000)
    monkeypatch.setattr(arrivals, "STALLED_S", 0.005)
    never = asyncio.Event

    async def asked(body: bytes, is_whole: bool) -> tuple[int, bytes]:
        said: list[Any] = []

        async def send(message: Any) -> None:
            said.append(message)

        message = {"type": "http.request", "body": body, "more_body": not is_whole}
        await house.app(scope(), receiving([message], never().wait), send)
        return said[0]["status"], said[1]["body"]

    async def story() -> None:
        slow = [asyncio.ensure_future(asked(b"x" * 300, False)) for _ in range(3)]
        await asyncio.sleep(0.01)
        for _ in range(2):
            assert (await asked(BATCH + b" " * (300 - len(BATCH)), True))[0] == 200
        status, told = await slow[0]
        assert status == 503 and b"slow to arrive" in told, "who has kept us waiting for the longest"
        assert not slow[1].done() and not slow[2].done() and house.app._arrivals.n_bytes == 600
        assert (await asked(b"x" * 1_001, False))[0] == 503, "more than all may have"
        for each in slow[1:]:
            assert (await each)[0] == 503

    asyncio.run(story())
    assert house.app._arrivals.n_bytes == 0 and len(house.journal.bodies) == 2


def test_the_bodies_of_one_address_have_a_part_of_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast they come; this machine and proxies speak for many."""
    monkeypatch.setattr(arrivals, "ADDRESS_BYTES_MAX", 100)

    async def story() -> None:
        found = arrivals.Arrivals(Site(Server(proxies=["10.0.0.1"])))
        first, second, other = (found.begin(each) for each in ("192.0.2.1", "192.0.2.1", "192.0.2.2"))
        found.grow(first, 60)
        found.grow(other, 60)
        with pytest.raises(Unavailable, match="from one address"):
            found.grow(second, 60)
        found.end(second)
        found.end(second)
        for address in ("127.0.0.1", known_as("::1"), "10.0.0.1"):
            found.grow(found.begin(address), 1_000)
        assert found.n_bytes == 3_120
        found.grow(first, 40)

    asyncio.run(story())


@given(st.binary(max_size=3_000), st.lists(st.integers(0, 3_100), min_size=1, max_size=4))
def test_a_body_is_unpacked_step_by_step_as_at_once(body: bytes, bounds: list[int]) -> None:
    body = body * 3
    for sent, encoding in ((body, ""), (gzip.compress(body), "gzip")):
        packed = ingest.Packed(sent, encoding)
        for bytes_max in sorted(3 * each for each in bounds):
            plain = packed.up_to(bytes_max)
            assert plain == (body if len(body) <= bytes_max else None)
            assert len(packed._plain) <= bytes_max + 1
            if plain is not None:
                break


@given(st.binary(max_size=300), st.sampled_from(sorted(ingest.KINDS)), st.sampled_from(["", "gzip"]))
def test_random_requests_are_answered_and_never_crash(body: bytes, path: str, encoding: str) -> None:
    house = House()
    packed = gzip.compress(body) if encoding and body[:1] < b"\x80" else body
    answer = house.send(f"/v1/{path}", packed, AUTH | {"content-encoding": encoding})
    house.committer.stop()
    assert answer.status_code in (200, 400, 413)
    assert bool(house.journal.bodies) == (answer.status_code == 200)


def test_every_code_has_a_status() -> None:
    assert {error.code for error in HetkiError.__subclasses__()} == set(STATUS)


# -- over a real socket ----------------------------------------------------------------------------------


def test_over_a_real_socket_with_a_sender_that_breaks_off(house: House) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(house.app, lifespan="off", log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        head = f"POST /v1/batch HTTP/1.1\r\nHost: x\r\nAuthorization: {AUTH['authorization']}\r\n"
        with socket.create_connection(("127.0.0.1", port)) as broken:
            broken.sendall(f"{head}Content-Length: {len(BATCH)}\r\n\r\n".encode() + BATCH[:-5])
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=AUTH) as client:
            answer = client.post(
                "/v1/batch", content=gzip.compress(BATCH), headers={"content-encoding": "gzip"}
            )
            assert (answer.status_code, answer.json()) == (200, {"success": True, "n_rejected": 0})
            assert client.post("/v1/batch", content=iter([BATCH[:9], BATCH[9:]])).status_code == 200, (
                "chunked"
            )
            assert client.options("/v1/batch").status_code == 204
            assert client.post("/v1/batch", content=b"x" * (5 << 20)).status_code == 413
            assert client.get("/v1/health").status_code == 200
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
    assert house.journal.ids == ["m1", "m1"]
