"""Accept: parsed bodies -> the journal. When `accept` returns, what it was given is durable (law 1).

Accepting never looks at the projections and never waits for the fold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from itertools import chain
from operator import attrgetter

import msgspec

from hetki.consent.purpose import Purpose
from hetki.consent.retention import REJECTED, class_of, classes_of
from hetki.consent.source import Source
from hetki.consent.statements import GRANTED, SPOKEN
from hetki.engine.commands import Command, Erase, Said, as_entry, read_command
from hetki.errors import Fault
from hetki.events.event import Event, EventId, event_id
from hetki.events.wire import Parsed, Rejected
from hetki.identity.identifier import as_leaf, identifier, leaf_of
from hetki.identity.naming import nodes_called, nodes_in, nodes_of
from hetki.store.journal import Entry, Journal, Kind
from hetki.store.ports import Chance, Clock
from hetki.store.secrets import Erased, Secrets

#: Values that are remembered as no name of anybody who was erased.
CLEAR_MAX = 200_000
#: Marks a row of which only the reason is kept; by the keyed hash after it a repeat is the same row.
ERASED_KIND = "erased "
ERASED_HINT = "it is taken again once the person has given consent anew"

_encode = msgspec.msgpack.Encoder().encode
_identifiers: Callable[[Event], dict[str, str]] = attrgetter("identifiers")
_context: Callable[[Event], bytes] = attrgetter("context")


class Keys(msgspec.Struct, frozen=True):
    """The keys of the project's hashes: of events and of identifiers."""

    event: bytes
    node: bytes

    def __repr__(self) -> str:
        return "Keys(...)"  # whoever has them can tell which hash is whose


def erasures_after(journal: Journal, position: int) -> list[Erase]:
    """The erasures that were entered after a position."""
    found = [read_command(each.body) for each in journal.commands_after(position) if each.body is not None]
    return [each for each in found if isinstance(each, Erase)]


def take_secrets(secrets: Secrets, command: Erase) -> None:
    """Take the secrets of an erasure's leaves away from every reader, durably, and refuse its names; a repeat
    does nothing."""
    leaves = {bytes.fromhex(each) for each in command.leaves}
    names = {bytes.fromhex(each) for each in command.names}
    secrets.erase(bytes.fromhex(command.erasure_id), leaves, names, command.said_at)


def load_keys(secrets: Secrets) -> Keys:
    """The project's keys, made at the first call."""
    return Keys(secrets.key("event"), secrets.key("node"))


