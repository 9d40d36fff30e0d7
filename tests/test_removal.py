"""Removing a range of time: no byte is left of it, everything else is as before, whatever crashes (law 8)."""

from __future__ import annotations

import random
import sqlite3
import subprocess
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_erasure import (
    GREETED,
    Killed,
    every_byte,
    journal_of,
    killed,
    offers_of_accounts,
    richer,
    salts_of,
    some_event,
    something_said,
)
from test_wiping import WORD, fill_gaps
from world import World, at, event, lines, moment, project

import hetki.engine.erase as erasing
import hetki.engine.forgetting as forgetting
import hetki.engine.removing as removing
from hetki.decisions.decide import decide
from hetki.engine.backup import backup
from hetki.engine.engine import Engine
from hetki.engine.erase import erase, finish
from hetki.engine.expiring import expire
from hetki.engine.receipts import listed
from hetki.engine.removing import Found, Range, find, removal_of, remove
from hetki.engine.restoring import choose, restore
from hetki.engine.verifying import verify
from hetki.errors import Conflict, Fault, Invalid, Unavailable
from hetki.events.event import LeafId
from hetki.events.wire import Parsed, Rejected
from hetki.simulation.world import MemoryDisk
from hetki.store.journal import Journal
from hetki.store.lake import refresh
from hetki.store.secrets import Secrets
from hetki.store.sqlite import alone
from hetki.store.system import SystemDisk

LEAK = Range(at("10:00"), at("11:00"))
GOES = "leakmail leakname leakquery leakpage leakgroup leakfault leakbody leakid".split()
STAYS = "keptmail keptname keptquery keptpage keptid berttamail berttaname".split()


def lived(folder: Path | None = None) -> World:
    """Anna and Bertta before and after an hour in which a sender told what it must not."""
    disk = SystemDisk(folder, durable=False) if folder else None
    world = World(project(GREETED), disk=disk)
    told = """
        09:00 web u=anna mail=keptmail@x.fi Customer Identified name=keptname
        09:01 web u=anna Page Viewed page=keptpage
        09:02 web u=bertta mail=berttamail@x.fi Customer Identified name=berttaname
        09:03 web u=bertta gpc Help Searched n_results=0 query=keptquery
        10:00 web u=anna a=leakid mail=leakmail@x.fi Customer Identified name=leakname
        10:01 web u=anna g=leakgroup Account Joined record=leakgroup
        10:02 web u=anna Help Searched n_results=0 query=leakquery
        10:03 web u=cilla gpc Page Viewed page=leakpage
        10:59 web u=anna Consent Withdrawn purpose=marketing
        11:00 web u=anna a=keptid Help Searched n_results=0 query=keptquery
        """
    for line in lines(told):
        world.live(line)
        world.deliver("app")
        if line.startswith("10:02"):
            fault, body = Fault("batch[0].type", "leakfault", "a type"), b'{"why": "leakbody"}'
            world.engine.acceptor.accept([Parsed([], [Rejected("web", world.clock.now(), body, fault)])])
            world.advance()
    world.clock.move(at("11:10"))
    world.tell("10:02>11:10 web u=anna Help Searched n_results=0 query=leakquery")  # a repeat, in another row
    world.advance()
    if folder:
        refresh(world.disk, world.engine.journal, world.engine.state)
    return world


def seen(folder: Path, words: list[str]) -> set[str]:
    files = every_byte(folder)
    return {word for word in words for data in files.values() if word.encode() in data.lower()}


