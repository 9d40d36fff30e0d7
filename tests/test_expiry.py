"""Expiry: what is past its retention is unreadable in every byte; statements, and all else, outlive it."""

from __future__ import annotations

import json
import random
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_erasure import (
    GREETED,
    NAMES,
    Killed,
    every_byte,
    journal_of,
    killed,
    richer,
    some_event,
    something_said,
)
from world import FILES, TOML, World, event, lines, moment, project

import hetki.engine.erase as erasing
import hetki.engine.expiring as expiring
import hetki.engine.forgetting as forgetting
from hetki.consent.purpose import Purpose
from hetki.consent.retention import Classes, classes_of
from hetki.consent.source import Source
from hetki.decisions.decide import decide
from hetki.engine.backup import backup
from hetki.engine.expiring import due, expire, expire_next
from hetki.engine.project import load
from hetki.engine.rebuilding import rebuild
from hetki.engine.receipts import listed
from hetki.engine.restoring import choose, restore
from hetki.engine.verifying import verify
from hetki.errors import Conflict, Fault, Invalid
from hetki.events.event import instant
from hetki.events.wire import Parsed, Rejected
from hetki.moments.fold import decode
from hetki.settings import DAY
from hetki.simulation.world import MemoryDisk
from hetki.store import lake
from hetki.store.erasing import unfinished
from hetki.store.lake import refresh
from hetki.store.secrets import Secrets
from hetki.store.system import SystemDisk

SOURCES = {
    "sources/web.yaml": """
source: web
channel: web
purposes: [service, marketing]
retention: 24 months
retention_of: {Help Searched: 2 months, Page Viewed: 1 day}
""",
    "sources/app.yaml": "source: app\nchannel: app\npurposes: [service]\nretention: 2 months\n",
}


def month(number: int, year: int = 2026) -> int:
    return instant(datetime(year, number, 1, tzinfo=UTC))


def lived(folder: Path | None = None) -> World:
    """Anna searches in vain and is greeted by name; Bertta does the same two months later."""
    disk = SystemDisk(folder, durable=False) if folder else None
    world = World(project(GREETED | SOURCES), disk=disk)
    told = lines(
        """
        09:00 web u=anna mail=mailwillgo@x.fi Page Viewed page=pagewillgo
        09:01 web u=anna Customer Identified name=namewillstay
        09:02 web u=anna a=webwillgo Help Searched n_results=0 query=querywillgo
        09:03 app u=anna tel=+358401111111 Product Viewed product_id=appwillgo
        09:04 web u=anna Consent Granted purpose=marketing
        09:05 web u=anna gpc Page Viewed page=pagewillgo
        09:06 web u=cilla gpc Help Searched n_results=3
        """
    )
    for line in told:
        world.live(line)
        world.deliver("app")
    fault = Fault("batch[0].type", "faultwillgo", "a type")
    body = b'{"why": "rejectedwillgo"}'
    world.engine.acceptor.accept([Parsed([], [Rejected("web", world.clock.now(), body, fault)])])
    world.advance()
    later = event("23/09:00 web u=bertta Customer Identified name=berttawillstay")
    world.clock.move(month(5))
    world.accept([later])
    world.accept([event("30/09:00 app u=bertta Product Viewed product_id=berttasownwillstay")])
    world.advance()
    if folder:
        refresh(world.disk, world.engine.journal, world.engine.state)
    return world


GOES = "mailwillgo pagewillgo querywillgo webwillgo appwillgo faultwillgo rejectedwillgo 358401111111".split()
STAYS = "namewillstay berttawillstay berttasownwillstay".split()


def seen(folder: Path, words: list[str]) -> set[str]:
    files = every_byte(folder)
    return {word for word in words for data in files.values() if word.encode() in data.lower()}


def assert_expired(world: World, folder: Path) -> None:
    assert seen(folder, GOES) == set() and seen(folder, STAYS) == set(STAYS)
    read = journal_of(world)
    assert not [word for word in GOES if word.encode() in read]
    assert all(word.encode() in read for word in STAYS)
    assert due(world.engine) == [] and not unfinished(world.engine.db)
    assert all(each.is_genuine for each in listed(world.engine.journal.secrets, world.engine.db))
    verify(world.engine)


