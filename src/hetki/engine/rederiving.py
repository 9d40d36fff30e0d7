"""Rederiving: all customers under another policy of identity; tried on a copy, or in force.

A policy comes into force when nothing is folded live, before other declarations are warmed: then the
customers whom it joins or parts are folded again, as a person's merge or unmerge would have them folded.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from hetki.engine.accounts import accounts_around
from hetki.engine.deciding import apply_repairs, decide_all
from hetki.engine.engine import Engine, compile_program
from hetki.engine.folding import refold
from hetki.engine.project import Project
from hetki.engine.stitching import Changed, Stitched, derive_around
from hetki.events.event import LeafId
from hetki.identity.identifier import LEAVES, NodeId
from hetki.identity.policy import Policy
from hetki.identity.resolve import Quarantine, is_shared, refused_by_ends
from hetki.store.identities import Identities, copied
from hetki.store.sqlite import transaction
from hetki.store.state import FILE

#: Identifiers that are derived together.
CHUNK = 500

Tell = Callable[[int], None]


class Tried(msgspec.Struct, frozen=True):
    """What another policy would do: customers that would become one, and what each customer would become;
    how many links are refused now and would be, by reason. Ids are those that the customers have or would
    have; only customers that have events or records count."""

    merges: dict[LeafId, list[LeafId]]
    splits: dict[LeafId, list[LeafId]]
    refused: dict[str, tuple[int, int]]


def dry_run(engine: Engine, policy: Policy, progress: Tell = lambda n_identifiers: None) -> Tried:
    """What a policy would change, found on a copy in memory; nothing is written."""
    db = engine.disk.connect(FILE)
    try:
        copy = copied(db)
        before, refused = _customers(copy), copy.refusals()
        rederive(copy, policy, progress)
        after, would = _customers(copy), copy.refusals()
    finally:
        db.close()
    merges: dict[LeafId, set[LeafId]] = {}
    splits: dict[LeafId, set[LeafId]] = {}
    for node, now in after.items():
        merges.setdefault(now, set()).add(before[node])
        splits.setdefault(before[node], set()).add(now)
    return Tried(
        {now: sorted(each) for now, each in sorted(merges.items()) if len(each) > 1},
        {was: sorted(each) for was, each in sorted(splits.items()) if len(each) > 1},
        {why: (refused.get(why, 0), would.get(why, 0)) for why in sorted(refused.keys() | would.keys())},
    )


def _customers(identities: Identities) -> dict[NodeId, LeafId]:
    return {node: customer for node, space, customer in identities.all_nodes() if space in LEAVES}


def take_up(engine: Engine, old: Project | None) -> None:
    """Derive every customer under the policy of this engine, if the state is under another.

    `old` are the declarations in force, if they are known: those whom it joins or parts are folded again
    under them, and other declarations come after. One transaction: a crash leaves the old policy.
    """
    progress = engine.state.progress()
    policy = engine.project.identity
    if progress is None or progress.policy == policy.version:
        return
    project = old or engine.project
    program = compile_program(project)
    with transaction(engine.db):
        stitched = rederive(engine.state, policy)
        again = {each for pair in stitched.moves for each in pair} | stitched.joined.keys()
        again |= accounts_around(engine.state, again)
        folding = refold(
            engine.journal,
            engine.state,
            program,
            dict.fromkeys(sorted(again), "identity"),
            progress.advance_to,
            engine.keys.node,
        )
        now = max(engine.clock.now(), progress.advance_to)
        decide_all(engine, project, program, folding.caught, folding.folded, now)
        apply_repairs(engine.ledger, folding.repairs, progress.advance_to)
        engine.state.save_progress(msgspec.structs.replace(progress, policy=policy.version))


def rederive(identities: Identities, policy: Policy, progress: Tell = lambda n_identifiers: None) -> Stitched:
    """Judge all evidence anew and write what differs. `progress` hears of identifiers."""
    _quarantine(identities, policy)
    parted = _judge_all_ends(identities, policy)
    moves: set[tuple[LeafId, LeafId]] = set()
    joined = {}
    done: set[NodeId] = set()
    waiting: set[NodeId] = set()
    nodes = [node for node, _, _ in identities.all_nodes()]
    for place, node in enumerate(nodes, start=1):
        if node not in done:
            waiting.add(node)
        if len(waiting) >= CHUNK or place == len(nodes):
            seeds = waiting - done
            changed = Changed(seeds, parted, [], through_crowds=True)
            stitched, reached = derive_around(identities, policy, {}, changed)
            moves |= stitched.moves
            joined.update(stitched.joined)
            done |= reached
            waiting = set()
            progress(place)
    return Stitched({}, moves, joined, set())


def _quarantine(identities: Identities, policy: Policy) -> None:
    """Which identifiers are blocked or shared; crowds are found when customers are derived."""
    nodes = identities.all_values()
    for start in range(0, len(nodes), CHUNK):
        part = nodes[start : start + CHUNK]
        beside = identities.beside([node for node, _, _, _ in part])
        turned: dict[NodeId, Quarantine] = {}
        for node, namespace, value, was in part:
            now: Quarantine = ""
            if policy.is_blocked(namespace, value):
                now = "blocked_value"
            elif is_shared(policy, namespace, beside[node]):
                now = "shared_value"
            if now != was:
                turned[node] = now
        identities.quarantine(turned)


def _judge_all_ends(identities: Identities, policy: Policy) -> set[NodeId]:
    """Judge every link by its ends; the ends of those that joined something and no longer can."""
    parted: set[NodeId] = set()
    after = b""
    while links := identities.links_after(after, CHUNK):
        known = identities.known({node for link, _ in links for node in (link.node_a, link.node_b)})
        refused: dict[bytes, str] = {}
        for link, joins in links:
            a, b = (known[end].node if end in known else None for end in (link.node_a, link.node_b))
            refusal = refused_by_ends(link, a, b, policy)
            if refusal is not None:
                refused[link.link_id] = refusal
                parted |= {link.node_a, link.node_b} if joins else set()
        identities.judge_links((link for link, _ in links if link.link_id in refused), refused, set())
        identities.carry(link.link_id for link, _ in links if link.link_id not in refused)
        after = links[-1][0].link_id
    return parted
