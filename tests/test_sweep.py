"""The fast form over the lake gives what the fold gives, with every binding, for every example."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path

import pytest

from hetki.engine.backtest import histories
from hetki.engine.engine import compile_program
from hetki.engine.project import load
from hetki.engine.sweep import swept
from hetki.settings import DAY, SECOND
from hetki.store.lake import open_lake
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
