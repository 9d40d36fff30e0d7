"""Backups: what is restored is what was live, nobody who was erased comes back, and nothing is sent twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import msgspec
import pytest
from test_erasure import (
    Killed,
    Person,
    assert_gone,
    event,
    every_byte,
    greeted,
    journal_of,
    killed,
    offers_of_accounts,
    open_world,
    rows_of,
    secrets_of,
    sightings,
    two_lives,
)
from world import World, at

import hetki.engine.restoring as restoring
from hetki.engine import backup as backing_up
from hetki.engine.accept import take_secrets
from hetki.engine.backup import ABOUT, ABOUT_NOBODY, BackedUp, Sealed, backup, sealed_rows
from hetki.engine.engine import Engine
from hetki.engine.erase import erase, erasure_of, finish
from hetki.engine.manifests import FILE, Manifest, SecretsManifest, newest, read_manifest, whole
from hetki.engine.receipts import listed
from hetki.engine.restoring import Opened, Restored, choose, look_over, open_rows, restore
from hetki.engine.verifying import verify
from hetki.errors import Conflict, Fault, Invalid, NotFound, Unavailable
from hetki.events.event import LeafId
from hetki.events.wire import Parsed
from hetki.settings import DAY
from hetki.simulation.world import MemoryDisk, SeededChance
from hetki.store.journal import Journal
from hetki.store.parts import read_parts
from hetki.store.ports import Disk
from hetki.store.sealing import Sealer
from hetki.store.secrets import Secrets
from hetki.store.system import SystemDisk


class Vault:
    """Where backups and copies of secrets go."""

    def __init__(self) -> None:
        self.backups = MemoryDisk()
        self.secrets = MemoryDisk()

    def take(self, world: World) -> BackedUp:
        return backup(world.engine, self.backups, self.secrets)

    def choose(self, folder: str = "") -> Opened:
        return choose(self.backups, folder or newest(self.backups, "backups"), self.secrets)

    def restore(
        self, world: World, folder: str = "", data: Disk | None = None, is_held: bool = True
    ) -> tuple[World, Restored]:
        """Another machine: the same clock and network, and chance of its own."""
        data = data or MemoryDisk()
        chance = SeededChance(77)
        done = restore(self.choose(folder), MemoryDisk(), data, world.clock, chance, {}, is_held)
        other = World(world.engine.project, disk=data, seed=78)
        other.clock = world.clock
        other.posts, other.mails = world.posts, world.mails
        other.reopen()
        return other, done


def projections(world: World) -> list[tuple[object, ...]]:
    return list(world.engine.state.rows())


def ledger(world: World) -> dict[str, list[tuple[object, ...]]]:
    tables = [*ABOUT, "decisions_used", *(each for each in ABOUT_NOBODY if each != "restored")]
    return {table: world.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables}


def lived_in_memory() -> tuple[World, Person, Person]:
    world, person, control = greeted(), Person(1), Person(2)
    person.lives(world, 0)
    control.lives(world, 10)
    return world, person, control


def test_what_is_restored_is_what_was_live() -> None:
    world, person, _ = lived_in_memory()
    world.merge("m1", "m2")
    world.advance()
    erase(world.engine, person.leaf(world), "desk")
    vault = Vault()
    done = vault.take(world)
    was, deeds = projections(world), ledger(world)
    assert all(
        deeds[table] for table in ("decisions", "assignments", "outbox", "attempts", "erasures", "chain")
    )
    other, told = vault.restore(world, is_held=False)
    assert projections(other) == was
    assert ledger(other) == deeds
    assert verify(other.engine) == verify(world.engine)
    assert (told.position, told.n_erased_rows, told.n_erasures) == (done.position, 0, 0)
    other.assert_rebuilds()
    for each in (world, other):  # and both go on the same
        each.live("10:00 web u=later Help Searched n_results=0")
    assert projections(other) == projections(world)
    new, same = ledger(other), ledger(world)
    n = len(deeds["chain"])
    assert new["chain"][:n] == same["chain"][:n] == deeds["chain"]
    assert [link[:2] for link in new["chain"][n:]] == [link[:2] for link in same["chain"][n:]] != []
    *same_decisions, salt = zip(*same["decisions"], strict=True)
    *new_decisions, other_salt = zip(*new["decisions"], strict=True)
    assert new_decisions == same_decisions and other_salt != salt, "what chance draws is another"
    assert verify(other.engine) == verify(world.engine)


def test_a_story_with_everything_in_the_ledger_comes_back() -> None:
    """Revisions, missed occurrences, messages in every state, a later version of the declarations."""
    world, vault = World(), Vault()
    world.live(
        """
        09:00 web u=anna mail=anna@kauppa.fi Consent Granted purpose=marketing
        09:01 web u=anna Product Viewed product_id=p1
        09:02 web u=anna Product Viewed product_id=p1
        09:03 web u=anna Help Searched n_results=0
        """
    )
    world.until("09:14")
    world.live("09:10>09:15 web u=anna Chat Started")
    world.live("06:00>09:16 web u=bertta Help Searched n_results=0")
    assert world.revisions() and world.missed()
    vault.take(world)
    other, _ = vault.restore(world, is_held=False)
    assert (projections(other), ledger(other)) == (projections(world), ledger(world))


def test_a_sealed_row_names_nobody_and_a_stolen_backup_reads_nothing() -> None:
    world, person, control = lived_in_memory()
    vault = Vault()
    vault.take(world)
    data = b"".join(vault.backups.read(name) for name in vault.backups.names("**/*"))
    for one in (person, control):
        assert not [field for field, canary in one.canary.items() if canary.encode() in data]
    assert b"Help Searched" not in data and b"greet" not in data


# -- erasure


def readable(opened: Opened, copy: SecretsManifest) -> bytes:
    """All that a backup and a copy of secrets give away: ledger, journal, and the rows of secrets."""
    data, chance = MemoryDisk(), SeededChance(5)
    secrets = Secrets(data, chance)
    rows = [tuple(row) for row in read_parts(opened.copies, copy.backup_id, copy.secrets)]
    secrets.bring_back((str(table), row) for table, *row in rows)
    journal = Journal(data, chance, secrets)
    journal.bring_back(restoring._rows(opened.backup, opened.folder, opened.manifest))
    told = [each.body or b"" for each in journal.read(0, 10**6)]
    told += [repr(row).encode() for _, row in open_rows(opened, Sealer(secrets, chance)) if row is not None]
    return b"".join(told)


def test_yesterdays_backup_is_unreadable_after_an_erasure() -> None:
    world, person, control = lived_in_memory()
    vault = Vault()
    yesterday = vault.take(world)
    opened = vault.choose()
    before = readable(opened, opened.secrets)
    for one in (person, control):
        unseen = [field for field, canary in one.canary.items() if canary.encode() not in before]
        assert not unseen, "the scan is blind"
    erase(world.engine, person.leaf(world), "desk")
    world.clock.move(world.clock.now() + DAY)
    assert vault.take(world).n_thrown_away == 1, "the copy of secrets from before the erasure is gone"
    opened = vault.choose(yesterday.backup)
    after = readable(opened, opened.secrets)
    assert not [field for field, canary in person.canary.items() if canary.encode() in after]
    assert not [field for field, canary in control.canary.items() if canary.encode() not in after]


@pytest.mark.parametrize("when", ["before", "half way", "after it came back"])
def test_yesterdays_backup_restored_brings_nobody_back(tmp_path: Path, when: str) -> None:
    """The backup is older than the erasure, or was taken between its steps; or the person came back since."""
    folder, vault = tmp_path / "data", Vault()
    world, person, control = two_lives(folder)
    leaf, other_leaf = person.leaf(world), control.leaf(world)
    secrets = secrets_of(world, leaf)
    if when == "half way":
        world.engine.acceptor.command(erasure_of(world.engine, {leaf}, "desk"))
    yesterday = vault.take(world)
    if when == "half way":
        world.advance()
        assert finish(world.engine) == 1
    else:
        erase(world.engine, leaf, "desk")
    if when == "after it came back":
        world.accept([person.event("Consent Granted", "09:50", 40, purpose="marketing")])
        world.advance()
        assert person.canary["user"].encode() in journal_of(world)
    world.clock.move(world.clock.now() + 1_000_000)
    world.advance()
    vault.take(world)
    new = tmp_path / "new"
    other, done = vault.restore(world, yesterday.backup, SystemDisk(new, durable=False))
    assert done.n_erasures == (when != "half way") and done.n_erased_rows > 0
    assert_gone(other, new, person, secrets)
    kept, was = rows_of(other, other_leaf), rows_of(world, other_leaf)
    late = {"customers", "occurrences", "decisions"} if when == "after it came back" else set()
    assert {name for name in was if kept[name] != was[name]} <= late | {"outbox"}
    assert verify(other.engine).n_receipts == 1
    other.assert_rebuilds()
    if when != "after it came back":  # and is refused as ever
        other.accept([person.event("Chat Started", "10:10", 41)])
        other.advance()
        assert not [each for each in person.canary.values() if each.encode() in journal_of(other)]
        assert not sightings(every_byte(new), person.canary)["user"]


@pytest.mark.parametrize("when", ["before", "half way"])
def test_an_answer_to_somebody_else_that_used_erased_data_is_not_given_again(when: str) -> None:
    """The backup is older than the erasure, or was taken after its command and before that was folded."""
    world, vault = greeted(), Vault()
    world.live(
        """
        09:00 web u=anna Customer Identified name=Anna
        09:01 web u=bertta Customer Identified name=Bertta
        """
    )
    world.live("09:02 web u=anna Help Searched n_results=0")
    (decision,) = world.records()
    record = decision.question
    other = world.node("bertta")
    # as after an unmerge: decided for anna, with data of bertta
    world.engine.db.execute("DELETE FROM decisions")
    world.engine.db.execute("DELETE FROM chain")
    world.engine.db.execute("DELETE FROM assignments")
    question = msgspec.structs.replace(record, data_of=sorted([*record.data_of, other.hex()]))
    decision = msgspec.structs.replace(decision, question=question)
    world.engine.ledger.record(decision, LeafId(world.node("anna")), b"s" * 16)
    if when == "before":
        vault.take(world)
        erase(world.engine, LeafId(other), "desk")
    else:
        command = erasure_of(world.engine, {LeafId(other)}, "desk")
        world.engine.acceptor.command(command)
        take_secrets(world.engine.journal.secrets, command)
        vault.take(world)
        world.advance()
        finish(world.engine)
    world.clock.sleep(1)
    vault.take(world)
    restored, _ = vault.restore(world, whole(vault.backups)[-1])
    missed = "SELECT occurrence_id, moment, customer, occurred_at, expires_at, missed_at FROM missed"
    assert restored.rows(missed) == world.rows(missed) != []
    assert not restored.rows("SELECT * FROM decisions")
    verify(restored.engine)


@pytest.mark.parametrize("when", ["before", "half way", "half way and no later copy"])
def test_what_a_colleague_was_told_of_the_account_by_somebody_erased_since_does_not_come_back(
    when: str,
) -> None:
    """The row is about the colleague, and of the account nobody is left who told it."""
    world, vault = offers_of_accounts(), Vault()
    anna = LeafId(world.node("anna"))
    if when != "before":
        command = erasure_of(world.engine, {anna}, "desk")
        world.engine.acceptor.command(command)
        take_secrets(world.engine.journal.secrets, command)
    before = vault.take(world)
    opened = vault.choose()
    assert (b"annaslifts" in readable(opened, opened.secrets)) == (when == "before")
    if when == "before":
        erase(world.engine, anna, "desk")
    world.advance()
    finish(world.engine)
    world.clock.sleep(1)
    if when != "half way and no later copy":
        vault.take(world)
    assert b"annaslifts" not in readable(vault.choose(before.backup), vault.choose().secrets)
    other, _ = vault.restore(world, before.backup)
    assert [each.question.context for each in other.records()] == [{}]
    assert "annaslifts" not in str(other.rows("SELECT * FROM outbox"))
    verify(other.engine)
    other.assert_rebuilds()


def test_an_erasure_that_was_half_done_counts_what_did_not_come_back_because_of_it() -> None:
    """No later backup was made: nothing but the erasure itself can say why these decisions are gone."""
    world, person, _ = lived_in_memory()
    vault, leaf = Vault(), person.leaf(world)
    n_decisions = len(world.rows("SELECT 1 FROM decisions WHERE customer = ?", leaf))
    command = erasure_of(world.engine, {leaf}, "desk")
    world.engine.acceptor.command(command)
    take_secrets(world.engine.journal.secrets, command)
    vault.take(world)
    other, _ = vault.restore(world)
    assert n_decisions > 0 and not other.rows("SELECT 1 FROM decisions WHERE customer = ?", leaf)
    (receipt,) = listed(other.engine.journal.secrets, other.engine.db)
    assert receipt.is_genuine
    ((destroyed,),) = other.rows("SELECT destroyed FROM erasures")
    assert isinstance(destroyed, bytes) and msgspec.json.decode(destroyed)["decisions"] == n_decisions
    assert verify(other.engine).n_erased == n_decisions


def test_copies_of_secrets_are_kept_for_seven_days_and_not_beyond_an_erasure() -> None:
    world, vault = greeted(), Vault()
    other = World(seed=9)  # another project, which uses the same folder
    backup(other.engine, vault.backups, vault.secrets)
    for day in range(9):
        world.clock.move(at(f"{day + 3}/03:00"))
        vault.take(world)
    assert len(whole(vault.backups)) == 10 and len(whole(vault.secrets)) == 8 + 1
    world.live("20/09:00 web u=anna Help Searched n_results=0")
    erase(world.engine, LeafId(world.node("anna")), "desk")
    assert vault.take(world).n_thrown_away == 8
    assert len(whole(vault.secrets)) == 1 + 1, "the other project's is left alone"


# -- nothing twice


def test_what_may_have_been_sent_since_is_not_sent_again() -> None:
    world, vault = World(), Vault()
    world.live("09:00 web u=anna Help Searched n_results=0")
    world.until("09:11")
    vault.take(world)
    world.deliver()
    world.live("09:12 web u=bertta Help Searched n_results=0")
    world.until("09:23")
    world.deliver()
    assert len(world.posts) == 2
    other, done = vault.restore(world)
    assert done.n_held == 1
    for line in (
        "09:12 web u=bertta Help Searched n_results=0",
        "09:25 web u=cilla Help Searched n_results=0",
    ):
        other.live(line)  # a sender repeats what was lost, and what is new is new
    other.until("09:36")
    other.deliver()
    assert [headers["webhook-id"] for headers, _ in other.posts] == list(
        dict.fromkeys(headers["webhook-id"] for headers, _ in other.posts)
    )
    assert len(other.posts) == 3
    assert other.missed() == ["09:22 help bertta"]
    assert "restored from a backup" in other.outbox()[0]
    other.assert_rebuilds()


def test_what_the_journal_of_a_backup_tells_of_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was sent while the backup was made: after the ledger was copied, and before the journal was."""
    world, vault = World(), Vault()
    world.live("09:00 web u=anna Help Searched n_results=0")
    world.until("09:11")
    copied: list[bool] = []

    def sealed(engine: Engine) -> Iterator[Sealed]:
        yield from sealed_rows(engine)
        copied.append(True)

    def head() -> tuple[int, bytes]:
        if copied:
            world.deliver()
        return Journal.head(world.engine.journal)

    with monkeypatch.context() as patch:
        patch.setattr(backing_up, "sealed_rows", sealed)
        patch.setattr(world.engine.journal, "head", head)
        vault.take(world)
    assert len(world.posts) == 1
    other, _ = vault.restore(world, is_held=False)
    assert "waiting" in other.outbox()[0]
    other.advance()
    other.deliver()
    assert len(other.posts) == 1 and "sent" in other.outbox()[0]


