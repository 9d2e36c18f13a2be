"""What became of proofs, in full: one JSON document, or one page."""

import os
import platform
import sqlite3
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from faultproof.cli.tapes import replay_command
from faultproof.cli.verdicts import Options, Outcome, Status, results
from faultproof.errors import InvalidInput
from faultproof.prove.reports.facts import Document, Mutant, ProofReport, Property, Run, Verdict, WorldVerdict
from faultproof.prove.reports.lines import at, expected_and_seen, operations, struck
from faultproof.prove.reports.page import page
from faultproof.prove.simulated.explore import Report
from faultproof.prove.simulated.retelling import retold
from faultproof.prove.simulated.samples import samples
from faultproof.prove.story import Story

_VERDICTS: dict[Status, Verdict] = {
    Status.HELD: "held",
    Status.VIOLATED: "violated",
    Status.INCONCLUSIVE: "inconclusive",
    Status.ERROR: "failed",
}
_OPERATIONS_MAX = 12


def page_path(name: str | None) -> Path | None:
    """Where the page goes: to learn after an hour that it cannot be written would be late."""
    if name is None:
        return None
    path = Path(name)
    if not name or path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InvalidInput(f"the page cannot be written to {name!r}: name a file in a directory that is writable")
    return path


def document(outcome: Outcome, options: Options) -> dict[str, object]:
    """What a terminal is told, with nothing cut."""
    report = report_of(outcome, options)
    return {
        "proof": report.name,
        "outcome": outcome.status.name.lower(),
        "claim": report.claim,
        "faults": report.faults,
        "assumptions": report.assumptions,
        "not_tested": report.not_tested,
        "depth": options.depth,
        "worlds": report.worlds,
        "properties": report.properties,
        "exhaustive": _numbers(outcome.exhaustive),
        "random": {"seed": options.seed, **_numbers(outcome.sampled)} if outcome.sampled.schedules else None,
        "violation": _violation(outcome),
        "sometimes": [
            {"claim": each.claim, "happened": each.claim not in outcome.never} for each in outcome.proof.sometimes
        ],
        "plants": [
            {"plant": plant.plant, "caught": plant.violation is not None, "violation": _violation(plant)}
            for plant in outcome.plants
        ],
        "error": outcome.error,
        "environment": environment(),
    }


def _numbers(report: Report) -> dict[str, object]:
    return {
        "points": report.points,
        "distinct": report.distinct,
        "schedules": report.schedules,
        "seconds": report.seconds,
        "violated": bool(report.violations),
    }


def _violation(outcome: Outcome) -> dict[str, object] | None:
    if outcome.violation is None:
        return None
    tape, story = outcome.tape, outcome.story
    return {
        "faults": outcome.violation.faults,
        "seen": outcome.violation.sentences,
        "tape": None if tape is None else str(tape),
        "replay": None if tape is None else replay_command(tape),
        **({} if story is None else told(story)),
    }


def told(story: Story) -> dict[str, object]:
    """A run in few words, and in full."""
    return {
        "struck": [{"what": what, "at": where or None} for what, where in struck(story)],
        "operations": operations(story, _OPERATIONS_MAX),
        "expected": [{"expected": expected, "seen": seen} for expected, seen in expected_and_seen(story)],
        "history": story,
    }


def environment() -> dict[str, str]:
    """Versions and the kind of machine: nothing that says whose."""
    return {
        "faultproof": version("faultproof"),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "SQLite": sqlite3.sqlite_version,
        "system": f"{platform.system()} on {platform.machine() or 'an unknown machine'}, {os.cpu_count() or 1} cores",
    }


def written(outcomes: Sequence[Outcome], options: Options, path: Path) -> bool:
    """Write the page; whether that worked: if not, stderr says why, for the verdict is as true without it."""
    return write([report_of(outcome, options) for outcome in outcomes], path)


def write(reports: Sequence[ProofReport], path: Path) -> bool:
    """Write a page of these."""
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    try:
        path.write_text(page(Document(proofs=reports, environment=environment(), when=when)), encoding="utf-8")
    except OSError as error:
        print(f"the page could not be written to {path}: {error.strerror}", file=sys.stderr)
        return False
    return True


