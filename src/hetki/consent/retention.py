"""Retention: how long what a source tells is kept.

A class of retention is a text that says itself how long it lasts. What arrives is sealed under the class that
holds then, month by month, and goes by that class, whatever is declared later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from hetki.consent.purpose import Purpose
from hetki.consent.source import Source
from hetki.consent.statements import SPOKEN
from hetki.declarations.durations import seconds
from hetki.errors import Invalid
from hetki.events.event import DELIVERED, OWN_SOURCE, Event, instant
from hetki.settings import SECOND

#: Commands, and what customers have said of consent: a refusal that is forgotten would be none.
FOR_EVER = "for ever"
#: A rejected body is kept in full, but not for long.
REJECTED = "rejected, 30 days"
#: The class of a source that no declaration names.
UNNAMED = "24 months"


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of one source: of events by name, and of all others."""

    others: str
    of: Mapping[str, str]


def classes_of(source: Source, purposes: Mapping[str, Purpose]) -> Classes:
    """How long the events of a checked source are kept: no longer than any of its purposes needs them."""
    bounds = [purposes[name].retention for name in source.purposes]
    longest = max(bounds, key=seconds) if bounds and all(bounds) else ""
    return Classes(
        _shorter(source.retention, longest),
        {name: _shorter(kept, longest) for name, kept in source.retention_of.items()},
    )


def class_of(event: Event, classes: Classes | None) -> str:
    """The class that an event is sealed under."""
    if outlives(event):
        return FOR_EVER
    return UNNAMED if classes is None else classes.of.get(event.name, classes.others)


def outlives(event: Event) -> bool:
    """Whether an event outlives the data that it governs: what was said of consent and rights, and what the
    engine told, but for what became of messages."""
    return event.name in SPOKEN or (event.source == OWN_SOURCE and event.name not in DELIVERED)


def month_of(received_at: int) -> str:
    """The month of an instant, in which what arrives then is sealed: `2026-03`."""
    return datetime.fromtimestamp(received_at // SECOND, UTC).strftime("%Y-%m")


def bounds_of(month: str) -> tuple[int, int]:
    """The first instant of a month, and that of the next."""
    year, number = int(month[:4]), int(month[5:])
    following = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)
    return instant(datetime(year, number, 1, tzinfo=UTC)), instant(following)


def over_at(retention: str, month: str) -> int | None:
    """When everything that arrived in a month is past its class; None if it never is.

    >>> over_at("1 day", "1970-01"), over_at("for ever", "1970-01")
    (2764800000000, None)
    """
    try:
        kept_s = seconds(retention.removeprefix("rejected, "))
    except Invalid:  # for ever, or written before classes were read
        return None
    return bounds_of(month)[1] + kept_s * SECOND


def _shorter(kept: str, bound: str) -> str:
    return bound if bound and seconds(bound) < seconds(kept) else kept
