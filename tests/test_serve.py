"""The true server: real clients, bad input, repair, a full disk, and how it ends and refuses to begin."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import rudderstack.analytics.client
import segment.analytics.client
from keyed import entry
from serving import Command, Warm, eventually, is_alive, post
from test_real_clients import CLIENTS, N_TRACKS, send_all

from hetki.engine.advance import advance
from hetki.engine.engine import Engine, open_folder
from hetki.engine.folding import read_event
from hetki.engine.rebuilding import rebuild
from hetki.events.event import Event
from hetki.store.journal import Kind
from hetki.store.system import SystemDisk

FAULT = re.compile(r"^\S.*: got .+, must be .+\.$", re.DOTALL)
FILES = {
    "hetki.toml": """
[hetki]
name = "Served"
lateness_s = 1
[hetki.limits]
body_bytes_max = 200_000
[purposes.service]
title = "What you came for"
basis = "contract"
[destinations.app]
kind = "webhook"
url = "http://127.0.0.1:9/messages"
inside = ["localhost"]
secret = "env:NOT_SET"
""",
    "initiatives/help.yaml": "initiative: help\ntitle: h\nowner: t\nhorizon: mainstream\n",
    "actions/call.yaml": (
        "action: call\ntitle: c\npurpose: service\ndestination: app\ntemplate: call\nvalue: {customer: 4}\n"
    ),
    "templates/call.liquid": "Hello.",
    "moments/viewed.yaml": """
