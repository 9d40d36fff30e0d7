"""Erasure: no byte is left of who was erased, and everybody else is as before, whatever crashes (law 8)."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_wiping import WORD, fill_gaps
from world import World, action, at, event, lines, moment, project

import hetki.engine.erase as erasing
import hetki.engine.forgetting as forgetting
from hetki.decisions.decide import decide
from hetki.engine.accept import take_secrets
from hetki.engine.advance import catch_up
from hetki.engine.backup import ABOUT, ABOUT_NOBODY
from hetki.engine.commands import CannotLink, Matched, MatchedPair, Merge
from hetki.engine.erase import erase, finish
from hetki.engine.receipts import Receipt, is_genuine, listed
from hetki.engine.repair import replay_rejected
from hetki.engine.verifying import verify
from hetki.errors import Fault, Invalid, NotFound, Unavailable
from hetki.events.event import Event, LeafId
from hetki.events.wire import Parsed, Rejected
from hetki.identity.identifier import identifier
from hetki.store import lake
from hetki.store.erasing import unfinished
from hetki.store.journal import Kind
from hetki.store.lake import EVENTS, refresh
from hetki.store.lake_files import MARK
from hetki.store.lake_tables import write_table
from hetki.store.secrets import Secrets
from hetki.store.sqlite import Connection, alone, transaction
from hetki.store.state import TABLES
from hetki.store.system import SystemDisk

FIELDS = (
    "user anonymous email phone previous device external group name city record query page message rejected"
).split()
#: Greets by name and by what was searched: so both are in a rendered message.
GREETED = (
    action("greet")
    | {
        "templates/greet.liquid": "Subject: {{ customer.name }}\n\n{{ searched.query }} {{ customer.name }}",
        "templates/remind.liquid": "Subject: your basket\n\nHello {{ customer.name }}.",
    }
    | moment("seen", "searched: Help Searched where n_results = 0", "greet", more="repeat: every time")
)


def greeted() -> World:
    return World(project(GREETED))


class Person:
    """One customer with a canary in every field; what is not random here is the same for everybody."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        self.canary = {name: f"{name[:2]}{draw.randbytes(9).hex()}" for name in FIELDS}
        self.canary["phone"] = "+" + "".join(str(draw.randrange(1, 10)) for _ in range(14))

    def event(self, kind: str, when: str, number: int, **properties: object) -> Event:
        its = self.canary
        context = {
            "device": {"id": its["device"]},
            "externalIds": [{"type": "loyalty", "id": its["external"], "collection": "users"}],
            "page": {"path": its["page"]},
        }
        return Event(
            "web",
            f"{its['message']}-{number}",
            "web",
            kind,
            at(when),
            at(when),
            {
                "user_id": its["user"],
                "anonymous_id": its["anonymous"],
                "email": f"{its['email']}@kauppa.fi",
                "phone": its["phone"],
                "previous_id": its["previous"],
                "group_id": its["group"],
            },
            msgspec.json.encode(properties),
            msgspec.json.encode(context),
        )

    def lives(self, world: World, minute: int) -> None:
        """Events in every channel, a rejected body, an occurrence, decisions, messages sent and waiting."""
        its = self.canary
        when = [f"09:{minute + each:02}" for each in range(6)]
        mail = f"{its['email']}@kauppa.fi"
        world.accept(
            [self.event("Customer Identified", when[0], 1, name=its["name"], city=its["city"], email=mail)]
        )
        world.accept([self.event("Consent Granted", when[1], 2, purpose="marketing")])
        world.accept([self.event("Account Joined", when[2], 3, record=its["record"])])
        body = msgspec.json.encode({"userId": its["user"], "why": its["rejected"], "type": 7})
        fault = Fault("batch[0].type", its["rejected"], "a type")
        world.engine.acceptor.accept([Parsed([], [Rejected("web", world.clock.now(), body, fault)])])
        world.advance()
        world.accept([self.event("Help Searched", when[3], 4, n_results=0, query=its["query"])])
        world.advance()
        world.deliver("app")
        world.accept([self.event("Product Added", when[4], 5, product_id=its["query"])])
        world.advance()

    def leaf(self, world: World) -> LeafId:
        found = identifier(world.engine.keys.node, "user_id", self.canary["user"])
        assert found is not None
        return world.engine.state.customers_of([found.node])[found.node]


def open_world(folder: Path, seed: int = 1, starts: str = "06:00") -> World:
    return World(project(GREETED), disk=SystemDisk(folder, durable=False), seed=seed, starts=starts)


def every_byte(folder: Path) -> dict[str, bytes]:
    """Each file's bytes, and those of Parquet files decoded; hidden and temporary files included. The bytes
    are read from a copy: whoever closes a file here would drop the locks of the engine on it."""
    copy = folder.with_name(f"{folder.name}-copy")
    shutil.rmtree(copy, ignore_errors=True)
    subprocess.run(["cp", "-r", folder, copy], check=True)
    found = {}
    for path in copy.rglob("*"):
        if path.is_file():
            name = path.relative_to(copy).as_posix()
            found[name] = path.read_bytes()
            if path.suffix == ".parquet":
                found[f"{name} decoded"] = repr(pq.ParquetFile(path).read().to_pylist()).encode()
    return found


def sightings(files: dict[str, bytes], canaries: dict[str, str]) -> dict[str, set[str]]:
    """Where each canary is, in any case."""
    lowered = {name: data.lower() for name, data in files.items()}
    return {
        field: {name for name, data in lowered.items() if canary.lower().encode() in data}
        for field, canary in canaries.items()
    }


