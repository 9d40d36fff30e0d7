"""The lake: what grew by and by equals what is made at once, and every column stands in docs/lake.md."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from world import World, event, moment, project

from hetki.errors import Unavailable
from hetki.server import worker
from hetki.simulation.world import MemoryDisk
from hetki.store import lake, lake_files, lake_tables, sharing
from hetki.store.lake import EVENTS, ask, open_lake, refresh, remove_lake
from hetki.store.lake_files import EVENT_FILES, event_files, merge_small, read_mark
from hetki.store.lake_tables import MEMBERS, TABLES
from hetki.store.sharing import FREE
from hetki.store.system import SystemDisk

PAGE = Path(__file__).parent.parent / "docs" / "lake.md"
SCHEMAS = {"events": EVENTS, **lake.SCHEMAS}
STORY = """
    09:00 web u=anna mail=anna@kauppa.fi Customer Identified email=anna@kauppa.fi address='{"street":"K 1"}'
    09:00 web u=bertta Customer Identified address='{"street":"k 1"}'
    09:00 web u=anna g=kone Account Joined
    09:01 web u=anna a=web1 Consent Granted purpose=marketing
    10:00 web u=anna Product Added product_id=p1
    10:00 web a=web1 Help Searched n_results=0
    10:01 app u=bertta a=web1 Help Searched n_results=0
    10:02 app gpc Page Viewed path=/a
    09:59>10:03 shop u=anna Order Tracked order_id=o1
    10:03 web u=dora Processing Restricted
    10:04 hetki u=dora Restriction Lifted
"""
MORE = """
    10:20 web u=bertta p=cilla Customer Aliased
    10:21 web u=cilla Help Searched n_results=0
    10:05>10:22 app u=bertta Chat Started
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[MemoryDisk]:
    yield MemoryDisk(str(tmp_path))


