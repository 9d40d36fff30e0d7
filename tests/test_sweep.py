"""The fast form over the lake gives what the fold gives, with every binding, for every example."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path

import pytest
from histories import Many

from hetki.consent.statements import SPOKEN
from hetki.engine.backtest import histories
from hetki.engine.engine import Engine, compile_program
from hetki.engine.project import load
from hetki.engine.sweep import swept
from hetki.events.event import LeafId
from hetki.moments.moment import Occurrence
from hetki.settings import DAY, SECOND
from hetki.simulation.world import MemoryDisk
from hetki.store.lake import open_lake, refresh
from hetki.store.restricted import FILE as RESTRICTIONS
from hetki.store.system import SystemDisk

ROOT = Path(__file__).parent.parent
MAKE = runpy.run_path(str(ROOT / "bench" / "make_lake.py"))


@pytest.mark.parametrize(
    ("example", "n_events"),
    [("restaurants", 6_000), ("loan_applications", 6_000), ("twelve_moments", 12_000)],
)
def test_every_example_is_the_same_by_both(example: str, n_events: int, tmp_path: Path) -> None:
    project = load(SystemDisk(ROOT / "examples" / example))
    MAKE["make"](tmp_path, project, n_events, seed=3)
    program, lake = compile_program(project), open_lake(SystemDisk(tmp_path))
    runs = swept(program)
    assert runs is not None and runs.moments, "the automaton takes some of them"
    told = Counter[str]()
    for advance_to in (MAKE["STARTED_AT"] + 15 * DAY + 7 * SECOND, MAKE["STARTED_AT"] + 90 * DAY):
        by_fold, by_sweep = (
            sorted(
                (each.occurrence_id, customer, each)
                for customer, caught in histories(lake, program, advance_to, events_min=events_min)
                for each in caught
            )
            for events_min in (10**9, 0)
        )
        assert by_sweep == by_fold
        told.update(each.moment for _, _, each in by_fold)
    assert len(told) >= len(program.moments) // 3, f"too few moments come true to mean anything: {told}"


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Histories of law 4: grants for some data, notices, ends, objections, restrictions, merges."""
    many = Many(1, 150, MemoryDisk(str(tmp_path_factory.mktemp("lived"))))
    many.run()
    engine = many.world.engine
    refresh(engine.disk, engine.journal, engine.state)
    engine.disk.remove(RESTRICTIONS)  # else who is restricted is not in a backtest at all
    return engine


def by_both(engine: Engine) -> list[list[tuple[str, LeafId, Occurrence]]]:
    """What the fold gives, and what the fast form does."""
    lake = open_lake(engine.disk)
    return [
        sorted(
            (each.occurrence_id, customer, each)
            for customer, caught in histories(lake, engine.program, engine.clock.now(), events_min=n)
            for each in caught
        )
        for n in (10**9, 0)
    ]


def test_consents_categories_and_restrictions_are_the_same_by_both(lived: Engine) -> None:
    told = Counter(name for (name,) in open_lake(lived.disk).execute("SELECT name FROM events").fetchall())
    assert min(told[name] for name in (*SPOKEN, "Product Viewed")) > 3
    by_fold, by_sweep = by_both(lived)
    assert by_sweep == by_fold
    runs = swept(lived.program)
    assert runs is not None and runs.moments, "the automaton takes some of them"
    assert {each[2].moment for each in by_fold} == set(lived.project.moments)


def test_a_fast_form_that_overlooks_what_a_grant_is_bound_to_is_found(
    lived: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hetki.engine.consenting._is_bounded", lambda statement: False)
    by_fold, by_sweep = by_both(lived)
    assert by_sweep != by_fold
