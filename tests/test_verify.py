"""Verifying: any changed byte of journal, decisions and receipts is found, and what is cut off at an end."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest
from test_erasure import Person, greeted, open_world
from world import World, at

from hetki.engine.erase import erase
from hetki.engine.rebuilding import rebuild
from hetki.engine.verifying import keep_heads, verify
from hetki.errors import HetkiError, Invalid
from hetki.events.event import LeafId
from hetki.simulation.world import SeededChance
from hetki.store.chain import SALT_BYTES, verify_chain
from hetki.store.journal import Journal
from hetki.store.ledger import Ledger
from hetki.store.secrets import Secrets
from hetki.store.system import SystemDisk


def decided(n: int = 3) -> World:
    """A world with some decisions."""
    world = greeted()
    for number in range(n):
        world.live(f"09:{number:02} web u=u{number} Help Searched n_results=0")
    return world


def flips(value: object, draw: random.Random) -> list[object]:
    """A value with each of its bytes changed in turn; a number in its digits."""
    if isinstance(value, bytes | str):
        data = value.encode() if isinstance(value, str) else value
        found: list[object] = []
        for place in range(len(data)):
            changed = bytearray(data)
            changed[place] ^= 1 << draw.randrange(7)
            found.append(changed.decode("latin-1") if isinstance(value, str) else bytes(changed))
        return found
    if isinstance(value, float):
        return [value + 0.5, value + 2**-40]
    return [] if value is None else [int(str(value)) + 1, -1]


def test_every_flipped_byte_of_a_decision_is_found() -> None:
    world, draw = decided(), random.Random(5)
    db = world.engine.db
    names = [row[1] for row in db.execute("PRAGMA table_info(decisions)")]
    salts = [row[0] for row in db.execute("SELECT salt FROM decisions")]
    assert len({*salts}) == 3 and all(len(each) == SALT_BYTES for each in salts)
    row = db.execute("SELECT * FROM decisions ORDER BY decided_at LIMIT 1 OFFSET 1").fetchone()
    before = verify_chain(db)
    n = 0
    for name, good in zip(names, row, strict=True):
        for bad in flips(good, draw):
            key = bad if name == "decision_id" else row[0]
            db.execute(f"UPDATE decisions SET {name} = ? WHERE decision_id = ?", (bad, row[0]))
            with pytest.raises(Invalid):
                verify_chain(db)
            db.execute(f"UPDATE decisions SET {name} = ? WHERE decision_id = ?", (good, key))
            n += 1
    assert n > 1_000
    assert verify_chain(db) == before


def test_what_is_told_folded_and_kept_while_it_walks_is_no_fault() -> None:
    """`hetki verify` runs beside `hetki serve`, and beside a backup."""
    world = decided()
    n_rows = world.engine.journal.head()[0]

    def meanwhile(position: int) -> None:
        if position == 1:
            world.live("20:00 web u=zoe Help Searched n_results=0")
            keep_heads(world.engine)

    assert verify(world.engine, meanwhile).n_rows == n_rows
    assert verify(world.engine).n_rows == n_rows + 1


def test_every_flipped_byte_of_a_link_is_found() -> None:
    world, draw = decided(), random.Random(6)
    db = world.engine.db
    row = db.execute("SELECT * FROM chain WHERE number = 2").fetchone()
    for name, good in zip(("number", "decision_id", "digest", "chain"), row[:4], strict=True):
        for bad in [77, -1] if name == "number" else flips(good, draw):
            number = bad if name == "number" else 2
            db.execute(f"UPDATE chain SET {name} = ? WHERE number = 2", (bad,))
            with pytest.raises(Invalid):
                verify(world.engine)
            db.execute(f"UPDATE chain SET {name} = ? WHERE number = ?", (good, number))
    assert verify(world.engine).n_decisions == 3


CHANGES: dict[str, str] = {
    "a decision is gone": """
        DELETE FROM decisions WHERE decision_id = (SELECT min(decision_id) FROM decisions)""",
    "a decision and its name are gone": """
        DELETE FROM decisions WHERE decision_id = (SELECT decision_id FROM chain WHERE number = 2);
        UPDATE chain SET decision_id = NULL WHERE number = 2""",
    "a decision and its link are gone": """
        DELETE FROM decisions WHERE decision_id = (SELECT decision_id FROM chain WHERE number = 2);
        DELETE FROM chain WHERE number = 2""",
    "the last is cut off": """
        DELETE FROM decisions WHERE decision_id = (SELECT decision_id FROM chain WHERE number = 3);
        DELETE FROM chain WHERE number = 3""",
    "a link is gone": "DELETE FROM chain WHERE number = 3",
    "two have changed names": """
        UPDATE chain SET decision_id = 'x' WHERE number = 1;
        UPDATE chain SET decision_id = (SELECT min(decision_id) FROM decisions
            WHERE decision_id NOT IN (SELECT decision_id FROM chain)) WHERE number = 2""",
    "another was taken for a blanked one": """
        UPDATE chain SET blanked = digest WHERE number = 2""",
    "one was blanked without a receipt": """
        UPDATE chain SET blanked = zeroblob(32) WHERE number = 2""",
    "one was slipped in": """
        INSERT INTO decisions SELECT 'new', 'new', moment, initiative, customer, occurred_at, decided_at, arm,
            chosen, propensity, holdout_share, record, account, salt FROM decisions LIMIT 1""",
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_other_change_of_decisions_is_found(change: str) -> None:
    world = decided()
    verify(world.engine)
    world.engine.db.executescript(CHANGES[change])
    with pytest.raises(Invalid):
        verify(world.engine)


def test_the_chain_outlives_erasures_and_rebuilds() -> None:
    world = decided()
    whole = verify_chain(world.engine.db)
    world.clock.move(at("10:00"))
    erase(world.engine, LeafId(world.node("u1")), "desk")
    erased = verify(world.engine)
    assert (erased.n_decisions, erased.n_erased, erased.n_receipts) == (2, 1, 1)
    assert verify_chain(world.engine.db).chain == whole.chain
    rebuild(world.engine)
    assert verify(world.engine) == erased
    world.live("10:01 web u=u9 Help Searched n_results=0")
    assert verify(world.engine).n_decisions == erased.n_decisions + 1


def test_a_changed_receipt_or_its_row_is_found() -> None:
    world, draw = decided(), random.Random(7)
    erase(world.engine, LeafId(world.node("u1")), "desk")
    db = world.engine.db
    (row,) = db.execute("SELECT * FROM erasures").fetchall()
    names = [each[1] for each in db.execute("PRAGMA table_info(erasures)")]
    for name, good in zip(names, row, strict=True):
        for bad in flips(good, draw)[::3]:
            key = bad if name == "erasure_id" else row[0]
            db.execute(f"UPDATE erasures SET {name} = ? WHERE erasure_id = ?", (bad, row[0]))
            with pytest.raises(Invalid):
                verify(world.engine)
            db.execute(f"UPDATE erasures SET {name} = ? WHERE erasure_id = ?", (good, key))
    verify(world.engine)


def test_a_journal_that_was_cut_off_is_found() -> None:
    world = decided()
    journal = world.disk.connect("journal.db")
    last = journal.execute("SELECT * FROM journal ORDER BY position DESC LIMIT 1").fetchone()
    journal.execute("DELETE FROM journal WHERE position = ?", last[:1])
    with pytest.raises(Invalid, match="which were folded"):
        verify(world.engine)
    world.engine.db.execute("UPDATE progress SET position = position - 1")
    verify(world.engine)  # cut off before the first walk, and not folded: nobody can know
    journal.execute("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?)", last)
    verify(world.engine)
    journal.execute("DELETE FROM journal WHERE position = ?", last[:1])
    with pytest.raises(Invalid, match="journal up to"):
        verify(world.engine)


def test_a_flipped_count_of_statements_is_found() -> None:
    """It says whether a send must wait until a withdrawal is folded."""
    world = greeted()
    world.tell("09:00 web u=anna Consent Withdrawn purpose=marketing")
    world.disk.connect("journal.db").execute("UPDATE journal SET n_statements = 0")
    with pytest.raises(Invalid, match="row 1"):
        verify(world.engine)


# -- in the files themselves


def content(folder: Path) -> tuple[object, ...]:
    """All of journal and decisions, read without any index."""
    found: list[object] = []
    for file, table in (("journal.db", "journal"), ("state.db", "decisions"), ("state.db", "chain")):
        db = sqlite3.connect(f"file:{folder / file}?immutable=1", uri=True)
        found += db.execute(f"SELECT * FROM {table} NOT INDEXED").fetchall()
        db.close()
    return tuple(found)


def test_a_flipped_byte_of_a_file_is_found_or_changes_nothing(tmp_path: Path) -> None:
    """Anywhere in the files: in a row, an index, the tree of pages, or where nothing lies."""
    world = open_world(tmp_path / "data")
    Person(1).lives(world, 0)
    world.engine.journal.truncate_log()
    world.engine.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    world.engine.journal.secrets.truncate_log()
    draw, good = random.Random(11), content(tmp_path / "data")
    folder = tmp_path / "flipped"
    folder.mkdir()
    names = ("journal.db", "state.db", "secrets.db")
    files = {name: (tmp_path / "data" / name).read_bytes() for name in names}
    n_found = 0
    for name, walk in (("journal.db", _journal), ("state.db", _decisions)):
        written = [place for place, byte in enumerate(files[name]) if byte]
        for place in draw.sample(written, 150):
            for each in folder.iterdir():
                each.unlink()
            for other, data in files.items():
                (folder / other).write_bytes(data)
            changed = bytearray(files[name])
            changed[place] ^= 1 << draw.randrange(8)
            (folder / name).write_bytes(changed)
            try:
                walk(folder)
            except HetkiError:
                n_found += 1
            else:
                assert content(folder) == good, f"{name}: byte {place}"
    assert n_found > 100


def _journal(folder: Path) -> None:
    disk, chance = SystemDisk(folder, durable=False), SeededChance(1)
    Journal(disk, chance, Secrets(disk, chance)).verify()


def _decisions(folder: Path) -> None:
    db = SystemDisk(folder, durable=False).connect("state.db")
    try:
        Ledger(db)
        verify_chain(db)
    finally:
        db.close()
