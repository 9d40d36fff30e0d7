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

Refusal = Literal["two_user_ids", "too_many_identifiers"]
#: A customer with more identifiers than this is a shared device, a robot or junk.
IDENTIFIERS_MAX = 200
RANK: dict[Namespace, int] = {"user_id": 0, "anonymous_id": 1, "event": 2, "email": 3, "phone": 4}


class Resolution(msgspec.Struct, frozen=True):
    """`roots` maps each node to its customer; `refused` maps a link's id to the reason."""

    roots: dict[NodeId, LeafId]
    refused: dict[bytes, Refusal]


def resolve(nodes: Mapping[NodeId, Namespace], links: Iterable[Link]) -> Resolution:
    """Customers as components of accepted links.

    Weak evidence (a login, an address) never joins two user ids: that takes a person or an alias. A
    customer is named by its leaf of lowest rank (user id before anonymous id) and lowest hash, so the name
    is stable while that leaf stays, and any leaf of a customer finds it.
    """
    parent: dict[NodeId, NodeId] = {node: node for node in nodes}
    n_users = {node: int(space == "user_id") for node, space in nodes.items()}
    size = dict.fromkeys(nodes, 1)
    refused: dict[bytes, Refusal] = {}

    def top(node: NodeId) -> NodeId:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for link in sorted(links, key=lambda link: (STRENGTH[link.kind], link.linked_at, link.link_id)):
        a, b = top(link.node_a), top(link.node_b)
        if a == b:
            continue
        if link.kind not in ("merge", "alias") and n_users[a] and n_users[b]:
            refused[link.link_id] = "two_user_ids"
        elif size[a] + size[b] > IDENTIFIERS_MAX:
            refused[link.link_id] = "too_many_identifiers"
        else:
            parent[b] = a
            n_users[a] += n_users[b]
            size[a] += size[b]
    members: dict[NodeId, list[NodeId]] = {}
    for node in nodes:
        members.setdefault(top(node), []).append(node)
    roots: dict[NodeId, LeafId] = {}
    for group in members.values():
        root = as_leaf(min(group, key=lambda node: (RANK[nodes[node]], node)))
        roots.update((node, root) for node in group)
    return Resolution(roots, refused)
