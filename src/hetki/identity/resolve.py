"""Resolve: the customers that a set of links makes, and the links that had to be refused.

A function of the evidence, not of the order of arrival: links are taken in the order (strength, time, id)
and each is accepted unless a constraint breaks. Nothing here is stored as truth.
"""

from __future__ import annotations

from typing import Iterable, Literal, Mapping

import msgspec

from hetki.events.event import LeafId
from hetki.identity.identifier import Namespace, NodeId, as_leaf
from hetki.identity.link import STRENGTH, Link

Refusal = Literal["two_user_ids", "too_many_identifiers", "unknown_identifier"]
#: A customer with more identifiers than this is a shared device, a robot or junk.
IDENTIFIERS_MAX = 200
RANK: dict[Namespace, int] = {"user_id": 0, "anonymous_id": 1, "event": 2, "email": 3, "phone": 4}


class Resolution(msgspec.Struct, frozen=True):
    """`roots` maps each node to its customer; `refused` maps a link's id to the reason."""

    roots: dict[NodeId, LeafId]
    refused: dict[bytes, Refusal]


class _Groups:
    """Nodes that grow together, and how many user ids and nodes each group has."""

    def __init__(self, nodes: Mapping[NodeId, Namespace]) -> None:
        self._parent: dict[NodeId, NodeId] = {node: node for node in nodes}
        self.n_users = {node: int(space == "user_id") for node, space in nodes.items()}
        self.size = dict.fromkeys(nodes, 1)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._parent

    def top(self, node: NodeId) -> NodeId:
        parent = self._parent
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def join(self, a: NodeId, b: NodeId) -> None:
        self._parent[b] = a
        self.n_users[a] += self.n_users[b]
        self.size[a] += self.size[b]

    def would_mix(self, link: Link, a: NodeId, b: NodeId) -> bool:
        """Whether weak evidence would make one of two user ids."""
        return link.kind not in ("merge", "alias") and bool(self.n_users[a] and self.n_users[b])


def resolve(nodes: Mapping[NodeId, Namespace], links: Iterable[Link]) -> Resolution:
    """Customers as components of accepted links.

    Weak evidence (a login, an address) never joins two user ids: that takes a person or an alias. A
    customer is named by its leaf of lowest rank (user id before anonymous id) and lowest hash, so the name
    is stable while that leaf stays, and any leaf of a customer finds it. A link to an identifier that was
    never seen waits, refused, until it is.
    """
    groups = _Groups(nodes)
    refused: dict[bytes, Refusal] = {}
    for link in sorted(links, key=lambda link: (STRENGTH[link.kind], link.linked_at, link.link_id)):
        if link.node_a not in groups or link.node_b not in groups:
            refused[link.link_id] = "unknown_identifier"
            continue
        a, b = groups.top(link.node_a), groups.top(link.node_b)
        if a == b:
            continue
        if groups.would_mix(link, a, b):
            refused[link.link_id] = "two_user_ids"
        elif groups.size[a] + groups.size[b] > IDENTIFIERS_MAX:
            refused[link.link_id] = "too_many_identifiers"
        else:
            groups.join(a, b)
    members: dict[NodeId, list[NodeId]] = {}
    for node in nodes:
        members.setdefault(groups.top(node), []).append(node)
    roots: dict[NodeId, LeafId] = {}
    for group in members.values():
        root = as_leaf(min(group, key=lambda node: (RANK[nodes[node]], node)))
        roots.update((node, root) for node in group)
    return Resolution(roots, refused)


def joins(nodes: Mapping[NodeId, Namespace], standing: Iterable[Link]) -> list[Link]:
    """The links by which groups grew together, each at its own time, in order of time.

    A weak link between two user ids that a person joined later stands, but it joined nothing when it was
    seen: what they said of consent before is joined by the later one (law 4).
    """
    groups = _Groups(nodes)
    found: list[Link] = []
    for link in sorted(standing, key=lambda link: (link.linked_at, STRENGTH[link.kind], link.link_id)):
        a, b = groups.top(link.node_a), groups.top(link.node_b)
        if a != b and not groups.would_mix(link, a, b):
            groups.join(a, b)
            found.append(link)
    return found
