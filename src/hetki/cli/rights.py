"""Commands about people's rights: `erase`."""

from __future__ import annotations

from typing import Annotated

import typer

from hetki.cli.opening import HERE, Folder, opened
from hetki.cli.people import find
from hetki.dialogues.wording import counted, spoken_at
from hetki.engine.engine import Engine
from hetki.engine.erase import erase as erase_customer
from hetki.engine.erase import finish
from hetki.engine.receipts import Listed, listed
from hetki.errors import Fault, Invalid

app = typer.Typer()


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
        counts = ", ".join(f"{n:,} {name}" for name, n in receipt.destroyed.items())
        genuine = "genuine" if each.is_genuine else "NOT the signature of this project"
        found += [
            f"  finished {spoken_at(receipt.finished_at, zone)}; destroyed: {counts}",
            f"  public key {receipt.public_key}",
            f"  signature {each.signature} ({genuine})",
        ]
    return found or ["nobody was erased"]