def tables(world: World) -> dict[str, list[tuple[object, ...]]]:
    db = open_lake(world.disk)
    try:
        return {name: sorted(db.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in SCHEMAS}
    finally:
        db.close()


def refreshed(world: World) -> dict[str, list[tuple[object, ...]]]:
    refresh(world.disk, world.engine.journal, world.engine.state)
    return tables(world)


def rebuilt(world: World) -> dict[str, list[tuple[object, ...]]]:
    remove_lake(world.disk)
    return refreshed(world)


def living(disk: MemoryDisk) -> World:
    """A world that has lived: everything that a table of the lake can hold is there."""
    # what two users share stays with the first of them, so that some links stand and some are refused
    toml = '[household]\nsame = ["address.street"]\n[identity.anonymous_id]\nunique_ids_max = 2\n'
    world = World(project(None, toml), disk=disk)
    world.live(STORY)
    refreshed(world)
    world.until("10:15")
    world.deliver()
    world.tell(STORY)
    world.live(MORE)
    world.merge("anna", "bertta")
    world.advance()
    refreshed(world)
    world.unmerge()
    world.until("10:50")
    return world


def test_what_grew_equals_what_is_made_at_once(disk: MemoryDisk) -> None:
    world = living(disk)
    grown = refreshed(world)
    assert grown == rebuilt(world) == refreshed(world)
    assert all(grown.values()), {name: len(rows) for name, rows in grown.items()}


def test_small_steps_give_the_same(disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    world = living(disk)
    at_once = rebuilt(world)
    monkeypatch.setattr(lake, "ENTRIES_MAX", 3)
    monkeypatch.setattr(lake, "ENTRIES_READ", 2)
    monkeypatch.setattr(lake_tables, "ROWS_AT_ONCE", 1)
    assert rebuilt(world) == at_once
    monkeypatch.setattr(lake, "ENTRIES_MAX", 1)
    assert rebuilt(world) == at_once


@pytest.mark.parametrize("name", [each for each in TABLES if MEMBERS not in TABLES[each][1]])
def test_no_table_is_sorted_or_gathered_in_memory(name: str) -> None:
    """SQLite would do it whole; of members it does it for some accounts at a time."""
    plan = World().engine.db.execute(f"EXPLAIN QUERY PLAN {TABLES[name][1]}")
    steps = [row[3] for row in plan]
    assert steps and not [step for step in steps if re.search("TEMP B-TREE|MATERIALIZE|AUTOMATIC", step)]


def test_a_file_is_written_in_pieces_of_bounded_size(
    disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(disk=disk)
    n, largest = 2_000, {}
    world.accept([event(f"10:00 web u=u{number} Page Viewed") for number in range(n)])
    world.advance()

    def watched(name: str, data: bytes | Iterable[bytes]) -> None:
        pieces = [data] if isinstance(data, bytes) else list(data)
        largest[name] = max(map(len, pieces))
        write(name, pieces)

    write = disk.write
    monkeypatch.setattr(disk, "write", watched)
    monkeypatch.setattr(lake_tables, "ROWS_AT_ONCE", 100)
    refresh(world.disk, world.engine.journal, world.engine.state)
    whole = len(disk.read("lake/customers.parquet"))
    assert largest["lake/customers.parquet"] < whole / 5
    db = open_lake(disk)
    assert db.execute("SELECT count(*) FROM customers").fetchall() == [(n,)]
    db.close()


def test_an_interrupted_refresh_is_continued(disk: MemoryDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    world = living(disk)
    at_once = rebuilt(world)
    remove_lake(world.disk)
    monkeypatch.setattr(lake, "ENTRIES_MAX", 3)
    n_written = 0

    def interrupted(name: str, data: bytes, write: object = disk.write) -> None:
        nonlocal n_written
        n_written += 1
        if n_written in (2, 5, 9):
            raise KeyboardInterrupt
        assert callable(write)
        write(name, data)

    monkeypatch.setattr(disk, "write", interrupted)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            refresh(world.disk, world.engine.journal, world.engine.state)
    assert refreshed(world) == at_once


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh writes three entries at once, and four files of less than six events become one."""
    monkeypatch.setattr(lake, "ENTRIES_MAX", 3)
    monkeypatch.setattr(lake_files, "SMALL_MAX", 3)
    monkeypatch.setattr(lake_files, "ROWS_MIN", 6)


def crowd(world: World) -> None:
    """48 events of four customers, with a refresh after each eight."""
    for number in range(48):
        world.accept([event(f"11:{number:02} web u=user{number % 4} Help Searched query=q{number}")])
        if number % 8 == 7:
            world.advance()
            refresh(world.disk, world.engine.journal, world.engine.state)


def listed(disk: MemoryDisk) -> list[str]:
    """The ids in all files that count."""
    read = (pq.read_table(disk.path(name), columns=["event_id"]) for name in event_files(disk))
    return sorted(each for table in read for each in table["event_id"].to_pylist())


def test_small_files_become_one_and_nothing_else_changes(disk: MemoryDisk, small: None) -> None:
    world = living(disk)
    crowd(world)
    grown = refreshed(world)
    n_rows = {name: pq.read_metadata(disk.path(name)).num_rows for name in disk.names(EVENT_FILES)}
    few = Counter(name.rpartition("/")[0] for name, n in n_rows.items() if n < 6)
    assert max(few.values()) <= 3 and sum(n >= 6 for n in n_rows.values()) > 5, n_rows
    assert sum(n_rows.values()) == read_mark(disk).n_events == len(grown["events"])
    assert grown == rebuilt(world)


def test_whatever_interrupts_a_merge_each_event_is_there_once(
    disk: MemoryDisk, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For who asks before the next refresh, and after it."""
    world = World(disk=disk)
    with monkeypatch.context() as patched:
        patched.setattr(lake_files, "SMALL_MAX", 1_000)
        crowd(world)
        was, ids = refreshed(world), listed(disk)
    files = {name: disk.read(name) for name in disk.names("lake/**")}
    n_steps = 0
    for (step, every), is_after in product((("write", 1), ("remove", 9)), (False, True)):
        for n in range(1, 1_000, every):
            now = {name: disk.read(name) for name in disk.names("lake/**")}
            for name in now.keys() - files.keys():
                disk.remove(name)
            for name, data in files.items() - now.items():
                disk.write(name, data)
            if not is_stopped(disk, step, n, is_after, monkeypatch):
                break
            n_steps += 1
            assert listed(disk) == ids
            if n_steps % 10 == 0:
                assert tables(world) == was
                assert refreshed(world) == was and not read_mark(disk).hidden
    assert n_steps > 25, n_steps


def is_stopped(disk: MemoryDisk, step: str, n: int, is_after: bool, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Merge, and stop before or after the n-th step of a kind; False if there are not so many."""
    real = getattr(disk, step)

    def stopping(name: str, *data: bytes) -> None:
        nonlocal n
        n -= 1
        if is_after or n:
            real(name, *data)
        if n == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(disk, step, stopping)
        try:
            merge_small(disk, read_mark(disk))
        except KeyboardInterrupt:
            return True
    return False


def test_who_reads_while_files_are_merged_asks_again(disk: MemoryDisk, small: None) -> None:
    world = World(disk=disk)
    crowd(world)
    asked = []

    def question(db: duckdb.DuckDBPyConnection) -> list[tuple[object, ...]]:
        asked.append(len(disk.names(EVENT_FILES)))
        if len(asked) == 1:
            for name in disk.names(EVENT_FILES)[:5]:
                disk.remove(name)
        return db.execute("SELECT * FROM events").fetchall()

    assert len(ask(disk, question)) < 48 and asked[1] == asked[0] - 5
    with pytest.raises(Unavailable, match="files that can be read"):
        ask(disk, lambda db: db.execute(f"SELECT * FROM '{disk.path('lake/gone.parquet')}'").fetchall())


@pytest.mark.parametrize(("took_s", "rests_s"), [(0, 30), (1, 30), (2, 40), (60, 1_200)])
def test_a_refresh_that_takes_long_leaves_the_worker_free_for_as_much_longer(
    monkeypatch: pytest.MonkeyPatch, took_s: float, rests_s: float
) -> None:
    world = World()
    monkeypatch.setattr(worker, "refresh", lambda *given: world.clock.sleep(took_s))
    assert worker._lake(world.engine) == rests_s


def test_the_tables_say_what_happened(disk: MemoryDisk) -> None:
    world = living(disk)
    refreshed(world)
    db = open_lake(world.disk)
    queries = {
        "SELECT count(*), count(DISTINCT event_id) FROM events WHERE source <> 'hetki'": [(13, 13)],
        "SELECT count(*) FROM events WHERE gpc": [(1,)],
        "SELECT count(*) FROM events e JOIN customers c USING (leaf) JOIN customers u"
        " ON u.customer = c.customer AND u.namespace = 'user_id' WHERE e.name = 'Help Searched'"
        " AND e.source = 'web' AND json_extract_string(identifiers, '$.anonymous_id') = 'web1'": [(1,)],
        "SELECT kind, status FROM links ORDER BY ALL": [
            ("alias", "refused: two_unique_ids"),
            ("alias", "refused: unknown_identifier"),
            ("email", "stands"),
            ("login", "refused: two_unique_ids"),
            ("login", "stands"),
            ("merge", "revoked"),
        ],
        "SELECT moment, status, strftime(occurred_at, '%H:%M') FROM occurrences ORDER BY ALL": [
            ("basket", "caught", "10:30"),
            ("help", "caught", "10:10"),
            ("help", "caught", "10:31"),
            ("help", "retracted", "10:11"),
        ],
        "SELECT status, count(*) FROM deliveries GROUP BY 1 ORDER BY 1": [("sent", 2), ("waiting", 2)],
        "SELECT arm, count(*), max(propensity), max(holdout_share) FROM decisions GROUP BY 1": [
            ("answered", 4, 1.0, 0.0)
        ],
        "SELECT count(*) FROM decisions d JOIN customers c USING (leaf) WHERE c.customer <> d.customer": [
            (0,)
        ],
    }
    got = {query: db.execute(query).fetchall() for query in queries}
    assert got == queries


def test_a_deleted_lake_comes_back_equal_after_a_rebuild_of_the_state(disk: MemoryDisk) -> None:
    world = living(disk)
    before = refreshed(world)
    world.assert_rebuilds()
    assert rebuilt(world) == before


def test_an_erased_leaf_is_not_in_a_lake_that_is_made_again(disk: MemoryDisk) -> None:
    world = living(disk)
    refreshed(world)
    secrets = disk.connect("secrets.db")
    secrets.execute("DELETE FROM leaves WHERE leaf = ?", (world.node("anna"),))
    world.reopen()
    after = rebuilt(world)
    leaves = {row[0] for row in after["events"]}
    assert world.node("anna").hex() not in leaves and world.node("bertta").hex() in leaves


def test_an_empty_lake_has_all_tables_and_no_rows(disk: MemoryDisk) -> None:
    world = World(disk=disk)
    assert all(rows == [] for rows in tables(world).values()) and read_mark(disk).position == 0
    assert all(rows == [] for rows in refreshed(world).values())


def test_the_lake_is_not_ahead_of_the_fold(disk: MemoryDisk) -> None:
    world = World(disk=disk)
    world.live("10:00 web u=anna Page Viewed")
    world.tell("10:01 web u=anna Page Viewed")
    assert len(refreshed(world)["events"]) == 1
    world.advance()
    assert len(refreshed(world)["events"]) == 2


def test_months_and_buckets_are_folders(tmp_path: Path) -> None:
    seen = moment("seen", "a: Order Tracked")
    world = World(project(seen), disk=SystemDisk(tmp_path))
    world.live("10:00 web u=anna Page Viewed\n40/10:00 web u=anna Page Viewed")
    refreshed(world)
    bucket = world.node("anna").hex()[0]
    names = world.disk.names("lake/events/*/*/*")
    assert [name.rpartition("/")[0] for name in names] == [
        f"lake/events/bucket={bucket}/month=2026-03",
        f"lake/events/bucket={bucket}/month=2026-04",
    ]


def test_every_table_and_column_is_documented() -> None:
    """docs/lake.md names the tables in order, and of each its columns in order, with type and meaning; then
    what of them is shared without personal data."""
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    documented = {}
    for section in sections:
        name, _, text = section.partition("\n")
        documented[name.strip()] = re.findall(
            r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", text, flags=re.MULTILINE
        )
    assert documented.pop("Without personal data") == []
    shared = re.findall(r"^\| `(\w+)(?:/.*)?\.parquet` \| (.+) \|$", sections[-1], flags=re.MULTILINE)
    told = {name: tuple(re.findall(r"`(\w+)`", columns)) for name, columns in shared}
    assert told == {"events": tuple(sharing.EVENTS.names), **FREE}
    assert {name: [row[:2] for row in rows] for name, rows in documented.items()} == {
        name: [(field.name, str(field.type)) for field in schema] for name, schema in SCHEMAS.items()
    }
    assert list(documented) == list(SCHEMAS)
    assert all(
        len(meaning.strip()) > 8 or meaning.strip() == "the other"
        for _, rows in documented.items()
        for _, _, meaning in rows
    )


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM read_parquet('{root}/beside.parquet')",
        "SELECT * FROM read_parquet('{root}/lake/../beside.parquet')",
        "SELECT * FROM 'http://127.0.0.1:9/a.parquet'",
        "INSTALL httpfs",
        "ATTACH '{root}/beside.db'",
        "COPY (SELECT 1) TO '{root}/beside.csv'",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
    ],
)
def test_the_lake_opens_no_other_file_and_no_network(tmp_path: Path, query: str) -> None:
    disk = SystemDisk(tmp_path, durable=False)
    disk.write("beside.parquet", b"PAR1")
    db = open_lake(disk)
    with pytest.raises((duckdb.PermissionException, duckdb.InvalidInputException)):
        db.execute(query.format(root=tmp_path.resolve()))
    assert db.execute("SELECT count(*) FROM events").fetchall() == [(0,)]
