"""Standing: which declarations are in force, what is being warmed, what was refused and why. Reads only."""

from __future__ import annotations

import msgspec

from hetki.declarations.read import read_toml
from hetki.engine.engine import version_of
from hetki.engine.files import TOML, ProjectFile
from hetki.engine.project import load
from hetki.errors import Fault, Invalid
from hetki.events.event import utc
from hetki.settings import Settings
from hetki.store.ledger import Ledger
from hetki.store.ports import Disk, Shelf
from hetki.store.shadow import Refused, Shadow
from hetki.store.state import FILE, Progress, State


class Standing(msgspec.Struct, frozen=True):
    """How a project stands. `progress` is None while nothing was folded; `folder` is the version that lies
    in the folder, "" if that has `faults`. Of the `n_customers`, `n_warmed` are warm for the version
    `warming`; `n_again` of them were touched since."""

    progress: Progress | None
    taken_up_at: int | None
    folder: str
    faults: list[Fault]
    n_customers: int
    warming: str = ""
    begun_at: int | None = None
    n_warmed: int = 0
    n_again: int = 0
    refused: Refused | None = None


def data_of(shelf: Shelf) -> str:
    """Where a project keeps its data, also if its settings have faults. Raises `NotFound` without any."""
    toml = read_toml(shelf.read(TOML).decode(errors="replace"), TOML, ProjectFile).value
    return toml.hetki.data if toml else Settings("").data


def standing(shelf: Shelf, disk: Disk) -> Standing:
    """How the project in a folder stands, whose data is on a disk."""
    faults: list[Fault] = []
    folder = ""
    try:
        folder = version_of(load(shelf))
    except Invalid as error:
        faults = list(error.faults)
    if FILE not in disk.names("*"):
        return Standing(None, None, folder, faults, 0)
    db = disk.connect(FILE)
    try:
        state, ledger, shadow = State(db), Ledger(db), Shadow(db)
        progress, warming = state.progress(), shadow.warming()
        return Standing(
            progress,
            ledger.taken_up_at(progress.program) if progress else None,
            folder,
            faults,
            state.counts()["customers"],
            warming.program if warming else "",
            warming.begun_at if warming else None,
            warming.n_warmed if warming else 0,
            shadow.n_touched(),
            shadow.refused(),
        )
    finally:
        db.close()


def render(found: Standing) -> str:
    """The same in lines."""
    lines = ["in force: nothing is folded yet"]
    if found.progress is not None:
        since = f" since {_at(found.taken_up_at)}" if found.taken_up_at is not None else ""
        lines = [
            f"in force: {found.progress.program}{since}",
            f"folded: up to journal position {found.progress.position}, {_at(found.progress.advance_to)}",
        ]
    if found.warming:
        lines.append(
            f"warming: {found.warming}, {found.n_warmed:,} of {found.n_customers:,} customers,"
            f" {found.n_again:,} to do again, begun {_at(found.begun_at or 0)}"
        )
    if found.refused is not None:
        lines.append(f"refused: {_at(found.refused.refused_at)}, and what is in force goes on")
    faults = found.faults or (found.refused.faults if found.refused else [])
    lines += [f"  {fault}" for fault in faults]
    lines.append(f"folder: {_folder(found)}")
    return "\n".join(lines)


def _folder(found: Standing) -> str:
    if found.faults:
        return f"{len(found.faults)} fault{'s' * (len(found.faults) > 1)}, as hetki check says"
    if found.progress is None or found.folder == found.progress.program:
        return "what is in force" if found.progress else found.folder
    if found.folder == found.warming:
        return "what is being warmed"
    return f"{found.folder}, which a running hetki serve or hetki advance takes up"


def _at(instant: int) -> str:
    return f"{utc(instant):%Y-%m-%d %H:%M:%S}Z"
