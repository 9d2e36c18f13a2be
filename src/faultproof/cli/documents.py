"""What became of proofs, in full: one JSON document, or one page."""

from pathlib import Path
from typing import Literal

from faultproof.cli.pages import environment, nobodys, told
from faultproof.cli.tapes import replay_command
from faultproof.cli.verdicts import Options, Outcome, Status, scope, scope_at_random
from faultproof.prove.reports.facts import Mutant, ProofReport, Property, Run, Verdict, WorldVerdict
from faultproof.prove.reports.lines import struck
from faultproof.prove.simulated.explore import Report
from faultproof.prove.simulated.retelling import retold
from faultproof.prove.simulated.samples import samples

_VERDICTS: dict[Status, Verdict] = {
    Status.HELD: "held",
    Status.VIOLATED: "violated",
    Status.INCONCLUSIVE: "inconclusive",
    Status.ERROR: "failed",
}


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
        "random": _sampled(outcome.sampled, options) if outcome.sampled.schedules else None,
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


def _sampled(report: Report, options: Options) -> dict[str, object]:
    return {"seed": options.seed, **_numbers(report), "never_struck": report.unstruck}


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
        worlds=[_simulated(outcome, options), *(each.verdict for each in outcome.elsewhere)],
        properties=_properties(outcome),
        mutants=_mutants(outcome),
        runs=runs,
        error=None if outcome.error is None else nobodys(outcome.error),
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
            replay=None
            if outcome.tape is None
            else replay_command(Path(outcome.tape.name)),  # whose home it is in: no matter
        )
    ]


def _simulated(outcome: Outcome, options: Options) -> WorldVerdict:
    exhaustive, sampled = outcome.exhaustive, outcome.sampled
    verdict = _VERDICTS[outcome.status]
    if outcome.violation is None and verdict in ("violated", "inconclusive") and outcome.exhaustive.distinct:
        # By a planted bug that survived, or in another world: here the claim held, if what was to happen did.
        verdict = "inconclusive" if outcome.never or sampled.unstruck else "held"
    sentences = [scope(exhaustive, options.depth)] if exhaustive.distinct else ["no fault could strike anywhere"]
    if sampled.schedules:
        sentences.append(scope_at_random(sampled, options.seed))
    seconds, schedules = exhaustive.seconds + sampled.seconds, exhaustive.schedules + sampled.schedules
    return WorldVerdict(
        world="simulated", verdict=verdict, scope=sentences, numbers={"schedules": schedules, "seconds": seconds}
    )


def _properties(outcome: Outcome) -> list[Property]:
    if outcome.error is not None:
        return []
    if outcome.story is not None:
        # One run is shown; what became of the other properties in other runs has not been looked at.
        claimed = [
            Property(
                kind=each.kind, claim=each.claim, verdict="violated" if each.wrong else "not broken", seen=each.wrong
            )
            for each in outcome.story.judged
            if each.kind != "sometimes" and (each.wrong or each.kind != "ends")
        ]
    else:
        claimed = [
            *(Property(kind="always", claim=each.claim, verdict="held") for each in outcome.proof.always),
            *(Property(kind="eventually", claim=each.claim, verdict="held") for each in outcome.proof.eventually),
        ]
    return claimed + [_sometimes(outcome, each.claim) for each in outcome.proof.sometimes]


def _sometimes(outcome: Outcome, claim: str) -> Property:
    shows = (
        run.title for run in outcome.runs if any(each.claim == claim and each.happened for each in run.story.judged)
    )
    verdict: Literal["never", "happened"] = "never" if claim in outcome.never else "happened"
    return Property(kind="sometimes", claim=claim, verdict=verdict, shown=next(shows, None))


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
    return (
        "; ".join(f"{what}, {where}" if where else what for what, where in struck(planted.story)) or "without a fault"
    )
