"""`faultproof prove --mutants`: what becomes of a proof when something is left out of its scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from faultproof.cli.output import one_line
from faultproof.cli.verdicts import Status
from faultproof.prove.harness import Tell
from faultproof.prove.mutants.groups import Group, targets
from faultproof.prove.mutants.hunt import FATES, Effort, Outcome
from faultproof.prove.mutants.mutant import KINDS
from faultproof.prove.mutants.verdict import Verdict, explained, judged
from faultproof.prove.proof import Survivor
from faultproof.prove.reports.facts import Hunt, Mutant

if TYPE_CHECKING:
    from faultproof.prove.mutants.stepping import Stage

_COMPLAINTS_MAX = 8


Server = Callable[[], AbstractContextManager[str]]
"""The URL of a PostgreSQL server, for a while."""


def hunted(group: Group, progress: Tell, server: Server | None = None) -> Verdict:
    """Every mutant of these proofs; those that live are stepped through on a `server`, if there is one.

    Raises `HarnessError` if a proof or a case does not hold, and `InvalidInput` if a list of survivors is not in order.
    """
    effort = Effort()
    stage = None if server is None else partial(_stage, group, server)
    return judged(targets(group, effort), group.survivors, effort, stage=stage, progress=progress)


@contextmanager
def _stage(group: Group, server: Server) -> Iterator[Stage]:
    from faultproof.prove.mutants.stepping import stage_of  # takes PostgreSQL's driver

    with server() as url, stage_of(group, url) as stage:
        yield stage


def status_of(verdict: Verdict) -> Status:
    """A mutant that nobody can explain is as bad as a claim that does not hold."""
    return Status.VIOLATED if verdict.complaints else Status.HELD


def print_mutants(group: Group, verdict: Verdict, out: Console) -> None:
    """A table by kind, and what wants attention."""
    out.print(Text(f"{group.name}: {len(verdict.outcomes)} mutants", style="bold"), soft_wrap=True)
    counts = verdict.count()
    table = Table.grid(padding=(0, 2, 0, 0))
    for head in ("", *FATES):
        table.add_column(head, justify="left" if not head else "right")
    table.add_row("", *FATES)
    for kind in KINDS:
        table.add_row(kind, *(str(counts[kind, fate]) for fate in FATES))
    out.print(table)
    for survivor in {id(each): each for each in explained(verdict.survivors).values()}.values():
        guarded = ", and killed without both" if survivor.twin else ""
        guarded += f" (noticed by {survivor.stepped.partition(':')[2]}, stepped)" if survivor.stepped else ""
        out.print(Text(f"{len(survivor.mutants)} survive{guarded}: {one_line(survivor.reason, 160)}"), soft_wrap=True)
    complaints = verdict.complaints
    more = [f"and {len(complaints) - _COMPLAINTS_MAX} more"] if len(complaints) > _COMPLAINTS_MAX else []
    for complaint in [*complaints[:_COMPLAINTS_MAX], *more]:
        out.print(Text(one_line(complaint, 300), style="red"), soft_wrap=True)
    out.print()


def hunt_of(group: Group, verdict: Verdict) -> Hunt:
    """For a page."""
    reasons = explained(verdict.survivors)
    return Hunt(
        name=group.name,
        proofs=[proof.name for proof in group.proofs],
        mutants=[_told(outcome, reasons.get(outcome.label)) for outcome in [*verdict.outcomes, *verdict.twins]],
        complaints=verdict.complaints,
    )


def _told(outcome: Outcome, survivor: Survivor | None) -> Mutant:
    killed, fate = outcome.killed, outcome.fate
    reason = outcome.dearer or (None if survivor is None else survivor.reason)
    if fate == "idle" and reason is None:
        reason = "in none of its runs did it change anything: what the guard is there for did not come up"
    return Mutant(
        name=outcome.mutant,
        kind=outcome.kind,
        breaks="",
        killed_by=None if killed is None else f"{killed.how}: {' and '.join((*killed.faults, killed.sentence))}",
        reason=reason,
        fate="survived" if fate == "killed" else fate,
    )


def mutants_document(group: Group, verdict: Verdict) -> dict[str, object]:
    """The same for machines, with nothing cut."""
    reasons = explained(verdict.survivors)
    return {
        "mutants_of": group.name,
        "proofs": [proof.name for proof in group.proofs],
        "outcome": status_of(verdict).name.lower(),
        "complaints": verdict.complaints,
        "mutants": [
            {**_outcome(outcome), "reason": reasons[outcome.label].reason if outcome.label in reasons else None}
            for outcome in verdict.outcomes
        ],
        "pairs": [_outcome(outcome) for outcome in verdict.twins],
    }


def _outcome(outcome: Outcome) -> dict[str, object]:
    killed = outcome.killed
    return {
        "kind": outcome.kind,
        "mutant": outcome.mutant,
        "fate": outcome.fate,
        "killed_by": None if killed is None else killed._asdict(),
        "dearer": outcome.dearer,
        "schedules": outcome.schedules,
    }