def assert_removed(world: World, folder: Path) -> None:
    assert seen(folder, GOES) == set() and seen(folder, STAYS) == set(STAYS)
    read = journal_of(world)
    assert not [word for word in GOES if word.encode() in read]
    assert all(word.encode() in read for word in STAYS)
    assert find(world.engine, LEAK).places == []
    assert [each.is_genuine for each in listed(world.engine.journal.secrets, world.engine.db)] == [True]
    verify(world.engine)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a leak in it, to be copied."""
    folder = tmp_path_factory.mktemp("leaked") / "data"
    lived(folder)
    return folder


def opened(copied: Path, folder: Path, starts: str = "11:20") -> World:
    subprocess.run(["cp", "-r", copied, folder], check=True)
    return World(project(GREETED), disk=SystemDisk(folder, durable=False), seed=2, starts=starts)


def test_no_byte_of_a_range_is_left_and_all_else_is_unchanged(copied: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    world = opened(copied, folder)
    assert {word for word in [*GOES, *STAYS] if word.encode() in journal_of(world)} == {*GOES, *STAYS}
    assert seen(folder, GOES) == {*GOES} - {"leakbody"}, "the scan is blind"
    ciphertexts = sealed(folder)
    others = "SELECT * FROM customers WHERE customer = ?", world.node("bertta")
    decided = "SELECT * FROM decisions WHERE customer = ?", world.node("bertta")
    kept, was = world.rows(*others), world.rows(*decided)
    salts = salts_of(world, LeafId(world.node("anna")))
    assert salts and all(any(each in data for data in every_byte(folder).values()) for each in salts)
    found = find(world.engine, LEAK)
    assert (found.n_events, found.n_rejected, len(found.places)) == (5, 1, 7)
    (erasure_id,) = remove(world.engine, LEAK, "Data desk")
    assert_removed(world, folder)
    left = b"".join(every_byte(folder).values())
    assert sum(each not in left for each in ciphertexts) == 7, "the ciphertexts are gone as well"
    assert not [each for each in salts if each in left], "the first hashes of blanked decisions tell nothing"
    assert (world.rows(*others), world.rows(*decided)) == (kept, was)
    receipt = listed(world.engine.journal.secrets, world.engine.db)[0].receipt
    assert receipt is not None and receipt.erasure_id == erasure_id
    assert receipt.destroyed == {"events": 5, "rejections": 1, "decision_values": 3, "messages": 3}
    assert all(decide(each.question) == each for each in world.records())
    assert not world.rows("SELECT 1 FROM accounts")
    assert world.customers() == ["anna keptid keptmail@x.fi", "bertta berttamail@x.fi", "cilla"]
    world.assert_rebuilds()
    world.reopen()
    assert_removed(world, folder)


def test_older_copies_of_the_journals_rows_go_as_well(copied: Path, tmp_path: Path) -> None:
    """What SQLite leaves of a row where it lay before its page was built anew."""
    folder = tmp_path / "data"
    subprocess.run(["cp", "-r", copied, folder], check=True)
    assert fill_gaps(folder / "journal.db")
    world = World(project(GREETED), disk=SystemDisk(folder, durable=False), seed=2, starts="11:20")
    remove(world.engine, LEAK, "Data desk")
    assert [name for name, data in every_byte(folder).items() if WORD in data] == []


def sealed(folder: Path) -> list[bytes]:
    """Every ciphertext of the journal."""
    from_file = sqlite3.connect(f"file:{folder}/journal.db?mode=ro", uri=True)
    found = []
    for (body,) in from_file.execute("SELECT body FROM journal"):
        place = 0
        while place < len(body):
            n_bytes = int.from_bytes(body[place + 37 : place + 41])
            found.append(body[place + 41 : place + 41 + n_bytes])
            place += 41 + n_bytes
    from_file.close()
    return found


STEPS: dict[str, tuple[object, str]] = {
    "the signals": (removing, "tell_signals"),
    "the secrets know": (Secrets, "remove"),
    "the command": (removing, "take_away"),
    "overwriting": (forgetting, "overwrite"),
    "rows of places": (forgetting, "erase_places"),
    "folding again": (forgetting, "refold"),
    "deeds": (forgetting, "blank_deeds"),
    "the fold": (removing, "catch_up"),
    "the lake": (erasing, "forget_in_lake"),
    "a file": (SystemDisk, "write"),
    "the logs": (erasing, "truncate_log"),
    "the log of the journal": (Journal, "truncate_log"),
    "the signature": (erasing, "sign"),
}


@pytest.mark.parametrize(
    ("step", "is_after"), [*((step, False) for step in STEPS), ("the signals", True), ("overwriting", True)]
)
def test_a_crash_at_any_step_is_taken_up_to_the_same_end(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, is_after: bool
) -> None:
    folder = tmp_path / "data"
    world = opened(copied, folder)
    owner, name = STEPS[step]
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, killed(getattr(owner, name), is_after))
        with pytest.raises(Killed):
            remove(world.engine, LEAK, "Data desk")
    world.engine.db.close()
    world.reopen()
    world.advance()
    if step == "the signals":  # the command had not been said
        remove(world.engine, LEAK, "Data desk")
    finish(world.engine)
    assert_removed(world, folder)
    world.assert_rebuilds()


def test_only_what_the_command_has_left_is_accepted() -> None:
    world = lived()
    remove(world.engine, LEAK, "Data desk")
    verify(world.engine)
    journal = world.disk.connect("journal.db")
    update = "UPDATE journal SET body = ?, was = ? WHERE position = ?"
    rows = journal.execute("SELECT position, body, was FROM journal ORDER BY 1").fetchall()
    for position, body, was in rows:
        for changed in (body[:-1] + bytes([body[-1] ^ 1]), bytes(41) + body[41:]):
            for kept in (was, was or b"\0" * 32):
                journal.execute(update, (changed, kept, position))
                with pytest.raises(Invalid):
                    verify(world.engine)
        journal.execute(update, (body, was, position))
    verify(world.engine)


def test_a_backup_of_before_is_restored_without_the_range(copied: Path, tmp_path: Path) -> None:
    world = opened(copied, tmp_path / "data")
    to, copies = SystemDisk(tmp_path / "to", durable=False), SystemDisk(tmp_path / "keys", durable=False)
    before = backup(world.engine, to, copies)
    world.clock.move(at("11:30"))
    remove(world.engine, LEAK, "Data desk")
    after = backup(world.engine, to, copies)
    assert after.n_thrown_away == 1
    for of, folder in ((before, tmp_path / "old"), (after, tmp_path / "new")):
        data, there = SystemDisk(folder / "data", durable=False), SystemDisk(folder, durable=False)
        restore(choose(to, of.backup, copies), there, data, world.clock, world.chance, {})
        other = World(project(GREETED), disk=data, starts="11:40")
        refresh(data, other.engine.journal, other.engine.state)
        assert_removed(other, folder / "data")
        other.assert_rebuilds()


def test_a_backup_between_a_range_and_its_overwriting_is_restored_whole() -> None:
    """Another range took something from the same row after it: what that has left is without both."""
    world = World(project(GREETED))
    world.tell("10:00 web u=anna Page Viewed page=one\n10:30 web u=anna Page Viewed page=two")
    world.advance()
    places = find(world.engine, Range(at("10:00"), at("10:10"))).places
    command = removal_of(world.engine, "ab" * 16, places, "Data desk", world.clock.now())
    world.engine.acceptor.command(command)
    to, copies, data = MemoryDisk(), MemoryDisk(), MemoryDisk()
    between = backup(world.engine, to, copies)
    world.advance()
    remove(world.engine, LEAK, "Data desk")
    world.clock.move(at("12:00"))
    backup(world.engine, to, copies)
    restore(choose(to, between.backup, copies), MemoryDisk(), data, world.clock, world.chance, {})
    other = World(project(GREETED), disk=data, starts="12:10")
    verify(other.engine)
    assert find(other.engine, LEAK).places == []
    other.assert_rebuilds()


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32))
def test_after_any_story_a_rebuild_equals_what_is_live(seed: int) -> None:
    draw = random.Random(seed)
    world, minute = World(batch_max=draw.choice([3, 10_000])), 0
    for number in range(30):
        minute += draw.choice([0, 1, 1, 5, 20])
        line = some_event(draw, number, minute) + draw.choice(["", "", " gpc"])
        world.accept([richer(draw, event(line))])
        if draw.random() < 0.5:
            world.advance()
        if draw.random() < 0.1 and world.engine.state.all_nodes():
            something_said(draw, world)
        if number in (14, 29):
            since = at("06:00") + draw.randrange(minute + 1) * 60_000_000
            wanted = Range(since, since + draw.choice([1, 30, 300]) * 60_000_000, draw.choice(["", "web"]))
            n = find(world.engine, wanted).n_events
            assert bool(remove(world.engine, wanted, "desk")) == bool(n)
    world.advance()
    world.assert_rebuilds()
    verify(world.engine)


def test_what_a_colleague_was_told_of_the_account_in_a_range_goes() -> None:
    world = offers_of_accounts()
    assert remove(world.engine, Range(at("09:00"), at("09:30"), "", "Account Joined"), "desk")
    assert "annaslifts" not in str(world.rows("SELECT * FROM outbox"))
    assert "annaslifts" not in str(world.rows("SELECT * FROM decisions"))
    verify(world.engine)
    world.assert_rebuilds()


def test_what_is_not_folded_yet_never_meets_the_gap_before_it_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Others have told so much since that a batch is full before the command."""
    waits = moment(
        "help", "searched: Help Searched | no chat: Chat Started, for 1 hour", more="expires: 1 day"
    )
    world = World(project(waits), batch_max=1)
    world.live("09:30 web u=anna Help Searched n_results=0")
    world.live("10:10 app u=anna Chat Started")
    world.until("11:00")

    def told(*given: object) -> None:
        world.tell("09:20>11:00 web u=anna Help Searched n_results=0")

    monkeypatch.setattr(removing, "tell_signals", told)
    monkeypatch.setattr(removing, "catch_up", lambda engine: world.catch_up())
    assert remove(world.engine, LEAK, "Data desk")
    assert len(world.missed()) == len(world.occurrences("help")) == 2
    assert not world.decisions() and not world.outbox()
    world.assert_rebuilds()


