"""Who is restricted is kept in the lake and used for nothing: no figure, no backtest, nothing shared."""

from __future__ import annotations

import json
import random
from pathlib import Path

import duckdb
import msgspec
import pytest
from world import World, moment, project

from hetki.consent.statements import is_restricted, whole
from hetki.engine.backtest import backtest
from hetki.engine.erase import erase
from hetki.engine.report import render_report, report
from hetki.engine.rights import Entered, enter, restriction
from hetki.events.event import LeafId
from hetki.identity.identifier import NodeId
from hetki.measurement.effect import Effect
from hetki.measurement.outcome import measured
from hetki.moments.fold import decode
from hetki.settings import SECOND
from hetki.simulation.world import MemoryDisk
from hetki.store.identity_views import IdentityViews
from hetki.store.lake import open_lake, refresh
from hetki.store.lake_files import MARK, read_mark, save_mark
from hetki.store.restricted import FILE, n_restricted
from hetki.store.sharing import Shared, share

N = 12
USERS = [f"u{number}" for number in range(N)]
HELP = moment(
    "help",
    "searched: Help Searched where n_results = 0 | no chat: Chat Started, for 10 minutes",
    holdout="50%",
)


def entered(world: World, user: str, what: Entered) -> None:
    """What staff enter, for every leaf that the customer has."""
    node = NodeId(world.node(user))
    customer = world.engine.state.customers_of([node])[node]
    leaves = IdentityViews(world.engine.db).nodes(world.engine.state.members([customer])[customer])
    world.clock.move(world.clock.now() + SECOND)
    enter(world.engine.acceptor.accept, world.clock, world.chance, list(leaves.values()), what)
    world.advance()


def restrict(world: World, *users: str) -> None:
    for user in users:
        entered(world, user, restriction("Sami"))


def lift(world: World, *users: str) -> None:
    for user in users:
        entered(world, user, restriction("Sami", lifts=True))


def lake_of(world: World) -> duckdb.DuckDBPyConnection:
    refresh(world.disk, world.engine.journal, world.engine.state)
    return open_lake(world.disk)


def lived(tmp_path: Path) -> World:
    """Everybody was looked after at 10:10 or held out, and the first of each arm has called at 11:00."""
    world = World(project(HELP), disk=MemoryDisk(str(tmp_path / "data")))
    world.tell("\n".join(f"10:00 web u={user} Help Searched n_results=0" for user in USERS))
    world.until("10:12")
    world.deliver()
    world.tell("\n".join(f"11:00 web u={users[0]} Contact Started" for users in arms(world).values()))
    world.advance()
    return world


def arms(world: World) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"answered": [], "holdout": []}
    for each in world.decisions():
        _, _, user, arm, _ = each.split()
        found[arm].append(user)
    assert min(map(len, found.values())) >= 4, "seeded so that both arms have enough"
    return found


def effect(world: World) -> Effect:
    moments = [measured(world.engine.project.moments["help"])]
    return report(lake_of(world), moments, world.clock.now())[-1]


def test_a_report_leaves_them_out_of_both_arms_and_says_how_many(tmp_path: Path) -> None:
    world = lived(tmp_path)
    arm = arms(world)
    world.until("2/12:00")
    before = effect(world)
    assert before.n_answered + before.n_holdout == N and before.share_answered != 1.0
    restrict(world, *arm["answered"][:2], arm["holdout"][0])
    after = effect(world)
    assert (after.n_left_out_answered, after.n_left_out_holdout) == (2, 1)
    assert (after.n_answered, after.n_holdout) == (before.n_answered - 2, before.n_holdout - 1)
    assert (after.share_answered, after.share_holdout) == (1.0, 1.0), "those who called are among them"
    told = f"2 of {before.n_answered} answered, 1 of {before.n_holdout} holdout."
    assert told in render_report([after])
    lift(world, *arm["answered"][:2], arm["holdout"][0])
    assert effect(world) == before, "what was waited for was over when they were restricted"


def test_who_was_restricted_while_a_result_was_waited_for_stays_out_of_it(tmp_path: Path) -> None:
    """What they did meanwhile is not used after lifting either, and without it "solved" would be a guess."""
    world = lived(tmp_path)
    user = arms(world)["answered"][1]
    world.until("12:00")
    restrict(world, user)
    world.tell(f"13:00 web u={user} Contact Started")
    world.until("14:00")
    lift(world, user)
    world.until("2/12:00")
    found = effect(world)
    assert (found.n_left_out_answered, found.n_left_out_holdout) == (1, 0)
    assert found.n_customers_answered == len(arms(world)["answered"]) - 1


def test_a_backtest_does_not_look_at_them(tmp_path: Path) -> None:
    world = lived(tmp_path)

    def caught() -> int:
        return len(backtest(lake_of(world), world.engine.program, world.clock.now())["help"])

    restrict(world, "u1", "u2")
    assert caught() == N - 2 and n_restricted(lake_of(world)) == 2
    assert len(world.occurrences("help")) == N, "what has happened has happened"
    lift(world, "u1")
    assert caught() == N - 1


def shared(world: World, to: Path) -> tuple[Shared, dict[str, int]]:
    """What was written, and how many rows of it by table."""
    lake_of(world).close()
    disk = MemoryDisk(str(to))
    done = share(world.disk, world.engine.project.catalogue, disk)
    n_rows: dict[str, int] = {}
    for name in disk.names("**"):
        query = f"SELECT count(*) FROM read_parquet('{disk.path(name)}', hive_partitioning = false)"
        table = name.partition("/")[0].removesuffix(".parquet")
        n_rows[table] = n_rows.get(table, 0) + duckdb.sql(query).fetchall()[0][0]
    return done, n_rows


