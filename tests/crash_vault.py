"""Backups of a life on the faulty disk: made at any time, struck at any point, and restored (`crashing.py`).

Here it is kept what was promised when a backup was begun. A restore takes the place of a folder that is lost:
whatever came after the backup is gone, but for the erasures that the newest copy of secrets tells of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crash_scene import CANARIES, kept
from faults import Crashed, SharedDisk

from hetki.engine import restoring
from hetki.engine.backup import backup
from hetki.engine.engine import RESTORING, Engine
from hetki.engine.manifests import whole
from hetki.errors import HetkiError, Unavailable
from hetki.simulation.world import MemoryDisk

if TYPE_CHECKING:
    from crashing import Life


@dataclass(frozen=True)
class Promised:
    """What was acknowledged and erased before a backup was begun."""

    acknowledged: frozenset[str]
    erased: frozenset[str]


@dataclass
class Vault:
    """Where the backups and the copies of secrets of a life lie, and what is known of each."""

    backups: SharedDisk = field(default_factory=SharedDisk)
    copies: SharedDisk = field(default_factory=SharedDisk)
    promised: dict[str, Promised] = field(default_factory=dict)
    #: Those that were told to have been made.
    done: set[str] = field(default_factory=set)
    #: Messages of which nothing need tell that they were sent, as that was after the backup.
    forgotten: set[str] = field(default_factory=set)
    #: Messages that were sent before a restore which holds them, and when that was.
    held: dict[str, int] = field(default_factory=dict)
    n_restored: int = 0


def back_up(life: Life, engine: Engine) -> None:
    """Make a backup. One that is whole is as good as one of which it was said that it was made."""
    vault, process = life.vault, life.running
    life.clock.sleep(1)
    promised = Promised(frozenset(life.acknowledged), frozenset(life.erased))
    try:
        done = backup(
            engine, process.beside(vault.backups, "backups"), process.beside(vault.copies, "copies")
        )
    finally:
        for name in {*whole(vault.backups), *whole(vault.copies)} - vault.promised.keys():
            vault.promised[name] = promised
    vault.done.add(done.backup)
    for disk in (vault.backups, vault.copies):
        restoring.look_over(disk, done.backup)
        for name in disk.names("**/*"):
            data = disk.read(name)
            assert not [each for each in CANARIES if each.encode() in data], "a backup tells somebody's name"


def bring_back(life: Life) -> None:
    """The folder is lost. A backup, perhaps an older one, is restored with the newest copy of the secrets; by
    default what may have been sent since is held."""
    vault = life.vault
    names = whole(vault.backups)
    if not names:
        return
    name, is_held = life.dice.choice(names), life.dice.random() < 0.7
    try:
        opened = restoring.choose(vault.backups, name, vault.copies)
    except HetkiError:
        assert name not in vault.done, "a backup that was made cannot be restored"
        return
    for number in (0, 1):
        life.kill(number)
    folder = restored(life, opened, is_held)
    take_over(life, folder, vault.promised[name], vault.promised[whole(vault.copies)[0]], is_held)
    if not is_held:  # a backup from before an earlier restore knows nothing of what that one held
        made_at = opened.manifest.made_at
        vault.held = {message_id: at for message_id, at in vault.held.items() if at < made_at}
    life.folder = kept(opened.manifest.program) or life.folder
    vault.n_restored += 1


def restored(life: Life, opened: restoring.Opened, is_held: bool) -> SharedDisk:
    """A folder into which a backup was restored. One that was begun and can be opened is as good as one of
    which it was said that it was restored; any other is deleted, and it is begun anew."""
    while True:
        folder = SharedDisk()
        if opened.secrets.number:  # somebody was erased
            folder.keep_logs()
        process = life.start(folder)
        try:
            restoring.restore(opened, MemoryDisk(), process, life.clock, life.chance, {}, is_held)
            return folder
        except (Crashed, Unavailable):
            if folder.names("*.db") and not folder.names(RESTORING):
                return folder
        finally:
            process.end()


def take_over(life: Life, folder: SharedDisk, then: Promised, newest: Promised, is_held: bool) -> None:
    """The life goes on in a restored folder: what was promised later is no more, but clients may say again
    what they have said since."""
    vault = life.vault
    life.take(folder)
    for message_id in sorted(life.acknowledged - then.acknowledged):
        if life.dice.random() < 0.5:
            life.unanswered.append([life.told[message_id]])
    life.acknowledged = set(then.acknowledged)
    life.erased = set(newest.erased)
    told = "SELECT message_id FROM outbox WHERE ? OR status = 'sent'"  # what was held says so
    vault.forgotten |= life.receiver.effects.keys() - {row[0] for row in life.look(told, is_held)}
    if is_held:
        vault.held |= dict.fromkeys(life.receiver.effects, life.clock.now())
