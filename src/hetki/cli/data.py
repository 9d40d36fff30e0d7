"""Commands about data: `import`, `backtest`, `lake`."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TaskID

from hetki.cli.opening import HERE, Folder, look, opened, over_journal, progress_bar
from hetki.engine.advance import advance
from hetki.engine.backtest import Span
from hetki.engine.backtest import backtest as run_backtest
from hetki.engine.backtest import render as render_backtest
from hetki.engine.comparing import compare
from hetki.engine.comparing import render as render_compared
from hetki.engine.engine import Engine, compile_program
from hetki.engine.importing import dry_run, import_file, load_map, render
from hetki.engine.project import load
from hetki.events.event import instant
from hetki.store.lake import open_lake, refresh, remove_lake
from hetki.store.system import SystemDisk

app = typer.Typer()
lake = typer.Typer(no_args_is_help=True, help="The columnar copy of everything, as Parquet.")
app.add_typer(lake, name="lake")
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="A day, in UTC.")]


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


@app.command()
def backtest(
    moments: Annotated[list[str] | None, typer.Argument(help="Moments by name; none: all.")] = None,
    since: Day = None,
    until: Day = None,
    shown: Annotated[
        int, typer.Option("--for", min=0, help="How many customers to show for each moment.")
    ] = 5,
    against: Annotated[
        Path | None, typer.Option(help="The folder of another version of the project to compare with.")
    ] = None,
    project: Folder = HERE,
) -> None:
    """How often moments would have fired on what is in the lake, when, and for whom."""
    engine = opened(project)
    other = None
    if against is not None:
        look(against)
        other = compile_program(load(SystemDisk(against)))
    refresh_lake(engine)
    progress = engine.state.progress()
    advance_to = progress.advance_to if progress else engine.clock.now()
    span = None
    if since is not None or until is not None:
        first = instant(since.replace(tzinfo=UTC)) if since else 0
        span = Span(first, instant(until.replace(tzinfo=UTC)) if until else advance_to + 1)
    with progress_bar() as bar:
        task = bar.add_task("customers", total=engine.state.counts()["customers"])
        common = (advance_to, moments or (), span, partial(_told, bar, task))
        tables = open_lake(engine.disk)
        if other is None:
            text = render_backtest(run_backtest(tables, engine.program, *common), shown)
        else:
            text = render_compared(compare(tables, engine.program, other, *common), shown)
    print(text)


def _told(bar: Progress, task: TaskID, n_customers: int) -> None:
    bar.update(task, completed=n_customers)


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


def refresh_lake(engine: Engine) -> None:
    """Bring the lake up to the fold, with a progress bar."""
    with over_journal(engine, "lake") as progress:
        mark = refresh(engine.disk, engine.journal, engine.state, progress)
    print(f"lake: {mark.n_events:,} events up to journal position {mark.position}")
