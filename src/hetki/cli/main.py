"""Main: the table of commands, loaded one by one, and how an error ends a command."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click
import typer

from hetki import __version__
from hetki.errors import HetkiError

#: Command -> the module that holds it. A module is loaded when one of its commands is called: the
#: statistics alone take longer to load than most commands take to run.
COMMANDS = {
    "init": "hetki.cli.project",
    "check": "hetki.cli.project",
    "schema": "hetki.cli.project",
    "import": "hetki.cli.data",
    "backtest": "hetki.cli.data",
    "lake": "hetki.cli.data",
    "serve": "hetki.cli.running",
    "demo": "hetki.cli.running",
    "token": "hetki.cli.running",
    "report": "hetki.cli.running",
    "customer": "hetki.cli.people",
    "explain": "hetki.cli.people",
    "merge": "hetki.cli.people",
    "unmerge": "hetki.cli.people",
    "rejected": "hetki.cli.upkeep",
    "advance": "hetki.cli.upkeep",
    "verify": "hetki.cli.upkeep",
    "rebuild": "hetki.cli.upkeep",
}
EXIT = {"invalid": 1, "not_found": 3, "conflict": 4, "forbidden": 5, "exhausted": 6, "unavailable": 7}


class Commands(click.Group):
    """The group of all commands, each loaded when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name; None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        app: Any = importlib.import_module(COMMANDS[cmd_name]).app
        return typer.main.get_group(app).commands[cmd_name]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hetki")
def hetki() -> None:
    """Hetki: from an event to a moment, a decision and a proven effect."""


def main() -> None:
    """Run the command line. An error of ours ends it with its code's status and one line per fault."""
    try:
        hetki()
    except HetkiError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)
        sys.exit(EXIT[error.code])
