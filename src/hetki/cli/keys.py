"""The command about write keys: `key`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from hetki.cli.opening import HERE, Folder, look
from hetki.consent.source import WriteKey, expiry
from hetki.declarations.durations import seconds
from hetki.engine.files import read_files
from hetki.engine.keys import add_key
from hetki.engine.project import catalogue_of
from hetki.errors import Fault, Invalid, shown
from hetki.events.event import utc
from hetki.settings import SECOND
from hetki.store.system import SystemChance, SystemClock, SystemDisk

app = typer.Typer()
NEVER = "never"
#: Digits of a digest that tell keys apart for people.
DIGITS = 12


@app.command()
def key(
    source: Annotated[str, typer.Argument(help="The source that the key is for; none: list all keys.")] = "",
    expires: Annotated[
        str, typer.Option(help="A time from now on, such as '90 days', a date in ISO 8601, or never.")
    ] = "1 year",
    event: Annotated[
        list[str] | None, typer.Option("--event", help="A name that it may send; repeat it. None: any.")
    ] = None,
    note: Annotated[str, typer.Option(help="Who has it; it stands in the file.")] = "",
    project: Folder = HERE,
) -> None:
    """Make a write key, print it once, and declare its digest in the source's file; or list all keys."""
    look(project)
    disk = SystemDisk(project)
    now = SystemClock().now()
    if not source:
        for line in _listed(disk, now):
            print(line)
        return
    ends = _instant(expires, now)
    files = read_files(disk)
    wanted = WriteKey("", ends, event or [], note)
    made = add_key(disk, files, catalogue_of(files, []), source, wanted, SystemChance())
    until = f"until {ends}" if ends else "for ever"
    said = f"{made.path}: a key {until}, shown this once. To revoke it, take its entry out again."
    print(said, file=sys.stderr)
    print(made.key)


def _instant(text: str, now: int) -> str:
    """When a key expires as it is declared. Raises `Invalid`."""
    if text == NEVER:
        return ""
    if not text[:4].isdigit() or "-" not in text:
        text = f"{utc(now + seconds(text, '--expires') * SECOND):%Y-%m-%dT%H:%M:%SZ}"
    ends_at = expiry(text, "--expires")
    if ends_at is None or ends_at <= now:
        raise Invalid(Fault("--expires", shown(text), "a time to come"))
    return text


def _listed(disk: SystemDisk, now: int) -> list[str]:
    """A line for each key of each source. Raises `Invalid` with the faults of their files."""
    files = read_files(disk)
    faults = [fault for each in files.sources.files.values() for fault in each.faults]
    if faults:
        raise Invalid(*faults)
    lines = []
    for source, _ in files.sources.read():
        for each in source.write_keys:
            ends_at = expiry(each.expires)
            ended = "expired" if ends_at is not None and ends_at <= now else "until"
            when = f"{ended} {each.expires}" if each.expires else "for ever"
            what = ", ".join(each.events) or "any event"
            note = f"  ({each.note})" if each.note else ""
            lines.append(f"{source.source}  {each.digest[:DIGITS]}  {when}  {what}{note}")
    return lines or ["no write key; hetki key SOURCE makes one"]
