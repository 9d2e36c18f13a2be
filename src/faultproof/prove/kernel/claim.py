"""The claim's proof: two workers, any of whom recovers what another leaves behind, under crashes and frozen processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from faultproof.errors import LeaseLost, OutcomeUnknown, TryAgain
from faultproof.ports.claims import Claim, Holder
from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from faultproof.prove.kernel import claim_history as history
from faultproof.prove.kernel.asking import answered
from faultproof.prove.proof import Always, Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted

KIND = "job"
TTL_S = 0.5
TTL_US = int(TTL_S * 1_000_000)
LOOK_S = 0.3
LOOKS_MAX = 100
"""After which everybody goes home: long after every lease has ended."""
HOUR_US = 3_600_000_000
ATTEMPTS = 2
"""After which the job that always fails is given up."""


class Task(NamedTuple):
    """What is to be done: a job's name, and how often it comes back under the same id."""

    job: str
    rounds: int = 1
    delay_us: int = 0


TASKS = (Task("again", rounds=2), Task("fails"), Task("later", delay_us=HOUR_US))
"""One id is used twice; one job always fails; one is due in an hour, is hastened, and is given back once."""
ROUNDS = sum(task.rounds for task in TASKS)


@sql("INSERT INTO added (job, round) VALUES (:job, :round) ON CONFLICT (job, round) DO NOTHING RETURNING job")
def _first_time(job: str, round: int) -> str | None: ...


async def _prepare(database: Database) -> None:
    await database.install(database.claims.schema)
    async with database.transaction() as tx:
        await tx.execute(history.TABLE)
        await tx.execute("CREATE TABLE added (job TEXT NOT NULL, round BIGINT NOT NULL, PRIMARY KEY (job, round))")


async def clerk(process: Process) -> None:
    """Adds the jobs, each round of one after the last has ended, and hastens what is late."""
    database = process.database()

    def add(task: Task, round: int) -> Script[bool]:
        if (yield from history.count(task.job, "finished")) < round:
            return False
        if (yield from _first_time(task.job, round)) is not None:
            yield from database.claims.add(KIND, [task.job], delay_us=task.delay_us)
            yield from history.write(task.job, "added", 0, 0, 0, 0)
        return True

    def hasten(task: Task) -> Script[None]:
        if (yield from history.count(task.job, "hastened")) == 0:
            yield from database.claims.hasten(KIND, [task.job])
            yield from history.write(task.job, "hastened", 0, 0, 0, 0)

    for task in TASKS:
        await answered(process, lambda task=task: database.transact(lambda: add(task, 0)))  # type: ignore[misc]
        if task.delay_us:
            await answered(process, lambda task=task: database.transact(lambda: hasten(task)))  # type: ignore[misc]
    for task in TASKS:
        for round in range(1, task.rounds):
            for _ in range(LOOKS_MAX):
                if await answered(process, lambda task=task, round=round: database.transact(lambda: add(task, round))):  # type: ignore[misc]
                    break
                await process.env.clock.sleep(LOOK_S)
    process.note("added", ROUNDS)


