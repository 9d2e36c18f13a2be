"""The database port on PostgreSQL: one connection of a small pool for each transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from faultproof import bounds
from faultproof.clock import Env
from faultproof.engines.postgres.claims import PostgresClaims
from faultproof.engines.postgres.connection import Connection
from faultproof.engines.postgres.faults import NotBegun, translated
from faultproof.engines.postgres.log import PostgresLog
from faultproof.engines.postgres.news import PolledNews
from faultproof.engines.postgres.pool import SIZE, Pool
from faultproof.engines.scopes import Home, Scope, is_inside, refuse_inside
from faultproof.errors import CannotOpen, Closed, DeadlineExceeded, InvalidInput, NotSupported, TryAgain
from faultproof.ports.claims import ClaimTable
from faultproof.ports.database import Health, News
from faultproof.ports.log import LogTable
from faultproof.ports.schema import Schema
from faultproof.ports.script import Begin, Commit, Script, atomic, snapshot, sql, transaction
from faultproof.primitives.install import install

T = TypeVar("T")

LOCK_TIMEOUT_S = 5.0
"""How long a statement waits for a lock that another transaction holds."""
VERSION_MIN = 150_000
# Nobody waits for ever for a server that is gone; a URL that says otherwise is obeyed.
_NETWORK = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "tcp_user_timeout": 20_000}


class PostgresTransaction:
    """A transaction that a user holds open; see `faultproof.ports.database.Transaction`."""

    def __init__(self, database: PostgresDatabase, connection: Connection, scope: Scope) -> None:
        self.database = database
        self._connection = connection
        self._scope = scope

    def run(self, script: Script[T]) -> Coroutine[Any, Any, T]:
        return self._scope.call(lambda: self._connection.drive(atomic(script)))

    def execute(self, sql: str, *parameters: Any) -> Coroutine[Any, Any, int]:
        return self._scope.call(lambda: self._changed(sql, parameters))

    def fetch(self, sql: str, *parameters: Any) -> Coroutine[Any, Any, list[tuple[Any, ...]]]:
        return self._scope.call(lambda: self._rows(sql, parameters))

    async def _changed(self, sql: str, parameters: tuple[Any, ...]) -> int:
        return (await self._connection.execute_raw(sql, parameters)).changed

    async def _rows(self, sql: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return list((await self._connection.execute_raw(sql, parameters)).rows)


class PostgresDatabase:
    """One PostgreSQL database, used from one event loop."""

    def __init__(self, *, env: Env, pool: Pool, engine: str, durability: str) -> None:
        self.env = env
        self.durability = durability
        self.claims: ClaimTable = PostgresClaims()
        self.logs: LogTable = PostgresLog()
        self._engine = engine
        self._pool = pool
        self._home = Home()
        self._closed = False

    async def transact(self, script: Script[T]) -> T:
        self._check()
        return (await self._begun(lambda connection: connection.drive(transaction(script)))).result

    async def read(self, script: Script[T]) -> T:
        self._check()
        return await self._begun(lambda connection: connection.drive(snapshot(script)))

    @asynccontextmanager
    async def transaction(self, *, timeout: float = 30.0) -> AsyncIterator[PostgresTransaction]:
        self._check()
        bounds.seconds("timeout", timeout)
        scope = Scope(self, self._check_open)
        async with self._open() as connection:
            try:
                async with asyncio.timeout(timeout) as limit:
                    scope.begin()
                    try:
                        yield PostgresTransaction(self, connection, scope)
                    finally:
                        scope.end()
            except TimeoutError as error:
                if not limit.expired():
                    raise
                raise DeadlineExceeded(f"the transaction was open for {timeout} s and has been rolled back") from error
            self._check_open()
            scope.refuse_unawaited()
            await connection.execute(Commit())

    async def install(self, *schemas: Schema) -> None:
        for schema in schemas:
            await self.transact(_install(schema))

    def in_transaction(self) -> bool:
        self._home.check()
        return is_inside(self)

    def changed(self, topic: str) -> News:
        self._check()
        return PolledNews(self.env)

    async def health(self) -> Health:
        self._check()
        warnings = () if "fsync=on" in self.durability else ("fsync is off: a crash of the machine loses commits",)
        return Health(self._engine, self.durability, warnings)

    async def close(self) -> None:
        self._home.check_closing()
        self._closed = True
        await self._pool.close()

    async def _begun(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Repeat `work` on another connection while its BEGIN finds none: a server that was restarted breaks them all.

        Nothing has happened by then, and the script has not started.
        """
        for _ in range(SIZE):
            try:
                async with self._pool.lend() as connection:
                    return await work(connection)
            except NotBegun:
                continue
        async with self._pool.lend() as connection:
            return await work(connection)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Connection]:
        """A connection with a transaction begun."""
        for tries_left in reversed(range(SIZE + 1)):
            async with self._pool.lend() as connection:
                try:
                    await connection.execute(Begin(writes=True))
                except NotBegun:
                    if tries_left == 0:
                        raise
                    continue
                yield connection
                return

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("the database is closed: connect again")
        self._home.check()

    def _check(self) -> None:
        self._check_open()
        refuse_inside(self)


# An advisory lock that the transaction holds: one of the session's would outlive it in a connection pool.
@sql("SELECT pg_advisory_xact_lock(hashtextextended('faultproof.install', 0))")
def _install_lock() -> None: ...


def _install(schema: Schema) -> Script[None]:
    yield from _install_lock()
    yield from install(schema)


async def connect(url: str, *, env: Env) -> PostgresDatabase:
    """Connect, and look whom to."""
    try:
        options = {**_NETWORK, **conninfo_to_dict(url)}
    except psycopg.Error as error:
        raise InvalidInput(f"that is not a PostgreSQL URL: {error}") from error
    name = f"the database {options.get('dbname', '')} on {options.get('host', 'this machine')}"

    async def another() -> Connection:
        try:
            raw = await psycopg.AsyncConnection.connect(make_conninfo("", **options), autocommit=True)
            try:
                await raw.execute("SELECT set_config('lock_timeout', %s, false)", (f"{LOCK_TIMEOUT_S}s",))
            except BaseException:  # a cancel too: nobody else knows of it yet
                await raw.close()
                raise
        except psycopg.Error as error:
            problem = translated(error, name)
            # Our caller may come back: a server that restarts is away for a moment.
            raise (TryAgain(f"{name} cannot be reached: {error}") if type(problem) is TryAgain else problem) from error
        return Connection(raw, name)

    try:
        first = await another()
    except TryAgain as error:
        raise CannotOpen(str(error)) from error
    version = first.raw.info.server_version
    if version < VERSION_MIN:
        await first.close()
        raise NotSupported(f"{name} runs version {version // 10_000}; faultproof needs PostgreSQL 15 or newer")
    try:
        found = await first.execute_raw("SELECT current_setting('synchronous_commit'), current_setting('fsync')", ())
    except BaseException:
        await first.close()
        raise
    ((commit, fsync),) = found.rows
    return PostgresDatabase(
        env=env,
        pool=Pool(another, first),
        engine=f"PostgreSQL {version // 10_000}.{version % 10_000}",
        durability=f"PostgreSQL, synchronous_commit={commit}, fsync={fsync}",
    )
