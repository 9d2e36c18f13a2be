"""Where a saga can go on no more by itself, and what a person can do about it."""

import asyncio
from typing import Any

import pytest

import faultproof as fp
from faultproof.errors import Failed, InvalidInput
from faultproof.ports.database import Database
from faultproof.signals import SAGA_ATTENTION, SAGA_STUCK
from tests.conformance.engines import Engine
from tests.fakes import Recorder, until, within
from tests.patterns.saga.shop import QUICK, Order, Shop, always, elapse, opened, raising, reserved, running

pytestmark = pytest.mark.anyio


async def stranded(engine: Engine, db: Database, undo: str = "refund") -> Shop:
    """A saga whose charge cannot be undone."""
    shop = await opened(engine, db)
    shop.on["ship"] = always(Failed("no"))
    shop.on[undo] = always(ConnectionError("down"))
    await shop.saga.start("o-1", Order("milk"))
    return shop


async def test_an_undo_that_cannot_be_done_is_shown_to_people(engine: Engine, db: Database, recorder: Recorder) -> None:
    shop = await stranded(engine, db)
    async with running(shop.saga):
        outcome = await shop.saga.wait("o-1")
    assert outcome == fp.NeedsAttention("o-1", "ConnectionError: down")
    assert shop.counted()["refund"] == 3
    assert recorder.values(SAGA_ATTENTION, saga="fulfil", step="charge") == [1]
    (row,) = await shop.saga.stuck(older=3_600)
    assert (row.id, row.state, row.step, row.what) == ("o-1", "attention", "charge", "attention")
    await shop.saga.retention(stuck=3_600).step()
    assert recorder.values(SAGA_STUCK, saga="fulfil") == [1]
    assert await db.read(db.claims.holders("saga:fulfil")) == [], "nobody tries on and on"


async def test_retry_goes_on_with_fresh_attempts(engine: Engine, db: Database) -> None:
    shop = await stranded(engine, db)
    async with running(shop.saga):
        await shop.saga.wait("o-1")
        shop.on["refund"] = raising(*[ConnectionError("down")] * 5)
        await shop.saga.retry("o-1")
        outcome = await shop.saga.wait("o-1")
    assert outcome == fp.Compensated("o-1", "ship: Failed: no")
    assert shop.counted()["refund"] == 6
    assert shop.counted()["release"] == 1


