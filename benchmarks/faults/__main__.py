"""`python -m benchmarks.faults`: kill a job queue's workers between effect and acknowledgement, and say what came of it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer

from benchmarks.faults.index import CONTENDERS, contender_called
from benchmarks.faults.model import STRIKES_MAX, Contender, Trial
from benchmarks.faults.proofs import PROOFS, proof_called, proved
from benchmarks.faults.run import Report, own_server, tried
from faultproof import bounds
from faultproof.cli.output import JsonOption, one_line, print_json
from faultproof.cli.verdicts import WORST_FIRST, Status
from faultproof.errors import InvalidInput
from faultproof.prove.harness import HarnessError

USUAL: dict[str, Trial] = {
    "none": Trial(fault="none"),
    "kill": Trial(fault="kill"),
    "stop": Trial(fault="stop", strikes=10, every=50),
    "server": Trial(fault="server", strikes=5, every=200),
}
LIVE = "live"
SPARE_S = 600.0
"""For a run, besides the time in which it waits for jobs that do not come back."""


_INVALID = 2
_STATUS = {"held": Status.HELD, "violated": Status.VIOLATED, "inconclusive": Status.INCONCLUSIVE}


def trial_of(contender: Contender, fault: str, strikes: int | None) -> Trial:
    """What is usual for this fault, with so many strikes. Raises `InvalidInput`."""
    if fault not in USUAL:
        raise InvalidInput(f"a fault is {', '.join(USUAL)}, {LIVE}, not {fault!r}")
    usual = USUAL[fault]
    if strikes is not None:
        bounds.count("--kills", strikes, most=STRIKES_MAX)
        usual = msgspec.structs.replace(usual, strikes=strikes)
    return msgspec.structs.replace(usual, stop_s=1.25 * contender.back_s) if fault == "stop" else usual


def main(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME…]", help=f"{', '.join(CONTENDERS)}; all.")] = None,
    fault: Annotated[
        str,
        typer.Option(
            "--fault", help="none. kill: SIGKILL behind the effect. stop: SIGSTOP. server: kill -9 of PostgreSQL. live."
        ),
    ] = "kill",
    kills: Annotated[
        int | None, typer.Option("--kills", metavar="N", help="Strikes: 100 kills, 10 stops, 5 of the server.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Try what job queues claim about workers that die. Minutes each: they wait out the contender's own timeouts.

    live: SIGKILL at any time, what networks do, and kill -9 of the server, one fault a run.

    Exit: 0 all held, 1 one was violated, 2 bad input, 3 inconclusive, 4 it could not be carried out.
    """
    try:
        contenders = [contender_called(name) for name in names or (PROOFS if fault == LIVE else CONTENDERS)]
        if fault == LIVE:
            raise typer.Exit(_live(contenders, kills, json))
        trials = [trial_of(contender, fault, kills) for contender in contenders]
    except InvalidInput as error:
        print(error, file=sys.stderr)
        raise typer.Exit(_INVALID) from error
    # As Ctrl-C does, or a server would be left to its watchdog and files to nobody.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    reports, statuses = [], []
    with own_server() as server:
        for contender, trial in zip(contenders, trials, strict=True):
            line = _Line(contender)
            seconds = SPARE_S + 3 * contender.patience_s
            try:
                reports.append(tried(contender, trial, server, seconds=seconds, progress=line))
            except HarnessError as error:
                print(f"{contender.name}: {error}", file=sys.stderr)
                statuses.append(Status.ERROR)
                continue
            finally:
                line.clear()
            statuses.append(_STATUS[reports[-1].verdict])
            if not json:
                print("\n".join(lines_of(contender, reports[-1])), flush=True)
    if json:
        print_json(reports)
    raise typer.Exit(min(statuses, key=WORST_FIRST.index))


def _live(contenders: Sequence[Contender], kills: int | None, json: bool) -> Status:
    reports, statuses = [], []
    for contender in contenders:
        proof_called(contender.name)  # before any of them begins
    for contender in contenders:
        line = _Line(contender)
        try:
            report = proved(contender, kills, lambda made, planned, line=line: line(f"{made} of {planned} runs"))  # type: ignore[misc]
        finally:
            line.clear()
        reports.append(
            {
                "contender": contender.name,
                "verdict": report.verdict,
                "violations": [violation.sentences for violation in report.violations],
                "fired": report.fired,
                "left": report.left,
                "lines": report.lines(),
            }
        )
        statuses.append(_STATUS[report.verdict])
        if not json:
            print("\n  ".join([f"{report.verdict.upper():12} {contender.name}", *report.lines()]), flush=True)
    if json:
        print_json(reports)
    return min(statuses, key=WORST_FIRST.index)


_STRUCK = {
    "kill": "SIGKILL between effect and acknowledgement",
    "stop": "SIGSTOP between effect and acknowledgement",
    "server": "kill -9 of the database server",
}


def lines_of(contender: Contender, report: Report) -> Sequence[str]:
    """For people."""
    found, trial = report.findings, report.trial
    assert found is not None
    struck = report.server_kills if trial.fault == "server" else found.strikes
    asleep = f" for {trial.stop_s:.0f} s" if trial.fault == "stop" else ""
    back = (
        "" if found.back_s is None else f"; again after {found.back_s:.1f} s (median), {found.back_s_max:.1f} s at most"
    )
    order = "" if found.disordered is None else f" · out of order {found.disordered}"
    what = "undisturbed" if trial.fault == "none" else f"{struck} × {_STRUCK[trial.fault]}{asleep}"
    lines = [
        f"{report.verdict.upper():12} {contender.name} {report.version}, promise: {report.promise}",
        f"  {report.configured}",
        f"  {what}; {found.jobs:,} jobs; {report.seconds:.0f} s",
        f"  lost {found.lost} · unfinished {found.unfinished}{order} · effects of one job at most {found.effects_max}",
        f"  repeated: {found.repeated} of the jobs struck, {found.bystanders} others{back}",
    ]
    lines += [f"  wrong: {sentence}" for sentence in report.wrong]
    lines += [f"  did not happen: {sentence}" for sentence in report.missing]
    if report.crashed:
        lines.append(
            f"  {report.crashed} processes ended by themselves, the last with: {_last_line(report.last_words)}"
        )
    return lines


def _last_line(words: str) -> str:
    return one_line(next((line for line in reversed(words.splitlines()) if line.strip()), ""), chars_max=200)


class _Line:
    """One line on a terminal that is rewritten."""

    def __init__(self, contender: Contender) -> None:
        self._name = contender.name
        self._began = time.monotonic()

    def __call__(self, said: str) -> None:
        if sys.stderr.isatty():
            line = one_line(f"{self._name}: {said}, {time.monotonic() - self._began:.0f} s", chars_max=100)
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave nothing of it."""
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(main)
