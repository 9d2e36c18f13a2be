"""What is done under claims while faults strike: a clerk adds jobs, workers take them, and whoever dies leaves them behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from faultproof.errors import LeaseLost, OutcomeUnknown, TryAgain
from faultproof.ports.claims import Claim, Holder
from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from faultproof.prove.kernel import claim_history as history
from faultproof.prove.kernel.asking import answered
from faultproof.prove.proof import Process

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


async def prepare(database: Database) -> None:
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


class JobWorker:
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
        if renewed:  # under the token that was presented, whatever came back
            yield from self._write_lease("renewed", claim)
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