def test_who_wants_it_sent_again_gets_the_same_id() -> None:
    world, vault = World(), Vault()
    world.live("09:00 web u=anna Help Searched n_results=0")
    world.until("09:11")
    vault.take(world)
    world.deliver()
    other, done = vault.restore(world, is_held=False)
    other.deliver()
    assert done.n_held == 0 and len(other.posts) == 2
    assert len({headers["webhook-id"] for headers, _ in other.posts}) == 1


def test_no_number_is_given_again() -> None:
    world, vault = World(), Vault()
    world.live("09:00 web u=anna Help Searched n_results=0")
    world.disk.connect("secrets.db").execute("UPDATE sqlite_sequence SET seq = 40")
    vault.take(world)
    other, _ = vault.restore(world)
    other.live("09:10 app u=anna Help Searched n_results=0")
    numbers = other.disk.connect("secrets.db").execute("SELECT period FROM periods ORDER BY 1").fetchall()
    assert numbers == [(1,), (41,)]


# -- half way


def test_a_backup_that_was_stopped_half_way_is_recognised_and_cleared_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, _, _ = lived_in_memory()
    backups, copies = SystemDisk(tmp_path / "b"), SystemDisk(tmp_path / "s")
    n_writes = stop_at = 0
    write = SystemDisk.write

    def counts(disk: SystemDisk, name: str, data: bytes) -> None:
        nonlocal n_writes
        n_writes += 1
        if n_writes == stop_at:
            raise Unavailable(Fault(name, "no room", "room"))
        write(disk, name, data)

    monkeypatch.setattr(SystemDisk, "write", counts)
    for number in range(1, 8):
        n_writes, stop_at = 0, number
        world.clock.move(world.clock.now() + 1_000_000)
        with pytest.raises(Unavailable):
            backup(world.engine, backups, copies)
        for disk, kind in ((backups, Manifest), (copies, SecretsManifest)):
            for name in {name.partition("/")[0] for name in disk.names("*/*")}:
                if name not in whole(disk):
                    with pytest.raises(NotFound, match="half way"):
                        read_manifest(disk, name, kind)
    stop_at = 0
    n_whole = len(whole(backups))
    done = backup(world.engine, backups, copies)
    assert len(whole(backups)) == n_whole + 1 and whole(copies) == [done.secrets]
    for disk in (backups, copies):
        assert {name.partition("/")[0] for name in disk.names("**/*")} == set(whole(disk))
    look_over(backups, done.backup)