def journal_of(world: World) -> bytes:
    """All that the journal's reader can read."""
    return b"".join(each.body for each in world.engine.journal.read(0, 10**6) if each.body is not None)


def secrets_of(world: World, leaf: LeafId) -> list[bytes]:
    """The secrets of a customer's leaves, and the salts without which the hashes of their decisions that stay
    tell nothing."""
    marks = "SELECT node FROM nodes WHERE customer = ?"
    leaves = {row[0] for row in world.rows(marks, leaf)}
    db = world.disk.connect("secrets.db")
    found = [secret for node, secret in db.execute("SELECT leaf, secret FROM leaves") if node in leaves]
    db.close()
    salts = salts_of(world, leaf)
    assert found and salts
    return found + salts


def salts_of(world: World, leaf: LeafId) -> list[bytes]:
    rows = world.rows(
        "SELECT salt FROM decisions WHERE customer IN (SELECT node FROM nodes WHERE customer = ?)", leaf
    )
    return [bytes(row[0]) for row in rows if isinstance(row[0], bytes)]


def rows_of(world: World, leaf: LeafId) -> dict[str, list[tuple[object, ...]]]:
    """Everything that is kept of a customer."""
    mine = "(SELECT node FROM nodes WHERE customer = ?)"
    queries = {
        "nodes": f"SELECT * FROM nodes WHERE node IN {mine} ORDER BY 1",
        "links": f"SELECT * FROM links WHERE node_a IN {mine} ORDER BY 1",
        "leaf_events": f"SELECT * FROM leaf_events WHERE leaf IN {mine} ORDER BY 1, 2, 3",
        "account_leaves": f"SELECT * FROM account_leaves WHERE leaf IN {mine} ORDER BY 1",
        "customers": "SELECT * FROM customers WHERE customer = ?",
        "occurrences": "SELECT * FROM occurrences WHERE customer = ? ORDER BY 1",
        "decisions": f"SELECT * FROM decisions WHERE customer IN {mine} ORDER BY 1",
        "assignments": f"SELECT * FROM assignments WHERE customer IN {mine} ORDER BY 1",
        "outbox": f"SELECT * FROM outbox WHERE customer IN {mine} ORDER BY 1",
    }
    found = {name: world.rows(query, leaf) for name, query in queries.items()}
    assert all(found.values()), found
    return found


def two_lives(folder: Path) -> tuple[World, Person, Person]:
    world, person, control = open_world(folder), Person(1), Person(2)
    person.lives(world, 0)
    control.lives(world, 10)
    refresh(world.disk, world.engine.journal, world.engine.state)
    return world, person, control


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of two lives, to be copied."""
    folder = tmp_path_factory.mktemp("lived") / "data"
    two_lives(folder)
    return folder


def assert_gone(world: World, folder: Path, person: Person, secrets: list[bytes]) -> None:
    """Nothing is left in any byte, nor does the journal's reader read it, nor is there a key to."""
    files = every_byte(folder)
    assert {field: where for field, where in sightings(files, person.canary).items() if where} == {}
    assert not [name for name, data in files.items() for each in secrets if each in data]
    assert not [field for field, canary in person.canary.items() if canary.encode() in journal_of(world)]
    assert [each.is_genuine for each in listed(world.engine.journal.secrets, world.engine.db)] == [True]


