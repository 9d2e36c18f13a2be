"""The command line: `faultproof VERB`, one module a verb.

To add a verb, write its module and add one line below. A verb that needs an extra (a web server, a driver)
imports it inside its function, so that the other verbs work without the extra.
"""

import io
import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from faultproof.cli import outbox, patterns, prove, shop, show, tapes
from faultproof.cli.output import ReaderGone
from faultproof.errors import FaultproofError

__all__ = ["app", "main"]

_BAD_INPUT = 2
_OUTPUT_FAILED = 4
_SIGPIPE = 128 + 13  # what a shell reports for a program whose reader went away

app = typer.Typer(
    name="faultproof",
    help="Distributed-systems micro-patterns that bring their own proof.",
    epilog="""\
Try:

[bold]faultproof patterns[/]  the 24 patterns, what each promises, and which are ready

[bold]faultproof show outbox[/]  one in full: problem, promise, primitives, checklist, cost

[bold]faultproof show saga --json | jq .checklist[/]  every verb speaks JSON to machines

[bold]faultproof prove outbox --plants[/]  try its claim under every fault, and whether planted bugs are caught

[bold]faultproof outbox lag --db shop.db[/]  what waits, how old it is, who is at it

Exit status: 0 fine; 1 a proof did not hold; 2 bad input, with one sentence that says what; 3 a proof showed
nothing; 4 a proof failed itself; 130 interrupted.
""",
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("patterns")(patterns.patterns)
app.command("show")(show.show)
app.command("shop")(shop.shop)
app.command("prove")(prove.prove)
app.command("replay")(tapes.replay)
app.add_typer(outbox.app, name="outbox")


def main() -> None:
    """Run the command line and exit: 0 fine, 2 bad input, 4 no output possible, 130 interrupted, 141 the reader left."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a character gets a question mark
            stream.reconfigure(errors="replace")
    try:
        status = _run()
        sys.stdout.flush()
    except (BrokenPipeError, ReaderGone):
        status = _SIGPIPE
        # The interpreter flushes stdout once more on its way out and would complain about the same pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # the disk under the output is full, or the terminal is gone: no verdict on anything
        print(f"the output could not be written: {error.strerror or error}", file=sys.stderr)
        status = _OUTPUT_FAILED
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def _run() -> int | str | None:
    try:
        app()
    except SystemExit as exit:  # typer's way to return, usage errors (2) and Ctrl-C (130) included
        return exit.code
    except KeyboardInterrupt:  # Ctrl-C before or after typer listens
        return 130
    except FaultproofError as error:
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        return _BAD_INPUT
    return 0


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"faultproof {version('faultproof')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass
