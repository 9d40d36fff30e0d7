"""Commands: what people and linkage do to the state, as entries of the journal: a replay needs no more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from hetki.errors import Fault, Invalid, shown
from hetki.events.event import EventId, LeafId
from hetki.store.journal import Entry, Journal, Kind

#: Commands name hashes only, never a person; they share one leaf and are kept for ever.
LEAF = LeafId(b"hetki: a command")
SOURCE, RETENTION = "hetki", "for ever"
#: Pairs of one `Matched`, and nodes of one `SetAside`.
PAIRS_MAX = 500
#: Entries of the journal that are read together.
ENTRIES_MAX = 10_000
#: Leaves of one `Erase`.
LEAVES_MAX = 200_000


class Merge(msgspec.Struct, frozen=True, tag="merge"):
    """A person says that two customers (hex ids of any of their leaves) are one.

    `despite_unique`: although both have an id that is unique for ever, as one who has two accounts.
    """

    node_a: str
    node_b: str
    said_by: str
    said_at: int
    despite_unique: bool = False


class CannotLink(msgspec.Struct, frozen=True, tag="cannot_link"):
    """A person says that two identifiers (hex nodes) are never one customer's."""

    node_a: str
    node_b: str
    said_by: str
    said_at: int


class Unsure(msgspec.Struct, frozen=True, tag="unsure"):
    """A person cannot say whether a link that waits for review (hex id) holds."""

    link_id: str
    said_by: str
    said_at: int


class Unmerge(msgspec.Struct, frozen=True, tag="unmerge"):
    """A person takes a link of any kind back (hex id); it stays revoked for ever."""

    link_id: str
    said_by: str
    said_at: int


class MatchedPair(msgspec.Struct, frozen=True, array_like=True):
    """Two records (hex nodes) that linkage compared: the weight in bits, and how fields add up to it."""

    node_a: str
    node_b: str
    kind: Literal["probable", "possible"]
    weight: float
    told: tuple[tuple[str, float], ...] = ()


class Matched(msgspec.Struct, frozen=True, tag="matched"):
    """What linkage with a model (its version) proposes. It proposes only: constraints still decide."""

    model: str
    pairs: list[MatchedPair]
    said_at: int


class SetAside(msgspec.Struct, frozen=True, tag="set_aside"):
    """Records (hex nodes) that linkage links with nobody without a person, and why."""

    nodes: list[str]
    reason: str
    model: str
    said_at: int


class Replayed(msgspec.Struct, frozen=True, tag="replayed"):
    """A rejected body was repaired and accepted."""

    rejected_id: str
    said_at: int


class Activated(msgspec.Struct, frozen=True, tag="activated"):
    """Declarations with this content hash are in force from here on."""

    program: str
    said_at: int


class Erase(msgspec.Struct, frozen=True, tag="erase"):
    """A customer is erased: everything that these leaves own, and every further name (all hex hashes).

    `leaves` include the bodies that were rejected and tell one of the names.
    """

    erasure_id: str
    leaves: list[str]
    names: list[str]
    said_by: str
    said_at: int


class Expire(msgspec.Struct, frozen=True, tag="expire"):
    """The time of a period (its number) is over: what was sealed under it can be read by nobody."""

    erasure_id: str
    period: int
    said_by: str
    said_at: int


class Remove(msgspec.Struct, frozen=True, tag="remove"):
    """Entries of the journal are overwritten, wherever they lie: `rows` are the positions of their rows with
    the SHA-256 (hex) of the bodies that are left."""

    erasure_id: str
    places: list[tuple[int, int]]
    rows: list[tuple[int, str]]
    said_by: str
    said_at: int


#: What takes something away.
Taking = Erase | Expire | Remove
#: What is said of identity.
Said = Merge | CannotLink | Unsure | Unmerge | Matched | SetAside
Command = Said | Replayed | Activated | Taking
_ID = re.compile("[0-9a-fA-F]{32}")
_decoder = msgspec.msgpack.Decoder(Command)


def as_entry(command: Command, command_id: bytes) -> Entry:
    """A command as a journal entry; `command_id` (16 bytes) makes it happen once.

    Raises `Invalid` for ids that are no ids: what is in the journal can always be folded.
    """
    for name, given in _ids(command):
        if not _ID.fullmatch(given):
            raise Invalid(Fault(f"command: {name}", shown(given), "32 hex digits"))
    many = getattr(command, "pairs", getattr(command, "nodes", getattr(command, "leaves", ())))
    n_max = LEAVES_MAX if isinstance(command, Erase) else PAIRS_MAX
    if len(many) > n_max:
        raise Invalid(Fault("command", f"{len(many)} in one command", f"{n_max} at most"))
    body = msgspec.msgpack.encode(command)
    return Entry(Kind.COMMAND, LEAF, EventId(command_id), SOURCE, RETENTION, body)


def _ids(command: Command) -> Iterable[tuple[str, str]]:
    """Every id that a command names, by the name of its field."""
    if isinstance(command, Matched):
        for pair in command.pairs:
            yield from (("node_a", pair.node_a), ("node_b", pair.node_b))
    elif isinstance(command, Erase):
        yield ("erasure_id", command.erasure_id)
        yield from (("leaves", each) for each in (*command.leaves, *command.names))
    elif isinstance(command, Expire | Remove):
        yield ("erasure_id", command.erasure_id)
    elif isinstance(command, SetAside):
        yield from (("nodes", node) for node in command.nodes)
    else:
        names = [name for name in ("node_a", "node_b", "link_id") if hasattr(command, name)]
        yield from ((name, getattr(command, name)) for name in names)


def read_command(body: bytes) -> Command:
    """A command from its bytes. Raises `Invalid` for one that this version does not know."""
    try:
        command: Command = _decoder.decode(body)
    except msgspec.MsgspecError as error:
        must = "a command of this version"
        raise Invalid(Fault("journal.db", str(error), must, "update hetki")) from error
    return command


def commands_in(journal: Journal, after: int = 0) -> Iterator[Command]:
    """Every command of the journal behind a position, in order."""
    while stored := journal.read(after, ENTRIES_MAX):
        after = stored[-1].position
        for each in stored:
            if each.kind is Kind.COMMAND and each.body is not None:
                yield read_command(each.body)
