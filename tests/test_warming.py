"""Taking up other declarations while those in force go on answering: stories, crashes, any interleaving."""

from __future__ import annotations

import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fold_property import BUSY, KNOWN, MOMENTS, PROJECT, command, random_event
from world import TOML, World, action, moment, project

from hetki.engine.advance import advance_once
from hetki.engine.changing import target
from hetki.engine.engine import version_of
from hetki.engine.files import Kept
from hetki.engine.project import Project
from hetki.engine.rebuilding import rebuild
from hetki.engine.standing import render, standing
from hetki.engine.warming import activate, begin, kept_project, open_in_force, refuse, warm_once
from hetki.errors import Conflict, Fault
from hetki.moments.fold import step
from hetki.simulation.world import MemoryDisk
from hetki.store.shadow import Shadow
from hetki.store.state import State

HELP = "searched: Help Searched where n_results = 0 | no chat: Chat Started, for 10 minutes"
WIDER = project(moment("help", HELP.replace("= 0", "< 5")))
ADDED = project(moment("viewed", "viewed: Help Viewed"))


def warm(world: World, with_project: Project) -> None:
    """All that is left of the way to other declarations, in steps of one customer."""
    for _ in range(1_000):
        if world.warm(with_project):
            return
    raise AssertionError("warming does not end")


def test_the_old_declarations_answer_until_the_new_ones_are_warm() -> None:
    world = World()
    world.live(
        """
        10:00 web u=anna Help Searched n_results=0
        10:01 web u=bertta Help Viewed
        10:02 web u=cilla Help Viewed
        """
    )
    assert not world.warm(ADDED) and not world.warm(ADDED)
    world.tell("10:03 web u=dora Help Viewed")
    world.clock.sleep(600)
    world.catch_up()
    assert world.decisions() == ["10:13 help anna answered call"], "the old ones go on"
    assert world.occurrences("viewed") == []
    warm(world, ADDED)
    assert world.occurrences("viewed") == [
        "10:01 viewed bertta: 10:01",
        "10:02 viewed cilla: 10:02",
        "10:03 viewed dora: 10:03",
    ]
    assert [line for line in world.decisions() if "viewed" in line] == [
        "10:13 viewed bertta answered call",
        "10:13 viewed cilla answered call",
        "10:13 viewed dora answered call",
    ]
    world.live("10:20 web u=eija Help Viewed")
    assert world.decisions()[-1] == "10:20 viewed eija answered call"
    world.assert_rebuilds()


def test_what_would_have_been_caught_long_ago_is_missed_and_never_sent() -> None:
    world = World()
    world.live("08:00 web u=anna Help Viewed\n10:00 web u=bertta Help Viewed")
    warm(world, ADDED)
    assert world.missed() == ["08:00 viewed anna"]
    assert world.outbox() == ["10:00 call to bertta: waiting"]


def test_messages_of_the_old_version_are_sent_or_cancelled_as_ever() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=0\n10:01 web u=bertta Help Searched n_results=0")
    world.until("10:12")
    (first, _) = world.records()
    warm(world, project(moment("help", HELP.replace("10 minutes", "9 minutes"))))
    assert world.revisions() == ["revised help: declarations changed; decided: call"] * 2
    world.live("10:05>10:13 web u=anna Chat Started")
    assert world.deliver().n_sent == 1
    assert world.outbox() == [
        "10:12 call to anna: cancelled retracted: late event",
        "10:13 call to bertta: sent",
    ]
    assert first.question.program != world.engine.program.version, "a decision names its version"
    world.assert_rebuilds()


def test_a_moment_that_is_gone_retracts_and_cancels_in_the_same_instant() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=0")
    world.until("10:12")
    warm(world, project({"moments/help.yaml": None}))
    assert world.occurrences() == []
    assert world.outbox() == ["10:12 call to anna: cancelled retracted: declarations changed"]
    world.assert_rebuilds()


def test_a_title_or_a_text_is_taken_up_without_folding_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=0")
    files = {**moment("help", HELP), **action("call")}
    files["moments/help.yaml"] = files["moments/help.yaml"].replace('need: "?"', 'need: "An answer"')
    files["templates/call.liquid"] = "Subject: Hello\n\nWe call you."
    changed = project(files, '[purposes.other]\ntitle = "Other"\nbasis = "consent"\n')
    monkeypatch.setattr("hetki.engine.warming.step", _broken)
    with pytest.raises(ZeroDivisionError):
        world.warm(changed)  # another purpose may change everything
    assert world.warm(project(files))
    monkeypatch.undo()
    world.until("10:12")
    (told,) = world.rows("SELECT body FROM outbox")
    assert told == ("We call you.",)
    world.assert_rebuilds()


