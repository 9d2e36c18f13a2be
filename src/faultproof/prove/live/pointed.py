"""A database whose transactions are points: the `Database` port around another, which knows nothing of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from faultproof.clock import Env
from faultproof.ports.claims import ClaimTable
from faultproof.ports.database import Database, Health, News, Transaction
from faultproof.ports.log import LogTable
from faultproof.ports.schema import Schema
from faultproof.ports.script import Runnable, Script, begun
from faultproof.prove.live.points import Points

T = TypeVar("T")


class PointedDatabase:
    """Three points for each transaction: before it, with all of its statements run and the COMMIT still to come, and after
    the COMMIT was answered. One that is rolled back passes only the first."""

    def __init__(self, inner: Database, points: Points) -> None:
        self._inner = inner
        self._points = points

    @property
    def env(self) -> Env:
        return self._inner.env

    @property
    def writers(self) -> int:
        return self._inner.writers

    @property
    def durability(self) -> str:
        return self._inner.durability

    @property
    def claims(self) -> ClaimTable:
        return self._inner.claims

    @property
    def logs(self) -> LogTable:
        return self._inner.logs

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

    async def read(self, script: Script[T], *, snapshot: bool = True) -> T:
        return await self._inner.read(script, snapshot=snapshot)

    def transaction(self, *, timeout: float = 30.0) -> AbstractAsyncContextManager[Transaction]:
        return self._transaction(timeout)

    async def install(self, *schemas: Schema) -> None:
        await self._inner.install(*schemas)

    def in_transaction(self) -> bool:
        return self._inner.in_transaction()

    def changed(self, topic: str) -> News:
        return self._inner.changed(topic)

    def wake(self, topics: Iterable[str], *, after: Callable[[], bool] | None = None) -> None:
        self._inner.wake(topics, after=after)

    async def health(self) -> Health:
        return await self._inner.health()

    async def close(self) -> None:
        await self._inner.close()

    @asynccontextmanager
    async def _transaction(self, timeout: float) -> AsyncIterator[Transaction]:
        self._points.reach("before a transaction")
        async with self._inner.transaction(timeout=timeout) as tx:
            yield tx
            self._points.reach("at COMMIT of a transaction")
        self._points.reach("after COMMIT of a transaction")