STEPS = ["_bring_ledger", "fold_again", "_erase_again", "catch_up", "finish"]


@pytest.mark.parametrize("step", STEPS)
def test_nobody_opens_what_is_not_restored_to_its_end(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    world, person, _ = lived_in_memory()
    vault = Vault()
    yesterday = vault.take(world)
    erase(world.engine, person.leaf(world), "desk")
    world.clock.sleep(1)
    vault.take(world)
    data = MemoryDisk()
    with monkeypatch.context() as patched:
        patched.setattr(restoring, step, killed(getattr(restoring, step), step in ("fold_again", "finish")))
        with pytest.raises(Killed):
            vault.restore(world, yesterday.backup, data)
    with pytest.raises(Conflict, match="not finished"):
        World(world.engine.project, disk=data)
    with pytest.raises(Conflict, match="empty folder"):
        vault.restore(world, yesterday.backup, data)
    vault.restore(world, yesterday.backup)


def test_secrets_that_are_older_or_of_another_project_are_refused() -> None:
    world, vault, other = greeted(), Vault(), World(seed=9)
    first = vault.take(world)
    world.clock.move(at("2/09:00"))
    second = vault.take(world)
    vault.secrets.remove(second.secrets)
    assert vault.choose(first.backup).secrets.backup_id == first.secrets
    with pytest.raises(Invalid, match="or newer"):
        vault.choose(second.backup)
    with pytest.raises(NotFound):
        choose(vault.backups, first.backup, MemoryDisk())
    backup(other.engine, MemoryDisk(), vault.secrets)
    vault.secrets.remove(first.secrets)
    with pytest.raises(NotFound, match="this project's"):
        vault.choose(first.backup)


def test_the_newest_of_several_in_one_second_is_the_last() -> None:
    """Each has a leaf more, which only its own copy of secrets and later ones can read."""
    world, vault = greeted(), Vault()
    made = []
    for number in range(6):
        world.live(f"09:00 web u=u{number} Help Searched n_results=0")
        world.clock.sleep(0.000_001)
        made.append(vault.take(world).backup)
        assert newest(vault.backups, "backups") == made[-1]
        assert vault.choose(made[0]).secrets.backup_id == made[-1]
    assert made == sorted(made)


# -- bytes


def flipped(data: bytes, place: int, draw: random.Random) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed)