class Acceptor:
    """The way into the journal: for the server, an import, a simulation and the engine itself."""

    def __init__(
        self,
        journal: Journal,
        keys: Keys,
        sources: Mapping[str, Source],
        purposes: Mapping[str, Purpose],
        clock: Clock,
        chance: Chance,
        looked_at: int,
    ) -> None:
        """`looked_at`: the journal's position before which every erasure has been folded."""
        self._journal = journal
        self._keys = keys
        self._clock = clock
        self._chance = chance
        self.looked_at = looked_at
        self._look()
        self._clear_of: Mapping[bytes, Erased] = {}
        self._clear: set[str] = set()  # values that are no name of anybody who was erased
        self.take_up(sources, purposes)

    def take_up(self, sources: Mapping[str, Source], purposes: Mapping[str, Purpose]) -> None:
        """Keep what is accepted from now on as long as these sources and purposes say."""
        self._classes = {name: classes_of(source, purposes) for name, source in sources.items()}

    def accept(self, bodies: Sequence[Parsed]) -> int:
        """Commit bodies, one journal row each, in one durable transaction; return the last position.

        A repeat is accepted again and has no further effect. Raises `Unavailable`; then nothing is kept.
        """
        while True:
            batches, n_statements, now = self._sealed(bodies)
            if not batches:
                return self._journal.head()[0]
            position = self._journal.append(batches, now, n_statements, self.looked_at)
            if position:
                self.looked_at = position
                return position
            self._look()  # someone has spoken meanwhile: whoever was erased is told no more

    def _look(self) -> None:
        """Take the secrets of erasures that were entered since this was looked at last."""
        head = self._journal.head()[0]
        for each in erasures_after(self._journal, self.looked_at):
            take_secrets(self._journal.secrets, each)
        self.looked_at = head

    def _sealed(self, bodies: Sequence[Parsed]) -> tuple[list[list[Entry]], int, int]:
        """The entries of each body, how many of all speak of consent, and when that was."""
        batches: list[list[Entry]] = []
        n_statements = 0
        erased, now = self._journal.secrets.erased(), self._clock.now()
        for parsed in bodies:
            if erased:
                parsed = self._suppressed(parsed, erased, now)
            batch = [self._event(event) for event in parsed.events]
            batch.extend(self._rejected(rejected) for rejected in parsed.rejected)
            n_statements += sum(event.gpc or event.name in SPOKEN for event in parsed.events)
            if batch:
                batches.append(batch)
        return batches, n_statements, now

    def command(self, command: Command) -> int:
        """Commit a command durably; return its position. Raises `Unavailable`."""
        entry = as_entry(command, self._chance.bytes(16))
        # Who joins may bring a refusal along, and who is erased is sent nothing: no send until it is folded.
        n_statements = int(isinstance(command, Said | Erase))
        return self._journal.append([[entry]], self._clock.now(), n_statements)

    def _suppressed(self, parsed: Parsed, erased: Mapping[bytes, Erased], now: int) -> Parsed:
        """The same without what tells the name of an erased person: of that only the reason is kept.

        A consent that is given after the erasure, and not in the future, lets its names come back.
        """
        if self._clear_of is not erased or len(self._clear) > CLEAR_MAX:
            self._clear_of, self._clear = erased, set()
        is_clear = self._clear.issuperset
        told = chain.from_iterable(map(dict.values, map(_identifiers, parsed.events)))
        is_plain = is_clear(told) and not _names_more(b"".join(map(_context, parsed.events)))
        if is_plain and not parsed.rejected:  # nearly always: looked at all at once, as each costs
            return parsed
        doubtful = [
            event
            for event in parsed.events
            if not is_clear(event.identifiers.values()) or _names_more(event.context)
        ]
        events: list[Event] = []
        rejected: list[Rejected] = []
        looked_at = set(map(id, doubtful))
        for event in parsed.events:
            if id(event) not in looked_at:
                events.append(event)
                continue
            found = self._named(event, erased)
            if not any(each.refuses(event.occurred_at) for each in found.values()):
                events.append(event)
            elif self._come_back(event, found, now):
                erased = self._journal.secrets.erased()
                events.append(event)
            else:
                own = event_id(self._keys.event, event.source, event.message_id)
                rejected.append(_refused(event.source, now, event.channel, own.hex()))
        for each in parsed.rejected:
            named = nodes_in(self._keys.node, each.body) & erased.keys()
            if any(erased[node].back_at is None for node in named):
                own_id = blake2b(each.body, key=self._keys.event, digest_size=16).hexdigest()
                rejected.append(_refused(each.source, now, each.channel, own_id))
            else:
                rejected.append(each)
        return Parsed(events, rejected)

    def _come_back(self, event: Event, found: Mapping[bytes, Erased], now: int) -> bool:
        """Whether an event is a consent that lets the names that it tells come back, and has done so."""
        is_anew = all(each.erased_at < event.occurred_at <= now for each in found.values())
        return event.name == GRANTED and is_anew and self._journal.secrets.come_back(found, event.occurred_at)

    def _named(self, event: Event, erased: Mapping[bytes, Erased]) -> dict[bytes, Erased]:
        """What of an event was erased: its leaf, and the names that it tells."""
        leaf = leaf_of(self._keys.node, event).node
        found = {node: erased[node] for node in nodes_of(self._keys.node, event) if node in erased}
        self._clear.update(
            value
            for value in event.identifiers.values()
            if value not in self._clear and erased.keys().isdisjoint(nodes_called(self._keys.node, value))
        )
        return {node: each for node, each in found.items() if each.is_name or node == leaf}

    def _event(self, event: Event) -> Entry:
        return Entry(
            Kind.EVENT,
            as_leaf(leaf_of(self._keys.node, event).node),
            event_id(self._keys.event, event.source, event.message_id),
            event.source,
            class_of(event, self._classes.get(event.source)),
            _encode(event),
        )

    def _rejected(self, rejected: Rejected) -> Entry:
        body = _encode(rejected)
        once = rejected.kind if rejected.kind.startswith(ERASED_KIND) else body.hex()
        own = identifier(self._keys.node, "event", f"rejected {once}")
        assert own is not None, "a rejected body names itself"
        rejected_id = EventId(bytes(own.node))
        return Entry(Kind.REJECTED, as_leaf(own.node), rejected_id, rejected.source, REJECTED, body)


def _names_more(context: bytes) -> bool:
    """Whether a context may name somebody beside the identifiers of its event."""
    return b'"device"' in context or b'"externalIds"' in context


def _refused(source: str, now: int, channel: str, own_id: str) -> Rejected:
    """What is kept of what an erased person would be known by: when, from where, and why it was refused."""
    fault = Fault("event", "a name of an erased person", "nothing that was erased", ERASED_HINT)
    return Rejected(source, now, b"", fault, channel=channel, kind=f"{ERASED_KIND}{own_id}")
