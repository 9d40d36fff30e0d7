"""Commands about people's rights: `export`, `erase`, `restrict`, `object`, `rectify`, `page`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hetki.cli.opening import HERE, Folder, opened
from hetki.cli.people import By, Who, find, standing_lines
from hetki.dialogues.wording import counted, spoken_at
from hetki.engine.advance import advance
from hetki.engine.engine import Engine
from hetki.engine.erase import erase as erase_customer
from hetki.engine.erase import finish
from hetki.engine.export import export as export_customer
from hetki.engine.receipts import Listed, listed
from hetki.engine.removing import Found, Range, remove
from hetki.engine.removing import find as find_range
from hetki.engine.rights import Entered, correction, enter, leaves_of, objection, restriction
from hetki.errors import Fault, Invalid
from hetki.events.event import LeafId
from hetki.events.wire import instant_of
from hetki.settings import DAY
from hetki.store.pages import PageLinks
from hetki.store.sqlite import transaction
from hetki.store.system import SystemDisk
from hetki.store.views import Views

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
    since: Annotated[str, typer.Option("--from", help="Erase what happened from this time on.")] = "",
    until: Annotated[str, typer.Option("--until", help="... and before this one.")] = "",
    source: Annotated[str, typer.Option("--source", help="Of a range, only what this source told.")] = "",
    event: Annotated[str, typer.Option("--event", help="Of a range, only events of this name.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what a range holds.")] = False,
    project: Folder = HERE,
) -> None:
    """Erase a customer, or a range of time, for ever: it cannot be undone. Prints the receipt."""
    if sum((bool(who), receipts, is_rest, bool(since or until))) != 1:
        must = "a customer, --from with --until, --receipts or --finish"
        raise Invalid(Fault("erase", "none of them, or several", must))
    if not (since or until) and (source or event or dry_run):
        raise Invalid(Fault("erase", "--source, --event or --dry-run by itself", "with --from and --until"))
    engine = opened(project)
    if since or until:
        wanted = Range(instant_of(since, "--from"), instant_of(until, "--until"), source, event)
        if dry_run:
            _tell_range(find_range(engine, wanted))
            return
        for each in remove(engine, wanted, by, _tell_range):
            print("\n".join(_told(engine, each)))
        return
    if who:
        erasure_id = erase_customer(engine, find(engine, who), by)
        print("\n".join(_told(engine, erasure_id)))
    elif is_rest:
        advance(engine)  # an erasure that was said and not folded yet is none that is entered
        print(f"{counted(finish(engine), 'erasure')} finished")
    else:
        print("\n".join(_told(engine)))
        if not all(each.is_genuine for each in _all(engine) if each.receipt):
            raise typer.Exit(1)


@app.command()
def restrict(
    who: Who,
    by: By,
    lift: Annotated[bool, typer.Option("--lift", help="Lift the restriction: everything may go on.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept, and the customer sees it.")] = "",
    project: Folder = HERE,
) -> None:
    """Restrict processing (GDPR 18): a customer's data is kept and exported, and used for nothing else."""
    engine = opened(project)
    _enter(engine, find(engine, who), restriction(by, reason, lift))


@app.command(name="object")
def object_to(
    who: Who,
    by: By,
    purpose: Annotated[
        str, typer.Option("--purpose", help="To what; none: to all that may be objected to.")
    ] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why; it is kept, and the customer sees it.")] = "",
    project: Folder = HERE,
) -> None:
    """Enter an objection (GDPR 21): against legitimate interests, marketing and profiling."""
    engine = opened(project)
    _enter(engine, find(engine, who), objection(engine.project.purposes, purpose, by, reason))


@app.command()
def rectify(
    who: Who,
    trait: Annotated[str, typer.Argument(help="A field of Customer Identified, such as email.")],
    by: By,
    value: Annotated[str, typer.Argument(help="What it is; it stands over what sources tell.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take every correction of this trait back.")] = False,
    project: Folder = HERE,
) -> None:
    """Correct a trait of a customer (GDPR 16), or take its corrections back."""
    if undo == bool(value):
        raise Invalid(Fault("rectify", "both or neither", "a value, or --undo"))
    engine = opened(project)
    _enter(engine, find(engine, who), correction(engine.project, trait, None if undo else value, by))


@app.command()
def page(
    who: Who,
    by: By,
    days: Annotated[int, typer.Option("--days", min=1, max=365, help="For how long the link opens.")] = 7,
    revoke: Annotated[bool, typer.Option("--revoke", help="End every link of this customer.")] = False,
    project: Folder = HERE,
) -> None:
    """Print a link to the customer's own page; whoever has it sees what is known, and may act on it."""
    engine = opened(project)
    advance(engine)
    customer, links, now = find(engine, who), PageLinks(engine.db), engine.clock.now()
    with transaction(engine.db):
        if revoke:
            print(f"{counted(links.revoke(engine.state, customer), 'link')} ended")
            return
        ends_at = now + days * DAY
        token = links.make(engine.state, engine.chance, customer, by, now, ends_at)
    origin = engine.project.server.origin
    print(f"{origin}/my/{token}")
    behind = "" if origin else "behind the server's address, "
    print(f"  {behind}until {spoken_at(ends_at, engine.project.settings.time_zone)}")


def _enter(engine: Engine, customer: LeafId, entered: Entered) -> None:
    """Enter it, have it folded, and print what may be done with the customer's data from now on."""
    advance(engine)
    leaves = leaves_of(Views(engine.disk), customer)
    enter(engine.acceptor.accept, engine.clock, engine.chance, leaves, entered)
    advance(engine)
    print("\n".join(standing_lines(engine, customer)))


def _tell_range(found: Found) -> None:
    print(f"{counted(found.n_events, 'event')}, {counted(found.n_rejected, 'rejected body')}")


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
