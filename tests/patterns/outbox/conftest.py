"""An outbox on a real file, and a clock that the test sets ahead."""

from collections.abc import Awaitable, Callable

import pytest

import faultproof as fp
from faultproof.ports.database import Database
from faultproof.signals import Signals
from tests.fakes import FixedRng, Recorder, ShiftedClock, env_of
from tests.files import Connect, connect, path
from tests.patterns.outbox.shop import EVENTS, create_tables

__all__ = ["connect", "path"]

OpenOutbox = Callable[..., Awaitable[fp.Outbox]]


@pytest.fixture
def clock() -> ShiftedClock:
    """Everybody's."""
    return ShiftedClock()


@pytest.fixture
def recorder() -> Recorder:
    """Everybody's signals."""
    return Recorder()


@pytest.fixture
def env(clock: ShiftedClock, recorder: Recorder) -> fp.Env:
    """The longest of every jittered pause: what is waited for is due no later than one may read in the options."""
    return env_of(clock=clock, rng=FixedRng(0.999), signals=Signals(sinks=[recorder]))


@pytest.fixture
async def db(connect: Connect, env: fp.Env) -> Database:
    return await connect(env)


@pytest.fixture
async def outbox(db: Database) -> fp.Outbox:
    """Installed, with four partitions."""
    outbox = fp.Outbox(db, events=EVENTS, options=fp.OutboxOptions(partitions=4))
    await outbox.install()
    await create_tables(db)
    return outbox


@pytest.fixture
def open_outbox(connect: Connect, env: fp.Env, outbox: fp.Outbox) -> OpenOutbox:
    """One more outbox on the same file, through a database object of its own: another process, nearly."""

    async def open_one() -> fp.Outbox:
        return fp.Outbox(await connect(env), events=EVENTS, options=fp.OutboxOptions(partitions=4))

    return open_one
