"""Matching cases of other engines: how many of each family pass, differ, and are not expressed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

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


def test_the_cases_of_other_engines() -> None:
    if not CASES.is_dir():
        pytest.skip("the cases are not part of the repository")
    spec = importlib.util.spec_from_file_location("vectors", ROOT / "bench" / "vectors.py")
    assert spec is not None and spec.loader is not None
    vectors = importlib.util.module_from_spec(spec)
    sys.modules["vectors"] = vectors
    spec.loader.exec_module(vectors)
    told = vectors.run_folder(CASES)
    counts = [f"{name} {one.passed} {len(one.failed)} {one.reasons.total()}" for name, one in told.items()]
    assert counts == COUNTS.split("\n")[1:-1]
    page = (ROOT / "docs" / "conformance.md").read_text("utf-8")
    unnamed = {reason for one in told.values() for reason in one.reasons if reason not in page}
    assert not unnamed, "each reason stands in docs/conformance.md"
    for one in told.values():
        for failed in one.failed:
            assert failed.partition(":")[0].rpartition("/")[2] in page, failed