def _broken(*given: object) -> None:
    raise ZeroDivisionError


def test_only_the_moments_that_changed_are_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=0\n10:01 web u=anna Help Viewed")
    folded: list[set[str]] = []

    def counting(program, *rest):  # type: ignore[no-untyped-def]
        folded.append({each.name for each in program.moments})
        return step(program, *rest)

    monkeypatch.setattr("hetki.engine.warming.step", counting)
    warm(world, ADDED)
    assert folded == [{"viewed"}]
    world.assert_rebuilds()


def test_whoever_is_touched_while_warming_is_warmed_again() -> None:
    world = World()
    for name in ("anna", "bertta", "cilla"):
        world.live(f"10:00 web u={name} Help Searched n_results=3")
    for _ in range(3):
        assert not world.warm(WIDER)
    world.tell("10:05 web u=anna Chat Started\n10:05 web u=dora Help Searched n_results=3")
    world.merge("bertta", "cilla")
    world.catch_up()
    warm(world, WIDER)
    world.until("10:20")
    assert world.occurrences() == [
        "10:10 help bertta+cilla: 10:00",
        "10:10 help bertta+cilla: 10:00",
        "10:15 help dora: 10:05",
    ]
    world.assert_rebuilds()


def test_a_silence_that_ends_while_warming_is_caught_at_the_swap() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=3\n10:01 web u=bertta Help Viewed")
    assert not world.warm(WIDER) and not world.warm(WIDER)
    world.clock.sleep(720)
    world.catch_up()
    warm(world, WIDER)
    assert world.occurrences() == ["10:10 help anna: 10:00"]
    assert world.decisions() == ["10:13 help anna answered call"]
    world.assert_rebuilds()


def test_other_declarations_meanwhile_begin_again() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=3\n10:01 web u=bertta Help Viewed")
    assert not world.warm(WIDER)
    older = world.engine
    assert not world.warm(ADDED)
    warm(world, ADDED)
    assert world.occurrences() == ["10:01 viewed bertta: 10:01"]
    with pytest.raises(Conflict, match="declarations"):
        advance_once(older)
    world.assert_rebuilds()


def test_two_processes_that_want_different_declarations_do_not_take_turns() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=3\n10:01 web u=bertta Help Viewed")
    version = world.engine.program.version
    old = kept_project(world.engine.ledger, version)
    one, other = target(WIDER, version, old), target(ADDED, version, old)
    begin(world.engine, one)
    assert not warm_once(world.engine, one, 1)
    begin(world.engine, other)
    with pytest.raises(Conflict, match="start again"):
        warm_once(world.engine, one, 1)
    while not warm_once(world.engine, other, 1):
        pass
    with pytest.raises(Conflict, match="start again"):
        warm_once(world.engine, one, 1)


def test_a_command_that_takes_up_the_folder_helps_a_worker_that_is_warming() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=3\n10:01 web u=bertta Help Viewed")
    assert not world.warm(WIDER)
    world.reopen(WIDER)
    activate(world.engine)
    assert world.engine.shadow.warming() is None
    world.until("10:12")
    assert world.occurrences() == ["10:10 help anna: 10:00"]


def test_a_folder_that_goes_back_drops_what_was_warmed() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=3\n10:01 web u=bertta Help Viewed")
    assert not world.warm(WIDER)
    world.advance()
    assert world.engine.shadow.warming() is None
    assert world.rows("SELECT * FROM warmed") == world.rows("SELECT * FROM touched") == []


def test_a_state_of_a_form_that_nobody_reads_is_folded_anew() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=3\n10:01 web u=bertta Help Viewed")
    world.engine.db.execute("UPDATE progress SET program = 'of another version.0'")
    world.engine.db.execute("UPDATE customers SET state = x'c1'")
    world.reopen(WIDER)
    world.until("10:12")
    assert world.occurrences() == ["10:10 help anna: 10:00"]
    world.assert_rebuilds()