class Worker:
    """Takes one job after the other. Each method that is a script is one transaction; the planted bugs replace some."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.database = process.database()
        self.claims = self.database.claims
        self.owner = process.env.process

    async def run(self) -> None:
        """One job after the other, and a pause where there is none."""
        for _ in range(LOOKS_MAX):
            try:
                claim = await self.database.transact(self.take)
                if claim is not None:
                    await self.work(claim)
                    continue
            except LeaseLost:
                self.process.note("refused", self.owner)
            except TryAgain:
                pass
            except OutcomeUnknown:  # whatever is still ours falls to somebody when its lease ends
                pass
            await self.process.env.clock.sleep(LOOK_S)

    async def work(self, claim: Claim) -> None:
        """Longer than one transaction, so that somebody else may have taken over before each of them."""
        await self.effect(claim)
        for pause_s in _pauses(claim):
            await self.process.env.clock.sleep(pause_s)
            if not await self.database.transact(lambda: self.renew(claim)):
                raise LeaseLost("somebody else has taken over")
        await self.database.transact(lambda: self.end(claim))

    def take(self) -> Script[Claim | None]:
        claims = yield from self.claims.take(KIND, self.owner, ttl_us=TTL_US, limit=1)
        for claim in claims:
            yield from self._write_lease("taken", claim)
        return claims[0] if claims else None

    async def effect(self, claim: Claim) -> None:
        """Something that only the holder may do."""
        await self.database.transact(lambda: self._guarded_effect(claim))

    def renew(self, claim: Claim) -> Script[bool]:
        renewed = yield from self.claims.renew(KIND, [claim], ttl_us=TTL_US)
        for still in renewed:
            yield from self._write_lease("renewed", still)
        return bool(renewed)

    def end(self, claim: Claim) -> Script[None]:
        """The first holder of "later" gives it back; what fails is tried again or given up; the rest is done."""
        if claim.id == "fails":
            yield from self.fail(claim)
        elif claim.id == "later" and (yield from history.count("later", "released")) == 0:
            yield from self.release(claim)
        else:
            yield from self.finish(claim)

    def finish(self, claim: Claim) -> Script[None]:
        yield from self.claims.finish(KIND, [claim])
        yield from history.write(claim.id, "finished", claim.token, 0, 0, 0)

    def fail(self, claim: Claim) -> Script[None]:
        retry_in_us = None if claim.attempts >= ATTEMPTS else 50_000
        yield from self.claims.fail(KIND, claim, error="it always fails", retry_in_us=retry_in_us)
        yield from history.write(claim.id, "dead" if retry_in_us is None else "failed", claim.token, 0, 0, 0)

    def release(self, claim: Claim) -> Script[None]:
        yield from self.claims.release(KIND, [claim])
        yield from history.write_if_latest(claim.id, "released", claim.token)

    def _guarded_effect(self, claim: Claim) -> Script[None]:
        yield from self.claims.guard(KIND, [claim])
        yield from history.write(claim.id, "worked on", claim.token, 0, 0, 0)

    def _write_lease(self, what: str, claim: Claim) -> Script[None]:
        holders: list[Holder] = yield from self.claims.holders(KIND)
        for until_us in (holder.until_us for holder in holders if holder.id == claim.id):
            yield from history.write(claim.id, what, claim.token, claim.attempts, until_us - TTL_US, until_us)


def _pauses(claim: Claim) -> Sequence[float]:
    """Between an effect and the end, each followed by a renewal. Whoever takes "later" over is at it for long, so that the
    former holder wakes up meanwhile."""
    if claim.id != "later":
        return ()
    return (0.3, 0.3, 0.3, 0.3) if claim.attempts > 1 else (0.0,)


def _processes(plant: str | None) -> Mapping[str, Main]:
    from faultproof.prove.kernel.claim_planted import PLANTED  # its workers are this one's children

    kind = PLANTED.get(plant or "", Worker)

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
             AND job NOT IN (SELECT id FROM faultproof_claim WHERE dead = 0)"""
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
    left = evidence.fetch("SELECT id, dead FROM faultproof_claim")
    if left != [("fails", 1)]:
        wrong.append(f"of the claims {left} are left, not the one that was given up")
    return wrong


CLAIM = Proof(
    name="faultproof.prove.kernel.claim:CLAIM",
    claim=(
        "Every job that was added is finished or given up, once, whoever dies: any worker takes over what another leaves. "
        "Nobody takes it before its lease has ended; from then on nothing that the former holder does to it counts, not even "
        "when its id was finished and added again. Attempts are counted, and a job is due when it was said to be."
    ),
    faults=(
        "a process dies before or after any commit, message or answer, and is started again",
        "a process is frozen there for longer than its leases, replaced, and wakes up",
    ),
    assumptions=(
        "a commit that was acknowledged survives (the database's durability setting)",
        "whatever only the holder may do shares a transaction with `guard`, or with the call that ends the claim",
    ),
    not_tested=(
        "two takers at the same time: simulated SQLite has one writer",
        "power loss: a killed process does not test what the disk keeps",
        "an engine's clock that jumps: by it leases end",
    ),
    prepare=_prepare,
    processes=_processes,
    done=_done,
    always=(Always(claim="a job that has not ended has a claim, for somebody to take", wrong=_lost),),
    eventually=(
        Eventually(claim="each job has ended as often as it was added", wrong=_wrong_ends),
        Eventually(claim="whatever happened to a job was done by the last who had taken it", wrong=history.wrong),
    ),
    sometimes=(
        Sometimes(
            claim="a worker takes over what another has left",
            happened=lambda evidence: bool(
                evidence.fetch("SELECT 1 FROM history WHERE what = 'taken' AND attempts > 1 AND job <> 'fails' LIMIT 1")
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
)
