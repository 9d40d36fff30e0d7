"""What must hold of the erasures of a life on the faulty disk, once it has come to its end (`crashing.py`).

What was erased is read from the journal's commands; whose an event is, from the event itself.
"""

from __future__ import annotations

import msgspec
from crash_scene import CANARIES
from crashing import Life

from hetki.consent.statements import GRANTED
from hetki.engine.commands import Erase, read_command
from hetki.engine.engine import Engine
from hetki.engine.folding import read_event
from hetki.engine.receipts import listed
from hetki.events.event import Event, event_id
from hetki.events.wire import Rejected
from hetki.identity.identifier import leaf_of
from hetki.identity.naming import nodes_of
from hetki.store.erasing import unfinished
from hetki.store.journal import Kind, Stored


class Erasures:
    """All erasures of a life that are in the journal, with the position of each."""

    def __init__(self, engine: Engine, entries: list[Stored]) -> None:
        self._engine = engine
        self.entries = entries
        self.commands: list[tuple[int, Erase]] = []
        for each in entries:
            if each.kind is Kind.COMMAND and each.body is not None:
                command = read_command(each.body)
                if isinstance(command, Erase):
                    self.commands.append((each.position, command))
        self.leaves = {leaf for _, each in self.commands for leaf in each.leaves}
        self.names = {name for _, each in self.commands for name in each.names}

    def may_hide(self, event: Event) -> bool:
        """Whether an event may be unreadable or refused: it is, or names, somebody who was erased."""
        key = self._engine.keys.node
        is_theirs = leaf_of(key, event).node.hex() in self.leaves
        return is_theirs or any(node.hex() in self.names for node in nodes_of(key, event))

    def may_be_gone(self, life: Life, message_id: str) -> bool:
        """Whether the deeds about a message that was sent may be gone: it rests on what was erased."""
        whose = life.whose[message_id]
        return bool(self.commands) and (not whose or not whose.isdisjoint(self.leaves))


def erasures_hold(life: Life, engine: Engine, erasures: Erasures) -> None:
    """All that is promised of erasures, of one life."""
    each_has_one_genuine_receipt(life, engine, erasures)
    the_journal_cannot_be_read(life, engine, erasures)
    what_was_refused_is_listed(life, engine, erasures)
    no_byte_is_left(life, erasures)


def each_has_one_genuine_receipt(life: Life, engine: Engine, erasures: Erasures) -> None:
    """What was asked for is finished, and who was told so has a receipt that is genuine."""
    assert not unfinished(engine.db), "an erasure that nobody finishes"
    receipts = listed(engine.journal.secrets, engine.db)
    entered = sorted(each.erasure_id for _, each in erasures.commands)
    signed = sorted(each.erasure_id for each in receipts)
    assert signed == entered, "one receipt for each erasure in the journal"
    assert all(each.is_genuine for each in receipts), "a receipt that is not genuine"
    assert life.erased <= {each.erasure_id for each in receipts}, "an erasure that was promised is missing"
    secrets = {row[0].hex() for row in engine.disk.connect("secrets.db").execute("SELECT leaf FROM leaves")}
    back = {node.hex() for node, each in engine.journal.secrets.erased().items() if each.back_at is not None}
    assert not secrets & erasures.leaves - back, "a key that is still there"


def the_journal_cannot_be_read(life: Life, engine: Engine, erasures: Erasures) -> None:
    """Nothing that is from before an erasure can be read, nor what tells an erased name, unless consent was
    given anew before."""
    erased = engine.journal.secrets.erased()
    for entry in erasures.entries:
        leaf = entry.leaf.hex()
        if entry.body is None:
            assert leaf in erasures.leaves, "an entry whose key is missing"
            continue
        for position, command in erasures.commands:
            assert position < entry.position or leaf not in command.leaves, "what was erased can be read"
        event = read_event(entry) if entry.kind is Kind.EVENT else None
        for node in nodes_of(engine.keys.node, event) if event else ():
            if node.hex() in erasures.names:
                back_at = erased[node].back_at if node in erased else None
                assert back_at is not None and event is not None and event.occurred_at >= back_at, (
                    "an erased name is told"
                )
    granted = [event for event in life.told.values() if event.name == GRANTED]
    opened = {node for event in granted for node in nodes_of(engine.keys.node, event)}
    back = {
        node for node, each in erased.items() if each.back_at is not None and node.hex() in erasures.names
    }
    assert back <= opened, "a name is open again, and nobody told of a consent"


def what_was_refused_is_listed(life: Life, engine: Engine, erasures: Erasures) -> None:
    """What was acknowledged is in the journal, or that it told an erased name: nothing vanishes."""
    kept = {each.event_id for each in erasures.entries}
    bodies = [each.body for each in erasures.entries if each.kind is Kind.REJECTED and each.body]
    refused = {msgspec.msgpack.decode(each, type=Rejected).kind.rpartition(" ")[2] for each in bodies}
    for message_id in life.acknowledged:
        event = life.told[message_id]
        own = event_id(engine.keys.event, event.source, message_id)
        assert own in kept or own.hex() in refused, "an acknowledged event of an erased person has vanished"


def receipts_are_true(life: Life, engine: Engine) -> None:
    """As soon as all receipts are signed nothing is left, and not only in the end."""
    erasures = Erasures(engine, engine.journal.read(0, 10**9))
    rows = engine.db.execute("SELECT erasure_id FROM erasures WHERE finished_at IS NOT NULL").fetchall()
    if {each.erasure_id for _, each in erasures.commands} == {row[0] for row in rows}:
        no_byte_is_left(life, erasures)


def no_byte_is_left(life: Life, erasures: Erasures) -> None:
    """A word that no entry of the journal tells is in no byte of any file or log."""
    if not erasures.commands:
        return
    told = b"\n".join(each.body for each in erasures.entries if each.body is not None)
    gone = [each.encode() for each in CANARIES if each.encode() not in told]
    for name, data in life.disk.every_byte():
        for word in gone:
            assert word not in data, f"{word.decode()} is left in {name}"
