"""Sheets: rows as CSV that no spreadsheet takes for formulas, as JSON Lines, and both in one ZIP.

This is the only writer of CSV: whatever leaves Hetki for a spreadsheet goes through `sheet`.
"""

from __future__ import annotations

import csv
import io
import math
import zipfile
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

Cell = str | int | float | bool | None | Sequence[object] | Mapping[str, object]
Line = Mapping[str, Cell]

#: With one of these a spreadsheet begins to compute; the wide forms are taken for the same.
STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
#: The date that every file in an archive has: equal contents make equal archives.
DATE: Final = (1980, 1, 1, 0, 0, 0)
_encode = msgspec.json.Encoder().encode


def sheet(columns: Sequence[str], lines: Sequence[Line]) -> bytes:
    """Rows as CSV in UTF-8 with a header; what a row has not is empty.

    A text that a spreadsheet would compute has an apostrophe before it; numbers stay numbers. One that is
    infinite or none is empty, as JSON has no word for it.
    """
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow([_cell(column) for column in columns])
    writer.writerows([_cell(line.get(column)) for column in columns] for line in lines)
    return text.getvalue().encode("utf-8", "backslashreplace")


def json_lines(lines: Sequence[Line]) -> bytes:
    """Rows as JSON Lines, with nothing changed."""
    return b"".join(_encode(line) + b"\n" for line in lines)


def archive(files: Mapping[str, bytes]) -> bytes:
    """Files in one ZIP, in order of their names."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in sorted(files.items()):
            packed.writestr(zipfile.ZipInfo(name, DATE), data, zipfile.ZIP_DEFLATED)
    return whole.getvalue()


def _cell(value: Cell) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, (bool, int, float)):
        return _encode(value).decode()
    text = value if isinstance(value, str) else _encode(value).decode()
    text = text.replace("\x00", "\ufffd")
    return f"'{text}" if text.lstrip(" \u00a0\ufeff").startswith(STARTS) else text
