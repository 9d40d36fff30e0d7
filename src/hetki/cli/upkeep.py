"""Commands for the operator: `rejected`, `advance`, `status`, `rebuild`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from hetki.cli.opening import HERE, Folder, hand_down, look, opened, over_journal
from hetki.engine.advance import advance as advance_engine
from hetki.engine.rebuilding import rebuild as rebuild_engine
from hetki.engine.repair import list_rejected, replay_rejected, show_rejected
from hetki.engine.standing import data_of, standing
from hetki.engine.standing import render as render_standing
from hetki.events.event import utc
from hetki.store.system import SystemDisk

app = typer.Typer()
rejected = typer.Typer(invoke_without_command=True, help="List what was refused, with its reason.")
app.add_typer(rejected, name="rejected")


@rejected.callback()
def listing(ctx: typer.Context, project: Folder = HERE) -> None:
    """List what was refused and not replayed since, newest first."""
    if hand_down(ctx, project):
        return
    rows = list_rejected(opened(project))
    for row in rows:
        print(f"{row.rejected_id}  {utc(row.received_at):%Y-%m-%d %H:%M:%S}Z  {row.source}  {row.fault}")
    print(f"{len(rows)} rejected" + ("; repair one with: hetki rejected show ID > FILE" if rows else ""))


@rejected.command()
def show(rejected_id: str, project: Folder = HERE) -> None:
    """Print a refused event in full, as it came."""
    print(show_rejected(opened(project), rejected_id).decode(errors="replace"))


@rejected.command()
def replay(
    rejected_id: Annotated[str, typer.Argument(help="One id; none: all that are listed.")] = "",
    repaired: Annotated[Path | None, typer.Option("--with", help="A file with the repaired event.")] = None,
    project: Folder = HERE,
) -> None:
    """Read refused events again, as they are or as repaired, and accept those that now keep the rules."""
    body = SystemDisk(repaired.parent).read(repaired.name) if repaired else None
    engine = opened(project)
    replayed = replay_rejected(engine, rejected_id, body)
    advance_engine(engine)
    for fault in replayed.faults:
        print(fault)
    print(f"{replayed.n_accepted} accepted, {len(replayed.faults)} still rejected")
    if replayed.faults:
        raise typer.Exit(1)


@app.command()
def advance(project: Folder = HERE) -> None:
    """Fold and decide what is in the journal. `hetki serve` does so by itself."""
    done = advance_engine(opened(project))
    print(f"{done.n_entries} entries folded, {done.n_caught} occurrences, {done.n_decided} decided")


@app.command()
def status(
    project: Folder = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Which declarations are in force, what is being warmed, and what was refused and why."""
    look(project)
    shelf = SystemDisk(project)
    found = standing(shelf, SystemDisk(project / data_of(shelf)))
    print(msgspec.json.encode(found).decode() if as_json else render_standing(found))
    if found.faults or found.refused:
        raise typer.Exit(1)


@app.command()
def rebuild(project: Folder = HERE) -> None:
    """Delete every projection and get the same back from the journal; the ledger stays."""
    engine = opened(project)
    with over_journal(engine, "rebuild") as progress:
        rebuilt = rebuild_engine(engine, progress)
    same = "the same as before" if rebuilt.before == rebuilt.after else "NOT the same as before"
    print(f"{rebuilt.n_entries} entries folded again: {same} ({rebuilt.after})")
    if rebuilt.before != rebuilt.after:
        raise typer.Exit(1)
