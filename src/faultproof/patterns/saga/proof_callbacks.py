"""Callbacks, simulated: a service that is asked, and answers early, late, or when its answer to the question was lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence, Set
from typing import Any, NamedTuple

from faultproof.errors import OutcomeUnknown
from faultproof.patterns.saga import callbacks, operations, sql
from faultproof.patterns.saga.journal import Journal, claim_kind, work_topic
from faultproof.patterns.saga.machine import What
from faultproof.patterns.saga.saga import Saga
from faultproof.patterns.saga.steps import Pending, Step, StepContext, StepRetry
from faultproof.ports.database import Database
from faultproof.ports.script import Script, Wake
from faultproof.primitives.worker import Worker
from faultproof.prove.proof import ANY_FAULT, Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted

NAME, STEP = "delivery", "deliver"
TTL_S = 0.5
ANSWER_WITHIN_S = 0.5
RETRY = StepRetry(attempts=12, base=0.05, cap=0.1)
LOOKS, LOOK_S = 3, 0.25
EARLY, LOST, LATE = "early", "lost", "late"
KINDS = (EARLY, LOST, LATE)
"""Answered before the action returns; so, and the action's own answer is lost; not before it has been asked twice."""


class Answer(NamedTuple):
    """What the service wants to tell, until it has been told whether it counts."""

    id: str
    token: str

    @property
    def attempt(self) -> int:
        """Which of the questions it answers; it says so in its data, too."""
        return int(self.token.partition(".")[0])


class Service:
    """The other side. It calls back about each question, and about a key no more once an answer has counted."""

    def __init__(self, record: dict[str, Any]) -> None:
        self.tokens: dict[str, list[str]] = record.setdefault("tokens", {})
        """As they were handed to it."""
        self.counted: dict[str, str] = record.setdefault("counted", {})
        """Id -> the token whose answer it was told to count."""
        self.to_tell: list[list[str]] = record.setdefault("to_tell", [])
        """Answers, as lists."""
        self.undone: list[str] = record.setdefault("undone", [])

    @property
    def answers(self) -> list[Answer]:
        """To tell."""
        return [Answer(*each) for each in self.to_tell]

    def told(self, answer: Answer, counts: bool) -> Set[str]:
        """Who was frozen meanwhile may say so once more. The ids of which an answer has counted so far."""
        self.to_tell[:] = [other for other in self.to_tell if other != list(answer)]
        if counts:
            self.counted[answer.id] = answer.token
        return self.counted.keys()

    def asked(self, id: str, token: str) -> None:
        """A question arrives."""
        older = [[id, other] for other in self.tokens.get(id, ()) if _attempt(id, other) < _attempt(id, token)]
        self.tokens.setdefault(id, []).append(token)
        if id not in self.counted and (older or id != LATE):
            self.to_tell += [*older[: id == LATE], [id, token]]


Answerer = Callable[[Database, str, str, str, str, "What", str | None], Script[bool]]


class _Workload:
    """A client starts the sagas, a runner goes on with them, and the service calls back."""

    def __init__(self, plant: str | None) -> None:
        self._plant = plant

    def processes(self) -> dict[str, Main]:
        """By name."""
        return {"client": self._client, "runner": self._runner, "service": self._service}

    async def _client(self, process: Process) -> None:
        saga = _saga(process, self._plant)
        await asyncio.gather(*(saga.start(id, id) for id in KINDS))
        process.note("started", len(KINDS))

    async def _runner(self, process: Process) -> None:
        saga = _saga(process, self._plant)
        runner = saga.runner(ttl=TTL_S)
        if self._plant == "asks again":
            saga._journal.__class__ = _AsksAgain
        await Worker(process.env, runner).run()

    async def _service(self, process: Process) -> None:
        await calls_back(process, NAME, _ANSWERERS.get(self._plant, callbacks.answer), ids=KINDS)


async def calls_back(process: Process, saga: str, answerer: Answerer, *, ids: Sequence[str]) -> None:
    """What the service does until an answer has counted for each of these. It looks into its own record; nobody can come
    between that and whoever wrote there."""
    database, is_over = process.database(), False
    while not is_over:
        for each in await process.outside("look", lambda record: list(Service(record).answers)):
            counts = await database.transact(
                answerer(database, saga, each.id, STEP, each.token, "done", f'"{each.attempt}"')
            )
            process.note("answered", each.id, counts, each.attempt)
            is_over = await process.outside("told", lambda record: Service(record).told(each, counts) >= {*ids})  # noqa: B023
        await process.env.clock.sleep(LOOK_S)


# -- the verdict ------------------------------------------------------------------------------------------------------


def _done(evidence: Evidence) -> bool:
    over = "SELECT count(*) FROM faultproof_saga WHERE ended_us IS NOT NULL OR state = 'attention'"
    return bool(noted(evidence, "started")) and evidence.fetch(over) == [(len(KINDS),)]


def _journaled(evidence: Evidence) -> dict[str, tuple[int, str]]:
    """Id -> attempt and data that the step ended with."""
    rows = evidence.fetch("SELECT id, step, attempt, data FROM faultproof_saga_entry WHERE what = 'done'")
    return {id: (attempt, data) for id, step, attempt, data in rows if step == STEP}


