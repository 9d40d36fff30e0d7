"""Main: the table of commands, loaded when they are called, and how an error ends a command."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated

import typer

from hetki import __version__
from hetki.errors import Fault, HetkiError
from hetki.store.shortage import shortage
from hetki.store.system import collect_rarely

#: Command -> the module of this package that holds it, and what it does. A module is loaded when one of its
#: commands is called, and none for the help: the statistics alone take longer to load than most commands
#: take to run.
COMMANDS = {
    "init": ("project", "Make a small, complete CX project."),
    "check": ("project", "Report every fault at once; then say each moment back in one sentence."),
    "schema": ("project", "Print the JSON Schema of a kind of declaration, for an editor."),
    "key": (
        "keys",
        "Make a write key, print it once, and declare its digest in the source's file; or list all keys.",
    ),
    "import": (
        "data",
        "Take in a file. What an interruption left undone is done by the same command, without doubles.",
    ),
    "link": (
        "linking",
        "Take in customer tables, and propose which records of all tables are of one customer.",
    ),
    "backtest": ("trying", "How often moments would have fired on what is in the lake, when, and for whom."),
    "lake": ("data", "The columnar copy of everything, as Parquet."),
    "serve": ("running", "Take in events, decide, deliver, and show the console; until interrupted."),
    "demo": ("running", "A simulated month of a restaurant chain, from events to proven effects."),
    "token": (
        "staff",
        "Make a new one-time token and print where in the console it signs in; older ones end.",
    ),
    "staff": ("staff", "List who may sign in to the console."),
    "report": ("running", "What each moment and initiative did: effect, interval, n and grade, as assigned."),
    "customer": (
        "people",
        "One customer: identifiers, the links between them, traits with who told them, what was decided.",
    ),
    "account": (
        "accounts",
        "One account: its traits, its members, and what was decided about it; or the largest accounts.",
    ),
    "segments": ("people", "How many customers are in each segment now, or who is in one."),
    "identity": (
        "identity",
        "The policy of identity, what it refuses and what is in quarantine; or what another would change.",
    ),
    "explain": (
        "people",
        "A decision in plain words; with --customer or --account and --moment why a moment was caught or was"
        " not; with --customer and --other why two are one customer or are not.",
    ),
    "merge": ("people", "Say that two customers are one. `hetki unmerge` takes it back."),
    "unmerge": (
        "people",
        "Take a link back: what it joined becomes two customers again, as if it had never been.",
    ),
    "export": ("rights", "Write all that is kept of a customer into one ZIP, as JSON Lines and CSV."),
    "erase": (
        "rights",
        "Erase a customer, or a range of time, for ever: it cannot be undone. Prints the receipt.",
    ),
    "restrict": (
        "rights",
        "Restrict processing (GDPR 18): a customer's data is kept and exported, and used for nothing else.",
    ),
    "object": (
        "rights",
        "Enter an objection (GDPR 21): against legitimate interests, marketing and profiling.",
    ),
    "rectify": ("rights", "Correct a trait of a customer (GDPR 16), or take its corrections back."),
    "page": (
        "rights",
        "Print a link to the customer's own page; whoever has it sees what is known, and may act on it.",
    ),
    "review": (
        "reviewing",
        "List the pairs that wait for a person; or say of one whether it is one customer.",
    ),
    "rejected": ("upkeep", "List what was refused, with its reason."),
    "advance": ("upkeep", "Fold and decide what is in the journal. `hetki serve` does so by itself."),
    "status": (
        "upkeep",
        "Which declarations are in force, what is being warmed, and what was refused and why.",
    ),
    "verify": (
        "keeping",
        "Walk journal, decisions and receipts along their chains: any changed byte is found.",
    ),
    "backup": (
        "keeping",
        "Back up journal and ledger, and the secrets apart from them; it may run beside `hetki serve`.",
    ),
    "restore": (
        "keeping",
        "Bring a backup back into an empty folder; what was erased since is erased again.",
    ),
    "expire": (
        "keeping",
        "Make unreadable for ever what is past its retention; `hetki serve` does so by itself.",
    ),
    "rebuild": (
        "upkeep",
        "Delete every projection and get the same back from the journal; the ledger stays.",
    ),
}
EXIT = {"invalid": 1, "not_found": 3, "conflict": 4, "forbidden": 5, "exhausted": 6, "unavailable": 7}


def program(words: list[str]) -> typer.Typer:
    """The command line as far as these words need it: one command's module; for the help only the names."""
    app = typer.Typer(
        name="hetki",
        help="Hetki: from an event to a moment, a decision and a proven effect.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    asked = next((word for word in words if word != "--"), "")
    if asked in COMMANDS:
        part: typer.Typer = importlib.import_module(f"hetki.cli.{COMMANDS[asked][0]}").app
        app.registered_commands += part.registered_commands
        app.registered_groups += part.registered_groups
    else:
        for name, (_, does) in COMMANDS.items():
            app.command(name, help=does)(_nothing)
    app.callback()(_root)
    return app


def _nothing() -> None:
    """What a command is that is only listed: without its name in the words nobody can call it."""


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
    except UnicodeEncodeError:
        print(Fault("command line", "bytes that are not UTF-8", "text in UTF-8"), file=sys.stderr)
        sys.exit(EXIT["invalid"])
    except Exception as error:
        short = shortage(error)
        if short is None:
            raise
        print(short, file=sys.stderr)
        sys.exit(EXIT[short.code])
