"""Matching cases of other engines: how many of each family pass, differ, and are not expressed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from test_fast import batch_of, by_reference, ids_of, number

from hetki.patterns.automaton import refusal
from hetki.patterns.columnar import Texts
from hetki.patterns.fast import Runs, fold, settle
from hetki.patterns.tables import compiled

ROOT = Path(__file__).parent.parent
CASES = ROOT.parent / "shared" / "vectors"

#: File -> passed, failed, not expressed.
COUNTS = """
flink_AfterMatchSkipITCase 0 0 8
flink_GreedyITCase 0 0 12
flink_GroupITCase 0 0 9
flink_NFAITCase 20 2 2
flink_NotPatternITCase 14 1 4
flink_SameElementITCase 2 1 0
flink_TimesOrMoreITCase 9 0 0
flink_TimesRangeITCase 12 0 0
flink_UntilConditionITCase 3 1 0
siddhi_AbsentPatternTestCase 25 1 0
siddhi_AbsentSequenceTestCase 25 0 0
siddhi_AbsentWithEveryPatternTestCase 5 0 0
siddhi_AbsentWithEverySequenceTestCase 3 0 0
siddhi_ComplexPatternTestCase 1 0 0
siddhi_CountPatternTestCase 7 0 0
siddhi_EveryAbsentPatternTestCase 23 4 0
siddhi_EveryAbsentSequenceTestCase 8 0 0
siddhi_EveryPatternTestCase 4 0 0
siddhi_LogicalAbsentPatternTestCase 36 1 0
siddhi_LogicalAbsentSequenceTestCase 34 0 0
siddhi_LogicalPatternTestCase 12 0 0
siddhi_SequenceTestCase 15 2 2
siddhi_WithinPatternTestCase 2 0 0
trino_row_pattern 0 0 21
"""


@pytest.fixture(scope="module")
def vectors() -> ModuleType:
    if not CASES.is_dir():
        pytest.skip("the cases are not part of the repository")
    spec = importlib.util.spec_from_file_location("vectors", ROOT / "bench" / "vectors.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["vectors"] = module
    spec.loader.exec_module(module)
    return module


def test_the_fast_form_gives_the_same_for_each_case_that_it_takes(vectors: ModuleType) -> None:
    n_taken = n_matches = 0
    for path in sorted(CASES.glob("*.json")):
        for case in json.loads(path.read_text("utf-8")):
            try:
                translated = vectors.translate(case)
                pattern = vectors.compiled(translated)
            except vectors.NotExpressed:
                continue
            if refusal(pattern) or not translated.events:
                continue
            seens = sorted(translated.events, key=lambda each: each.order_key)
            told = [(0, seen, 0) for seen in seens]
            runs = Runs(compiled([pattern]), 1, is_live=False)
            fold(runs.automaton, runs, batch_of(runs, told, 0, Texts()), translated.until)
            settle(runs.automaton, runs, translated.until)
            _, matches = by_reference(pattern, [(seen, False) for seen in seens], translated.until)
            ids = [number(seen.event_id) for seen in seens]
            got = [(each.occurred_at, each.deadline, ids[each.start_row], each.rows) for each in runs.taken()]
            rows = [
                (*found, tuple(tuple(ids[row] for row in step) for step in steps)) for *found, steps in got
            ]
            assert rows == [ids_of(match) for match in matches], case["id"]
            n_taken, n_matches = n_taken + 1, n_matches + len(matches)
    assert n_taken > 50 and n_matches > 50, (n_taken, n_matches)


def test_the_cases_of_other_engines(vectors: ModuleType) -> None:
    told = vectors.run_folder(CASES)
    counts = [f"{name} {one.passed} {len(one.failed)} {one.reasons.total()}" for name, one in told.items()]
    assert counts == COUNTS.split("\n")[1:-1]
    page = (ROOT / "docs" / "conformance.md").read_text("utf-8")
    unnamed = {reason for one in told.values() for reason in one.reasons if reason not in page}
    assert not unnamed, "each reason stands in docs/conformance.md"
    for one in told.values():
        for failed in one.failed:
            assert failed.partition(":")[0].rpartition("/")[2] in page, failed
