"""Export: all that is kept of one customer, for the customer: JSON Lines and CSV in one ZIP.

Nobody else's data is in it: where a link, an event or an account leads to somebody else, it says so and no
more. `manifest.json` has the SHA-256 of every file.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from hetki import __version__
from hetki.consent.record import Record
from hetki.consent.statements import whole, why
from hetki.decisions.question import Decision
from hetki.dialogues.explaining import decision_words
from hetki.dialogues.joining import status_words
from hetki.dialogues.wording import Titles, standing_words
from hetki.engine.engine import Engine
from hetki.engine.folding import load_facts
from hetki.engine.telling import history_of, known_traits, owner_words, titles, used_events
from hetki.errors import Fault, NotFound
from hetki.events.event import LeafId, utc
from hetki.events.fields import json_object
from hetki.identity.identifier import NodeId, as_leaf
from hetki.moments.fold import Fact, Folded, decode
from hetki.store.accounts import belongs_to
from hetki.store.sheets import Line, archive, json_lines, sheet
from hetki.store.views import Handled, Views, reading

SOMEBODY_ELSE = "somebody else"
#: Deeds of one customer that are exported, the newest.
DEEDS_MAX = 100_000


class Exported(msgspec.Struct, frozen=True):
    """An archive, and how many rows each of its tables has."""

    archive: bytes
    n_rows: dict[str, int]


class Table(msgspec.Struct, frozen=True):
    """One table of an export; every row has these columns, or some of them."""

    columns: tuple[str, ...]
    lines: list[Line]


def export(engine: Engine, customer: LeafId) -> Exported:
    """Everything that is kept of a customer, as of what is folded. Raises `NotFound`."""
    with reading(engine.disk) as views:
        views.db.execute("BEGIN")  # all of one instant; it ends with the connection
        nodes = set(views.state.members([customer]).get(customer, {}))
        if not nodes:
            raise NotFound(Fault("customer", customer.hex(), "a customer that is known"))
        tables = _tables(engine, views, customer, nodes)
    files: dict[str, bytes] = {}
    for name, table in tables.items():
        files[f"{name}.jsonl"] = json_lines(table.lines)
        files[f"{name}.csv"] = sheet(table.columns, table.lines)
    manifest = {
        "customer": customer.hex(),
        "exported_at": _when(engine.clock.now()),
        "hetki": __version__,
        "files": [
            {"name": name, "n_bytes": len(data), "sha256": sha256(data).hexdigest()}
            for name, data in sorted(files.items())
        ],
    }
    files["manifest.json"] = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    return Exported(archive(files), {name: len(table.lines) for name, table in tables.items()})


def _tables(engine: Engine, views: Views, customer: LeafId, nodes: set[NodeId]) -> dict[str, Table]:
    leaves = sorted(as_leaf(node) for node in nodes)
    facts = load_facts(engine.journal, views.state, leaves)
    facts.sort(key=lambda fact: fact.event.order_key)
    row = views.state.load_customers([customer]).get(customer)
    folded = decode(row.state) if row else Folded()
    handled = views.of_customer(customer, leaves, DEEDS_MAX)
    return {
        "events": _events(facts),
        "identifiers": _identifiers(views, customer),
        "links": _links(views, nodes),
        "traits": _traits(engine, folded),
        "consents": _consents(engine, views, facts),
        "purposes": _purposes(engine, folded),
        "occurrences": _occurrences(handled),
        "decisions": _decisions(engine, views, handled, nodes),
        "messages": _messages(views, leaves),
        "accounts": _accounts(views, leaves),
    }


def _events(facts: Sequence[Fact]) -> Table:
    columns = "event_id source message_id channel name occurred_at received_at gpc identifiers properties"
    lines: list[Line] = [
        {
            "event_id": fact.event_id.hex(),
            "source": fact.event.source,
            "message_id": fact.event.message_id,
            "channel": fact.event.channel,
            "name": fact.event.name,
            "occurred_at": _when(fact.event.occurred_at),
            "received_at": _when(fact.event.received_at),
            "gpc": fact.event.gpc,
            "identifiers": fact.event.identifiers,
            "properties": json_object(fact.event.properties),
            "context": json_object(fact.event.context),
        }
        for fact in facts
    ]
    return Table((*columns.split(), "context"), lines)


def _identifiers(views: Views, customer: LeafId) -> Table:
    found = views.identities.of([customer])
    first_at = {node: each.node.first_at for node, each in views.state.known(x.node for x in found).items()}
    lines: list[Line] = [
        {"namespace": x.namespace, "value": x.value, "first_at": _when(first_at[x.node])} for x in found
    ]
    return Table(("namespace", "value", "first_at"), lines)


def _links(views: Views, nodes: set[NodeId]) -> Table:
    named = views.identities.nodes(nodes)
    names = {node: f"{each.namespace} {each.value}" for node, each in named.items()}
    lines: list[Line] = [
        {
            "kind": each.link.kind,
            "one": names.get(each.link.node_a, SOMEBODY_ELSE),
            "other": names.get(each.link.node_b, SOMEBODY_ELSE),
            "linked_at": _when(each.link.linked_at),
            "status": status_words(each),
            "said_by": each.link.said_by,
        }
        for each in views.identities.links(nodes)
    ]
    return Table(("kind", "one", "other", "linked_at", "status", "said_by"), lines)


def _traits(engine: Engine, folded: Folded) -> Table:
    lines: list[Line] = [
        {
            "trait": trait.name,
            "value": word.value,
            "stands": word is trait.word,
            "rule": trait.rule,
            "source": word.source,
            "told_at": _when(word.told_at),
            "n_told": word.n_told,
            "event_id": word.event_id.hex(),
        }
        for trait in known_traits(engine.program, folded)
        for word in (trait.word, *trait.others)
        if word is not None
    ]
    return Table(("trait", "value", "stands", "rule", "source", "told_at", "n_told", "event_id"), lines)


def _consents(engine: Engine, views: Views, facts: Sequence[Fact]) -> Table:
    """Every statement as a record of consent, in order."""
    found = history_of(engine, views, facts)
    return Table(Record.__struct_fields__, [msgspec.to_builtins(each) for each in found])


def _purposes(engine: Engine, folded: Folded) -> Table:
    """What is in force at present for each purpose, and why."""
    lines: list[Line] = []
    said, now = whole(folded.statements), engine.clock.now()
    for name, purpose in sorted(engine.project.purposes.items()):
        because, statement = why(name, purpose, said, now), said.get(name)
        until = statement.until if statement else None
        lines.append(
            {
                "purpose": name,
                "title": purpose.title,
                "basis": purpose.basis,
                "in_force": because in ("granted", "basis"),
                "because": standing_words(because, purpose.basis),
                "stated_at": _when(statement.stated_at) if statement else None,
                "until": None if until is None else _when(until),
            }
        )
    return Table(("purpose", "title", "basis", "in_force", "because", "stated_at", "until"), lines)


def _occurrences(handled: Sequence[Handled]) -> Table:
    lines: list[Line] = [
        {
            "occurrence_id": each.occurrence_id,
            "moment": each.moment,
            "occurred_at": _when(each.occurred_at),
            "status": each.status,
            "handled_at": None if each.handled_at is None else _when(each.handled_at),
        }
        for each in handled
    ]
    return Table(("occurrence_id", "moment", "occurred_at", "status", "handled_at"), lines)


def _decisions(engine: Engine, views: Views, handled: Sequence[Handled], nodes: set[NodeId]) -> Table:
    named = titles(engine.project)
    decided = [each.decision for each in handled if each.decision is not None]
    lines: list[Line] = [
        {
            "decision_id": each.decision_id,
            "occurrence_id": each.question.occurrence_id,
            "moment": each.question.moment,
            "decided_at": _when(each.question.decided_at),
            "arm": each.arm,
            "chosen": each.chosen,
            "propensity": each.propensity,
            "in_words": "\n".join(_in_words(engine, views, each, named, nodes)),
        }
        for each in decided
    ]
    columns = "decision_id occurrence_id moment decided_at arm chosen propensity in_words"
    return Table(tuple(columns.split()), lines)


def _in_words(
    engine: Engine, views: Views, decision: Decision, named: Titles, nodes: set[NodeId]
) -> list[str]:
    """The whole of why; of an event that was not the customer's own it is not said whose it was."""
    own = {owner_words(None), *map(owner_words, views.identities.nodes(nodes).values())}
    used = [
        each if each.owner in own else msgspec.structs.replace(each, owner=SOMEBODY_ELSE)
        for each in used_events(views, engine.journal, decision)
    ]
    return decision_words(decision, named, used)


def _messages(views: Views, leaves: Sequence[LeafId]) -> Table:
    """What was sent, or is to be, and where to."""
    lines: list[Line] = [
        {
            "message_id": each.message_id,
            "decision_id": each.decision_id,
            "purpose": each.purpose,
            "destination": each.destination,
            "recipient": each.recipient,
            "subject": each.subject,
            "body": each.body,
            "status": each.status,
            "created_at": _when(each.created_at),
            "sent_at": None if each.sent_at is None else _when(each.sent_at),
            "n_attempts": each.n_attempts,
        }
        for each in views.messages_of(leaves, DEEDS_MAX)
    ]
    columns = "message_id decision_id purpose destination recipient subject body status created_at sent_at"
    return Table((*columns.split(), "n_attempts"), lines)


def _accounts(views: Views, leaves: Sequence[LeafId]) -> Table:
    lines: list[Line] = [
        {"group_id": group, "joined_at": None if joined_at is None else _when(joined_at)}
        for group, (_, joined_at) in belongs_to(views.db, leaves).items()
    ]
    return Table(("group_id", "joined_at"), lines)


def _when(at: int) -> str:
    return utc(at).isoformat()
