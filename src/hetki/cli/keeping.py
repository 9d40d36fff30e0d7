"""Commands for keeping: `verify`, `backup`, `restore`, `expire`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hetki.cli.opening import HERE, Folder, look, opened, over_journal, progress_bar
from hetki.dialogues.wording import counted, spoken_at
from hetki.engine.backup import backup as back_up
from hetki.engine.engine import Engine
from hetki.engine.expiring import SAID_BY, due
from hetki.engine.expiring import expire as expire_all
from hetki.engine.manifests import newest
from hetki.engine.restoring import choose, look_over
from hetki.engine.restoring import restore as bring_back
from hetki.engine.standing import data_of
from hetki.engine.verifying import verify as verify_engine
from hetki.engine.warming import open_in_force
from hetki.errors import Fault, Invalid
from hetki.events.event import utc
from hetki.store.system import SystemChance, SystemClock, SystemDisk, environment

app = typer.Typer()
To = Annotated[Path, typer.Option("--to", help="The folder of backups.")]
SecretsFolder = Annotated[
    Path, typer.Option("--secrets", help="The folder of copies of secrets: apart from the backups.")
]
Backup = Annotated[Path, typer.Argument(help="A backup, or the folder of backups: then the newest.")]


@app.command()
def verify(
    project: Folder = HERE,
    of_backup: Annotated[
        Path | None, typer.Option("--backup", help="Look over a backup or a copy of secrets instead.")
    ] = None,
) -> None:
    """Walk journal, decisions and receipts along their chains: any changed byte is found."""
    if of_backup is not None:
        disk, folder = _found(of_backup)
        n_parts, n_bytes = look_over(disk, folder)
        print(f"{folder}: {counted(n_parts, 'part')} with {n_bytes:,} bytes, unbroken")
        return
    engine = opened(project)
    with over_journal(engine, "verify") as progress:
        found = verify_engine(engine, progress)
    print(
        f"{found.n_rows} rows, {counted(found.n_decisions, 'decision')} ({found.n_erased} erased),"
        f" {counted(found.n_receipts, 'receipt')}: unbroken"
    )


@app.command()
def backup(to: To, secrets: SecretsFolder, project: Folder = HERE) -> None:
    """Back up journal and ledger, and the secrets apart from them; it may run beside `hetki serve`."""
    there, apart = to.resolve(), secrets.resolve()
    if there.is_relative_to(apart) or apart.is_relative_to(there):
        got, must = "a folder in or around --to", "one apart from it: together they can be read"
        raise Invalid(Fault("--secrets", got, must))
    done = back_up(_in_force(project), SystemDisk(to), SystemDisk(secrets))
    print(f"{done.backup}: {done.position} rows of the journal, {done.n_bytes:,} bytes")
    if done.n_thrown_away:
        print(f"older copies of secrets thrown away: {done.n_thrown_away}")


@app.command()
def restore(
    of: Backup,
    secrets: SecretsFolder,
    to: Annotated[Path, typer.Option("--to", help="A new folder for the project.")],
    resend: Annotated[
        bool, typer.Option("--resend", help="Send what was waiting, although it may have been sent since.")
    ] = False,
) -> None:
    """Bring a backup back into an empty folder; what was erased since is erased again."""
    disk, folder = _found(of)
    chosen = choose(disk, folder, SystemDisk(secrets))
    ports = SystemClock(), SystemChance(), environment()
    with progress_bar() as bar:
        task = bar.add_task("restore", total=chosen.manifest.folded)
        done = bring_back(
            chosen,
            SystemDisk(to),
            SystemDisk(to / chosen.manifest.data),
            *ports,
            not resend,
            lambda position: bar.update(task, completed=position),
        )
    print(
        f"{done.backup_id}: as of {utc(done.made_at):%Y-%m-%d %H:%M:%S}Z, {done.position} rows of the journal"
    )
    print("ledger: " + ", ".join(f"{n:,} {table}" for table, n in done.n_rows.items()))
    if done.n_erasures:
        rows = counted(done.n_erased_rows, "row")
        print(f"{counted(done.n_erasures, 'erasure')} done again; {rows} can be read no more")
    if done.n_held:
        print(f"{counted(done.n_held, 'message')} cancelled, which may have been sent since")
    if done.n_people:
        when = f"{utc(chosen.secrets.made_at):%Y-%m-%d %H:%M:%S}Z"
        print(f"{counted(done.n_people, 'account')} of the console, as of {when}: see hetki staff")
    print(f"Next: hetki serve -C {to}")


@app.command()
def expire(
    by: Annotated[str, typer.Option("--by", help="Who asks for it; it is kept in the receipts.")] = SAID_BY,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is over.")] = False,
    project: Folder = HERE,
) -> None:
    """Make unreadable for ever what is past its retention; `hetki serve` does so by itself."""
    engine = opened(project)
    found = due(engine)
    if not dry_run:
        expire_all(engine, by)
    zone = engine.project.settings.time_zone
    for each in found:
        kept = each.kept
        print(
            f"{kept.source}, {kept.retention}: {kept.month}, {counted(each.n_entries, 'entry')},"
            f" over since {spoken_at(each.over_at, zone)}"
        )
    if not found:
        print("nothing is over")
    elif dry_run:
        print("nothing was done")


def _in_force(project: Path) -> Engine:
    """The engine under the declarations in force: a backup does not wait for faults in a folder."""
    look(project)
    shelf = SystemDisk(project)
    data = SystemDisk(project / data_of(shelf))
    return open_in_force(shelf, data, SystemClock(), SystemChance(), environment())


def _found(path: Path) -> tuple[SystemDisk, str]:
    """A backup by its own folder, or the newest whole one in a folder of backups."""
    if (path / "manifest.json").is_file():
        return SystemDisk(path.resolve().parent), path.resolve().name
    disk = SystemDisk(path)
    return disk, newest(disk, str(path))