def test_what_is_in_force_is_opened_whatever_lies_in_the_folder() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=0")

    opened = open_in_force(Kept({}), world.disk, world.clock, world.chance, {})
    assert opened.program.version == world.engine.program.version
    world.clock.sleep(720)
    assert advance_once(opened).n_decided == 1


def test_a_destination_that_is_declared_no_more_still_gets_what_was_decided() -> None:
    world = World()
    world.live("10:00 web u=anna Help Searched n_results=0")
    world.until("10:12")
    without = TOML[: TOML.index("[destinations.app]")] + TOML[TOML.index("[destinations.mail]") :]
    by_mail = project({"hetki.toml": without, **action("call", destination="mail")})
    warm(world, by_mail)
    assert "app" not in world.engine.project.destinations
    world.engine = open_in_force(Kept({}), world.disk, world.clock, world.chance, {})
    assert world.deliver().n_sent == 1
    assert world.outbox() == ["10:12 call to anna: sent"]
    drained = open_in_force(Kept({}), world.disk, world.clock, world.chance, {})
    assert drained.project.destinations.keys() == by_mail.destinations.keys()


# -- how it stands


def test_an_operator_sees_what_is_in_force_what_is_warming_and_what_was_refused() -> None:
    world = World()
    shelf = Kept(world.engine.project.texts)
    assert render(standing(shelf, MemoryDisk())).startswith("in force: nothing is folded yet\n")
    world.live("10:00 web u=anna Help Searched n_results=3\n10:01 web u=bertta Page Viewed")
    version, other = world.engine.program.version, version_of(WIDER)
    told = render(standing(shelf, world.disk))
    assert told == (
        f"in force: {version} since 2026-03-02 10:00:00Z\n"
        "folded: up to journal position 2, 2026-03-02 10:01:00Z\n"
        "folder: what is in force"
    )
    changed = Kept(WIDER.texts)
    assert render(standing(changed, world.disk)).endswith(
        f"folder: {other}, which a running hetki serve or hetki advance takes up"
    )
    world.warm(WIDER)
    told = render(standing(changed, world.disk))
    assert f"warming: {other}, 1 of 2 customers, 0 to do again, begun 2026-03-02 10:01:00Z" in told
    assert told.endswith("folder: what is being warmed")
    broken = Kept({**WIDER.texts, "moments/help.yaml": b"moment: help"})
    found = standing(broken, world.disk)
    assert found.folder == "" and "\nfolder: " in render(found) and "as hetki check says" in render(found)
    refuse(world.engine, [Fault("tests/help.yaml:3:1", "a moment that never fires", "one that does")])
    told = render(standing(changed, world.disk))
    assert "refused: 2026-03-02 10:01:00Z, and what is in force goes on" in told
    assert "  tests/help.yaml:3:1: got a moment that never fires, must be one that does." in told
    assert "warming" not in told
    warm(world, WIDER)
    assert standing(changed, world.disk).refused is None


# -- any interleaving

PHONE = action("call")["templates/call.liquid"] + " {{ customer.plan | default: '' }}"

WITHIN = "within: 10 minutes"
RENAMED = BUSY.replace("title: ", "title: the ")
LESS_BUSY = BUSY.replace("4 minutes", "3 minutes")


def variant(draw: random.Random) -> Project:
    """The project of the random stories with some of it changed, or nothing but words."""
    files: dict[str, str | None] = {
        **MOMENTS,
        "segments/busy.yaml": draw.choice(
            [BUSY, BUSY, BUSY, BUSY.replace("title: ", "title: the "), LESS_BUSY]
        ),
        "segments/known.yaml": KNOWN,
        "moments/help.yaml": None,
        "moments/basket.yaml": None,
        "moments/again.yaml": None,
    }
    toml = ""
    for name in list(MOMENTS):
        if draw.random() < 0.2:
            files[name] = None
        elif draw.random() < 0.15:
            files[name] = MOMENTS[name].replace("5 minutes", "4 minutes").replace("2 minutes", "1 minute")
        elif draw.random() < 0.15:
            files[name] = MOMENTS[name].replace("title: ", "title: the ")
    if draw.random() < 0.4:
        files |= moment("seen", "a: Page Viewed | b: Order Tracked", more="within: 10 minutes")
    if draw.random() < 0.3:
        files |= moment("late", "a: Chat Started | no b: Page Viewed, for 4 minutes", purpose="marketing")
    if draw.random() < 0.2:
        files |= moment("quiet", "a: Page Viewed | no b: Chat Started, for any 2 minutes", more=WITHIN)
    if draw.random() < 0.2:
        files |= moment("ways", "a: Order Tracked | b: any Chat Started", more=f"match: all\n{WITHIN}")
    if draw.random() < 0.2:
        files["templates/call.liquid"] = PHONE
    if draw.random() < 0.1:
        files["sources/shop.yaml"] = "source: shop\nchannel: shop\npurposes: [service, marketing]\n"
    if draw.random() < 0.1:
        toml = '[purposes.early]\ntitle = "Early"\nbasis = "consent"\n'
    if draw.random() < 0.1:
        files["hetki.toml"] = TOML.replace("lateness_s = 60", "lateness_s = 30")
    return project(files, toml)


