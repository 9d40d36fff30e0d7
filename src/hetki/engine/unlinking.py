"""Unlinking: whose names are whose alone, and what is left of the evidence when events are gone (law 8).

Which leaf may have told a link follows from its ends, so that only events are read that could say otherwise:
not those of everybody who shares a device or an address.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet

from hetki.engine.engine import Engine
from hetki.engine.folding import load_facts
from hetki.engine.stitching import Changed, Stitched, derive_around, earliest, judge_ends
from hetki.events.event import LeafId
from hetki.identity.identifier import LEAVES, Namespace, NodeId, as_leaf
from hetki.identity.link import TOLD, Evidence, Link, evidence, tellers
from hetki.identity.naming import nodes_of
from hetki.store.identities import Known


def own_names(engine: Engine, mine: set[NodeId]) -> set[NodeId]:
    """Of a customer's identifiers, and of what else events of these tell, what nobody else's events tell."""
    state = engine.state
    links = _told_at(engine, mine)
    known = state.known(mine | _ends_of(links))
    spaces = _spaces(known)
    beside = {end for link in links if tellers(link, spaces) & mine for end in link.ends} - mine
    # an address that very many share, or that is none, is nobody's
    beside = {end for end in beside if end not in known or known[end].node.quarantine in ("", "crowd")}
    links = {*links, *_told_at(engine, beside)}
    spaces = _spaces(state.known(_ends_of(links)))
    theirs = {NodeId(leaf) for leaf in state.history(_in_order(beside))}  # who has events is somebody
    unclear: set[NodeId] = set()
    for link in links:
        may_tell = tellers(link, spaces)
        if len(may_tell) == 1:
            theirs |= {end for end in link.ends if not may_tell & mine and end not in may_tell}
        else:
            unclear |= may_tell - mine
    for fact in load_facts(engine.journal, state, _in_order(unclear)):
        theirs |= set(nodes_of(engine.keys.node, fact.event))
    return (mine | beside) - theirs


def unlink(engine: Engine, nodes: set[NodeId], lost: Collection[LeafId]) -> Stitched:
    """Take identifiers and all that is told of them by no event any more out of the evidence, and derive
    again what hung together with them. What is still told by any event stays, as that one tells it.

    `lost` are the leaves whose events, or some of them, can be read no more; `nodes` what went with them.
    """
    state, gone_from = engine.state, {NodeId(leaf) for leaf in lost}
    near = {link.link_id: link for link, _ in state.links_ever(nodes | gone_from)}
    asked = nodes | gone_from | _ends_of(near.values())
    spaces = _spaces(state.known(asked))
    changed_links = {
        link.link_id: link
        for link in near.values()
        if link.kind in TOLD and tellers(link, spaces) & gone_from
    }
    touched = nodes | gone_from | _ends_of(changed_links.values())
    links = near | {link.link_id: link for link, _ in state.links_ever(touched)}
    known = state.known(asked | _ends_of(links.values()))
    spaces = _spaces(known)
    read = gone_from.union(*(tellers(link, spaces) for link in changed_links.values()))
    read |= {
        node
        for node in touched & known.keys() - gone_from
        if spaces[node] in LEAVES and _was_first_told(known[node], _at(changed_links.values(), node))
    }
    found = _events_of(engine, read)
    told = earliest(link for each in found for link in each.links)
    first_at = _first_seen(found)
    for link in links.values():
        if link.kind in TOLD and link.kind != "alias" and link.link_id not in changed_links:
            for node in touched & ({*link.ends} - tellers(link, spaces)):
                first_at[node] = min(link.linked_at, first_at.get(node, link.linked_at))
    for node in touched & known.keys() - read - gone_from:
        if not _was_first_told(known[node], _at(changed_links.values(), node)):
            first_at[node] = known[node].node.first_at
    gone = {node for node in touched if node not in first_at}
    state.drop_nodes(gone)
    state.set_first_at({node: first_at[node] for node in touched - gone})
    dropped = [link for key, link in changed_links.items() if key not in told]
    later = [link for key, link in changed_links.items() if told.get(key, link).sight != link.sight]
    without = changed_links.keys() - told.keys()
    waiting = [link for key, link in links.items() if key not in without and gone & {*link.ends}]
    state.drop_links([link.link_id for link in dropped])
    state.set_told(told[key] for key in changed_links if key in told)
    revoked = state.revoked(link.link_id for link in (*later, *waiting))
    parted = {end for end in _ends_of((*dropped, *later, *waiting)) if end in known} - gone
    again = [told.get(each.link_id, each) for each in (*later, *waiting) if each.link_id not in revoked]
    changed = Changed(parted | (asked & known.keys()) - gone, parted, again, True)
    judge_ends(state, engine.project.identity, changed)
    changed.seeds -= gone
    if not changed.seeds:
        return Stitched({}, set(), {}, set())
    return derive_around(state, engine.project.identity, {}, changed)[0]


def _told_at(engine: Engine, nodes: Collection[NodeId]) -> set[Link]:
    """The links at nodes that events tell."""
    return {link for link, _ in engine.state.links_ever(nodes) if link.kind in TOLD}


def _events_of(engine: Engine, leaves: AbstractSet[NodeId]) -> list[Evidence]:
    """What the events of leaves tell, as far as they can be read."""
    facts = load_facts(engine.journal, engine.state, _in_order(leaves))
    return [evidence(engine.keys.node, fact.event, fact.event_id) for fact in facts]


def _in_order(nodes: Iterable[NodeId]) -> list[LeafId]:
    return [as_leaf(node) for node in sorted(nodes)]


def _spaces(known: Mapping[NodeId, Known]) -> dict[NodeId, Namespace]:
    return {node: each.node.namespace for node, each in known.items()}


def _first_seen(found: Iterable[Evidence]) -> dict[NodeId, int]:
    """The earliest sight of each identifier."""
    first_at: dict[NodeId, int] = {}
    for each in found:
        for one in each.identifiers:
            first_at[one.node] = min(each.told_at, first_at.get(one.node, each.told_at))
    return first_at


def _at(links: Iterable[Link], node: NodeId) -> list[int]:
    """When each of these links at a node was first seen; an alias is no sight of what it mentions."""
    return [link.linked_at for link in links if link.kind != "alias" and node in link.ends]


def _was_first_told(known: Known, told_at: Collection[int]) -> bool:
    """Whether an identifier may have been told for the first time at one of these times."""
    return known.node.first_at >= min(told_at, default=known.node.first_at + 1)


def _ends_of(links: Iterable[Link]) -> set[NodeId]:
    return {end for link in links for end in link.ends}
