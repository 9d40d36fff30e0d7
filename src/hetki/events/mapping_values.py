"""Values of a row, as a map reads them: identifiers, times, typed properties.

Each reader adds a fault for what it cannot read (`where` is `column NAME`) and gives it back as it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from hetki.errors import Fault, shown
from hetki.events.catalogue import FieldType
from hetki.events.fields import instant_of

#: Written formats of a time, beside a pattern such as `%d.%m.%Y %H:%M`.
FORMATS: Final = ("iso", "unix_s", "unix_ms")
_INTEGER: Final = re.compile(r"[+-]?\d{1,18}")
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
_BOOLEANS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class TimeColumn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A time from a column: `iso`, `unix_s`, `unix_ms`, or a pattern such as `%d.%m.%Y %H:%M`.

    `zone` (IANA) is that of times which name none.
    """

    column: str
    format: str = "iso"
    zone: str = "UTC"


def value_of(values: Mapping[str, object], column: str) -> object:
    """The value of a column, or of a member of an object in one; empty text is None."""
    value = values.get(column)
    if value is None and "." in column and column not in values:
        found: object = values
        for part in column.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        value = found
    return None if value == "" else value


def read_identifier(column: str, values: Mapping[str, object], faults: list[Fault]) -> str:
    value = value_of(values, column)
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of whole numbers with gaps is often kept as floats
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    faults.append(Fault(f"column {column}", shown(value), "text or a whole number"))
    return str(value)


def read_time(at: TimeColumn, values: Mapping[str, object], faults: list[Fault]) -> str:
    value = value_of(values, at.column)
    try:
        found = _read_time(value, at)
        if found.tzinfo is None:
            found = found.replace(tzinfo=ZoneInfo(at.zone))
        return found.isoformat()
    except (ValueError, OverflowError, TypeError):
        must = {
            "iso": "a time in ISO 8601",
            "unix_s": "seconds since 1970",
            "unix_ms": "milliseconds since 1970",
        }.get(at.format, f"a time as in {at.format}")
        hint = "name its format in the map" if at.format == "iso" and value is not None else ""
        got = "nothing" if value is None else shown(value)
        faults.append(Fault(f"column {at.column}", got, must, hint))
        return "" if value is None else str(value)


def _read_time(value: object, at: TimeColumn) -> datetime:
    """Raises ValueError, OverflowError or TypeError."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    if at.format in ("unix_s", "unix_ms"):
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise TypeError
        scale = 1_000_000 if at.format == "unix_s" else 1_000
        return _EPOCH + timedelta(microseconds=round(Decimal(value) * scale))
    if not isinstance(value, str):
        raise TypeError
    return datetime.fromisoformat(value) if at.format == "iso" else datetime.strptime(value, at.format)


def read_value(
    column: str, kind: FieldType | None, values: Mapping[str, object], faults: list[Fault]
) -> object:
    value = value_of(values, column)
    if value is None:
        return None
    if isinstance(value, Decimal):
        value = float(value)
    elif isinstance(value, (date, time)):
        value = value.isoformat()
    try:
        return _CONVERT[kind](value)
    except (ValueError, OverflowError):
        must = _MUST[kind] if kind else "text, a number, true or false, a time, a list or an object"
        faults.append(Fault(f"column {column}", shown(value), must))
        return value if isinstance(value, (str, int, float, list, dict)) else str(value)


def _plain(value: object) -> object:
    if isinstance(value, (str, int, float, list, dict)):
        return value
    raise ValueError


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise ValueError


def _number(value: object) -> int | float:
    if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    raise ValueError


def _integer(value: object) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError
    return int(number)


def _boolean(value: object) -> bool:
    text = _text(value).strip().lower()
    if text not in _BOOLEANS:
        raise ValueError
    return _BOOLEANS[text]


def _instant(value: object) -> str:
    if isinstance(value, str) and instant_of(value) is not None:
        return value
    raise ValueError


def _inner(kind: type) -> Callable[[object], object]:
    def read(value: object) -> object:
        found = msgspec.json.decode(value) if isinstance(value, str) else value
        if not isinstance(found, kind):
            raise ValueError
        return found

    return read


_CONVERT: Final[dict[FieldType | None, Callable[[object], object]]] = {
    None: _plain,
    "text": _text,
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "time": _instant,
    "list": _inner(list),
    "object": _inner(dict),
}
_MUST: Final[dict[FieldType, str]] = {
    "text": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "time": "a time in ISO 8601",
    "list": "a list",
    "object": "an object",
}
