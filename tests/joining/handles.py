"""Every library that can be joined, on every engine it speaks to, behind one face: the user's side of a transaction."""

import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import asyncpg
import django
import django.conf
import psycopg
import sqlalchemy as sa
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.postgresql.base import DatabaseWrapper as DjangoPostgres
from django.db.backends.sqlite3.base import DatabaseWrapper as DjangoSqlite
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import faultproof
from faultproof.ports.database import Database, Health
from faultproof.ports.script import Script

T = TypeVar("T")

ALIAS = "joined"
if not django.conf.settings.configured:
    django.conf.settings.configure(INSTALLED_APPS=[])
    django.setup()


class Handle(Protocol):
    """One connection of the user's. Its SQL takes no parameters."""

    raw: Any
    """What `join` is given."""

    async def begin(self, isolation: str | None = None) -> None: ...
    async def execute(self, sql: str) -> None: ...
    async def commit(self) -> None: ...
    async def rollback(self) -> None: ...
    async def savepoint(self) -> Callable[[bool], Awaitable[None]]:
        """Begins one; the function ends it, and is told whether to keep it."""

    async def autocommit(self) -> None:
        """Outside any transaction, and such that each statement commits by itself."""

    async def close(self) -> None: ...


class Sqlite3:
    def __init__(self, path: str) -> None:
        self.raw = sqlite3.connect(path, timeout=0)

    async def begin(self, isolation: str | None = None) -> None:
        self.raw.execute(f"BEGIN {isolation or 'IMMEDIATE'}")

    async def execute(self, sql: str) -> None:
        self.raw.execute(sql)

    async def commit(self) -> None:
        self.raw.commit()

    async def rollback(self) -> None:
        self.raw.rollback()

    async def savepoint(self) -> Callable[[bool], Awaitable[None]]:
        self.raw.execute("SAVEPOINT mine")

        async def end(keep: bool) -> None:
            self.raw.execute("RELEASE mine" if keep else "ROLLBACK TO mine")

        return end

    async def autocommit(self) -> None:
        self.raw.isolation_level = None

    async def close(self) -> None:
        self.raw.close()


class Psycopg:
    def __init__(self, url: str) -> None:
        self.raw = psycopg.connect(url)

    async def begin(self, isolation: str | None = None) -> None:
        if isolation:
            self.raw.isolation_level = psycopg.IsolationLevel[isolation.replace(" ", "_")]

    async def execute(self, sql: str) -> None:
        self.raw.execute(sql.encode())

    async def commit(self) -> None:
        self.raw.commit()

    async def rollback(self) -> None:
        self.raw.rollback()

    async def savepoint(self) -> Callable[[bool], Awaitable[None]]:
        block = self.raw.transaction()
        block.__enter__()

        async def end(keep: bool) -> None:
            if keep:
                block.__exit__(None, None, None)
            else:
                block.__exit__(psycopg.Rollback, psycopg.Rollback(), None)

        return end

    async def autocommit(self) -> None:
        self.raw.autocommit = True

    async def close(self) -> None:
        self.raw.close()


class AsyncPsycopg:
    def __init__(self, raw: psycopg.AsyncConnection[Any]) -> None:
        self.raw = raw

    async def begin(self, isolation: str | None = None) -> None:
        if isolation:
            await self.raw.set_isolation_level(psycopg.IsolationLevel[isolation.replace(" ", "_")])

    async def execute(self, sql: str) -> None:
        await self.raw.execute(sql.encode())

    async def commit(self) -> None:
        await self.raw.commit()

    async def rollback(self) -> None:
        await self.raw.rollback()

    async def savepoint(self) -> Callable[[bool], Awaitable[None]]:
        block = self.raw.transaction()
        await block.__aenter__()

        async def end(keep: bool) -> None:
            if keep:
                await block.__aexit__(None, None, None)
            else:
                await block.__aexit__(psycopg.Rollback, psycopg.Rollback(), None)

        return end

    async def autocommit(self) -> None:
        await self.raw.set_autocommit(True)

    async def close(self) -> None:
        await self.raw.close()


class Asyncpg:
    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self._block: Any = None

    async def begin(self, isolation: str | None = None) -> None:
        self._block = self.raw.transaction(isolation=isolation and isolation.lower().replace(" ", "_"))
        await self._block.start()

    async def execute(self, sql: str) -> None:
        await self.raw.execute(sql)

    async def commit(self) -> None:
        await self._block.commit()

    async def rollback(self) -> None:
        await self._block.rollback()

    async def savepoint(self) -> Callable[[bool], Awaitable[None]]:
        block = self.raw.transaction()
        await block.start()

        async def end(keep: bool) -> None:
            await (block.commit() if keep else block.rollback())

        return end

    async def autocommit(self) -> None:
        pass  # it is, outside a transaction

    async def close(self) -> None:
        await self.raw.close()


