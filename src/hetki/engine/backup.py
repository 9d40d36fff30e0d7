"""Backup: journal and ledger into one folder, secrets and accounts into another, while it is served (law 8).

The journal goes as it lies, encrypted; each row of the ledger is sealed under the secrets of whom it is
about (`hetki.store.sealing`). Projections and the lake are left out: they are made again. The ledger is read
as of one instant, then the journal, then the secrets, so that a restored project is one that was stopped at
that instant: nothing in it points to what is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import msgspec

from hetki import __version__
from hetki.decisions.question import Decision, blanked
from hetki.engine import manifests
from hetki.engine.engine import Engine
from hetki.engine.manifests import Manifest, SecretsManifest
from hetki.engine.receipts import public_key
from hetki.engine.verifying import keep_heads
from hetki.engine.warming import keep
from hetki.errors import Fault, HetkiError
from hetki.events.event import LeafId
from hetki.identity.account import AccountId
from hetki.identity.identifier import LEAVES, NodeId
from hetki.settings import DAY
from hetki.store.accounts import leaves_of
from hetki.store.chain import COLUMNS, chain_head, left_of
from hetki.store.erasing import data_of
from hetki.store.parts import write_parts
from hetki.store.ports import Disk
from hetki.store.sealing import Sealer
from hetki.store.sqlite import alone
from hetki.store.staff import Staff, has_staff
from hetki.store.state import Progress

#: Its lock: one backup of a project at a time.
LOCK = "backup.db"
BUSY = Fault("backup", "another one under way", "one at a time", "try again when it is done")
#: Copies of secrets are kept no longer than this.
SECRETS_DAYS = 7
#: Rows of the ledger that are sealed together.
ROWS_MAX = 500

_BESIDE = " LEFT JOIN decisions d ON d."
#: Tables about customers: the rows, and behind their own columns whom they are about: ids, and the record of
#: the decision, whose data they hold.
ABOUT = {
    "decisions": "SELECT t.*, t.customer, t.customer, t.record FROM decisions t",
    "missed": "SELECT t.*, t.customer, t.customer, NULL FROM missed t",
    "assignments": "SELECT t.*, t.customer, t.customer, NULL FROM assignments t",
    "revisions": "SELECT t.*, t.customer, d.customer, d.record FROM revisions t"
    f"{_BESIDE}occurrence_id = t.occurrence_id",
    "outbox": "SELECT t.*, t.customer, d.customer, d.record FROM outbox t"
    f"{_BESIDE}decision_id = t.decision_id",
    "attempts": "SELECT t.*, o.customer, d.customer, d.record FROM attempts t"
    f" LEFT JOIN outbox o ON o.message_id = t.message_id{_BESIDE}decision_id = o.decision_id",
}
#: Tables about nobody.
ABOUT_NOBODY = "breakers advances declarations erasures chain restored".split()
#: A row of `missed` that stands for the decision before it, if only that can no longer be read.
INSTEAD = "missed instead"

#: A decision's row without the values in it, if it can no longer be read with them.
LEFT = "decisions left"
#: A row that more leaves than these may have told of is kept without what they told.
TELLERS_MAX = 2_000

Sealed = tuple[str, bytes, bytes]


class _Looked(msgspec.Struct, frozen=True):
    account: str
    context: dict[str, object]


class _Recorded(msgspec.Struct, frozen=True):
    question: _Looked


_recorded = msgspec.json.Decoder(_Recorded)
_decisions = msgspec.json.Decoder(Decision)


class BackedUp(msgspec.Struct, frozen=True):
    """The names of the two new folders, how far the journal had come, how much was written, and how many
    older copies of secrets were thrown away."""

    backup: str
    secrets: str
    position: int
    n_bytes: int
    n_thrown_away: int


def backup(engine: Engine, to: Disk, secrets_to: Disk) -> BackedUp:
    """Write a backup to one disk and a copy of the secrets to another; both are whole, or not there.

    Copies of secrets that are older than `SECRETS_DAYS`, or from before an erasure, are then thrown away.
    Raises `Conflict` while another backup runs, `Unavailable` if a disk is full or failing.
    """
    with alone(engine.disk, LOCK, BUSY):
        keep(engine)
        secrets, now = engine.journal.secrets, engine.clock.now()
        name = manifests.stamp(now, engine.chance)
        manifests.begin(to, name, secrets)
        manifests.begin(secrets_to, name, secrets)
        manifest = _journal_and_ledger(engine, to, name, now)
        manifests.finish(to, name, manifest, secrets)
        copy = _secrets(engine, secrets_to, name, now)
        manifests.finish(secrets_to, name, copy, secrets)
        n_thrown_away = _throw_away(secrets_to, copy)
        keep_heads(engine)
        n_bytes = sum(part.n_bytes for part in (*manifest.parts, *copy.parts))
    return BackedUp(name, name, manifest.position, n_bytes, n_thrown_away)


def _journal_and_ledger(engine: Engine, to: Disk, name: str, now: int) -> Manifest:
    number = engine.journal.secrets.number()
    engine.db.execute("BEGIN")
    try:
        progress = engine.state.progress() or Progress(0, 0, engine.program.version, "")
        n_links, link = chain_head(engine.db)
        ledger = write_parts(to, f"{name}/ledger", sealed_rows(engine))
    finally:
        engine.db.execute("ROLLBACK")
    position, chain = engine.journal.head()
    journal = write_parts(to, f"{name}/journal", engine.journal.rows(0, position))
    return Manifest(
        backup_id=name,
        made_at=now,
        hetki=__version__,
        name=engine.project.settings.name,
        data=engine.project.settings.data,
        position=position,
        chain=chain.hex(),
        folded=progress.position,
        advance_to=progress.advance_to,
        program=progress.program,
        decisions=n_links,
        decided=link.hex(),
        number=number,
        journal=journal,
        ledger=ledger,
        public_key=public_key(engine.journal.secrets),
    )


def _secrets(engine: Engine, to: Disk, name: str, now: int) -> SecretsManifest:
    secrets = engine.journal.secrets
    rows = engine.db.execute("SELECT * FROM erasures WHERE receipt IS NOT NULL ORDER BY erasure_id")
    receipts = write_parts(to, f"{name}/receipts", rows)
    number = secrets.number()  # after the receipts: what one of them tells of is destroyed in the copy, too
    copied = write_parts(to, f"{name}/secrets", secrets.copied())
    staff = write_parts(to, f"{name}/staff", _people(engine))
    return SecretsManifest(
        backup_id=name,
        made_at=now,
        number=number,
        secrets=copied,
        receipts=receipts,
        staff=staff,
        public_key=public_key(secrets),
    )


def _people(engine: Engine) -> list[tuple[object, ...]]:
    if not has_staff(engine.disk):
        return []
    with closing(Staff(engine.disk, engine.chance)) as staff:
        return staff.copied()


def _throw_away(disk: Disk, newest: SecretsManifest) -> int:
    """Delete older copies of this project's secrets: those past their days, and those from before an
    erasure, which still hold what it has destroyed."""
    n = 0
    for folder in manifests.whole(disk):
        try:
            manifest = manifests.read_manifest(disk, folder, SecretsManifest)
        except HetkiError:  # not ours to judge, nor to delete
            continue
        is_ours = manifest.public_key == newest.public_key and manifest.backup_id != newest.backup_id
        is_old = newest.made_at - manifest.made_at > SECRETS_DAYS * DAY
        if is_ours and (is_old or manifest.number < newest.number):
            disk.remove(folder)
            n += 1
    return n


def sealed_rows(engine: Engine) -> Iterator[Sealed]:
    """Every row of the ledger, sealed under those whom it is about. Rows about who was erased just now and
    is not folded yet are left out."""
    sealer = Sealer(engine.journal.secrets, engine.chance)
    for table, query in ABOUT.items():
        cursor = engine.db.execute(query)
        while rows := cursor.fetchmany(ROWS_MAX):
            owners = _owners(engine, [row[-3:] for row in rows])
            for row, (mine, tellers) in zip(rows, owners, strict=True):
                found = [(table, mine | tellers, row[:-3])] if len(tellers) <= TELLERS_MAX else []
                if table == "decisions":
                    found += _instead(row[:-3], mine, tellers)
                for each in found:
                    sealed = sealer.seal(*each)
                    if sealed is not None:
                        yield sealed
    for table in ABOUT_NOBODY:
        for row in engine.db.execute(f"SELECT * FROM {table}"):
            sealed = sealer.seal(table, (), row)
            assert sealed is not None, "the project's own key is always there"
            yield sealed


def _instead(
    row: tuple[object, ...], mine: set[LeafId], tellers: set[LeafId]
) -> Iterator[tuple[str, set[LeafId], tuple[object, ...]]]:
    """What stands for a decision's row where some of whom it is about have been erased since."""
    columns = dict(zip(COLUMNS.split(", "), row, strict=True))
    customer, occurred_at, record = columns["customer"], columns["occurred_at"], columns["record"]
    assert isinstance(record, bytes)
    if tellers - mine:
        yield LEFT, mine, left_of(row, msgspec.json.encode(blanked(_decisions.decode(record))))
    if mine - {customer}:
        about = (columns["occurrence_id"], columns["moment"], customer)
        yield INSTEAD, mine & {customer}, (*about, occurred_at, occurred_at, columns["decided_at"])


