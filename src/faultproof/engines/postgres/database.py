"""The database port on PostgreSQL: one connection of a pool for each transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

from faultproof import bounds
from faultproof.clock import Env
from faultproof.engines.postgres.claims import PostgresClaims
from faultproof.engines.postgres.connection import Connection
from faultproof.engines.postgres.faults import Restartable
from faultproof.engines.postgres.install import install
from faultproof.engines.postgres.news import Wakeups
from faultproof.engines.postgres.pool import Pool
from faultproof.engines.postgres.server import Server
from faultproof.engines.postgres.settings import settings
from faultproof.engines.postgres.transaction import Opened, PostgresTransaction
from faultproof.engines.postgres.wire import Command
from faultproof.engines.scopes import Home, is_inside, refuse_inside
from faultproof.errors import Closed
from faultproof.ports.claims import ClaimTable
from faultproof.ports.database import Health, News
from faultproof.ports.log import LogTable
from faultproof.ports.schema import Schema
from faultproof.ports.script import Rollback, Runnable, Script, begun, on_snapshot, transaction
from faultproof.primitives.retry import full_jitter
from faultproof.primitives.shadowing import refuse_in_shadow
from faultproof.signals import RETRY

T = TypeVar("T")

ROLLBACK_S = 5.0
"""How long a rollback may take before the connection is closed instead."""
RESTARTS_MAX = 5
"""How often a transaction of ours is begun again after a deadlock or a lost connection; then `TryAgain`."""
RESTART_BASE_S = 0.01
RESTART_CAP_S = 0.5


class PostgresDatabase:
    """One PostgreSQL database, used from one event loop."""

    def __init__(
        self,
        *,
        env: Env,
        pool: Pool,
        server: Server,
        logs: LogTable,
        wakeups: Wakeups,
        first: tuple[Command, ...],
    ) -> None:
        """`first`: see `Connection`."""
        self.env = env
        self.durability = server.durability
        self.writers = pool.size
        self.claims: ClaimTable = PostgresClaims()
        self.logs = logs
        self._server = server
        self._pool = pool
        self._first = first
        self._wakeups = wakeups
        self._home = Home()
        self._closed = False

    async def transact(self, work: Runnable[T]) -> T:
        self._check()
        refuse_in_shadow()
        for tries in range(RESTARTS_MAX):
            try:
                return await self._transact(begun(work))
            except Restartable:
                if not callable(work) or tries == RESTARTS_MAX - 1:
                    raise
            self.env.signals.emit(RETRY, 1)
            await self.env.clock.sleep(full_jitter(tries, base=RESTART_BASE_S, cap=RESTART_CAP_S, rng=self.env.rng))
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def read(self, script: Script[T], *, snapshot: bool = True) -> T:
        self._check()
        async with self._lend() as connection:
            # Behind a pooler, settings of ours last as long as a transaction: then there has to be one.
            return await connection.drive(on_snapshot(script) if snapshot or self._first else script)

    def transaction(self, *, timeout: float = 30.0) -> AbstractAsyncContextManager[PostgresTransaction]:
        self._check()
        refuse_in_shadow()
        bounds.seconds("timeout", timeout)
        return Opened(self, timeout)

    async def install(self, *schemas: Schema) -> None:
        for schema in schemas:
            await self.transact(partial(install, schema))

    def in_transaction(self) -> bool:
        self._home.check()
        return is_inside(self)

    def changed(self, topic: str) -> News:
        self._check()
        return self._wakeups.listen(topic)

    def wake(self, topics: Iterable[str], *, after: Callable[[], bool] | None = None) -> None:
        if not self._closed:
            self._wakeups.send_from_anywhere(topics, after)

    async def health(self) -> Health:
        now = await self.read(settings())
        return Health(self._server.version, now.durability, tuple(now.warnings))

    async def close(self) -> None:
        self._home.check_closing()
        if not self._closed:
            self._closed = True
            self._wakeups.close()
            await self._pool.close()

    async def _transact(self, script: Script[T]) -> T:
        async with self._lend() as connection:
            committed = await connection.drive(transaction(script))
            self.after_commit(committed.topics)
        return committed.result

    def after_commit(self, topics: tuple[str, ...]) -> None:
        """Tell of it."""
        if topics and not self._closed:
            self._wakeups.send(topics)

    @asynccontextmanager
    async def _lend(self) -> AsyncIterator[Connection]:
        connection = await self.take()
        try:
            yield connection
        finally:
            await self.give_back(connection)

    async def take(self) -> Connection:
        """A connection outside any transaction, to be given back."""
        raw = await self._pool.take()
        return Connection(
            raw, self._server.name, self._pool.replace, prepare=not self._server.pooled, first=self._first
        )

    async def give_back(self, connection: Connection) -> None:
        """Roll back what is open on it, and let others have it."""
        if connection.is_idle and not connection.is_stale and self._pool.give_back_idle(connection.raw):
            return  # nearly always, and a task less
        # Shielded, so that a second cancel cannot leave the transaction, and its locks, open.
        await asyncio.shield(self._taken_back(connection))

    async def _taken_back(self, connection: Connection) -> None:
        if connection.is_stale:
            self._pool.renew()
            await connection.close()
        elif not connection.is_idle:
            with suppress(TimeoutError):
                async with asyncio.timeout(ROLLBACK_S):
                    await connection.execute(Rollback())
        await self._pool.give_back(connection.raw)

    def check_open(self) -> None:
        """Raise where this database cannot be used: closed, in another process, in another event loop."""
        if self._closed:
            raise Closed("the database is closed: connect again")
        self._home.check()

    def _check(self) -> None:
        self.check_open()
        refuse_inside(self)