moment: viewed
title: v
owner: t
initiative: help
purpose: service
identify: {need: "?", steps: [viewed: Help Viewed], expires: 1 day}
design: {answers: [call]}
analyse: {solved: no Contact Started within 24 hours, holdout: 0%}
""",
}
SOURCE = "source: NAME\nchannel: web\nwrite_keys: [KEY]\npurposes: [service]\n"
FILES |= {
    f"sources/{name}.yaml": SOURCE.replace("NAME", name).replace("KEY", entry(f"key-{name}"))
    for name in ("web", "segment", "rudder", "node")
}


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    if not Path("/proc/self/stat").exists():
        pytest.skip("without /proc it is not known which processes run")
    found = Warm(tmp_path_factory.mktemp("out"))
    yield found
    found.stop()


class House:
    """One project and the processes that serve it."""

    def __init__(self, folder: Path, warm: Warm) -> None:
        self.folder = folder / "project"
        self.warm = warm
        self.commands: list[Command] = []
        for name, text in FILES.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    def hetki(self, *words: str, bytes_max: int = -1) -> Command:
        command = self.warm.start(*words, "-C", str(self.folder), bytes_max=bytes_max)
        self.commands.append(command)
        return command

    def serve(self, *words: str) -> Command:
        return self.hetki("serve", "--port", "0", *words)

    def ended(self, *words: str) -> str:
        """What a command that ends well says."""
        command = self.hetki(*words)
        assert command.wait() == 0, command.text()
        return command.text()

    def stop(self) -> None:
        for command in self.commands:
            command.kill()

    def opened(self) -> Engine:
        engine = open_folder(str(self.folder))
        advance(engine)
        return engine


@pytest.fixture
def house(tmp_path: Path, warm: Warm) -> Iterator[House]:
    found = House(tmp_path, warm)
    yield found
    found.stop()


def batch(*events: dict[str, object], key: str = "key-web") -> bytes:
    return json.dumps({"batch": events, "writeKey": key}).encode()


def event(message_id: str, **more: object) -> dict[str, object]:
    return {"type": "track", "event": "Help Viewed", "userId": "u1", "messageId": message_id, **more}


def events(engine: Engine) -> list[Event]:
    """What lies in the journal, of every source but our own, repeats too."""
    stored = [each for each in engine.journal.read(0, 10**9) if each.kind is Kind.EVENT]
    found = [read_event(each) for each in stored]
    return [each for each in found if each is not None and each.source != "hetki"]


# -- real clients


def by_segment(address: str) -> None:
    failed: list[object] = []
    client = segment.analytics.client.Client(
        "key-segment",
        host=address,
        gzip=True,
        max_retries=40,
        on_error=lambda error, batch: failed.append(error),
    )
    send_all(client)
    assert failed == []


def by_rudder(address: str) -> None:
    failed: list[object] = []
    client = rudderstack.analytics.client.Client(
        "key-rudder", host=address, max_retries=40, on_error=lambda error, batch: failed.append(error)
    )
    send_all(client)
    assert failed == []


def by_node(address: str) -> None:
    node = shutil.which("node")
    if node is None or not (CLIENTS / "node_modules" / "@segment" / "analytics-node").exists():
        pytest.skip("node or tests/clients/node_modules is absent: run npm ci in tests/clients")
    words = [node, "segment_node.mjs", address, "key-node", str(N_TRACKS)]
    ran = subprocess.run(words, cwd=CLIENTS, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {"errors": []}


@pytest.mark.parametrize(
    ("name", "send"), [("segment", by_segment), ("rudder", by_rudder), ("node", by_node)]
)
def test_a_real_client_loses_nothing_when_the_server_is_killed_and_comes_back(
    house: House, monkeypatch: pytest.MonkeyPatch, name: str, send: Callable[[str], None]
) -> None:
    """The client begins while nobody listens; a server takes its first batch, is killed, and comes back."""
    monkeypatch.setattr("backoff._jitter.random", SimpleNamespace(uniform=lambda least, most: min(most, 0.5)))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    failed: list[BaseException] = []

    def sending() -> None:
        try:
            send(f"http://127.0.0.1:{port}")
        except BaseException as error:
            failed.append(error)

    sender = threading.Thread(target=sending)
    sender.start()
    first = house.hetki("serve", "--port", str(port))
    first.address()
    journal = SystemDisk(house.folder / "data").connect("journal.db")
    eventually("a first batch", lambda: bool(journal.execute("SELECT 1 FROM journal").fetchone() or failed))
    journal.close()
    first.kill()
    house.hetki("serve", "--port", str(port)).address()
    sender.join()
    if failed:
        raise failed[0]
    house.stop()
    engine = house.opened()
    found = events(engine)
    assert {each.source for each in found} == {name}
    once = {each.message_id: each for each in found}
    assert Counter(each.name for each in once.values()) == {
        "Order Completed": N_TRACKS,
        "Customer Identified": 1,
        "Customer Aliased": 1,
        "Account Joined": 1,
        "Page Viewed": 1,
        "Screen Viewed": 1,
    }
    assert engine.state.counts()["events"] == len(once) == N_TRACKS + 5
    assert "rejected" not in engine.state.counts() and house.ended("rejected") == "0 rejected\n"


# -- bad input


def nested(depth: int) -> object:
    return nested(depth - 1) if depth == 1 else {"a": nested(depth - 1)} if depth else 1


REFUSED: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "broken JSON": (b'{"writeKey": "key-web", "batch": [', {}, 400, "invalid"),
    "no JSON at all": (b"\x00\xff\x00", {}, 401, "forbidden"),
    "a number for a body": (b"7", {}, 401, "forbidden"),
    "a batch that is text": (b'{"batch": "x", "writeKey": "key-web"}', {}, 400, "invalid"),
    "no batch": (b'{"writeKey": "key-web"}', {}, 400, "invalid"),
    "a wrong key": (batch(event("x"), key="key-wrong"), {}, 401, "forbidden"),
    "no key": (b'{"batch": []}', {}, 401, "forbidden"),
    "a key that is no base64": (batch(event("x")), {"authorization": "Basic !"}, 401, "forbidden"),
    "too large": (batch(event("x", properties={"a": "b" * 300_000})), {}, 413, "exhausted"),
    "not gzip": (batch(event("x")), {"content-encoding": "gzip"}, 400, "invalid"),
    "another encoding": (batch(event("x")), {"content-encoding": "br"}, 400, "invalid"),
}
#: What is wrong with one event, and what is said of it; the rest of its batch is kept.
REJECTED: dict[str, tuple[dict[str, object], str]] = {
    "a type that is none": ({"type": "trak"}, "did you mean 'track'"),
    "a number for a name": ({"event": 7}, "event"),
    "a list for properties": ({"properties": [1]}, "properties"),
    "text for a context": ({"context": "x"}, "context"),
    "nobody": ({"userId": ""}, "userId"),
    "a huge number": ({"properties": {"n": 10**400}}, "number"),
    "a wide number": ({"properties": {"n": 2**64}}, "64 bits"),
    "NUL": ({"properties": {"query": "a\0b"}}, "NUL"),
    "depth": ({"properties": nested(40)}, "deep"),
    "size": ({"properties": {"a": "b" * 40_000}}, "bytes"),
    "many keys": ({"properties": {str(n): n for n in range(2_000)}}, "keys"),
    "a time in 1900": ({"timestamp": "1900-01-01T00:00:00Z"}, "1970 or later"),
    "a time in 2200": ({"timestamp": "2200-01-01T00:00:00Z"}, "sender's clock"),
    "no time at all": ({"timestamp": "soon"}, "ISO 8601"),
    "a long id": ({"messageId": "x" * 200}, "messageId"),
}


def test_bad_input_is_refused_in_our_words_and_harms_nothing(house: House) -> None:
    address = house.serve().address()
    assert post(address, "/v1/batch", batch(event("first")))[0] == 200
    for name, (body, headers, status, code) in REFUSED.items():
        got, answer = post(address, "/v1/batch", body, headers)
        assert (name, got, answer["code"]) == (name, status, code)
        assert FAULT.match(str(answer["message"])), answer
    for name, (wrong, _) in REJECTED.items():
        around = [event(f"{name} before"), {**event(name), **wrong}, event(f"{name} after")]
        assert post(address, "/v1/batch", batch(*around)) == (200, {"success": True, "n_rejected": 1}), name
    unknown = event("unknown fields", colour="blue", properties={"no_such_field": 1})
    assert post(address, "/v1/batch", batch(unknown)) == (200, {"success": True, "n_rejected": 0})
    halfway(address)
    assert post(address, "/v1/batch", batch(event("last")))[0] == 200
    house.stop()
    engine = house.opened()
    wanted = {f"{name} {where}" for name in REJECTED for where in ("before", "after")}
    assert {each.message_id for each in events(engine)} == {"first", "last", "unknown fields", *wanted}
    assert engine.journal.verify() > 0 and (again := rebuild(engine)).before == again.after
    *lines, total = house.ended("rejected").splitlines()
    assert total.startswith(f"{len(REJECTED)} rejected")
    for name, (_, says) in REJECTED.items():
        assert any(says in line and FAULT.match(line) for line in lines), name


def halfway(address: tuple[str, int]) -> None:
    """A body that stops before its told end, and headers that do."""
    whole = batch(event("halfway"))
    head = f"POST /v1/batch HTTP/1.1\r\nhost: x\r\ncontent-length: {len(whole)}\r\n\r\n".encode()
    for told in (head + whole[:-5], head[:-5]):
        with socket.create_connection(address) as line:
            line.sendall(told)


def test_what_was_rejected_is_shown_mended_and_replayed_beside_the_running_server(house: House) -> None:
    address = house.serve().address()
    wrong = event("mended", timestamp="soon", properties={"n_results": 3})
    assert post(address, "/v1/batch", batch(event("good"), wrong))[1] == {"success": True, "n_rejected": 1}
    listed: list[str] = []

    def is_listed() -> bool:
        listed[:] = house.ended("rejected").splitlines()
        return len(listed) == 2

    eventually("a rejected event that is listed", is_listed)
    rejected_id = listed[0].split()[0]
    shown = msgspec.json.decode(house.ended("rejected", "show", rejected_id))
    assert shown == wrong
    mended = house.folder.parent / "mended.json"
    mended.write_bytes(msgspec.json.encode({**shown, "timestamp": "2026-03-02T10:00:00Z"}))
    replayed = house.ended("rejected", "replay", rejected_id, "--with", str(mended))
    assert replayed == "1 accepted, 0 still rejected\n"
    assert house.ended("rejected") == "0 rejected\n"
    house.stop()
    engine = house.opened()
    found = {each.message_id: each for each in events(engine)}
    assert set(found) == {"good", "mended"}
    assert json.loads(found["mended"].properties) == {"n_results": 3}
    assert engine.state.counts()["events"] == 2


def test_a_running_server_takes_keys_up_and_lets_them_go(house: House) -> None:
    address = house.serve().address()
    assert post(address, "/v1/batch", batch(event("first")))[0] == 200
    file = house.folder / "sources/web.yaml"
    key = house.ended("key", "web", "--event", "Help Viewed").splitlines()[-1]
    both = file.read_text()

    def opens(key: str) -> bool:
        return post(address, "/v1/batch", batch(event("m"), key=key))[0] == 200

    eventually("a new key that opens", lambda: opens(key))
    assert opens("key-web")
    file.write_text(both.replace(f", {entry('key-web')}", ""))
    eventually("an old key that opens no more", lambda: not opens("key-web"))
    assert opens(key) and key not in file.read_text()
    other = post(address, "/v1/batch", batch(event("other", event="Order Completed"), key=key))
    assert other == (200, {"success": True, "n_rejected": 1})


# -- how it ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_it_ends_in_order_also_with_an_open_feed(house: House, number: signal.Signals) -> None:
    server = house.serve()
    address = server.address()
    worker = server.worker()
    token = re.search(r"sign-in\?token=([0-9a-f]+)", server.text())
    assert token is not None
    assert post(address, "/v1/batch", batch(event("kept")))[0] == 200
    connection = HTTPConnection(*address, timeout=30)
    connection.request("GET", f"/sign-in?token={token[1]}")
    answer = connection.getresponse()
    answer.read()
    cookie = str(answer.getheader("set-cookie")).partition(";")[0]
    assert answer.status == 303 and cookie
    connection.request("GET", "/feed", headers={"cookie": cookie})
    feed = connection.getresponse()
    assert feed.status == 200 and feed.readline().startswith(b"retry")
    if number == signal.SIGINT:
        os.killpg(server.pid, number)  # as a terminal does: the worker gets it, too
    else:
        server.signal(number)
    assert server.wait() == 0
    assert feed.read() is not None, "the feed ended like any answer"
    connection.close()
    eventually("the end of the worker", lambda: not is_alive(worker))
    assert len(server.text().splitlines()) == 1, server.text()
    assert [each.message_id for each in events(house.opened())] == ["kept"]


def test_a_second_server_is_refused_and_the_first_goes_on(house: House, tmp_path: Path) -> None:
    first = house.serve()
    host, port = first.address()
    second = house.serve()
    assert (second.wait(), second.text().count("\n")) == (4, 1)
    assert "got a server that runs already" in second.text()
    other = House(tmp_path / "other", house.warm)
    taken = other.hetki("serve", "--port", str(port))
    assert taken.wait() == 4
    assert taken.text() == (
        f"{host}:{port}: got address already in use, must be a free address of this machine."
        " Hint: name another with --port.\n"
    )
    assert post((host, port), "/v1/batch", batch(event("still")))[0] == 200
    first.kill()
    house.serve().address()  # a lock does not outlive its process


def test_started_cold_as_a_user_does(house: House) -> None:
    """`python -m hetki`, without anything loaded before."""
    words = [sys.executable, "-m", "hetki", "serve", "-C", str(house.folder), "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        found = re.match(r"Console: http://127\.0\.0\.1:(\d+)/sign-in", process.stdout.readline())
        assert found is not None
        assert post(("127.0.0.1", int(found[1])), "/v1/batch", batch(event("cold")))[0] == 200
        process.terminate()
        assert process.wait() == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


# -- a disk that gives no room


def test_a_full_disk_is_answered_503_and_takes_nothing_along(house: House) -> None:
    """No file of the server's process may grow for a while, then none of the worker's."""
    server = house.serve()
    address = server.address()
    assert post(address, "/v1/batch", batch(event("before")))[0] == 200
    kept = {"before", "after", "refused", "not yet folded"}
    full(server.pid)

    def is_full() -> bool:
        status, answer = post(address, "/v1/batch", batch(event(f"fits {len(kept)}")))
        if status == 200:
            kept.add(f"fits {len(kept)}")
            return False
        assert (status, answer["code"]) == (503, "unavailable") and FAULT.match(str(answer["message"]))
        return True

    eventually("a full disk", is_full)
    assert post(address, "/v1/batch", batch(event("refused")))[0] == 503
    with_room(server.pid)
    assert post(address, "/v1/batch", batch(event("after"), event("refused")))[0] == 200

    worker = server.worker()
    engine = open_folder(str(house.folder))
    eventually("what was accepted, folded", lambda: engine.state.counts().get("events") == len(kept) - 1)
    full(worker)
    assert post(address, "/v1/batch", batch(event("not yet folded")))[0] == 200
    eventually("a worker that complains", lambda: "loop=advance unavailable" in server.text())
    with_room(worker)
    eventually("the rest, folded", lambda: engine.state.counts().get("events") == len(kept))
    assert "Traceback" not in server.text()
    house.stop()
    assert engine.journal.verify() > 0 and (again := rebuild(engine)).before == again.after
    assert {each.message_id for each in events(engine)} == kept


MAP = """
import: help_desk
source: web
event: Help Viewed
occurred_at: at
user_id: customer
"""


def test_a_command_on_a_full_disk_says_so_and_goes_on_when_there_is_room(house: House) -> None:
    """At every size at which it may stop: while the stores are made, while it reads, and while it folds."""
    folder = house.folder.parent
    rows = "".join(f"2026-03-02T10:{n % 60:02}:00Z,u{n}\n" for n in range(4_000))
    (folder / "rows.csv").write_text("at,customer\n" + rows)
    (folder / "map.yaml").write_text(MAP)
    words = ("import", str(folder / "rows.csv"), "--map", str(folder / "map.yaml"))
    n_stopped = 0
    for kilobytes in (1, 30, 100, 400, 1_000):
        command = house.hetki(*words, bytes_max=kilobytes * 1_024)
        if command.wait():
            n_stopped += 1
            *_, last = command.text().splitlines()
            assert command.wait() == 7 and FAULT.match(last) and "Traceback" not in command.text()
    assert n_stopped > 2
    house.ended(*words)
    engine = house.opened()
    assert engine.state.counts()["events"] == 4_000 == len({each.message_id for each in events(engine)})
    assert engine.journal.verify() > 0 and (again := rebuild(engine)).before == again.after


def full(pid: int) -> None:
    """No file may grow beyond less than the stores have already, and more than what is logged."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (32 * 1024, resource.RLIM_INFINITY))


