"""Every test of the suites runs on every engine; `engine` is what makes it so."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from faultproof.clock import Env
from faultproof.ports.database import Database
from tests.conformance.engines import Engine, Postgres, Sqlite

Connect = Callable[..., Awaitable[Database]]


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """An empty database for this test alone."""
    if request.param == "sqlite":
        return Sqlite(tmp_path / "shop.db")
    url: str = request.getfixturevalue("postgres_url")  # named here, so that SQLite alone needs no server
    return Postgres(url)


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
