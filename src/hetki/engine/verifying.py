"""Verifying: that nothing which was once committed has changed or gone.

The journal is walked along its chain, decisions along theirs, and every receipt is held against its
signature. How far the chains go is then kept beside the secrets, so that what is cut off at an end is found
the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from hetki.engine.commands import Remove, commands_in
from hetki.engine.engine import Engine
from hetki.engine.receipts import Receipt, is_genuine, public_key
from hetki.errors import Fault, Invalid
from hetki.store import journal, ledger
from hetki.store.chain import Chained, chain_head, link_at, verify_chain
from hetki.store.erasing import BLANKED
from hetki.store.sqlite import sound

JOURNAL, DECISIONS = "journal", "decisions"
HINT = "restore it from a backup"

_counts = msgspec.json.Decoder(dict[str, int])


class Verified(msgspec.Struct, frozen=True):
    """What was walked and found whole: rows of the journal, decisions, links of erased ones, receipts."""

    n_rows: int
    n_decisions: int
    n_erased: int
    n_receipts: int


def verify(engine: Engine, progress: Callable[[int], None] = lambda position: None) -> Verified:
    """Walk journal, decisions and receipts. Raises `Invalid` at the first thing that is not what it was.

    Not found is: what was cut off at an end since the last walk or backup and was not folded; and whatever
    someone writes who has the key of receipts and makes the chains anew.
    """
    overwritten: dict[int, bytes] = {}
    # What was folded and kept before the walk; others may go on meanwhile.
    with sound(ledger.FILE):
        folded = engine.state.progress()
    heads = {name: engine.journal.secrets.head(name) for name in (JOURNAL, DECISIONS)}
    n_rows = engine.journal.verify(progress, overwritten.__setitem__)
    _accounted(engine, overwritten, folded.position if folded is not None else 0)
    if folded is not None and folded.position > n_rows:
        got, must = f"{n_rows} rows", f"at least {folded.position}, which were folded"
        raise Invalid(Fault(journal.FILE, got, must, HINT))
    _reaches(heads[JOURNAL], JOURNAL, journal.FILE, n_rows, engine.journal.chain_at)
    engine.db.execute("BEGIN")
    try:
        chained = verify_chain(engine.db)
        decided = partial(link_at, engine.db)
        _reaches(heads[DECISIONS], DECISIONS, ledger.FILE, chained.n_links, decided)
        n_receipts = _receipts(engine, chained)
    finally:
        engine.db.execute("ROLLBACK")
    keep_heads(engine)
    return Verified(n_rows, chained.n_links - chained.n_erased, chained.n_erased, n_receipts)


def _accounted(engine: Engine, overwritten: dict[int, bytes], folded: int) -> None:
    """Every row with overwritten entries has the body that the last command of the journal has left, of those
    that were folded before the walk, or one after it: that is carried out just then, or was cut short."""
    told: dict[int, set[str]] = {}
    if overwritten:
        with sound(journal.FILE):  # whoever has changed a row may have changed where its entries begin
            waiting = {each.erasure_id for each in _removals(engine, folded)}
            for command in _removals(engine):
                for position, left in command.rows:
                    before = told.get(position, set()) if command.erasure_id in waiting else set()
                    told[position] = {*before, left}
    for position, digest in overwritten.items():
        if digest.hex() not in told.get(position, ()):
            got, must = "entries that nobody has erased are overwritten", "what an erasure has left"
            raise Invalid(Fault(f"{journal.FILE}: row {position}", got, must, HINT))


def _removals(engine: Engine, after: int = 0) -> Iterator[Remove]:
    return (each for each in commands_in(engine.journal, after) if isinstance(each, Remove))


def keep_heads(engine: Engine) -> None:
    """Keep how far both chains go at present."""
    secrets = engine.journal.secrets
    secrets.keep_head(JOURNAL, *engine.journal.head())
    secrets.keep_head(DECISIONS, *chain_head(engine.db))


def _reaches(
    head: tuple[int, bytes] | None,
    name: str,
    file: str,
    n_links: int,
    link_of: Callable[[int], bytes | None],
) -> None:
    """Raise `Invalid` if a chain does not go on from where it was known to be."""
    if head is None or head[0] == 0:
        return
    number, chain = head
    if link_of(number) != chain:
        got = f"{name} up to {n_links}" if n_links < number else f"another {name} {number}"
        raise Invalid(Fault(file, got, f"what was there when {name} {number} was the last", HINT))


def _receipts(engine: Engine, chained: Chained) -> int:
    """Walk the erasures: each receipt is genuine and says what its row says, and together they account for
    every decision that is gone. Returns how many receipts there are."""
    public = public_key(engine.journal.secrets)
    n_receipts = n_erased = n_blanked = 0
    with sound(ledger.FILE):
        rows = engine.db.execute(
            "SELECT erasure_id, said_by, said_at, rewritten_at, finished_at, destroyed, receipt, signature"
            " FROM erasures"
        ).fetchall()
    for *told, destroyed, body, signature in rows:
        try:
            counts = _counts.decode(destroyed)
            if body is not None and not (is_genuine(public, body, signature) and _says(body, told, counts)):
                raise ValueError
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            got, must = "a receipt that nobody signed", "what was once signed"
            raise Invalid(Fault(f"{ledger.FILE}: erasure {told[0]}", got, must, HINT)) from error
        n_receipts += body is not None
        n_erased += counts.get("decisions", 0)
        n_blanked += counts.get(BLANKED, 0)
    if chained.n_erased > n_erased:
        got, must = f"{chained.n_erased} decisions gone", f"{n_erased}, as erasures account for"
        raise Invalid(Fault(ledger.FILE, got, must, HINT))
    if chained.n_blanked > n_blanked:
        got, must = f"{chained.n_blanked} decisions blanked", f"{n_blanked}, as receipts account for"
        raise Invalid(Fault(ledger.FILE, got, must, HINT))
    return n_receipts


def _says(body: bytes, told: list[object], counts: dict[str, int]) -> bool:
    """Whether a receipt says the same as the row that it lies in."""
    receipt = msgspec.json.decode(body, type=Receipt)
    said = [receipt.erasure_id, receipt.said_by, receipt.said_at, receipt.rewritten_at, receipt.finished_at]
    return said == told and receipt.destroyed == counts