def with_room(pid: int) -> None:
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_data_folder_that_cannot_be_written_is_said_at_once(house: House) -> None:
    (house.folder / "data").write_text("a file where the folder should be")
    server = house.serve()
    assert server.wait() == 7
    assert FAULT.match(server.text().rstrip()) and "Traceback" not in server.text()


def test_a_running_server_follows_declarations_that_another_command_took_up(house: House) -> None:
    server = house.serve()
    address = server.address()
    assert post(address, "/v1/batch", batch(event("m1")))[0] == 200
    eventually("the first occurrence", lambda: "1 occurrences" in caught(house))
    moment = house.folder / "moments/viewed.yaml"
    moment.write_text(moment.read_text().replace("viewed: Help Viewed", "viewed: Help Searched"))
    house.ended("advance")
    assert post(address, "/v1/batch", batch(event("m2", event="Help Searched", userId="u2")))[0] == 200
    eventually("an occurrence of the new declarations", lambda: caught(house) == "1 occurrences: u2")
    assert house.ended("rebuild").count("the same as before") == 1
    assert server.runs()


def edited(house: House, was: str, now: str) -> None:
    """Another text in the moment's file."""
    moment = house.folder / "moments/viewed.yaml"
    text = moment.read_text()
    assert was in text
    moment.write_text(text.replace(was, now))


