"""A proof in the other worlds: its cases stepped through on PostgreSQL, and the whole of it live."""

import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.text import Text

from faultproof.cli.output import one_line
from faultproof.cli.verdicts import Elsewhere
from faultproof.errors import InvalidInput
from faultproof.prove.live.engines import engine_called
from faultproof.prove.live.options import LiveOptions
from faultproof.prove.live.orders import parsed
from faultproof.prove.live.proving import plan, prove_live
from faultproof.prove.live.report import LiveReport
from faultproof.prove.proof import Proof
from faultproof.prove.reports.facts import Verdict, WorldVerdict
from faultproof.prove.stepped.cases import cases_of
from faultproof.prove.stepped.explore import SteppedReport, explore_stepped
from faultproof.prove.stepped.servers import own_server

World = Callable[[Proof, Callable[[int], None]], Elsewhere | None]
_SHOWN_MAX = 3


def worlds(
    *,
    stepped: bool,
    engine: str | None,
    worker: str | None,
    kills: int,
    seconds: float,
    seed: int,
    orders: list[str],
    allow_remote: bool,
    keep: Path | None,
    out: Console | None,
) -> dict[str, World]:
    """Those that were asked for. Raises `InvalidInput` for what cannot be meant, before anything is run."""
    found: dict[str, World] = {}
    if stepped:
        server = server_to_step_on(engine, allow_remote)
        found["stepped"] = lambda proof, progress: _stepped(proof, server, progress)
    if engine is not None:
        engine_called(engine, allow_remote=allow_remote)
        options = LiveOptions(
            command=tuple(shlex.split(worker)) if worker else None,
            kills=kills,
            seconds=seconds,
            seed=seed,
            orders=tuple(parsed(order) for order in orders) or None,
            allow_remote=allow_remote,
            keep=keep,
        )
        found["live"] = lambda proof, progress: _live(proof, engine, options, out, progress)
    return found


def server_to_step_on(engine: str | None, allow_remote: bool) -> Callable[[], AbstractContextManager[str]]:
    """The one that was named, or one of our own for as long as it is needed. Raises `InvalidInput` for what is none."""
    if engine is None or engine == "postgresql":
        return own_server
    engine_called(engine, allow_remote=allow_remote)
    if engine == "sqlite":
        raise InvalidInput(
            "--stepped takes sessions of PostgreSQL, which --engine sqlite has not: leave one of them out"
        )
    return lambda: nullcontext(engine)


def _stepped(
    proof: Proof, server: Callable[[], AbstractContextManager[str]], progress: Callable[[int], None]
) -> Elsewhere | None:
    """Every interleaving of every case."""
    cases = cases_of(proof)
    if not cases:
        return None
    reports: list[SteppedReport] = []
    with server() as url:
        for case in cases:
            before = sum(report.interleavings for report in reports)

            def tell(done: int, before: int = before) -> None:
                progress(before + done)

            reports.append(explore_stepped(case, url, progress=tell))
    return _told_of_steps(reports)


def _told_of_steps(reports: list[SteppedReport]) -> Elsewhere:
    numbers = {
        "cases": len(reports),
        "interleavings": sum(report.interleavings for report in reports),
        "with a wait": sum(report.with_wait for report in reports),
        "with a deadlock": sum(report.with_deadlock for report in reports),
        "with a serialization failure": sum(report.with_failure for report in reports),
        "seconds": round(sum(report.seconds for report in reports), 1),
    }
    violated = [report for report in reports if report.violations]
    never = [f"{_short(report)}: never happened: {claim}" for report in reports for claim in report.never]
    verdict: Verdict = "violated" if violated else "inconclusive" if never else "held"
    counts = ", ".join(f"{count:,} {what}" for what, count in numbers.items() if count and what != "seconds")
    lines = [f"{counts}, in {numbers['seconds']} s on PostgreSQL: {verdict.upper() if violated else verdict}"]
    for report in violated[:_SHOWN_MAX]:
        first = report.violations[0]
        lines += [f"{_short(report)}: {one_line(first.sentences[0], 200)}", f"  by {one_line(first.schedule, 200)}"]
    lines += never[:_SHOWN_MAX]
    scope = [f"{_short(report)}: {report}" for report in reports]
    return Elsewhere(
        verdict=WorldVerdict(world="stepped", verdict=verdict, scope=scope, numbers=numbers),
        lines=lines,
    )


def _short(report: SteppedReport) -> str:
    return report.case.rpartition(":")[2]


def _live(
    proof: Proof, engine: str, options: LiveOptions, out: Console | None, progress: Callable[[int], None]
) -> Elsewhere:
    """On processes of the operating system. What is going to be done is said first."""
    if out is not None:
        for line in plan(proof, engine, options).lines():
            out.print(Text(line), soft_wrap=True)
        out.print()
    return _told_of_lives(prove_live(proof, engine, options, lambda made, planned: progress(made)))


def _told_of_lives(report: LiveReport) -> Elsewhere:
    first, *more = report.lines()
    lines = [f"{first}: {report.verdict.upper() if report.violations else report.verdict}"]
    for violation in report.violations[:_SHOWN_MAX]:
        lines.append(f"{one_line(violation.sentences[0], 200)}; struck by {one_line(violation.struck, 120)}")
        lines.append(f"  again: --order {shlex.quote(str(violation.order))}")
        if violation.history is not None:
            lines.append(f"  history: {violation.history}")
    lines += [line for line in more if line.startswith(("never", "no time", "left behind"))][:_SHOWN_MAX]
    numbers = {
        "points": report.points,
        "distinct": report.distinct,
        "runs": report.runs,
        "kills": report.kills,
        "stops": report.strikes["stop"],
        "restarts": report.restarts,
        "seconds": round(report.seconds, 1),
    }
    return Elsewhere(
        verdict=WorldVerdict(world="live", verdict=report.verdict, scope=[first, *more], numbers=numbers), lines=lines
    )