@pytest.mark.parametrize("step", ["the secrets know", "overwriting", "the fold"])
@pytest.mark.parametrize("is_after", [False, True])
def test_a_lake_that_is_refreshed_beside_the_erasure_of_a_range_has_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, is_after: bool
) -> None:
    """What happened since its last refresh is written just then, while some of it can still be read."""
    folder = tmp_path / "data"
    world = lived(folder)
    world.live("10:40>11:15 web u=dora Help Searched n_results=0 query=leakquery")
    other = World(project(GREETED), disk=world.disk, seed=2, starts="11:15").engine
    owner, name = STEPS[step]
    real = getattr(owner, name)

    def visited(*given: object) -> object:
        if not is_after:
            refresh(other.disk, other.journal, other.state)
        came_to = real(*given)
        if is_after:
            refresh(other.disk, other.journal, other.state)
        return came_to

    monkeypatch.setattr(owner, name, visited)
    remove(world.engine, LEAK, "Data desk")
    assert_removed(world, folder)


def test_two_ranges_are_removed_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of a row that both have entries in follows from what the first has left."""
    world = lived()
    monkeypatch.setattr(removing, "LOCK_WAIT_S", 0.0)
    with alone(world.disk, erasing.LOCK, erasing.BUSY), pytest.raises(Conflict):
        remove(world.engine, LEAK, "Data desk")
    assert find(world.engine, LEAK).n_events == 5
    remove(world.engine, LEAK, "Data desk")
    verify(world.engine)


def test_a_range_that_is_stopped_between_two_parts_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is entered is finished by whoever folds; the parts after it are not entered yet."""
    world, real = lived(), removing.catch_up
    monkeypatch.setattr(removing, "PLACES_MAX", 3)
    for n_whole, left in ((0, "run the same command again"), (1, "hetki erase --finish does the rest")):
        done: list[object] = []

        def stopped(engine: Engine, n_whole: int = n_whole, done: list[object] = done) -> None:
            if len(done) == n_whole:
                raise Unavailable(Fault("state.db", "database or disk is full", "a disk with room"))
            done.append(real(engine))

        monkeypatch.setattr(removing, "catch_up", stopped)
        with pytest.raises(Unavailable, match=left):
            remove(world.engine, LEAK, "Data desk")
        world.advance()
        finish(world.engine)
    assert find(world.engine, LEAK).places == []
    verify(world.engine)


