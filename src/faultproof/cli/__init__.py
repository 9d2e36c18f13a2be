"""The command line: `faultproof VERB`, one module a verb.

To add a verb, write its module and add one line below. A verb that needs an extra (a web server, a driver)
imports it inside its function, so that the other verbs work without the extra.
"""

import io
import os
import sys
from contextlib import suppress
from importlib.metadata import version
from typing import Annotated, TextIO

import typer

from faultproof.cli import bench, check, outbox, patterns, prove, saga, shop, show, sidecar, tapes
from faultproof.cli.output import ReaderGone, Stream, one_line
from faultproof.errors import FaultproofError

__all__ = ["app", "main"]

_STDERR = 2
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

[bold]faultproof prove mypkg.proofs:CHECKOUT[/]  a proof of your own, found from the current directory

[bold]faultproof check run.jsonl --model register[/]  was what was recorded linearizable?

[bold]faultproof outbox lag --db shop.db[/]  what waits, how old it is, who is at it

[bold]faultproof sidecar --policy policy.toml[/]  the policy of a client in front of a service in any language

[bold]faultproof bench drain[/]  ours beside its peers, in turns, in one run (in a checkout)

Exit status: 0 fine; 1 a proof did not hold; 2 bad input, with one sentence that says what; 3 a proof showed
nothing; 4 a proof failed itself, or a contestant of the benchmarks; 130 interrupted.
""",
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("patterns")(patterns.patterns)
app.command("show")(show.show)
app.command("shop", epilog=shop.EPILOG)(shop.shop)
app.command("prove")(prove.prove)
app.command("replay")(tapes.replay)
app.command("check", epilog=check.EPILOG)(check.check)
app.command("sidecar", epilog=sidecar.EPILOG)(sidecar.sidecar)
app.command("bench")(bench.bench)
app.add_typer(outbox.app, name="outbox")
app.add_typer(saga.app, name="saga")


def main() -> None:
    """Run the command line and exit.

    0 fine, 2 bad input or nowhere to print, 4 the output failed on its way, 130 interrupted, 141 the reader left.
    """
    _open_closed_streams()
    if sys.stdout is None:
        _say("standard output is closed: if nobody is to read it, send it to /dev/null")
        sys.exit(_BAD_INPUT)
    for name in ("stdout", "stderr"):
        if isinstance(plain := getattr(sys, name), io.TextIOWrapper):
            setattr(sys, name, Stream(plain))
    try:
        status = _run()
        sys.stdout.flush()
    except ReaderGone:
        status = _SIGPIPE
        _mute(sys.stdout)
        _mute(sys.stderr)
    except OSError as error:  # the disk under the output is full, or the terminal is gone: no verdict on anything
        status = _OUTPUT_FAILED
        _mute(sys.stdout)
        _say(f"the output could not be written: {error.strerror or error}")
    sys.exit(status)


def _run() -> int | str | None:
    try:
        app()
    except SystemExit as exit:  # typer's way to return, usage errors (2) and Ctrl-C (130) included
        return exit.code
    except KeyboardInterrupt:  # Ctrl-C before or after typer listens
        return 130
    except FaultproofError as error:
        _say(one_line(str(error)) or type(error).__name__)
        return _BAD_INPUT
    return 0


def _open_closed_streams() -> None:
    """After `2>&-` the next file to be opened would be number 2, and what others print on stderr would go into it."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(number)
    if sys.stderr is None:  # or `print(…, file=sys.stderr)` would print on stdout
        sys.stderr = os.fdopen(_STDERR, "w", closefd=False)


def _say(sentence: str) -> None:
    """Print on stderr. If that fails nobody hears it, and the exit status stands."""
    try:
        print(sentence, file=sys.stderr, flush=True)
    except (OSError, ReaderGone):
        _mute(sys.stderr)


def _mute(stream: TextIO) -> None:
    """The interpreter flushes once more on its way out, and would fail and complain again."""
    with suppress(io.UnsupportedOperation):  # nothing that the system knows
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
