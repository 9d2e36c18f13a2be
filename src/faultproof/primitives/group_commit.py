"""Group commit: operations of many callers in one transaction, with a result for each.

The transaction costs one synchronous write however many operations share it; on SQLite with `synchronous=FULL` that is
most of the price of a small one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from faultproof.errors import Closed, Misuse, OutcomeUnknown, Repair, TransactionOpen, TryAgain
from faultproof.ports.database import Database
from faultproof.ports.script import Script
from faultproof.primitives.batcher import Batcher, BatchLimits, Later, Result, Told
from faultproof.primitives.callers import for_each_caller
from faultproof.primitives.shadowing import refuse_in_shadow

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Ok(Generic[R]):
    """The operation succeeded, as part of this transaction."""

    value: R


@dataclass(frozen=True, slots=True)
class Err:
    """The operation was refused; the transaction, and the others in it, go on."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Busy:
    """What the operation needs is locked elsewhere: it leaves the batch for a transaction of its own."""


Outcome = Ok[R] | Err | Busy
Apply = Callable[[Sequence[T], bool], Script[Sequence[Outcome[R]]]]
"""`apply(items, wait)`: do all items in the caller's transaction, an outcome for each. Without `wait`, an item whose
lock is held elsewhere is `Busy` instead of holding the others up."""
First = Callable[[Sequence[T]], Awaitable[Sequence[R] | None]]
"""`first(items)`: do all of them in some quicker way, and give their results once they are committed; or None, when nothing
has happened. An unexpected error means that too: then `apply` finds out whose it is."""
_OF_THE_DATABASE = (OutcomeUnknown, TryAgain, Repair, Closed)
"""About it, and not about any one item."""


class GroupCommit(Generic[T, R]):
    """Runs single operations in shared transactions.

    Promise: a caller that gets a result has its operation committed; one that gets an error other than `OutcomeUnknown`
    does not. An unexpected error rolls the transaction back and splits the batch in halves until the operation that
    causes it stands alone; the others commit. A lost COMMIT is `OutcomeUnknown` for every operation of the batch.
    Proof: `faultproof.patterns.batch.proof:BATCH`.
    """

    def __init__(
        self,
        database: Database,
        apply: Apply[T, R],
        *,
        first: First[T, R] | None = None,
        limits: BatchLimits | None = None,
        name: str = "group-commit",
    ) -> None:
        """`first`: tried with each batch; `apply` decides when that gives None."""
        self._database = database
        self._apply = apply
        self._first = first
        self._batcher: Batcher[T, R] = Batcher(self._run, env=database.env, limits=limits, name=name)

    def submit(
        self, item: T, *, weight: float = 1.0, timeout: float | None = None, told: Told[R] | None = None
    ) -> Coroutine[Any, Any, R]:
        """Commit the operation, alone or with others, and give its result. Errors, and `told`, as for `Batcher.submit`.

        Raises `TransactionOpen` inside an open transaction of this task: it would wait for itself.
        """
        if self._database.in_transaction():
            raise TransactionOpen("a transaction is open in this task and this call would wait for it: pass `tx=`")
        refuse_in_shadow()  # here, because whoever commits it may do so for others as well
        return self._batcher.submit(item, weight=weight, timeout=timeout, told=told)

    def post(self, item: T, told: Told[R], *, weight: float = 1.0) -> None:
        """Commit the operation for nobody who waits; see `Batcher.post`."""
        self._batcher.post(item, told, weight=weight)

    async def close(self) -> None:
        """Commit what was accepted, and refuse the rest."""
        await self._batcher.close()

    async def _run(self, items: Sequence[T]) -> Sequence[Result[R]]:
        if self._first is not None:
            try:
                results = await self._first(items)
            except _OF_THE_DATABASE:
                raise
            except Exception:
                results = None
            if results is not None:
                return results
        return await self._commit(items)

    async def _commit(self, items: Sequence[T]) -> list[Result[R]]:
        try:
            outcomes = await self._database.transact(lambda: self._counted(items, False))
        except _OF_THE_DATABASE as error:
            return [for_each_caller(error) for _ in items]
        except Exception as error:
            if len(items) == 1:
                return [error]
            middle = len(items) // 2
            return [*await self._commit(items[:middle]), *await self._commit(items[middle:])]
        return [self._result(item, outcome) for item, outcome in zip(items, outcomes, strict=True)]

    def _counted(self, items: Sequence[T], wait: bool) -> Script[Sequence[Outcome[R]]]:
        """Noticed after the commit, a missing outcome would be a failure that did not happen."""
        outcomes = yield from self._apply(items, wait)
        if len(outcomes) != len(items):
            raise Misuse(f"`apply` gave {len(outcomes)} outcomes for {len(items)} items: it must give one for each")
        return outcomes

    def _result(self, item: T, outcome: Outcome[R]) -> Result[R]:
        if isinstance(outcome, Busy):  # the others have been committed, and wait for nothing
            return Later(lambda: self._alone(item))
        return outcome.value if isinstance(outcome, Ok) else outcome.error

    async def _alone(self, item: T) -> R:
        """In a transaction of its own, which may wait for the lock."""
        (outcome,) = await self._database.transact(lambda: self._counted([item], True))
        if isinstance(outcome, Ok):
            return outcome.value
        if isinstance(outcome, Err):
            raise outcome.error
        raise TryAgain("what the operation needs is still locked elsewhere")
