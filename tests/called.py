"""The command line in the test's own process: what a command said, and how it ended."""

from __future__ import annotations

import gc
import io
import sys
from collections.abc import Iterable
from typing import NamedTuple

import pytest

from hetki.cli.main import main


class Ended(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


def called(
    words: Iterable[object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str | bytes = "",
) -> Ended:
    """`hetki WORDS`, with what is typed into it; a Python error of any kind fails the test."""
    monkeypatch.setattr(sys, "argv", ["hetki", *map(str, words)])
    read = io.StringIO(typed) if isinstance(typed, str) else io.TextIOWrapper(io.BytesIO(typed), "utf-8")
    monkeypatch.setattr(sys, "stdin", read)
    capsys.readouterr()
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    gc.collect()  # a command's own process would have ended here, and let go of its files
    said = capsys.readouterr()
    assert isinstance(code, int) and "Traceback" not in said.out + said.err
    return Ended(code, said.out, said.err)
