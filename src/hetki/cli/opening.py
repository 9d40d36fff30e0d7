"""Opening: a project's folder as an engine on this machine's own clock, chance and disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from hetki.engine.engine import Engine, open_folder
from hetki.errors import Fault, NotFound

Folder = Annotated[Path, typer.Option("--project", "-C", help="The folder of the CX project.")]
HERE = Path(".")


def opened(folder: Path) -> Engine:
    """The engine of the project in a folder. Raises `Invalid`, `NotFound` or `Unavailable`."""
    look(folder)
    return open_folder(str(folder))


def hand_down(ctx: typer.Context, folder: Path) -> bool:
    """Whether a command has another behind it; that one works on the folder that was named before it, unless
    it is told another."""
    if ctx.invoked_subcommand is not None:
        ctx.default_map = {ctx.invoked_subcommand: {"project": folder}}
    return ctx.invoked_subcommand is not None


def look(folder: Path) -> None:
    """Raise `NotFound` if a folder holds no project."""
    if not (folder / "hetki.toml").is_file():
        hint = "hetki init makes one; -C names its folder"
        raise NotFound(Fault(str(folder), "no hetki.toml", "the folder of a CX project", hint))


@contextmanager
def over_journal(engine: Engine, label: str) -> Iterator[Callable[[int], None]]:
    """A bar over the journal: what it gives is told how far the work has come (a position)."""
    last, _ = engine.journal.head()
    with progress_bar() as bar:
        task = bar.add_task(label, total=last)
        yield lambda position: bar.update(task, completed=position)


def progress_bar() -> Progress:
    """A bar beside the output, for people only: a pipe or a file gets nothing of it."""
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)
