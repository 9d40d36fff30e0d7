"""Erase: one customer made unreadable in every byte, with a receipt (law 8).

In this order, so that a crash between any two steps is taken up again to the same end: the command is
durable in the journal; its secrets are taken away from every reader; projections and ledger are rewritten
where the fold meets the command; the secrets are overwritten; the lake is rewritten; the write-ahead logs are
emptied, and older copies of rows overwritten; the receipt is signed. What reads personal data never stands
before what is gone already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import msgspec

from hetki.engine.accept import take_secrets
from hetki.engine.advance import advance, catch_up, fold_once
from hetki.engine.commands import Erase, Expire, Remove
from hetki.engine.engine import DATABASES, Engine
from hetki.engine.receipts import Receipt, sign
from hetki.engine.unlinking import own_names
from hetki.errors import Conflict, Fault, NotFound, Unavailable
from hetki.events.event import LeafId
from hetki.events.wire import Rejected
from hetki.identity.identifier import LEAVES, NodeId
from hetki.identity.naming import is_told, texts_in
from hetki.store.lake import forget as forget_in_lake
from hetki.store.sqlite import alone, transaction, truncate_log
from hetki.store.staff import checked_name

#: Its lock: one process at a time finishes what erasures have left to do.
LOCK = "erasing.db"
LOCK_WAIT_S = 60.0
BUSY = Fault("erase", "an erasure by another process", "one at a time", "try again in a minute")
BEGUN = Fault(
    "erase", "an erasure that has begun", "finished", "hetki serve or hetki erase --finish does the rest"
)
#: How often an open reader is waited for before the logs are emptied, and for how long each time.
TRIES_MAX = 40
REST_S = 0.25

#: Rejected bodies that are read together.
BODIES_MAX = 200

Entered = TypeVar("Entered", Erase, Expire, Remove)

_rejected = msgspec.msgpack.Decoder(Rejected)
_counts = msgspec.json.Decoder(dict[str, int])


class Bodies(msgspec.Struct, frozen=True):
    """The rejected bodies that tell one of some values, each by its leaf, of those up to a position."""

    values: set[str] = set()
    until: int = 0
    leaves: set[bytes] = set()


def erase(engine: Engine, customer: LeafId, said_by: str) -> str:
    """Erase a customer; return the id of the erasure, whose receipt is in the ledger.

    Raises `Invalid` without a name of who asks, `NotFound` for a customer that is unknown, `Unavailable`
    where an open reader keeps the logs from being emptied, another process has the lake or an erasure, or the
    disk refuses: where the erasure has begun, a second fault says so, the rest is done later, and the receipt
    signed.
    """
    name = checked_name(said_by, "--by")
    advance(engine)
    command = _enter(engine, customer, name)
    with begun():
        take_secrets(engine.journal.secrets, command)
        catch_up(engine)
        finish(engine)
    return command.erasure_id


@contextmanager
def begun(left: Fault = BEGUN) -> Iterator[None]:
    """What is refused in here is so after an erasure has begun: `left` says what is to be done."""
    try:
        yield
    except (Conflict, Unavailable) as error:
        raise Unavailable(*error.faults, left) from error


def enter(engine: Engine, made: Callable[[], Entered], left: Fault = BEGUN) -> Entered:
    """Enter the command that is made once all is folded, durably; return it.

    Nobody folds or accepts meanwhile: no event comes between what is known then and the command, and what
    comes after it is looked at under it (`Acceptor.accept`). Whoever folds next meets it first, so that
    nobody is folded again without what it takes before that is told of. Once it is entered, what is refused
    says what is `left`.
    """
    has_begun = False
    try:
        with transaction(engine.db):
            with engine.journal.held():
                while fold_once(engine).is_behind:
                    pass
                command = made()
                engine.acceptor.command(command)
            has_begun = True  # what was folded may still be refused by the disk
    except Unavailable as error:
        if has_begun:
            raise Unavailable(*error.faults, left) from error
        raise
    return command


def _enter(engine: Engine, customer: LeafId, said_by: str) -> Erase:
    """Enter the command that erases a customer. Raises `NotFound`."""
    # while others accept: then only what has come since is left to be looked through
    bodies = _told_bodies(engine, own_names(engine, _nodes_of(engine, _found(engine, customer))))
    return enter(engine, lambda: erasure_of(engine, _found(engine, customer), said_by, bodies))


def _found(engine: Engine, customer: LeafId) -> set[LeafId]:
    """The customer that a leaf is of. Raises `NotFound`."""
    found = set(engine.state.customers_of([NodeId(customer)]).values())
    if not found:
        raise NotFound(Fault("customer", customer.hex(), "a customer that is known"))
    return found


def _nodes_of(engine: Engine, customers: set[LeafId]) -> set[NodeId]:
    return {node for mine in engine.state.members(customers).values() for node in mine}


def erasure_of(engine: Engine, customers: set[LeafId], said_by: str, bodies: Bodies | None = None) -> Erase:
    """The command that erases customers: what they own, and the names of theirs that nobody else tells, those
    included that join them with nothing. `bodies` are those that were looked through before."""
    nodes = _nodes_of(engine, customers)
    spaces = engine.state.known(nodes)
    leaves = {node for node, each in spaces.items() if each.node.namespace in LEAVES}
    names = own_names(engine, nodes)
    # later than what was erased before, whatever the clock says: who came back is erased again
    before = [each for node, each in engine.journal.secrets.erased().items() if node in nodes]
    times = [max(each.erased_at, each.back_at or 0) + 1 for each in before]
    return Erase(
        engine.chance.bytes(16).hex(),
        sorted(each.hex() for each in {*leaves, *_told_bodies(engine, names, bodies).leaves}),
        sorted(each.hex() for each in names),
        said_by,
        max([engine.clock.now(), *times]),
    )


def _told_bodies(engine: Engine, names: set[NodeId], before: Bodies | None = None) -> Bodies:
    """The rejected bodies that tell one of these names; each is its own leaf. Those that were looked through
    `before` for the same names are not again."""
    values = engine.state.values(names)
    if before is None or before.values != values:
        before = Bodies(values)
    query = "SELECT position, frame_offset FROM rejected WHERE position > ? ORDER BY 1, 2"
    places = engine.db.execute(query, (before.until,)).fetchall()
    found = set(before.leaves)
    for start in range(0, len(places), BODIES_MAX):
        for stored in engine.journal.entries(places[start : start + BODIES_MAX]):
            if stored.body is not None and is_told(texts_in(_rejected.decode(stored.body).body), values):
                found.add(stored.leaf)
    return Bodies(values, max((position for position, _ in places), default=before.until), found)


def finish(engine: Engine) -> int:
    """Do what is left of every erasure that was entered; return how many receipts were signed.

    A repeat does nothing. Raises `Unavailable` while a reader keeps a log from being emptied, `Conflict`
    while another process finishes, or writes the lake.
    """
    if not _unfinished(engine):
        return 0
    with alone(engine.disk, LOCK, BUSY, LOCK_WAIT_S):
        rows = _unfinished(engine)
        secrets = engine.journal.secrets
        erasures = [bytes.fromhex(erasure_id) for erasure_id, *_ in rows]
        for each in erasures:
            secrets.destroy(each)
        forget_in_lake(engine.disk, engine.journal, engine.state, erasures)
        empty_logs(engine)
        is_removed = any(map(secrets.has_removed, erasures))
        wipe(engine, DATABASES if is_removed else [name for name in DATABASES if name != "journal.db"])
        for erasure_id, said_by, said_at, rewritten_at, destroyed in rows:
            now = engine.clock.now()
            counts = _counts.decode(destroyed)
            receipt = Receipt(erasure_id, said_by, said_at, rewritten_at, now, counts, "")
            body, signature = sign(engine.journal.secrets, receipt)
            with transaction(engine.db):
                engine.db.execute(
                    "UPDATE erasures SET finished_at = ?, receipt = ?, signature = ? WHERE erasure_id = ?",
                    (now, body, signature, erasure_id),
                )
    return len(rows)


def _unfinished(engine: Engine) -> list[tuple[str, str, int, int, bytes]]:
    return engine.db.execute(
        "SELECT erasure_id, said_by, said_at, rewritten_at, destroyed FROM erasures"
        " WHERE finished_at IS NULL ORDER BY said_at, erasure_id"
    ).fetchall()


def empty_logs(engine: Engine) -> None:
    """Empty the write-ahead logs of state, secrets and journal. Raises `Unavailable` after `TRIES_MAX`."""
    logs: list[tuple[str, Callable[[], bool]]] = [
        ("state.db", partial(truncate_log, engine.db)),
        ("secrets.db", engine.journal.secrets.truncate_log),
        ("journal.db", engine.journal.truncate_log),
    ]
    for name, empty in logs:
        n_tries = 0
        while not empty():
            n_tries = _wait(engine, name, n_tries)


def wipe(engine: Engine, names: Iterable[str]) -> None:
    """Overwrite the older copies of rows that their deletion leaves in databases (`Disk.wipe`).

    The journal has some only where a row of it was changed. Raises `Unavailable` after `TRIES_MAX` without a
    step.
    """
    for name in names:
        page, n_tries = 1, 0
        while after := engine.disk.wipe(name, page):
            n_tries = _wait(engine, name, n_tries) if after == page else 0
            page = after


def _wait(engine: Engine, name: str, n_tries: int) -> int:
    """Wait for whoever reads a database; how often it was waited. Raises `Unavailable` after `TRIES_MAX`."""
    if n_tries == TRIES_MAX:
        raise Unavailable(Fault(name, "an open reader", "nobody who reads it for long"))
    engine.clock.sleep(REST_S)
    return n_tries + 1
