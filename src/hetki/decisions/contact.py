"""Contact: quiet hours in the customer's own zone, and caps, read from their declared words."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hetki.declarations.durations import seconds
from hetki.errors import Fault, Invalid
from hetki.events.event import instant, utc

HOURS = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)")
CAP = re.compile(r"(\d{1,4}) per (.+)")


def read_cap(text: str, where: str) -> tuple[int, int]:
    """`3 per 7 days` as (n_max, period_s). Raises `Invalid`.

    >>> read_cap("3 per 7 days", "hetki.toml")
    (3, 604800)
    """
    found = CAP.fullmatch(text.strip())
    if found is None:
        raise Invalid(Fault(where, repr(text), "a number per duration", "write '3 per 7 days'"))
    return int(found[1]), seconds(found[2])


def read_quiet_hours(text: str, where: str) -> tuple[time, time]:
    """`21:00-08:00` as the local times at which quiet begins and ends. Raises `Invalid`."""
    found = HOURS.fullmatch(text.strip())
    try:
        assert found is not None
        begins = time(int(found[1]), int(found[2]))
        ends = time(int(found[3]), int(found[4]))
    except (AssertionError, ValueError):
        fault = Fault(where, repr(text), "two local times", "write '21:00-08:00'")
        raise Invalid(fault) from None
    return begins, ends


def quiet_until(at: int, quiet: tuple[time, time] | None, time_zone: str) -> int | None:
    """When quiet hours that hold at an instant in a zone end; None when it is not quiet.

    >>> from datetime import UTC
    >>> night = instant(datetime(2026, 1, 1, 23, tzinfo=UTC))
    >>> utc(quiet_until(night, (time(21), time(8)), "Europe/Helsinki")).isoformat()
    '2026-01-02T06:00:00+00:00'
    """
    if quiet is None or quiet[0] == quiet[1]:
        return None
    local = utc(at).astimezone(ZoneInfo(time_zone))
    begins, ends = quiet
    now = local.time()
    if begins < ends:
        is_quiet, day = begins <= now < ends, local.date()
    else:
        is_quiet = now >= begins or now < ends
        day = local.date() + timedelta(days=1) if now >= begins else local.date()
    if not is_quiet:
        return None
    return instant(datetime.combine(day, ends, tzinfo=local.tzinfo))


def zone_of(name: object, default: str) -> str:
    """A customer's time zone as it was sent, if it is one (IANA name); else the project's.

    >>> zone_of("Europe/Helsinki", "UTC"), zone_of("Mars/Olympus", "UTC"), zone_of(None, "UTC")
    ('Europe/Helsinki', 'UTC', 'UTC')
    """
    if isinstance(name, str) and name:
        try:
            return ZoneInfo(name).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            return default
    return default
