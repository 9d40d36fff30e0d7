"""Accept: parsed bodies -> the journal. When `accept` returns, what it was given is durable (law 1).

Accepting never looks at the projections and never waits for the fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from hetki.consent.source import Source
from hetki.consent.statements import SPOKEN
from hetki.engine.commands import Command, Said, as_entry
from hetki.events.event import Event, EventId, event_id
from hetki.events.wire import Parsed, Rejected
from hetki.identity.identifier import as_leaf, identifier, leaf_of
from hetki.store.journal import Entry, Journal, Kind
from hetki.store.ports import Chance, Clock
from hetki.store.secrets import Secrets

#: A rejected body is kept in full, but not for long.
REJECTED_RETENTION = "rejected, 30 days"
#: The class of a source that no declaration names (the engine's own events).
OWN_RETENTION = "24 months"

_encode = msgspec.msgpack.Encoder().encode


class Keys(msgspec.Struct, frozen=True):
    """The keys of the project's hashes: of events and of identifiers."""

    event: bytes
    node: bytes


def load_keys(secrets: Secrets) -> Keys:
    """The project's keys, made at the first call."""
    return Keys(secrets.key("event"), secrets.key("node"))


class Acceptor:
    """The way into the journal: for the server, an import, a simulation and the engine itself."""

    def __init__(
        self, journal: Journal, keys: Keys, sources: Mapping[str, Source], clock: Clock, chance: Chance
    ) -> None:
        self._journal = journal
        self._keys = keys
        self._clock = clock
        self._chance = chance
        self.take_up(sources)

    def take_up(self, sources: Mapping[str, Source]) -> None:
        """Keep what is accepted from now on as long as these sources say."""
        self._retention = {name: source.retention for name, source in sources.items()}

    def accept(self, bodies: Sequence[Parsed]) -> int:
        """Commit bodies, one journal row each, in one durable transaction; return the last position.

        A repeat is accepted again and has no further effect. Raises `Unavailable`; then nothing is kept.
        """
        batches: list[list[Entry]] = []
        n_statements = 0
        for parsed in bodies:
            batch = [self._event(event) for event in parsed.events]
            batch.extend(self._rejected(rejected) for rejected in parsed.rejected)
            n_statements += sum(event.gpc or event.name in SPOKEN for event in parsed.events)
            if batch:
                batches.append(batch)
        if not batches:
            return self._journal.head()[0]
        return self._journal.append(batches, self._clock.now(), n_statements)

    def command(self, command: Command) -> int:
        """Commit a command durably; return its position. Raises `Unavailable`."""
        entry = as_entry(command, self._chance.bytes(16))
        # Who joins may bring a refusal along: until it is folded, no send may rest on its absence.
        n_statements = int(isinstance(command, Said))
        return self._journal.append([[entry]], self._clock.now(), n_statements)

    def _event(self, event: Event) -> Entry:
        return Entry(
            Kind.EVENT,
            as_leaf(leaf_of(self._keys.node, event).node),
            event_id(self._keys.event, event.source, event.message_id),
            event.source,
            self._retention.get(event.source, OWN_RETENTION),
            _encode(event),
        )

    def _rejected(self, rejected: Rejected) -> Entry:
        body = _encode(rejected)
        own = identifier(self._keys.node, "event", f"rejected {body.hex()}")
        assert own is not None, "a rejected body names itself"
        rejected_id = EventId(bytes(own.node))
        return Entry(Kind.REJECTED, as_leaf(own.node), rejected_id, rejected.source, REJECTED_RETENTION, body)
