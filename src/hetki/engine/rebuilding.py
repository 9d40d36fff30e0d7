"""Rebuilding: every projection again from the journal, the ledger left as it is, and the two compared."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

import msgspec

from hetki.engine.advance import BATCH_MAX, fold_opened, open_batch
from hetki.engine.commands import Taking, commands_in
from hetki.engine.engine import Engine
from hetki.errors import Conflict, Fault
from hetki.store.sqlite import transaction
from hetki.store.state import Progress


class Rebuilt(msgspec.Struct, frozen=True):
    """What a rebuild came to: `before` and `after` are digests of all projections."""

    n_entries: int
    before: str
    after: str


def rebuild(engine: Engine, progress: Callable[[int], None] = lambda position: None) -> Rebuilt:
    """Delete every projection and fold the journal again to the same position and time.

    Nothing is decided or sent: deeds are recorded once. One transaction: a crash leaves the old ones.
    Raises `Conflict` if nothing was folded yet, the declarations have changed since, or an
    erasure waits to be folded.
    """
    with transaction(engine.db):
        was = engine.state.progress()
        if was is None:
            raise Conflict(Fault("state.db", "nothing folded", "an advanced state", "run hetki advance"))
        if was.program != engine.program.version:
            changed = "declarations that were changed since"
            raise Conflict(Fault("state.db", changed, "those it was folded under", "run hetki advance first"))
        if any(isinstance(each, Taking) for each in commands_in(engine.journal, was.position)):
            got = "an erasure that was entered and not folded"
            raise Conflict(Fault("state.db", got, "a state that knows of it", "run hetki advance first"))
        before = digest(engine)
        engine.state.clear()
        n_entries = fold_again(engine, was, progress)
        after = digest(engine)
    return Rebuilt(n_entries, before, after)


def fold_again(engine: Engine, until: Progress, progress: Callable[[int], None]) -> int:
    """Fold the journal into empty projections up to where they were, in the caller's transaction; return the
    number of entries. Nothing is decided."""
    position = n_entries = advance_to = 0
    while position < until.position:
        stored = [
            each for each in engine.journal.read(position, BATCH_MAX) if each.position <= until.position
        ]
        position = stored[-1].position
        batch = open_batch(engine, stored)
        is_last = position == until.position
        advance_to = until.advance_to if is_last else max(advance_to, batch.newest_at)
        fold_opened(engine, batch, advance_to)
        n_entries += len(stored)
        progress(position)
    engine.state.save_progress(msgspec.structs.replace(until, program=engine.program.version))
    return n_entries


def digest(engine: Engine) -> str:
    """One hash over every row of every projection, in order of their keys (32 hex characters)."""
    total = blake2b(digest_size=16)
    for row in engine.state.rows():
        total.update(repr(row).encode())
    return total.hexdigest()
