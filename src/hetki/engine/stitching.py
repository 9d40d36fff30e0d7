"""Stitching: new evidence -> links -> customers, as one serial stage before the fold.

Only what new evidence can reach is derived again, and the result is what `identity.resolve.derive` says of
all evidence at once. An identifier that too many share leads nowhere, so that a shared device costs its
neighbours once and not each of its events.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from hetki.engine.commands import CannotLink, Matched, Merge, Said, SetAside, Unmerge, Unsure
from hetki.events.event import LeafId
from hetki.identity.identifier import Identifier, NodeId, as_leaf
from hetki.identity.link import DESPITE_UNIQUE, Evidence, Link, make_link
from hetki.identity.policy import Policy
from hetki.identity.resolve import Node, Quarantine, crowded, is_shared, refused_by_ends, resolve
from hetki.store.identities import Identities, Known


class Stitched(msgspec.Struct, frozen=True):
    """What new evidence changed.

    `customers` maps each node of the batch to its customer; `moves` holds the pairs (old, new) of
    customers between which a node moved, and (same, same) where a link joins no more; `joined` the links
    that now join groups and did not before, by customer; `new` the nodes that were never seen before.
    """

    customers: dict[NodeId, LeafId]
    moves: set[tuple[LeafId, LeafId]]
    joined: dict[LeafId, list[Link]]
    new: set[NodeId]


class Changed(msgspec.Struct):
    """What is to be derived again: from which nodes, whose links joined something and do no more, and which
    links are told anew; `through_crowds`: a crowd may have become smaller; `new`: nodes never seen before."""

    seeds: set[NodeId]
    parted: set[NodeId]
    told: list[Link]
    through_crowds: bool = False
    new: set[NodeId] = msgspec.field(default_factory=set)


def stitch(
    identities: Identities, policy: Policy, found: Sequence[Evidence], commands: Sequence[tuple[bytes, Said]]
) -> Stitched:
    """Add identifiers and links, take revoked ones back, and derive the customers that this touches."""
    customers, new, earlier = _see(identities, policy, found)
    fresh = earliest(link for evidence in found for link in evidence.links)
    for command_id, command in commands:
        for link in _said(command, command_id):
            fresh[link.link_id] = _weighed_again(fresh.get(link.link_id), link)
    seen = identities.sights(fresh)
    is_weighed = {"probable", "possible"}
    told = [
        link
        for link in fresh.values()
        if link.link_id not in seen or link.sight < seen[link.link_id] or link.kind in is_weighed
    ]
    identities.save_links(told)
    parted = _take_back(identities, commands)
    revoked = identities.revoked(link.link_id for link in told)
    told = [link for link in told if link.link_id not in revoked]
    if new:
        told += [link for link, _ in identities.links_at(new, "unknown_identifier").values()]
    if not told and not parted and not earlier:
        return Stitched(customers, set(), {}, new)
    changed = Changed({*parted, *earlier}, parted, told, bool(parted), new)
    judge_ends(identities, policy, changed)
    if not changed.seeds:
        return Stitched(customers, set(), {}, new)
    return derive_around(identities, policy, customers, changed)[0]


def _see(
    identities: Identities, policy: Policy, found: Sequence[Evidence]
) -> tuple[dict[NodeId, LeafId], set[NodeId], set[NodeId]]:
    """Add the identifiers of a batch: all with their customers, those that are new, those seen earlier."""
    identifiers: dict[NodeId, Identifier] = {}
    first_at: dict[NodeId, int] = {}
    for evidence in found:
        for each in evidence.identifiers:
            at = first_at.get(each.node)
            if at is None or evidence.told_at < at:
                first_at[each.node] = evidence.told_at
                identifiers[each.node] = each
    known = identities.known(identifiers)
    new = [each for node, each in identifiers.items() if node not in known]
    blocked: Quarantine = "blocked_value"
    identities.add_nodes(
        (each, first_at[each.node], blocked if policy.is_blocked(each.namespace, each.value) else "")
        for each in new
    )
    earlier = {node: first_at[node] for node, each in known.items() if first_at[node] < each.node.first_at}
    identities.set_first_at(earlier)
    customers = {each.node: as_leaf(each.node) for each in new}
    customers.update((node, each.customer) for node, each in known.items())
    return customers, {each.node for each in new}, set(earlier)


def _said(command: Said, command_id: bytes) -> list[Link]:
    """The links that a command makes."""
    if isinstance(command, Merge):
        rule = DESPITE_UNIQUE if command.despite_unique else ""
        ends = NodeId(bytes.fromhex(command.node_a)), NodeId(bytes.fromhex(command.node_b))
        return [
            make_link("merge", *ends, command.said_at, command_id, command_id, 0.0, rule, command.said_by)
        ]
    if isinstance(command, CannotLink):
        ends = NodeId(bytes.fromhex(command.node_a)), NodeId(bytes.fromhex(command.node_b))
        return [make_link("cannot", *ends, command.said_at, command_id, command_id, said_by=command.said_by)]
    if isinstance(command, Matched):
        return [
            make_link(
                pair.kind,
                NodeId(bytes.fromhex(pair.node_a)),
                NodeId(bytes.fromhex(pair.node_b)),
                command.said_at,
                command_id,
                weight=pair.weight,
                rule=command.model,
                told=pair.told,
            )
            for pair in command.pairs
        ]
    return []


def _take_back(identities: Identities, commands: Sequence[tuple[bytes, Said]]) -> set[NodeId]:
    """The ends of links that were just revoked; what is said of no link by itself is written, too."""
    parted: set[NodeId] = set()
    for _, command in commands:
        if isinstance(command, Unmerge):
            link = identities.link(bytes.fromhex(command.link_id))
            if link is not None and identities.revoke(link.link_id, command.said_at, command.said_by):
                parted |= {link.node_a, link.node_b}
        elif isinstance(command, Unsure):
            identities.mark_unsure(bytes.fromhex(command.link_id), command.said_at)
        elif isinstance(command, SetAside):
            identities.set_aside((NodeId(bytes.fromhex(node)) for node in command.nodes), command.reason)
    return parted


def judge_ends(identities: Identities, policy: Policy, changed: Changed) -> None:
    """Judge links by their ends alone, and the ends by how many links they have.

    Whoever is at an end of a link that carries, or carried, is to be derived again.
    """
    ends = identities.known(
        {node for link in changed.told for node in (link.node_a, link.node_b)} | changed.parted
    )
    turned = _turned(identities, policy, ends, changed.parted)
    identities.quarantine(turned)
    links = {link.link_id: link for link in changed.told}
    for link, joins in identities.links_at(turned).values():
        links[link.link_id] = link
        changed.seeds |= {link.node_a, link.node_b}
        if joins and (turned.get(link.node_a) or turned.get(link.node_b)):
            changed.parted |= {link.node_a, link.node_b}
    changed.through_crowds = changed.through_crowds or bool(turned)
    # Whoever has just turned is read again, and so are the others of its links.
    known = {node: each for node, each in ends.items() if node not in turned}
    known |= identities.known({node for link in links.values() for node in link.ends} - known.keys())
    refused: dict[bytes, str] = {}
    for link in links.values():
        a, b = (known[end].node if end in known else None for end in (link.node_a, link.node_b))
        refusal = refused_by_ends(link, a, b, policy)
        if refusal is None:
            changed.seeds |= {link.node_a, link.node_b}
        else:
            refused[link.link_id] = refusal
    identities.judge_links((links[link_id] for link_id in refused), refused, set())
    kept = [link for link in links.values() if link.link_id not in refused]
    identities.carry(link.link_id for link in kept)
    changed.told = [link for link in changed.told if link.link_id not in refused]


def _turned(
    identities: Identities, policy: Policy, ends: Mapping[NodeId, Known], parted: AbstractSet[NodeId]
) -> dict[NodeId, Quarantine]:
    """The identifiers that have become shared by too many, or are no more."""
    asked = {
        node: each.node
        for node, each in ends.items()
        if each.node.quarantine in ("", "crowd")
        or (each.node.quarantine == "shared_value" and node in parted)
    }
    turned: dict[NodeId, Quarantine] = {}
    for node, beside in identities.beside(asked).items():
        shared = is_shared(policy, asked[node].namespace, beside)
        if shared != (asked[node].quarantine == "shared_value"):
            turned[node] = "shared_value" if shared else ""
    return turned


def derive_around(
    identities: Identities, policy: Policy, customers: dict[NodeId, LeafId], changed: Changed
) -> tuple[Stitched, set[NodeId]]:
    """Derive the customers around what has changed, and write what differs; also whom that reached."""
    around = identities.evidence_around(changed.seeds, changed.told, changed.through_crowds)
    nodes = _with_crowds(identities, policy, around.nodes, around.links, changed.through_crowds)
    resolution = resolve(nodes, around.links, policy)
    refused, joining = resolution.refused, resolution.joining
    differ = [
        link
        for link in around.links
        if around.judged.get(link.link_id) != (refused.get(link.link_id, ""), link.link_id in joining)
    ]
    identities.judge_links(differ, refused, joining)
    roots = resolution.roots
    moved = {node: roots[node] for node, each in around.nodes.items() if each.customer != roots[node]}
    identities.move_nodes(moved)
    moves = {(around.nodes[node].customer, root) for node, root in moved.items()}
    # Who loses a link is folded again even if another link holds: they may have grown together later.
    joined_before = {link_id for link_id, (_, joins) in around.judged.items() if joins}
    lost_links = joined_before - joining
    lost = {node for link in around.links if link.link_id in lost_links for node in link.ends}
    moves |= {(roots[node],) * 2 for node in (changed.parted | lost) & roots.keys()}
    told = {link.link_id for link in changed.told}
    joined: dict[LeafId, list[Link]] = {}
    for link in around.links:
        if link.link_id in joining and (link.link_id in told or link.link_id not in joined_before):
            joined.setdefault(roots[link.node_a], []).append(link)
    present = {**customers, **{node: roots[node] for node in customers if node in roots}}
    return Stitched(present, moves, joined, changed.new), set(roots)


def _with_crowds(
    identities: Identities,
    policy: Policy,
    known: Mapping[NodeId, Known],
    links: Collection[Link],
    through_crowds: bool,
) -> dict[NodeId, Node]:
    """The nodes as they are resolved: who is in a crowd now is marked, and who is no more is not."""
    nodes = {node: each.node for node, each in known.items()}
    if through_crowds:
        nodes = {
            node: msgspec.structs.replace(each, quarantine="") if each.quarantine == "crowd" else each
            for node, each in nodes.items()
        }
    for node in crowded(nodes, links, policy):
        if not nodes[node].quarantine:
            nodes[node] = msgspec.structs.replace(nodes[node], quarantine="crowd")
    identities.quarantine(
        {
            node: each.quarantine
            for node, each in nodes.items()
            if each.quarantine != known[node].node.quarantine
        }
    )
    return nodes


def _weighed_again(was: Link | None, link: Link) -> Link:
    """A link that linkage has found before: the earlier sight and the later weight stand."""
    if was is None or link.sight < was.sight:
        return link
    return msgspec.structs.replace(link, linked_at=was.linked_at, cause=was.cause)


def earliest(links: Iterable[Link]) -> dict[bytes, Link]:
    """Of each link the earliest sight."""
    found: dict[bytes, Link] = {}
    for link in links:
        other = found.get(link.link_id)
        if other is None or link.sight < other.sight:
            found[link.link_id] = link
    return found
