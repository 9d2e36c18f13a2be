"""Sagas on every engine."""

from pathlib import Path

import pytest

from faultproof.clock import Env
from faultproof.ports.database import Database
from faultproof.signals import Signals
from tests.conformance.conftest import Connect, connect, empty
from tests.conformance.engines import Engine
from tests.fakes import Recorder
from tests.servers.fixtures import SERVERS

__all__ = ["connect"]


# The oldest server with `make soak`: the conformance suites of what this is made of run on it always.
@pytest.fixture(
    params=["sqlite", SERVERS[0], *(pytest.param(oldest, marks=pytest.mark.soak) for oldest in SERVERS[1:])]
)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """An empty database for this test alone."""
    return empty(request, tmp_path)


@pytest.fixture
def recorder() -> Recorder:
    """Everybody's signals."""
    return Recorder()


@pytest.fixture
async def db(engine: Engine, connect: Connect, recorder: Recorder) -> Database:
    """A `Database` with a table for what local steps do."""
    clock = getattr(engine, "clock", None)
    signals = Signals(sinks=[recorder])
    database = await connect(Env(signals=signals) if clock is None else Env(clock=clock, signals=signals))
    # The logs' tables as well: the engines' `elapse` makes everything older.
    await database.install(database.claims.schema, database.logs.schema)
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE reserved (id TEXT NOT NULL)")
    return database