def test_what_is_over_is_unreadable_in_every_byte_and_nothing_else_is(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    world = lived(folder)
    assert seen(folder, [*GOES, *STAYS]) >= {*STAYS, "mailwillgo", "querywillgo", "faultwillgo", "pagewillgo"}
    assert {word for word in GOES if word.encode() in journal_of(world)} == {*GOES}, "the scan is blind"
    before = world.records()[0]
    assert before.question.candidates and world.outbox()
    world.clock.move(month(6))
    found = [(each.kept, each.n_entries) for each in due(world.engine)]
    over = [(kept.source, kept.retention, kept.month, n) for kept, n in found]
    assert over == [
        ("web", "1 day", "2026-03", 2),
        ("web", "rejected, 30 days", "2026-03", 1),
        ("web", "2 months", "2026-03", 2),
        ("app", "2 months", "2026-03", 1),
    ]
    assert len(expire(world.engine, "Data desk")) == 4
    assert_expired(world, folder)
    receipts = [each.receipt for each in listed(world.engine.journal.secrets, world.engine.db)]
    counted = [each.destroyed for each in receipts if each is not None]
    assert sorted(each["events"] for each in counted) == [0, 1, 2, 2]
    assert sum(each["rejections"] for each in counted) == 1
    assert sum(each["decision_values"] for each in counted) == 1
    after = world.records()[0]
    assert decide(after.question) == after and after.chosen == before.chosen
    assert after.question.data_used == before.question.data_used
    assert not world.rows("SELECT 1 FROM outbox WHERE recipient || subject || body <> ''")
    assert not world.occurrences()
    assert "retracted seen: expired; decided: greet, message is sent" in world.revisions()
    world.assert_rebuilds()
    assert expire(world.engine) == []
    world.reopen()
    assert_expired(world, folder)


def test_a_lake_that_begins_is_not_searched_for_all_that_ever_expired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it can be there, and it may be more than memory holds."""
    folder = tmp_path / "data"
    world = lived(folder)
    world.clock.move(month(6))
    expire(world.engine)
    lake.remove_lake(world.disk)
    searched: list[int] = []
    monkeypatch.setattr(lake, "removed_after", lambda journal, number: searched.append(number) or [])
    refresh(world.disk, world.engine.journal, world.engine.state)
    refresh(world.disk, world.engine.journal, world.engine.state)
    assert searched == []
    in_lake = b"".join(data for name, data in every_byte(folder).items() if "decoded" in name)
    assert b"berttasownwillstay" in in_lake and not [word for word in GOES if word.encode() in in_lake]


STEPS: dict[str, tuple[object, str]] = {
    "signals": (expiring, "_keep_signals"),
    "the command": (expiring, "expiry_of"),
    "the secret": (expiring, "take_away"),
    "the fold takes it": (forgetting, "take_away"),
    "rows of places": (forgetting, "erase_places"),
    "folding again": (forgetting, "refold"),
    "deeds": (forgetting, "blank_deeds"),
    "the fold": (expiring, "catch_up"),
    "the lake": (erasing, "forget_in_lake"),
    "a file": (SystemDisk, "write"),
    "the logs": (erasing, "truncate_log"),
    "the log of secrets": (Secrets, "truncate_log"),
    "the signature": (erasing, "sign"),
}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which much is over, to be copied."""
    folder = tmp_path_factory.mktemp("over") / "data"
    lived(folder)
    return folder


@pytest.mark.parametrize(
    ("step", "is_after"), [*((step, False) for step in STEPS), ("signals", True), ("the secret", True)]
)
def test_a_crash_at_any_step_is_taken_up_to_the_same_end(
    tmp_path: Path, copied: Path, monkeypatch: pytest.MonkeyPatch, step: str, is_after: bool
) -> None:
    folder = tmp_path / "data"
    subprocess.run(["cp", "-r", copied, folder], check=True)
    world = World(project(GREETED | SOURCES), disk=SystemDisk(folder, durable=False), seed=2)
    world.clock.move(month(6))
    owner, name = STEPS[step]
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, killed(getattr(owner, name), is_after))
        with pytest.raises(Killed):
            expire(world.engine)
    world.engine.db.close()
    world.reopen()
    world.advance()
    expire(world.engine)
    assert_expired(world, folder)
    assert len(listed(world.engine.journal.secrets, world.engine.db)) == 4
    world.assert_rebuilds()


def test_a_rebuild_waits_until_what_was_taken_away_is_folded() -> None:
    world = lived()
    world.clock.move(month(6))
    assert expire_next(world.engine)
    with pytest.raises(Conflict, match="entered and not folded"):
        rebuild(world.engine)
    world.catch_up()
    world.assert_rebuilds()


def test_what_was_said_of_consent_outlives_the_events_that_it_came_with() -> None:
    world = lived()
    said = {name: statements(world, name) for name in ("anna", "cilla")}
    assert said == {"anna": {"marketing": False}, "cilla": {"marketing": False}}
    world.clock.move(month(6))
    expire(world.engine)
    assert {name: statements(world, name) for name in ("anna", "cilla")} == said
    assert world.customers() == ["anna", "bertta", "cilla"]
    world.clock.move(month(6, 2029))
    world.advance()
    expire(world.engine)
    assert {name: statements(world, name) for name in ("anna", "cilla")} == said
    assert world.customers() == ["anna", "cilla"]
    assert {each.source for each in world.engine.journal.secrets.periods()} == {"hetki", "web"}
    world.assert_rebuilds()


