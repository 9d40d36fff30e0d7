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
flink_NFAITCase 4 0 20
flink_NotPatternITCase 2 0 17
flink_SameElementITCase 1 0 2
flink_TimesOrMoreITCase 0 0 9
flink_TimesRangeITCase 0 0 12
flink_UntilConditionITCase 0 0 4
siddhi_AbsentPatternTestCase 25 0 1
siddhi_AbsentSequenceTestCase 25 0 0
siddhi_AbsentWithEveryPatternTestCase 3 0 2
siddhi_AbsentWithEverySequenceTestCase 1 2 0
siddhi_ComplexPatternTestCase 1 0 0
siddhi_CountPatternTestCase 3 0 4
siddhi_EveryAbsentPatternTestCase 0 0 27
siddhi_EveryAbsentSequenceTestCase 1 0 7
siddhi_EveryPatternTestCase 3 0 1
siddhi_LogicalAbsentPatternTestCase 8 0 29
siddhi_LogicalAbsentSequenceTestCase 6 0 28
siddhi_LogicalPatternTestCase 7 0 5
siddhi_SequenceTestCase 7 0 12
siddhi_WithinPatternTestCase 1 0 1
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