def _owners(
    engine: Engine, rows: list[tuple[LeafId | None, LeafId | None, bytes | None]]
) -> list[tuple[set[LeafId], set[LeafId]]]:
    """The leaves that each row is about, and those that may have told what it holds of an account: any of the
    account's. A leaf that was only named so far is given a secret, so that it can be destroyed; what is no
    leaf, as an account, owns nothing."""
    found: list[tuple[set[LeafId], set[LeafId]]] = []
    for customer, decided_for, record in rows:
        used = [LeafId(bytes.fromhex(each)) for each in data_of(record)] if record else []
        found.append(({each for each in (customer, decided_for, *used) if each}, _tellers(engine, record)))
    named = {leaf for mine, tellers in found for leaf in (*mine, *tellers)}
    secrets = engine.journal.secrets
    secrets.load(named)
    without = {leaf for leaf in named if secrets.leaf(leaf) is None and not secrets.is_erased(leaf)}
    known = engine.state.known(NodeId(leaf) for leaf in without)
    only_named = {
        leaf for leaf in without if NodeId(leaf) in known and known[NodeId(leaf)].node.namespace in LEAVES
    }
    secrets.ensure(only_named, [], engine.clock.now())
    nobody = without - only_named
    return [(mine - nobody, tellers - nobody) for mine, tellers in found]


def _tellers(engine: Engine, record: bytes | None) -> set[LeafId]:
    """Whose word a decision may hold that looked at what is known of an account: nobody can say whose."""
    looked = _recorded.decode(record).question if record else None
    if looked is None or not looked.account or not looked.context:
        return set()
    return leaves_of(engine.db, AccountId(bytes.fromhex(looked.account)))