@cache
def variants() -> list[Project]:
    return [variant(random.Random(seed)) for seed in range(100)]


def story(seed: int, monkeypatch: pytest.MonkeyPatch) -> World:
    """Events, commands, time, live batches, warming steps and crashes, in any order."""
    draw = random.Random(seed)
    events = [random_event(draw, number) for number in range(draw.randint(1, 30))]
    stream = sorted(events, key=lambda each: (each.received_at, draw.random()))
    world = World(PROJECT, starts="00:00", batch_max=draw.choice([1, 3, 2000]), seed=draw.randrange(99))
    wanted: Project | None = None
    while stream:
        n = draw.choice([1, 1, 2, 5])
        body, stream = stream[:n], stream[n:]
        world.accept(body)
        if draw.random() < 0.6:
            world.clock.sleep(draw.choice([0, 0, 5, 60, 130]))
            world.catch_up()
        if draw.random() < 0.2:
            command(world, draw, [])
        if draw.random() < 0.3 or wanted is None:
            wanted = draw.choice(variants())
        for _ in range(draw.choice([0, 1, 1, 3])):
            if world.engine.state.progress() is not None:
                one_step(world, wanted, draw, monkeypatch)
    world.catch_up()
    assert wanted is not None
    warm(world, wanted)
    return world


def one_step(world: World, wanted: Project, draw: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of warming, which may be cut off before any of its writes."""
    if draw.random() < 0.2:
        room, name = draw.choice([(Shadow, "replace"), (Shadow, "swap"), (State, "save_progress")])
        with monkeypatch.context() as patch:
            patch.setattr(room, name, _broken)
            try:
                world.warm(wanted, draw.choice([1, 2, 100]))
            except ZeroDivisionError:
                world.reopen()
        return
    world.warm(wanted, draw.choice([1, 2, 100]))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**48))
def test_any_interleaving_of_live_batches_and_warming_is_a_rebuild(seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        world = story(seed, patch)
    for _ in range(2):
        rebuilt = rebuild(world.engine)
        assert rebuilt.before == rebuilt.after, f"seed {seed}"
        handled = world.rows("SELECT occurrence_id FROM decisions UNION ALL SELECT occurrence_id FROM missed")
        assert len(handled) == len(set(handled)), "each is decided once or missed once"
        standing = set(world.rows("SELECT occurrence_id FROM occurrences"))
        assert standing <= set(handled)
        world.clock.sleep(3_000)
        world.catch_up()


def test_the_random_changes_are_worth_making(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = joined = alone = 0
    for each in variants():
        found = target(each, "x", PROJECT)
        kept += bool(found.kept)
        alone += not found.kept
        joined += found.only_adds
    assert kept > 20 and joined > 3 and alone > 3
    world = story(7, monkeypatch)
    assert world.engine.shadow.warming() is None


def test_a_late_report_of_staffing_while_warming_reaches_those_it_is_late_for() -> None:
    """The old declarations ask for no staffing, so nothing live touches them."""
    asks = project(moment("short", "asked: Help Searched where staffing('kitchen') < 0.5"))
    world = World()
    world.live(
        """
        09:00 shop Staffing Reported pool=kitchen n_present=9 n_planned=10
        10:00 web u=anna Help Searched n_results=1
        10:01 web u=bert Help Searched n_results=1
        """
    )
    assert not world.warm(asks) and not world.warm(asks)
    world.tell("09:30>10:05 shop Staffing Reported pool=kitchen n_present=1 n_planned=10")
    world.catch_up()
    warm(world, asks)
    assert world.occurrences("short") == ["10:00 short anna: 10:00", "10:01 short bert: 10:01"]
    world.assert_rebuilds()
