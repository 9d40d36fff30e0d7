"""Identifiers: the names by which sources call a customer, made comparable, and the leaf of an event.

A node is the keyed hash of a namespace and a value. A leaf is the node that owns an event: its user id,
else its anonymous id, else the row of a table that it came from, else the event itself; never a shared
address or device.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NewType

import msgspec

from hetki.events.event import OWN_SOURCE, Event, LeafId

#: Where a name is from. Besides those of `BUILT_IN` a sender may tell any other (`context.externalIds`).
Namespace = str
#: Keyed hash (16 bytes) of a namespace and a normalised value.
NodeId = NewType("NodeId", bytes)

#: By which of its identifiers people know a customer, best first; `record` is a row of a customer table.
KNOWN_BY: Final = ("user_id", "email", "phone", "record", "anonymous_id", "device")
#: Namespaces that own events.
LEAVES: Final = ("user_id", "anonymous_id", "record", "event")
BUILT_IN: Final = frozenset({*KNOWN_BY, *LEAVES})

#: Values that broken clients send in place of an id; they name nobody.
JUNK = frozenset(
    {"", "null", "none", "nil", "undefined", "nan", "unknown", "anonymous", "guest", "n/a", "na", "0", "-1"}
    | {"true", "false", "[object object]", "{}", "[]", "00000000-0000-0000-0000-000000000000"}
)
EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]+\.[^@\s.]{2,}")
NOT_DIGITS = re.compile(r"[\s().\-/]+")
PHONE = re.compile(r"\+?[0-9]{7,15}")
#: Identifiers that are remembered, and characters of one: a long one is large, and strings of more than half
#: a kilobyte that are kept lie strewn over what could be given back to the system.
REMEMBERED_MAX, REMEMBERED_CHARS_MAX = 16_384, 100


class Identifier(msgspec.Struct, frozen=True, gc=False):
    """One name of a customer: where it is from, its normalised value, its node."""

    node: NodeId
    namespace: Namespace
    value: str


def normalised(namespace: Namespace, value: str) -> str | None:
    """A value in comparable form; None when it names nobody.

    >>> normalised("email", " Anna@Example.FI "), normalised("phone", "00358 40 123-4567")
    ('anna@example.fi', '+358401234567')
    >>> normalised("user_id", "undefined") is None
    True
    """
    text = value.strip()
    if text.lower() in JUNK:
        return None
    if namespace == "email":
        text = text.lower()
        return text if EMAIL.fullmatch(text) else None
    if namespace == "phone":
        text = NOT_DIGITS.sub("", text)
        text = "+" + text[2:] if text.startswith("00") else text
        return text if PHONE.fullmatch(text) else None
    return text


def identifier(key: bytes, namespace: Namespace, value: str) -> Identifier | None:
    """An identifier with its node; None when the value names nobody."""
    make = _identifier if len(value) <= REMEMBERED_CHARS_MAX else _identifier.__wrapped__
    return make(key, namespace, value)


@lru_cache(maxsize=REMEMBERED_MAX)
def _identifier(key: bytes, namespace: Namespace, value: str) -> Identifier | None:
    text = normalised(namespace, value)
    if text is None:
        return None
    digest = blake2b(f"{namespace}\0{text}".encode(), key=key, digest_size=16).digest()
    return Identifier(NodeId(digest), namespace, text)


def leaf_of(key: bytes, event: Event) -> Identifier:
    """The leaf of an event: its user id, else its anonymous id, else its record, else the event itself."""
    names = event.identifiers
    user, anonymous = names.get("user_id", ""), names.get("anonymous_id", "")
    record = names.get("record_id", "")
    n_chars = len(user) + len(anonymous) + len(record)
    find = _named if n_chars <= REMEMBERED_CHARS_MAX else _named.__wrapped__
    named = find(key, user, anonymous, record)
    if named is not None:
        return named
    itself = f"{event.source}:{event.message_id}"
    if event.source == OWN_SOURCE:  # what staff enter for one event that nobody has put a name to
        itself = names.get("event", itself)
    own = identifier(key, "event", itself)
    assert own is not None, "an event names itself"
    return own


@lru_cache(maxsize=REMEMBERED_MAX)
def _named(key: bytes, user_id: str, anonymous_id: str, record_id: str) -> Identifier | None:
    return (
        identifier(key, "user_id", user_id)
        or identifier(key, "anonymous_id", anonymous_id)
        or identifier(key, "record", record_id)
    )


def as_leaf(node: NodeId) -> LeafId:
    """A node taken as a leaf."""
    return LeafId(bytes(node))
