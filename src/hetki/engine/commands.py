"""Commands: what people do to the state, as entries of the journal, so that a replay needs nothing else."""

from __future__ import annotations

import re

import msgspec

from hetki.errors import Fault, Invalid, shown
from hetki.events.event import EventId, LeafId
from hetki.store.journal import Entry, Kind

#: Commands name hashes only, never a person; they share one leaf and are kept for ever.
LEAF = LeafId(b"hetki: a command")
SOURCE, RETENTION = "hetki", "for ever"


class Merge(msgspec.Struct, frozen=True, tag="merge"):
    """A person says that two customers (hex ids of any of their leaves) are one."""

    node_a: str
    node_b: str
    said_by: str
    said_at: int


class Unmerge(msgspec.Struct, frozen=True, tag="unmerge"):
    """A person takes a link back (hex id); it stays revoked for ever."""

    link_id: str
    said_by: str
    said_at: int


class Replayed(msgspec.Struct, frozen=True, tag="replayed"):
    """A rejected body was repaired and accepted."""

    rejected_id: str
    said_at: int


class Activated(msgspec.Struct, frozen=True, tag="activated"):
    """Declarations with this content hash are in force from here on."""

    program: str
    said_at: int


Command = Merge | Unmerge | Replayed | Activated
_ID = re.compile("[0-9a-fA-F]{32}")
_decoder = msgspec.msgpack.Decoder(Command)


def as_entry(command: Command, command_id: bytes) -> Entry:
    """A command as a journal entry; `command_id` (16 bytes) makes it happen once.

    Raises `Invalid` for ids that are no ids: what is in the journal can always be folded.
    """
    for name in ("node_a", "node_b", "link_id"):
        given = getattr(command, name, "0" * 32)
        if not _ID.fullmatch(given):
            raise Invalid(Fault(f"command: {name}", shown(given), "32 hex digits"))
    body = msgspec.msgpack.encode(command)
    return Entry(Kind.COMMAND, LEAF, EventId(command_id), SOURCE, RETENTION, body)


def read_command(body: bytes) -> Command:
    """A command from its bytes. Raises `Invalid` for one that this version does not know."""
    try:
        command: Command = _decoder.decode(body)
    except msgspec.MsgspecError as error:
        must = "a command of this version"
        raise Invalid(Fault("journal.db", str(error), must, "update hetki")) from error
    return command
