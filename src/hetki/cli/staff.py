"""Commands about signing in to the console: `staff`, with `add`, `passwd`, `role` and `remove`; `token`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hetki.cli.opening import HERE, Folder, hand_down, look, opened
from hetki.engine.standing import data_of
from hetki.errors import Fault, Invalid, nearest, shown
from hetki.events.event import utc
from hetki.server.access import Access
from hetki.store.passwords import CHARS_MAX
from hetki.store.staff import ROLES, Role, Staff, has_staff
from hetki.store.system import SystemChance, SystemClock, SystemDisk

app = typer.Typer()
staff = typer.Typer(invoke_without_command=True, help="List who may sign in to the console.")
app.add_typer(staff, name="staff")

Name = Annotated[str, typer.Argument(help="The name that they sign in with; it stands at what they say.")]
#: A line of input that is longer than any password can be.
LINE_CHARS_MAX = 8 * CHARS_MAX


@app.command()
def token(project: Folder = HERE) -> None:
    """Make a new one-time token and print where in the console it signs in; older ones end."""
    engine = opened(project)
    token = Access(engine.disk, engine.clock, engine.chance).new_token()
    print(f"{engine.project.server.origin}/sign-in?token={token}")


@staff.callback()
def listing(ctx: typer.Context, project: Folder = HERE) -> None:
    """List who may sign in, by name, with their roles."""
    if hand_down(ctx, project):
        return
    look(project)
    disk = _disk(project)
    people = _opened(disk).everybody() if has_staff(disk) else []
    for each in people:
        print(f"{each.name}  {each.role}  since {utc(each.changed_at):%Y-%m-%d %H:%M}Z")
    if not people:
        print("nobody; hetki staff add gives somebody an account")


@staff.command()
def add(
    name: Name,
    role: Annotated[str, typer.Option(help="What they may do: viewer, agent or admin.")],
    project: Folder = HERE,
) -> None:
    """Give somebody an account. The password is asked for, or read from the input."""
    look(project)
    wanted = _role(role)
    person = _opened(_disk(project)).add(name, wanted, _password(), SystemClock().now())
    print(f"{person.name} may sign in as {person.role}")


@staff.command()
def passwd(name: Name, project: Folder = HERE) -> None:
    """Give somebody another password; whoever is signed in by the old one is signed out."""
    look(project)
    _opened(_disk(project)).set_password(name, _password(), SystemClock().now())
    print(f"{name} has another password, and is signed out")


@staff.command(name="role")
def change_role(
    name: Name,
    role: Annotated[str, typer.Argument(help="viewer, agent or admin.")],
    project: Folder = HERE,
) -> None:
    """Give somebody another role; they sign in again."""
    look(project)
    wanted = _role(role)
    _opened(_disk(project)).set_role(name, wanted, SystemClock().now())
    print(f"{name} is {wanted} now, and is signed out")


@staff.command()
def remove(name: Name, project: Folder = HERE) -> None:
    """Take somebody's account away; they are signed out at once."""
    look(project)
    _opened(_disk(project)).remove(name)
    print(f"{name} is signed out, and may not sign in any more")


def _disk(project: Path) -> SystemDisk:
    return SystemDisk(project / data_of(SystemDisk(project)))


def _opened(disk: SystemDisk) -> Staff:
    return Staff(disk, SystemChance())


def _role(text: str) -> Role:
    """A role by its name. Raises `Invalid`."""
    for role in ROLES:
        if text == role:
            return role
    raise Invalid(Fault("role", shown(text), "viewer, agent or admin", nearest(text, ROLES)))


def _password() -> str:
    """A password from the terminal, typed twice and not shown, or the first line of the input."""
    if sys.stdin.isatty():
        typed: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return typed
    try:
        line = sys.stdin.readline(LINE_CHARS_MAX).rstrip("\r\n")
        line.encode()  # in some locales other bytes are read as halves of characters
    except UnicodeError:
        raise Invalid(Fault("password", "bytes that are not UTF-8", "text in UTF-8")) from None
    return line
