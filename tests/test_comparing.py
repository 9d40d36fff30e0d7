"""Two versions of a project over the same lake: what is new, gone and moved; and that it adds up."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from test_fold_property import PROJECT, random_event
from test_warming import variants
from world import World, at, clock, moment, project

from hetki.engine.backtest import Span, backtest
from hetki.engine.comparing import Compared, compare, render
from hetki.engine.engine import compile_program
from hetki.engine.project import Project
from hetki.errors import NotFound
from hetki.simulation.world import MemoryDisk
from hetki.store.lake import open_lake, refresh

HELP = "searched: Help Searched where n_results < 5 | no chat: Chat Started, for 20 minutes"
STORY = """
    10:00 web u=anna Help Searched n_results=0
    10:15 web u=anna Chat Started
    10:00 web u=bert Help Searched n_results=0
    10:01 web u=carl Help Searched n_results=3
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    found = World(disk=MemoryDisk(str(tmp_path)))
    found.live(STORY)
    found.until("12:00")
    refresh(found.disk, found.engine.journal, found.engine.state)
    return found


def compared(world: World, with_project: Project, **options: object) -> list[Compared]:
    """The project in force is the other version."""
    program, other = compile_program(with_project), world.engine.program
    lake = open_lake(world.disk)
    return compare(lake, program, other, world.clock.now(), **options)  # type: ignore[arg-type]


def told(world: World, found: Compared) -> list[str]:
    return [f"{p.kind} {world.name_of(p.caught.customer)}" for p in found.pairs]


def test_a_changed_moment_has_new_gone_and_moved_ones(world: World) -> None:
    (found,) = compared(world, project(moment("help", HELP)), moments=["help"])
    assert told(world, found) == ["gone anna", "moved bert", "new carl"]
    pair = found.pairs[1]
    assert pair.before and pair.after
    assert clock(pair.before.occurrence.occurred_at) == "10:10"
    assert clock(pair.after.occurrence.occurred_at) == "10:20"
    anna, bert, carl = (pair.caught.customer.hex() for pair in found.pairs)
    assert render([found]) == (
        "help: 0 in both, 1 new, 1 gone, 1 moved\n"
        "  week of 2026-03-02        0 both        1 new        1 gone        1 moved\n"
        f"  new   for {carl} at 2026-03-02 10:21\n"
        f"  gone  for {anna} at 2026-03-02 10:10\n"
        f"  moved for {bert} from 2026-03-02 10:10 to 2026-03-02 10:20"
    )


def test_what_is_the_same_is_counted_and_not_listed(world: World) -> None:
    renamed = project(
        moment("help", "asked: Help Searched where n_results = 0 | no chat: Chat Started, for 600 seconds")
    )
    (found,) = compared(world, renamed, moments=["help"])
    assert render([found]) == "help: 2 in both, 0 new, 0 gone, 0 moved", "a step may have another name"


def test_other_events_at_the_same_instant_have_moved(world: World) -> None:
    world.live("13:00 web u=dora Page Viewed\n13:05 web u=dora Page Viewed\n13:09 web u=dora Order Tracked")
    refresh(world.disk, world.engine.journal, world.engine.state)
    lines = "match: one_open\nwithin: 1 day"
    one = moment("seen", "page: Page Viewed | order: Order Tracked", more=lines)
    more = moment("seen", "page: 1 to 9 times Page Viewed | order: Order Tracked", more=lines)
    program, other = compile_program(project(more)), compile_program(project(one))
    found = compare(open_lake(world.disk), program, other, world.clock.now(), ["seen"])
    assert told(world, found[0]) == ["moved dora"]
    assert "at 2026-03-02 13:09, by other events" in render(found)


def test_a_moment_of_one_version_is_told_as_such(world: World) -> None:
    found = compared(world, project({**moment("chat", "a: Chat Started"), "moments/help.yaml": None}))
    text = render(found, 0)
    assert "chat, only in this version: 0 in both, 1 new, 0 gone, 0 moved" in text
    assert "help, only in the other version: 0 in both, 0 new, 2 gone, 0 moved" in text
    assert "basket: 0 in both, 0 new, 0 gone, 0 moved" in text


def test_lists_are_bounded_and_the_span_holds_for_both(world: World) -> None:
    wider = project(moment("help", HELP))
    assert "\n  and 1 more new" not in render(compared(world, wider), 1)
    (all_gone,) = compared(world, project({"moments/help.yaml": None}), moments=["help"])
    assert "  and 1 more gone" in render([all_gone], 1)
    (none,) = compared(world, wider, moments=["help"], span=Span(at("10:30"), at("11:00")))
    assert none.pairs == []
    with pytest.raises(NotFound, match="did you mean 'help'"):
        compared(world, wider, moments=["helb"])


def test_both_sides_add_up_to_their_own_backtests(tmp_path: Path) -> None:
    n_found = 0
    for seed in range(6):
        draw = random.Random(seed)
        world = World(PROJECT, disk=MemoryDisk(str(tmp_path / str(seed))), starts="00:00")
        world.accept([random_event(draw, number) for number in range(200)])
        world.clock.sleep(3_000)
        world.advance()
        refresh(world.disk, world.engine.journal, world.engine.state)
        lake, now = open_lake(world.disk), world.clock.now()
        program = compile_program(draw.choice(variants()))
        found = compare(lake, program, world.engine.program, now)
        for side, of in (("after", program), ("before", world.engine.program)):
            alone = [each for caught in backtest(lake, of, now).values() for each in caught]
            mine = [getattr(pair, side) for each in found for pair in each.pairs if getattr(pair, side)]
            assert sorted(mine, key=repr) == sorted(alone, key=repr)
            n_found += len(mine)
    assert n_found > 50
