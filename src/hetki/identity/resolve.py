"""Resolve: the customers that a set of links makes, and the links that had to be refused.

A function of the evidence, not of the order of arrival: links are taken in the order (kind, weight, time,
id) and each is accepted unless a constraint breaks. Nothing here is stored as truth. `derive` says all of
it from all of the evidence; what is stored is kept equal to it component by component.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Final, Literal

import msgspec

from hetki.events.event import LeafId
from hetki.identity.identifier import LEAVES, Namespace, NodeId, as_leaf
from hetki.identity.link import DESPITE_UNIQUE, STRENGTH, TOLD, Link
from hetki.identity.policy import CROWD_MAX, LINKS_MAX, OTHERS_MAX, Policy, Rule

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
#: Beside so many unique ids an identifier is judged together with all that is said of them: they may be one
#: person's two accounts. Beside more, it is quarantined by itself.
CLAIMS_MAX: Final = 2
LOGIN: Final = STRENGTH["login"]
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
    """Whether too many share an identifier. `beside`: how many others events tell beside it, by namespace."""
    unique_ids_max = policy.of(namespace).unique_ids_max
    n_unique = max((n for space, n in beside.items() if policy.of(space).is_unique), default=0)
    is_claimed = unique_ids_max > 0 and n_unique > max(unique_ids_max, CLAIMS_MAX)
    return is_claimed or sum(beside.values()) > (OTHERS_MAX if unique_ids_max else LINKS_MAX)


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
        self._despite: dict[NodeId, int] = {}
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

    def join(self, link: Link, a: NodeId, b: NodeId) -> None:
        """Make one group of the groups that two tops stand for, by a link."""
        if self.size[a] < self.size[b]:
            a, b = b, a
        self._parent[b] = a
        self.size[a] += self.size[b]
        for space, times in self._seen.pop(b).items():
            self._seen[a][space] = sorted([*self._seen[a].get(space, ()), *times])
        n_despite = self._despite.pop(b, 0) + int(link.rule == DESPITE_UNIQUE)
        if n_despite:
            self._despite[a] = self._despite.get(a, 0) + n_despite
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
                # Whoever said that somebody has two accounts said it of whatever comes to them later, too.
                n_despite = self._despite.get(a, 0) + self._despite.get(b, 0) + (link.rule == DESPITE_UNIQUE)
                if len(seen_a[space]) + len(seen_b[space]) > 1 + n_despite:
                    return "two_unique_ids"
            elif _binds(rule, link) and _are_too_many(rule, sorted([*seen_a[space], *seen_b[space]])):
                return "too_many_values"
        return None


def _binds(rule: Rule, link: Link) -> bool:
    """Whether a bound of a namespace holds for a link: a person has the last word, and linkage has weighed
    itself that two addresses differ, which people change; how many records may be one it has not."""
    return link.kind != "merge" and (link.kind != "probable" or rule.within is None)


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
    refused: dict[bytes, Refusal] = {}
    carrying: list[Link] = []
    for link in sorted(links, key=lambda link: link.strength):
        refusal = _refused_before(link, nodes, policy)
        if refusal is None:
            carrying.append(link)
        else:
            refused[link.link_id] = refusal
    overruled = _overruled(carrying)
    groups, judged, standing = _heard(nodes, carrying, overruled, policy, {})
    torn = _torn(nodes, standing, judged, carrying, policy)
    if torn:
        groups, judged, standing = _heard(nodes, carrying, overruled, policy, torn)
    refused.update(judged)
    members: dict[NodeId, list[NodeId]] = {}
    for node in nodes:
        members.setdefault(groups.top(node), []).append(node)
    roots: dict[NodeId, LeafId] = {}
    for group in members.values():
        root = as_leaf(min(group, key=lambda node: (*_age(nodes[node]), node)))
        roots.update((node, root) for node in group)
    return Resolution(roots, refused, _joining(nodes, standing, policy))


def _heard(
    nodes: Mapping[NodeId, Node],
    links: Iterable[Link],
    overruled: Set[bytes],
    policy: Policy,
    torn: Mapping[NodeId, Refusal],
) -> tuple[_Groups, dict[bytes, Refusal], list[Link]]:
    """The groups that links make, taken in their order; the refused ones, and those that stand."""
    groups = _Groups(nodes, policy)
    refused: dict[bytes, Refusal] = {}
    standing: list[Link] = []
    apart = dict(torn)
    unique = {node for node, each in nodes.items() if policy.of(each.namespace).is_unique}
    stages: tuple[list[Link], ...] = ([], [], [], [], [])
    for link in links:
        if link.link_id in overruled:
            refused[link.link_id] = "overruled"
        elif link.kind == "cannot":
            groups.part(link.node_a, link.node_b)
        else:
            stages[_stage(link, unique)].append(link)
    for number, stage in enumerate(stages):
        if number in (1, 2, 3):
            apart.update(_between(nodes, groups, stage, unique, policy))
        if number == 3:
            stage = _owned_first(stage, groups, unique)
        for link in stage:
            a, b = groups.top(link.node_a), groups.top(link.node_b)
            refusal = apart.get(link.node_a) or apart.get(link.node_b) if number else None
            if refusal is None and a != b:
                refusal = groups.breaks(link, a, b)
            if refusal is not None:
                refused[link.link_id] = refusal
                continue
            standing.append(link)
            if a != b:
                groups.join(link, a, b)
    return groups, refused, standing


def _stage(link: Link, unique: Set[NodeId]) -> int:
    """When a link is heard: a person's word and an alias, a login, what a user id comes with, what else
    events tell, what linkage found."""
    if STRENGTH[link.kind] <= LOGIN:
        return int(link.kind == "login")
    if link.kind not in TOLD:
        return 4
    return 2 if link.node_a in unique or link.node_b in unique else 3


def _owned_first(links: Iterable[Link], groups: _Groups, unique: Iterable[NodeId]) -> list[Link]:
    """What a customer with a user id tells, before what nobody tells; else in their order."""
    owned = {groups.top(node) for node in unique}
    return sorted(
        links, key=lambda x: groups.top(x.node_a) not in owned and groups.top(x.node_b) not in owned
    )


def _torn(
    nodes: Mapping[NodeId, Node],
    standing: Iterable[Link],
    refused: Mapping[bytes, Refusal],
    links: Iterable[Link],
    policy: Policy,
) -> dict[NodeId, Refusal]:
    """Leaves without a login that name what is one customer's and what cannot be that customer's."""
    firm: set[NodeId] = set()
    held: set[NodeId] = set()
    for link in standing:
        (held if STRENGTH[link.kind] > LOGIN else firm).update((link.node_a, link.node_b))
    loose = held - firm
    found: dict[NodeId, Refusal] = {}
    for link in links:
        if refused.get(link.link_id) == "too_many_values" and link.kind in TOLD:
            for end in (link.node_a, link.node_b):
                space = nodes[end].namespace
                if end in loose and space in LEAVES and not policy.of(space).is_unique:
                    found[end] = "too_many_values"
    return found


def _refused_before(link: Link, nodes: Mapping[NodeId, Node], policy: Policy) -> Refusal | None:
    """Why a link is refused whatever else is said."""
    a, b = nodes.get(link.node_a), nodes.get(link.node_b)
    refusal = refused_by_ends(link, a, b, policy)
    if refusal is None and link.kind not in ("merge", "cannot"):
        assert a is not None and b is not None
        return "crowd" if "crowd" in (a.quarantine, b.quarantine) else None
    return refusal


def _between(
    nodes: Mapping[NodeId, Node],
    groups: _Groups,
    links: Iterable[Link],
    unique: Iterable[NodeId],
    policy: Policy,
) -> dict[NodeId, Refusal]:
    """The identifiers that would be put to one of several unique ids by mere chance of who came first.

    Stronger evidence has been heard. A browser in which two users logged in, an address that the browsers of
    two users name, and a browser without a user that names the addresses of two, belong to none of them.
    """
    owned = {groups.top(node) for node in unique}
    beside: dict[NodeId, set[NodeId]] = {}
    for link in links:
        beside.setdefault(link.node_a, set()).add(link.node_b)
        beside.setdefault(link.node_b, set()).add(link.node_a)
    touched = {node: {groups.top(each) for each in near} & owned for node, near in beside.items()}

    def is_between(node: NodeId, tops: set[NodeId]) -> bool:
        n_max = policy.of(nodes[node].namespace).unique_ids_max
        return n_max > 0 and len(tops) > n_max

    found = {node for node, tops in touched.items() if is_between(node, tops)}
    further: set[NodeId] = set()
    for node, near in beside.items():
        if node not in found and groups.top(node) not in owned:
            free = (each for each in near if each not in found and groups.top(each) not in owned)
            tops = touched[node].union(*(touched[each] for each in free))
            if is_between(node, tops):
                further.add(node)
    return dict.fromkeys(found | further, "two_unique_ids")


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
            groups.join(link, a, b)
            found.add(link.link_id)
    return found


def derive(nodes: Mapping[NodeId, Node], links: Iterable[Link], policy: Policy) -> Resolution:
    """Everything from all of the evidence: of `nodes` only blocked values need be marked."""
    links = list(links)
    beside: dict[NodeId, dict[Namespace, int]] = {}
    told = {(link.node_a, link.node_b) for link in links if link.kind in TOLD}
    for a, b in told:
        if a in nodes and b in nodes:
            for end, other in ((a, b), (b, a)):
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
                groups.join(link, a, b)
    tops = {groups.top(node) for node, each in nodes.items() if each.quarantine == "crowd"}
    tops |= {top for node in nodes if groups.size[top := groups.top(node)] > CROWD_MAX}
    return {node for node in nodes if groups.top(node) in tops} if tops else set()
