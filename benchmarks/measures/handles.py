"""Transactions of the user's own: one connection of each library that can be joined, behind one face."""

from __future__ import annotations

import inspect
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import faultproof as fp
from benchmarks.load import BODY
from faultproof.ports.database import Database

Inside = Callable[[Any], object]
"""What happens in the transaction behind the insert; it is given what `join` takes."""


class Transactions(Protocol):
    """One connection."""

    async def run(self, number: int, inside: Inside) -> float:
        """Begin, insert this order, do that, commit; the wall clock from just before the COMMIT left."""

    async def ask(self, query: str) -> Sequence[Sequence[Any]]:
        """A query of its own."""


@dataclass(frozen=True, kw_only=True)
class Handle:
    """One library, opened in one way."""

    name: str
    configured: str
    open: Callable[[str], AbstractAsyncContextManager[Transactions]]
    packages: tuple[str, ...] = ()
    wakes: bool = False
    """It tells of its commits, so that others hear at once."""
    adds_at_most: float = 40


def publishing(outbox: fp.Outbox, db: Database, handle: Handle) -> Inside:
    """Publishes through the handle."""

    def inside(raw: Any) -> object:
        tx = fp.join(raw, wake=db) if handle.wakes else fp.join(raw)
        return outbox.publish(BODY, type="item.sold", key="key-1", tx=tx)

    return inside


def nothing(raw: Any) -> None:
    """Only the insert."""


async def _done(result: object) -> None:
    if inspect.isawaitable(result):
        await result


class _Sqlite3:
    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw

    async def run(self, number: int, inside: Inside) -> float:
        self._raw.execute("BEGIN IMMEDIATE")
        self._raw.execute("INSERT INTO orders (id, item) VALUES (?, ?)", (number, "milk"))
        await _done(inside(self._raw))
        now = time.time()
        self._raw.execute("COMMIT")
        return now

    async def ask(self, query: str) -> Sequence[Sequence[Any]]:
        return self._raw.execute(query).fetchall()


@asynccontextmanager
async def _sqlite3(url: str) -> AsyncIterator[Transactions]:
    with closing(sqlite3.connect(url, isolation_level=None)) as raw:
        raw.execute("PRAGMA synchronous=FULL")
        yield _Sqlite3(raw)


class _Psycopg:
    def __init__(self, raw: Any) -> None:
        self._raw = raw

    async def run(self, number: int, inside: Inside) -> float:
        async with self._raw.transaction():
            await self._raw.execute("INSERT INTO orders (id, item) VALUES (%s, %s)", (number, "milk"))
            await _done(inside(self._raw))
            return time.time()

    async def ask(self, query: str) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = await (await self._raw.execute(query.encode())).fetchall()
        return rows


@asynccontextmanager
async def _psycopg(url: str) -> AsyncIterator[Transactions]:
    import psycopg

    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as raw:
        yield _Psycopg(raw)


class _PsycopgPipelined:
    def __init__(self, raw: Any) -> None:
        self._raw = raw

    async def run(self, number: int, inside: Inside) -> float:
        async with self._raw.pipeline():
            await self._raw.execute("INSERT INTO orders (id, item) VALUES (%s, %s)", (number, "milk"))
            await _done(inside(self._raw))
            now = time.time()
            await self._raw.commit()
        return now

    async def ask(self, query: str) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = await (await self._raw.execute(query.encode())).fetchall()
        await self._raw.rollback()
        return rows


@asynccontextmanager
async def _psycopg_pipelined(url: str) -> AsyncIterator[Transactions]:
    import psycopg

    async with await psycopg.AsyncConnection.connect(url) as raw:
        yield _PsycopgPipelined(raw)


class _PsycopgSync:
    def __init__(self, raw: Any) -> None:
        self._raw = raw

    async def run(self, number: int, inside: Inside) -> float:
        with self._raw.transaction():
            self._raw.execute("INSERT INTO orders (id, item) VALUES (%s, %s)", (number, "milk"))
            await _done(inside(self._raw))
            return time.time()

    async def ask(self, query: str) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = self._raw.execute(query.encode()).fetchall()
        return rows


@asynccontextmanager
async def _psycopg_sync(url: str) -> AsyncIterator[Transactions]:
    import psycopg

    with closing(psycopg.connect(url, autocommit=True)) as raw:
        yield _PsycopgSync(raw)


class _Asyncpg:
    def __init__(self, raw: Any) -> None:
        self._raw = raw

    async def run(self, number: int, inside: Inside) -> float:
        async with self._raw.transaction():
            await self._raw.execute("INSERT INTO orders (id, item) VALUES ($1, $2)", number, "milk")
            await _done(inside(self._raw))
            return time.time()

    async def ask(self, query: str) -> Sequence[Sequence[Any]]:
        return [tuple(row) for row in await self._raw.fetch(query)]


