"""Statements: what a customer said about a purpose, and what stands when fragments are joined (law 4).

Statements are kept per group of joined leaves and change only at events, so an unmerge, which folds each
part again, returns each statement to its leaf.
"""

from __future__ import annotations

from datetime import datetime
from typing import Mapping, Sequence

import msgspec

from hetki.consent.purpose import Purpose
from hetki.events.event import Event, instant

GRANTED, REFUSED, WITHDRAWN = "Consent Granted", "Consent Refused", "Consent Withdrawn"
#: Events by which a customer speaks about a purpose.
SPOKEN = frozenset({GRANTED, REFUSED, WITHDRAWN})


class Statement(msgspec.Struct, frozen=True, array_like=True):
    """The standing word on one purpose. `until` ends a grant; `under_gpc`: said with the signal on."""

    granted: bool
    stated_at: int
    until: int | None = None
    under_gpc: bool = False

    def holds(self, at: int) -> bool:
        """Whether this is a grant that is still in force at an instant."""
        return self.granted and (self.until is None or at < self.until)


Statements = dict[str, Statement]


class _Said(msgspec.Struct):
    purpose: str
    until: datetime | None = None


def spoken(event: Event, purposes: Mapping[str, Purpose], standing: Statements) -> Statements:
    """What an event changes: purpose -> new statement; empty when it says nothing.

    An unreadable statement of a refusal refuses every purpose: consent fails closed.
    """
    said: Statements = {}
    if event.gpc:
        for name, purpose in purposes.items():
            before = standing.get(name)
            if purpose.gpc and not (before is not None and before.granted and before.under_gpc):
                said[name] = Statement(False, event.occurred_at)
    if event.name in SPOKEN:
        granted = event.name == GRANTED
        try:
            words = msgspec.json.decode(event.properties, type=_Said)
        except msgspec.MsgspecError:
            if not granted:
                said.update((name, Statement(False, event.occurred_at)) for name in purposes)
            return said
        until = None
        if granted and words.until is not None:
            until = instant(words.until) if words.until.tzinfo else event.occurred_at
        if words.purpose in purposes:
            said[words.purpose] = Statement(granted, event.occurred_at, until, event.gpc)
    return {name: new for name, new in said.items() if not _same(standing.get(name), new)}


def _same(old: Statement | None, new: Statement) -> bool:
    return old is not None and not old.granted and not new.granted


def strictest(a: Statements, b: Statements) -> Statements:
    """What stands when two groups are joined: refused > granted > unknown; of equals, the later."""
    joined = dict(a)
    for name, statement in b.items():
        other = joined.get(name)
        if other is None or (statement.granted, -statement.stated_at) < (other.granted, -other.stated_at):
            joined[name] = statement
    return joined


def in_force(purpose: Purpose, statement: Statement | None, at: int) -> bool:
    """Whether a purpose may be acted on at an instant, given the standing statement."""
    if statement is None:
        return purpose.allows(None)
    if statement.granted and not statement.holds(at):
        return purpose.allows(None)
    return purpose.allows("granted" if statement.granted else "refused")


def mask(purposes: Sequence[tuple[str, Purpose]], statements: Statements, at: int) -> int:
    """The purposes in force at an instant, as bits in the order given."""
    bits = 0
    for number, (name, purpose) in enumerate(purposes):
        if in_force(purpose, statements.get(name), at):
            bits |= 1 << number
    return bits