def statements(world: World, name: str) -> dict[str, bool]:
    node = world.node(name)
    rows = world.rows("SELECT c.state FROM customers c JOIN nodes n USING (customer) WHERE n.node = ?", node)
    (state,) = rows[0]
    assert isinstance(state, bytes)
    said = decode(state).statements.values()
    return {purpose: each.granted for mine in said for purpose, each in mine.items()}


def test_a_silence_that_only_the_gap_makes_is_never_answered() -> None:
    kept = SOURCES["sources/app.yaml"].replace("2 months", "1 day")
    steps = "searched: Help Searched | no chat: Chat Started, for 31 days"
    waits = moment("help", steps, "call", more="expires: 1 year")
    world = World(project(SOURCES | {"sources/app.yaml": kept} | waits))
    world.live("29/09:00 web u=anna Help Searched n_results=0")
    world.live("29/10:00 app u=anna Chat Started")
    world.clock.move(month(4) + 40 * DAY)
    world.advance()
    assert not world.occurrences("help")
    expire(world.engine)
    assert len(world.occurrences("help")) == 1 and len(world.missed()) == 1
    assert not world.decisions() and not world.outbox()
    world.assert_rebuilds()


def test_what_is_not_folded_yet_never_meets_the_gap_before_it_is_told_of() -> None:
    """A late event has somebody folded again: from all of it, or as one whose events have expired."""
    kept = SOURCES["sources/app.yaml"].replace("2 months", "1 day")
    waits = moment(
        "help", "searched: Help Searched | no chat: Chat Started, for 1 day", more="expires: 1 year"
    )
    world = World(project(SOURCES | {"sources/app.yaml": kept} | waits), batch_max=1)
    world.live("29/09:00 web u=anna Help Searched n_results=0")
    world.live("29/10:00 app u=anna Chat Started")
    world.clock.move(month(4) + 40 * DAY)
    world.advance()
    world.tell("29/08:00>71/00:00 web u=anna Help Searched n_results=3")
    assert expire_next(world.engine)
    world.advance()
    assert len(world.missed()) == len(world.occurrences("help")) == 2
    assert not world.decisions() and not world.outbox()
    world.assert_rebuilds()


LAST = """repeat: every time
expires: 20 minutes
context: [aggregate.seen]
aggregates: {seen: last product_id of Product Viewed over 30 days}"""


def test_what_a_moment_counted_of_expired_events_goes_from_what_was_decided() -> None:
    """The event that it was caught by is kept for long; what was seen before it is not."""
    looks_back = moment("back", "searched: Help Searched where n_results = 0", "call", more=LAST)
    world = World(project({"sources/app.yaml": SOURCES["sources/app.yaml"]} | looks_back))
    world.live("09:00 app u=anna Product Viewed product_id=willgo")
    world.live("09:05 web u=anna Help Searched n_results=0")
    world.live("09:06 web u=bertta Help Searched n_results=0")
    before = world.records()
    assert [each.question.context.get("aggregate.seen") for each in before] == ["willgo", None]
    to, copies, data = MemoryDisk(), MemoryDisk(), MemoryDisk()
    old = backup(world.engine, to, copies)
    world.clock.move(month(6))
    expire(world.engine)
    assert "willgo" not in str(world.rows("SELECT CAST(record AS TEXT) FROM decisions"))
    anna, bertta = world.records()
    assert bertta == before[1] and anna.chosen == "call" and decide(anna.question) == anna
    assert "revised back: expired; decided: call" in "".join(world.revisions())
    verify(world.engine)
    world.assert_rebuilds()
    backup(world.engine, to, copies)
    restore(choose(to, old.backup, copies), MemoryDisk(), data, world.clock, world.chance, {})
    world.disk = data
    world.reopen()
    assert world.records() == [anna, bertta]
    verify(world.engine)


def test_the_same_of_what_members_of_an_account_have_done() -> None:
    more = LAST.replace("repeat", "about: account\n  repeat")
    looks_back = moment("back", "searched: Help Searched where n_results = 0", "call", more=more)
    looks_back = {name: text.replace("initiative: keep_our_word\n", "") for name, text in looks_back.items()}
    world = World(project({"sources/app.yaml": SOURCES["sources/app.yaml"]} | looks_back))
    world.live("08:00 web u=anna g=kone Account Joined")
    world.live("08:00 web u=bertta g=kone Account Joined")
    world.live("09:00 app u=bertta g=kone Product Viewed product_id=willgo")
    world.live("09:05 web u=anna g=kone Help Searched n_results=0")
    assert [each.question.context["aggregate.seen"] for each in world.records()] == ["willgo"]
    world.clock.move(month(6))
    expire(world.engine)
    assert "willgo" not in str(world.rows("SELECT CAST(record AS TEXT) FROM decisions"))
    verify(world.engine)
    world.assert_rebuilds()


