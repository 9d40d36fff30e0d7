"""Slow, silent, endless and crowding senders, by raw sockets against the true server: none holds it up."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from serving import Command, Warm, eventually, post
from test_serve import FILES

from hetki.engine.advance import advance
from hetki.engine.engine import open_folder
from hetki.server import serve
from hetki.server.site import known_as
from hetki.settings import Connections, Server

TOML = """
[hetki.connections]
connections_max = 300
per_address_max = 100
head_s = 1
body_s = 2
idle_s = 2
answer_s = 2
head_bytes_max = 4096
address_bytes_max = 1024
headers_max = 20
"""
HEAD = "POST /v1/batch HTTP/1.1\r\nhost: x\r\n"
#: Addresses of this machine that speak for nobody but themselves.
STRANGER, OTHERS = "127.0.0.2", [f"127.0.1.{n}" for n in range(1, 21)]

Address = tuple[str, int]


def track(message_id: str) -> bytes:
    call = {"type": "track", "event": "Help Viewed", "userId": "u1", "messageId": message_id}
    return json.dumps({"batch": [call], "writeKey": "key-web"}).encode()


def request(body: bytes) -> bytes:
    return f"{HEAD}content-length: {len(body)}\r\n\r\n".encode() + body


class Served:
    """One server with tight bounds, the events it has acknowledged, and its open files."""

    def __init__(self, folder: Path, command: Command) -> None:
        self.folder = folder
        self.command = command
        self.address = command.address()
        self.sent: set[str] = set()
        assert self.says("first") == 200
        self.n_files = self.files()

    def says(self, message_id: str) -> int:
        status, _ = post(self.address, "/v1/batch", track(message_id))
        if status == 200:
            self.sent.add(message_id)
        return status

    def files(self) -> int:
        """Open sockets; databases are opened by whichever thread asks them first."""
        found = 0
        for each in Path(f"/proc/{self.command.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found += os.readlink(each).startswith("socket:")
        return found

    def is_quiet(self) -> bool:
        """Whether every connection has gone."""
        return self.files() <= self.n_files


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    if not Path("/proc/self/fd").exists():
        pytest.skip("without /proc it is not known which files are open")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_files = min(max(soft, 8_000), hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_files, hard))
    found = Warm(tmp_path_factory.mktemp("out"), bounds={resource.RLIMIT_NOFILE: n_files})
    yield found
    found.stop()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, warm: Warm) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("door")
    for name, text in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + (TOML if name == "hetki.toml" else ""))
    found = Served(folder, warm.start("serve", "--port", "0", "-C", str(folder)))
    yield found
    found.command.kill()


# -- what a sender may do ------------------------------------------------------------------------------


@asynccontextmanager
async def connected(
    address: Address, own: str = "127.0.0.1"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*address, local_addr=(own, 0))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def trickled(address: Address, opening: bytes, drop: bytes) -> bytes:
    """Send an opening, then a drop now and then; return what comes back until the connection ends."""
    async with connected(address) as (reader, writer):
        answer = asyncio.ensure_future(reader.read())
        with suppress(ConnectionError):
            writer.write(opening)
            while drop and not answer.done():
                writer.write(drop)
                await writer.drain()
                await asyncio.wait([answer], timeout=0.1)
        with suppress(ConnectionError):
            return await asyncio.wait_for(answer, 30)
        return b""


async def never_read(address: Address) -> bytes:
    """Ask again and again, and read no answer, until the connection ends."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    line.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(line, address)
    asked = b"GET /style.css HTTP/1.1\r\nhost: x\r\n\r\n"
    try:
        while True:
            await asyncio.wait_for(loop.sock_sendall(line, asked), 30)
            await asyncio.sleep(0)
    except ConnectionError:
        return b""
    finally:
        line.close()


