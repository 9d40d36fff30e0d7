"""The command line: the only room that prints. Start at `main`; each command is a function beside it."""

from hetki.cli.main import main

__all__ = ["main"]
