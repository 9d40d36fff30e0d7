"""The bench of linkage: its arithmetic against truth by hand, and tables that it must not stumble over."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

BENCH = Path(__file__).parent.parent / "bench" / "linkage.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_linkage", BENCH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_measures_are_those_by_hand(bench: ModuleType) -> None:
    """Persons {0 1 2} {3 4} {5}, clusters {0 1} {2 3} {4} {5}.

    Pairs in truth: 01 02 12 34, found: 01 23, both: 01. So precision 1/2, recall 1/4, F1 1/3.
    B3 precision: 1, 1, 1/2, 1/2, 1, 1: mean 5/6. Recall: 2/3, 2/3, 1/3, 1/2, 1/2, 1: mean 11/18.
    """
    found = bench.measure(np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 3]))
    assert (found.precision, found.recall, found.largest) == (0.5, 0.25, 2)
    assert found.f1 == pytest.approx(1 / 3)
    assert found.b3 == pytest.approx(2 * (5 / 6) * (11 / 18) / (5 / 6 + 11 / 18))


def test_all_right_is_one_and_nothing_found_is_no_error(bench: ModuleType) -> None:
    truth = np.array([0, 0, 1, 2, 2])
    assert bench.measure(truth, np.array([3, 3, 0, 1, 1]))[:4] == (1, 1, 1, 1)
    assert bench.measure(truth, np.arange(5))[:3] == (0, 0, 0)
    assert bench.measure(np.arange(5), np.arange(5))[:3] == (0, 0, 0)


def test_truth_is_taken_from_csv_and_parquet_and_away(bench: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('name,"who ""is"" it"\nanna,rec-1-a\nbo,rec-1-b\ncy,\ndi,\n')
    truth, records = bench.read([tmp_path / "t.csv"], 'who "is" it', "rec-([0-9]+)", [])
    assert truth.tolist() == [0, 0, 1, 2] and records.column_names == ["name"], "unknown is one's own"
    pq.write_table(pa.table({"name": ["a", "b"], "who": [7, 7], "x": [1, 2]}), tmp_path / "t.PARQUET")
    truth, records = bench.read([tmp_path / "t.PARQUET"], "who", None, ["x"])
    assert truth.tolist() == [0, 0] and records.column_names == ["name"]


@pytest.mark.parametrize(
    ("content", "words", "told"),
    [
        (None, ["--truth", "who"], "must be CSV or Parquet in UTF-8"),
        (b"", ["--truth", "who"], "t.csv"),
        (b"name,who\nanna,1\n", ["--truth", "whom"], "no column 'whom'"),
        (b"name,who\nanna,1\n", ["--truth", "who"], "got 1 records"),
        (b"name,who\nJ\xe4rvi,1\nbo,2\n", ["--truth", "who"], "must be"),
        (b"name,who\nanna,1\nbo,2\n", ["--truth", "who", "--pattern", "(("], "--pattern"),
        (b"name,who\nanna,1\nbo,2\n", ["--truth", "who", "--with", "NOTHING=1"], "--with"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    bench: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes | None,
    words: list[str],
    told: str,
) -> None:
    if content is not None:
        (tmp_path / "t.csv").write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["linkage.py", str(tmp_path / "t.csv"), *words])
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert isinstance(ended.value.code, str) and told in ended.value.code
