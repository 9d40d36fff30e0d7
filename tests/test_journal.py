"""The journal: durable, chained, sealed per leaf and period; what is erased is unreadable in every byte."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from threading import Thread
from weakref import ref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import World, at, event

from hetki.errors import Conflict, Invalid, Unavailable
from hetki.events.event import EventId, LeafId
from hetki.events.wire import Parsed
from hetki.settings import DAY
from hetki.simulation.world import MemoryDisk, SeededChance
from hetki.store import journal as kept_in
from hetki.store.journal import FRAME, ORIGIN, Entry, Journal, Kind
from hetki.store.ports import Disk
from hetki.store.secrets import Secrets
from hetki.store.system import SystemChance, SystemDisk

NOW = at("10:00")


def opened(disk: Disk, seed: int = 1) -> Journal:
    return Journal(disk, SeededChance(seed), Secrets(disk, SeededChance(seed + 1000)))


def entry(number: int, body: bytes = b"", leaf: int = 0, source: str = "web") -> Entry:
    event_id = EventId(number.to_bytes(16, "big"))
    return Entry(
        Kind.EVENT, LeafId(leaf.to_bytes(16, "big")), event_id, source, "2 years", body or b"%d" % number
    )


def rows(disk: Disk) -> list[tuple[object, ...]]:
    return disk.connect("journal.db").execute("SELECT * FROM journal ORDER BY position").fetchall()


BATCHES = st.lists(
    st.lists(
        st.tuples(st.integers(0, 5), st.binary(max_size=60), st.sampled_from(["web", "app"])), max_size=4
    ),
    max_size=6,
)


@settings(max_examples=60)
@given(BATCHES, st.integers(1, 9))
def test_what_is_read_is_what_was_appended(
    batches: Sequence[Sequence[tuple[int, bytes, str]]], n_entries_max: int
) -> None:
    disk = MemoryDisk()
    journal, number = opened(disk), 0
    expected: list[tuple[int, LeafId, EventId, bytes]] = []
    for batch in batches:
        entries = []
        for leaf, body, source in batch:
            number += 1
            entries.append(entry(number, body or b"-", leaf, source))
        position = journal.append([entries], NOW, 0)
        expected += [(position, each.leaf, each.event_id, each.body) for each in entries]
    assert journal.head()[0] == len(batches) == journal.verify()
    for reader in (journal, opened(disk, 2)):
        read, after = [], 0
        while stored := reader.read(after, n_entries_max):
            read += stored
            after = stored[-1].position
        assert [(each.position, each.leaf, each.event_id, each.body) for each in read] == expected
        assert all(each.received_at == NOW and each.kind is Kind.EVENT for each in read)
        places = [(each.position, each.frame_offset) for each in reversed(read)]
        assert reader.entries(places) == list(reversed(read))


@pytest.mark.parametrize("is_held", [False, True])
def test_what_python_keeps_of_bodies_that_were_read_in_part_has_a_bound(
    is_held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection keeps a weak reference to every blob that it ever opened, and to some 200 cursors."""
    monkeypatch.setattr(kept_in, "BLOBS_MAX", 5)
    disk = MemoryDisk()
    journal = opened(disk)
    journal.append([[entry(1), entry(2)], [entry(3)]], NOW, 0)
    places = [(each.position, each.frame_offset) for each in journal.read(0, 9)]
    before = n_dead()
    with journal.held() if is_held else nullcontext():  # what is not committed is seen by no other connection
        journal.append([[entry(4)]], NOW, 0)
        for _ in range(400):
            assert [each.event_id[-1] for each in journal.entries(places)] == [1, 2, 3]
        assert [each.event_id[-1] for each in journal.entries([(3, 0)])] == [4]
    journal.entries(places)
    journal.entries(places)
    assert n_dead() - before < 400
    assert journal.verify() == 3


def n_dead() -> int:
    """How many weak references there are to what is gone."""
    gc.collect()
    return sum(type(each) is ref and each() is None for each in gc.get_objects())


