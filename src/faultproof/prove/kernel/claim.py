"""The claim's proof: two workers, any of whom recovers what another leaves behind, under crashes and frozen processes."""

from __future__ import annotations

from collections.abc import Mapping

from faultproof.prove.kernel import claim_history as history
from faultproof.prove.kernel import survivors
from faultproof.prove.kernel.claim_planted import PLANTED
from faultproof.prove.kernel.claim_workload import ROUNDS, TASKS, JobWorker, clerk, prepare
from faultproof.prove.proof import (
    ANY_FAULT,
    Always,
    Eventually,
    Evidence,
    Main,
    Plant,
    Process,
    Proof,
    Sometimes,
    noted,
)


def _processes(plant: str | None) -> Mapping[str, Main]:
    kind = PLANTED.get(plant or "", JobWorker)

    async def worker(process: Process) -> None:
        await kind(process).run()

    return {"clerk": clerk, "worker-1": worker, "worker-2": worker}


# -- the verdict ----------------------------------------------------------------------------------------------------


def _done(evidence: Evidence) -> bool:
    if not noted(evidence, "added"):
        return False
    ((ended,),) = evidence.fetch("SELECT count(*) FROM history WHERE what IN ('finished', 'dead')")
    return bool(ended >= ROUNDS)


def _lost(evidence: Evidence) -> list[str]:
    lost = evidence.fetch(
        """SELECT job FROM history GROUP BY job
           HAVING count(CASE WHEN what = 'added' THEN 1 END) > count(CASE WHEN what IN ('finished', 'dead') THEN 1 END)
             AND job NOT IN (SELECT id FROM faultproof_claim WHERE kind = 'job' AND dead = 0)"""
    )
    return [f"{job} has not ended, and there is no claim to be taken" for (job,) in lost]


def _wrong_ends(evidence: Evidence) -> list[str]:
    found = evidence.fetch(
        """SELECT job, count(CASE WHEN what = 'finished' THEN 1 END), count(CASE WHEN what = 'dead' THEN 1 END),
                  count(CASE WHEN what = 'failed' THEN 1 END)
           FROM history GROUP BY job ORDER BY job"""
    )
    ends = {job: (finished, dead) for job, finished, dead, _ in found}
    expected = {task.job: (0, 1) if task.job == "fails" else (task.rounds, 0) for task in TASKS}
    wrong = [] if ends == expected else [f"jobs were finished and given up {ends}, not {expected}"]
    left = evidence.fetch("SELECT id, dead FROM faultproof_claim WHERE kind = 'job' ORDER BY id")
    if left != [("fails", 1), ("later still", 0)]:
        wrong.append(
            f"of the claims {left} are left, not the one that was given up and the one whose time has not come"
        )
    return wrong


def _touched(evidence: Evidence) -> list[str]:
    touched = evidence.fetch(
        """SELECT id FROM (SELECT * FROM others EXCEPT SELECT * FROM faultproof_claim WHERE kind = 'errand') AS changed"""
    )
    return [f"{id} of another kind was touched" for (id,) in touched]


CLAIM = Proof(
    name="faultproof.prove.kernel.claim:CLAIM",
    claim=(
        "Every job that was added is finished or given up, once, whoever dies: any worker takes over what another leaves. "
        "Nobody takes it before its lease has ended; from then on nothing that the former holder does to it counts, not even "
        "when its id was finished and added again. Attempts are counted, and a job is due when it was said to be."
    ),
    faults=ANY_FAULT,
    assumptions=(
        "a commit that was acknowledged survives (the database's durability setting)",
        "whatever only the holder may do shares a transaction with `guard`, or with the call that ends the claim",
    ),
    not_tested=("two takers at the same time: simulated SQLite has one writer",),
    prepare=prepare,
    processes=_processes,
    done=_done,
    always=(Always(claim="a job that has not ended has a claim, for somebody to take", wrong=_lost),),
    eventually=(
        Eventually(claim="each job has ended as often as it was added", wrong=_wrong_ends),
        Eventually(claim="who was told how a job has ended was told the truth", wrong=history.broken_words),
        Eventually(claim="who was refused has a successor", wrong=history.wrong_refusals),
        Eventually(claim="what others hold under the same ids is left alone", wrong=_touched),
        Eventually(claim="whatever happened to a job was done by the last who had taken it", wrong=history.wrong),
    ),
    sometimes=(
        Sometimes(
            claim="a worker takes over what another has left",
            happened=lambda evidence: bool(
                evidence.fetch("SELECT 1 FROM history WHERE what = 'taken' AND attempts > 1 AND job = 'later' LIMIT 1")
            ),
        ),
        Sometimes(
            claim="a worker that was frozen is refused",
            happened=lambda evidence: bool(noted(evidence, "refused")),
        ),
        Sometimes(
            claim="a job is given up",
            happened=lambda evidence: bool(evidence.fetch("SELECT 1 FROM history WHERE what = 'dead' LIMIT 1")),
        ),
    ),
    plants=(
        Plant(name="no guard", breaks="an effect does not ask for the token: a frozen worker repeats it when it wakes"),
        Plant(
            name="guard apart", breaks="the token is asked for in an earlier transaction: it may have been lost since"
        ),
        Plant(
            name="finished by id", breaks="who finishes presents no token: a frozen worker ends its successor's work"
        ),
        Plant(name="failed by id", breaks="who fails presents no token: a frozen worker gives its successor's job up"),
        Plant(name="released by id", breaks="who gives back presents no token: the successor's job is free to a third"),
        Plant(
            name="renewed by id", breaks="who renews presents no token: a frozen worker takes its successor for itself"
        ),
        Plant(name="attempts as token", breaks="a token is given out again when the count begins anew"),
        Plant(name="takes what is held", breaks="nobody waits for a lease to end"),
        Plant(
            name="recovers only its own", breaks="what a dead worker held is left to a worker of the same name for ever"
        ),
        Plant(name="acknowledges early", breaks="the claim is finished before the work: a crash between loses the job"),
        Plant(name="fails as released", breaks="a failed attempt is given back in good order: it is never given up"),
    ),
    survivors=survivors.CLAIM,
    answers_for=("engines.sqlite.claims.",),
)
