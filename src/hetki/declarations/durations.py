"""Durations as people write them: `10 minutes`, `1 day 2 hours`. In code they are whole seconds (`_s`)."""

from __future__ import annotations

import re

from hetki.errors import Fault, Invalid, nearest, shown

UNITS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "week": 604_800}
#: Months and years are lengths, not calendar dates: 30 and 365 days.
LONG_UNITS = {"month": 30 * 86_400, "year": 365 * 86_400}
SHORT = {"s": "second", "sec": "second", "min": "minute", "h": "hour"}
LONGEST_S = 100 * LONG_UNITS["year"]

_PART = re.compile(r"([0-9]{1,12})\s*([A-Za-z]+)")
_WHOLE = re.compile(r"\s*(?:[0-9]{1,12}\s*[A-Za-z]+[\s,]*)+")


def seconds(text: str, where: str = "duration") -> int:
    """A written duration in seconds. Raises `Invalid`, naming `where`.

    >>> seconds("1 day 2 hours"), seconds("10 minutes"), seconds("0 min")
    (93600, 600, 0)
    """
    must = "a duration such as '10 minutes' or '1 day 2 hours'"
    if not isinstance(text, str) or len(text) > 200 or not _WHOLE.fullmatch(text):
        hint = "units are second, minute, hour, day, week, month, year"
        if isinstance(text, str) and " where " in text:
            hint = "a where stands before the time"
        raise Invalid(Fault(where, shown(text), must, hint))
    total = 0
    for count, unit in _PART.findall(text):
        scale = _scale(unit)
        if scale is None:
            raise Invalid(Fault(where, shown(text), must, nearest(unit, [*UNITS, *LONG_UNITS])))
        total += int(count) * scale
    if total > LONGEST_S:
        raise Invalid(Fault(where, shown(text), "at most 100 years"))
    return total


def spoken(total_s: int) -> str:
    """Seconds as text that `seconds` reads back to the same number.

    >>> spoken(600), spoken(93_600), spoken(604_800), spoken(0)
    ('10 minutes', '1 day 2 hours', '7 days', '0 seconds')
    """
    parts, rest = [], total_s
    for unit in ("day", "hour", "minute", "second"):
        count, rest = divmod(rest, UNITS[unit])
        if count:
            parts.append(f"{count} {unit}" + ("s" if count != 1 else ""))
    return " ".join(parts) or "0 seconds"


def _scale(unit: str) -> int | None:
    name = unit.lower()
    name = SHORT.get(name, name)
    name = SHORT.get(name.removesuffix("s"), name.removesuffix("s"))
    return UNITS.get(name) or LONG_UNITS.get(name)
