"""A contender under a trial, as a proof: what is asked for, when it is settled, and what must hold then."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import msgspec

from benchmarks.faults.model import KEYS, PRODUCER, Contender, Trial
from faultproof.ports.database import Database
from faultproof.prove.proof import Eventually, Evidence, Process, Proof, Sometimes

NAMED_MAX = 5
"""Jobs that a sentence names."""
ZOMBIE_S = 5.0
"""How long a process that was continued is watched."""

_TABLES = (
    "CREATE TABLE trial (said TEXT NOT NULL)",
    "CREATE TABLE present (process TEXT PRIMARY KEY)",
    "CREATE TABLE enqueued (at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())",
    """CREATE TABLE effect (n BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, job INTEGER NOT NULL, process TEXT NOT NULL,
         life INTEGER NOT NULL, at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())""",
    "CREATE INDEX effect_job ON effect (job)",
    """CREATE TABLE strike (job INTEGER PRIMARY KEY, process TEXT NOT NULL, life INTEGER NOT NULL,
         at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())""",
)

_QUIET = """SELECT extract(epoch FROM clock_timestamp() - max(at)) FROM
    (SELECT at FROM effect UNION ALL SELECT at FROM enqueued UNION ALL SELECT at FROM strike) AS moments"""
_SINCE_STRIKE = "SELECT extract(epoch FROM clock_timestamp() - max(at)) FROM strike"


def proof_of(contender: Contender, trial: Trial) -> Proof:
    """The contender's promise about this trial."""
    if contender.promise == "left to be found":
        eventually = [
            Eventually(
                claim="every job has its effect, or is left to be found", wrong=partial(_missing, contender, trial)
            ),
            Eventually(claim="no more are left than workers died", wrong=partial(_more_left, contender, trial)),
        ]
    else:
        eventually = [
            Eventually(claim="every job has its effect", wrong=partial(_lost, trial)),
            Eventually(claim="no job is left unfinished", wrong=partial(_stuck, contender)),
        ]
    if contender.promise == "once":
        eventually.append(Eventually(claim="no job has its effect twice", wrong=_repeated))
    if contender.in_order:
        eventually.append(Eventually(claim="effects of a key begin in order", wrong=_disordered))
    return Proof(
        name=f"benchmarks.faults.index:{contender.name}",
        claim=contender.claims,
        faults=(trial.fault,),
        assumptions=("a commit that was acknowledged survives",),
        not_tested=("power loss, lost connections, clocks that jump", "deaths in the middle of the library's own work"),
        prepare=partial(_prepare, trial),
        processes=lambda plant: dict.fromkeys((PRODUCER, *trial.workers), _elsewhere),
        done=partial(_is_done, contender, trial),
        eventually=tuple(eventually),
        sometimes=_sometimes(trial),
    )


def _sometimes(trial: Trial) -> tuple[Sometimes, ...]:
    if trial.fault not in ("kill", "stop"):
        return ()
    # Who waits for a worker that is stopped is not stopped itself, so there may be fewer than were asked for.
    least = trial.strikes if trial.fault == "kill" else 1
    return (
        Sometimes(claim=f"it was struck, {least} times or more", happened=lambda seen: len(strikes(seen)) >= least),
    )


async def _elsewhere(process: Process) -> None:
    raise NotImplementedError(f"{process.name} is a program of its own: benchmarks.faults.crew")


async def _prepare(trial: Trial, database: Database) -> None:
    async with database.transaction() as tx:
        for statement in _TABLES:
            await tx.execute(statement)
        await tx.execute("INSERT INTO trial VALUES (%s)", msgspec.json.encode(trial).decode())


# -- what is asked of the evidence ------------------------------------------------------------------------------------


def _one(evidence: Evidence, sql: str) -> float:
    ((value,),) = evidence.fetch(sql)
    return float(value or 0)


def effects(evidence: Evidence) -> dict[int, int]:
    """How often each job had its effect, of those that had it."""
    return dict(evidence.fetch("SELECT job, count(*)::int FROM effect GROUP BY job"))


def strikes(evidence: Evidence) -> dict[int, float | None]:
    """The jobs that were struck, and after how many seconds each had its effect again, if it had."""
    return {
        job: None if seconds is None else float(seconds)
        for job, seconds in evidence.fetch(
            """SELECT s.job, extract(epoch FROM (SELECT min(e.at) FROM effect e WHERE e.job = s.job AND e.at > s.at) - s.at)
               FROM strike s"""
        )
    }


