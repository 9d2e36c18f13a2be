"""SQLite files for one test, and any number of `Database` objects on them: what stands for several processes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

import faultproof as fp
from faultproof.clock import Env
from faultproof.ports.database import Database
from tests.fakes import env_of

Connect = Callable[..., Awaitable[Database]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the test's database file is, or will be."""
    return tmp_path / "test.db"


@pytest.fixture
async def connect(path: Path) -> AsyncIterator[Connect]:
    """Opens one more `Database` on the file; all are closed afterwards."""
    opened: list[Database] = []

    # What survives a power cut is the engines' own tests' affair: here commits may be quick.
    async def open_one(env: Env | None = None, *, synchronous: str = "normal") -> Database:
        opened.append(await fp.connect(f"sqlite:///{path}?synchronous={synchronous}", env=env or env_of()))
        return opened[-1]

    yield open_one
    for database in opened:
        await database.close()


@pytest.fixture
async def db(connect: Connect) -> Database:
    """The first `Database`."""
    return await connect()
