"""Answers that nobody waits for, simulated: sagas that were given back for an hour go on as soon as they are answered."""

from __future__ import annotations

import asyncio

from faultproof.errors import OutcomeUnknown
from faultproof.patterns.saga import callbacks, operations, sql
from faultproof.patterns.saga.journal import Journal, Write, work_topic
from faultproof.patterns.saga.machine import What
from faultproof.patterns.saga.proof_callbacks import (
    RETRY,
    STEP,
    Answer,
    Answerer,
    Service,
    broken_words,
    calls_back,
    prepare,
    waits,
    wrong_ends,
)
from faultproof.patterns.saga.proof_journals import misnumbered
from faultproof.patterns.saga.saga import Saga
from faultproof.patterns.saga.steps import NOTHING_TO_UNDO, Pending, Step, StepContext
from faultproof.ports.database import Database
from faultproof.ports.script import Script, Wake
from faultproof.primitives.worker import Worker
from faultproof.prove.proof import ANY_FAULT, Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted

NAME = "signature"
HOUR_S, PATIENCE_S = 3_600.0, 30.0
TTL_S, FILING_S = 0.95, 0.55
"""A runner that was frozen while it took a saga up wakes when its successor files it."""
CALM, EARLY, HASTY = "calm", "early", "hasty"
KINDS = (CALM, EARLY, HASTY)
"""Answered after the action has returned, and filed slowly; before it has, and asked in vain at first; after the action's
own answer was lost, as it is to be made again."""


class _Workload:
    """A client starts the sagas, a runner goes on with them, and the service calls back."""

    def __init__(self, plant: str | None) -> None:
        self._plant = plant

    def processes(self) -> dict[str, Main]:
        """By name."""
        return {"client": self._client, "runner": self._runner, "service": self._service}

    async def _client(self, process: Process) -> None:
        saga = _saga(process)
        await asyncio.gather(*(saga.start(id, id) for id in KINDS))
        process.note("started", len(KINDS))

    async def _runner(self, process: Process) -> None:
        saga = _saga(process)
        runner = saga.runner(ttl=TTL_S)
        if self._plant == "does not look":
            saga._journal.__class__ = _DoesNotLook
        await Worker(process.env, runner).run()

    async def _service(self, process: Process) -> None:
        await calls_back(process, NAME, _ANSWERERS.get(self._plant, callbacks.answer), ids=KINDS)
        await process.env.clock.sleep(PATIENCE_S)  # by then all is over, or else it would be for an hour
        if await process.database().read(operations.listed(NAME, None, 1)):
            raise AssertionError(f"answered {PATIENCE_S:.0f} s ago, and nobody goes on with it")


def _saga(process: Process) -> Saga[str]:
    async def sign(context: StepContext[str]) -> Pending:
        id, token = context.id, context.token
        assert token is not None
        if id == EARLY and context.attempt == 1:
            raise OutcomeUnknown("the question is lost")
        await process.outside(f"ask {id}", lambda record: Service(record).asked(id, token))
        if id == EARLY:
            await waits(process, id)
        if id == HASTY and context.attempt == 1:
            raise OutcomeUnknown("the answer is lost")
        return Pending()

    async def file(context: StepContext[str]) -> None:
        if context.id == CALM:
            await process.env.clock.sleep(FILING_S)

    asked = Step.asynchronous(sign, name=STEP, result=str, undo=NOTHING_TO_UNDO, retry=RETRY, answer_within=HOUR_S)
    filed = Step.remote(file, name="file", undo=NOTHING_TO_UNDO, retry=RETRY)
    return Saga(process.database(), NAME, input=str, steps=[asked, filed])


# -- the verdict ------------------------------------------------------------------------------------------------------


def _done(evidence: Evidence) -> bool:
    over = "SELECT count(*) FROM faultproof_saga WHERE ended_us IS NOT NULL OR state = 'attention'"
    return bool(noted(evidence, "started")) and evidence.fetch(over) == [(len(KINDS),)]


# -- planted bugs -----------------------------------------------------------------------------------------------------


def _calls_nobody(
    database: Database, saga: str, id: str, step: str, token: str, what: What, data: str | None
) -> Script[bool]:
    """`callbacks.answer`, and whoever goes on with the saga will see it when its time has come."""
    state = (yield from operations.standing(saga, id)).run.steps[step]
    if state.status not in ("begun", "pending", "waiting") or state.attempt != Answer(id, token).attempt:
        return False
    if (yield from sql.call_back(saga, id, step, state.attempt, what, data)) != 1:
        return False
    yield Wake(work_topic(saga))
    return True


class _DoesNotLook(Journal):
    """What has come while the action was under way is not looked for when the saga is given back."""

    def _release(self, write: Write) -> Script[None]:
        yield from self._claims.release(self._kind, [write.claim], delay_us=write.release_in_us or 0)


_ANSWERERS: dict[str | None, Answerer] = {"calls nobody": _calls_nobody}

ANSWERS = Proof(
    name="faultproof.patterns.saga.proof:ANSWERS",
    claim=(
        "A saga that waits for an answer, for an hour if need be, goes on when it has come, whether that is before or after "
        "it was given back; and what is repeated because nobody knows whether it arrived is not repeated behind its answer."
    ),
    faults=(*ANY_FAULT, "the answer to a question is lost, and its callback is not"),
    assumptions=(
        "a commit that was acknowledged survives (the database's durability setting)",
        "the service calls back until it is told whether its answer counts, and to each question until one has counted",
    ),
    not_tested=(
        "two writers at the same time: answers on PostgreSQL wait for the claim's lock, which simulated SQLite has not",
    ),
    prepare=prepare,
    processes=lambda plant: _Workload(plant).processes(),
    done=_done,
    eventually=(
        Eventually(claim="every saga is completed, with an answer to its last question", wrong=wrong_ends),
        Eventually(claim="an answer that was told that it counts does, and ends the asking", wrong=broken_words),
        Eventually(claim="the lines of a journal are numbered, each once", wrong=misnumbered),
    ),
    sometimes=(
        Sometimes(
            claim="a saga waits for its answer",
            happened=lambda evidence: bool(
                evidence.fetch("SELECT id FROM faultproof_saga_entry WHERE what = 'pending'")
            ),
        ),
    ),
    plants=(
        Plant(name="calls nobody", breaks="an answer comes after the saga was given back: nobody looks for an hour"),
        Plant(name="does not look", breaks="an answer comes before the saga is given back: nobody looks for an hour"),
    ),
)
