"""Rates: no key, address or name ever takes more than its rate and burst, and no crowd makes it take more."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import httpx
import pytest
from console import FORM_TYPE, PASSWORD, House, ask
from hypothesis import given
from hypothesis import strategies as st
from keyed import keyed

from hetki.consent.source import Source, admitted
from hetki.engine.project import load
from hetki.engine.skeleton import skeleton
from hetki.errors import Invalid
from hetki.events.wire import Parsed
from hetki.server import serve
from hetki.server.app import console_app
from hetki.server.committer import Committer
from hetki.server.ingest import Ingest
from hetki.server.rates import (
    SIGN_IN_OF_NAME_S,
    SIGN_INS_OF_ADDRESS,
    SIGN_INS_OF_NAME,
    Buckets,
    Rates,
)
from hetki.server.site import Site
from hetki.server.status import Busy
from hetki.settings import BURST_S, SECOND, Connections, Limits, Server
from hetki.simulation.world import MemoryDisk, SimulatedClock
from hetki.store import passwords

# -- the bucket

SIZES = st.tuples(st.integers(1, 7), st.integers(1, 50), st.integers(1, 12))
#: Whose, how much, and how long after the one before.
ASKED = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12), st.integers(0, 40)), max_size=60)


@given(SIZES, ASKED, st.integers(0, 4))
def test_no_window_ever_holds_more_than_its_rate_and_the_burst(
    size: tuple[int, int, int], asked: list[tuple[int, int, int]], kept_max: int
) -> None:
    """Of every key, also where there is room for fewer keys than ask."""
    n, per_us, burst = size
    buckets, now = Buckets(n, per_us, burst, kept_max), 0
    taken: dict[str, list[tuple[int, int]]] = {}
    for who, cost, after in asked:
        now += after
        cost = min(cost, burst)
        if not buckets.wait_us(str(who), cost, now):
            buckets.take(str(who), cost, now)
            taken.setdefault(str(who), []).append((now, cost))
        assert len(buckets._full_at) <= kept_max
    for mine in taken.values():
        for first in range(len(mine)):
            for last in range(first, len(mine)):
                span = mine[last][0] - mine[first][0]
                in_it = sum(cost for _, cost in mine[first : last + 1])
                assert in_it * per_us <= burst * per_us + span * n


@given(SIZES, ASKED)
def test_where_there_is_room_nothing_that_fits_is_refused(
    size: tuple[int, int, int], asked: list[tuple[int, int, int]]
) -> None:
    """Against buckets that are filled in exact fractions at every step."""
    n, per_us, burst = size
    buckets, now = Buckets(n, per_us, burst), 0
    level: dict[str, Fraction] = {}
    for who, cost, after in asked:
        now, cost = now + after, min(cost, burst)
        for key in level:
            level[key] = min(Fraction(burst), level[key] + Fraction(after * n, per_us))
        mine = level.setdefault(str(who), Fraction(burst))
        wait_us = buckets.wait_us(str(who), cost, now)
        assert (wait_us == 0) == (mine >= cost)
        assert mine + Fraction(wait_us * n, per_us) >= cost, "who comes back when told finds enough"
        assert wait_us == 0 or mine + Fraction((wait_us - 1) * n, per_us) < cost, "and was not told too late"
        if wait_us == 0:
            buckets.take(str(who), cost, now)
            level[str(who)] = mine - cost


def test_a_crowd_of_other_keys_fills_no_bucket_again() -> None:
    buckets = Buckets(1, SECOND, 5, kept_max=100)
    buckets.take("mine", 5, 0)
    for number in range(10_000):
        key = f"other-{number}"
        if not buckets.wait_us(key, 1, 0):
            buckets.take(key, 1, 0)
        assert len(buckets._full_at) <= 100
    assert buckets.wait_us("mine", 1, 0) == SECOND, "an empty bucket is not forgotten"
    assert buckets.wait_us("one more", 1, 0) == SECOND, "who comes late shares one that is empty"
    assert buckets.wait_us("other-3", 1, 0) == 0, "who was there has a bucket of their own"
    now = 5 * SECOND
    assert buckets.wait_us("one more", 5, now) == 0
    buckets.take("one more", 5, now)
    assert set(buckets._full_at) == {"one more"}, "what is full again is forgotten, and there is room"


def test_a_crowd_is_not_looked_through_for_each_newcomer() -> None:
    buckets = Buckets(1, SECOND, 8, kept_max=50)
    for number in range(50):
        buckets.take(f"{number}", 8, 0)
    kept = [id(buckets._full_at)]
    for number in range(1_000):
        buckets.take("newcomer", 1, number * SECOND // 1_000)
        kept.append(id(buckets._full_at))
    assert sum(one != other for one, other in pairwise(kept)) <= 1


def test_a_server_of_fifty_thousand_events_a_second_is_never_refused() -> None:
    clock = SimulatedClock(0)
    rates = Rates(Server(), clock.now)
    for _ in range(200):
        rates.check_key("key", "192.0.2.1")
        rates.take("key", "192.0.2.1", 5_000, 5_000 * 1_000)
        clock.move(clock.now() + SECOND // 10)


def test_other_rates_hold_from_the_next_request_on_and_the_same_ones_forgive_nothing() -> None:
    clock = SimulatedClock(0)
    rates = Rates(Server(key_events_per_s=1), clock.now)
    rates.take("key", "a", BURST_S, 1)
    rates.take_up(Server(key_events_per_s=1))
    with pytest.raises(Busy):
        rates.take("key", "a", 1, 1)
    rates.take_up(Server(key_events_per_s=2))
    rates.take("key", "a", 2 * BURST_S, 1)


# -- the way in

SHOP = Source(source="shop", channel="web", purposes=["service"], write_keys=keyed("one", "other"))


class Door:
    """A way in whose journal is a list, at an instant that is moved."""

    def __init__(self, **server: Any) -> None:
        self.bodies: list[Parsed] = []
        self.clock = SimulatedClock(1_772_366_400 * SECOND)
        self.committer = Committer(self.bodies.extend)
        self.committer.start()
        declared = Server(**server)
        rates = Rates(declared, self.clock.now)
        self.n_read = 0
        self.app = Ingest(admitted([SHOP]), self.committer, self.clock, Limits(), rates, Site(declared))

    def send(
        self, key: str, n_events: int = 1, address: str = "192.0.2.1", where: str = "header", heard: str = ""
    ) -> httpx.Response:
        """So many events, from an address; the key in the header or in the body."""
        call = {"type": "track", "event": "Help Searched", "userId": "u"}
        body: dict[str, object] = {"batch": [call] * n_events}
        headers = {"x-forwarded-for": heard} if heard else {}
        if where == "header":
            headers["authorization"] = "Basic " + base64.b64encode(f"{key}:".encode()).decode()
        else:
            body["writeKey"] = key

        return self._sent(json.dumps(body).encode(), headers, address)

    def post(self, body: bytes, encoding: str = "", key: str = "") -> int:
        """A body as it is, packed as is said; the status of the answer."""
        headers = {"content-encoding": encoding, **({"authorization": f"Bearer {key}"} if key else {})}
        return self._sent(body, headers, "192.0.2.1").status_code

    def _sent(self, body: bytes, headers: dict[str, str], address: str) -> httpx.Response:
        async def sent() -> httpx.Response:
            async def content() -> Any:
                self.n_read += 1
                yield body

            transport = httpx.ASGITransport(self.app, client=(address, 4711))
            async with httpx.AsyncClient(transport=transport, base_url="http://hetki") as client:
                return await client.post("/v1/batch", content=content(), headers=headers)

        return asyncio.run(sent())

    def move(self, seconds: float) -> None:
        self.clock.move(self.clock.now() + round(seconds * SECOND))

    @property
    def n_events(self) -> int:
        return sum(len(each.events) for each in self.bodies)


@pytest.fixture
def doors() -> Iterator[list[Door]]:
    opened: list[Door] = []
    yield opened
    for each in opened:
        each.committer.stop()


def opened(doors: list[Door], **server: Any) -> Door:
    doors.append(Door(**server))
    return doors[-1]


def test_a_key_beyond_its_rate_is_told_when_to_come_back(doors: list[Door]) -> None:
    door = opened(doors, key_events_per_s=10)
    assert door.send("one", 30).status_code == 200
    assert door.send("one", 20).status_code == 200
    n_read = door.n_read
    refused = door.send("one", 1)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["code"] == "exhausted" and "too many events or bytes" in refused.json()["message"]
    assert door.send("other", 50).status_code == 200, "another key has a rate of its own"
    door.move(1)
    refused = door.send("one", 40)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")
    assert door.send("one", 10).status_code == 200, "what was refused took nothing"
    assert door.n_read == n_read + 3, "one that can take nothing is refused before its body is read"
    door.move(3)
    assert door.send("one", 30).status_code == 200
    assert door.n_events == 140


def test_bytes_are_counted_too_and_a_body_is_taken_whole_or_not(doors: list[Door]) -> None:
    door = opened(doors, key_bytes_per_s=1_000, key_events_per_s=100)
    size = len(json.dumps({"batch": [{"type": "track", "event": "Help Searched", "userId": "u"}] * 70}))
    assert 4_000 < size <= 5_000
    assert door.send("one", 70).status_code == 200
    for _ in range(20):
        assert door.send("one", 70).status_code == 429
    door.move(5)
    assert door.send("one", 70).status_code == 200, "of the events nothing was taken by what was refused"


def test_an_address_has_a_rate_over_all_its_keys(doors: list[Door]) -> None:
    door = opened(doors, address_events_per_s=10)
    assert door.send("one", 40).status_code == 200
    assert door.send("other", 20).status_code == 429
    assert door.send("other", 20, "192.0.2.2").status_code == 200
    assert door.send("other", 20, "::ffff:192.0.2.1").status_code == 429
    assert door.send("other", 50, "2001:db8::1").status_code == 200
    assert door.send("other", 1, "2001:db8::2").status_code == 429, "who has one address has its whole half"
    assert door.send("other", 50, "2001:db8:0:1::1").status_code == 200


@pytest.mark.parametrize("where", ["header", "body"])
def test_an_address_without_a_valid_key_is_held_low_and_valid_keys_pass(
    doors: list[Door], where: str
) -> None:
    door = opened(doors, refused_per_s=2)
    answers = [door.send(f"guess-{number}", where=where) for number in range(20)]
    assert [each.status_code for each in answers] == [401] * 10 + [429] * 10
    assert {each.headers.get("retry-after") for each in answers[10:]} == {"1"}
    assert door.send("one").status_code == 200, "neighbours with a key of their own are let in"
    n_read = door.n_read
    assert door.send("one", where="body").status_code == 429 and door.n_read == n_read
    assert door.send("guess", address="192.0.2.2", where=where).status_code == 401
    door.move(1)
    assert [door.send("guess", where=where).status_code for _ in range(3)] == [401, 401, 429]
    door.move(1)
    assert door.send("one", where="body").status_code == 200


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("br", b"{}", 400),
        ("gzip", b"no gzip", 400),
        ("gzip", gzip.compress(b" " * (Limits().inflated_bytes_max + 1)), 413),
        ("", b" " * (Limits().body_bytes_max + 1), 413),
    ],
)
def test_what_has_no_valid_key_is_held_low_however_it_is_refused(
    doors: list[Door], encoding: str, body: bytes, status: int
) -> None:
    """Else a sender without a key could have as much unpacked as it likes."""
    door = opened(doors, refused_per_s=1)
    assert [door.post(body, encoding) for _ in range(8)] == [status] * 5 + [429] * 3
    assert [door.post(body, encoding, "one") for _ in range(8)] == [status] * 8, "with a key it is its own"
    door.move(5)
    known = b'{"writeKey": "one", "batch": 7}'
    assert [door.post(known) for _ in range(8)] == [400] * 8, "a key in the body is one"


def test_an_address_of_ones_own_making_has_no_rate_of_its_own(doors: list[Door]) -> None:
    door = opened(doors, refused_per_s=1, proxies=["10.0.0.1"])
    spoofed = [door.send("guess", heard=f"198.51.100.{number}") for number in range(8)]
    assert [each.status_code for each in spoofed] == [401] * 5 + [429] * 3
    heard = [door.send("guess", address="10.0.0.1", heard=f"{n}.2.3.4, 203.0.113.9") for n in range(8)]
    assert [each.status_code for each in heard] == [401] * 5 + [429] * 3
    other = door.send("guess", address="10.0.0.1", heard="203.0.113.9, 203.0.113.10")
    assert other.status_code == 401


def test_uvicorn_believes_no_variable_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    config = serve._config("127.0.0.1", Connections(), Server())

    async def app(scope: object, receive: object, send: object) -> None: ...

    config.app = app  # type: ignore[assignment]
    config.load()
    assert config.loaded_app is app, "nothing of uvicorn's stands before us"


# -- signing in


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "MEMORY_KIB", 8)
        patch.setattr(passwords, "PASSES", 1)
        house = House(tmp_path_factory.mktemp("rates"))
        house.signed_in("Sami", "admin")
        yield house


def entering(house: House) -> tuple[SimulatedClock, Any]:
    """A clock, and a function that tries to enter and says the status and when to come back."""
    server = Server(proxies=["127.0.0.1"])
    clock = SimulatedClock(0)
    app = console_app(house.engine, house.access, rates=Rates(server, clock.now))
    proxied = console_app(_behind(house, server), house.access, rates=Rates(server, clock.now))

    def enter(name: str, address: str = "", token: str = "") -> tuple[int, str | None]:
        headers = {"content-type": FORM_TYPE, "x-forwarded-for": address}
        what = proxied if address else app
        form = str(httpx.QueryParams({"name": name, "password": PASSWORD if name == "sami" else "no"}))
        method = "GET" if token else "POST"
        answer = ask(what, f"/sign-in?token={token}" if token else "/sign-in", "", method, form, headers)
        return answer.status_code, answer.headers.get("retry-after")

    return clock, enter


def _behind(house: House, server: Server) -> Any:

    return replace(house.engine, project=replace(house.engine.project, server=server))


def test_a_name_can_be_tried_a_few_times_whether_it_is_known_or_not(house: House) -> None:
    clock, enter = entering(house)
    for name in ("Bertta", "nobody"):
        tried = [enter(name, f"192.0.2.{number}") for number in range(SIGN_INS_OF_NAME + 2)]
        assert tried == [(401, None)] * SIGN_INS_OF_NAME + [(429, str(SIGN_IN_OF_NAME_S))] * 2
        assert enter(name.upper(), "192.0.2.99")[0] == 429, "however it is written"
    assert enter("sami", "192.0.2.1") == (303, None), "another name is not held up"
    clock.move(SIGN_IN_OF_NAME_S * SECOND)
    assert [enter("Bertta", "192.0.2.1")[0] for _ in range(2)] == [401, 429]


def test_an_address_can_try_a_few_names_and_tokens_and_uses_up_nobodys(house: House) -> None:
    clock, enter = entering(house)
    tried = [enter(f"name {number}", "192.0.2.1")[0] for number in range(SIGN_INS_OF_ADDRESS - 5)]
    tried += [enter("", "192.0.2.1", f"{number}")[0] for number in range(5)]
    assert tried == [401] * SIGN_INS_OF_ADDRESS
    for _ in range(SIGN_INS_OF_NAME + 1):
        assert enter("sami", "192.0.2.1") == (429, "2")
    token = house.access.new_token()
    assert enter("", "192.0.2.1", token)[0] == 429
    assert enter("sami", "192.0.2.2")[0] == 303, "the attempts of another address did not count for the name"
    assert enter("", "192.0.2.2", token)[0] == 303, "nor was the token used up"
    clock.move(2 * SECOND)
    assert enter("sami", "192.0.2.1")[0] == 303


# -- what is declared


@pytest.mark.parametrize(
    ("lines", "must"),
    [
        ("refused_per_s = 0", "must be at least 1."),
        ("key_events_per_s = 999", "must be at least 1000. Hint: what is allowed in one request"),
        ("address_events_per_s = -1", "must be at least 1000."),
        ("key_bytes_per_s = 1000", "must be at least 3355444."),
        ("address_bytes_per_s = 3355443", "must be at least 3355444."),
        ("key_events_per_s = 1.5", "hetki.toml:"),
    ],
)
def test_a_rate_into_which_a_request_cannot_fit_is_a_fault(lines: str, must: str) -> None:
    disk = MemoryDisk()
    for path, text in skeleton().items():
        disk.write(path, text.encode())
    disk.write("hetki.toml", disk.read("hetki.toml") + b"\n[server]\n" + lines.encode())
    with pytest.raises(Invalid) as found:
        load(disk)
    assert len(found.value.faults) == 1 and must in str(found.value)