def shown(outcome: Outcome) -> list[Run]:
    """Of a proof that held, the runs that are worth looking at, told in full."""
    return [
        Run(
            title=sample.title,
            why=sample.why,
            story=retold(outcome.proof, sample.answers),
            answers=sorted(sample.answers.items()),
        )
        for sample in samples(outcome.proof)
    ]


def report_of(outcome: Outcome, options: Options) -> ProofReport:
    """All that is known about a proof, in the words that every world's verdict is told in."""
    proof = outcome.proof
    runs = [*_violating(outcome, "The smallest run that violates it"), *outcome.runs]
    runs += [run for plant in outcome.plants for run in _violating(plant, f"With {plant.plant!r} planted")]
    return ProofReport(
        name=proof.name,
        verdict=_VERDICTS[outcome.status],
        claim=proof.claim,
        faults=proof.faults,
        assumptions=proof.assumptions,
        not_tested=proof.not_tested,
        worlds=[_simulated(outcome, options)],
        properties=_properties(outcome),
        mutants=_mutants(outcome),
        runs=runs,
        error=outcome.error,
    )


def _violating(outcome: Outcome, title: str) -> list[Run]:
    violation, story = outcome.violation, outcome.story
    if violation is None or story is None:
        return []
    return [
        Run(
            title=title,
            why=f"struck by: {', '.join(violation.faults) or 'nothing'}",
            story=story,
            answers=sorted(violation.answers.items()),
            plant=outcome.plant,
            replay=None if outcome.tape is None else replay_command(outcome.tape),
        )
    ]


def _simulated(outcome: Outcome, options: Options) -> WorldVerdict:
    exhaustive, sampled = outcome.exhaustive, outcome.sampled
    status = Status.VIOLATED if outcome.violation else outcome.status  # a plant that survives is no fault of the claim's
    if status is Status.VIOLATED and outcome.violation is None:
        status = Status.HELD
    return WorldVerdict(
        world="simulated",
        verdict=_VERDICTS[status],
        scope=results(outcome, options),
        numbers={
            "points": exhaustive.points,
            "distinct points": exhaustive.distinct,
            "schedules": exhaustive.schedules + sampled.schedules,
            "of them random": sampled.schedules,
            "seconds": round(exhaustive.seconds + sampled.seconds, 1),
        },
    )


def _properties(outcome: Outcome) -> list[Property]:
    if outcome.error is not None:
        return []
    if outcome.story is not None:
        return _properties_broken(outcome, outcome.story)
    proof, never = outcome.proof, outcome.never
    claims = [
        *(Property(kind="always", claim=each.claim, verdict="held") for each in proof.always),
        *(Property(kind="eventually", claim=each.claim, verdict="held") for each in proof.eventually),
    ]
    for each in proof.sometimes:
        shows = (run.title for run in outcome.runs if any(j.claim == each.claim and j.happened for j in run.story.judged))
        verdict = "never" if each.claim in never else "happened"
        claims.append(Property(kind="sometimes", claim=each.claim, verdict=verdict, shown=next(shows, None)))
    return claims


def _properties_broken(outcome: Outcome, story: Story) -> list[Property]:
    """One run is shown; what became of the other properties in other runs has not been looked at."""
    never = outcome.never
    properties = []
    for each in story.judged:
        if each.kind == "sometimes":
            verdict = "never" if each.claim in never else "happened"
            properties.append(Property(kind=each.kind, claim=each.claim, verdict=verdict))
        elif each.wrong or each.kind != "ends":
            broken = "violated" if each.wrong else "not broken"
            properties.append(Property(kind=each.kind, claim=each.claim, verdict=broken, seen=each.wrong))
    return properties


def _mutants(outcome: Outcome) -> list[Mutant]:
    breaks = {plant.name: plant.breaks for plant in outcome.proof.plants}
    return [
        Mutant(
            name=plant.plant or "",
            kind="planted by hand",
            breaks=breaks.get(plant.plant or "", ""),
            killed_by=_killer(plant),
        )
        for plant in outcome.plants
    ]


def _killer(planted: Outcome) -> str | None:
    if planted.violation is None:
        return None
    if planted.story is None:
        return " and ".join(planted.violation.faults) or "without a fault"
    return "; ".join(f"{what}, {where}" if where else what for what, where in struck(planted.story)) or "without a fault"