def test_no_byte_is_left_and_the_control_is_unchanged(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    world, person, control = two_lives(folder)
    leaf, other = person.leaf(world), control.leaf(world)
    secrets, kept = secrets_of(world, leaf), rows_of(world, other)
    before, read = every_byte(folder), journal_of(world)
    for one in (person, control):
        seen = sightings(before, one.canary)
        assert all(canary.encode() in read for canary in one.canary.values()), (
            "the scan of the journal is blind"
        )
        in_state = "user anonymous email phone external device group name query".split()
        assert all(any("state.db" in each for each in seen[field]) for field in in_state), seen
        in_lake = "user anonymous email phone previous page message record".split()
        assert all(any("decoded" in each for each in seen[field]) for field in in_lake), seen
        assert any("state.db" in each for each in seen["rejected"]), seen
        assert not any("journal.db" in each for where in seen.values() for each in where)
    assert all(any(each in data for data in before.values()) for each in secrets)
    erasure_id = erase(world.engine, leaf, "Data desk")
    assert_gone(world, folder, person, secrets)
    assert rows_of(world, other) == kept
    seen = sightings(every_byte(folder), control.canary)
    assert all(seen[field] for field in control.canary if field not in ("rejected", "previous")), seen
    receipt = listed(world.engine.journal.secrets, world.engine.db)[0].receipt
    assert receipt is not None and receipt.erasure_id == erasure_id and receipt.said_by == "Data desk"
    assert (
        receipt.destroyed["events"] == 6 and receipt.destroyed["decisions"] and receipt.destroyed["messages"]
    )
    world.assert_rebuilds()
    assert_gone(world, folder, person, secrets)
    world.reopen()
    assert_gone(world, folder, person, secrets)


def test_older_copies_of_rows_go_as_well(tmp_path: Path, lived: Path) -> None:
    """What SQLite leaves of a row where it lay before its page was built anew."""
    folder = tmp_path / "data"
    subprocess.run(["cp", "-r", lived, folder], check=True)
    assert all(fill_gaps(folder / name) for name in ("state.db", "secrets.db"))
    world = open_world(folder, seed=2, starts="09:15")
    erase(world.engine, Person(1).leaf(world), "Data desk")
    files = every_byte(folder)
    assert [name for name in files if WORD in files[name]] == []


def test_what_is_warmed_meanwhile_is_erased_too(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    world, person, _ = two_lives(folder)
    leaf = person.leaf(world)
    secrets = secrets_of(world, leaf)
    other_one = moment("more", "searched: Help Searched | no chat: Chat Started, for 2 hours", "greet")
    while not world.rows("SELECT 1 FROM warmed WHERE customer = ?", leaf):
        assert not world.warm(project(GREETED | other_one), 1)
    world.engine.acceptor.command(erasing.erasure_of(world.engine, {leaf}, "Data desk"))
    world.catch_up()
    assert not world.rows("SELECT 1 FROM warmed WHERE customer = ?", leaf)
    finish(world.engine)
    assert_gone(world, folder, person, secrets)


def test_what_is_warmed_of_an_account_is_erased_with_each_member() -> None:
    """Whoever is to be warmed again has still been warmed with what they had before."""
    world = greeted()
    world.live(
        """
        09:00 web u=anna g=kone Account Joined
        09:01 web u=bertta g=kone Account Joined
        09:02 web u=anna g=kone Help Searched n_results=0 query=annasquery
        09:03 web u=bertta g=kone Help Searched n_results=0 query=berttasquery
        """
    )
    waits = moment("more", "searched: Help Searched | no chat: Chat Started, for 2 hours", "greet")
    waits["moments/more.yaml"] = (
        waits["moments/more.yaml"]
        .replace("initiative: keep_our_word\n", "")
        .replace("identify:", "identify:\n  about: account\n  match: all")
    )
    for _ in range(3):
        assert not world.warm(project(GREETED | waits), 1)
    warmed = "SELECT customer FROM warmed WHERE instr(state, ?)"
    assert len(world.rows(warmed, b"annasquery")) == 1
    leaf = LeafId(world.node("anna"))
    world.engine.acceptor.command(erasing.erasure_of(world.engine, {leaf}, "Data desk"))
    world.catch_up()
    assert not world.rows(warmed, b"annasquery")
    while not world.warm(project(GREETED | waits), 10):
        pass
    world.until("12:00")
    assert len(world.occurrences("more")) == 1
    world.assert_rebuilds()


def test_a_lake_that_is_refreshed_before_the_erasure_is_folded_is_erased_too(tmp_path: Path) -> None:
    """It knows of the erasure by the secrets, and writes its tables from a state that does not."""
    folder = tmp_path / "data"
    world, person, _ = two_lives(folder)
    leaf = person.leaf(world)
    secrets = secrets_of(world, leaf)
    command = erasing.erasure_of(world.engine, {leaf}, "Data desk")
    world.engine.acceptor.command(command)
    take_secrets(world.engine.journal.secrets, command)
    refresh(world.disk, world.engine.journal, world.engine.state)
    assert sightings(every_byte(folder), person.canary)["group"] >= {"lake/accounts.parquet decoded"}
    world.catch_up()
    finish(world.engine)
    assert_gone(world, folder, person, secrets)


def test_a_first_lake_that_is_being_written_just_then_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer has read the events before, and ends as the erasure gets the lake."""
    world = open_world(tmp_path / "data")
    world.live("09:00 web u=anna Customer Identified name=Anna")
    leaf, name = world.node("anna"), "lake/events/bucket=b/month=2026-03/from-000000000001.parquet"
    row = {each.name: [None] for each in EVENTS} | {"leaf": [leaf.hex()], "name": ["written before"]}
    real = lake.alone

    @contextmanager
    def got(*given: object) -> Iterator[None]:
        with real(*given):  # type: ignore[arg-type]
            write_table(world.disk, name.replace("=b", f"={leaf.hex()[0]}"), pa.table(row, EVENTS))
            yield

    monkeypatch.setattr(lake, "alone", got)
    erase(world.engine, LeafId(leaf), "Data desk")
    assert not world.disk.names("lake/events/*/*/*")


def test_a_lake_that_was_never_finished_is_erased_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    world, person = open_world(folder), Person(4)
    person.lives(world, 0)
    with monkeypatch.context() as patched:
        write = SystemDisk.write

        def dies_at_the_mark(disk: SystemDisk, name: str, data: bytes) -> None:
            if name == MARK:
                raise Killed
            write(disk, name, data)

        patched.setattr(SystemDisk, "write", dies_at_the_mark)
        with pytest.raises(Killed):  # the files are written, the mark is not
            refresh(world.disk, world.engine.journal, world.engine.state)
    assert any("decoded" in name for name in sightings(every_byte(folder), person.canary)["query"])
    secrets = secrets_of(world, person.leaf(world))
    erase(world.engine, person.leaf(world), "Data desk")
    assert_gone(world, folder, person, secrets)


STEPS: dict[str, tuple[object, str]] = {
    "the command": (erasing, "_enter"),
    "the secrets are taken": (erasing, "take_secrets"),
    "the fold takes them": (forgetting, "take_secrets"),
    "rows of leaves": (forgetting, "erase_leaves"),
    "folding again": (forgetting, "refold"),
    "deeds": (forgetting, "erase_deeds"),
    "the fold": (erasing, "catch_up"),
    "the secrets are overwritten": (Secrets, "destroy"),
    "the lake": (erasing, "forget_in_lake"),
    "a file": (SystemDisk, "write"),
    "the logs": (erasing, "truncate_log"),
    "the log of secrets": (Secrets, "truncate_log"),
    "older copies": (erasing, "wipe"),
    "the signature": (erasing, "sign"),
}


class Killed(Exception):
    """The process ends here."""


@pytest.mark.parametrize(
    ("step", "is_after"),
    [*((step, False) for step in STEPS), ("the command", True), ("a file", True), ("the signature", True)],
)
def test_a_crash_at_any_step_is_taken_up_to_the_same_end(
    tmp_path: Path, lived: Path, monkeypatch: pytest.MonkeyPatch, step: str, is_after: bool
) -> None:
    folder = tmp_path / "data"
    subprocess.run(["cp", "-r", lived, folder], check=True)
    world, person, control = open_world(folder, seed=2, starts="09:15"), Person(1), Person(2)
    leaf, other = person.leaf(world), control.leaf(world)
    secrets, kept = secrets_of(world, leaf), rows_of(world, other)
    owner, name = STEPS[step]
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, killed(getattr(owner, name), is_after))
        with pytest.raises(Killed):
            erase(world.engine, leaf, "Data desk")
    if step == "a file" and is_after:  # what a write leaves behind when the power goes
        (folder / "lake" / "events" / ".from-1.parquet.ab.new").write_bytes(person.canary["name"].encode())
        world.engine.db.execute("UPDATE erasures SET finished_at = NULL")
        (folder / "lake" / "position.json").write_bytes(b'{"position":1,"n_events":1,"n_erasures":0}')
    world.engine.db.close()
    world.reopen()
    if step == "the secrets are taken":  # what comes before the fold meets the command is erased with it
        world.accept([person.event("Chat Started", "09:14", 9)])
    assert not (unfinished(world.engine.db) and secrets_left(world, secrets)), "opening has destroyed them"
    world.advance()
    if step == "the command" and not is_after:
        erase(world.engine, leaf, "Data desk")
    finish(world.engine)
    assert_gone(world, folder, person, secrets)
    assert rows_of(world, other) == kept
    world.assert_rebuilds()


def killed(function: Callable[..., object], is_after: bool) -> Callable[..., object]:
    def dies(*args: object, **named: object) -> object:
        if is_after:
            function(*args, **named)
        raise Killed

    return dies


def secrets_left(world: World, secrets: list[bytes]) -> bool:
    db = world.disk.connect("secrets.db")
    left = {row[0] for row in db.execute("SELECT secret FROM leaves")}
    db.close()
    return bool(left & set(secrets))


NAMES = [
    "Customer Identified",
    "Help Searched n_results=0",
    "Product Added product_id=p1",
    "Chat Started",
    "Account Joined",
    "Consent Granted purpose=marketing",
    "Consent Withdrawn purpose=marketing",
    "Staffing Reported pool=kitchen n_present=3 n_planned=4",
]


def some_event(draw: random.Random, number: int, minute: int) -> str:
    """One line of few people who share much."""
    occurred = max(0, minute - draw.choice([0, 0, 0, 3, 30]))
    ids = [f"u=u{draw.randrange(5)}"] if draw.random() < 0.6 else []
    ids += [f"a=a{draw.randrange(4)}"] if draw.random() < 0.5 else []
    ids += [f"mail=m{draw.randrange(4)}@x.fi"] if draw.random() < 0.3 else []
    ids += [f"tel=+35840{draw.randrange(3)}111111"] if draw.random() < 0.15 else []
    ids += [f"p={draw.choice('ua')}{draw.randrange(5)}"] if draw.random() < 0.15 else []
    ids += [f"g=g{draw.randrange(2)}"] if draw.random() < 0.3 else []
    times = ">".join(f"{6 + each // 60:02}:{each % 60:02}" for each in (occurred, minute))
    return f"{times} {draw.choice(['web', 'app'])} {' '.join(ids)} {draw.choice(NAMES)} id=e{number}"


def richer(draw: random.Random, told: Event) -> Event:
    """The same with a device, an external id and the row of a table now and then, which few share."""
    context: dict[str, object] = {}
    if draw.random() < 0.3:
        context["device"] = {"id": f"d{draw.randrange(3)}"}
    if draw.random() < 0.2:
        context["externalIds"] = [{"type": "loyalty", "id": f"l{draw.randrange(3)}", "collection": "users"}]
    record = {"record_id": f"r{draw.randrange(3)}"} if draw.random() < 0.25 else {}
    return msgspec.structs.replace(
        told, context=msgspec.json.encode(context), identifiers=told.identifiers | record
    )


def something_said(draw: random.Random, world: World) -> None:
    """A person, or linkage, says something of two identifiers."""
    nodes = [node for node, _, _ in world.engine.state.all_nodes()]
    a, b = draw.choice(nodes).hex(), draw.choice(nodes).hex()
    now = world.clock.now()
    pair = MatchedPair(a, b, draw.choice(["probable", "possible"]), 3.0)  # type: ignore[arg-type]
    said = [CannotLink(a, b, "agent", now), Merge(a, b, "agent", now, True), Matched("model", [pair], now)]
    if a != b:
        world.engine.acceptor.command(draw.choice(said))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_after_any_story_a_rebuild_equals_what_is_live(seed: int) -> None:
    draw = random.Random(seed)
    world, minute = World(batch_max=draw.choice([3, 10_000])), 0
    n_erased = 0
    for number in range(40):
        minute += draw.choice([0, 1, 1, 5, 20])
        world.accept([richer(draw, event(some_event(draw, number, minute)))])
        if draw.random() < 0.5:
            world.advance()
        if draw.random() < 0.1 and world.engine.state.all_nodes():
            something_said(draw, world)
        if number in (20, 30, 39):
            world.advance()
            customers = sorted(row[0] for row in world.rows("SELECT DISTINCT customer FROM nodes"))
            n_erased += bool(erase(world.engine, LeafId(draw.choice(customers)), "desk"))  # type: ignore[arg-type]
    world.advance()
    world.assert_rebuilds()
    assert n_erased == len(world.rows("SELECT * FROM erasures WHERE finished_at IS NOT NULL")) == 3


def erased_anna() -> World:
    world = greeted()
    world.live(
        """
        09:00 web u=anna mail=anna@kauppa.fi Customer Identified name=Anna
        09:01 web u=bertta Customer Identified name=Bertta
        """
    )
    world.clock.move(at("10:00"))
    erase(world.engine, LeafId(world.node("anna")), "desk")
    return world


@pytest.mark.parametrize(
    "line",
    [
        "08:00>10:05 web u=anna Help Searched n_results=0",
        "09:00 web u=anna mail=anna@kauppa.fi Customer Identified name=Anna",
        "2/10:00>10:05 web u=anna Help Searched n_results=0",
        "10:05 web a=new mail=Anna@Kauppa.fi Help Searched n_results=0",
        "10:05 web u=cilla p=anna Customer Aliased",
        "08:30>10:05 web u=anna Consent Granted purpose=marketing",
        "2/10:00>10:05 web u=anna Consent Granted purpose=marketing",
        "10:05 web u=anna Consent Refused purpose=marketing",
    ],
)
def test_what_tells_an_erased_name_is_refused_and_its_name_not_kept(line: str) -> None:
    world = erased_anna()
    for _ in range(2):  # a repeat is the same row
        world.engine.clock.move(at("10:06"))  # type: ignore[attr-defined]
        world.engine.acceptor.accept([Parsed([event(line)], [])])
        world.advance()
    assert world.customers() == ["bertta"]
    assert world.rows("SELECT place, must FROM rejected") == [("event", "nothing that was erased")]
    assert b"anna" not in journal_of(world).lower()
    assert not replay_rejected(world.engine).n_accepted
    world.assert_rebuilds()


def test_a_rejected_body_that_tells_an_erased_name_is_not_kept() -> None:
    world = erased_anna()
    fault = Fault("batch[0]", "a list", "an object")
    for body in (b'["Anna@kauppa.fi"]', b"anna;1;2", b'["bertta"]'):
        world.engine.acceptor.accept([Parsed([], [Rejected("web", world.clock.now(), body, fault)])])
    world.advance()
    assert b"anna" not in journal_of(world).lower() and b"bertta" in journal_of(world)
    assert sorted(row[0] for row in world.rows("SELECT got FROM rejected")) == [
        "a list",
        "a name of an erased person",
        "a name of an erased person",
    ]


@pytest.mark.parametrize(
    "body",
    [
        b'{"to": "mailto:Anna@kauppa.fi?subject=x"}',
        b'{"page": "https://kauppa.fi/?email=anna%40kauppa.fi&x=1"}',
        b'{"anna@kauppa.fi": {"n": 1}}',
        b'{"context": {"externalIds": [{"type": "loyalty", "id": "l-17"}]}}',
        b'{"email":anna@kauppa.fi,}',
        b'{"phone": "00358 40 111-2222"}',
        b"anna;1;2",
    ],
)
def test_a_rejected_body_goes_however_it_tells_a_name(body: bytes) -> None:
    """What was rejected before the erasure is erased with it, and what is rejected afterwards is not kept."""
    world = greeted()
    external = b'{"externalIds": [{"type": "loyalty", "id": "l-17", "collection": "users"}]}'
    told = event("09:00 web u=anna mail=anna@kauppa.fi tel=+358401112222 Customer Identified")
    world.accept([msgspec.structs.replace(told, context=external)])
    rejected = [Rejected("web", world.clock.now(), each, Fault("x", "y", "z")) for each in (body, b"bertta")]
    world.engine.acceptor.accept([Parsed([], rejected)])
    world.advance()
    erase(world.engine, LeafId(world.node("anna")), "desk")
    assert body not in journal_of(world) and b"bertta" in journal_of(world)
    world.engine.acceptor.accept([Parsed([], rejected)])
    world.advance()
    assert body not in journal_of(world)
    assert sorted(row[0] for row in world.rows("SELECT got FROM rejected")) == [
        "a name of an erased person",
        "y",
    ]
    world.assert_rebuilds()


def test_names_that_join_nobody_are_refused_as_well_unless_somebody_else_tells_them() -> None:
    """Of two addresses in a year one joins; what an alias mentions, and an external id, may join nothing."""
    world = greeted()
    external = b'{"externalIds": [{"type": "loyalty", "id": "%s", "collection": "users"}]}'
    for line, told in (
        ("09:00 web u=anna p=oldanna mail=anna@kauppa.fi Customer Identified", b"l-17"),
        ("09:01 web u=anna mail=anna@work.fi Customer Identified", b"l-18"),
        ("09:02 web u=anna mail=house@kauppa.fi Customer Identified", b"l-19"),
        ("09:03 web u=bertta mail=house@kauppa.fi Customer Identified", b"l-19"),
    ):
        world.accept([msgspec.structs.replace(event(line), context=external % told)])
    world.advance()
    erase(world.engine, LeafId(world.node("anna")), "desk")
    for name in (
        "a=oldanna",
        "u=oldanna",
        "mail=anna@kauppa.fi",
        "mail=anna@work.fi",
        "mail=house@kauppa.fi",
    ):
        world.live(f"10:00 web u=cilla {name} id={name} Page Viewed".replace("u=cilla u=", "u="))
    for told in (b"l-17", b"l-18", b"l-19"):
        seen = event(f"10:01 web u=cilla id={told.decode()} Page Viewed")
        world.accept([msgspec.structs.replace(seen, context=external % told)])
    world.advance()
    assert len(world.rows("SELECT 1 FROM rejected")) == 6
    read = journal_of(world)
    gone = [b"oldanna", b"anna@kauppa.fi", b"anna@work.fi", b"l-17", b"l-18"]
    assert not [word for word in gone if word in read] and b"house@kauppa.fi" in read and b"l-19" in read
    world.assert_rebuilds()


def test_a_consent_that_comes_before_the_keys_are_destroyed_is_a_row_and_not_lost() -> None:
    world = greeted()
    world.live("09:00 web u=anna mail=anna@kauppa.fi Customer Identified")
    world.clock.move(at("10:00"))
    command = erasing.erasure_of(world.engine, {LeafId(world.node("anna"))}, "desk")
    world.engine.acceptor.command(command)
    world.tell("10:01 web u=anna mail=anna@kauppa.fi Consent Granted purpose=marketing")
    world.catch_up()
    assert world.rows("SELECT got FROM rejected") == [("a name of an erased person",)]
    assert not [row for row in world.rows("SELECT event_id FROM events") if row in unreadable(world)]
    erased = world.engine.journal.secrets.erased()
    assert all(each.back_at is None for each in erased.values()), "not even one of the names is open"
    assert finish(world.engine) == 1
    world.live("10:02 web u=anna mail=anna@kauppa.fi Consent Granted purpose=marketing")
    assert world.customers() == ["anna anna@kauppa.fi"]


def unreadable(world: World) -> list[tuple[bytes]]:
    """Events that were accepted after an erasure, and that nobody can read."""
    command = max(each.position for each in world.engine.journal.read(0, 10**6) if each.kind is Kind.COMMAND)
    return [(each.event_id,) for each in world.engine.journal.read(command, 10**6) if each.body is None]


def test_who_has_come_back_is_erased_again_whatever_the_clock_says() -> None:
    world = erased_anna()
    world.live("10:10 web u=anna Consent Granted purpose=marketing")
    world.live("10:11 web u=anna Customer Identified name=Annika")
    again = World(world.engine.project, disk=world.disk, seed=5, starts="09:30")
    erase(again.engine, LeafId(world.node("anna")), "desk")
    assert b"Annika" not in journal_of(again)
    assert again.customers() == ["bertta"]


def test_an_erasure_that_waits_for_another_process_says_that_it_has_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = greeted()
    world.live("09:00 web u=anna Customer Identified name=Anna")
    monkeypatch.setattr(erasing, "LOCK_WAIT_S", 0.0)
    with alone(world.disk, erasing.LOCK, erasing.BUSY):
        with pytest.raises(Unavailable) as told:
            erase(world.engine, LeafId(world.node("anna")), "desk")
    assert told.value.faults == (erasing.BUSY, erasing.BEGUN)
    assert finish(world.engine) == 1


def test_who_gives_consent_anew_is_a_new_customer_with_no_past() -> None:
    world = erased_anna()
    world.live(
        """
        10:10 web u=anna mail=anna@kauppa.fi Consent Granted purpose=marketing
        09:30>10:11 web u=anna Help Searched n_results=0
        09:00>10:11 web u=anna mail=anna@kauppa.fi Customer Identified name=Anna
        10:12 web u=anna Customer Identified name=Annika
        """
    )
    assert world.customers() == ["anna anna@kauppa.fi", "bertta"]
    read = journal_of(world)
    assert b"Annika" in read and b'"Anna"' not in read
    assert len(world.rows("SELECT * FROM rejected")) == 2
    world.assert_rebuilds()
    world.clock.move(at("11:00"))
    erase(world.engine, LeafId(world.node("anna")), "desk")
    assert world.customers() == ["bertta"] and b"Annika" not in journal_of(world)
    world.assert_rebuilds()


def test_of_two_consents_after_an_erasure_the_earlier_opens_whichever_was_told_first() -> None:
    """The later one lets the names come back; what was told between the two counts once the earlier is
    known."""
    world = erased_anna()
    world.live("10:30 web u=anna mail=anna@kauppa.fi Consent Granted purpose=marketing")
    world.live("10:20>10:31 web u=anna Page Viewed")
    assert len(world.rows("SELECT * FROM rejected")) == 1
    world.live("10:10>10:40 web u=anna mail=anna@kauppa.fi Consent Granted purpose=marketing")
    world.live("10:25>10:41 web u=anna Page Viewed id=later")
    assert len(world.rows("SELECT * FROM rejected")) == 1
    anna = world.node("anna")
    assert world.rows("SELECT n_events FROM customers WHERE customer = ?", anna) == [(3,)]
    assert world.engine.journal.secrets.erased()[anna].back_at == at("10:10")
    world.assert_rebuilds()


def test_an_address_that_somebody_else_tells_too_is_not_refused() -> None:
    world = World()
    for line in lines(
        """
        09:00 web u=anna mail=house@kauppa.fi Customer Identified
        09:01 web u=bertta mail=house@kauppa.fi Customer Identified
        """
    ):
        world.live(line)
    erase(world.engine, LeafId(world.node("anna")), "desk")
    world.live("09:10 web u=bertta mail=house@kauppa.fi Customer Identified")
    assert world.customers() == ["bertta house@kauppa.fi"]
    assert not world.rows("SELECT * FROM rejected")
    world.assert_rebuilds()


def test_what_arrives_beside_an_erasure_is_folded_once() -> None:
    world = World()
    world.live("09:00 web u=anna mail=house@kauppa.fi Customer Identified")
    world.live("09:01 web u=bertta mail=house@kauppa.fi Customer Identified")
    command = erasing.erasure_of(world.engine, {LeafId(world.node("anna"))}, "desk")
    world.engine.acceptor.command(command)
    world.tell("09:02 web u=bertta Help Searched n_results=0")
    world.catch_up()
    assert world.rows("SELECT n_events FROM customers") == [(2,)]
    world.assert_rebuilds()


def test_an_erasure_that_is_in_the_journal_has_begun_even_if_the_disk_refuses_then() -> None:
    """The journal has the command, and the state no room for what was folded before it."""
    world = World()
    world.tell("09:00 web u=anna Page Viewed")
    leaf, real = LeafId(world.node("anna")), transaction
    n_left = [1]

    @contextmanager
    def refused(db: Connection) -> Iterator[None]:
        with real(db):
            yield
            if db is world.engine.db and n_left.pop():
                raise Unavailable(Fault("state.db", "no room", "a disk with room"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(erasing, "transaction", refused)
        with pytest.raises(Unavailable, match="no room") as told:
            erase(world.engine, leaf, "desk")
    assert erasing.BEGUN in told.value.faults
    catch_up(world.engine)
    assert finish(world.engine) == 1
    assert [each.is_genuine for each in listed(world.engine.journal.secrets, world.engine.db)] == [True]


def test_what_was_retracted_before_an_erasure_and_is_somebody_elses_stays_retracted() -> None:
    """A browser has gone over to somebody else before the erasure; what was said to it by name goes."""
    by_name = {"templates/call.liquid": "Subject: hello\n\nHello, {{ customer.name }}."}
    world = World(project(GREETED | by_name))
    world.live("09:00 web u=anna mail=anna@kauppa.fi Customer Identified name=Annikki")
    world.live("09:00 web u=anna Consent Granted purpose=marketing")
    for minute in (10, 11):
        world.live(f"09:{minute} web a=web1 mail=anna@kauppa.fi Product Viewed product_id=p1")
    assert len(world.decisions()) == 1
    world.live("09:05>09:20 web u=bertta a=web1 Chat Started")
    was = world.rows("SELECT occurrence_id, kind FROM revisions")
    assert was and not world.occurrences()
    assert [row for row in world.rows("SELECT * FROM outbox") if "Annikki" in str(row)]
    erase(world.engine, LeafId(world.node("anna")), "desk")
    assert not [row for row in world.rows("SELECT * FROM outbox") if "Annikki" in str(row)]
    assert not world.decisions() and len(world.missed()) == 1, "it is not decided again"
    assert world.rows("SELECT occurrence_id, kind FROM revisions") == was
    world.assert_rebuilds()


def offers_of_accounts() -> World:
    """Anna tells what her company is; two colleagues are answered by it."""
    steps = "a: Product Added | b: Product Added where member <> a.member"
    offer = moment("offer", steps, more="about: account\nwithin: 1 day")
    offer = {name: text.replace("initiative: keep_our_word\n", "") for name, text in offer.items()}
    prints = {"templates/call.liquid": "Subject: x\n\nFor your {{ account.industry }}."}
    others = {f"moments/{name}.yaml": None for name in ("again", "help", "promise")}
    world = World(project(offer | prints | others))
    world.live(
        """
        09:00 web u=anna g=kone Account Joined industry=annaslifts
        09:00 web u=bert g=kone Account Joined
        09:00 web u=cleo g=kone Account Joined
        10:00 web u=bert Product Added
        10:01 web u=cleo Product Added
        """
    )
    assert [each.question.context for each in world.records()] == [{"account.industry": "annaslifts"}]
    assert world.rows("SELECT body FROM outbox") == [("For your annaslifts.",)]
    return world


def test_what_a_colleague_was_told_of_the_account_by_an_erased_customer_goes() -> None:
    world = offers_of_accounts()
    erase(world.engine, LeafId(world.node("anna")), "desk")
    (record,) = world.records()
    assert record.question.context == {} and decide(record.question) == record
    assert "annaslifts" not in str(world.rows("SELECT * FROM outbox"))
    assert "annaslifts" not in str(world.rows("SELECT * FROM decisions"))
    verify(world.engine)
    world.assert_rebuilds()


def test_what_a_browser_did_that_two_had_told_stays_the_others() -> None:
    """It was a customer of its own while both had told it, and is the other's once one of them is erased:
    what was decided and what was missed about it are known as before, and are not answered again."""
    world = World()
    world.live("08:00 web u=bertta a=web1 Page Viewed")
    world.live("08:01 web u=anna a=web1 Page Viewed")
    world.live("08:30>09:30 web a=web1 Help Searched n_results=0")  # too late to be answered
    world.live("09:40 web a=web1 Help Searched n_results=0")
    world.live("09:51 web u=bertta Page Viewed")
    decided = world.rows("SELECT occurrence_id, decision_id FROM decisions")
    assigned = world.rows("SELECT * FROM assignments")
    missed = world.rows("SELECT occurrence_id FROM missed")
    assert len(decided) == len(assigned) == len(missed) == 1
    erase(world.engine, LeafId(world.node("anna")), "desk")
    assert world.rows("SELECT customer, n_events FROM customers") == [(world.node("bertta"), 4)]
    assert world.rows("SELECT occurrence_id, decision_id FROM decisions") == decided
    assert world.rows("SELECT * FROM assignments") == assigned
    assert world.rows("SELECT occurrence_id, customer FROM missed") == [(*missed[0], world.node("bertta"))]
    world.live("12:00 web u=bertta Page Viewed")
    assert len(world.decisions()) == len(world.missed()) == 1
    world.assert_rebuilds()


def test_a_report_of_staff_in_the_name_of_an_erased_customer_is_gone_for_everybody() -> None:
    asks = "searched: Help Searched where n_results = 0 and staffing('kitchen') < 0.8"
    world = World(project(moment("short", asks)))
    world.live(
        """
        09:00 web u=anna Staffing Reported pool=kitchen n_present=1 n_planned=4
        09:10 web u=bertta Help Searched n_results=0
        """
    )
    world.live("09:11 web u=anna Page Viewed")
    assert world.occurrences("short")
    erase(world.engine, LeafId(world.node("anna")), "desk")
    assert not world.rows("SELECT * FROM staffing") and not world.occurrences("short")
    world.assert_rebuilds()


def test_a_running_process_notices_at_once(tmp_path: Path) -> None:
    world = open_world(tmp_path / "data")
    person = Person(3)
    person.lives(world, 0)
    running = open_world(tmp_path / "data")
    assert person.canary["name"].encode() in journal_of(running)
    erase(world.engine, person.leaf(world), "desk")
    assert person.canary["name"].encode() not in journal_of(running)
    running.engine.acceptor.accept([Parsed([person.event("Chat Started", "09:50", 9)], [])])
    assert person.canary["name"].encode() not in journal_of(running)
    world.advance()
    assert not world.customers()
    world.assert_rebuilds()


def test_an_open_reader_delays_the_receipt_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    world, person, _ = two_lives(folder)
    leaf = person.leaf(world)
    secrets = secrets_of(world, leaf)
    reader: Connection = sqlite3.connect(folder / "state.db")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM nodes").fetchone()
    with pytest.raises(Unavailable) as refused:
        erase(world.engine, leaf, "Data desk")
    assert "state.db: got an open reader" in str(refused.value)
    assert not secrets_left(world, secrets) and unfinished(world.engine.db)
    assert [each.receipt for each in listed(world.engine.journal.secrets, world.engine.db)] == [None]
    reader.close()
    assert finish(world.engine) == 1 and finish(world.engine) == 0
    assert_gone(world, folder, person, secrets)


def test_events_are_taken_in_while_rejected_bodies_are_looked_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There may be very many; those that come meanwhile are looked through as well."""
    world, other = greeted(), World(project(GREETED))
    other.disk = world.disk
    other.reopen()
    world.live("09:00 web u=annasid Customer Identified name=Anna")
    fault = Fault("batch[0].type", "x", "a type")

    def rejected(to: World, number: int) -> None:
        body = b'{"userId": "annasid", "n": %d}' % number
        to.engine.acceptor.accept([Parsed([], [Rejected("web", world.clock.now(), body, fault)])])

    rejected(world, 1)
    rejected(world, 2)
    real, looked = erasing.is_told, []

    def taken_in_meanwhile(texts: Iterable[str], values: Collection[str]) -> bool:
        looked.append(texts)
        if len(looked) == 2:
            rejected(other, 3)
        return real(texts, values)

    monkeypatch.setattr(erasing, "is_told", taken_in_meanwhile)
    erase(world.engine, LeafId(world.node("annasid")), "Data desk")
    assert len(looked) == 3 and not world.rows("SELECT 1 FROM rejected")
    assert b"annasid" not in journal_of(world)
    world.assert_rebuilds()


def test_a_receipt_that_was_changed_is_not_genuine() -> None:
    world = erased_anna()
    secrets = world.engine.journal.secrets
    body, signature = world.rows("SELECT receipt, signature FROM erasures")[0]
    assert isinstance(body, bytes) and isinstance(signature, bytes)
    assert b"anna" not in body
    public = msgspec.json.decode(body, type=Receipt).public_key
    assert is_genuine(public, body, signature) and not is_genuine(public, body + b" ", signature)
    world.engine.db.execute("UPDATE erasures SET receipt = ?", (body.replace(b"desk", b"dusk"),))
    assert [each.is_genuine for each in listed(secrets, world.engine.db)] == [False]


def test_who_asks_and_whom_are_needed() -> None:
    world = erased_anna()
    with pytest.raises(Invalid):
        erase(world.engine, LeafId(world.node("bertta")), " ")
    with pytest.raises(NotFound):
        erase(world.engine, LeafId(world.node("anna")), "desk")


def test_no_table_is_left_out() -> None:
    """A new table of the state is looked at here before it can hold what an erasure does not know."""
    world = greeted()
    found = {str(row[0]) for row in world.rows("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    ledger = {*ABOUT, *ABOUT_NOBODY, "decisions_used"}
    shadow = "warming touched warmed changes refused"
    links = {"page_links"}  # in no backup: after a restore customers ask for new ones
    assert found - {"sqlite_sequence"} == {*TABLES, *ledger, *links, *shadow.split()}
