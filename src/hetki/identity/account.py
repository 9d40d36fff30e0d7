"""Accounts: business customers, by the id with which sources group people (Segment's `group`).

An account is a layer over customers and never joins them. A `group` call makes its customer a member from
then on; an event that names an account by itself (`context.groupId`) is that account's alone.
"""

from __future__ import annotations

from hashlib import blake2b

from hetki.events.event import GROUPED, Event, LeafId
from hetki.events.fields import json_object
from hetki.identity.identifier import JUNK

#: Customers of one account whose events are folded for it: the first by when they came. More are listed.
MEMBERS_MAX = 1_000

#: A longer group id names no account.
CHARS_MAX = 500

#: Stands wherever a customer's id may: a keyed hash (16 bytes) of an account's group id.
AccountId = LeafId


def normalised_group(value: object) -> str | None:
    """A group id in comparable form; None when it names no account.

    >>> normalised_group(" Kone Oyj "), normalised_group(7), normalised_group("undefined")
    ('Kone Oyj', '7', None)
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value).strip()
    return None if text.lower() in JUNK or len(text) > CHARS_MAX else text


def group_of(event: Event) -> str | None:
    """The group id of the account that an event names by itself; None if it names none."""
    told: object = event.identifiers.get("group_id")
    if told is None and event.name == GROUPED:  # of a file, or a CloudEvent
        told = json_object(event.properties).get("group_id")
    if told is None and b"groupId" in event.context:
        told = json_object(event.context).get("groupId")
    return normalised_group(told)


def account_id(key: bytes, group_id: str) -> AccountId:
    """The id of the account with a normalised group id."""
    return AccountId(blake2b(group_id.encode(), key=key, digest_size=16, person=b"account").digest())


def joins_account(event: Event) -> bool:
    """Whether an event makes its customer a member of the account that it names."""
    return event.name == GROUPED


def is_of(named: str | None, group_id: str, joined_at: int | None, occurred_at: int) -> bool:
    """Whether an event of a customer is an account's: it names it, or names none and the customer is a
    member by then.

    >>> is_of("kone", "kone", None, 5), is_of(None, "kone", 4, 5), is_of(None, "kone", 6, 5)
    (True, True, False)
    >>> is_of("nokia", "kone", 4, 5)
    False
    """
    if named is not None:
        return named == group_id
    return joined_at is not None and joined_at <= occurred_at
