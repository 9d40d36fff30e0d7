"""Links: append-only evidence that two identifiers are one customer's, or that they are not.

Events are never rewritten (law 5): a link is made from an event, by a person's command or by linkage, and
is only ever revoked, never deleted. Customers are derived from the links by `resolve`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Literal

import msgspec

from hetki.events.event import Event
from hetki.events.fields import json_object
from hetki.identity.identifier import (
    BUILT_IN,
    LEAVES,
    REMEMBERED_MAX,
    Identifier,
    Namespace,
    NodeId,
    identifier,
    leaf_of,
)

#: Kinds of evidence, strongest first: a person's word, the company's alias, a login, an external id, an
#: address, a device, what linkage found likely. Two join nothing: what linkage holds possible waits for a
#: person, and `cannot` is a person's word that two are not one.
LinkKind = Literal[
    "merge", "alias", "login", "declared", "email", "phone", "device", "probable", "possible", "cannot"
]
STRENGTH: Final[dict[LinkKind, int]] = {
    "cannot": 0,
    "merge": 1,
    "alias": 2,
    "login": 3,
    "declared": 4,
    "email": 5,
    "phone": 6,
    "device": 7,
    "probable": 8,
    "possible": 9,
}
#: The kinds that events tell: those that count when it is asked what a value is beside.
TOLD: Final[tuple[LinkKind, ...]] = ("alias", "login", "declared", "email", "phone", "device")
#: The rule of a merge by which a person makes one customer of two ids that are unique for ever.
DESPITE_UNIQUE: Final = "despite_unique"
#: External ids of one event that are read.
EXTERNAL_MAX: Final = 10
_TYPE = re.compile(r"[a-z][a-z0-9_]{0,39}")


class Link(msgspec.Struct, frozen=True, gc=False):
    """Evidence that `node_a` and `node_b` are one customer's; `linked_at` is when it was first seen.

    `cause` is the event id or the command id that it came from. Of linkage: `weight` in bits, `rule` is the
    model's version, `told` the weight by field, which add up to it. Of a person: `said_by`.
    """

    link_id: bytes
    kind: LinkKind
    node_a: NodeId
    node_b: NodeId
    linked_at: int
    cause: bytes
    weight: float = 0.0
    rule: str = ""
    said_by: str = ""
    told: tuple[tuple[str, float], ...] = ()

    @property
    def ends(self) -> tuple[NodeId, NodeId]:
        """Both nodes, the lower one first."""
        return self.node_a, self.node_b

    @property
    def sight(self) -> tuple[int, bytes]:
        """When it was first seen, and in what: of two events of one instant the lower id."""
        return self.linked_at, self.cause

    @property
    def strength(self) -> tuple[int, float, int, bytes]:
        """The order in which links are believed: kind, weight, time, id."""
        return (STRENGTH[self.kind], -self.weight, self.linked_at, self.link_id)


class Evidence(msgspec.Struct, frozen=True, gc=False):
    """What one event says of identity, and when: its leaf, the identifiers it names, the links between
    them. An id that an alias only mentions is an end of a link and not an identifier: it waits until it is
    seen."""

    leaf: Identifier
    identifiers: list[Identifier]
    links: list[Link]
    told_at: int


def make_link(
    kind: LinkKind,
    a: NodeId,
    b: NodeId,
    linked_at: int,
    cause: bytes,
    once: bytes = b"",
    weight: float = 0.0,
    rule: str = "",
    said_by: str = "",
    told: tuple[tuple[str, float], ...] = (),
) -> Link:
    """A link between two nodes; equal pairs of one kind (and `once`) have equal ids, in any order."""
    low, high = (a, b) if a < b else (b, a)
    link_id = _link_id(kind, low, high, once)
    return Link(link_id, kind, low, high, linked_at, cause, weight, rule, said_by, told)


@lru_cache(maxsize=REMEMBERED_MAX)
def _link_id(kind: LinkKind, low: NodeId, high: NodeId, once: bytes) -> bytes:
    return blake2b(kind.encode() + low + high + once, digest_size=16).digest()


def evidence(key: bytes, event: Event, event_id: bytes) -> Evidence:
    """The leaf, identifiers and links of one event.

    A login links the user id with the anonymous id; an alias links the leaf with its previous id, which
    may have been either; an e-mail address, a phone, a device or an external id is linked with the leaf.
    """
    leaf = leaf_of(key, event)
    found = [leaf]
    links: list[Link] = []

    def link(kind: LinkKind, other: Identifier | None) -> None:
        if other is not None and other.node != leaf.node:
            if kind != "alias":
                found.append(other)
            links.append(make_link(kind, leaf.node, other.node, event.occurred_at, event_id))

    names = event.identifiers
    if leaf.namespace == "user_id" and "anonymous_id" in names:
        link("login", identifier(key, "anonymous_id", names["anonymous_id"]))
    if leaf.namespace != "record" and "record_id" in names:
        link("login", identifier(key, "record", names["record_id"]))
    if "previous_id" in names:
        link("alias", identifier(key, "user_id", names["previous_id"]))
        link("alias", identifier(key, "anonymous_id", names["previous_id"]))
    if "email" in names:
        link("email", identifier(key, "email", names["email"]))
    if "phone" in names:
        link("phone", identifier(key, "phone", names["phone"]))
    for kind, namespace, value in told_in_context(event):
        link(kind, identifier(key, namespace, value))
    return Evidence(leaf, found, links, event.occurred_at)


def tellers(link: Link, spaces: Mapping[NodeId, Namespace]) -> set[NodeId]:
    """The ends of a link that events tell which may be the leaves of such events; `spaces` are the namespaces
    of the ends that are known. Both ends only where an alias is of one user or visitor for another."""
    leaves = {end for end in (link.node_a, link.node_b) if spaces.get(end) in LEAVES}
    if len(leaves) < 2 or (link.kind == "alias" and {spaces[end] for end in leaves} <= {*LEAVES[:2]}):
        return leaves
    if link.kind == "alias":  # what is an alias is a user's or a visitor's
        return {end for end in leaves if spaces[end] not in LEAVES[:2]}
    return {min(leaves, key=lambda end: LEAVES.index(spaces[end]))}  # a user names visits, both name records


def told_in_context(event: Event) -> Iterator[tuple[LinkKind, Namespace, str]]:
    """What Segment's context tells: `device.id`, and ids of the user's own in `externalIds`."""
    if b'"id"' not in event.context:  # most contexts name no id at all, and are not read
        return
    if b'"device"' not in event.context and b'"externalIds"' not in event.context:
        return
    context = json_object(event.context)
    device, ids = context.get("device"), context.get("externalIds")
    if isinstance(device, dict) and isinstance(device.get("id"), str) and len(device["id"]) <= 512:
        yield "device", "device", device["id"]
    for each in ids[:EXTERNAL_MAX] if isinstance(ids, list) else ():
        if not isinstance(each, dict) or each.get("collection", "users") != "users":
            continue
        kind, value = each.get("type"), each.get("id")
        if isinstance(kind, str) and _TYPE.fullmatch(kind) and kind not in BUILT_IN:
            if isinstance(value, str) and 0 < len(value) <= 512 and "\x00" not in value:
                yield "declared", kind, value
