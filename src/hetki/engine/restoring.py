"""Restoring: a backup and the newest secrets into an empty folder, with every erasure since done again.

Erasures are not undone by it: what was erased after the backup was made has no secret in the newest copy of
secrets, so its rows cannot be opened, and its names are refused. The commands of those erasures are entered
into the journal that is brought back, so that it tells of them, too. Nobody can open the folder before all
of this is folded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing

import msgspec

from hetki.engine import manifests
from hetki.engine.advance import catch_up
from hetki.engine.backup import ABOUT, ABOUT_NOBODY, INSTEAD, LEFT
from hetki.engine.commands import Erase, Remove, Taking, commands_in
from hetki.engine.engine import DATABASES, RESTORING, Engine, open_engine
from hetki.engine.erase import empty_logs, finish, wipe
from hetki.engine.expiring import SAID_BY as BY_RETENTION
from hetki.engine.expiring import expiry_of
from hetki.engine.files import Kept
from hetki.engine.forgetting import take_away
from hetki.engine.manifests import Manifest, SecretsManifest
from hetki.engine.project import Project, load
from hetki.engine.rebuilding import fold_again
from hetki.engine.receipts import public_key
from hetki.engine.removing import removal_of
from hetki.errors import Conflict, Fault, Invalid, NotFound
from hetki.store.chain import keep_blanked, leave_links
from hetki.store.erasing import BLANKED, fill_used
from hetki.store.journal import Journal, Row, chained
from hetki.store.ledger import FILE, Ledger
from hetki.store.parts import read_parts
from hetki.store.ports import Chance, Clock, Disk
from hetki.store.sealing import Sealer
from hetki.store.secrets import Secrets
from hetki.store.sqlite import Connection, transaction
from hetki.store.staff import Staff
from hetki.store.state import Progress

#: Who is named in an erasure that only the secrets still told of.
SAID_BY = "an erasure after the backup"
Tell = Callable[[int], None]

_counts = msgspec.json.Decoder(dict[str, int])


class Restored(msgspec.Struct, frozen=True):
    """What came back: how far the journal, how many entries were folded, rows of the ledger by table, rows
    of it that nobody can read any more, erasures done again, messages that are held, and how many people may
    sign in."""

    backup_id: str
    made_at: int
    position: int
    n_entries: int
    n_rows: dict[str, int]
    n_erased_rows: int
    n_erasures: int
    n_held: int
    n_people: int


class Opened(msgspec.Struct, frozen=True):
    """A backup, the copy of secrets that opens it, and where they lie: a disk and the folder in it."""

    manifest: Manifest
    backup: Disk
    folder: str
    secrets: SecretsManifest
    copies: Disk


def choose(backup: Disk, folder: str, copies: Disk) -> Opened:
    """A backup, and the newest copy of secrets of the same project. Raises `NotFound` or `Invalid`."""
    manifest = manifests.read_manifest(backup, folder, Manifest)
    for name in manifests.whole(copies):
        found = manifests.read_manifest(copies, name, SecretsManifest)
        if found.public_key == manifest.public_key:
            if found.backup_id < manifest.backup_id or found.number < manifest.number:
                got, must = f"secrets of {found.backup_id}", f"those of {manifest.backup_id} or newer"
                raise Invalid(Fault("--secrets", got, must, "older ones do not open all of the backup"))
            return Opened(manifest, backup, folder, found, copies)
    must = "a copy of this project's secrets"
    raise NotFound(Fault("--secrets", "none", must, "hetki backup --secrets makes one with each backup"))


def look_over(disk: Disk, folder: str) -> tuple[int, int]:
    """Look over a backup or a copy of secrets: how many parts, how many bytes. Raises `Invalid` at the first
    byte that is not what was written; without secrets, so that nothing is read but ciphertext."""
    try:
        manifest = manifests.read_manifest(disk, folder, Manifest)
        parts = manifest.parts
        for _ in chained(_rows(disk, folder, manifest)):
            pass
    except Invalid as error:
        try:
            copy = manifests.read_manifest(disk, folder, SecretsManifest)
        except Invalid:
            raise error from None
        parts = copy.parts
    for _ in read_parts(disk, folder, parts):
        pass
    return len(parts), sum(part.n_bytes for part in parts)


def restore(
    opened: Opened,
    to: Disk,
    data: Disk,
    clock: Clock,
    chance: Chance,
    environment: Mapping[str, str],
    is_held: bool = True,
    progress: Tell = lambda position: None,
) -> Restored:
    """Bring a backup back: declarations into the empty folder `to`, everything else into `data` in it.

    `is_held`: what was waiting to be sent, and what occurs until now, is not sent, as it may have been since
    the backup. Raises `Conflict` if the folder is not empty, `Invalid` if a part is broken.
    """
    if to.names("**/*") or data.names("**/*"):
        raise Conflict(Fault("--to", "a folder with files in it", "an empty folder"))
    data.write(RESTORING, opened.manifest.backup_id.encode())
    secrets = Secrets(data, chance)
    secrets.bring_back(_copied(opened))
    if public_key(secrets) != opened.manifest.public_key:
        raise Invalid(Fault("--secrets", "keys of another project", "those that signed the backup"))
    Journal(data, chance, secrets).bring_back(_rows(opened.backup, opened.folder, opened.manifest))
    project, n_rows, n_erased_rows = _bring_ledger(opened, data, Sealer(secrets, chance))
    for name, text in project.texts.items():
        to.write(name, text)
    engine = open_engine(project, data, clock, chance, environment, is_restoring=True)
    n_entries = _fold(engine, opened.manifest, progress)
    n_erasures = _erase_again(engine)
    with transaction(engine.db):
        manifest, now = opened.manifest, clock.now()
        n_held = engine.ledger.hold(now, manifest.backup_id, manifest.made_at, is_held)
    catch_up(engine)
    _count_lost(engine)
    finish(engine)
    n_people = _bring_people(opened, data, chance)
    empty_logs(engine)  # receipts of before came back as finished, and what they tell of was in a log again
    wipe(engine, DATABASES)
    data.remove(RESTORING)
    return Restored(
        opened.manifest.backup_id,
        opened.manifest.made_at,
        opened.manifest.position,
        n_entries,
        n_rows,
        n_erased_rows,
        n_erasures,
        n_held,
        n_people,
    )


def _bring_people(opened: Opened, data: Disk, chance: Chance) -> int:
    """Put back who may sign in: as of the newest copy of secrets, so that whoever was removed before it was
    made stays away. Sessions and tokens are in no backup."""
    rows = list(read_parts(opened.copies, opened.secrets.backup_id, opened.secrets.staff))
    if not rows:
        return 0
    with closing(Staff(data, chance)) as staff:
        return staff.bring_back(rows)


def _count_lost(engine: Engine) -> None:
    """Have an erasure that is about to be signed count the decisions, and values in them, that did not come
    back because of it: it was entered before the backup and folded after it, and found them gone."""
    rows = engine.db.execute("SELECT erasure_id, destroyed, finished_at FROM erasures ORDER BY said_at, 1")
    found = [(erasure_id, _counts.decode(told), at is None) for erasure_id, told, at in rows]
    gone = engine.db.execute(
        "SELECT count(*) - count(decision_id), count(blanked) FROM chain"  # of an erased one none is kept
    ).fetchone()
    lost = {
        name: n - sum(counts.get(name, 0) for _, counts, _ in found)
        for name, n in zip(("decisions", BLANKED), gone, strict=True)
    }
    for erasure_id, counts, is_open in found:
        if is_open and "decisions" in counts:
            counts |= {name: counts.get(name, 0) + n for name, n in lost.items() if n > 0}
            with transaction(engine.db):
                row = msgspec.json.encode(counts), erasure_id
                engine.db.execute("UPDATE erasures SET destroyed = ? WHERE erasure_id = ?", row)
            return


def _copied(opened: Opened) -> Iterator[tuple[str, Sequence[object]]]:
    for table, *row in read_parts(opened.copies, opened.secrets.backup_id, opened.secrets.secrets):
        assert isinstance(table, str)
        yield table, row


def _rows(disk: Disk, folder: str, manifest: Manifest) -> Iterator[Row]:
    """The rows of the journal; they must end where the manifest says."""
    position, chain = 0, b""
    for row in read_parts(disk, folder, manifest.journal):
        one = msgspec.convert(row, Row)
        position, chain = one.position, one.chain
        yield one
    if position != manifest.position or (position and chain.hex() != manifest.chain):
        got, must = f"rows up to {position}", f"up to {manifest.position}, as the manifest says"
        raise Invalid(Fault("journal", got, must))


def open_rows(opened: Opened, sealer: Sealer) -> Iterator[tuple[str, list[object] | None]]:
    """The rows of the ledger with their tables; None for one about somebody who was erased since."""
    for table, owners, sealed in read_parts(opened.backup, opened.folder, opened.manifest.ledger):
        assert isinstance(table, str) and isinstance(owners, bytes) and isinstance(sealed, bytes)
        yield table, sealer.open(table, owners, sealed)


def _bring_ledger(opened: Opened, data: Disk, sealer: Sealer) -> tuple[Project, dict[str, int], int]:
    """Put the ledger back: the project in force, how many rows by table, and how many are gone."""
    db = data.connect(FILE)
    ledger = Ledger(db)
    n_rows: dict[str, int] = {}
    n_gone = 0
    left: list[list[object]] = []
    with transaction(db):
        for table, row in open_rows(opened, sealer):
            if table == INSTEAD:  # behind its decision, if that could be sealed
                if row is not None and not ledger.handled([str(row[0])]):
                    _insert(db, "missed", row)
                continue
            if table == LEFT:  # the same
                if row is not None and not ledger.handled([str(row[1])]):
                    _insert(db, "decisions", row)
                    left.append(row)
                continue
            n_gone += row is None
            if row is not None:
                n_rows[table] = n_rows.get(table, 0) + 1
                _insert(db, table, row)
        for receipt in read_parts(opened.copies, opened.secrets.backup_id, opened.secrets.receipts):
            _insert(db, "erasures", receipt)
        lost = db.execute(
            "SELECT decision_id FROM chain WHERE decision_id NOT IN (SELECT decision_id FROM decisions)"
        )
        leave_links(db, [row[0] for row in lost.fetchall()])
        for row in left:
            keep_blanked(db, row)
        fill_used(db)
        texts = ledger.declarations(opened.manifest.program)
    db.close()
    if texts is None:
        raise Invalid(Fault("ledger", "no declarations", f"those of {opened.manifest.program}"))
    return load(Kept(texts)), n_rows, n_gone


def _insert(db: Connection, table: str, row: Iterable[object]) -> None:
    assert table in ABOUT or table in ABOUT_NOBODY or table == "missed", table
    values = list(row)
    db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(values))})", values)


def _fold(engine: Engine, manifest: Manifest, progress: Tell) -> int:
    """Make the projections again, up to where they were."""
    if manifest.folded == 0:
        return 0
    policy = engine.project.identity.version
    until = Progress(manifest.folded, manifest.advance_to, engine.program.version, policy)
    with transaction(engine.db):
        return fold_again(engine, until, progress)


def _erase_again(engine: Engine) -> int:
    """Enter the erasures that the secrets tell of and the journal does not; return how many."""
    known: set[str] = set()
    for each in commands_in(engine.journal):
        if isinstance(each, Remove):  # what the next one leaves of a row is without what this one takes
            take_away(engine, each)
        if isinstance(each, Taking):
            known.add(each.erasure_id)
    n = 0
    position = engine.journal.head()[0]
    for removal, (removed_at, places) in engine.journal.secrets.removed_by(position).items():
        if removal.hex() not in known:
            command = removal_of(engine, removal.hex(), places, SAID_BY, removed_at)
            engine.acceptor.command(command)
            take_away(engine, command)
            n += 1
    for kept, expired_at in engine.journal.secrets.expired_all():
        expiry = expiry_of(engine, kept, BY_RETENTION, expired_at)
        if expiry.erasure_id not in known:
            engine.acceptor.command(expiry)
            n += 1
    for erasure, (erased_at, leaves, names) in engine.journal.secrets.erased_leaves().items():
        if erasure.hex() not in known:
            mine, told = sorted(each.hex() for each in leaves), sorted(each.hex() for each in names)
            engine.acceptor.command(Erase(erasure.hex(), mine, told, SAID_BY, erased_at))
            n += 1
    return n