def test_a_row_is_never_read_in_part() -> None:
    journal = opened(MemoryDisk())
    journal.append([[entry(1), entry(2), entry(3)], [entry(4)]], NOW, 0)
    assert [each.event_id[-1] for each in journal.read(0, 1)] == [1, 2, 3]
    assert [each.event_id[-1] for each in journal.read(0, 4)] == [1, 2, 3, 4]
    assert journal.read(2, 1) == []


def test_statements_of_consent_are_known_by_their_position() -> None:
    journal = opened(MemoryDisk())
    journal.append([[entry(1)]], NOW, 0)
    journal.append([[entry(2)], [entry(3)]], NOW, 1)
    assert [journal.has_statements_after(position) for position in (0, 1, 2, 3)] == [True, True, True, False]


# -- the chain


@pytest.fixture(scope="module")
def chained() -> list[tuple[object, ...]]:
    disk = MemoryDisk()
    journal = opened(disk)
    for number in range(6):
        journal.append(
            [[entry(number * 2, b"body %d" % number, number), entry(number * 2 + 1)]], NOW + number, 0
        )
    return rows(disk)


def broken_at(changed: list[tuple[object, ...]]) -> str:
    """What verify says of these rows; "" if nothing."""
    disk = MemoryDisk()
    journal = opened(disk)
    db = disk.connect("journal.db")
    db.executemany("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?)", changed)
    try:
        journal.verify()
    except Invalid as error:
        return error.faults[0].where
    return ""


def test_every_flipped_bit_of_a_body_is_found(chained: list[tuple[object, ...]]) -> None:
    assert broken_at(chained) == ""
    *head, chain, body, was = chained[2]
    assert isinstance(body, bytes) and isinstance(chain, bytes)
    for place in range(len(body)):
        flipped = bytearray(body)
        flipped[place] ^= 1 << place % 8
        assert (
            broken_at([*chained[:2], (*head, chain, bytes(flipped), was), *chained[3:]])
            == "journal.db: row 3"
        )
    for place in range(len(chain)):
        flipped = bytearray(chain)
        flipped[place] ^= 1 << place % 8
        assert (
            broken_at([*chained[:2], (*head, bytes(flipped), body, was), *chained[3:]]) == "journal.db: row 3"
        )


def test_every_other_change_is_found(chained: list[tuple[object, ...]]) -> None:
    position, received_at, n_entries, n_statements, chain, body, was = chained[2]
    assert isinstance(received_at, int) and isinstance(n_entries, int) and isinstance(body, bytes)
    changes = {
        "another time": [
            *chained[:2],
            (position, received_at + 1, n_entries, n_statements, chain, body, was),
            *chained[3:],
        ],
        "another count": [
            *chained[:2],
            (position, received_at, n_entries + 1, n_statements, chain, body, was),
            *chained[3:],
        ],
        "cut": [
            *chained[:2],
            (position, received_at, n_entries, n_statements, chain, body[:-1], was),
            *chained[3:],
        ],
        "another body was there": [
            *chained[:2],
            (position, received_at, n_entries, n_statements, chain, body, b"\0" * 32),
            *chained[3:],
        ],
        "a row is gone": [*chained[:2], *chained[3:]],
        "the first is gone": chained[1:],
        "two changed places": [
            *chained[:2],
            (position, *chained[3][1:]),
            (chained[3][0], *chained[2][1:]),
            *chained[4:],
        ],
        "renumbered": [
            *chained[:2],
            *((number, *row[1:]) for number, row in enumerate(chained[3:], start=3)),
        ],
    }
    assert {name: broken_at(changed) != "" for name, changed in changes.items()} == dict.fromkeys(
        changes, True
    )