async def test_who_waits_after_a_decision_is_not_told_of_what_was_before_it(
    engine: Engine, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await stranded(engine, db)
    waiting, told = shop.saga._waiting, list[Any]()
    monkeypatch.setattr(waiting, "tell", lambda *args: told.append(args))
    async with running(shop.saga):
        assert isinstance(await shop.saga.wait("o-1"), fp.NeedsAttention)
        await until(lambda: told)
    monkeypatch.undo()
    reading = Paused(db)
    monkeypatch.setattr(waiting, "_database", reading)
    looking = asyncio.create_task(waiting._look_for(["o-1"]))  # begun before the decision …
    await reading.has_read.wait()
    await shop.saga.retry("o-1")
    monkeypatch.undo()
    asked = asyncio.create_task(shop.saga.wait("o-1"))
    await until(lambda: waiting._futures)
    reading.may_return.set()
    await looking  # … and ended after it
    waiting.tell(*told[0])  # a runner that is late
    await waiting._look_for(["o-1"])
    assert not asked.done()
    other = await opened(engine, db)
    async with running(other.saga):
        assert isinstance(await within(asked), fp.Compensated)


class Paused:
    """A database whose reads come back when they may."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.has_read, self.may_return = asyncio.Event(), asyncio.Event()

    async def read(self, script: Any) -> Any:
        found = await self._database.read(script)
        self.has_read.set()
        await self.may_return.wait()
        return found


async def test_skip_counts_the_undo_as_done_and_goes_on_with_the_others(engine: Engine, db: Database) -> None:
    shop = await stranded(engine, db, undo="release")
    async with running(shop.saga):
        await shop.saga.wait("o-1")
        await shop.saga.skip("o-1")
        assert isinstance(await shop.saga.wait("o-1"), fp.Compensated)
    assert shop.names()[-2:] == ["release", "refund"]
    assert reserved(engine) == ["o-1"], "what the undo did was rolled back; a person sees to it"


async def test_resolve_ends_it_by_hand_and_calls_nobody(engine: Engine, db: Database) -> None:
    shop = await stranded(engine, db)
    async with running(shop.saga):
        await shop.saga.wait("o-1")
        await shop.saga.resolve("o-1", "compensated", reason="refunded in the bank's own form")
        outcome = await shop.saga.wait("o-1")
    assert outcome == fp.Compensated("o-1", "refunded in the bank's own form")
    assert shop.counted()["refund"] == 3
    assert await shop.saga.stuck(older=0) == []
    last = (await shop.saga.history("o-1"))[-1]
    assert (last.what, last.data) == ("compensated", "refunded in the bank's own form")
    assert (await shop.saga.picture("o-1")).startswith("fulfil o-1: compensated (refunded in the bank's own form)\n")


@pytest.mark.parametrize("decision", ["retry", "skip", "resolve", "adopt"])
async def test_nothing_is_decided_by_hand_on_a_saga_that_wants_no_attention(
    engine: Engine, db: Database, decision: str
) -> None:
    shop = await opened(engine, db)
    decide = {
        "retry": shop.saga.retry,
        "skip": shop.saga.skip,
        "resolve": lambda id: shop.saga.resolve(id, "completed", reason="x"),
        "adopt": shop.saga.adopt,
    }[decision]
    with pytest.raises(InvalidInput, match="there is no saga 'o-1'"):
        await decide("o-1")
    await shop.saga.start("o-1", Order("milk"))
    with pytest.raises(InvalidInput, match="is running and wants no attention"):
        await decide("o-1")
    async with running(shop.saga):
        await shop.saga.wait("o-1")
        with pytest.raises(InvalidInput, match="is completed and wants no attention"):
            await decide("o-1")
    assert len(await shop.saga.history("o-1")) == 7


async def test_behind_the_pivot_nothing_is_undone(engine: Engine, db: Database) -> None:
    async def act(context: fp.StepContext[Order]) -> str:
        if context.step == "notify" and not mended:
            raise Failed("no such address")
        return context.step

    async def undo(context: fp.StepContext[Order], result: str | None) -> None:
        undone.append(context.step)

    undone, mended = list[str](), list[bool]()
    charge = fp.Step.remote(act, name="charge", undo=undo, retry=QUICK)
    ship = fp.Step.remote(act, name="ship", retry=QUICK)
    notify = fp.Step.remote(act, name="notify", retry=QUICK)
    saga = fp.Saga(db, "pivotal", input=Order, steps=[charge, ship, notify], pivot=ship)
    await saga.install()
    async with running(saga):
        for id in ("retried", "skipped"):
            await saga.start(id, Order("milk"))
            assert await saga.wait(id) == fp.NeedsAttention(id, "Failed: no such address")
        await saga.skip("skipped", result="by letter")
        outcome = await saga.wait("skipped")
        assert isinstance(outcome, fp.Completed)
        assert outcome.result(notify) == "by letter"
        mended.append(True)
        await saga.retry("retried")
        outcome = await saga.wait("retried")
        assert isinstance(outcome, fp.Completed)
        assert outcome.result(notify) == "notify"
    assert undone == []


@pytest.mark.parametrize("error", [Failed("no"), ConnectionError("cut")])
async def test_a_pivot_that_refuses_is_undone_before_it_and_one_that_stays_unknown_is_not_guessed_at(
    engine: Engine, db: Database, error: Exception
) -> None:
    async def act(context: fp.StepContext[Order]) -> None:
        if context.step == "ship":
            raise error

    async def undo(context: fp.StepContext[Order], result: None) -> None:
        undone.append(context.step)

    undone = list[str]()
    ship = fp.Step.remote(act, name="ship", retry=QUICK)
    saga = fp.Saga(db, "pivotal", input=Order, steps=[fp.Step.remote(act, name="charge", undo=undo), ship], pivot=ship)
    await saga.install()
    async with running(saga):
        await saga.start("o-1", Order("milk"))
        outcome = await saga.wait("o-1")
    if isinstance(error, Failed):
        assert isinstance(outcome, fp.Compensated)
        assert undone == ["charge"]
    else:
        assert outcome == fp.NeedsAttention("o-1", "nobody knows whether it happened: ConnectionError: cut")
        assert undone == []
        assert "? ship    uncertain" in await saga.picture("o-1")


async def test_what_has_been_quiet_for_long_is_stuck_and_what_is_young_is_not(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    await shop.saga.start("old", Order("milk"))
    elapse(engine, 120)
    await shop.saga.start("young", Order("milk"))
    assert [(row.id, row.state) for row in await shop.saga.stuck(older=60)] == [("old", "running")]
    assert [row.id for row in await shop.saga.sagas("running")] == ["old", "young"]
    with pytest.raises(InvalidInput, match="one of the states"):
        await shop.saga.sagas("asleep")


async def test_how_old_a_saga_is_and_how_long_it_was_quiet_are_seconds_on_every_engine(
    engine: Engine, db: Database
) -> None:
    """PostgreSQL divides into what Python reads as a Decimal, which neither compares with a float nor becomes JSON."""
    shop = await opened(engine, db)
    await shop.saga.start("ends", Order("milk"))
    async with running(shop.saga):
        await shop.saga.wait("ends")
    await shop.saga.close()
    later = await opened(engine, db)
    await later.saga.start("waits", Order("milk"))
    elapse(engine, 120)
    for (row,) in (await later.saga.sagas(), await later.saga.stuck(older=60), await later.saga.sagas("completed")):
        assert (type(row.age_s), type(row.quiet_s)) == (float, float)
        assert 120 <= row.quiet_s <= row.age_s < 180


# --- another definition -----------------------------------------------------------------------------------------------


async def test_a_saga_whose_definition_changed_is_parked_with_the_difference(engine: Engine, db: Database) -> None:
    shop = await stranded(engine, db)
    await shop.saga.close()
    elsewhere = await opened(engine, db, version=2)
    async with running(elsewhere.saga):
        outcome = await elsewhere.saga.wait("o-1")
        assert isinstance(outcome, fp.NeedsAttention)
        assert "the version is 2, it was started with 1" in outcome.reason
        assert elsewhere.calls == []
        with pytest.raises(InvalidInput, match="because of no step"):
            await elsewhere.saga.skip("o-1")
        await elsewhere.saga.retry("o-1")
        assert isinstance(await elsewhere.saga.wait("o-1"), fp.NeedsAttention), "it is the same as before"
        await elsewhere.saga.adopt("o-1")
        assert isinstance(await elsewhere.saga.wait("o-1"), fp.Completed)
    assert elsewhere.names() == ["charge", "reserve", "ship"]


async def test_a_definition_that_lost_a_step_which_was_begun_is_not_adopted(engine: Engine, db: Database) -> None:
    shop = await stranded(engine, db)
    async with running(shop.saga):
        await shop.saga.wait("o-1")
    other = Shop(db)
    fewer = fp.Saga(db, "fulfil", input=Order, steps=[other.charge, other.ship])
    async with running(fewer):
        await fewer.retry("o-1")
        outcome = await fewer.wait("o-1")
        assert isinstance(outcome, fp.NeedsAttention)
        assert "-2. reserve (local)" in outcome.reason
        with pytest.raises(InvalidInput, match="has begun reserve"):
            await fewer.adopt("o-1")
    assert other.calls == []
    async with running((await opened(engine, db)).saga) as _:
        pass