def test_any_flipped_byte_of_a_backup_is_found() -> None:
    world, _, _ = lived_in_memory()
    vault, draw = Vault(), random.Random(3)
    done = vault.take(world)
    assert look_over(vault.backups, done.backup)[0] == 2 and look_over(vault.secrets, done.secrets)[0] == 1
    n = 0
    for disk in (vault.backups, vault.secrets):
        for name in disk.names("**/*"):
            good = disk.read(name)
            kind = Manifest if disk is vault.backups else SecretsManifest
            for place in range(0, len(good), 1 if name.endswith(FILE) else 10):
                disk.write(name, flipped(good, place, draw))
                with pytest.raises(Invalid):
                    if name.endswith(FILE):
                        read_manifest(disk, done.backup, kind)
                    else:
                        look_over(disk, done.backup)
                n += 1
            disk.write(name, good)
    assert n > 2_000
    look_over(vault.backups, done.backup)


def test_a_broken_backup_is_not_restored() -> None:
    world, _, _ = lived_in_memory()
    vault = Vault()
    vault.take(world)
    (part,) = vault.backups.names("*/ledger/*")
    good = vault.backups.read(part)
    vault.backups.write(part, flipped(good, len(good) - 1, random.Random(1)))
    with pytest.raises(Invalid, match="another hash"):
        vault.restore(world)