SLOW: dict[str, Callable[[Address], Awaitable[bytes]]] = {
    "nothing at all": lambda to: trickled(to, b"", b""),
    "half a line": lambda to: trickled(to, b"POST /v1/ba", b""),
    "a head that never ends": lambda to: trickled(to, HEAD.encode(), b"x-a: b\r\n"),
    "a header that never ends": lambda to: trickled(to, HEAD.encode() + b"x-a: ", b"b"),
    "a body that stops": lambda to: trickled(to, request(track("stops"))[:-9], b""),
    "a body, byte by byte": lambda to: trickled(to, f"{HEAD}content-length: 9999\r\n\r\n".encode(), b"x"),
    "chunks, byte by byte": lambda to: trickled(
        to, f"{HEAD}transfer-encoding: chunked\r\n\r\n".encode(), b"1\r\n{\r\n"
    ),
    "a form, byte by byte": lambda to: trickled(
        to, b"POST /sign-out HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n", b"x"
    ),
    "a body behind its answer": lambda to: trickled(
        to, b"POST /v1/nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\n\r\n", b"x"
    ),
    "nothing after an answer": lambda to: trickled(to, b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n", b""),
    "answers that nobody reads": never_read,
}
#: What they are told, where HTTP lets them be told anything.
TOLD = {
    "a head that never ends": b"HTTP/1.1 4",
    "a header that never ends": b"HTTP/1.1 408 ",
    "half a line": b"HTTP/1.1 408 ",
    "a body that stops": b"HTTP/1.1 408 ",
    "a body, byte by byte": b"HTTP/1.1 408 ",
    "chunks, byte by byte": b"HTTP/1.1 408 ",
    "a form, byte by byte": b"HTTP/1.1 303 ",
    "a body behind its answer": b"HTTP/1.1 404 ",
    "nothing after an answer": b"HTTP/1.1 200 ",
    "nothing at all": b"",
}


def test_slow_and_silent_senders_are_told_and_end_while_others_are_served(served: Served) -> None:
    async def story() -> dict[str, list[bytes]]:
        slow = {
            name: [asyncio.ensure_future(each(served.address)) for _ in range(8)]
            for name, each in SLOW.items()
        }
        waiting = [each for group in slow.values() for each in group]
        n_served = 0
        while not all(each.done() for each in waiting):
            n_served += 1
            assert await asyncio.to_thread(served.says, f"meanwhile {n_served}") == 200
            await asyncio.wait(waiting, timeout=0.1)
        assert n_served > 3
        return {name: [each.result() for each in group] for name, group in slow.items()}

    answers = asyncio.run(story())
    for name, told in TOLD.items():
        assert all(answer.startswith(told) for answer in answers[name]), (name, answers[name])
        assert all(answer.count(b"HTTP/1.1") == bool(told) for answer in answers[name]), name
    eventually("every connection closed", served.is_quiet)


def test_two_thousand_idle_connections_take_nobodys_place(served: Served) -> None:
    """From one address, then from many, of which each keeps to its own bound."""

    async def story(own: list[str], n_max: int) -> None:
        lines = []
        for n in range(2_000):
            line = socket.socket()
            lines.append(line)
            line.setblocking(False)
            line.bind((own[n % len(own)], 0))
            with suppress(ConnectionError):
                await asyncio.get_running_loop().sock_connect(line, served.address)
            if n % 200 == 0:
                assert await asyncio.to_thread(served.says, f"beside {own[0]} {n}") == 200
        assert await asyncio.to_thread(served.says, f"beside all of {own[0]}") == 200
        held = served.n_files + n_max  # once the server has seen that the honest sender has gone
        await asyncio.to_thread(eventually, "no more than have a place", lambda: served.files() <= held)
        for line in lines:
            line.close()

    asyncio.run(story([STRANGER], 100))
    asyncio.run(story(OTHERS, 300))
    eventually("every connection closed", served.is_quiet)


def test_who_finds_no_place_is_told_when_to_come_back(served: Served) -> None:
    """While the journal is held up, every connection is one that we are working for."""
    journal = sqlite3.connect(served.folder / "data/journal.db", isolation_level=None)
    own = [STRANGER, *OTHERS[:2]]

    async def one(own: str, message_id: str, asked: asyncio.Semaphore | None = None) -> bytes:
        async with connected(served.address, own) as (reader, writer):
            writer.write(request(track(message_id)))
            if asked is not None:
                asked.release()
            return await asyncio.wait_for(reader.read(4_096), 30)

    async def crowd(names: dict[str, str]) -> list[asyncio.Future[bytes]]:
        """Requests that the server has read, and cannot answer."""
        asked = asyncio.Semaphore(0)
        found = [asyncio.ensure_future(one(own, name, asked)) for name, own in names.items()]
        for _ in found:
            await asked.acquire()
        async with connected(served.address) as (reader, writer):  # comes behind them
            writer.write(b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await reader.read(100)).startswith(b"HTTP/1.1 200 ")
        return found

    async def story() -> tuple[bytes, bytes, list[bytes]]:
        journal.execute("BEGIN IMMEDIATE")
        try:
            first = await crowd({f"crowd {n}": own[0] for n in range(100)})
            too_many_of_one = await one(own[0], "one too many")
            more = await crowd({f"crowd {n}": own[1 + n % 2] for n in range(100, 299)})
            too_many = b""
            while not too_many.startswith(b"HTTP/1.1 503 "):  # one more is let in, and then nobody
                newcomer = asyncio.ensure_future(one(OTHERS[4], "crowd 299"))
                done, _ = await asyncio.wait([newcomer], timeout=0.5)
                too_many = newcomer.result() if done else b""
                more += [] if done else [newcomer]
        finally:
            journal.close()
        return too_many_of_one, too_many, [await each for each in first + more]

    too_many_of_one, too_many, answers = asyncio.run(story())
    for answer, status, code in ((too_many_of_one, 429, "exhausted"), (too_many, 503, "unavailable")):
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()) and b"retry-after: 1\r\n" in answer, answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == code
    assert [answer for answer in answers if not answer.startswith(b"HTTP/1.1 200 ")] == []
    served.sent |= {f"crowd {n}" for n in range(300)}
    eventually("every connection closed", served.is_quiet)


