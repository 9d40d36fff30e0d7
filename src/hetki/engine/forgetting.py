"""Forgetting: what an erased customer leaves behind in projections and ledger is rewritten (law 8).

It runs where the fold meets the command, in the transaction that moves the position: a crash folds the
command again. No key is needed for it, and none is destroyed here; the erased events cannot be read any
more, so what is derived again is what a rebuild after the erasure derives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from hetki.engine.accept import take_secrets
from hetki.engine.accounts import accounts_around
from hetki.engine.commands import Erase, read_command
from hetki.engine.deciding import apply_repairs
from hetki.engine.engine import Engine
from hetki.engine.folding import Folding, Repair, load_facts, refold
from hetki.engine.stitching import Changed, Stitched, derive_around, earliest, judge_ends
from hetki.events.event import LeafId
from hetki.identity.identifier import LEAVES, NodeId, as_leaf
from hetki.identity.link import TOLD, Evidence, Link, evidence
from hetki.store.erasing import Ledgered, erase_deeds, erase_leaves
from hetki.store.journal import Kind, Stored


def erasures_in(engine: Engine, stored: Sequence[Stored]) -> list[Erase]:
    """The erasures among journal entries; when this returns, nobody can read what they erase."""
    found: list[Erase] = []
    for each in stored:
        if each.kind is Kind.COMMAND and each.body is not None:
            command = read_command(each.body)
            if isinstance(command, Erase):
                take_secrets(engine.journal.secrets, command)
                found.append(command)
    return found


def joined(foldings: Sequence[Folding]) -> Folding:
    """What several foldings, one after the other, came to."""
    return Folding(
        [each for folding in foldings for each in folding.caught],
        [each for folding in foldings for each in folding.repairs],
        {unit: folded for folding in foldings for unit, folded in folding.folded.items()},
        sum(folding.n_late for folding in foldings),
    )


def forget(engine: Engine, command: Erase, advance_to: int, now: int) -> Folding:
    """Rewrite projections and ledger without an erased customer, in the caller's transaction.

    Whoever shared something with the customer is derived and folded again. The deeds about the customer go;
    an answer to somebody else that rests on the customer's data goes, too, and is not given again.
    """
    state = engine.state
    leaves = {LeafId(bytes.fromhex(each)) for each in command.leaves}
    nodes = {NodeId(bytes.fromhex(each)) for each in (*command.leaves, *command.names)}
    units = set(state.customers_of(nodes).values())
    erased = erase_leaves(state.db, engine.keys.event, leaves)
    stitched = _unlink(engine, nodes, leaves)
    around = {each for pair in stitched.moves for each in pair} | stitched.joined.keys() | units
    again = around | erased.accounts | accounts_around(state, around)
    if erased.reported_at is not None and engine.program.asks_staffing:
        again |= set(state.customers_since(erased.reported_at))
    folding = refold(
        engine.journal,
        state,
        engine.program,
        dict.fromkeys(sorted(again), "erasure"),
        advance_to,
        engine.keys.node,
    )
    gone = {each for each in again if each not in folding.folded}
    mine = [each for each in folding.repairs if _rests_on(each, leaves)]
    apply_repairs(engine.ledger, [each for each in folding.repairs if each not in mine], advance_to)
    ledgered = erase_deeds(
        state.db, leaves, units | gone | set(nodes), {each.caught.occurrence.occurrence_id for each in mine}
    )
    _enter(engine, command, now, ledgered, erased.n_events)
    return msgspec.structs.replace(folding, repairs=[])


def _rests_on(repair: Repair, leaves: set[LeafId]) -> bool:
    """Whether an occurrence that is no more rested on an event of these leaves."""
    events = repair.caught.occurrence.events
    return repair.kind == "retracted" and any(each.leaf in leaves for each in events)


def _enter(engine: Engine, command: Erase, now: int, ledgered: Ledgered, n_events: int) -> None:
    """Enter the erasure in the ledger: what is left to do for it is done from there."""
    destroyed = {"secrets": len(command.leaves), "names": len(command.names), "events": n_events}
    destroyed |= msgspec.to_builtins(ledgered)
    row = command.erasure_id, command.said_by, command.said_at, now, msgspec.json.encode(destroyed)
    engine.db.execute("INSERT OR IGNORE INTO erasures VALUES (?, ?, ?, ?, ?, NULL, NULL, NULL)", row)


def _unlink(engine: Engine, nodes: set[NodeId], leaves: set[LeafId]) -> Stitched:
    """Take erased identifiers and all that their events told out of the evidence, and derive again what hung
    together with them. What somebody else has told, too, stays, as that one told it."""
    state = engine.state
    links = {link.link_id: link for link, _ in state.links_ever(nodes)}
    asked = nodes | {end for link in links.values() for end in _ends(link)}
    links |= {link.link_id: link for link, _ in state.links_ever(asked)}
    beside = asked | {end for link in links.values() for end in _ends(link)}
    known = state.known(beside)
    tellers = [
        as_leaf(node)
        for node, each in sorted(known.items())
        if each.node.namespace in LEAVES and as_leaf(node) not in leaves
    ]
    found = [
        evidence(engine.keys.node, fact.event, fact.event_id)
        for fact in load_facts(engine.journal, state, tellers)
    ]
    told, first_at = earliest(link for each in found for link in each.links), _first_seen(found)
    gone = {node for node in asked if node not in first_at}
    state.drop_nodes(gone)
    state.set_first_at({node: first_at[node] for node in asked - gone})
    mine = [link for link in links.values() if asked & set(_ends(link))]
    dropped = [link for link in mine if link.kind in TOLD and link.link_id not in told]
    kept = {link.link_id for link in mine} - {link.link_id for link in dropped}
    later = [link for link in mine if told.get(link.link_id, link).sight != link.sight]
    waiting = [link for link in mine if link.link_id in kept and gone & set(_ends(link))]
    state.drop_links([link.link_id for link in dropped])
    state.set_told(told[link.link_id] for link in mine if link.link_id in told)
    revoked = state.revoked(link.link_id for link in mine)
    parted = {end for link in (*dropped, *later, *waiting) for end in _ends(link) if end in known} - gone
    again = [told.get(each.link_id, each) for each in (*later, *waiting) if each.link_id not in revoked]
    changed = Changed(parted | (asked & known.keys()) - gone, parted, again, True)
    judge_ends(state, engine.project.identity, changed)
    changed.seeds -= gone
    if not changed.seeds:
        return Stitched({}, set(), {}, set())
    return derive_around(state, engine.project.identity, {}, changed)[0]


def _first_seen(found: Iterable[Evidence]) -> dict[NodeId, int]:
    """The earliest sight of each identifier."""
    first_at: dict[NodeId, int] = {}
    for each in found:
        for one in each.identifiers:
            first_at[one.node] = min(each.told_at, first_at.get(one.node, each.told_at))
    return first_at


def _ends(link: Link) -> tuple[NodeId, NodeId]:
    return link.node_a, link.node_b
