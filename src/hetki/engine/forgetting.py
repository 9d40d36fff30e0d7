"""Forgetting: what an erased customer, or expired events, leave behind in projections and ledger is rewritten
(law 8).

It runs where the fold meets the command, in the transaction that moves the position: a crash folds the
command again. No key is needed for it, and none is destroyed here; the erased events cannot be read any
more, so what is derived again is what a rebuild after the erasure derives.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hetki.decisions.question import Decision
from hetki.engine.accept import take_secrets
from hetki.engine.accounts import accounts_around, namings
from hetki.engine.commands import Erase, Expire, Remove, Taking, read_command
from hetki.engine.deciding import apply_repairs, context_of, miss_all
from hetki.engine.engine import Engine
from hetki.engine.folding import Folding, Repair, decode_occurrence, load_facts, refold
from hetki.engine.unlinking import unlink
from hetki.events.event import LeafId
from hetki.identity.identifier import NodeId
from hetki.store.accounts import add_namings
from hetki.store.erasing import (
    BLANKED,
    blank_deeds,
    drop_warmed,
    erase_deeds,
    erase_leaves,
    erase_places,
    erase_rejected,
    settle_accounts,
)
from hetki.store.journal import Kind, Stored
from hetki.store.places import Framed, framed_at, framed_under, overwrite

#: Why an occurrence is no more, or its message not sent.
EXPIRED = "expired"
ERASED = "erased events"


class Removal(msgspec.Struct, frozen=True):
    """What a command takes away by place: entries, readable or not, why, and what else is counted."""

    cause: str
    framed: list[Framed]
    counted: dict[str, int]


def erasures_in(engine: Engine, stored: Sequence[Stored]) -> list[Taking]:
    """The erasures among journal entries; when this returns, nobody can read what they erase."""
    found: list[Taking] = []
    for each in stored:
        if each.kind is Kind.COMMAND and each.body is not None:
            command = read_command(each.body)
            if isinstance(command, Taking):
                take_away(engine, command)
                found.append(command)
    return found


def take_away(engine: Engine, command: Taking) -> None:
    """Take what a command erases away from every reader, durably; a repeat does nothing."""
    secrets = engine.journal.secrets
    if isinstance(command, Erase):
        take_secrets(secrets, command)
    elif isinstance(command, Expire):
        secrets.expire([command.period], command.said_at)
    else:
        overwrite(engine.journal, command.places)
        # from now on the lake takes for gone what it holds of it: so nobody may read it any more
        secrets.remove(bytes.fromhex(command.erasure_id), command.places, command.said_at)


def joined(foldings: Sequence[Folding]) -> Folding:
    """What several foldings, one after the other, came to."""
    return Folding(
        [each for folding in foldings for each in folding.caught],
        [each for folding in foldings for each in folding.repairs],
        {unit: folded for folding in foldings for unit, folded in folding.folded.items()},
        sum(folding.n_late for folding in foldings),
    )


def forget(engine: Engine, command: Taking, advance_to: int, now: int) -> Folding:
    """Rewrite projections and ledger without what a command takes away, in the caller's transaction."""
    if isinstance(command, Erase):
        return _forget_customer(engine, command, advance_to, now)
    if isinstance(command, Remove):
        framed = list(framed_at(engine.journal, command.places))
        return _forget_places(engine, command, Removal(ERASED, framed, {}), advance_to, now)
    periods = [each for each in engine.journal.secrets.expired_after(0) if each.period == command.period]
    removal = Removal(EXPIRED, list(framed_under(engine.journal, periods)), {"periods": len(periods)})
    return _forget_places(engine, command, removal, advance_to, now)