CHUNKED = f"{HEAD}transfer-encoding: chunked\r\n\r\n"
REFUSED: dict[str, tuple[bytes, int]] = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 4 + b"\r\n\r\n", 400),
    "a long address": (b"GET /" + b"a" * 2_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414),
    "many headers": ((HEAD + "a: b\r\n" * 30 + "\r\n").encode(), 431),
    "a large header": ((HEAD + "a: " + "b" * 5_000 + "\r\n\r\n").encode(), 431),
    "a header without end": ((HEAD + "a: ").encode() + b"b" * 300_000, 431),
    "empty lines without end": (b"\r\n" * 100_000, 431),
    "large trailers": ((CHUNKED + "0\r\n" + "a: b\r\n" * 30 + "\r\n").encode(), 431),
    "chunks of one byte": ((CHUNKED + "1\r\nx\r\n" * 50_000).encode(), 431),
    "a chunk's extension": ((CHUNKED + "1;").encode() + b"x" * 300_000, 431),
    "two lengths": ((HEAD + "content-length: 1\r\ncontent-length: 2\r\n\r\nxx").encode(), 400),
    "a length and chunks": ((CHUNKED[:-2] + "content-length: 1\r\n\r\n0\r\n\r\n").encode(), 400),
    "a length that is none": ((HEAD + "content-length: -1\r\n\r\n").encode(), 400),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_too_large_or_no_http_is_refused_in_our_words(served: Served, name: str) -> None:
    asked, status = REFUSED[name]

    async def story() -> bytes:
        async with connected(served.address) as (reader, writer):
            writer.write(asked)
            return await asyncio.wait_for(reader.read(), 30)

    answer = asyncio.run(story())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()) and b"connection: close" in head, answer
    assert set(json.loads(body)) == {"code", "message"} and "must be" in json.loads(body)["message"]
    assert served.says(f"after {name}") == 200


def test_what_follows_a_body_is_no_header(served: Served) -> None:
    """Proxies check and add headers, and pass on what follows a body as it came: an address, a key."""
    body = track("trailer").replace(b"key-web", b"nobody")

    async def story(trailer: str) -> bytes:
        async with connected(served.address) as (reader, writer):
            writer.write(f"{CHUNKED}{len(body):x}\r\n".encode() + body + f"\r\n0\r\n{trailer}\r\n".encode())
            return await asyncio.wait_for(reader.read(4_096), 30)

    assert asyncio.run(story("")).startswith(b"HTTP/1.1 401 ")
    assert asyncio.run(story("authorization: Bearer key-web\r\n")).startswith(b"HTTP/1.1 401 ")


