"""The benches can still be run: what they import and time by name is there."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parent.parent / "bench"
#: What needs another engine, which is not installed.
FOREIGN = {"flink_job.py"}
FILES = sorted(each.name for each in BENCH.glob("*.py") if each.name not in FOREIGN)


def loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))  # they import each other, as a program does what lies beside it
    called = f"bench_{Path(name).stem}"
    spec = importlib.util.spec_from_file_location(called, BENCH / name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, called, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", FILES)
def test_what_a_bench_imports_is_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(loaded(name, monkeypatch).main)


def test_each_step_of_an_erasure_is_a_function_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = loaded("erasing.py", monkeypatch).STEPS
    assert steps
    for owner, name in steps.values():
        assert callable(getattr(owner, name)), name