def test_a_changed_file_is_found_byte_by_byte(tmp_path: Path) -> None:
    """Flipped in the file itself, wherever a body lies; and no read gives wrong bytes as right ones."""
    disk = SystemDisk(tmp_path)
    journal = opened(disk)
    for number in range(5):
        journal.append([[entry(number, b"x" * 40)]], NOW + number, 0)
    for name in ("journal.db", "secrets.db"):
        disk.connect(name).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    good = (tmp_path / "journal.db").read_bytes()
    (body,) = disk.connect("journal.db").execute("SELECT body FROM journal WHERE position = 3").fetchone()
    start = good.index(body)
    for place in range(start, start + len(body), 7):
        changed = bytearray(good)
        changed[place] ^= 0x10
        folder = tmp_path / f"changed{place}"
        folder.mkdir()
        (folder / "journal.db").write_bytes(changed)
        (folder / "secrets.db").write_bytes((tmp_path / "secrets.db").read_bytes())
        with pytest.raises(Invalid, match="row 3"):
            opened(SystemDisk(folder)).verify()
    changed = bytearray(good)
    changed[start + len(body) - 1] ^= 1
    (folder / "journal.db").write_bytes(changed)
    with pytest.raises(Invalid, match="row 3 at byte 0"):
        opened(SystemDisk(folder)).read(0, 100)


def test_an_empty_journal_is_whole() -> None:
    journal = opened(MemoryDisk())
    assert journal.verify() == 0 and journal.head() == (0, ORIGIN) and journal.read(0, 10) == []


# -- several at once


def test_connections_that_append_in_turn_keep_one_chain() -> None:
    disk = MemoryDisk()
    journals = [opened(disk, seed) for seed in range(3)]
    positions = [
        journals[number % 3].append([[entry(number, leaf=number % 4)], [entry(number + 100)]], NOW, 0)
        for number in range(30)
    ]
    assert positions == [2 * number for number in range(1, 31)]
    assert journals[0].verify() == 60
    assert len(opened(disk, 9).read(0, 1000)) == 60


