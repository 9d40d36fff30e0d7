"""Commands about people's rights: `export`, `erase`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hetki.cli.opening import HERE, Folder, opened
from hetki.cli.people import Who, find
from hetki.dialogues.wording import counted, spoken_at
from hetki.engine.advance import advance
from hetki.engine.engine import Engine
from hetki.engine.erase import erase as erase_customer
from hetki.engine.erase import finish
from hetki.engine.export import export as export_customer
from hetki.engine.receipts import Listed, listed
from hetki.errors import Fault, Invalid
from hetki.store.system import SystemDisk

app = typer.Typer()


@app.command()
def export(
    who: Who,
    to: Annotated[Path, typer.Option("--to", help="The ZIP file to write; it must not exist.")],
    project: Folder = HERE,
) -> None:
    """Write all that is kept of a customer into one ZIP, as JSON Lines and CSV."""
    if to.suffix.lower() != ".zip" or to.exists():
        got = f"{to.name}, which exists" if to.exists() else to.name
        raise Invalid(Fault("--to", got, "a new file that ends in .zip"))
    engine = opened(project)
    advance(engine)
    exported = export_customer(engine, find(engine, who))
    SystemDisk(to.absolute().parent).write(to.name, exported.archive)
    print(f"{to.name}: " + ", ".join(f"{n:,} {name}" for name, n in exported.n_rows.items()))


@app.command()
def erase(
    who: Annotated[
        str, typer.Argument(help="A user id, e-mail, phone, anonymous id, or a customer's hex id.")
    ] = "",
    by: Annotated[str, typer.Option("--by", help="Who asks for it; it is kept in the receipt.")] = "",
    receipts: Annotated[bool, typer.Option("--receipts", help="List and verify every receipt.")] = False,
    is_rest: Annotated[
        bool, typer.Option("--finish", help="Finish what an open reader or a crash has left to do.")
    ] = False,
    project: Folder = HERE,
) -> None:
    """Erase a customer for ever: it cannot be undone. Prints the receipt."""
    if sum((bool(who), receipts, is_rest)) != 1:
        raise Invalid(Fault("erase", "none of them, or several", "a customer, --receipts or --finish"))
    engine = opened(project)
    if who:
        erasure_id = erase_customer(engine, find(engine, who), by)
        print("\n".join(_told(engine, erasure_id)))
    elif is_rest:
        print(f"{counted(finish(engine), 'erasure')} finished")
    else:
        print("\n".join(_told(engine)))
        if not all(each.is_genuine for each in _all(engine) if each.receipt):
            raise typer.Exit(1)


def _all(engine: Engine) -> list[Listed]:
    return listed(engine.journal.secrets, engine.db)


def _told(engine: Engine, erasure_id: str = "") -> list[str]:
    zone = engine.project.settings.time_zone
    found: list[str] = []
    mine = [each for each in _all(engine) if erasure_id in ("", each.erasure_id)]
    for each in mine:
        found.append(f"erasure {each.erasure_id}  asked by {each.said_by}, {spoken_at(each.said_at, zone)}")
        receipt = each.receipt
        if receipt is None:
            found.append("  unfinished: hetki serve or hetki erase --finish does the rest")
            continue
        counts = ", ".join(
            counted(n, name.removesuffix("s").replace("_", " ")) for name, n in receipt.destroyed.items()
        )
        genuine = "genuine" if each.is_genuine else "NOT the signature of this project"
        found += [
            f"  finished {spoken_at(receipt.finished_at, zone)}; destroyed: {counts}",
            f"  public key {receipt.public_key}",
            f"  signature {each.signature} ({genuine})",
        ]
    return found or ["nobody was erased"]
