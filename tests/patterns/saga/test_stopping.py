"""A worker that is stopped, and tasks that are cancelled, while something is under way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

import faultproof as fp
from faultproof.errors import Failed
from faultproof.patterns.saga.runner import Runner
from faultproof.ports.claims import Claim
from faultproof.ports.database import Database
from faultproof.ports.script import Script
from tests.conformance.conftest import Connect
from tests.conformance.engines import Engine
from tests.fakes import until, within
from tests.patterns.saga.shop import QUICK, Order, running

pytestmark = pytest.mark.anyio

TTL_S = 0.2
"""Of the worker that is stopped: it waits for half of it, and then cancels."""


class Bank:
    """Refunds that take as long as the test likes, of a saga whose last step is refused."""

    def __init__(self, db: Database, *, beside: int = 1, action_waits: bool = False) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []
        self.cut: list[str] = []
        self.may_end = asyncio.Event()
        self._action_waits = action_waits
        charges = [
            fp.Step.remote(self._charge, name=f"charge-{number}", undo=self._refund, retry=QUICK, undo_retry=QUICK)
            for number in range(beside)
        ]
        refused = fp.Step.remote(self._refuse, name="refused", undo=fp.NOTHING_TO_UNDO, retry=QUICK)
        self.saga = fp.Saga(db, "slowly", input=Order, steps=[charges, refused])

    async def _charge(self, context: fp.StepContext[Order]) -> None:
        if self._action_waits:
            await self._slow("charge")

    async def _refuse(self, context: fp.StepContext[Order]) -> None:
        raise Failed("no")

    async def _refund(self, context: fp.StepContext[Order], result: None) -> None:
        await self._slow(f"{context.key} {context.attempt}")

    async def _slow(self, what: str) -> None:
        self.began.append(what)
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cut.append(what)
            raise
        self.ended.append(what)


@asynccontextmanager
async def stoppable(bank: Bank, ttl: float = TTL_S) -> AsyncIterator[tuple[Runner, Callable[[], asyncio.Task[None]]]]:
    """A worker, and what stops it."""
    runner = bank.saga.runner(ttl=ttl)
    worker = fp.Worker(bank.saga._database.env, runner)
    task = asyncio.create_task(worker.run())

    def stop() -> asyncio.Task[None]:
        worker.stop()
        return task

    try:
        yield runner, stop
    finally:
        bank.may_end.set()
        stop()
        await within(task)
        await bank.saga.close()


@pytest.mark.parametrize("beside", [1, 2])
async def test_an_undo_under_way_is_not_cut_short_when_its_worker_is_stopped(
    engine: Engine, db: Database, connect: Connect, beside: int
) -> None:
    bank = Bank(db, beside=beside)
    successor = Bank(await connect(), beside=beside)
    await bank.saga.install()
    async with stoppable(bank) as (_, stop):
        await bank.saga.start("o-1", Order("milk"))
        await until(lambda: len(bank.began) == beside)
        (before,) = await db.read(db.claims.holders("saga:slowly"))
        stopped = stop()

        async def lease_is_kept() -> bool:
            (now,) = await db.read(db.claims.holders("saga:slowly"))
            assert now.token == before.token
            return now.until_us > before.until_us + 2 * TTL_S * 1_000_000

        await until(lease_is_kept)
        assert bank.cut == []
        bank.may_end.set()
        await within(stopped)
        assert (len(bank.ended), bank.cut) == (beside, [])
    successor.may_end.set()
    async with running(successor.saga):
        assert isinstance(await successor.saga.wait("o-1"), fp.Compensated)
    if beside == 1:  # what was done is in the journal; of a group it may be done once more with the same key
        assert successor.began == []


async def test_an_undo_is_not_cut_short_when_somebody_else_has_taken_the_saga_over(
    engine: Engine, db: Database, connect: Connect
) -> None:
    bank, peer = Bank(db), await connect()
    await bank.saga.install()
    async with stoppable(bank) as (runner, _):
        await bank.saga.start("o-1", Order("milk"))
        await until(lambda: len(bank.began) == 1)
        (claim,) = (active.claim for active in runner._active.values())

        def take_over() -> Script[list[Claim]]:
            yield from peer.claims.release("saga:slowly", [claim])
            return (yield from peer.claims.take("saga:slowly", "peer", ttl_us=60_000_000, limit=1))

        assert [taken.id for taken in await peer.transact(take_over)] == ["o-1"]
        await until(lambda: runner.under_way == 0)
        bank.may_end.set()
        await until(lambda: len(bank.ended) == 1)
        assert bank.cut == []
    assert "undone" not in [line.what for line in await bank.saga.history("o-1")]  # that is for its successor to find


async def test_an_undo_still_has_its_timeout_when_it_is_not_cut_short(engine: Engine, db: Database) -> None:
    async def nothing(context: fp.StepContext[Order]) -> None: ...

    async def refuse(context: fp.StepContext[Order]) -> None:
        raise Failed("no")

    async def forever(context: fp.StepContext[Order], result: None) -> None:
        began.set()
        await asyncio.Event().wait()

    began = asyncio.Event()
    step = fp.Step.remote(nothing, undo=forever, timeout=0.3, undo_retry=QUICK)
    saga = fp.Saga(db, "hangs", input=Order, steps=[step, fp.Step.remote(refuse, undo=fp.NOTHING_TO_UNDO)])
    await saga.install()
    async with running(saga, ttl=0.2):
        await saga.start("o-1", Order("milk"))
        await within(began.wait())
    lines = [(line.what, line.data) for line in await saga.history("o-1")]
    assert ("undo_failed", "no answer within 0.3 s") in lines


async def test_an_action_is_cut_off_when_its_worker_is_stopped_and_counts_as_interrupted(
    engine: Engine, db: Database, connect: Connect
) -> None:
    bank = Bank(db, action_waits=True)
    await bank.saga.install()
    async with stoppable(bank) as (_, stop):
        await bank.saga.start("o-1", Order("milk"))
        await until(lambda: len(bank.began) == 1)
        await within(stop(), 5.0)  # it may take ten seconds
        assert bank.cut == ["charge"]
    successor = Bank(await connect())
    successor.may_end.set()
    async with running(successor.saga):
        assert isinstance(await successor.saga.wait("o-1"), fp.Compensated)
    assert "interrupted" in [line.what for line in await successor.saga.history("o-1")]