def test_processes_that_append_at_once_keep_one_chain(tmp_path: Path) -> None:
    disk = SystemDisk(tmp_path)
    opened(disk)
    errors: list[BaseException] = []

    def append(writer: int) -> None:
        try:
            mine = Journal(disk, SystemChance(), Secrets(disk, SystemChance()))
            for number in range(15):
                mine.append([[entry(writer * 100 + number, leaf=number % 3)]], NOW + writer, 0)
        except BaseException as error:  # whatever it is must fail the test, not the thread alone
            errors.append(error)

    threads = [Thread(target=append, args=(writer,)) for writer in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    journal = Journal(disk, SystemChance(), Secrets(disk, SystemChance()))
    assert journal.verify() == 45
    stored = journal.read(0, 1000)
    assert {int(each.body or b"") for each in stored} == {w * 100 + n for w in range(3) for n in range(15)}
    for writer in range(3):
        mine = [int(each.body or b"") for each in stored if int(each.body or b"") // 100 == writer]
        assert mine == sorted(mine), "of one writer, in its order"


def test_an_append_that_fails_leaves_nothing(tmp_path: Path) -> None:
    disk = SystemDisk(tmp_path)
    journal = opened(disk)
    journal.append([[entry(1)]], NOW, 0)
    pages = disk.connect("journal.db").execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages + 3}")
    with pytest.raises(Unavailable, match="full"):
        journal.append([[entry(2)], [entry(3, b"x" * 100_000)]], NOW, 0)
    assert journal.head()[0] == 1 == journal.verify() and len(journal.read(0, 10)) == 1
    journal._db.execute("PRAGMA max_page_count = 1073741823")
    assert journal.append([[entry(2)]], NOW, 0) == 2 == journal.verify()


def test_an_accept_that_fails_is_no_ack_and_the_repeat_has_one_effect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    told = [Parsed([event("10:00 web u=anna Help Searched n_results=0")], [])]
    acceptor, clock = world.engine.acceptor, world.clock
    clock.move(at("10:00"))
    world.engine.journal._db.execute("PRAGMA query_only = ON")
    with pytest.raises(Unavailable):
        acceptor.accept(told)
    world.advance()
    assert world.rows("SELECT 1 FROM events") == []
    world.engine.journal._db.execute("PRAGMA query_only = OFF")
    acceptor.accept(told)
    acceptor.accept(told)
    world.until("10:12")
    assert world.decisions() == ["10:12 help anna answered call"]


# -- sealed

CANARY = "canary-anna-7f3a"


def disk_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_personal_data_lies_in_the_journal_in_plain_text(tmp_path: Path) -> None:
    world = World(disk=SystemDisk(tmp_path))
    line = f"10:00 web u={CANARY} a={CANARY}-web mail={CANARY}@kauppa.fi tel=0401234567 id={CANARY}-id"
    world.tell(f"{line} Help Searched query={CANARY} n_results=0")
    world.tell(f"10:01 web u={CANARY} Customer Identified email={CANARY}@kauppa.fi")
    found = disk_bytes(tmp_path)
    assert {"journal.db", "journal.db-wal", "secrets.db"} <= set(found)
    for name, data in found.items():
        for form in (CANARY.encode(), CANARY.upper().encode(), CANARY.encode("utf-16-le"), b"0401234567"):
            assert form not in data, name
    world.advance()
    assert world.customers() != []
    for name, data in disk_bytes(tmp_path).items():
        assert not name.startswith(("journal", "secrets")) or CANARY.encode() not in data


def test_one_body_is_sealed_differently_each_time() -> None:
    disk = MemoryDisk()
    journal = opened(disk)
    journal.append([[entry(1, b"same body")], [entry(1, b"same body")]], NOW, 0)
    one, other = (row[5] for row in rows(disk))
    assert isinstance(one, bytes) and isinstance(other, bytes)
    assert one != other and one[: FRAME.size] == other[: FRAME.size]


def test_each_leaf_and_each_period_has_a_key_of_its_own() -> None:
    disk = MemoryDisk()
    journal = opened(disk)
    month = 31 * DAY
    for number, (leaf, source, when) in enumerate(
        [(1, "web", NOW), (2, "web", NOW), (1, "app", NOW), (1, "web", NOW + month), (1, "web", NOW + 1)]
    ):
        journal.append([[entry(number, b"body", leaf, source)]], when, 0)
    periods = disk.connect("secrets.db").execute("SELECT source, month FROM periods ORDER BY 1, 2").fetchall()
    assert periods == [("app", "2026-03"), ("web", "2026-03"), ("web", "2026-04")]
    for destroyed, unreadable in (
        ("DELETE FROM leaves WHERE leaf = x'00000000000000000000000000000002'", {1}),
        ("DELETE FROM periods WHERE source = 'app'", {2}),
        ("DELETE FROM periods WHERE source = 'web' AND month = '2026-04'", {3}),
        ("DELETE FROM leaves", {0, 1, 2, 3, 4}),
    ):
        copy = copied(disk)
        copy.connect("secrets.db").execute(destroyed)
        stored = opened(copy, 7).read(0, 100)
        assert {number for number, each in enumerate(stored) if each.body is None} == unreadable, destroyed
        assert opened(copy, 7).verify() == 5, "the chain is over the ciphertext, so it holds"


@pytest.mark.parametrize("table", ["leaves", "periods"])
def test_a_key_is_made_of_both_secrets(table: str) -> None:
    disk = MemoryDisk()
    opened(disk).append([[entry(1)]], NOW, 0)
    disk.connect("secrets.db").execute(f"UPDATE {table} SET secret = zeroblob(32)")
    disk.connect("secrets.db").execute("UPDATE leaves SET made_at = made_at - 1")
    with pytest.raises(Invalid, match="its key does not open"):
        opened(disk, 2).read(0, 10)


def copied(disk: MemoryDisk) -> MemoryDisk:
    """Another disk with the same databases."""
    copy = MemoryDisk()
    for name in ("journal.db", "secrets.db"):
        disk.connect(name).backup(copy.connect(name))
    return copy


def test_what_was_erased_is_unreadable_and_everything_else_still_folds() -> None:
    story = """
        10:00 web u=anna Help Searched n_results=0
        10:00 web u=bertta Help Searched n_results=0
        10:01 web a=web1 u=anna Order Tracked
        10:02 web a=web1 Page Viewed
    """
    world = World()
    world.tell(story)
    disk = world.disk
    disk.connect("secrets.db").execute("DELETE FROM leaves WHERE leaf = ?", (world.node("anna"),))
    world.reopen()
    world.until("10:12")
    assert world.occurrences() == ["10:10 help bertta: 10:00"]
    assert world.customers() == ["bertta", "web1"]
    assert [each.body is None for each in world.engine.journal.read(0, 100)] == [True, False, True, False]
    assert world.engine.journal.verify() == 1
    world.assert_rebuilds()


def test_who_comes_back_after_an_erasure_begins_anew() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=0")
    world.disk.connect("secrets.db").execute("DELETE FROM leaves WHERE leaf = ?", (world.node("anna"),))
    world.reopen()
    world.live("10:02 web u=anna Help Searched n_results=0")
    world.reopen()
    world.until("10:20")
    rebuilt_from = world.engine.journal.read(0, 100)
    assert [each.body is None for each in rebuilt_from] == [True, False]


def test_a_destroyed_period_does_not_lend_its_number() -> None:
    disk = MemoryDisk()
    opened(disk).append([[entry(1, b"one", source="web")]], NOW, 0)
    disk.connect("secrets.db").execute("DELETE FROM periods")
    opened(disk, 2).append([[entry(2, b"two", source="app")]], NOW, 0)
    assert [each.body for each in opened(disk, 3).read(0, 10)] == [None, b"two"]


def test_secrets_are_durable_before_what_they_seal(tmp_path: Path) -> None:
    disk = SystemDisk(tmp_path)
    journal = opened(disk)
    journal._db.execute("PRAGMA query_only = ON")
    with pytest.raises(Unavailable):
        journal.append([[entry(1, leaf=5)]], NOW, 0)
    leaves = disk.connect("secrets.db").execute("SELECT leaf FROM leaves").fetchall()
    assert leaves == [((5).to_bytes(16, "big"),)]


def test_lost_secrets_are_not_made_anew_beside_a_journal_that_needs_them() -> None:
    disk = MemoryDisk()
    world = World(disk=disk)
    world.live("10:00 web u=anna Help Searched n_results=0")
    disk.remove("secrets.db")
    with pytest.raises(Conflict, match="backup"):
        World(disk=disk)


@pytest.mark.parametrize("file", ["journal.db", "secrets.db", "state.db"])
def test_files_of_another_version_are_refused(file: str) -> None:
    disk = MemoryDisk()
    world = World(disk=disk)
    world.live("10:00 web u=anna Help Searched n_results=0")
    disk.connect(file).execute("PRAGMA user_version = 99")
    with pytest.raises(Conflict, match=f"{file}: got tables of version 99"):
        World(disk=disk)


def test_a_walk_over_large_rows_holds_few_of_them() -> None:
    """Backups and `hetki verify` walk them all, and every engine that is opened what is not folded yet."""
    journal = opened(MemoryDisk())
    for number in range(40):
        journal.append([[entry(number, bytes(1_000_000))]], NOW, 1)
    for walk in (lambda: journal.rows(0, 40), lambda: journal.commands_after(0)):
        tracemalloc.start()
        n_rows = sum(1 for _ in walk())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert n_rows in (0, 40) and peak < 20_000_000


def test_who_appends_does_not_wait_until_all_rows_are_replaced() -> None:
    disk = MemoryDisk()
    journal, other = opened(disk), opened(disk, 2)
    for number in range(30):
        journal.append([[entry(number)]], NOW, 0)
    before = [row.body for row in journal.rows(0, 30)]

    def replaced() -> Iterator[tuple[int, bytes]]:
        for number, body in enumerate(before):
            if number == 20:
                assert other.append([[entry(99)]], NOW, 0) == 31
            yield number + 1, body[:-1] + b"\0"

    journal.replace(replaced())
    assert [row.body[-1:] for row in journal.rows(0, 30)] == [b"\0"] * 30
    assert all(row.was is not None for row in journal.rows(0, 30)) and journal.verify() == 31
