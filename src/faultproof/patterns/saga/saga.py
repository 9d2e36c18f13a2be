"""The saga: what users define, start, wait for, and build their workers from."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, overload

from faultproof import bounds
from faultproof.errors import ConstraintViolated, InvalidInput, TransactionOpen
from faultproof.patterns.saga import callbacks, operations, pictures, sql
from faultproof.patterns.saga.calling import storable
from faultproof.patterns.saga.definition import Definition, Stage, check_id
from faultproof.patterns.saga.journal import Item, Journal, Start
from faultproof.patterns.saga.operations import HistoryEntry
from faultproof.patterns.saga.outcomes import Outcome, Waiting
from faultproof.patterns.saga.retention import Retention
from faultproof.patterns.saga.runner import Runner
from faultproof.patterns.saga.shape import Shape, difference
from faultproof.patterns.saga.sql import Listed, NewSaga
from faultproof.patterns.saga.steps import Step
from faultproof.ports.database import Database, SyncTx, Tx
from faultproof.ports.script import Inline, Script
from faultproof.primitives.batcher import BatchLimits
from faultproof.primitives.group_commit import Err, GroupCommit
from faultproof.primitives.group_commit import Outcome as Made
from faultproof.primitives.install import FirstUse
from faultproof.primitives.transactions import check_tx

I = TypeVar("I")  # noqa: E741  # input, as in `StepContext`
R = TypeVar("R")
T = TypeVar("T")


TOGETHER = BatchLimits(overlap=8)
"""With one writer: as many as there are. The next batch waits behind the one that is being written."""
BESIDE = BatchLimits(items=32, overlap=8)
"""With several: while the database writes one batch, this process works on what came of the one before."""


@dataclass(frozen=True, kw_only=True)
class SagaOptions:
    """Bounds of a kind of saga."""

    input_bytes_max: int = 262_144
    """One encoded input."""
    batch: BatchLimits | None = None
    """For starts outside a transaction of the caller's, and for journaling: they share transactions. None: `TOGETHER`, or
    `BESIDE` where several transactions may write at the same time."""

    def __post_init__(self) -> None:
        bounds.count("input_bytes_max", self.input_bytes_max, least=2, most=2**26)


LOOKING_S = 0.25
"""After a start of what was there before. Such starts come together: somebody repeats what he has no answer to."""


class Saga(Generic[I]):
    """Steps that all happen, or are all undone, across services that share no transaction.

    Promise: a saga whose start was committed ends with all of its steps done, or with the effects of every step that
    happened, or may have happened, undone in reverse order; or it stands in sight of a person (`attention`), when an undo, or
    a step behind the pivot, cannot be done. Nothing is undone that was not begun, and nothing after the pivot is done.
    Remote actions and undos are called at least once, with a key that is the same each time; local ones take effect once.
    Source: Garcia-Molina & Salem, "Sagas" (SIGMOD 1987); specification, Saga. Proof:
    `faultproof.patterns.saga.proof:SAGA`.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        *,
        input: type[I],
        steps: Sequence[Stage],
        pivot: Step[Any, Any] | None = None,
        version: int = 1,
        options: SagaOptions | None = None,
    ) -> None:
        """`input`: what a saga is started with: anything msgspec can turn into JSON and back. `steps`: in order; a list or
        tuple among them is a group that runs side by side. `pivot`: the step after which only forward recovery is allowed;
        those behind it need no undo. `version`: raise it when a step changes its meaning; a change of the steps themselves is
        noticed. Raises `InvalidInput` for what could not be carried through or undone."""
        self._database = database
        self._options = options or SagaOptions()
        self.definition = Definition(name, version=version, input=input, steps=steps, pivot=pivot)
        self.name = name
        self._journal = Journal(database, name)
        self._first_use = FirstUse(database.claims.schema, sql.SCHEMA)
        self._waiting = Waiting(database, name)
        limits = self._options.batch or (BESIDE if database.writers > 1 else TOGETHER)
        self._commit: GroupCommit[Item, Any] = GroupCommit(
            database, self._commit_all, first=self._all_new, limits=limits, name=f"{name}-journal"
        )
        self._looking_until = 0.0
        """Until then it is looked whether what is started was started before."""
        self._here: list[Runner] = []
        self._owner = f"{database.env.process}:{database.env.ids.new()[-6:]}"

    async def install(self) -> None:
        """Create the tables; idempotent, and safe in many processes at once."""
        await self._database.install(self._database.claims.schema, sql.SCHEMA)

    @overload
    def start(self, id: str, input: I, *, deadline: float | None = None, tx: SyncTx) -> bool: ...

    @overload
    def start(self, id: str, input: I, *, deadline: float | None = None, tx: Inline) -> Script[bool]: ...

    @overload
    def start(self, id: str, input: I, *, deadline: float | None = None, tx: Tx | None = None) -> Awaitable[bool]: ...

    def start(
        self, id: str, input: I, *, deadline: float | None = None, tx: Tx | SyncTx | Inline | None = None
    ) -> Awaitable[bool] | Script[bool] | bool:
        """Start a saga, and return once that is committed: no step has been waited for. False if it was started before with
        the same input: nothing new happens then.

        `id`: up to 200 bytes, unique among the sagas of this name. `deadline`: seconds from now after which a saga that has
        not come to its pivot is undone. With `tx` it is started if and only if that transaction commits (await the result of
        an async one; a joined synchronous handle gives it directly; in a script of your own, `yield from` it with
        `Inline()`). Without, it shares a transaction with others.

        Raises `KeyReused` for the id of a saga with another input, `PayloadTooLarge` or `InvalidInput` for what cannot be
        kept (nothing was written then); without `tx` also `TransactionOpen`, `Overloaded`, `DeadlineExceeded` (nothing
        happened) and `OutcomeUnknown` (start it again with the same id).
        """
        item = self._new(id, input, deadline)
        if tx is None:
            return self._start(item)
        check_tx(tx, self._database)
        return tx.run(self._start_one(item))

    async def wait(self, id: str, *, timeout: float = 30.0) -> Outcome:
        """How the saga ended: `Completed`, `Compensated`, or `NeedsAttention`, which a person can change. Raises `InProgress`
        when it has not within `timeout` seconds, `InvalidInput` for one that was never started."""
        check_id(id)
        return await self._waiting.wait(id, timeout)

    def runner(self, *, concurrency: int = 256, ttl: float = 10.0) -> Runner:
        """The loop that goes on with sagas; for a `Worker`, in any number of processes.

        `concurrency`: sagas that it has under way at a time. `ttl`: seconds after a crash until another takes over.
        """
        return Runner(
            self._database,
            self.definition,
            self._commit,
            self._waiting,
            self._here,
            owner=self._owner,
            ttl=ttl,
            concurrency=concurrency,
        )

    def retention(self, *, keep: float = 2_592_000.0, every: float = 10.0, stuck: float = 60.0) -> Retention:
        """The loop that forgets sagas `keep` seconds after their end, and every `every` seconds emits how many are stuck:
        they want attention, or their journal has been quiet for `stuck` seconds."""
        return Retention(self._database, self.name, keep=keep, every=every, stuck=stuck)

    # -- asynchronous steps ---------------------------------------------------------------------------------------------

    async def complete(self, id: str, step: Step[Any, R], token: str, result: R) -> bool:
        """The answer to an asynchronous step; whether it counts. It may come before the action has returned; one that comes
        after another attempt has begun, or after the step was given up, does not count (False). Raises `InvalidInput` for
        a token that was never given out, or a result of the wrong type. It commits by itself: `TransactionOpen` inside an
        open transaction. What is to commit with the answer is written in a local step behind this one."""
        self._check_step(step)
        return await self._answer(id, step, token, "done", step.encode(result))

    async def fail(self, id: str, step: Step[Any, Any], token: str, error: str) -> bool:
        """The answer that it did not happen, and will not. Otherwise like `complete`."""
        self._check_step(step)
        return await self._answer(id, step, token, "failed", _short(error))

    async def _answer(
        self, id: str, step: Step[Any, Any], token: str, what: Literal["done", "failed"], data: str
    ) -> bool:
        return await self._alone(
            id, lambda: callbacks.answer(self._database, self.name, id, step.name, token, what, data)
        )

    def _check_step(self, step: object) -> None:
        name = step.name if isinstance(step, Step) else step
        known = self.definition.steps.get(str(name))
        if known is None or known is not step or known.kind != "asynchronous":
            raise InvalidInput(f"{name!r} is no asynchronous step of {self.name!r}")

    # -- for operators --------------------------------------------------------------------------------------------------

    async def history(self, id: str) -> list[HistoryEntry]:
        """The audit trail of one saga."""
        check_id(id)
        return await self._database.read(operations.history(self.name, id))

    async def sagas(self, state: str | None = None, *, limit: int = 100) -> list[Listed]:
        """Sagas of one state; without, all that are not over. The oldest first, those that are over latest first."""
        return await self._database.read(operations.listed(self.name, state, limit))

    async def stuck(self, *, older: float = 60.0, limit: int = 100) -> list[Listed]:
        """Those that want attention, and those whose journal has been quiet for `older` seconds."""
        return await self._database.read(operations.stuck(self.name, older, limit))

    async def retry(self, id: str) -> None:
        """Try again what could not be done, with fresh attempts. Raises `InvalidInput` unless it wants attention."""
        await self._alone(id, lambda: operations.retry(self._database, self.name, id))

    async def skip(self, id: str, *, result: object = None) -> None:
        """Count the step that could not be done, or undone, as if it had been. `result`: of an action, of the type that its
        step returns. Raises `InvalidInput` for one of another type, and unless the saga wants attention because of a step.
        """

        def script() -> Script[None]:
            found = yield from operations.standing(self.name, id)
            step = self.definition.steps.get(found.run.stuck)
            is_action = step is not None and found.run.before == "running"
            encoded = step.encode(result) if step is not None and (is_action or result is not None) else None
            yield from operations.skip(self._database, self.name, id, result=encoded)

        await self._alone(id, script)

    async def resolve(self, id: str, outcome: Literal["completed", "compensated"], *, reason: str) -> None:
        """End it by hand: somebody has done, or undone, what was left."""
        await self._alone(id, lambda: operations.resolve(self.name, id, outcome=outcome, reason=_short(reason)))

    async def adopt(self, id: str) -> None:
        """Go on with this process's definition, after a change for which the saga was parked. Raises `InvalidInput` if steps
        that were begun are not in it, or are of another kind."""
        definition = self.definition

        def script() -> Script[None]:
            found = yield from operations.reopened(self.name, id)
            begun = [found.shape.steps[name] for name, state in found.run.steps.items() if state.status != "idle"]
            missing = [
                s.name for s in begun if s.name not in definition.steps or definition.steps[s.name].kind != s.kind
            ]
            if missing:
                raise InvalidInput(
                    f"saga {id!r} has begun {', '.join(missing)}, which this definition does not have:\n"
                    + difference(found.shape, 0, definition.shape, definition.version)
                )
            shape: Shape = definition.shape
            yield from sql.adopt(self.name, id, definition.version, shape.fingerprint, shape.text)
            yield from operations.resume(self._database, self.name, id, found)

        await self._alone(id, script)

    def mermaid(self) -> str:
        """The definition as a mermaid flowchart: actions down, undos back up."""
        return pictures.mermaid(self.definition.shape)

    async def picture(self, id: str) -> str:
        """One saga for a terminal: its steps, how far each is, and how long each took."""
        check_id(id)
        return await self._database.read(pictures.of_one(self.name, id))

    async def close(self) -> None:
        """Commit starts under way, and refuse new ones."""
        await self._commit.close()
        await self._waiting.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _new(self, id: str, input: I, deadline: float | None) -> NewSaga:
        check_id(id)
        if deadline is not None:
            bounds.seconds("deadline", deadline)
        encoded = self.definition.encode_input(id, input, self._options.input_bytes_max)
        digest = hashlib.sha256(encoded).hexdigest()
        return NewSaga(id, digest, encoded.decode(), None if deadline is None else int(deadline * 1_000_000))

    async def _start(self, item: NewSaga) -> bool:
        self._waiting.starting(item.id)  # before: it may have ended when the answer is here
        hold, told, is_new = None, None, False
        if (runner := next((runner for runner in self._here if runner.has_room), None)) is not None:
            hold, told = runner.hold(item.id, self.definition.decode_input(item.input), item.deadline_us)
        try:
            start = Start(self.definition, item, hold)
            is_new = bool(await self._commit.submit(start, weight=len(item.input), told=told))
        finally:
            if not is_new:
                self._waiting.not_started(item.id)
        return is_new

    async def _all_new(self, items: Sequence[Item]) -> list[Any] | None:
        """Where sagas are started: all in one round trip, as long as all of them are new, which they nearly always are."""
        monotonic = self._database.env.clock.monotonic
        if not self._first_use.is_over or monotonic() < self._looking_until:
            return None
        if not any(isinstance(item, Start) for item in items):
            return None
        try:
            made = await self._database.transact(lambda: self._journal.commit_all(items, all_new=True))
        except ConstraintViolated:
            self._looking_until = monotonic() + LOOKING_S
            return None
        return [one.error if isinstance(one, Err) else getattr(one, "value", None) for one in made]

    def _commit_all(self, items: Sequence[Item], wait: bool) -> Script[list[Made[Any]]]:
        yield from self._first_use.check()
        return (yield from self._journal.commit_all(items))

    async def _alone(self, id: str, work: Callable[[], Script[T]]) -> T:
        """Commit a decision on a saga. It locks the saga's claim, for which runners wait with all that they have under way:
        so not for as long as a transaction of the user's may last."""
        check_id(id)
        if self._database.in_transaction():
            raise TransactionOpen(
                "a transaction is open in this task, and what is decided about a saga commits by itself and takes no `tx=`: "
                "call it when that transaction has ended, and write what belongs with it in a local step"
            )

        def script() -> Script[T]:
            yield from self._first_use.check()
            return (yield from work())

        return await self._database.transact(script)

    def _start_one(self, item: NewSaga) -> Script[bool]:
        yield from self._first_use.check()
        (outcome,) = yield from self._journal.start([Start(self.definition, item)])
        if isinstance(outcome, Err):
            raise outcome.error
        return bool(getattr(outcome, "value", False))


def _short(text: object) -> str:
    """What somebody says of a saga, as the journal keeps it."""
    return storable(str(text))
