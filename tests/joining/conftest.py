"""One suite for all handles: `handle` is each library on each engine, with an outbox beside it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

import faultproof
from faultproof.patterns.saga.sql import SCHEMA as saga_tables
from faultproof.ports.database import Database
from tests.conformance.engines import Engine, Postgres, Sqlite
from tests.joining.handles import ON_POSTGRES, ON_SQLITE, Handle, open_handle
from tests.servers.postgres import PostgresServer

Opener = Callable[..., Awaitable[Any]]

EVENTS = {"order-placed": dict}
_USER_S = "CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL)"
_WRITTEN = (
    "orders",
    "faultproof_intake",
    "faultproof_log",
    "faultproof_idempotency",
    "faultproof_seen",
    "faultproof_claim WHERE kind IN ('job', 'saga:fulfil')",
    "faultproof_saga_entry",
    "faultproof_saga",
    "faultproof_escrow_hold",
    "faultproof_escrow_item",
)


async def _install(engine: Engine) -> None:
    database = await engine.open()
    await faultproof.Outbox(database, events=EVENTS).install()
    await faultproof.Idempotency(database, "orders", answer=int).install()
    await faultproof.MessageInbox(database, "mail").install()
    await faultproof.Escrow(database).install()
    await database.install(saga_tables)
    await database.close()
    engine.execute(_USER_S)


@pytest.fixture(scope="session")
def joining_url(postgres_server: PostgresServer) -> str:
    """One database for all of these tests, installed once: that takes ten times as long as a test."""
    with psycopg.connect(postgres_server.url, autocommit=True) as raw:
        raw.execute("CREATE DATABASE joining TEMPLATE template0")
    url = postgres_server.url_of("joining")
    asyncio.run(_install(Postgres(url)))
    return url


@pytest.fixture(scope="session")
def joining_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file that each test takes a copy of."""
    path = tmp_path_factory.mktemp("joining") / "template.db"
    asyncio.run(_install(Sqlite(path)))
    return path


@pytest.fixture(params=[*ON_SQLITE, *ON_POSTGRES])
def kind(request: pytest.FixtureRequest) -> str:
    """The library and its driver."""
    name: str = request.param
    return name


class Watched(Postgres):
    """Looked at through one connection: to make one takes as long as half a test."""

    def __init__(self, url: str, raw: psycopg.Connection[Any]) -> None:
        super().__init__(url)
        self._raw = raw

    def execute(self, text: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        cursor = self._raw.execute(self.spelled(text).encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def watched(postgres_server: PostgresServer, joining_url: str) -> Iterator[Watched]:
    """The server's side, for a module's tests."""
    postgres_server.start()
    with psycopg.connect(joining_url, autocommit=True) as raw:
        yield Watched(joining_url, raw)


@pytest.fixture
def place(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the right engine has an empty database."""
    if kind in ON_SQLITE:
        path = tmp_path / "shop.db"
        with closing(sqlite3.connect(request.getfixturevalue("joining_file"))) as template:
            with closing(sqlite3.connect(path)) as copy:
                template.backup(copy)
        return str(path)
    watched: Watched = request.getfixturevalue("watched")
    watched.execute("; ".join(f"DELETE FROM {table}" for table in _WRITTEN))
    return watched.url


@pytest.fixture
def engine(kind: str, place: str, request: pytest.FixtureRequest) -> Engine:
    """What a test must say differently to each engine."""
    if kind in ON_SQLITE:
        return Sqlite(Path(place))
    engine: Engine = request.getfixturevalue("watched")
    return engine


@pytest.fixture
async def db(engine: Engine) -> AsyncIterator[Database]:
    """faultproof's side."""
    database = await engine.open()
    yield database
    await database.close()


@pytest.fixture
async def outbox(db: Database) -> AsyncIterator[faultproof.Outbox]:
    """An outbox in it."""
    outbox = faultproof.Outbox(db, events=EVENTS)
    yield outbox
    await outbox.close()


@pytest.fixture
async def open_one(kind: str, place: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Opener]:
    """Opens one more handle, of this kind or another."""
    # Django refuses to be called below an event loop, which all of these tests run on.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    opened: list[Handle] = []

    async def open_it(other: str = kind) -> Any:
        opened.append(await open_handle(other, place))
        return opened[-1]

    yield open_it
    for handle in opened:
        await handle.close()


@pytest.fixture
async def handle(open_one: Opener) -> Any:
    """The user's connection."""
    return await open_one()