def wrong_ends(evidence: Evidence) -> list[str]:
    """The end of each saga is an answer, given to the attempt that it says it ended."""
    done, wrong = _journaled(evidence), []
    given = set(evidence.fetch("SELECT id, attempt, data FROM faultproof_saga_callback"))
    for id, state, reason in evidence.fetch("SELECT id, state, reason FROM faultproof_saga"):
        if state != "completed":
            wrong.append(f"{id} was answered, and is {state}: {reason}")
        elif done[id][1] != f'"{done[id][0]}"':
            wrong.append(f"attempt {done[id][0]} of {id} is done with the answer to attempt {done[id][1]}")
        elif (id, *done[id]) not in given:
            wrong.append(f"{id} is completed, and nobody has answered attempt {done[id][0]}")
    return wrong + [f"{id} was undone" for id in Service(dict(evidence.outside)).undone]


def broken_words(evidence: Evidence) -> list[str]:
    """Of what the service was told about its answers."""
    done, wrong, service = _journaled(evidence), [], Service(dict(evidence.outside))
    for id, token in service.counted.items():
        if id in done and done[id][0] != _attempt(id, token):
            wrong.append(
                f"{id} was told that the answer to attempt {_attempt(id, token)} counts: the journal has {done[id]}"
            )
        if _attempt(id, service.tokens[id][-1]) > _attempt(id, token):
            wrong.append(f"{id} was asked again after its answer had counted")
    counted = Counter(note[1] for note in evidence.notes if note[0] == "answered" and note[2])
    return wrong + [f"{id} was told {times} times that an answer counts" for id, times in counted.items() if times > 1]


def _refuses_late(evidence: Evidence) -> bool:
    return any(note[0] == "answered" and not note[2] for note in evidence.notes)


def _attempt(id: str, token: str) -> int:
    return Answer(id, token).attempt


def _saga(process: Process, plant: str | None) -> Saga[str]:
    async def deliver(context: StepContext[str]) -> Pending:
        id, token = context.id, context.token
        assert token is not None
        await process.outside(f"ask {id}", lambda record: Service(record).asked(id, token))
        if id in (EARLY, LOST):
            await waits(process, id)
        if context.id == LOST:
            raise OutcomeUnknown("the answer is lost")
        return Pending()

    async def call_off(context: StepContext[str], result: str | None) -> None:
        await process.outside(f"call {context.id} off", lambda record: Service(record).undone.append(context.id))

    retry = RETRY if plant is None else StepRetry(attempts=2, base=0.05, cap=0.1)  # where nothing helps, be quick
    asked = Step.asynchronous(deliver, name=STEP, result=str, undo=call_off, retry=retry, answer_within=ANSWER_WITHIN_S)
    return Saga(process.database(), NAME, input=str, steps=[asked])


async def prepare(database: Database) -> None:
    await database.install(database.claims.schema, sql.SCHEMA)


async def waits(process: Process, id: str) -> None:
    """What an action does that returns only when its answer has counted, or nearly always."""
    for _ in range(LOOKS):
        if await process.outside(f"wait for {id}", lambda record: id in Service(record).counted):
            break
        await process.env.clock.sleep(LOOK_S)


# -- planted bugs -----------------------------------------------------------------------------------------------------


def _answered_of(*statuses: str, any_attempt: bool = False) -> Answerer:
    """`callbacks.answer` as somebody simplified it."""

    def answer(
        database: Database, saga: str, id: str, step: str, token: str, what: What, data: str | None
    ) -> Script[bool]:
        yield from database.claims.hasten(claim_kind(saga), [id])
        state = (yield from operations.standing(saga, id)).run.steps[step]
        if state.status not in statuses or not (any_attempt or state.attempt == _attempt(id, token)):
            return False
        if (yield from sql.call_back(saga, id, step, state.attempt, what, data)) != 1:
            return False
        yield Wake(work_topic(saga))
        return True

    return answer


class _AsksAgain(Journal):
    """What is repeated, or given up, is not looked for under the claim's lock."""

    def _answered(self, asked: dict[str, set[tuple[str, int]]]) -> Script[frozenset[str]]:
        yield from ()
        return frozenset()


_ANSWERERS: dict[str | None, Answerer] = {
    "accepts late answers": _answered_of("begun", "pending", "waiting", any_attempt=True),
    "drops early answers": _answered_of("pending"),
}

CALLBACKS = Proof(
    name="faultproof.patterns.saga.proof:CALLBACKS",
    claim=(
        "An answer to an asynchronous step that was told that it counts is what the step ends with, and nobody is asked "
        "again; one that comes before the action has returned is kept, and one to an attempt that is over never counts."
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
    ),
    sometimes=(Sometimes(claim="an answer is told that it comes too late", happened=_refuses_late),),
    plants=(
        Plant(
            name="accepts late answers", breaks="an answer to an attempt that was given up is taken for the next one's"
        ),
        Plant(name="drops early answers", breaks="an answer that comes before the action has returned is refused"),
        Plant(name="asks again", breaks="a question is repeated although its answer has counted"),
    ),
)