def test_an_edited_moment_answers_without_a_restart_of_anything(house: House) -> None:
    server = house.serve()
    address = server.address()
    worker = server.worker()
    assert post(address, "/v1/batch", batch(event("m1")))[0] == 200
    eventually("the first occurrence", lambda: caught(house) == "1 occurrences: u1")
    edited(house, "[viewed: Help Viewed]", "[viewed: Help Viewed or Help Searched]")
    eventually("the new declarations in force", lambda: "declarations=in force" in server.text())
    assert post(address, "/v1/batch", batch(event("m2", event="Help Searched", userId="u2")))[0] == 200
    eventually("an answer under the new declarations", lambda: caught(house) == "2 occurrences: u1, u2")
    assert server.runs() and server.worker() == worker
    assert decided(house) == 2, "each was answered once"
    assert "folder: what is in force" in house.ended("status")
    other = SOURCE.replace("NAME", "kiosk").replace("KEY", entry("key-kiosk"))
    (house.folder / "sources/kiosk.yaml").write_text(other)
    body = batch(event("m3", userId="u3"), key="key-kiosk")
    eventually("a way in for a new source", lambda: post(address, "/v1/batch", body)[0] == 200)
    eventually("its answer", lambda: caught(house) == "3 occurrences: u1, u2, u3")
    assert server.runs() and server.worker() == worker
    assert house.ended("rebuild").count("the same as before") == 1


