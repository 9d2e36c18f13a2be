"""How verbs print: one JSON document for machines, a rich console for people."""

import os
import sys
from typing import Annotated

import msgspec
import typer
from rich.console import Console

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]
"""The `--json` option that every verb has."""


class ReaderGone(Exception):
    """Whoever read our output stopped, as in `faultproof patterns | head -1`.

    Not an OSError: typer would turn that into exit status 1, which for a proof means "violated".
    """


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # rich would exit with 1 here.
        raise ReaderGone


def console(*, width_piped: int) -> Console:
    """A console on stdout: as wide as the terminal, or `width_piped` columns where there is none.

    rich assumes 80 columns in a pipe and folds tables there, which spoils `grep`. COLUMNS is obeyed.
    """
    out = _Console(highlight=False)
    if not out.is_terminal and not os.environ.get("COLUMNS"):
        out.width = width_piped
    return out


def print_json(value: object) -> None:
    """Print dataclasses, lists, dicts … as one indented JSON document on stdout."""
    document = msgspec.json.format(msgspec.json.encode(value), indent=2)
    try:
        sys.stdout.write(document.decode() + "\n")
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise ReaderGone from error