@pytest.mark.parametrize("step", ["begun", "finished"])
def test_yesterdays_backup_does_not_bring_it_back(tmp_path: Path, step: str) -> None:
    world = lived(tmp_path / "data")
    to, copies = SystemDisk(tmp_path / "to", durable=False), SystemDisk(tmp_path / "keys", durable=False)
    before = backup(world.engine, to, copies)
    world.clock.move(month(6))
    if step == "begun":
        while expire_next(world.engine) is not None:
            pass
    else:
        expire(world.engine)
    after = backup(world.engine, SystemDisk(tmp_path / "to2", durable=False), copies)
    assert after.n_thrown_away == 1
    folder = tmp_path / "new"
    data = SystemDisk(folder / "data", durable=False)
    there = SystemDisk(folder, durable=False)
    restore(choose(to, before.backup, copies), there, data, world.clock, world.chance, {})
    world.disk = data
    world.reopen()
    refresh(world.disk, world.engine.journal, world.engine.state)
    assert_expired(world, folder / "data")
    world.assert_rebuilds()


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32))
def test_after_any_story_a_rebuild_equals_what_is_live(seed: int) -> None:
    draw = random.Random(seed)
    of = {name.partition(" purpose")[0].partition(" n_")[0].partition(" product")[0] for name in NAMES}
    short = {name: draw.choice(["1 day", "40 days"]) for name in sorted(of) if draw.random() < 0.5}
    kept = {name: each for name, each in short.items() if not name.startswith(("Consent", "Staffing"))}
    web = SOURCES["sources/web.yaml"].partition("retention_of")[0].replace("24", "3")
    files = SOURCES | {"sources/web.yaml": f"{web}retention_of: {json.dumps(kept)}\n"}
    world, minute = World(project(files), batch_max=draw.choice([3, 10_000])), 0
    for number in range(40):
        day = 1 + 31 * (number // 8)
        minute += draw.choice([0, 1, 1, 5, 20])
        when, _, rest = some_event(draw, number, minute).partition(" ")
        back = 31 if draw.random() < 0.1 and day > 31 else 0
        occurred, received = when.split(">")
        line = f"{day - back}/{occurred}>{day}/{received} {rest}{draw.choice(['', '', ' gpc'])}"
        world.accept([richer(draw, event(line))])
        if draw.random() < 0.5:
            world.advance()
        if draw.random() < 0.1 and world.engine.state.all_nodes():
            something_said(draw, world)
        if number % 8 == 7:
            if draw.random() < 0.5:
                expire(world.engine)
            elif expire_next(world.engine):
                world.catch_up()
    world.clock.move(month(9))
    assert expire(world.engine)
    world.assert_rebuilds()
    verify(world.engine)


def test_a_purpose_bounds_how_long_its_sources_keep() -> None:
    service, marketing = (
        Purpose("s", "contract", retention="1 year"),
        Purpose("m", "consent", retention="60 days"),
    )
    both = {"service": service, "marketing": marketing}
    source = Source("web", "web", ["service", "marketing"], retention_of={"Page Viewed": "1 day"})
    assert classes_of(source, both) == Classes("1 year", {"Page Viewed": "1 day"})
    only = msgspec.structs.replace(source, purposes=["marketing"])
    assert classes_of(only, both) == Classes("60 days", {"Page Viewed": "1 day"})
    unbounded = {**both, "service": msgspec.structs.replace(service, retention="")}
    assert classes_of(source, unbounded).others == "24 months"


def test_a_retention_that_cannot_be_read_is_a_fault_with_its_place() -> None:
    text = """source: web
channel: web
purposes: [service]
retention: soon
retention_of:
  Page Vewed: 1 day
  Consent Refused: 1 day
  Page Viewed: 0 days
"""
    disk = MemoryDisk()
    toml = TOML.replace('basis = "contract"', 'basis = "contract"\nretention = "a while"')
    for name, body in (FILES | {"sources/web.yaml": text, "hetki.toml": toml}).items():
        disk.write(name, body.encode())
    with pytest.raises(Invalid) as refused:
        load(disk)
    found = [str(each) for each in refused.value.faults]
    told = [
        "hetki.toml:[purposes.service].retention",
        "sources/web.yaml:4:12",
        "web.yaml:6:3",
        "web.yaml:7:3",
        "web.yaml:8:16",
    ]
    assert len(found) == 5 and all(where in " ".join(found) for where in told), found
