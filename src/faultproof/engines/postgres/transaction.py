"""A transaction that a user holds open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from faultproof.engines.postgres.connection import Connection
from faultproof.engines.scopes import Scope
from faultproof.errors import DeadlineExceeded, NoTransaction
from faultproof.ports.script import Begin, Commit, Script, atomic

if TYPE_CHECKING:
    from faultproof.engines.postgres.database import PostgresDatabase

T = TypeVar("T")


class PostgresTransaction:
    """See `faultproof.ports.database.Transaction`. Calls of several tasks at once take turns."""

    def __init__(self, database: PostgresDatabase, connection: Connection, scope: Scope) -> None:
        self.database = database
        self._connection = connection
        self._scope = scope
        self._turn = asyncio.Lock()
        self._cut = False

    def run(self, script: Script[T], *, single: bool = False) -> Coroutine[Any, Any, T]:
        return self._in_turn(lambda: self._connection.drive(script if single else atomic(script)))

    def execute(self, sql: str, *parameters: Any) -> Coroutine[Any, Any, int]:
        return self._in_turn(lambda: self._changed(sql, parameters))

    def fetch(self, sql: str, *parameters: Any) -> Coroutine[Any, Any, list[tuple[Any, ...]]]:
        return self._in_turn(lambda: self._rows(sql, parameters))

    def check_whole(self) -> None:
        """Raise if what has run may not be committed."""
        self._scope.refuse_unawaited()
        if self._cut:
            # Of a script half of the statements may have run, and nobody is left to undo them.
            raise NoTransaction("a call in this transaction was cancelled under way: leave it and begin again")

    async def _changed(self, sql: str, parameters: tuple[Any, ...]) -> int:
        return (await self._connection.execute_raw(sql, parameters)).changed

    async def _rows(self, sql: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return list((await self._connection.execute_raw(sql, parameters)).rows)

    def _in_turn(self, work: Callable[[], Awaitable[T]]) -> Coroutine[Any, Any, T]:
        async def turn() -> T:
            async with self._turn:  # unbounded: the transaction's own timeout ends it
                self._scope.check()
                if self._cut:
                    self.check_whole()
                try:
                    return await work()
                except asyncio.CancelledError:
                    self._cut = True
                    raise

        return self._scope.call(turn)


class Opened:
    """The block of `Database.transaction`. A class and not a generator: one that is abandoned must not run on."""

    def __init__(self, database: PostgresDatabase, timeout: float) -> None:
        self._database = database
        self._seconds = timeout
        self._limit = asyncio.timeout(timeout)
        self._scope = Scope(database, database.check_open)

    async def __aenter__(self) -> PostgresTransaction:
        self._connection = await self._database.take()
        try:
            await self._connection.execute(Begin(writes=True))
            await self._limit.__aenter__()
        except BaseException:
            await self._database.give_back(self._connection)
            raise
        self._scope.begin()
        self._transaction = PostgresTransaction(self._database, self._connection, self._scope)
        return self._transaction

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scope.end()
        try:
            try:
                await self._limit.__aexit__(kind, error, trace)
            except TimeoutError as expired:
                raise DeadlineExceeded(
                    f"the transaction was open for {self._seconds} s and has been rolled back"
                ) from expired
            if error is not None:
                return
            self._database.check_open()
            self._transaction.check_whole()
            committed = await self._connection.execute(Commit())
            self._database.after_commit(tuple(topic for (topic,) in committed.rows))
        finally:
            await self._database.give_back(self._connection)
