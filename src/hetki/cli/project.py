"""Commands about a project's declarations: `init`, `check`, `schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hetki.cli.opening import HERE, Folder, look
from hetki.declarations.schema import schema as schema_of
from hetki.engine.check import check as check_project
from hetki.engine.files import KINDS
from hetki.engine.skeleton import skeleton
from hetki.errors import Conflict, Fault, NotFound, nearest
from hetki.store.system import SystemDisk

app = typer.Typer()


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A folder that is empty or does not exist yet.")],
    name: Annotated[str, typer.Option(help="The company's name.")] = "My company",
) -> None:
    """Make a small, complete CX project."""
    disk = SystemDisk(folder)
    if folder.is_file() or disk.names("**/*"):
        raise Conflict(Fault(str(folder), "files", "an empty or new folder", "name another folder"))
    files = skeleton(name)
    for path, text in files.items():
        disk.write(path, text.encode())
    print(f"{len(files)} files in {folder}. Next: hetki check -C {folder}")


@app.command()
def check(project: Folder = HERE) -> None:
    """Report every fault at once; then say each moment back in one sentence."""
    look(project)
    checked = check_project(SystemDisk(project))
    for fault in checked.faults:
        print(fault)
    for name, said in checked.segments.items():
        print(f"segment.{name}: {said}")
    for name, said in checked.sentences.items():
        print(f"{name}: {said}")
    for note in checked.notes:
        print(f"note: {note}")
    if checked.faults:
        raise typer.Exit(1)
    counted = [(len(checked.sentences), "moment"), (checked.n_cases, "example")]
    counted = [(len(checked.segments), "segment"), *counted] if checked.segments else counted
    print(", ".join(f"{n} {noun}{'s' * (n != 1)}" for n, noun in counted) + ", no fault")


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(help="moment, action, source, initiative, event ...")],
) -> None:
    """Print the JSON Schema of a kind of declaration, for an editor."""
    if kind not in KINDS:
        raise NotFound(Fault("kind", repr(kind), "a kind of declaration", nearest(kind, KINDS)))
    print(schema_of(KINDS[kind]).decode())