def test_nothing_of_theirs_is_shared(tmp_path: Path) -> None:
    world = lived(tmp_path)
    user = arms(world)["answered"][1]
    done, before = shared(world, tmp_path / "before")
    assert done.n_restricted == 0
    restrict(world, user)
    world.tell(f"12:00 web u={user} Page Viewed path=/a\n12:00 web u={user} Page Viewed path=/b")
    world.advance()
    done, during = shared(world, tmp_path / "during")
    assert done.n_restricted == 1
    lost = {table: n - during[table] for table, n in before.items()}
    # an event of their own, and the one that tells of the message
    assert lost == {"events": 2, "occurrences": 1, "decisions": 1, "assignments": 1, "deliveries": 1}
    world.until("13:00")
    lift(world, user)
    _, after = shared(world, tmp_path / "after")
    assert {table: n - after[table] for table, n in before.items()} == {
        **dict.fromkeys(before, 0),
        "events": -1,
    }, "the lifting itself is there, what was done before it is not"


def test_an_account_with_a_restricted_member_is_not_shared(tmp_path: Path) -> None:
    files = moment("busy", "a: Help Searched", more="about: account")
    own = {path: text.replace("initiative: keep_our_word\n", "") for path, text in files.items()}
    world = World(project(own), disk=MemoryDisk(str(tmp_path / "data")))
    world.live("09:00 web u=anna g=kone Account Joined\n09:00 web u=bertta g=kone Account Joined")
    world.live("10:00 web u=anna Help Searched n_results=1")
    world.until("10:30")
    assert len(world.occurrences("busy")) == 1
    _, before = shared(world, tmp_path / "before")
    restrict(world, "bertta")
    done, after = shared(world, tmp_path / "after")
    assert done.n_restricted == 1, "an account is no customer"
    assert (before["occurrences"], after["occurrences"]) == (1, 0)
    assert (before["decisions"], after["decisions"]) == (1, 0)


@pytest.mark.parametrize("seed", range(3))
def test_the_lake_and_the_fold_agree_on_who_is_restricted(seed: int, tmp_path: Path) -> None:
    """Random people who are merged and parted, restricted by themselves or by staff, late or in time."""
    chance = random.Random(seed)
    world = World(disk=MemoryDisk(str(tmp_path)))
    users = ["anna", "bertta", "cilla", "dora"]
    world.live("\n".join(f"07:00 web u={user} Page Viewed" for user in users))
    n_seen = 0
    for minute in range(1, 30):
        user, other = chance.sample(users, 2)
        match chance.choice(["word", "late", "staff", "lift", "lift", "merge", "part", "browser"]):
            case "word":
                world.live(f"08:{minute:02} web u={user} Processing Restricted")
            case "late":
                world.live(f"07:{minute:02}>08:{minute:02} web u={user} Processing Restricted")
            case "staff":
                restrict(world, user)
            case "lift":
                lift(world, user)
            case "browser":
                world.live(f"08:{minute:02} web u={user} a=web{minute} Page Viewed")
            case "merge":
                world.merge(user, other)
            case _:
                if world.rows("SELECT 1 FROM links WHERE kind = 'merge' AND revoked_at IS NULL"):
                    world.unmerge()
        world.until(f"08:{minute:02}:30")
        if minute % 10 < 9:
            continue
        lake = lake_of(world)
        rows = lake.execute("SELECT unit FROM restricted WHERE lifted_at IS NULL").fetchall()
        assert {unit for (unit,) in rows} == by_the_fold(world)
        n_seen += bool(rows)
        hidden = lake.execute("SELECT count(*) FROM events JOIN customers USING (leaf) JOIN restricted ON"
            " unit = customer WHERE lifted_at IS NULL").fetchall()  # fmt: skip
        assert hidden == [(0,)]
    assert n_seen, "else nobody was restricted"


def by_the_fold(world: World) -> set[str]:
    found = set()
    for customer, state in world.rows("SELECT customer, state FROM customers WHERE NOT is_account"):
        assert isinstance(customer, bytes) and isinstance(state, bytes)
        if is_restricted(whole(decode(state).statements)):
            found.add(customer.hex())
    return found


def test_words_are_kept_once_and_go_with_the_customer(tmp_path: Path) -> None:
    world = lived(tmp_path)
    restrict(world, "u1", "u2")
    query = "SELECT leaf, is_restricted FROM restrictions ORDER BY ALL"
    kept = lake_of(world).execute(query).fetchall()
    assert sorted(kept) == sorted((world.node(user).hex(), True) for user in ("u1", "u2"))
    # a refresh that was stopped behind them writes the same again
    mark = read_mark(world.disk)
    save_mark(world.disk, msgspec.structs.replace(mark, position=0))
    assert lake_of(world).execute(query).fetchall() == kept
    erase(world.engine, LeafId(world.node("u1")), "desk")
    assert open_lake(world.disk).execute(query).fetchall() == [(world.node("u2").hex(), True)]


def test_a_lake_of_another_form_is_made_anew(tmp_path: Path) -> None:
    world = lived(tmp_path)
    restrict(world, "u1")
    lake_of(world).close()
    mark = read_mark(world.disk)
    old = {"position": mark.position, "n_events": mark.n_events, "n_erasures": mark.n_erasures}
    world.disk.remove(FILE)
    world.disk.write(MARK, json.dumps(old).encode())
    assert n_restricted(lake_of(world)) == 1
    assert read_mark(world.disk) == mark
