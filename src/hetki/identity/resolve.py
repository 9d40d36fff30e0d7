"""Resolve: the customers that a set of links makes, and the links that had to be refused.

A function of the evidence, not of the order of arrival: links are taken in the order (kind, weight, time,
id) and each is accepted unless a constraint breaks. Nothing here is stored as truth. `derive` says all of
it from all of the evidence; what is stored is kept equal to it component by component.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from hetki.events.event import LeafId
from hetki.identity.identifier import LEAVES, Namespace, NodeId, as_leaf
from hetki.identity.link import DESPITE_UNIQUE, STRENGTH, TOLD, Link
from hetki.identity.policy import CROWD_MAX, LINKS_MAX, Policy, Rule

Refusal = Literal[
    "two_unique_ids",
    "too_many_values",
    "cannot_link",
    "overruled",
    "crowd",
    "never_alone",
    "blocked_value",
    "shared_value",
    "unknown_identifier",
    "needs_review",
]
#: Why an identifier joins nobody: its value is junk, too many share it, nobody knows who is who around it.
Quarantine = Literal["", "blocked_value", "shared_value", "crowd"]
#: Refusals that the two ends of a link say by themselves: such a link carries nothing further.
LOCAL: Final = ("never_alone", "blocked_value", "shared_value", "unknown_identifier", "needs_review")


class Node(msgspec.Struct, frozen=True, gc=False):
    """An identifier as it is resolved. `first_at`: when the earliest event that names it happened."""

    namespace: Namespace
    first_at: int
    quarantine: Quarantine = ""


class Resolution(msgspec.Struct, frozen=True):
    """`roots` maps each node to its customer; `refused` a link's id to the reason; `joining` has the ids of
    the links by which groups grew together, each at its own time."""

    roots: dict[NodeId, LeafId]
    refused: dict[bytes, Refusal]
    joining: set[bytes]


def refused_by_ends(link: Link, a: Node | None, b: Node | None, policy: Policy) -> Refusal | None:
    """Why a link carries nothing, as its two ends say; None if it may carry."""
    if link.kind == "possible":
        return "needs_review"
    if a is None or b is None:
        return "unknown_identifier"
    if link.kind in ("merge", "cannot"):
        return None
    if not policy.of(a.namespace).joins or not policy.of(b.namespace).joins:
        return "never_alone"
    for end in (a, b):
        if end.quarantine == "blocked_value" or end.quarantine == "shared_value":
            return end.quarantine
    return None


def is_shared(policy: Policy, namespace: Namespace, beside: Mapping[Namespace, int]) -> bool:
    """Whether too many share an identifier. `beside`: the links that events tell of it, by the namespace of
    the other end."""
    unique_ids_max = policy.of(namespace).unique_ids_max
    n_unique = sum(n for space, n in beside.items() if policy.of(space).is_unique)
    return sum(beside.values()) > LINKS_MAX or bool(unique_ids_max and n_unique > unique_ids_max)


class _Groups:
    """Nodes that grow together; of each group, when each value of a bounded namespace was first seen."""

    def __init__(self, nodes: Mapping[NodeId, Node], policy: Policy) -> None:
        self._parent: dict[NodeId, NodeId] = {node: node for node in nodes}
        self._rules: dict[Namespace, Rule] = {
            space: policy.of(space) for space in {each.namespace for each in nodes.values()}
        }
        self._seen: dict[NodeId, dict[Namespace, list[int]]] = {
            node: {each.namespace: [each.first_at]} if self._rules[each.namespace].per_customer else {}
            for node, each in nodes.items()
        }
        self.size = dict.fromkeys(nodes, 1)
        self._apart: dict[NodeId, set[NodeId]] = {}

    def top(self, node: NodeId) -> NodeId:
        parent = self._parent
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def part(self, a: NodeId, b: NodeId) -> None:
        """Two nodes are never to be of one group."""
        self._apart.setdefault(a, set()).add(b)
        self._apart.setdefault(b, set()).add(a)

    def join(self, a: NodeId, b: NodeId) -> None:
        """Make one group of the groups that two tops stand for."""
        if self.size[a] < self.size[b]:
            a, b = b, a
        self._parent[b] = a
        self.size[a] += self.size[b]
        for space, times in self._seen.pop(b).items():
            self._seen[a][space] = sorted([*self._seen[a].get(space, ()), *times])
        if b in self._apart:
            self._apart.setdefault(a, set()).update(self._apart.pop(b))

    def breaks(self, link: Link, a: NodeId, b: NodeId) -> Refusal | None:
        """Which constraint a join of two groups would break."""
        if self._apart and any(self.top(node) == b for node in self._apart.get(a, ())):
            return "cannot_link"
        seen_a, seen_b = self._seen[a], self._seen[b]
        for space in seen_a.keys() & seen_b.keys():
            rule = self._rules[space]
            if rule.is_unique:
                if link.rule != DESPITE_UNIQUE:
                    return "two_unique_ids"
            elif link.kind != "merge" and _are_too_many(rule, sorted([*seen_a[space], *seen_b[space]])):
                return "too_many_values"
        return None


def _are_too_many(rule: Rule, times: list[int]) -> bool:
    """Whether more values than a customer may have were first seen within one period."""
    if rule.within is None:
        return len(times) > rule.per_customer
    return any(
        last - first < rule.within for first, last in zip(times, times[rule.per_customer :], strict=False)
    )


def resolve(nodes: Mapping[NodeId, Node], links: Iterable[Link], policy: Policy) -> Resolution:
    """Customers as components of accepted links, of nodes whose quarantine is known.

    A customer is named by its earliest leaf (the lowest hash of two of one instant), so that its id stays
    when others join, and any leaf of it finds it. A link to an identifier that was never seen waits,
    refused, until it is.
    """
    groups = _Groups(nodes, policy)
    refused: dict[bytes, Refusal] = {}
    standing: list[Link] = []
    ordered = sorted(links, key=lambda link: link.strength)
    overruled = _overruled(ordered)
    for link in ordered:
        node_a, node_b = nodes.get(link.node_a), nodes.get(link.node_b)
        refusal = refused_by_ends(link, node_a, node_b, policy)
        if refusal is None and link.link_id in overruled:
            refusal = "overruled"
        if refusal is None and link.kind == "cannot":
            groups.part(link.node_a, link.node_b)
            continue
        if refusal is None and link.kind != "merge":
            assert node_a is not None and node_b is not None
            refusal = "crowd" if "crowd" in (node_a.quarantine, node_b.quarantine) else None
        if refusal is None:
            a, b = groups.top(link.node_a), groups.top(link.node_b)
            refusal = groups.breaks(link, a, b) if a != b else None
            if refusal is None:
                standing.append(link)
                if a != b:
                    groups.join(a, b)
                continue
        refused[link.link_id] = refusal
    members: dict[NodeId, list[NodeId]] = {}
    for node in nodes:
        members.setdefault(groups.top(node), []).append(node)
    roots: dict[NodeId, LeafId] = {}
    for group in members.values():
        root = as_leaf(min(group, key=lambda node: (*_age(nodes[node]), node)))
        roots.update((node, root) for node in group)
    return Resolution(roots, refused, _joining(nodes, standing, policy))


def _age(node: Node) -> tuple[int, int, int]:
    """Leaves come first, then who was seen first; of one instant a user id before an anonymous id."""
    rank = LEAVES.index(node.namespace) if node.namespace in LEAVES else len(LEAVES)
    return (rank == len(LEAVES), node.first_at, rank)


def _overruled(links: Iterable[Link]) -> set[bytes]:
    """Of a person's answers about one pair those that say other than the last."""
    answers: dict[tuple[NodeId, NodeId], list[Link]] = {}
    for link in links:
        if link.kind in ("merge", "cannot"):
            answers.setdefault((link.node_a, link.node_b), []).append(link)
    found: set[bytes] = set()
    for each in answers.values():
        last = max(each, key=lambda link: (link.linked_at, link.link_id))
        found |= {link.link_id for link in each if link.kind != last.kind}
    return found


