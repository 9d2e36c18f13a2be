"""Every test of the suites runs on every engine; `engine` is what makes it so."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psycopg
import pytest

from faultproof.clock import Env
from faultproof.ports.database import Database
from tests.conformance.engines import Engine, Postgres, Sqlite
from tests.servers.fixtures import SERVERS
from tests.servers.postgres import PostgresServer

Connect = Callable[..., Awaitable[Database]]


def suite_url(server: PostgresServer) -> str:
    """One database for all tests of the suites: to empty it takes a tenth of the time that making one does."""
    server.start()  # does nothing where it runs; a test may have killed it
    with psycopg.connect(server.url, autocommit=True) as raw:
        if not raw.execute("SELECT FROM pg_database WHERE datname = 'conformance'").fetchall():
            raw.execute("CREATE DATABASE conformance TEMPLATE template0")
    return server.url_of("conformance")


@pytest.fixture(params=["sqlite", *SERVERS])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """An empty database for this test alone."""
    return empty(request, tmp_path)


def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """The engine that the parameter names."""
    if request.param == "sqlite":
        return Sqlite(tmp_path / "shop.db")
    # Asked for here and not as an argument, so that SQLite alone needs no server.
    postgres = Postgres(suite_url(request.getfixturevalue(request.param)))
    postgres.empty()
    return postgres


@pytest.fixture
async def connect(engine: Engine) -> AsyncIterator[Connect]:
    """Opens one more `Database` on it."""
    opened: list[Database] = []

    async def open_one(env: Env | None = None) -> Database:
        opened.append(await engine.open(env))
        return opened[-1]

    yield open_one
    for database in opened:
        await database.close()


@pytest.fixture
async def db(connect: Connect) -> Database:
    """A `Database` with the tables of claims and logs."""
    database = await connect()
    await database.install(database.claims.schema, database.logs.schema)
    return database


@pytest.fixture
async def peer(db: Database, connect: Connect) -> Database:
    """Another `Database` on the same tables."""
    return await connect()
