"""Main: the table of commands, loaded when they are called, and how an error ends a command."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated

import typer

from hetki import __version__
from hetki.errors import Fault, HetkiError
from hetki.store.shortage import SHORT, shortage
from hetki.store.system import collect_rarely

#: Command -> the module that holds it. A module is loaded when one of its commands is called: the
#: statistics alone take longer to load than most commands take to run.
COMMANDS = {
    "init": "hetki.cli.project",
    "check": "hetki.cli.project",
    "schema": "hetki.cli.project",
    "key": "hetki.cli.keys",
    "import": "hetki.cli.data",
    "link": "hetki.cli.linking",
    "backtest": "hetki.cli.trying",
    "lake": "hetki.cli.data",
    "serve": "hetki.cli.running",
    "demo": "hetki.cli.running",
    "token": "hetki.cli.running",
    "staff": "hetki.cli.staff",
    "report": "hetki.cli.running",
    "customer": "hetki.cli.people",
    "account": "hetki.cli.accounts",
    "segments": "hetki.cli.people",
    "identity": "hetki.cli.identity",
    "explain": "hetki.cli.people",
    "merge": "hetki.cli.people",
    "unmerge": "hetki.cli.people",
    "export": "hetki.cli.rights",
    "erase": "hetki.cli.rights",
    "restrict": "hetki.cli.rights",
    "object": "hetki.cli.rights",
    "rectify": "hetki.cli.rights",
    "page": "hetki.cli.rights",
    "review": "hetki.cli.reviewing",
    "rejected": "hetki.cli.upkeep",
    "advance": "hetki.cli.upkeep",
    "status": "hetki.cli.upkeep",
    "verify": "hetki.cli.keeping",
    "backup": "hetki.cli.keeping",
    "restore": "hetki.cli.keeping",
    "expire": "hetki.cli.keeping",
    "rebuild": "hetki.cli.upkeep",
}
EXIT = {"invalid": 1, "not_found": 3, "conflict": 4, "forbidden": 5, "exhausted": 6, "unavailable": 7}


def program(words: list[str]) -> typer.Typer:
    """The command line as far as these words need it: none for the version, all for the help."""
    app = typer.Typer(
        name="hetki",
        help="Hetki: from an event to a moment, a decision and a proven effect.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    asked = words[0] if words and words[0] in COMMANDS else None
    modules = [COMMANDS[asked]] if asked else list(dict.fromkeys(COMMANDS.values()))
    modules = [] if words == ["--version"] else modules
    for name in modules:
        part: typer.Typer = importlib.import_module(name).app
        app.registered_commands += part.registered_commands
        app.registered_groups += part.registered_groups
    app.callback()(_root)
    return app


def _say_version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit()


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


def main() -> None:
    """Run the command line. An error of ours ends it with its code's status and one line per fault."""
    collect_rarely()
    try:
        program(sys.argv[1:])(prog_name="hetki")
    except HetkiError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)
        sys.exit(EXIT[error.code])
    except (*SHORT, OSError) as error:
        short = shortage(error)
        if short is None:
            raise
        print(short, file=sys.stderr)
        sys.exit(EXIT[short.code])
    except UnicodeEncodeError:
        print(Fault("command line", "bytes that are not UTF-8", "text in UTF-8"), file=sys.stderr)
        sys.exit(EXIT["invalid"])
