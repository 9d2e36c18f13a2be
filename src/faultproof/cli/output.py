"""How verbs print: one JSON document for machines, a rich console for people."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from faultproof.errors import InvalidInput

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead.")]
"""The `--json` option that every verb has."""


class ReaderGone(Exception):
    """Whoever read our output stopped, as in `faultproof patterns | head -1`.

    Not an OSError: typer and rich would turn that into exit status 1, which for a proof means "violated".
    """


class Stream(io.TextIOWrapper):
    """stdout or stderr; raises `ReaderGone`, and shows a question mark for what the terminal has no character for."""

    def __init__(self, plain: io.TextIOWrapper) -> None:
        super().__init__(plain.buffer, encoding=plain.encoding, errors="replace", line_buffering=plain.line_buffering)

    def write(self, text: str) -> int:
        with _told():
            return super().write(text)

    def flush(self) -> None:
        with _told():
            super().flush()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGone from error


def console(*, width_piped: int) -> Console:
    """A console on stdout: as wide as the terminal, or `width_piped` columns where there is none.

    rich assumes 80 columns in a pipe and folds tables there, which spoils `grep`. COLUMNS is obeyed.
    """
    out = Console(highlight=False)
    if not out.is_terminal and not os.environ.get("COLUMNS"):
        out.width = width_piped
    return out


def print_json(value: object) -> None:
    """Print dataclasses, lists, dicts … as one indented JSON document on stdout."""
    document = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(document.decode() + "\n")
    sys.stdout.flush()


def one_line(text: str, chars_max: int = 1_000) -> str:
    """Other people's text on one line: what could steer the terminal is replaced, what is too long is cut."""
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
    return clean if len(clean) <= chars_max else clean[: chars_max - 1] + "…"


def span_of_time(seconds: float) -> str:
    """A duration as people say it: 0.4 s, 12 min, 3 h, 5 days."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s"


def confirm(question: str) -> None:
    """Ask on stderr. Raises `InvalidInput` unless the answer on stdin is yes."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    # Closed standard input is None here.
    answer = b"" if sys.stdin is None else sys.stdin.buffer.readline()
    if not answer.endswith(b"\n"):
        print(file=sys.stderr)
    if answer.strip().lower() not in (b"y", b"yes"):
        raise InvalidInput("nothing was done: answer y, or give --yes")