class SqlalchemyConnection:
    def __init__(self, url: str) -> None:
        self.engine = sa.create_engine(url)
        self.raw = self.engine.connect()

    async def begin(self, isolation: str | None = None) -> None:
        if isolation and isolation != "DEFERRED":
            self.raw.execution_options(isolation_level=isolation)
        self.raw.begin()
        if isolation == "DEFERRED":
            self.raw.exec_driver_sql("BEGIN DEFERRED")

    async def execute(self, sql: str) -> None:
        self.raw.exec_driver_sql(sql)

    async def commit(self) -> None:
        self.raw.commit()

    async def rollback(self) -> None:
        self.raw.rollback()

    async def savepoint(self) -> Callable[[bool], Awaitable[None]]:
        block = self.raw.begin_nested()

        async def end(keep: bool) -> None:
            block.commit() if keep else block.rollback()

        return end

    async def autocommit(self) -> None:
        self.raw.execution_options(isolation_level="AUTOCOMMIT")

    async def close(self) -> None:
        self.raw.close()
        self.engine.dispose()


class SqlalchemySession:
    def __init__(self, url: str) -> None:
        self.engine = sa.create_engine(url)
        # Or `close` would only empty it.
        self.raw = Session(self.engine, close_resets_only=False)

    async def begin(self, isolation: str | None = None) -> None:
        if isolation and isolation != "DEFERRED":
            self.raw.connection(execution_options={"isolation_level": isolation})
        if isolation == "DEFERRED":
            self.raw.connection().exec_driver_sql("BEGIN DEFERRED")

    async def execute(self, sql: str) -> None:
        self.raw.execute(sa.text(sql))

    async def commit(self) -> None:
        self.raw.commit()

    async def rollback(self) -> None:
        self.raw.rollback()

    async def savepoint(self) -> Callable[[bool], Awaitable[None]]:
        block = self.raw.begin_nested()

        async def end(keep: bool) -> None:
            block.commit() if keep else block.rollback()

        return end

    async def autocommit(self) -> None:
        self.raw.connection(execution_options={"isolation_level": "AUTOCOMMIT"})

    async def close(self) -> None:
        self.raw.close()
        self.engine.dispose()


class SqlalchemyAsyncConnection:
    raw: AsyncConnection

    def __init__(self, url: str) -> None:
        self.engine = create_async_engine(url)

    async def begin(self, isolation: str | None = None) -> None:
        if isolation and isolation != "DEFERRED":
            await self.raw.execution_options(isolation_level=isolation)
        await self.raw.begin()
        if isolation == "DEFERRED":
            await self.raw.exec_driver_sql("BEGIN DEFERRED")

    async def execute(self, sql: str) -> None:
        await self.raw.exec_driver_sql(sql)

    async def commit(self) -> None:
        await self.raw.commit()

    async def rollback(self) -> None:
        await self.raw.rollback()

    async def savepoint(self) -> Callable[[bool], Awaitable[None]]:
        block = await self.raw.begin_nested()

        async def end(keep: bool) -> None:
            await (block.commit() if keep else block.rollback())

        return end

    async def autocommit(self) -> None:
        await self.raw.execution_options(isolation_level="AUTOCOMMIT")

    async def close(self) -> None:
        await self.raw.close()
        await self.engine.dispose()


class SqlalchemyAsyncSession:
    def __init__(self, url: str) -> None:
        self.engine = create_async_engine(url)
        self.raw = AsyncSession(self.engine, close_resets_only=False)

    async def begin(self, isolation: str | None = None) -> None:
        if isolation and isolation != "DEFERRED":
            await self.raw.connection(execution_options={"isolation_level": isolation})
        if isolation == "DEFERRED":
            await (await self.raw.connection()).exec_driver_sql("BEGIN DEFERRED")

    async def execute(self, sql: str) -> None:
        await self.raw.execute(sa.text(sql))

    async def commit(self) -> None:
        await self.raw.commit()

    async def rollback(self) -> None:
        await self.raw.rollback()

    async def savepoint(self) -> Callable[[bool], Awaitable[None]]:
        block = await self.raw.begin_nested()

        async def end(keep: bool) -> None:
            await (block.commit() if keep else block.rollback())

        return end

    async def autocommit(self) -> None:
        await self.raw.connection(execution_options={"isolation_level": "AUTOCOMMIT"})

    async def close(self) -> None:
        await self.raw.close()
        await self.engine.dispose()


