"""How customers are judged by the truth of the hostile stream, and plain transitive closure beside them."""

from __future__ import annotations

from collections import Counter
from typing import Hashable, Iterable, Sequence

import msgspec

from hetki.identity.identifier import NodeId
from hetki.identity.link import Evidence


class Judged(msgspec.Struct, frozen=True):
    """Customers against persons, counted in events.

    An event is *misplaced* if its customer holds events of another person too and its own person has no
    more than half of them. It is *touched* if its customer holds events of two persons, whichever has
    more. It is *found* if it is in the customer that has most events of its person.
    """

    n_events: int
    n_customers: int
    n_persons: int
    n_misplaced: int
    n_touched: int
    n_found: int

    @property
    def misplaced_share(self) -> float:
        return self.n_misplaced / max(self.n_events, 1)

    @property
    def touched_share(self) -> float:
        return self.n_touched / max(self.n_events, 1)

    @property
    def recall(self) -> float:
        return self.n_found / max(self.n_events, 1)


def judged(customers: Sequence[Hashable], persons: Sequence[int]) -> Judged:
    """Judge the customers of events by their persons, in the same order."""
    both = Counter(zip(customers, persons, strict=True))
    held = Counter(customers)
    most: dict[int, int] = {}
    n_misplaced = n_touched = 0
    for (customer, person), n in both.items():
        n_touched += n * (n < held[customer])
        n_misplaced += n * (2 * n <= held[customer])
        most[person] = max(most.get(person, 0), n)
    n_found = sum(most.values())
    return Judged(len(customers), len(held), len(most), n_misplaced, n_touched, n_found)


def misplaced(customers: Sequence[Hashable], persons: Sequence[int]) -> list[bool]:
    """Of each event, whether it is misplaced."""
    both, held = Counter(zip(customers, persons, strict=True)), Counter(customers)
    return [
        2 * both[customer, person] <= held[customer]
        for customer, person in zip(customers, persons, strict=True)
    ]


def closure(told: Iterable[Evidence]) -> dict[NodeId, NodeId]:
    """Plain transitive closure: every link of every event joins, and nothing is ever refused."""
    parent: dict[NodeId, NodeId] = {}

    def top(node: NodeId) -> NodeId:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for evidence in told:
        top(evidence.leaf.node)
        for link in evidence.links:
            parent[top(link.node_a)] = top(link.node_b)
    return {node: top(node) for node in list(parent)}
