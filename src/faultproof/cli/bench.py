"""`faultproof bench`: ours beside the peers', ratios from one run.

The benchmarks are in the checkout, with the pinned peers and the server that they are measured on, and not in the
package: decision 0013.
"""

import asyncio
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

import faultproof
from faultproof.cli.output import JsonOption, console, one_line, print_json
from faultproof.errors import MissingExtra

_WIDTH_PIPED = 140
_NOT_MEASURED = 4
_TERMINATED = 128 + signal.SIGTERM


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME…]", help="drain, drain-postgresql …; all (16 minutes).")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option("--engine", metavar="URL", help="Your PostgreSQL server. Default: one of its own, as it comes."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with plots, complete in itself.")
    ] = None,
    rounds: Annotated[int | None, typer.Option("--rounds", help="Of each benchmark; as many as it needs.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny sizes, to see that it runs: figures mean nothing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure ours beside the peers', in turns. Run nothing else meanwhile. Aims that are missed are no failure.

    Exit status: 0 measured; 2 bad input; 4 a contestant could not be measured.
    """
    running, table = _harness()
    out = console(width_piped=_WIDTH_PIPED)
    options = running.Options(names=names or (), engine=engine, rounds=rounds, quick=quick, html=html)

    def finished(chapter: Any) -> None:
        shown.clear()
        if not json:
            table.print_chapter(chapter, out)

    shown = _Line()
    try:
        report = running.run(options, progress=shown, finished=finished)
    except asyncio.CancelledError as error:
        raise typer.Exit(_TERMINATED) from error
    finally:
        shown.clear()
    if json:
        print_json(report)
    else:
        table.print_run(report, out)
    if any(chapter.failed for chapter in report.benchmarks):
        raise typer.Exit(_NOT_MEASURED)


def _harness() -> tuple[Any, Any]:
    """The modules that run and print benchmarks, from the checkout that this package is installed from."""
    checkout = Path(faultproof.__file__).parents[2]
    if not (checkout / "benchmarks" / "run.py").is_file():
        raise MissingExtra(
            "the benchmarks are not part of the installed package: in a checkout of the source, run `make bench`"
        )
    sys.path.insert(0, str(checkout))
    return import_module("benchmarks.run"), import_module("benchmarks.table")


class _Line:
    """One line on a terminal that is rewritten. Call it with what is going on."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, what: str) -> None:
        if sys.stderr.isatty():
            line = one_line(f"{time.monotonic() - self._began:4.0f} s  {what}", chars_max=100)
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave nothing of it."""
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
