"""Deliver: the outbox -> destinations, one destination at a time, each with its own budget and breaker.

A message is claimed in a transaction that looks again at consent, quiet hours and expiry (law 4), sent, and
its receipt recorded. A crash in between sends it again under the same id, and the receiver sees one effect;
a crash after the event that tells of it finds the receipt there.
This is the only file that holds the sender.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import msgspec

from hetki.consent.statements import is_restricted, whole
from hetki.decisions.contact import quiet_until, zone_of
from hetki.dialogues.destination import TIMEOUT_S_MAX, Destination
from hetki.dialogues.mail import compose
from hetki.dialogues.message import UNHEARD, Message, Status
from hetki.dialogues.retry import Breaker, admit, is_permanent, next_attempt, report
from hetki.dialogues.webhook import payload, sign
from hetki.engine.deciding import closed_sources
from hetki.engine.engine import Engine
from hetki.engine.folding import decode_occurrence
from hetki.errors import Fault, Invalid, Unavailable
from hetki.events.event import OWN_SOURCE, Event, EventId, LeafId, event_id
from hetki.events.wire import Parsed
from hetki.identity.identifier import Namespace, NodeId, identifier
from hetki.identity.survival import is_corrected, is_taken_back
from hetki.moments.fold import Folded, decode, in_force
from hetki.settings import SECOND
from hetki.store.ports import Net, Sent
from hetki.store.sqlite import transaction

#: A claim that no receipt followed is taken up again after this: longer than any exchange may last.
CLAIM_S = 2 * TIMEOUT_S_MAX
#: Messages looked at in one claim.
READY_MAX = 20
#: The events that tell of a deed, and what it came to.
DEEDS: tuple[tuple[str, Status], ...] = (("Message Sent", "sent"), ("Message Failed", "failed"))

_breaker = msgspec.json.Decoder(Breaker)


class Delivered(msgspec.Struct, frozen=True):
    """What one round at a destination came to (counts of messages)."""

    n_sent: int = 0
    n_failed: int = 0
    n_cancelled: int = 0
    n_waiting: int = 0


def deliver(engine: Engine, net: Net, destination: str, n_max: int = 100) -> Delivered:
    """Send what is due at a destination, at most `n_max` messages, one after the other.

    Raises `Unavailable` if the store is; a destination that fails is a row, not an error.
    """
    declared = engine.project.destinations[destination]
    counts = {"sent": 0, "failed": 0, "expired": 0, "cancelled": 0, "waiting": 0}
    for _ in range(n_max):
        message, n_stopped = _claim(engine, destination)
        counts["cancelled"] += n_stopped
        if message is None:
            break
        counts[_record(engine, declared, message, _send(engine, net, declared, message))] += 1
    n_failed = counts["failed"] + counts["expired"]
    return Delivered(counts["sent"], n_failed, counts["cancelled"], counts["waiting"])


def _claim(engine: Engine, destination: str) -> tuple[Message | None, int]:
    """The next message that may be sent now, marked as claimed; and how many the second look stopped."""
    now = engine.clock.now()
    n_stopped = 0
    if (
        not engine.ledger.ready(destination, now, 1)
        or not admit(_stored_breaker(engine, destination), now)[0]
    ):
        return None, 0  # looked at before the store is locked: a destination that rests holds up no other
    with transaction(engine.db):
        progress = engine.state.progress()
        if progress is None or engine.journal.has_statements_after(progress.position):
            return None, 0  # someone has just spoken about consent: fold that first
        before = _stored_breaker(engine, destination)
        admitted, breaker = admit(before, now)
        if not admitted:
            return None, 0
        restored_at = engine.ledger.restored_at()
        for message in engine.ledger.ready(destination, now, READY_MAX):
            if _is_doubtful(message, restored_at) and _heard(engine, message, progress.position):
                continue
            stop, until = second_look(engine, message, now)
            if stop:
                status: Status = "expired" if stop == "expired" else "cancelled"
                if message.status == "claimed":
                    stop += f"; {UNHEARD}"
                engine.ledger.set_status(message.message_id, status, stop)
                n_stopped += 1
            elif until is not None:
                engine.ledger.set_status(message.message_id, "waiting", "quiet hours", until)
            else:
                engine.ledger.set_status(message.message_id, "claimed", "", now + CLAIM_S * SECOND)
                if breaker != before:
                    engine.ledger.save_breaker(destination, msgspec.json.encode(breaker))
                return message, n_stopped
    return None, n_stopped


def _is_doubtful(message: Message, restored_at: int) -> bool:
    """Whether a message may have been sent already: it was claimed before a crash, or waited in a backup."""
    return message.status == "claimed" or message.created_at <= restored_at


def _heard(engine: Engine, message: Message, position: int) -> bool:
    """Whether a message was told of before, that a crash left claimed, or a restore as it was earlier: then
    that is its receipt, and it is not repeated.

    `position` is that of the fold. Else one message could be told to have failed, and then to have been sent.
    """
    names: dict[EventId, Status] = {
        event_id(engine.keys.event, OWN_SOURCE, deed_id(name, message.message_id)): status
        for name, status in DEEDS
    }
    told = engine.journal.accepted(engine.state.places_of(list(names)), names.keys(), position)
    for own_id, received_at in told.items():
        is_sent = names[own_id] == "sent"
        detail = "" if is_sent else "as it was told; the receipt was lost"
        engine.ledger.add_attempt(message.message_id, received_at, is_sent, 0, detail)
        engine.ledger.set_status(message.message_id, names[own_id], detail)
        return True
    return False


def deed_id(name: str, message_id: str) -> str:
    """The message id of the event that tells of a deed: the same however often it is told."""
    return blake2b(f"{name}\0{message_id}".encode(), digest_size=16).hexdigest()


def _stored_breaker(engine: Engine, destination: str) -> Breaker:
    stored = engine.ledger.breaker(destination)
    return _breaker.decode(stored) if stored else Breaker()


def second_look(engine: Engine, message: Message, now: int) -> tuple[str, int | None]:
    """Why a message may no longer be sent ("" if it may), and until when it must wait (None: not at all)."""
    if now > message.expires_at:
        return "expired", None
    if engine.ledger.is_retracted(message.decision_id):
        return "retracted", None  # while it was claimed: what waits was cancelled there and then
    customer = engine.state.customers_of([NodeId(message.customer)]).get(NodeId(message.customer))
    row = engine.state.load_customers([customer]).get(customer) if customer else None
    folded = decode(row.state) if row else Folded()
    purposes = [name for name, _ in engine.program.purposes]
    if not _is_still(engine, message, customer, folded):
        return "the recipient is no longer this customer's", None
    if message.purpose not in purposes:
        return f"purpose {message.purpose} is no longer declared", None
    bit = 1 << purposes.index(message.purpose)
    if not in_force(engine.program, folded, now) & bit:
        is_all = is_restricted(whole(folded.statements))
        closed = "processing is restricted" if is_all else f"no lawful basis for {message.purpose} any more"
        return closed, None
    body = engine.ledger.occurrence_of(message.decision_id)  # repaired history may have closed its data
    if body is not None and closed_sources(decode_occurrence(body), bit):
        return f"what it rests on is not open to {message.purpose} any more", None
    if message.transactional:
        return "", None
    zone = zone_of(folded.traits.get("timezone"), engine.project.settings.time_zone)
    until = quiet_until(now, engine.project.quiet_hours, zone)
    if until is not None and until > message.expires_at:
        return "quiet hours until it expires", None
    return "", until


def _is_still(engine: Engine, message: Message, customer: LeafId | None, folded: Folded) -> bool:
    """Whether the recipient, an address or a name, belongs to this customer: a merge may have been undone."""
    known_as = message.recipient
    if known_as in (folded.traits.get("email"), message.customer.hex()):
        return True
    spaces: list[Namespace] = ["user_id", "anonymous_id"]
    if not is_taken_back(folded.heard, "email") and not is_corrected(folded.heard, "email"):
        spaces.append("email")
    named = [identifier(engine.keys.node, space, known_as) for space in spaces]
    owners = engine.state.customers_of([each.node for each in named if each is not None])
    return customer in owners.values()


def _send(engine: Engine, net: Net, destination: Destination, message: Message) -> Sent:
    now = engine.clock.now()
    try:
        if destination.kind == "email":
            letter = compose(
                message.message_id, now, destination.sender, message.recipient, message.subject, message.body
            )
            return net.mail(
                destination.server, destination.sender, message.recipient, letter, destination.timeout_s
            )
        body = payload("message", message.created_at, _data(message))
        secret = secret_of(destination, engine.environment)
        headers = {"content-type": "application/json"}
        headers |= sign(secret, message.message_id, now // SECOND, body)
        return net.post(destination.url, headers, body, destination.timeout_s)
    except Unavailable as error:
        return Sent(False, 0, str(error))
    except Invalid as error:
        return Sent(False, 400 if destination.kind == "webhook" else 550, str(error))


def secret_of(destination: Destination, environment: Mapping[str, str]) -> str:
    """The signing secret of a webhook; `env:NAME` is looked up. Raises `Unavailable` until it is set."""
    if not destination.secret.startswith("env:"):
        return destination.secret
    name = destination.secret.removeprefix("env:")
    if not environment.get(name):
        raise Unavailable(Fault(f"environment: {name}", "nothing", "the signing secret of a destination"))
    return environment[name]


def _data(message: Message) -> dict[str, object]:
    data: dict[str, object] = {
        "message_id": message.message_id,
        "decision_id": message.decision_id,
        "moment": message.moment,
        "action": message.action,
        "customer": message.customer.hex(),
        "recipient": message.recipient,
        "body": message.body,
    }
    if message.subject:
        data["subject"] = message.subject
    return data


def _record(engine: Engine, destination: Destination, message: Message, sent: Sent) -> Status:
    """Write the receipt of one attempt, and what follows from it; return the message's status.

    The event that tells of it enters the journal first, under an id that a repeat has too: a crash between
    the two leaves one event and one receipt.
    """
    now = engine.clock.now()
    n_attempts = message.n_attempts + 1
    due_at: int | None = None
    status: Status = "sent"
    detail = ""
    if not sent.ok:
        status, detail = "failed", sent.detail or f"status {sent.status}"
        if not is_permanent(destination.kind, sent.status):
            due_at = next_attempt(n_attempts, now, message.message_id, sent.retry_after_s)
            if due_at is not None and due_at <= message.expires_at:
                status = "waiting"
            elif due_at is not None:
                status, detail = "expired", f"{detail}; the next attempt would come too late"
    if status != "waiting":
        _tell(engine, message, "Message Sent" if status == "sent" else "Message Failed", now)
    with transaction(engine.db):
        engine.ledger.add_attempt(message.message_id, now, sent.ok, sent.status, detail)
        engine.ledger.set_status(message.message_id, status, detail, due_at)
        before = _stored_breaker(engine, message.destination)
        after = report(before, sent.ok or is_permanent(destination.kind, sent.status), now)
        if after != before:
            engine.ledger.save_breaker(message.destination, msgspec.json.encode(after))
    return status


def _tell(engine: Engine, message: Message, name: str, now: int) -> None:
    """Let a deed come back as an event (DESIGN: the loop has no back door)."""
    node = NodeId(message.customer)
    customer = engine.state.customers_of([node]).get(node, message.customer)
    names = engine.state.values_of(engine.state.members([customer]).get(customer, {}))
    order = ("user_id", "anonymous_id", "email", "phone")
    known = next(((each, names[each]) for each in order if each in names), None)
    properties = {
        "decision_id": message.decision_id,
        "action": message.action,
        "channel": message.destination,
        "moment": message.moment,
    }
    event = Event(
        source=OWN_SOURCE,
        message_id=deed_id(name, message.message_id),
        channel=message.destination,
        name=name,
        occurred_at=now,
        received_at=now,
        identifiers=dict([known]) if known else {},
        properties=msgspec.json.encode(properties),
    )
    engine.acceptor.accept([Parsed([event], [])])
