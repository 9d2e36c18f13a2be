"""What is done under claims while faults strike: a clerk adds jobs, workers take them, and whoever dies leaves them behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from faultproof.errors import LeaseLost, OutcomeUnknown, TryAgain
from faultproof.ports.claims import Claim, Holder
from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from faultproof.prove.kernel import claim_history as history
from faultproof.prove.kernel.asking import answered, now
from faultproof.prove.proof import Process

KIND = "job"
OTHERS = "errand"
"""A kind with the same ids, which nobody of ours may touch; it comes before ours in the order of the key."""
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
    """None: its time does not come."""
    delay_us: int = 0


TASKS = (
    Task("again", rounds=3),
    Task("fails"),
    Task("later", delay_us=HOUR_US),
    Task("later still", rounds=0, delay_us=HOUR_US),
)
"""One id is used three times, and the last time the clerk holds it from the first; one job always fails; two are due in an
hour, of which one is hastened, and given back once."""
ROUNDS = sum(task.rounds for task in TASKS)


@sql("INSERT INTO added (job, round) VALUES (:job, :round) ON CONFLICT (job, round) DO NOTHING RETURNING job")
def _first_time(job: str, round: int) -> str | None: ...


async def prepare(database: Database) -> None:
    await database.install(database.claims.schema)
    async with database.transaction() as tx:
        await tx.execute(history.TABLE)
        await tx.execute("CREATE TABLE added (job TEXT, round BIGINT, PRIMARY KEY (job, round))")
        for script in _others(database):
            await tx.run(script)
        await tx.execute("CREATE TABLE others AS SELECT * FROM faultproof_claim")


def _others(database: Database) -> list[Script[Any]]:
    """Somebody holds the same ids in another kind, with the tokens that ours will have, and keeps one for later."""
    claims = database.claims
    return [
        claims.add(OTHERS, ["removed"]),
        claims.remove(OTHERS),
        claims.add(OTHERS, ["later"], delay_us=HOUR_US),
        claims.hold(OTHERS, "somebody", ["again", "fails"], ttl_us=HOUR_US, held=lambda held: None),
    ]


async def clerk(process: Process) -> None:
    """Adds the jobs, each round of one after the last has ended, and hastens what is late."""
    database = process.database()

    worker = JobWorker(process)

    def add(task: Task, round: int) -> Script[bool]:
        if (yield from history.count(task.job, "finished")) < round:
            return False
        if (yield from _first_time(task.job, round)) is not None:
            if round < 2:
                yield from database.claims.add(KIND, [task.job], delay_us=task.delay_us)
            yield from history.write(task.job, "added", 0, 0, 0, 0)
            if round == 2:
                yield from worker.hold(task.job)
        return True

    def hasten(task: Task) -> Script[None]:
        if (yield from history.count(task.job, "hastened")) == 0:
            yield from database.claims.add(KIND, [task.job])  # which is there already
            yield from database.claims.hasten(KIND, [task.job])
            yield from history.write(task.job, "hastened", 0, 0, 0, 0)

    for task in TASKS:
        await answered(process, lambda task=task: database.transact(lambda: add(task, 0)))  # type: ignore[misc]
        if task.delay_us and task.rounds:
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
        self._former: Claim | None = None
        """Which it has given back."""

    async def run(self) -> None:
        """One job after the other, and a pause where there is none."""
        for _ in range(LOOKS_MAX):
            claim = None
            try:
                claim = await self.database.transact(self.take)
                if claim is not None:
                    self.process.note("took", f"{claim.id}/{claim.token}")
                    await self.work(claim)
                    continue
            except LeaseLost:
                self.process.note("refused", self.owner, *(claim or ())[:2])
            except TryAgain:
                pass
            except OutcomeUnknown:  # whatever is still ours falls to somebody when its lease ends
                pass
            await self.process.env.clock.sleep(LOOK_S)

    async def work(self, claim: Claim) -> None:
        """Longer than one transaction, so that somebody else may have taken over before each of them."""
        if self._former is not None and self._former.id == claim.id:
            former = self._former
            await self.outlive(lambda: self.fail(former), lambda: self.release(former))
        await self.effect(claim)
        for pause_s in _pauses(claim):
            await self.process.env.clock.sleep(pause_s)
            if not await self.database.transact(lambda: self.renew(claim)):
                raise LeaseLost("somebody else has taken over")
        ended = await self.database.transact(lambda: self.end(claim))
        if ended is not None:
            self.process.note("told", claim.id, ended, claim.token)
        if ended == "released":
            self._former = claim
            uses = (self._keep, self._guarded_effect, self.finish, self.fail)
            await self.outlive(*(partial(use, claim) for use in uses))

    def hold(self, job: str) -> Script[None]:
        """A new job that is its own from the first, under a lease that ends at once: so somebody else does it."""
        held = list[Claim]()
        yield from self.claims.hold(KIND, self.owner, [job], ttl_us=1, held=held.extend)
        yield from now()
        for claim in held:
            yield from self._write_lease("taken", claim)

    def take(self) -> Script[Claim | None]:
        claims = yield from self.claims.take(KIND, self.owner, ttl_us=TTL_US, limit=1)
        for claim in claims:
            yield from self._write_lease("taken", claim)
            yield from self._look()
        return claims[0] if claims else None

    async def effect(self, claim: Claim) -> None:
        """Something that only the holder may do."""
        await self.database.transact(lambda: self._guarded_effect(claim))

    def renew(self, claim: Claim) -> Script[bool]:
        renewed = yield from self.claims.renew(KIND, [claim], ttl_us=TTL_US)
        if renewed:  # under the token that was presented, whatever came back
            yield from self._write_lease("renewed", claim)
        return bool(renewed)

    def end(self, claim: Claim) -> Script[str | None]:
        """The first holder of "later" gives it back; what fails is tried again or given up; the rest is done. What became of
        it."""
        if claim.id == "fails":
            return (yield from self.fail(claim))
        if claim.id == "later" and (yield from history.count("later", "released")) == 0:
            return "released" if (yield from self.release(claim)) else None
        yield from self.finish(claim)
        return "finished"

    def finish(self, claim: Claim) -> Script[None]:
        yield from self.claims.finish(KIND, [claim])
        yield from history.write(claim.id, "finished", claim.token, 0, 0, 0)

    def fail(self, claim: Claim) -> Script[str]:
        is_last = claim.attempts >= ATTEMPTS
        yield from self.claims.fail(KIND, claim, error="it always fails", retry_in_us=None if is_last else 50_000)
        if is_last and (yield from self.claims.hasten(KIND, [claim.id])):  # in vain
            yield from history.write(claim.id, "hastened", claim.token, 0, 0, 0)
        ended = "dead" if is_last else "failed"
        yield from history.write(claim.id, ended, claim.token, 0, 0, 0)
        return ended

    def release(self, claim: Claim) -> Script[bool]:
        yield from self.claims.release(KIND, [claim])
        return bool((yield from history.write_if_latest(claim.id, "released", claim.token)))

    async def outlive(self, *attempts: Callable[[], Script[Any]]) -> None:
        """With a claim that was given back nothing can be done any more, whether somebody has taken the job since or not."""
        for attempt in attempts:
            with suppress(LeaseLost):
                await self.database.transact(attempt)

    def _keep(self, claim: Claim) -> Script[None]:
        yield from self.claims.release(KIND, [claim], delay_us=HOUR_US)
        yield from self.renew(claim)

    def _guarded_effect(self, claim: Claim) -> Script[None]:
        yield from self.claims.guard(KIND, [claim])
        if claim.id == "later":  # what is held is left as it is
            yield from self.claims.hasten(KIND, [claim.id])
            yield from self._write_lease("looked at", claim)
        yield from history.write(claim.id, "worked on", claim.token, 0, 0, 0)

    def _look(self) -> Script[None]:
        """Whether each row is shown in the state in which it is."""
        before_us = yield from now()
        rows: list[Holder] = yield from self.claims.holders(KIND)
        after_us = yield from now()
        for row in rows:
            if history.is_misjudged(row, before_us, after_us, is_dead=bool(row.error) and row.attempts >= ATTEMPTS):
                yield from history.write(row.id, "misjudged", row.token, 0, 0, 0)

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