@asynccontextmanager
async def _asyncpg(url: str) -> AsyncIterator[Transactions]:
    import asyncpg

    raw = await asyncpg.connect(url)
    try:
        yield _Asyncpg(raw)
    finally:
        await raw.close()


class _AsyncSession:
    def __init__(self, engine: Any) -> None:
        from sqlalchemy import text
        from sqlalchemy.ext.asyncio import async_sessionmaker

        self._sessions = async_sessionmaker(engine)
        self._text = text
        self._insert = text("INSERT INTO orders (id, item) VALUES (:id, :item)")

    async def run(self, number: int, inside: Inside) -> float:
        async with self._sessions() as session, session.begin():
            await session.execute(self._insert, {"id": number, "item": "milk"})
            await _done(inside(session))
            return time.time()

    async def ask(self, query: str) -> Sequence[Sequence[Any]]:
        async with self._sessions() as session:
            return (await session.execute(self._text(query))).all()


@asynccontextmanager
async def _async_session(url: str) -> AsyncIterator[Transactions]:
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://", 1), pool_size=1)
    yield _AsyncSession(engine)
    await engine.dispose()


class _Session:
    def __init__(self, engine: Any) -> None:
        from sqlalchemy import text
        from sqlalchemy.orm import sessionmaker

        self._sessions = sessionmaker(engine)
        self._text = text
        self._insert = text("INSERT INTO orders (id, item) VALUES (:id, :item)")

    async def run(self, number: int, inside: Inside) -> float:
        with self._sessions() as session, session.begin():
            session.execute(self._insert, {"id": number, "item": "milk"})
            await _done(inside(session))
            return time.time()

    async def ask(self, query: str) -> Sequence[Sequence[Any]]:
        with self._sessions() as session:
            return session.execute(self._text(query)).all()


@asynccontextmanager
async def _session(url: str) -> AsyncIterator[Transactions]:
    from sqlalchemy import create_engine

    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), pool_size=1)
    yield _Session(engine)
    engine.dispose()


class _Django:
    def __init__(self, connection: Any) -> None:
        from django.db import transaction

        self._connection = connection
        self._atomic = transaction.atomic

    async def run(self, number: int, inside: Inside) -> float:
        with self._atomic(using=self._connection.alias):
            with self._connection.cursor() as cursor:
                cursor.execute("INSERT INTO orders (id, item) VALUES (%s, %s)", [number, "milk"])
            await _done(inside(self._connection))
            return time.time()

    async def ask(self, query: str) -> Sequence[Sequence[Any]]:
        with self._connection.cursor() as cursor:
            cursor.execute(query)
            rows: Sequence[Sequence[Any]] = cursor.fetchall()
            return rows


@asynccontextmanager
async def _django(url: str) -> AsyncIterator[Transactions]:
    import os

    import django
    from django.conf import settings

    # Django refuses its synchronous side where an event loop runs; here nothing else runs in that loop.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    parts = urlsplit(url)
    measured = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.removeprefix("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": str(parts.port or ""),
    }
    if not settings.configured:
        settings.configure(INSTALLED_APPS=[])
        django.setup()
    from django.db import connections

    # Beside whatever this process has configured before.
    connections.settings["measured"] = connections.configure_settings({"default": measured})["default"]
    connection = connections["measured"]
    yield _Django(connection)
    connection.close()
    del connections["measured"], connections.settings["measured"]


SQLITE3 = Handle(name="sqlite3", configured="isolation_level=None, synchronous=FULL", open=_sqlite3)

POSTGRESQL = (
    Handle(
        name="psycopg",
        configured="AsyncConnection, autocommit, `async with transaction()`",
        open=_psycopg,
        packages=("psycopg",),
    ),
    Handle(
        name="psycopg, in a pipeline",
        configured="AsyncConnection, `async with pipeline()` around the transaction",
        open=_psycopg_pipelined,
        packages=("psycopg",),
        adds_at_most=30,
    ),
    Handle(
        name="psycopg, synchronous",
        configured="Connection, autocommit, `with transaction()`",
        open=_psycopg_sync,
        packages=("psycopg",),
    ),
    Handle(name="asyncpg", configured="`async with transaction()`", open=_asyncpg, packages=("asyncpg",)),
    Handle(
        name="SQLAlchemy, asynchronous",
        configured="AsyncSession on asyncpg",
        open=_async_session,
        packages=("SQLAlchemy", "asyncpg"),
        wakes=True,
    ),
    Handle(
        name="SQLAlchemy",
        configured="Session on psycopg",
        open=_session,
        packages=("SQLAlchemy", "psycopg"),
        wakes=True,
    ),
    Handle(
        name="Django",
        configured="django.db.connection on psycopg, `transaction.atomic()`",
        open=_django,
        packages=("Django", "psycopg"),
        wakes=True,
    ),
)

BY_NAME = {handle.name: handle for handle in (SQLITE3, *POSTGRESQL)}
