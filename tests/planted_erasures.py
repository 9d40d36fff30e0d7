"""Planted bugs of erasing: each changes its order in the real code, and must be caught (`planted.py`)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from collections.abc import Set as AbstractSet

import pytest
from planted import around_advance, nothing

from hetki.engine import advance as advancing
from hetki.engine import erase as erasing
from hetki.engine.accept import Acceptor, take_secrets
from hetki.engine.commands import Command, Erase
from hetki.engine.engine import Engine
from hetki.engine.folding import Folding
from hetki.events.event import LeafId
from hetki.store.journal import Journal
from hetki.store.secrets import Secrets
from hetki.store.sqlite import transaction

Patch = pytest.MonkeyPatch


def everywhere(patch: Patch, real: object, name: str, instead: object) -> None:
    """Replace a function wherever it was imported."""
    for module in list(sys.modules.values()):
        if getattr(module, name, None) is real:
            patch.setattr(module, name, instead)


def keys_before_the_command(patch: Patch) -> None:
    """The keys are destroyed, and then the command is entered that has the projections rewritten."""
    command = Acceptor.command

    def destroyed_first(self: Acceptor, said: Command) -> int:
        if isinstance(said, Erase):
            take_secrets(self._journal.secrets, said)
            self._journal.secrets.destroy(bytes.fromhex(said.erasure_id))
        return command(self, said)

    patch.setattr(Acceptor, "command", destroyed_first)


def names_after_the_keys(patch: Patch) -> None:
    """The keys are taken away in one transaction, and the names are refused from the next on."""
    erase = Secrets.erase

    def in_two(
        self: Secrets, erasure: bytes, leaves: AbstractSet[bytes], names: AbstractSet[bytes], at: int
    ) -> None:
        known = self._db.execute("SELECT 1 FROM erased WHERE erasure = ?", (erasure,)).fetchone()
        erase(self, erasure, leaves, frozenset(), at)
        if known is None:
            erase(self, bytes(reversed(erasure)), frozenset(), names, at + 1)
            self._db.execute(
                "UPDATE erased SET erasure = ? WHERE is_leaf AND erased_at = ?", (erasure, at + 1)
            )

    patch.setattr(Secrets, "erase", in_two)


def position_before_the_rewriting(patch: Patch) -> None:
    """The position moves on, and in the next transaction what was erased is rewritten."""
    forget, late = advancing.forget, list[tuple[Engine, Erase, int, int]]()

    def later(engine: Engine, command: Erase, advance_to: int, now: int) -> Folding:
        late.append((engine, command, advance_to, now))
        return Folding([], [], {}, 0)

    def flush(engine: Engine) -> None:
        while late:
            with transaction(engine.db):
                forget(*late[0])
            late.pop(0)

    patch.setattr(advancing, "forget", later)
    around_advance(patch, nothing, flush, late.clear)


def receipt_before_the_logs(patch: Patch) -> None:
    """The receipt is signed, and then the logs are emptied."""
    finish, empty = erasing.finish, erasing.empty_logs

    def emptied_last(engine: Engine) -> int:
        n = finish(engine)
        if n:
            empty(engine)
        return n

    everywhere(patch, empty, "empty_logs", nothing)
    everywhere(patch, finish, "finish", emptied_last)


def receipt_before_the_lake(patch: Patch) -> None:
    """The receipt is signed, and then the lake is written again."""
    finish, forget = erasing.finish, erasing.forget_in_lake

    def written_last(engine: Engine) -> int:
        waiting = [bytes.fromhex(row[0]) for row in erasing._unfinished(engine)]
        n = finish(engine)
        if n:
            forget(engine.disk, engine.journal, engine.state, waiting)
        return n

    patch.setattr(erasing, "forget_in_lake", nothing)
    everywhere(patch, finish, "finish", written_last)


def receipt_before_the_keys(patch: Patch) -> None:
    """The receipt is signed, and then the keys are overwritten."""
    finish, destroy = erasing.finish, Secrets.destroy

    def destroyed_last(engine: Engine) -> int:
        waiting = [row[0] for row in erasing._unfinished(engine)]
        n = finish(engine)
        for each in waiting[:n]:
            destroy(engine.journal.secrets, bytes.fromhex(each))
        return n

    patch.setattr(Secrets, "destroy", lambda self, erasure: 0)
    everywhere(patch, finish, "finish", destroyed_last)


def erasures_not_waited_for(patch: Patch) -> None:
    """A message is claimed although an erasure was entered that is not folded yet."""
    has_statements = Journal.has_statements_after

    def but_for_erasures(self: Journal, position: int) -> bool:
        return has_statements(self, position) and not self.commands_after(position)

    patch.setattr(Journal, "has_statements_after", but_for_erasures)


def names_known_too_early(patch: Patch) -> None:
    """What is known of a customer is looked up, and then the command is entered; others go on meanwhile."""

    def in_turn(engine: Engine, customer: LeafId, said_by: str) -> Erase:
        customers = set(engine.state.customers_of([erasing.NodeId(customer)]).values())
        if not customers:
            raise erasing.NotFound(erasing.Fault("customer", customer.hex(), "a customer that is known"))
        command = erasing.erasure_of(engine, customers, said_by)
        engine.acceptor.command(command)
        return command

    patch.setattr(erasing, "_enter", in_turn)


def erasures_not_looked_for(patch: Patch) -> None:
    """What is accepted after an erasure's command is looked at under what was known before it."""
    append = Journal.append

    def blind(self: Journal, batches: object, at: int, n: int, looked_at: int | None = None) -> int:
        return append(self, batches, at, n)  # type: ignore[arg-type]

    patch.setattr(Journal, "append", blind)


#: Each bug, and what the lives are about that are to find it.
ERASING_BUGS: tuple[tuple[Callable[[Patch], None], str], ...] = (
    (keys_before_the_command, "erase"),
    (names_after_the_keys, "erase"),
    (position_before_the_rewriting, "erase"),
    (receipt_before_the_logs, "erase"),
    (receipt_before_the_lake, "forget"),
    (receipt_before_the_keys, "erase"),
    (erasures_not_waited_for, "erase"),
    (names_known_too_early, "erase"),
    (erasures_not_looked_for, "erase"),
)
