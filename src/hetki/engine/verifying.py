"""Verifying: that nothing which was once committed has changed or gone.

The journal is walked along its chain, decisions along theirs, and every receipt is held against its
signature. How far the chains go is then kept beside the secrets, so that what is cut off at an end is found
the next time.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from hetki.engine.engine import Engine
from hetki.engine.receipts import Listed, listed
from hetki.errors import Fault, Invalid
from hetki.store import journal, ledger
from hetki.store.chain import Chained, chain_head, link_at, verify_chain
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
    n_rows = engine.journal.verify(progress)
    with sound(ledger.FILE):
        folded = engine.state.progress()
    if folded is not None and folded.position > n_rows:
        got, must = f"{n_rows} rows", f"at least {folded.position}, which were folded"
        raise Invalid(Fault(journal.FILE, got, must, HINT))
    _reaches(engine, JOURNAL, journal.FILE, n_rows, engine.journal.chain_at)
    engine.db.execute("BEGIN")
    try:
        chained = verify_chain(engine.db)
        _reaches(engine, DECISIONS, ledger.FILE, chained.n_links, lambda number: link_at(engine.db, number))
        receipts = _receipts(engine, chained)
    finally:
        engine.db.execute("ROLLBACK")
    keep_heads(engine)
    return Verified(n_rows, chained.n_links - chained.n_erased, chained.n_erased, len(receipts))


def keep_heads(engine: Engine) -> None:
    """Keep how far both chains go at present."""
    secrets = engine.journal.secrets
    secrets.keep_head(JOURNAL, *engine.journal.head())
    secrets.keep_head(DECISIONS, *chain_head(engine.db))


def _reaches(
    engine: Engine, name: str, file: str, n_links: int, link_of: Callable[[int], bytes | None]
) -> None:
    """Raise `Invalid` if a chain does not go on from where it was known to be."""
    head = engine.journal.secrets.head(name)
    if head is None or head[0] == 0:
        return
    number, chain = head
    if link_of(number) != chain:
        got = f"{name} up to {n_links}" if n_links < number else f"another {name} {number}"
        raise Invalid(Fault(file, got, f"what was there when {name} {number} was the last", HINT))


def _receipts(engine: Engine, chained: Chained) -> list[Listed]:
    """Every erasure, each receipt genuine; they account for every decision that is gone."""
    n_erased = 0
    with sound(ledger.FILE):
        found = listed(engine.journal.secrets, engine.db)
        counts = dict(engine.db.execute("SELECT erasure_id, destroyed FROM erasures").fetchall())
    for each in found:
        destroyed, receipt = _counts.decode(counts[each.erasure_id]), each.receipt
        n_erased += destroyed.get("decisions", 0)
        told = (each.erasure_id, each.said_by, each.said_at, destroyed)
        if receipt is not None and (
            not each.is_genuine
            or told != (receipt.erasure_id, receipt.said_by, receipt.said_at, receipt.destroyed)
        ):
            got, must = "a signature that is not over these words", "what was once signed"
            raise Invalid(Fault(f"{ledger.FILE}: erasure {each.erasure_id}", got, must, HINT))
    if chained.n_erased > n_erased:
        got, must = f"{chained.n_erased} decisions gone", f"{n_erased}, as erasures account for"
        raise Invalid(Fault(ledger.FILE, got, must, HINT))
    return found