def test_of_requests_sent_at_once_each_has_its_own_headers(served: Served) -> None:
    body = track("whose").replace(b"key-web", b"nobody")
    keys = ["key-web", "nobody", "key-web"]
    sent = [request(body).replace(b"host: x", f"authorization: Bearer {each}".encode()) for each in keys]

    async def story() -> bytes:
        async with connected(served.address) as (reader, writer):
            writer.write(b"".join(sent))
            answer = b""
            while answer.count(b"HTTP/1.1") < 3 and (more := await asyncio.wait_for(reader.read(9_999), 30)):
                answer += more
            return answer

    assert [part[:4] for part in asyncio.run(story()).split(b"HTTP/1.1 ")[1:]] == [b"200 ", b"401 ", b"200 "]
    served.sent.add("whose")


def test_a_sender_that_is_refused_early_may_send_on_and_reads_why(served: Served) -> None:
    """A body beyond its bound is refused at its first byte; the rest of it does not take the answer back."""

    async def story() -> bytes:
        async with connected(served.address) as (reader, writer):
            writer.write(f"{HEAD}content-length: 50000000\r\n\r\n".encode())
            answer = asyncio.ensure_future(reader.read())
            with suppress(ConnectionError):
                for _ in range(20):
                    writer.write(b"x" * 10_000)
                    await writer.drain()
                    await asyncio.sleep(0.01)
            return await asyncio.wait_for(answer, 30)

    assert asyncio.run(story()).startswith(b"HTTP/1.1 413 ")


def test_requests_sent_at_once_are_answered_in_order_up_to_a_bound(served: Served) -> None:
    async def story(n: int) -> bytes:
        async with connected(served.address) as (reader, writer):
            writer.write(b"".join(request(track(f"line {i}")) for i in range(n)))
            answer = b""
            while answer.count(b"HTTP/1.1") < n and (more := await asyncio.wait_for(reader.read(9_999), 30)):
                answer += more
            return answer

    assert asyncio.run(story(10)).count(b"HTTP/1.1 200 ") == 10
    many = asyncio.run(story(3_000))
    n_answered = many.count(b"HTTP/1.1 200 ")
    assert 10 < n_answered < 100 and many.count(b"HTTP/1.1") == n_answered, "then it ends, in between answers"
    assert many.rpartition(b"HTTP/1.1 200 ")[2].count(b"connection: close") == 1
    served.sent |= {f"line {i}" for i in range(max(10, n_answered))}


def test_half_closed_and_upgraded_connections_end(served: Served) -> None:
    async def story() -> tuple[bytes, bytes]:
        async with connected(served.address) as (reader, writer):
            writer.write(request(track("half"))[:-3])
            writer.write_eof()
            half = await asyncio.wait_for(reader.read(), 30)
        async with connected(served.address) as (reader, writer):
            writer.write(
                b"GET /v1/health HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nrest"
            )
            return half, await asyncio.wait_for(reader.read(), 30)

    half, upgraded = asyncio.run(story())
    assert half == b"" and upgraded.startswith(b"HTTP/1.1 200 ") and b"connection: close" in upgraded


def test_nothing_was_lost_and_nothing_failed_meanwhile(served: Served) -> None:
    """Runs last: what was acknowledged is folded, what never came whole is not, and the log has no trace."""
    assert asyncio.run(SLOW["half a line"](served.address)).startswith(TOLD["half a line"])
    eventually("refusals that are told", lambda: "refused" in served.command.text())
    eventually("every connection closed", served.is_quiet)
    served.command.kill()
    engine = open_folder(str(served.folder))
    advance(engine)
    assert engine.state.counts()["events"] == len(served.sent)
    told = served.command.text()
    assert "Traceback" not in told, told
    assert len(told.splitlines()) < 20, "refusals are counted, not told one by one"


def test_deadlines_are_looked_at_also_when_the_clock_of_the_machine_is_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[float] = []
    config = serve._config("", Connections(), Server())

    async def look() -> None:
        looked.append(time.time())

    async def seconds() -> None:
        for at in (2e9, 1e9, 1e9):
            monkeypatch.setattr(time, "time", lambda at=at: at)
            await server.on_tick(0)

    config.callback_notify = look
    server = serve.uvicorn.Server(config)
    asyncio.run(seconds())
    assert looked == [2e9, 1e9, 1e9]


def test_known_as_one_sender() -> None:
    assert known_as("2001:db8:0:1:2::3") == known_as("2001:db8:0:1:ffff::") != known_as("2001:db8:0:2::3")
    assert known_as("fe80::1%eth0") == known_as("fe80::2%eth0")