def _joining(nodes: Mapping[NodeId, Node], standing: list[Link], policy: Policy) -> set[bytes]:
    """The links by which groups grew together, each at its own time.

    A weak link between two user ids that a person joined later stands, but it joined nothing when it was
    seen: what they said of consent before is joined by the later one (law 4).
    """
    groups = _Groups(nodes, policy)
    found: set[bytes] = set()
    for link in sorted(standing, key=lambda link: (link.linked_at, STRENGTH[link.kind], link.link_id)):
        a, b = groups.top(link.node_a), groups.top(link.node_b)
        if a != b and groups.breaks(link, a, b) is None:
            groups.join(a, b)
            found.add(link.link_id)
    return found


def derive(nodes: Mapping[NodeId, Node], links: Iterable[Link], policy: Policy) -> Resolution:
    """Everything from all of the evidence: of `nodes` only blocked values need be marked."""
    links = list(links)
    beside: dict[NodeId, dict[Namespace, int]] = {}
    for link in links:
        if link.kind in TOLD and link.node_a in nodes and link.node_b in nodes:
            for end, other in ((link.node_a, link.node_b), (link.node_b, link.node_a)):
                space = nodes[other].namespace
                counted = beside.setdefault(end, {})
                counted[space] = counted.get(space, 0) + 1
    marked = {
        node: msgspec.structs.replace(each, quarantine="shared_value")
        if not each.quarantine and is_shared(policy, each.namespace, beside.get(node, {}))
        else each
        for node, each in nodes.items()
    }
    for node in crowded(marked, links, policy):
        if not marked[node].quarantine:
            marked[node] = msgspec.structs.replace(marked[node], quarantine="crowd")
    return resolve(marked, links, policy)


def crowded(nodes: Mapping[NodeId, Node], links: Iterable[Link], policy: Policy) -> set[NodeId]:
    """The nodes that evidence connects with more than CROWD_MAX others, or with one that it does."""
    groups = _Groups(nodes, policy)
    for link in links:
        ends = nodes.get(link.node_a), nodes.get(link.node_b)
        if link.kind != "cannot" and refused_by_ends(link, *ends, policy) is None:
            a, b = groups.top(link.node_a), groups.top(link.node_b)
            if a != b:
                groups.join(a, b)
    tops = {groups.top(node) for node, each in nodes.items() if each.quarantine == "crowd"}
    tops |= {top for node in nodes if groups.size[top := groups.top(node)] > CROWD_MAX}
    return {node for node in nodes if groups.top(node) in tops} if tops else set()
