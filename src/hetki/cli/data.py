"""Commands about data: `import`, `lake`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hetki.cli.opening import HERE, Folder, opened, over_journal, progress_bar
from hetki.dialogues.wording import counted
from hetki.engine.advance import advance
from hetki.engine.engine import Engine
from hetki.engine.importing import dry_run, import_file, load_map, render
from hetki.store.lake import refresh, remove_lake
from hetki.store.sharing import share
from hetki.store.system import SystemDisk

app = typer.Typer()
lake = typer.Typer(no_args_is_help=True, help="The columnar copy of everything, as Parquet.")
app.add_typer(lake, name="lake")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV, JSON Lines or Parquet.")],
    mapped: Annotated[Path, typer.Option("--map", help="The map from columns to events.")],
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Show the first events and every fault.")] = False,
    project: Folder = HERE,
) -> None:
    """Take in a file. What an interruption left undone is done by the same command, without doubles."""
    engine = opened(project)
    plan = load_map(SystemDisk(mapped.parent), mapped.name, engine.project)
    disk = SystemDisk(file.parent)
    with progress_bar() as bar:
        task = bar.add_task("rows", total=None)

        def progress(n_done: int, n_rows: int) -> None:
            bar.update(task, completed=n_done, total=n_rows)

        if is_dry:
            trial = dry_run(engine.project, disk, file.name, plan, engine.clock.now(), progress)
        else:
            done = import_file(engine, disk, file.name, plan, progress)
    if is_dry:
        print(render(trial))
        raise typer.Exit(1 if trial.faults else 0)
    skipped = f", {done.n_skipped:,} done before" if done.n_skipped else ""
    print(f"{done.n_rows:,} rows: {done.n_accepted:,} accepted, {done.n_rejected:,} rejected{skipped}")
    folded = advance(engine)
    print(f"{folded.n_entries:,} entries folded, {folded.n_caught:,} occurrences")


@lake.command("rebuild")
def rebuild_lake(project: Folder = HERE) -> None:
    """Delete the lake and make it again from the journal."""
    engine = opened(project)
    remove_lake(engine.disk)
    refresh_lake(engine)


@lake.command("refresh")
def refresh_only(project: Folder = HERE) -> None:
    """Take what is new into the lake. `hetki serve` does so by itself."""
    refresh_lake(opened(project))


@lake.command("share")
def share_lake(
    folder: Annotated[Path, typer.Argument(help="An empty or a new folder.")], project: Folder = HERE
) -> None:
    """Write what of the lake is no personal data into a folder, for those who have no right to such data."""
    engine = opened(project)
    refresh_lake(engine)
    shared = share(engine.disk, engine.project.catalogue, SystemDisk(folder))
    left_out = f"; {shared.n_left_out:,} left out, as the catalogue does not know them"
    print(
        f"{shared.n_events:,} events without personal data in {folder}{left_out if shared.n_left_out else ''}"
    )
    tell_restricted(shared.n_restricted)


def tell_restricted(n: int) -> None:
    """Say who is left out of figures, if anybody is."""
    if n:
        print(f"left out, as their processing is restricted: {counted(n, 'customer')}")


def refresh_lake(engine: Engine) -> None:
    """Bring the lake up to the fold, with a progress bar."""
    with over_journal(engine, "lake") as progress:
        mark = refresh(engine.disk, engine.journal, engine.state, progress)
    print(f"lake: {mark.n_events:,} events up to journal position {mark.position}")
