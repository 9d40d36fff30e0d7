"""Trying moments on history: `backtest`. It loads the fast form of the matcher, so it stands by itself."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from duckdb import DuckDBPyConnection
from rich.progress import Progress, TaskID

from hetki.cli.data import refresh_lake, tell_restricted
from hetki.cli.opening import HERE, Folder, look, opened, progress_bar
from hetki.engine.backtest import Span
from hetki.engine.backtest import backtest as run_backtest
from hetki.engine.backtest import render as render_backtest
from hetki.engine.comparing import compare
from hetki.engine.comparing import render as render_compared
from hetki.engine.engine import compile_program
from hetki.engine.project import load
from hetki.events.event import instant
from hetki.store.lake import ask
from hetki.store.restricted import n_restricted
from hetki.store.system import SystemDisk

app = typer.Typer()
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="A day, in UTC.")]


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

        def tried(tables: DuckDBPyConnection) -> tuple[str, int]:
            if other is not None:
                text = render_compared(compare(tables, engine.program, other, *common), shown)
            else:
                accounts = engine.program.accounts
                about = {moment.name for moment in accounts.moments} if accounts else set()
                text = render_backtest(run_backtest(tables, engine.program, *common), shown, about)
            return text, n_restricted(tables)

        text, n_hidden = ask(engine.disk, tried)
    print(text)
    tell_restricted(n_hidden)


def _told(bar: Progress, task: TaskID, n_customers: int) -> None:
    bar.update(task, completed=n_customers)