def test_faulty_declarations_are_refused_and_those_in_force_go_on(house: House) -> None:
    server = house.serve()
    address = server.address()
    assert post(address, "/v1/batch", batch(event("m1")))[0] == 200
    eventually("the first occurrence", lambda: caught(house) == "1 occurrences: u1")
    edited(house, "Help Viewed", "Help Viewd")
    eventually("a fault", lambda: "declarations=refused fault=moments/viewed.yaml:" in server.text())
    assert post(address, "/v1/batch", batch(event("m2", userId="u2")))[0] == 200
    eventually("an answer as before", lambda: caught(house) == "2 occurrences: u1, u2")
    status = house.hetki("status")
    assert status.wait() == 1 and "refused: " in status.text() and "moments/viewed.yaml:" in status.text()
    killed = server.worker()
    os.kill(killed, signal.SIGKILL)
    eventually("another worker", lambda: not is_alive(killed) and server.worker() != killed)
    assert post(address, "/v1/batch", batch(event("m3", userId="u3")))[0] == 200
    eventually("an answer of the next worker", lambda: caught(house) == "3 occurrences: u1, u2, u3")
    edited(house, "Help Viewd", "Help Searched")
    eventually("the mended declarations", lambda: "declarations=in force" in server.text())
    assert caught(house) == "0 occurrences: "
    assert server.runs() and "Traceback" not in server.text()


def decided(house: House) -> int:
    db = sqlite3.connect(house.folder / "data/state.db")
    try:
        n: int = db.execute("SELECT count(*) FROM decisions").fetchone()[0]
    finally:
        db.close()
    return n


def caught(house: House) -> str:
    """The occurrences that stand, and whose they are; read without folding anything."""
    db = sqlite3.connect(house.folder / "data/state.db")
    try:
        found = db.execute(
            "SELECT n.value FROM occurrences o JOIN nodes n ON n.node = o.customer ORDER BY 1"
        ).fetchall()
    finally:
        db.close()
    return f"{len(found)} occurrences: " + ", ".join(row[0] for row in found)
