"""An escrow on every engine, and time that passes when the test says so."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

import faultproof as fp
from faultproof.clock import Env
from faultproof.ports.database import Database
from faultproof.signals import Signals
from tests.conformance.conftest import Connect, connect, empty
from tests.conformance.engines import Engine, Postgres
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


Elapse = Callable[[float], None]


@pytest.fixture
def recorder() -> Recorder:
    """Everybody's signals."""
    return Recorder()


@pytest.fixture
async def db(engine: Engine, connect: Connect, recorder: Recorder) -> Database:
    signals = Signals(sinks=[recorder])
    return await connect(
        Env(signals=signals) if isinstance(engine, Postgres) else Env(clock=engine.clock, signals=signals)
    )


@pytest.fixture
async def escrow(db: Database) -> AsyncIterator[fp.Escrow]:
    """With 10 milk and 5 bread."""
    escrow = fp.Escrow(db)
    await escrow.install()
    await escrow.restock("milk", 10, key="d-milk")
    await escrow.restock("bread", 5, key="d-bread")
    yield escrow
    await escrow.close()


@pytest.fixture
def elapse(engine: Engine) -> Elapse:
    """Make all holds so many seconds older."""

    def older(seconds: float) -> None:
        if isinstance(engine, Postgres):
            us = int(seconds * 1_000_000)
            engine.execute("UPDATE faultproof_escrow_hold SET until_us = until_us - ?, at_us = at_us - ?", (us, us))
        else:
            engine.elapse(int(seconds * 1_000_000))

    return older
