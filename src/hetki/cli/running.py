"""Commands that run things: `serve`, `demo`, `report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

import hetki.simulation
from hetki.cli.opening import HERE, Folder, look, opened, progress_bar
from hetki.cli.telling import tell
from hetki.engine.report import render_report
from hetki.engine.report import report as make_report
from hetki.errors import Conflict, Fault
from hetki.measurement.outcome import measured
from hetki.server.serve import LOCK
from hetki.server.serve import serve as run_server
from hetki.simulation.demo import run
from hetki.store.lake import ask, refresh
from hetki.store.sqlite import alone
from hetki.store.system import SystemDisk

app = typer.Typer()
#: The project that the demo runs, as it is shipped.
RESTAURANTS = Path(hetki.simulation.__file__).parent / "restaurants_project"
DEMO = Path("hetki-demo")
#: A folder with this file was made by a demo.
MARK = ".hetki-demo"
Port = Annotated[int, typer.Option(min=0, max=65_535, help="The port; 0 takes one that is free.")]


@app.command()
def serve(
    project: Folder = HERE,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Port = 8010,
) -> None:
    """Take in events, decide, deliver, and show the console; until interrupted."""
    look(project)
    run_server(str(project), host, port, _say)


@app.command()
def report(
    project: Folder = HERE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What each moment and initiative did: effect, interval, n and grade, as assigned."""
    engine = opened(project)
    refresh(engine.disk, engine.journal, engine.state)
    moments = [measured(each) for each in engine.project.moments.values()]
    progress = engine.state.progress()
    until = progress.advance_to if progress else engine.clock.now()
    effects = ask(engine.disk, lambda lake: make_report(lake, moments, until))
    print(msgspec.json.encode(effects).decode() if as_json else render_report(effects))


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where the demo's project and data go.")] = DEMO,
    serving: Annotated[bool, typer.Option("--serve/--no-serve", help="Leave the console running.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Another seed is another month.")] = 1,
    customers: Annotated[int, typer.Option(min=1, help="How many customers.")] = 10_000,
    days: Annotated[int, typer.Option(min=1, help="How many days.")] = 30,
    port: Port = 8010,
) -> None:
    """A simulated month of a restaurant chain, from events to proven effects."""
    disk = _demo_disk(folder)
    with progress_bar() as bar:
        tasks = {label: bar.add_task(label, total=1.0) for label in ("simulating", "lake", "measuring")}
        engine, story = run(
            disk,
            SystemDisk(folder / "data", durable=False),
            seed,
            customers,
            days,
            lambda label, share: bar.update(tasks[label], completed=share),
        )
    tell(story, engine.project)
    called = sys.argv[0] if sys.argv[0].startswith(".") else "hetki"  # make calls it where it lies
    print(
        f"\nIn {folder}/moments/where_is_my_order.yaml change 'for 10 minutes' to 'for 5 minutes',"
        f"\nand see what would have been caught: {called} backtest -C {folder} where_is_my_order"
    )
    if serving:
        run_server(str(folder), "127.0.0.1", port, _say)


def _demo_disk(folder: Path) -> SystemDisk:
    """The demo's project, its data removed. Raises `Conflict` rather than touch what no demo has made."""
    disk = SystemDisk(folder)
    if folder.is_file() or (disk.names("**/*") and not (folder / MARK).exists()):
        raise Conflict(Fault(str(folder), "something that no demo made", "a new folder, or an earlier demo"))
    if not disk.names("**/*"):
        shipped = SystemDisk(RESTAURANTS)
        for name in shipped.names("**/*"):
            disk.write(name, shipped.read(name))
        disk.write(MARK, b"made by hetki demo, which may delete the data in it\n")
    served = Fault(f"project {folder}", "a server that runs on it", "at rest", "stop it first")
    with alone(SystemDisk(folder / "data"), LOCK, served):
        disk.remove("data")
    return disk


def _say(line: str) -> None:
    """Print at once, also into a pipe: the server's first line tells where it is."""
    print(line, flush=True)
