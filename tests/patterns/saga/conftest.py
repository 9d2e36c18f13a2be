"""Sagas on every engine."""

import pytest

from faultproof.clock import Env
from faultproof.ports.database import Database
from faultproof.signals import Signals
from tests.conformance.conftest import Connect, connect, engine
from tests.conformance.engines import Engine
from tests.fakes import Recorder

__all__ = ["connect", "engine"]


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
