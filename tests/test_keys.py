"""Write keys: what one opens and until when, how its entry comes into a file, and what a key never does."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from called import Ended, called
from keyed import entry, keyed

from hetki.cli.main import EXIT
from hetki.consent.source import KEY_CHARS_MAX, Source, WriteKey, admitted, digest_of
from hetki.declarations.read import read
from hetki.engine.accept import Acceptor
from hetki.engine.advance import advance
from hetki.engine.engine import open_engine
from hetki.engine.files import read_files
from hetki.engine.keys import PREFIX, add_key
from hetki.engine.project import load
from hetki.engine.repair import list_rejected, replay_rejected
from hetki.engine.skeleton import skeleton
from hetki.errors import Conflict, Invalid, NotFound
from hetki.events.catalogue import SHIPPED
from hetki.events.event import instant, utc
from hetki.events.wire import Parsed
from hetki.server.committer import Committer
from hetki.server.ingest import Ingest
from hetki.settings import DAY, Limits
from hetki.simulation.world import MemoryDisk, SeededChance, SimulatedClock
from hetki.store.system import SystemDisk

ENDS_AT = instant(utc(0).replace(year=2026, month=3, day=31))
SHOP = Source(
    source="shop",
    channel="web",
    purposes=["service"],
    write_keys=[
        WriteKey(digest_of("old"), expires="2026-03-31"),
        WriteKey(digest_of("new")),
        WriteKey(digest_of("searches"), events=["Help Searched", "Customer Identified"]),
    ],
)


class Door:
    """A way in whose journal is a list."""

    def __init__(self) -> None:
        self.bodies: list[Parsed] = []
        self.clock = SimulatedClock(ENDS_AT - DAY)
        self.committer = Committer(self.bodies.extend)
        self.committer.start()
        self.app = Ingest(admitted([SHOP]), self.committer, self.clock, Limits())

    def send(self, body: object, key: str, path: str = "batch", **headers: str) -> httpx.Response:
        basic = base64.b64encode(f"{key}:".encode()).decode()

        async def sent() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://hetki") as client:
                return await client.post(
                    f"/v1/{path}", json=body, headers={"authorization": f"Basic {basic}", **headers}
                )

        return asyncio.run(sent())


@pytest.fixture
def door() -> Iterator[Door]:
    found = Door()
    yield found
    found.committer.stop()


def call(message_id: str, name: str = "Help Searched", **more: object) -> dict[str, object]:
    return {"type": "track", "event": name, "userId": "u", "messageId": message_id, **more}


# -- what a key opens


def test_two_keys_overlap_until_one_expires(door: Door) -> None:
    for key in ("old", "new"):
        assert door.send({"batch": [call(key)]}, key).status_code == 200
    door.clock.move(ENDS_AT - 1)
    assert door.send({"batch": [call("last")]}, "old").status_code == 200
    door.clock.move(ENDS_AT)
    refused = door.send({"batch": [call("late")]}, "old")
    assert refused.status_code == 401 and refused.json()["code"] == "forbidden"
    assert "expired at 2026-03-31T00:00:00Z" in refused.json()["message"]
    assert door.send({"batch": [call("after")]}, "new").status_code == 200
    assert [each.message_id for body in door.bodies for each in body.events] == [
        "old",
        "new",
        "last",
        "after",
    ]


@pytest.mark.parametrize("key", [digest_of("new"), "new ", "NEW", "", "n" * (KEY_CHARS_MAX + 1), "n\x00ew"])
def test_nothing_but_the_key_itself_opens_and_it_is_never_said_back(door: Door, key: str) -> None:
    for where in ({"key": key}, {"key": "", "body": key}):
        body = {"batch": [call("m")], **({"writeKey": where["body"]} if "body" in where else {})}
        answer = door.send(body, where["key"])
        assert answer.status_code == 401
        assert key == "" or key not in answer.text
    assert door.bodies == []


CALLS = {
    "a plain batch": [call("a"), call("b", "Order Completed"), call("c")],
    "a batch with a broken call": [call("a"), call("b", "Order Completed"), {"type": "trak"}, call("c")],
    "calls that name no event": [
        call("a", type="identify"),
        {"type": "page", "userId": "u", "messageId": "b", "name": "Home"},
        call("c"),
    ],
}


@pytest.mark.parametrize("name", CALLS)
def test_an_event_beyond_the_scope_is_a_row_with_a_reason_and_harms_no_neighbour(
    door: Door, name: str
) -> None:
    answer = door.send({"batch": CALLS[name]}, "searches")
    (parsed,) = door.bodies
    assert answer.json() == {"success": True, "n_rejected": len(parsed.rejected)}
    assert [each.message_id for each in parsed.events] == ["a", "c"]
    beyond = parsed.rejected[0]
    assert json.loads(beyond.body) == CALLS[name][1]
    assert "must be an event that this write key may send" in str(beyond.fault)
    assert beyond.fault.where == "batch[1]"
    assert door.send({"batch": CALLS[name]}, "new").json()["n_rejected"] == len(parsed.rejected) - 1


def test_the_scope_holds_for_single_calls_and_cloudevents(door: Door) -> None:
    order = {"specversion": "1.0", "id": "1", "source": "/s", "type": "Order Completed", "userid": "u"}
    kinds = {"content-type": "application/cloudevents+json"}
    for n_rejected, key in ((1, "searches"), (0, "new")):
        answer = door.send(call("t", "Order Completed"), key, "track")
        assert answer.json() == {"success": True, "n_rejected": n_rejected}
        assert door.send(order, key, "cloudevents", **kinds).json()["n_rejected"] == n_rejected


def test_who_names_an_event_vouches_for_it_and_nobody_else_widens_a_scope() -> None:
    disk = MemoryDisk()
    for path, text in skeleton().items():
        disk.write(path, text.encode())
    engine = open_engine(load(disk), MemoryDisk(), SimulatedClock(ENDS_AT), SeededChance(1), {})
    held = Source(source="web", channel="web", purposes=["service"], write_keys=SHOP.write_keys)
    bodies: list[Parsed] = []
    committer = Committer(bodies.extend)
    committer.start()
    door = Door.__new__(Door)
    door.app = Ingest(admitted([held]), committer, engine.clock, Limits())
    door.send({"batch": [call("a"), call("b", "Order Completed")]}, "searches")
    door.send(
        {"specversion": "1.0", "id": "1", "source": "/s", "type": "Order Completed"},
        "searches",
        "cloudevents",
        **{"content-type": "application/cloudevents+json"},
    )
    committer.stop()
    assert isinstance(engine.acceptor, Acceptor)
    engine.acceptor.accept(bodies)
    advance(engine)
    ids = [each.rejected_id for each in list_rejected(engine)]
    assert len(ids) == 2
    assert len(replay_rejected(engine).faults) == 2
    assert [replay_rejected(engine, each).n_accepted for each in ids] == [1, 1]
    advance(engine)
    assert list_rejected(engine) == [] and engine.state.counts()["events"] == 3


# -- how a key is made

HEAD = "source: web\ntitle: Shop   # a comment\nchannel: web\n"
TAIL = "purposes: [service]  # and another\n"
FILES = {
    "none yet": HEAD + TAIL,
    "none yet, and no line end": (HEAD + TAIL)[:-1],
    "an empty list": HEAD + "write_keys: []\n" + TAIL,
    "an empty list with a comment": HEAD + "write_keys: [ ]   # hetki key makes one\n" + TAIL,
    "an empty list at the end": HEAD + TAIL + "write_keys: []",
    "a list in lines": HEAD + f"write_keys:\n  # of the server\n  - {entry('one')}\n" + TAIL,
    "a list in one line": HEAD + f"write_keys: [{entry('one')}]  # one\n" + TAIL,
    "a list that is not indented": HEAD + f"write_keys:\n- digest: {digest_of('one')}\n  note: x\n" + TAIL,
    "line ends of another system": (HEAD + "write_keys: []\n" + TAIL).replace("\n", "\r\n"),
}
WANTED = WriteKey("", "2026-03-31", ["Order Completed"], 'the "server": # 1')


def project(text: str) -> MemoryDisk:
    disk = MemoryDisk()
    for path, other in skeleton().items():
        disk.write(path, other.encode())
    disk.write("sources/web.yaml", text.encode())
    return disk


@pytest.mark.parametrize("name", FILES)
def test_a_new_key_is_an_entry_and_nothing_else_in_the_file_changes(name: str) -> None:
    disk = project(FILES[name])
    before = read(FILES[name], "web", Source).value
    assert before is not None
    made = [add_key(disk, read_files(disk), SHIPPED, "web", WANTED, SeededChance(n)) for n in (1, 2)]
    text = disk.read("sources/web.yaml").decode()
    after = read(text, "web", Source).value
    assert after is not None
    assert after.write_keys == [made[1].entry, made[0].entry, *before.write_keys]
    assert made[0].key != made[1].key and made[0].entry.digest == digest_of(made[0].key)
    assert made[0].entry.note == WANTED.note and made[0].entry.events == WANTED.events
    rest = re.sub(r"\[\s*\]", "", FILES[name])
    for each in made:
        digest = re.escape(each.entry.digest)
        lines, line = rf' *- digest: "{digest}"\n.*\n.*\n *note: .*\n', rf'{{digest: "{digest}".*?}}, '
        text, n_entries = re.subn(f"{lines}|{line}", "", text)
        assert n_entries == 1
    assert text.replace("write_keys:", "").split() == rest.replace("write_keys:", "").split()
    assert "# of the server" not in text or "write_keys:\n  # of the server\n  - " in text
    assert load(disk).sources["web"] == after


def test_a_file_in_which_an_entry_finds_no_place_stays_as_it_is() -> None:
    texts = ("{source: web, channel: web, purposes: [service]}", FILES["none yet"] + "...\n")
    for text in texts:
        disk = project(text)
        with pytest.raises(Conflict):
            add_key(disk, read_files(disk), SHIPPED, "web", WANTED, SeededChance(1))
        assert disk.read("sources/web.yaml").decode() == text


def test_a_key_is_made_for_a_source_and_events_that_there_are() -> None:
    disk = project(FILES["none yet"])
    with pytest.raises(NotFound, match="did you mean 'web'"):
        add_key(disk, read_files(disk), SHIPPED, "wep", WANTED, SeededChance(1))
    with pytest.raises(Invalid, match="did you mean 'Order Completed'"):
        add_key(
            disk, read_files(disk), SHIPPED, "web", WriteKey("", events=["Order Complete"]), SeededChance(1)
        )
    disk = project(FILES["none yet"] + "colour: blue\n")
    with pytest.raises(Invalid, match="colour"):
        add_key(disk, read_files(disk), SHIPPED, "web", WANTED, SeededChance(1))


def test_the_command_prints_a_key_once_and_lists_what_is_declared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "shop"

    def hetki(*words: str) -> Ended:
        return called(words, monkeypatch, capsys)

    hetki("init", str(folder))
    assert hetki("key", "-C", str(folder))[1] == "no write key; hetki key SOURCE makes one\n"
    code, key, told = hetki("key", "web", "--event", "Help Searched", "--note", "shop", "-C", str(folder))
    key = key.strip()
    assert code == 0 and re.fullmatch(PREFIX + r"[\w-]{43}", key) and key not in told
    assert told.startswith("sources/web.yaml: a key until 20")
    hetki("key", "desk", "--expires", "never", "-C", str(folder))
    first, second = hetki("key", "-C", str(folder))[1].splitlines()
    assert re.fullmatch(r"desk  [0-9a-f]{12}  for ever  any event", first)
    assert re.fullmatch(r"web  [0-9a-f]{12}  until 20\S+Z  Help Searched  \(shop\)", second)
    assert load(SystemDisk(folder)).sources["web"].write_keys[0].digest == digest_of(key)
    assert all(key.encode() not in file.read_bytes() for file in folder.rglob("*") if file.is_file())
    for given, must in (
        ("2020-01-01", "a time to come"),
        ("0 days", "a time to come"),
        ("soon", "a duration"),
        ("2027-13-01", "ISO 8601"),
    ):
        code, out, told = hetki("key", "web", "--expires", given, "-C", str(folder))
        assert (code, out) == (EXIT["invalid"], "") and must in told
    (folder / "sources/web.yaml").write_text(
        FILES["none yet"] + f"write_keys: [{entry('x', 'expires: 2020-01-01')}]\n"
    )
    assert "expired 2020-01-01" in hetki("key", "-C", str(folder))[1]


def test_no_shipped_project_opens_to_a_key_that_is_written_anywhere() -> None:
    root = Path(__file__).parent.parent
    for folder in (root / "examples").iterdir():
        assert all(not each.write_keys for each in load(SystemDisk(folder)).sources.values()), folder
    assert not any("digest:" in text for text in skeleton().values())
    published = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180, "abc"
    assert keyed("abc")[0].digest == published