def test_a_repeat_that_claims_another_time_takes_its_event_neither_out_nor_along() -> None:
    world = World(project(GREETED))
    world.live(
        """
        09:00 web id=one u=anna Customer Identified name=keptname
        10:01 web id=two u=bertta Customer Identified name=leakname
        10:30 web id=one u=anna gpc Customer Identified name=leakpage
        11:30 web id=two u=bertta Customer Identified name=leakquery
        """
    )
    before = world.rows("SELECT * FROM customers WHERE customer = ?", world.node("anna"))
    found = find(world.engine, LEAK)
    assert (found.n_events, len(found.places), found.signals) == (2, 3, [])
    remove(world.engine, LEAK, "Data desk")
    read = journal_of(world)
    assert b"leak" not in read and b"keptname" in read
    assert world.rows("SELECT * FROM customers WHERE customer = ?", world.node("anna")) == before
    assert world.customers() == ["anna"]
    world.assert_rebuilds()
    verify(world.engine)


def test_an_erasure_that_meets_a_range_just_entered_takes_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has entered it, and cannot overwrite while the erasure holds the journal."""
    world, real = lived(), erasing.advance

    def meanwhile(engine: Engine) -> None:
        real(engine)
        places = find(engine, LEAK).places
        engine.acceptor.command(removal_of(engine, "ab" * 16, places, "Data desk", engine.clock.now()))

    monkeypatch.setattr(erasing, "advance", meanwhile)
    erase(world.engine, LeafId(world.node("anna")), "Data desk")
    assert find(world.engine, LEAK).places == []
    assert [each.is_genuine for each in listed(world.engine.journal.secrets, world.engine.db)] == [True] * 2
    verify(world.engine)
    world.assert_rebuilds()


def test_a_range_that_is_entered_and_not_overwritten_yet_is_no_fault() -> None:
    """Of a row from which another range took something before; but only what one of the two has left."""
    world = World(project(GREETED))
    world.tell("10:00 web u=anna Page Viewed page=one\n10:30 web u=anna Page Viewed page=two")
    world.advance()
    remove(world.engine, Range(at("10:00"), at("10:10")), "Data desk")
    command = removal_of(world.engine, "ab" * 16, find(world.engine, LEAK).places, "Data desk", at("11:00"))
    journal = world.disk.connect("journal.db")
    (once,) = journal.execute("SELECT body FROM journal WHERE position = 1").fetchone()
    world.engine.acceptor.command(command)
    verify(world.engine)
    journal.execute("UPDATE journal SET body = ? WHERE position = 1", (once[:-1] + b"x",))
    with pytest.raises(Invalid):
        verify(world.engine)
    journal.execute("UPDATE journal SET body = ? WHERE position = 1", (once,))
    world.advance()
    verify(world.engine)
    journal.execute("UPDATE journal SET body = ? WHERE position = 1", (once,))
    with pytest.raises(Invalid):
        verify(world.engine)  # it is back


def test_who_asks_and_a_range_are_needed() -> None:
    world = lived()
    anna = LeafId(world.node("anna"))
    for name in (" ", "x" * 81, "a\x00b"):
        for asked in (partial(remove, world.engine, LEAK), partial(erase, world.engine, anna)):
            with pytest.raises(Invalid, match="--by"):
                asked(name)
        with pytest.raises(Invalid, match="--by"):
            expire(world.engine, name)
    with pytest.raises(Invalid):
        remove(world.engine, Range(at("11:00"), at("11:00")), "desk")
    told: list[Found] = []
    assert remove(world.engine, Range(at("2/10:00"), at("2/11:00")), "desk", told.append) == []
    assert [(each.n_events, each.places) for each in told] == [(0, [])]
    assert find(world.engine, Range(at("10:00"), at("11:00"), "app")).n_events == 0
    assert find(world.engine, Range(at("10:00"), at("11:00"), "", "Page Viewed")).n_events == 1
