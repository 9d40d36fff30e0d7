"""Stitching: new evidence -> links -> customers, as one serial stage before the fold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from hetki.engine.commands import Merge, Unmerge
from hetki.events.event import LeafId
from hetki.identity.identifier import NodeId, as_leaf
from hetki.identity.link import Evidence, Link, make_link
from hetki.identity.resolve import joins, resolve
from hetki.store.state import State


class Stitched(msgspec.Struct, frozen=True):
    """What new evidence changed.

    `customers` maps each node of the batch to its customer; `moves` holds the pairs (old, new) of
    customers between which a node moved, and (same, same) where a link was taken back; `joined` the links
    that now join groups and did not before, by customer.
    """

    customers: dict[NodeId, LeafId]
    moves: set[tuple[LeafId, LeafId]]
    joined: dict[LeafId, list[Link]]


def stitch(
    state: State, found: Sequence[Evidence], commands: Sequence[tuple[bytes, Merge | Unmerge]]
) -> Stitched:
    """Add identifiers and links, take revoked ones back, and derive the customers that this touches."""
    identifiers = {each.node: each for evidence in found for each in evidence.identifiers}
    known = state.customers_of(identifiers)
    new = [each for node, each in identifiers.items() if node not in known]
    state.add_nodes((each.node, each.namespace, each.value, as_leaf(each.node)) for each in new)
    customers = {**{each.node: as_leaf(each.node) for each in new}, **known}

    fresh = _earliest(link for evidence in found for link in evidence.links)
    for command_id, command in commands:
        if isinstance(command, Merge):
            a, b = NodeId(bytes.fromhex(command.node_a)), NodeId(bytes.fromhex(command.node_b))
            link = make_link("merge", a, b, command.said_at, command_id, once=command_id)
            fresh[link.link_id] = link
    seen = state.linked_at(fresh)
    changed = [link for link in fresh.values() if link.linked_at < seen.get(link.link_id, link.linked_at + 1)]
    state.save_links(changed)
    parted: set[NodeId] = set()
    for _, command in commands:
        if isinstance(command, Unmerge):
            parted |= _revoked(state, command)
    if new:
        arrived = {each.node for each in new}
        changed += [each for each in state.waiting_links() if {each.node_a, each.node_b} & arrived]
    if not changed and not parted:
        return Stitched(customers, set(), {})
    return _derive(state, customers, changed, parted)


def _derive(
    state: State, customers: dict[NodeId, LeafId], changed: Sequence[Link], parted: set[NodeId]
) -> Stitched:
    reached, links = state.evidence_around({*parted, *_ends(changed)})
    resolution = resolve(reached, links)
    standing = [link for link in links if link.link_id not in resolution.refused]
    joining = {link.link_id for link in joins(reached, standing)}
    state.judge_links(links, resolution.refused, joining)
    before = state.customers_of(reached)
    moved = {node: root for node, root in resolution.roots.items() if before[node] != root}
    state.move_nodes(moved)
    joined: dict[LeafId, list[Link]] = {}
    for link in changed:
        if link.link_id in joining:
            joined.setdefault(resolution.roots[link.node_a], []).append(link)
    moves = {(before[node], root) for node, root in moved.items()}
    # Who loses a link is folded again even if another link holds: they may have grown together later.
    moves |= {(resolution.roots[node],) * 2 for node in parted if node in reached}
    return Stitched({**customers, **resolution.roots}, moves, joined)


def _ends(links: Iterable[Link]) -> set[NodeId]:
    return {node for link in links for node in (link.node_a, link.node_b)}


def _earliest(links: Iterable[Link]) -> dict[bytes, Link]:
    found: dict[bytes, Link] = {}
    for link in links:
        other = found.get(link.link_id)
        if other is None or link.linked_at < other.linked_at:
            found[link.link_id] = link
    return found


def _revoked(state: State, command: Unmerge) -> set[NodeId]:
    """The ends of a link that was just revoked; empty when there was none to revoke."""
    link_id = bytes.fromhex(command.link_id)
    ends = state.ends_of(link_id)
    return ends if state.revoke(link_id, command.said_at) else set()
