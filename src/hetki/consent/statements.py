"""Statements: what a customer said about a purpose, and what stands when fragments are joined (law 4).

Statements are kept per group of joined leaves and change only at events, so an unmerge, which folds each
part again, returns each statement to its leaf. A restriction of all processing is kept beside the purposes,
as a refusal of everything that nothing but its own end outweighs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec

from hetki.consent.purpose import Purpose
from hetki.events.event import OWN_SOURCE, Event, instant

GRANTED, REFUSED, WITHDRAWN = "Consent Granted", "Consent Refused", "Consent Withdrawn"
#: GDPR articles 21 and 18: a refusal of a purpose, or of all that may be objected to; and of everything.
OBJECTED, RESTRICTED, LIFTED = "Objection Raised", "Processing Restricted", "Restriction Lifted"
#: Events by which a customer speaks about a purpose, or about all.
SPOKEN = frozenset({GRANTED, REFUSED, WITHDRAWN, OBJECTED, RESTRICTED, LIFTED})
#: Where a restriction stands among the purposes; no purpose can have this name.
ALL: Final = "*"

#: Why a statement changes nothing: no purpose that it is about is declared, it is not readable, was given
#: under a notice that does not count, or lifts a restriction from outside.
NoEffect = Literal["", "no_such_purpose", "unreadable", "notice", "not_theirs_to_lift"]
#: Why a purpose is open or closed.
Why = Literal["granted", "basis", "refused", "ended", "unknown", "restricted"]


class Statement(msgspec.Struct, frozen=True, array_like=True):
    """The standing word on one purpose. `until` ends a grant; `under_gpc`: said with the signal on. A grant
    with `categories` opens data of these alone."""

    granted: bool
    stated_at: int
    until: int | None = None
    under_gpc: bool = False
    categories: tuple[str, ...] | None = None

    def holds(self, at: int) -> bool:
        """Whether this is a grant that is still in force at an instant."""
        return self.granted and (self.until is None or at < self.until)

    def covers(self, category: str) -> bool:
        """Whether a grant opens data of this category ("" for events that are in none)."""
        return self.categories is None or category in self.categories


Statements = dict[str, Statement]


class Said(msgspec.Struct, frozen=True):
    """One purpose that an event speaks about, and its statement; without one, why it changes nothing."""

    purpose: str
    statement: Statement | None
    no_effect: NoEffect = ""


class _Named(msgspec.Struct):
    purpose: str


class _Objected(msgspec.Struct):
    purpose: str | None = None


class _Given(msgspec.Struct):
    purpose: str
    until: datetime | None = None
    notice_version: object = None
    categories: list[str] | None = None


def told_by(event: Event, purposes: Mapping[str, Purpose]) -> list[Said]:
    """What an event says of purposes in its own words, whatever stands already; its `gpc` is not looked at.

    An unreadable statement of a refusal refuses every purpose: consent fails closed.
    """
    refusal = Statement(False, event.occurred_at)
    try:
        match event.name:
            case "Consent Granted":
                return [_given(event, msgspec.json.decode(event.properties, type=_Given), purposes)]
            case "Consent Refused" | "Consent Withdrawn":
                name = msgspec.json.decode(event.properties, type=_Named).purpose
                return [_of(name, refusal, purposes)]
            case "Objection Raised":
                named = msgspec.json.decode(event.properties, type=_Objected).purpose
                if named is not None:
                    return [_of(named, refusal, purposes)]
                found = [Said(name, refusal) for name, each in purposes.items() if each.may_be_objected_to]
                return found or [Said("", None, "no_such_purpose")]
            case "Processing Restricted":
                return [Said(ALL, refusal)]
            case "Restriction Lifted":
                if event.source != OWN_SOURCE:
                    return [Said(ALL, None, "not_theirs_to_lift")]
                return [Said(ALL, Statement(True, event.occurred_at))]
            case _:
                return []
    except msgspec.MsgspecError:
        if event.name == GRANTED:
            return [Said("", None, "unreadable")]
        return [Said(name, refusal) for name in purposes]


def _given(event: Event, words: _Given, purposes: Mapping[str, Purpose]) -> Said:
    until = None
    if words.until is not None:
        until = instant(words.until) if words.until.tzinfo else event.occurred_at
    categories = None if words.categories is None else tuple(sorted(set(words.categories)))
    found = _of(words.purpose, Statement(True, event.occurred_at, until, event.gpc, categories), purposes)
    if found.statement is not None and purposes[words.purpose].notices:
        if words.notice_version not in purposes[words.purpose].notices:
            return Said(words.purpose, None, "notice")
    return found


def _of(name: str, statement: Statement, purposes: Mapping[str, Purpose]) -> Said:
    return Said(name, statement) if name in purposes else Said(name, None, "no_such_purpose")


def spoken(event: Event, purposes: Mapping[str, Purpose], standing: Statements) -> Statements:
    """What an event changes: purpose -> new statement; empty when it says nothing."""
    said: Statements = {}
    if event.gpc:
        for name, purpose in purposes.items():
            before = standing.get(name)
            if purpose.gpc and not (before is not None and before.granted and before.under_gpc):
                said[name] = Statement(False, event.occurred_at)
    if event.name in SPOKEN:
        for each in told_by(event, purposes):
            if each.statement is not None:
                said[each.purpose] = each.statement
    return {name: new for name, new in said.items() if not _same(standing.get(name), new)}


def _same(old: Statement | None, new: Statement) -> bool:
    return old is not None and not old.granted and not new.granted


def strictest(a: Statements, b: Statements) -> Statements:
    """What stands when two groups are joined: refused > granted > unknown; of two refusals the later, of two
    grants what both of them open."""
    joined = dict(a)
    for name, statement in b.items():
        other = joined.get(name)
        joined[name] = statement if other is None else _stricter(other, statement)
    return joined


def _stricter(a: Statement, b: Statement) -> Statement:
    if not (a.granted and b.granted):
        return min(a, b, key=lambda each: (each.granted, -each.stated_at))
    ends = [each.until for each in (a, b) if each.until is not None]
    categories = b.categories if a.categories is None else a.categories
    if a.categories is not None and b.categories is not None:
        categories = tuple(each for each in a.categories if each in b.categories)
    at = max(a.stated_at, b.stated_at)
    return Statement(True, at, min(ends, default=None), a.under_gpc and b.under_gpc, categories)


def whole(groups: Mapping[str, Statements]) -> Statements:
    """What stands for a customer as a whole: the strictest of all groups."""
    joined: Statements = {}
    for group in sorted(groups):
        joined = strictest(joined, groups[group])
    return joined


def in_force(purpose: Purpose, statement: Statement | None, at: int, category: str | None = None) -> bool:
    """Whether a purpose may be acted on at an instant, given the standing statement; if a category is given,
    on data of this one."""
    if statement is None:
        return purpose.allows(None)
    if statement.granted and not statement.holds(at):
        return purpose.allows(None)
    if statement.granted and category is not None and not statement.covers(category):
        return False
    return purpose.allows("granted" if statement.granted else "refused")


def is_restricted(statements: Statements) -> bool:
    """Whether a restriction of all processing stands."""
    restriction = statements.get(ALL)
    return restriction is not None and not restriction.granted


def why(name: str, purpose: Purpose, statements: Statements, at: int) -> Why:
    """Why a purpose is open (`granted`, `basis`) or closed at an instant."""
    statement = statements.get(name)
    if is_restricted(statements):
        return "restricted"
    if statement is not None and not statement.granted:
        return "refused"
    if statement is not None and statement.holds(at):
        return "granted"
    if purpose.allows(None):
        return "basis"
    return "unknown" if statement is None else "ended"


def mask(
    purposes: Sequence[tuple[str, Purpose]], statements: Statements, at: int, category: str | None = None
) -> int:
    """The purposes in force at an instant, as bits in the order given."""
    bits = 0
    if is_restricted(statements):
        return bits
    for number, (name, purpose) in enumerate(purposes):
        if in_force(purpose, statements.get(name), at, category):
            bits |= 1 << number
    return bits


def closing(purposes: Sequence[tuple[str, Purpose]], before: Statements, after: Statements, at: int) -> int:
    """The purposes that were open before and are closed after, or open to fewer categories, as bits."""
    bits = mask(purposes, before, at)
    left = mask(purposes, after, at)
    for number, (name, _) in enumerate(purposes):
        if _is_narrowed(before.get(name), after.get(name)):
            left &= ~(1 << number)
    return bits & ~left


def _is_narrowed(old: Statement | None, new: Statement | None) -> bool:
    if new is None or not new.granted or new.categories is None:
        return False
    was = None if old is None or not old.granted else old.categories
    return was is None or not set(was) <= set(new.categories)