def _forget_places(
    engine: Engine, command: Expire | Remove, removal: Removal, advance_to: int, now: int
) -> Folding:
    """Rewrite projections without some entries, and fold whom they concern again; blank the values in
    decisions that rest on them. What occurs only because of the gap is missed and never answered."""
    state, framed = engine.state, removal.framed
    places = state.places_of([each.event_id for each in framed if each.kind is Kind.EVENT])
    gone = [each for each in framed if places.get(each.event_id) == (each.position, each.frame_offset)]
    n_rejected = erase_rejected(state.db, [each for each in framed if each.kind is Kind.REJECTED])
    leaves = {each.leaf for each in gone}
    units = set(state.customers_of(NodeId(leaf) for leaf in leaves).values())
    members = {node for nodes in state.members(units).values() for node in nodes}
    about = {node.hex() for node in members}
    erased = erase_places(state.db, engine.keys.event, gone)
    stitched = unlink(engine, set(), leaves)
    left = load_facts(engine.journal, state, sorted(leaves))
    add_namings(state.db, list(namings(engine.keys.node, left)))
    settle_accounts(state.db, erased.accounts)
    around = {each for pair in stitched.moves for each in pair} | stitched.joined.keys() | units
    again = around | erased.accounts | accounts_around(state, around)
    folding = _fold_again(engine, again, erased.reported_at, removal.cause, advance_to)
    drop_warmed(state.db, again)
    apply_repairs(engine.ledger, folding.repairs, advance_to)
    miss_all(engine.project, engine.ledger, folding.caught, now)
    ids = {each.event_id.hex() for each in gone}
    accounts = {account.hex() for account in erased.accounts} if removal.cause == ERASED else set()
    since = min((each.received_at for each in gone), default=now)

    def is_told_of(decision: Decision) -> bool:
        question = decision.question
        if removal.cause == ERASED and not about.isdisjoint(
            [question.customer, *question.data_of, *question.known_of]
        ):
            return True  # by whatever way something of it came into the decision
        if question.account in accounts and question.context:
            return True  # what is told of an account is told by any of its members
        if not ids.isdisjoint(question.data_used):
            return True
        if not question.context:
            return False
        body = engine.ledger.occurrence_of(decision.decision_id)  # a figure may have counted what is gone
        return body is None or context_of(decode_occurrence(body)) != question.context

    whose = [LeafId(node) for node in members] if removal.cause == ERASED else leaves
    n_decisions, n_messages = blank_deeds(state.db, whose, is_told_of, since, removal.cause, erased.accounts)
    counts = {
        "events": erased.n_events,
        "rejections": n_rejected,
        BLANKED: n_decisions,
        "messages": n_messages,
    }
    _enter(engine, command, now, removal.counted | counts)
    return msgspec.structs.replace(folding, repairs=[], caught=[])


def _fold_again(
    engine: Engine, again: set[LeafId], reported_at: int | None, cause: str, advance_to: int
) -> Folding:
    """Fold customers and accounts again; with them, whoever was folded beyond a report of staffing that is
    missing now."""
    if reported_at is not None and engine.program.asks_staffing:
        again = again | set(engine.state.customers_since(reported_at))
    causes = dict.fromkeys(sorted(again), cause)
    key = engine.keys.node
    return refold(engine.journal, engine.state, engine.program, causes, advance_to, key)


def _forget_customer(engine: Engine, command: Erase, advance_to: int, now: int) -> Folding:
    """Rewrite projections and ledger without an erased customer, in the caller's transaction.

    Whoever shared something with the customer is derived and folded again. The deeds about the customer go;
    an answer to somebody else that rests on the customer's data goes, too, and is not given again; one about
    an account of the customer's that looked at what is known of it is blanked.
    """
    state = engine.state
    leaves = {LeafId(bytes.fromhex(each)) for each in command.leaves}
    nodes = {NodeId(bytes.fromhex(each)) for each in (*command.leaves, *command.names)}
    of = state.customers_of(nodes)
    units = {customer for node, customer in of.items() if LeafId(node) in leaves}
    erased = erase_leaves(state.db, engine.journal, engine.keys.event, leaves)
    stitched = unlink(engine, nodes, leaves)
    around = {each for pair in stitched.moves for each in pair} | stitched.joined.keys() | {*of.values()}
    again = around | erased.accounts | accounts_around(state, around)
    folding = _fold_again(engine, again, erased.reported_at, "erasure", advance_to)
    gone = {each for each in again if each not in folding.folded}
    drop_warmed(state.db, again | leaves)
    others = [each for each in folding.repairs if not _rests_on(each, leaves)]
    apply_repairs(engine.ledger, others, advance_to)
    mine = {each.caught.occurrence.occurrence_id for each in folding.repairs if _rests_on(each, leaves)}
    ledgered = erase_deeds(state.db, leaves, units | gone | set(nodes), mine)
    # what others were told of an account may be the customer's word
    n_blanked, n_messages = blank_deeds(
        state.db, (), lambda decision: bool(decision.question.context), 0, ERASED, erased.accounts
    )
    counts = {"secrets": len(command.leaves), "names": len(command.names), "events": erased.n_events}
    counts |= msgspec.to_builtins(ledgered)
    if n_blanked:
        counts |= {BLANKED: n_blanked, "messages": ledgered.messages + n_messages}
    _enter(engine, command, now, counts)
    return msgspec.structs.replace(folding, repairs=[])


def _rests_on(repair: Repair, leaves: set[LeafId]) -> bool:
    """Whether an occurrence that is no more rested on an event of these leaves."""
    events = repair.caught.occurrence.events
    return repair.kind == "retracted" and any(each.leaf in leaves for each in events)


def _enter(engine: Engine, command: Taking, now: int, destroyed: dict[str, int]) -> None:
    """Enter the erasure in the ledger: what is left to do for it is done from there."""
    row = command.erasure_id, command.said_by, command.said_at, now, msgspec.json.encode(destroyed)
    engine.db.execute("INSERT OR IGNORE INTO erasures VALUES (?, ?, ?, ?, ?, NULL, NULL, NULL)", row)
