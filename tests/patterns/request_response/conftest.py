"""A till behind `Idempotent`, on every engine, and time that passes when the test says so."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from faultproof.clock import Env
from faultproof.ports.database import Database
from faultproof.signals import Signals
from tests.conformance.conftest import Connect, connect, empty
from tests.conformance.engines import Engine, Postgres
from tests.fakes import Recorder
from tests.patterns.request_response.till import Till
from tests.servers.fixtures import SERVERS

__all__ = ["connect"]


@pytest.fixture(params=["sqlite", SERVERS[0]])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """An empty database for this test alone."""
    return empty(request, tmp_path)


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
async def till(db: Database) -> Till:
    """An application that adds up; `till.app` is `Idempotent` around it."""
    till = Till(db)
    await till.install()
    return till


@pytest.fixture
async def http(till: Till) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, in this process."""
    async with till.client() as http:
        yield http


Elapse = Callable[[float], None]


@pytest.fixture
def elapse(engine: Engine) -> Elapse:
    """Make everything that is stored so many seconds older."""

    def age(seconds: float) -> None:
        us = int(seconds * 1_000_000)
        if isinstance(engine, Postgres):
            engine.execute("UPDATE faultproof_idempotency SET at_us = at_us - ?, until_us = until_us - ?", (us, us))
            engine.execute("UPDATE faultproof_session SET at_us = at_us - ?", (us,))
            engine.execute("UPDATE faultproof_session SET until_us = until_us - ? WHERE until_us > 1", (us,))
        else:
            engine.elapse(us)

    return age
