"""Planted bugs of backups: each changes their order in the real code, and must be caught (`planted.py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from hetki.engine import backup as backing
from hetki.engine import manifests, restoring
from hetki.engine.engine import RESTORING, Engine
from hetki.engine.manifests import Manifest, SecretsManifest
from hetki.store import parts
from hetki.store.journal import Journal, Row
from hetki.store.ledger import Ledger
from hetki.store.ports import Disk
from hetki.store.sealing import KEY
from hetki.store.secrets import Secrets

Patch = pytest.MonkeyPatch


def journal_before_the_ledger(patch: Patch) -> None:
    """The journal is copied first, and then the ledger, which may have gone on."""
    real = backing._journal_and_ledger

    def journal_first(engine: Engine, to: Disk, name: str, now: int) -> Manifest:
        head = engine.journal.head()
        rows = list(engine.journal.rows(0, head[0]))
        to.write(f"{name}/copied", b"")  # while it is written, others go on
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Journal, "head", lambda self: head)
            inner.setattr(Journal, "rows", lambda self, after, until: iter(rows))
            return real(engine, to, name, now)

    patch.setattr(backing, "_journal_and_ledger", journal_first)


def secrets_before_the_journal(patch: Patch) -> None:
    """The secrets are copied first, and then the journal, which others may have sealed more into."""
    real, copied, early = backing._journal_and_ledger, Secrets.copied, list[tuple[object, ...]]()

    def secrets_first(engine: Engine, to: Disk, name: str, now: int) -> Manifest:
        engine.journal.secrets.key(KEY)
        early[:] = copied(engine.journal.secrets)
        to.write(f"{name}/copied", b"")
        return real(engine, to, name, now)

    patch.setattr(backing, "_journal_and_ledger", secrets_first)
    patch.setattr(Secrets, "copied", lambda self: iter(early))


def manifest_before_the_parts(patch: Patch) -> None:
    """The manifest is written, and then the parts that it tells of."""
    write, finish, late = parts._write, manifests.finish, list[tuple[Disk, str, bytes]]()

    class Later:
        def __init__(self, disk: Disk) -> None:
            self.disk = disk

        def write(self, name: str, data: bytes) -> None:
            late.append((self.disk, name, data))

    def write_later(disk: Disk, folder: str, number: int, rows: list[bytes]) -> parts.Part:
        return write(Later(disk), folder, number, rows)  # type: ignore[arg-type]

    def finish_first(disk: Disk, folder: str, manifest: Manifest | SecretsManifest, secrets: Secrets) -> None:
        finish(disk, folder, manifest, secrets)
        while late:
            where, name, data = late.pop(0)
            where.write(name, data)

    patch.setattr(parts, "_write", write_later)
    patch.setattr(manifests, "finish", finish_first)


def erasures_not_done_again(patch: Patch) -> None:
    """What was erased after the backup is not entered into the journal that is brought back."""
    patch.setattr(restoring, "_erase_again", lambda engine: 0)


def served_before_the_erasures(patch: Patch) -> None:
    """The folder can be opened, and then the erasures since are done again."""
    again = restoring._erase_again

    def opened_first(engine: Engine) -> int:
        engine.disk.remove(RESTORING)
        return again(engine)

    patch.setattr(restoring, "_erase_again", opened_first)


def secrets_of_that_day(patch: Patch) -> None:
    """A backup is restored with the secrets that were copied with it, and these are never thrown away."""

    def its_own(backup: Disk, folder: str, copies: Disk) -> restoring.Opened:
        manifest = manifests.read_manifest(backup, folder, Manifest)
        secrets = manifests.read_manifest(copies, folder, SecretsManifest)
        return restoring.Opened(manifest, backup, folder, secrets, copies)

    patch.setattr(backing, "_throw_away", lambda disk, newest: 0)
    patch.setattr(restoring, "choose", its_own)


def waiting_is_sent(patch: Patch) -> None:
    """What was waiting when the backup was made is sent, although it may have been sent since."""
    patch.setattr(Ledger, "hold", lambda self, at, backup_id, made_at, is_held: 0)


def last_rows_left_out(patch: Patch) -> None:
    """A backup says that it holds the whole journal, and its last row is missing."""
    rows = Journal.rows

    def but_one(self: Journal, after: int, until: int) -> Iterator[Row]:
        found: Sequence[Row] = list(rows(self, after, until))
        return iter(found[:-1])

    patch.setattr(Journal, "rows", but_one)


#: Each bug, and what the lives are about that are to find it.
BACKUP_BUGS: tuple[tuple[Callable[[Patch], None], str], ...] = (
    (journal_before_the_ledger, "backup"),
    (secrets_before_the_journal, "backup"),
    (manifest_before_the_parts, "backup"),
    (last_rows_left_out, "backup"),
    (erasures_not_done_again, "restore"),
    (served_before_the_erasures, "restore"),
    (secrets_of_that_day, "restore"),
    (waiting_is_sent, "restore"),
)
