"""Links: append-only evidence that two identifiers are one customer's.

Events are never rewritten (law 5): a link is made from an event or by a person's command, and is only ever
revoked, never deleted. Customers are derived from the links by `resolve`.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Literal

import msgspec

from hetki.events.event import Event
from hetki.identity.identifier import Identifier, NodeId, identifier, leaf_of

#: Kinds of evidence, strongest first: a person's word, the company's alias, a login, an address.
LinkKind = Literal["merge", "alias", "login", "email", "phone"]
STRENGTH: dict[LinkKind, int] = {"merge": 0, "alias": 1, "login": 2, "email": 3, "phone": 4}


class Link(msgspec.Struct, frozen=True, gc=False):
    """Evidence that `node_a` and `node_b` are one customer's; `linked_at` is when it was first seen.

    `cause` is the event id or the command id that it came from.
    """

    link_id: bytes
    kind: LinkKind
    node_a: NodeId
    node_b: NodeId
    linked_at: int
    cause: bytes


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """What one event says of identity: its leaf, every identifier it names, the links between them."""

    leaf: Identifier
    identifiers: list[Identifier]
    links: list[Link]


def make_link(kind: LinkKind, a: NodeId, b: NodeId, linked_at: int, cause: bytes, once: bytes = b"") -> Link:
    """A link between two nodes; equal pairs of one kind (and `once`) have equal ids, in any order."""
    low, high = (a, b) if a < b else (b, a)
    return Link(_link_id(kind, low, high, once), kind, low, high, linked_at, cause)


@lru_cache(maxsize=65_536)
def _link_id(kind: LinkKind, low: NodeId, high: NodeId, once: bytes) -> bytes:
    return blake2b(kind.encode() + low + high + once, digest_size=16).digest()


def evidence(key: bytes, event: Event, event_id: bytes) -> Evidence:
    """The leaf, identifiers and links of one event.

    A login links the user id with the anonymous id; an alias links the leaf with its previous id, which
    may have been either; an e-mail address or phone number is linked with the leaf.
    """
    leaf = leaf_of(key, event)
    found = [leaf]
    links: list[Link] = []

    def link(kind: LinkKind, other: Identifier | None) -> None:
        if other is not None and other.node != leaf.node:
            found.append(other)
            links.append(make_link(kind, leaf.node, other.node, event.occurred_at, event_id))

    names = event.identifiers
    if leaf.namespace == "user_id" and "anonymous_id" in names:
        link("login", identifier(key, "anonymous_id", names["anonymous_id"]))
    if "previous_id" in names:
        link("alias", identifier(key, "user_id", names["previous_id"]))
        link("alias", identifier(key, "anonymous_id", names["previous_id"]))
    if "email" in names:
        link("email", identifier(key, "email", names["email"]))
    if "phone" in names:
        link("phone", identifier(key, "phone", names["phone"]))
    return Evidence(leaf, found, links)
