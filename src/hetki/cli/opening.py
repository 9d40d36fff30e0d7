"""Opening: a project's folder as an engine on this machine's own clock, chance and disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hetki.engine.engine import Engine, open_folder

Folder = Annotated[Path, typer.Option("--project", "-C", help="The folder of the CX project.")]
HERE = Path(".")


def opened(folder: Path) -> Engine:
    """The engine of the project in a folder. Raises `Invalid`, `NotFound` or `Unavailable`."""
    return open_folder(str(folder))
