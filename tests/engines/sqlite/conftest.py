"""What only SQLite does: files, locks between processes, checkpoints, and handles of the user's own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from faultproof.clock import Env
from faultproof.engines.sqlite import open_database
from faultproof.engines.sqlite.database import SqliteDatabase
from faultproof.engines.sqlite.watch import POLL_S

Open = Callable[..., Awaitable[SqliteDatabase]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the test's database is, or will be."""
    return tmp_path / "shop.db"


@pytest.fixture
async def connect(path: Path) -> AsyncIterator[Open]:
    """Opens one more `Database` on it."""
    opened: list[SqliteDatabase] = []

    async def open_one(
        env: Env | None = None, *, synchronous: str = "normal", poll_s: float = POLL_S
    ) -> SqliteDatabase:
        opened.append(await open_database(str(path), env=env or Env(), synchronous=synchronous, poll_s=poll_s))
        return opened[-1]

    yield open_one
    for database in opened:
        await database.close()


@pytest.fixture
async def db(connect: Open) -> SqliteDatabase:
    """A `Database` with the tables of claims and logs."""
    database = await connect()
    await database.install(database.claims.schema, database.logs.schema)
    return database