# -- while it runs


def test_a_backup_while_others_write_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    world = open_world(folder)
    world.live("07:00 web u=first Help Searched n_results=0")
    over, failed, vault = Event(), [], Vault()

    def lives() -> None:
        try:
            busy = open_world(folder, seed=8)
            for number in range(10**6):
                if over.is_set():
                    return
                line = f"07:{number % 50:02} web u=u{number % 40} id=e{number} Help Searched n_results=0"
                busy.engine.acceptor.accept([Parsed([event(line)], [])])
                if number % 5 == 0:
                    busy.advance()
                if number % 20 == 0:
                    busy.deliver()
        except BaseException as error:  # whatever it is must fail the test, not the thread alone
            failed.append(error)

    thread = Thread(target=lives)
    thread.start()
    try:
        for _ in range(3):
            world.clock.move(world.clock.now() + 1_000_000)
            while world.engine.journal.head()[0] < 30 * (len(whole(vault.backups)) + 1):
                assert not failed
            vault.take(world)
    finally:
        over.set()
        thread.join()
    assert not failed
    for name in whole(vault.backups):
        other, done = vault.restore(world, name)
        assert verify(other.engine).n_rows == done.position >= 30
        decided = other.rows("SELECT count(*) FROM decisions")
        assert decided == other.rows("SELECT count(*) FROM chain WHERE decision_id IS NOT NULL")
        other.assert_rebuilds()