def lost(evidence: Evidence, trial: Trial) -> list[int]:
    """Jobs without any effect."""
    return sorted(set(range(1, trial.jobs + 1)) - effects(evidence).keys())


def unfinished(evidence: Evidence, contender: Contender) -> int:
    """Jobs that the contender has not done."""
    return int(_one(evidence, contender.unfinished))


def disordered(evidence: Evidence) -> list[int]:
    """Jobs whose first effect came after that of a later job of their key."""
    last: dict[int, int] = {}
    found = []
    for (job,) in evidence.fetch("SELECT job FROM effect GROUP BY job ORDER BY min(n)"):
        if job < last.get(job % KEYS, 0):
            found.append(job)
        last[job % KEYS] = max(job, last.get(job % KEYS, 0))
    return found


def _is_done(contender: Contender, trial: Trial, evidence: Evidence) -> bool:
    """Everything is finished; or nothing has happened for so long that what is not will not be."""
    if not evidence.fetch("SELECT 1 FROM enqueued"):
        return False
    ((since_strike,),) = evidence.fetch(_SINCE_STRIKE)
    if trial.fault == "stop" and since_strike is not None and since_strike < trial.stop_s + ZOMBIE_S:
        return False  # a stopped process may still do harm
    if _one(evidence, _QUIET) > contender.patience_s:
        return True
    return not unfinished(evidence, contender) and not lost(evidence, trial)


def _named(jobs: list[int]) -> str:
    return ", ".join(map(str, jobs[:NAMED_MAX])) + (" …" if len(jobs) > NAMED_MAX else "")


def _lost(trial: Trial, evidence: Evidence) -> list[str]:
    jobs = lost(evidence, trial)
    return [f"{len(jobs)} of {trial.jobs} jobs have no effect: {_named(jobs)}"] if jobs else []


def _stuck(contender: Contender, evidence: Evidence) -> list[str]:
    count = unfinished(evidence, contender)
    if not count:
        return []
    return [f"{count} jobs are unfinished after {contender.patience_s:.0f} s in which nothing happened"]


def _missing(contender: Contender, trial: Trial, evidence: Evidence) -> list[str]:
    return _lost(trial, evidence) if len(lost(evidence, trial)) > unfinished(evidence, contender) else []


def _more_left(contender: Contender, trial: Trial, evidence: Evidence) -> list[str]:
    left, died = unfinished(evidence, contender), len(strikes(evidence))
    if trial.fault == "server":
        died = trial.strikes * len(trial.workers)
    return [f"{left} jobs are unfinished, and at most {died} workers died"] if left > died else []


def _repeated(evidence: Evidence) -> list[str]:
    jobs = sorted(job for job, count in effects(evidence).items() if count > 1)
    return [f"{len(jobs)} jobs have their effect more than once: {_named(jobs)}"] if jobs else []


def _disordered(evidence: Evidence) -> list[str]:
    jobs = disordered(evidence)
    return [f"{len(jobs)} jobs began after a later one of their key: {_named(jobs)}"] if jobs else []


# -- what is reported besides the verdict -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a run came to, in numbers."""

    jobs: int
    strikes: int
    """That really struck."""
    lost: int
    unfinished: int
    repeated: int
    """Jobs that were struck and had their effect again."""
    bystanders: int
    """Jobs that were not struck, and had their effect more than once all the same."""
    effects_max: int
    """Of one job."""
    disordered: int | None
    """None where no order is promised."""
    back_s: float | None
    """Median from a strike to the next effect of its job …"""
    back_s_max: float | None
    """… and the longest."""


def findings(evidence: Evidence, contender: Contender, trial: Trial) -> Findings:
    """Count."""
    counts, struck = effects(evidence), strikes(evidence)
    back = sorted(seconds for seconds in struck.values() if seconds is not None)
    return Findings(
        jobs=trial.jobs,
        strikes=len(struck),
        lost=len(lost(evidence, trial)),
        unfinished=unfinished(evidence, contender),
        repeated=sum(1 for job in struck if counts.get(job, 0) > 1),
        bystanders=sum(1 for job, count in counts.items() if count > 1 and job not in struck),
        effects_max=max(counts.values(), default=0),
        disordered=len(disordered(evidence)) if contender.in_order else None,
        back_s=back[len(back) // 2] if back else None,
        back_s_max=back[-1] if back else None,
    )
