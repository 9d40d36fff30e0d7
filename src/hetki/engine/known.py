"""Known: who a customer was held to be at an earlier time, from the evidence that had arrived by then.

Nothing of this is stored: the events of everybody whom evidence has ever connected are read again, and
those that had not arrived are left out.
"""

from __future__ import annotations

import msgspec

from hetki.engine.engine import Engine
from hetki.engine.folding import read_event
from hetki.errors import Exhausted, Fault
from hetki.events.event import STAFFED, LeafId
from hetki.identity.identifier import LEAVES, NodeId, as_leaf
from hetki.identity.link import TOLD, Link, evidence
from hetki.identity.policy import CROWD_MAX
from hetki.identity.resolve import Node, Quarantine, derive

EVENTS_MAX = 200_000


class KnownAs(msgspec.Struct, frozen=True):
    """A customer as it was known: the id it had then, and its identifiers: node -> namespace."""

    customer: LeafId
    members: dict[NodeId, str]


def known_at(engine: Engine, leaf: NodeId, at: int) -> KnownAs | None:
    """The customer whom an identifier belonged to, as known at an instant; None if it was not known yet.

    Raises `Exhausted` where so much hangs together that it cannot be read at once.
    """
    nodes, links, revoked = _whatever_connects(engine, leaf)
    told: dict[bytes, Link] = {
        link.link_id: link for link in links.values() if link.kind not in TOLD and link.linked_at <= at
    }
    seen: dict[NodeId, Node] = {}
    policy = engine.project.identity
    leaves = [as_leaf(node) for node, namespace in nodes.items() if namespace in LEAVES]
    places = [place for mine in engine.state.history(leaves).values() for place in mine]
    if len(places) > EVENTS_MAX:
        raise _too_much(f"{len(places):,} events")
    for stored in engine.journal.entries(sorted(places)):
        event = read_event(stored)
        if event is None or event.received_at > at or event.name == STAFFED:
            continue
        found = evidence(engine.keys.node, event, stored.event_id)
        for each in found.identifiers:
            was = seen.get(each.node)
            first_at = min(event.occurred_at, was.first_at if was else event.occurred_at)
            blocked: Quarantine = "blocked_value" if policy.is_blocked(each.namespace, each.value) else ""
            seen[each.node] = Node(each.namespace, first_at, blocked)
        for link in found.links:
            earlier = told.get(link.link_id)
            if earlier is None or link.linked_at < earlier.linked_at:
                told[link.link_id] = link
    standing = [link for link in told.values() if revoked.get(link.link_id, at + 1) > at]
    roots = derive(seen, standing, policy).roots
    if leaf not in roots:
        return None
    members = {node: seen[node].namespace for node, root in roots.items() if root == roots[leaf]}
    return KnownAs(roots[leaf], members)


def _whatever_connects(
    engine: Engine, leaf: NodeId
) -> tuple[dict[NodeId, str], dict[bytes, Link], dict[bytes, int]]:
    """All that any link has ever connected, however that was judged: nodes with their namespaces, links,
    and when those that were revoked were."""
    nodes: dict[NodeId, str] = {}
    links: dict[bytes, Link] = {}
    revoked: dict[bytes, int] = {}
    edge = {leaf}
    while edge:
        nodes.update((node, each.node.namespace) for node, each in engine.state.known(edge).items())
        if len(nodes) > 10 * CROWD_MAX:
            raise _too_much(f"more than {10 * CROWD_MAX:,} identifiers")
        found = engine.state.links_ever(edge)
        for link, revoked_at in found:
            links[link.link_id] = link
            if revoked_at is not None:
                revoked[link.link_id] = revoked_at
        edge = {end for link, _ in found for end in (link.node_a, link.node_b)} - nodes.keys() - edge
    return nodes, links, revoked


def _too_much(got: str) -> Exhausted:
    return Exhausted(Fault("customer", f"{got} that hang together", "less, to be read at once"))
