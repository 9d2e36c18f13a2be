"""A database whose transactions are points: the `Database` port around another, which knows nothing of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from faultproof.ports.database import Database, Transaction
from faultproof.ports.script import Runnable, Script, begun
from faultproof.primitives.around import Around
from faultproof.prove.live.points import Points

T = TypeVar("T")


class PointedDatabase(Around):
    """Three points for each transaction: before it, with all of its statements run and the COMMIT still to come, and after
    the COMMIT was answered. One that is rolled back passes only the first."""

    def __init__(self, inner: Database, points: Points) -> None:
        super().__init__(inner)
        self._points = points

    async def transact(self, work: Runnable[T]) -> T:
        name = getattr(work, "__name__", "transact")
        self._points.reach(f"before {name}")

        def pointed() -> Script[T]:
            result = yield from begun(work)
            self._points.reach(f"at COMMIT of {name}")
            return result

        result = await self._inner.transact(pointed if callable(work) else pointed())
        self._points.reach(f"after COMMIT of {name}")
        return result

    def transaction(self, *, timeout: float = 30.0) -> AbstractAsyncContextManager[Transaction]:
        return self._transaction(timeout)

    @asynccontextmanager
    async def _transaction(self, timeout: float) -> AsyncIterator[Transaction]:
        self._points.reach("before a transaction")
        async with self._inner.transaction(timeout=timeout) as tx:
            yield tx
            self._points.reach("at COMMIT of a transaction")
        self._points.reach("after COMMIT of a transaction")