class Django:
    def __init__(self, wrapper: BaseDatabaseWrapper) -> None:
        connections[ALIAS] = wrapper
        self.raw = wrapper
        self._block: Any = None

    async def begin(self, isolation: str | None = None) -> None:
        if isolation and self.raw.vendor == "postgresql":
            self.raw.settings_dict["OPTIONS"] = {"isolation_level": psycopg.IsolationLevel[isolation.replace(" ", "_")]}
        elif self.raw.vendor == "sqlite":
            self.raw.transaction_mode = isolation or "IMMEDIATE"
        self._block = transaction.atomic(using=ALIAS)
        self._block.__enter__()

    async def execute(self, sql: str) -> None:
        with self.raw.cursor() as cursor:
            cursor.execute(sql)

    async def commit(self) -> None:
        self._block.__exit__(None, None, None)

    async def rollback(self) -> None:
        if self.raw.in_atomic_block:
            self._block.__exit__(KeyError, KeyError(), None)

    async def savepoint(self) -> Callable[[bool], Awaitable[None]]:
        block = transaction.atomic(using=ALIAS)
        block.__enter__()

        async def end(keep: bool) -> None:
            block.__exit__(*(None,) * 3) if keep else block.__exit__(KeyError, KeyError(), None)

        return end

    async def autocommit(self) -> None:
        pass  # it is, outside of `atomic`

    async def close(self) -> None:
        self.raw.close()


async def open_handle(kind: str, place: str) -> Any:
    """A handle of that kind; `place` is a path or a URL."""
    address = place.removeprefix("postgresql://")
    match kind.split("+"):
        case ["sqlite3"]:
            return Sqlite3(place)
        case ["psycopg"]:
            return Psycopg(place)
        case ["psycopg-async"]:
            return AsyncPsycopg(await psycopg.AsyncConnection.connect(place))
        case ["asyncpg"]:
            return Asyncpg(await asyncpg.connect(place))
        case ["asyncpg-pool"]:
            pool = await asyncpg.create_pool(place, min_size=1, max_size=1)
            return PooledAsyncpg(pool, await pool.acquire())
        case ["connection", driver]:
            return SqlalchemyConnection(_url(driver, place, address))
        case ["session", driver]:
            return SqlalchemySession(_url(driver, place, address))
        case ["async-connection", driver]:
            handle = SqlalchemyAsyncConnection(_url(driver, place, address))
            handle.raw = await handle.engine.connect()
            return handle
        case ["async-session", driver]:
            return SqlalchemyAsyncSession(_url(driver, place, address))
        case ["django", "sqlite3"]:
            return Django(_django(DjangoSqlite, "sqlite3", NAME=place))
        case ["django", "psycopg"]:
            at = conninfo_to_dict(place)
            names = {"NAME": "dbname", "HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password"}
            return Django(_django(DjangoPostgres, "postgresql", **{ours: at[theirs] for ours, theirs in names.items()}))
    raise AssertionError(kind)


class PooledAsyncpg(Asyncpg):
    def __init__(self, pool: Any, raw: Any) -> None:
        super().__init__(raw)
        self._pool = pool

    async def close(self) -> None:
        with contextlib.suppress(asyncpg.InterfaceError):
            await self._pool.release(self.raw)
        await self._pool.close()


def _url(driver: str, place: str, address: str) -> str:
    return f"sqlite+{driver}:///{place}" if "sqlite" in driver else f"postgresql+{driver}://{address}"


def _django(wrapper: Any, engine: str, **settings: Any) -> BaseDatabaseWrapper:
    plain = {"ENGINE": f"django.db.backends.{engine}", "OPTIONS": {}, "AUTOCOMMIT": True, "CONN_MAX_AGE": None}
    rest: dict[str, Any] = {"ATOMIC_REQUESTS": False, "CONN_HEALTH_CHECKS": False, "TIME_ZONE": None, "TEST": {}}
    return wrapper({**plain, **rest, **settings}, ALIAS)


ON_SQLITE = [
    "sqlite3",
    "connection+pysqlite",
    "session+pysqlite",
    "async-connection+aiosqlite",
    "async-session+aiosqlite",
    "django+sqlite3",
]
ON_POSTGRES = [
    "psycopg",
    "psycopg-async",
    "asyncpg",
    "asyncpg-pool",
    "connection+psycopg",
    "connection+psycopg2",
    "session+psycopg",
    "async-connection+psycopg",
    "async-connection+asyncpg",
    "async-session+psycopg",
    "async-session+asyncpg",
    "django+psycopg",
]
HOOKED = ("connection", "session", "async-connection", "async-session", "django")
"""Those whose library tells of commits."""


class Joined:
    """What `join` gives, awaited where it must be."""

    def __init__(self, handle: Handle, wake: Database | None = None) -> None:
        self.tx: Any = faultproof.join(handle.raw, wake=wake)

    async def run(self, script: Script[T], *, single: bool = False) -> T:
        result: T = await maybe(self.tx.run(script, single=single))
        return result

    async def health(self) -> Health:
        health: Health = await maybe(self.tx.health())
        return health


async def maybe(given: Any) -> Any:
    """The result of a synchronous or an asynchronous call."""
    return await given if isinstance(given, Awaitable) else given
