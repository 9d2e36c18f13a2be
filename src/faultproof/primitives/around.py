"""A database around another: whoever looks at transactions, or counts them, says so and passes on the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from faultproof.clock import Env
from faultproof.ports.claims import ClaimTable
from faultproof.ports.database import Database, Health, News, Transaction
from faultproof.ports.log import LogTable
from faultproof.ports.schema import Schema
from faultproof.ports.script import Runnable, Script

T = TypeVar("T")


class Around:
    """The `Database` port, passed on as it is. The database inside knows nothing of it."""

    def __init__(self, inner: Database) -> None:
        self._inner = inner

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
        return await self._inner.transact(work)

    async def read(self, script: Script[T], *, snapshot: bool = True) -> T:
        return await self._inner.read(script, snapshot=snapshot)

    def transaction(self, *, timeout: float = 30.0) -> AbstractAsyncContextManager[Transaction]:
        return self._inner.transaction(timeout=timeout)

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
