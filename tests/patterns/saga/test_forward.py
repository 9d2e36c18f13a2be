"""Sagas that are carried through: results, side by side, starting, waiting, and the trail that they leave."""

import asyncio
from contextvars import ContextVar

import pytest

import faultproof as fp
from faultproof.errors import InProgress, InvalidInput, KeyReused, TransactionOpen, TryAgain
from faultproof.ports.database import Database
from faultproof.signals import SAGA_STEP
from tests.conformance.conftest import Connect
from tests.conformance.engines import Engine
from tests.fakes import Recorder, until, within
from tests.patterns.saga.shop import Order, Shop, elapse, opened, raising, reserved, running

pytestmark = pytest.mark.anyio


async def test_steps_run_in_order_with_the_results_of_those_before(
    engine: Engine, db: Database, recorder: Recorder
) -> None:
    shop = await opened(engine, db)
    async with running(shop.saga):
        assert await shop.saga.start("o-1", Order("milk", 7)) is True
        outcome = await shop.saga.wait("o-1")
    assert isinstance(outcome, fp.Completed)
    assert outcome.result(shop.ship) == "fulfil/o-1/charge 7"
    assert outcome.result(shop.charge).amount == 7
    assert shop.calls == [(name, f"fulfil/o-1/{name}") for name in ("charge", "reserve", "ship")]
    assert reserved(engine) == ["o-1"]
    assert len(recorder.values(SAGA_STEP, saga="fulfil", step="charge")) == 1


async def test_start_returns_before_any_step_is_made_and_a_runner_of_any_process_goes_on(
    engine: Engine, db: Database, connect: Connect
) -> None:
    shop = await opened(engine, db)
    await shop.saga.start("o-1", Order("milk"))
    assert shop.calls == []
    elsewhere = await opened(engine, await connect())
    async with running(elsewhere.saga):
        outcome = await shop.saga.wait("o-1")
    assert isinstance(outcome, fp.Completed)
    assert outcome.result(shop.ship) == "fulfil/o-1/charge 1"
    assert shop.calls == []
    assert elsewhere.names() == ["charge", "reserve", "ship"]
    await shop.saga.close()


async def test_the_same_start_again_changes_nothing_and_another_input_is_refused(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    answers = await asyncio.gather(*(shop.saga.start("o-1", Order("milk")) for _ in range(10)))
    assert sorted(answers) == [False] * 9 + [True]
    with pytest.raises(KeyReused, match="another input"):
        await shop.saga.start("o-1", Order("tea"))
    async with running(shop.saga):
        await shop.saga.wait("o-1")
        assert await shop.saga.start("o-1", Order("milk")) is False
    assert shop.counted() == {"charge": 1, "reserve": 1, "ship": 1}


async def test_of_many_starts_at_once_those_that_were_there_before_hold_no_others_up(
    engine: Engine, db: Database
) -> None:
    shop = await opened(engine, db)
    async with running(shop.saga, concurrency=4):  # of which none stays taken by a start that was none
        for round in range(3):
            await shop.saga.start(f"there-{round}", Order("milk"))
            starts = [("there", "milk"), ("new-a", "tea"), ("there", "tea"), ("new-b", "rice"), ("new-a", "tea")]
            answers = await asyncio.gather(
                *(shop.saga.start(f"{id}-{round}", Order(item)) for id, item in starts), return_exceptions=True
            )
            assert [type(answer) if isinstance(answer, Exception) else answer for answer in answers] == [
                False,
                True,
                KeyReused,
                True,
                False,
            ]
            for id in ("there", "new-a", "new-b"):
                assert isinstance(await shop.saga.wait(f"{id}-{round}"), fp.Completed)
    assert shop.counted() == {"charge": 9, "reserve": 9, "ship": 9}


async def test_same_id_with_two_inputs_at_once_has_one_winner(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    starts = [shop.saga.start("o-1", Order(item)) for item in ("milk", "tea")]
    answers = await asyncio.gather(*starts, return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["KeyReused", "bool"]


async def test_a_start_commits_and_vanishes_with_the_callers_transaction(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)

    async def changed_their_mind() -> None:
        async with db.transaction() as tx:
            await shop.saga.start("gone", Order("milk"), tx=tx)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await changed_their_mind()
    async with db.transaction() as tx:
        await shop.saga.start("kept", Order("milk"), tx=tx)
        with pytest.raises(TransactionOpen):
            await shop.saga.start("outside", Order("milk"))
    assert [row.id for row in await shop.saga.sagas()] == ["kept"]
    with pytest.raises(InvalidInput, match="no saga 'gone'"):
        await shop.saga.wait("gone")
    async with running(shop.saga):
        assert isinstance(await shop.saga.wait("kept"), fp.Completed)
    assert shop.counted()["charge"] == 1


async def test_who_waits_too_long_is_told_and_may_ask_again(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    await shop.saga.start("o-1", Order("milk"))
    with pytest.raises(InProgress, match=r"within 0\.01 s"):
        await shop.saga.wait("o-1", timeout=0.01)
    async with running(shop.saga):
        assert isinstance(await shop.saga.wait("o-1"), fp.Completed)
        assert isinstance(await shop.saga.wait("o-1"), fp.Completed)


async def test_steps_of_a_group_run_side_by_side_and_the_next_waits_for_all(engine: Engine, db: Database) -> None:
    both, seen = asyncio.Barrier(2), list[str]()

    async def meet(context: fp.StepContext[Order]) -> str:
        await within(both.wait())
        seen.append(context.step)
        return context.step

    async def last(context: fp.StepContext[Order]) -> list[str]:
        return [context.result(left), context.result(right)]

    async def count(context: fp.StepContext[Order], tx: object) -> int:
        return 1

    left = fp.Step.remote(meet, name="left", undo=fp.NOTHING_TO_UNDO)
    right = fp.Step.remote(meet, name="right", undo=fp.NOTHING_TO_UNDO)
    here = fp.Step.local(count, undo=fp.NOTHING_TO_UNDO)
    end = fp.Step.remote(last, undo=fp.NOTHING_TO_UNDO)
    saga = fp.Saga(db, "grouped", input=Order, steps=[(left, right, here), end])
    await saga.install()
    async with running(saga):
        await saga.start("o-1", Order("milk"))
        outcome = await saga.wait("o-1")
    assert isinstance(outcome, fp.Completed)
    assert outcome.result(end) == ["left", "right"]
    assert sorted(seen) == ["left", "right"]


async def test_many_sagas_share_commits_and_each_ends(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    ids = [f"o-{number}" for number in range(100)]
    async with running(shop.saga, concurrency=7):
        await asyncio.gather(*(shop.saga.start(id, Order("milk")) for id in ids))
        outcomes = await within(asyncio.gather(*(shop.saga.wait(id) for id in ids)))
    assert {type(outcome) for outcome in outcomes} == {fp.Completed}
    assert shop.counted() == {"charge": 100, "reserve": 100, "ship": 100}
    assert await db.read(db.claims.holders("saga:fulfil")) == []


async def test_what_says_later_is_tried_again_with_the_same_key(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    shop.on["ship"] = raising(TryAgain("not now"), TryAgain("nor now"))
    async with running(shop.saga):
        await shop.saga.start("o-1", Order("milk"))
        assert isinstance(await shop.saga.wait("o-1"), fp.Completed)
    assert shop.calls[-3:] == [("ship", "fulfil/o-1/ship")] * 3
    assert shop.counted()["charge"] == shop.counted()["reserve"] == 1


async def test_a_far_retry_gives_the_saga_back_and_is_made_when_due(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    shop.on["ship"] = raising(TryAgain("tomorrow", retry_after=3_600.0))
    async with running(shop.saga) as (runner,):
        await shop.saga.start("o-1", Order("milk"))
        with pytest.raises(InProgress):
            await shop.saga.wait("o-1", timeout=0.5)
        assert runner.under_way == 0
        assert shop.counted()["ship"] == 1
        elapse(engine, 3_601)
        assert isinstance(await shop.saga.wait("o-1"), fp.Completed)
    assert shop.counted()["ship"] == 2


async def test_who_starts_a_saga_goes_on_with_it_and_its_first_step_is_journaled_with_the_start(
    engine: Engine, db: Database, connect: Connect
) -> None:
    shop, elsewhere = await opened(engine, db), await opened(engine, await connect())
    reached = asyncio.Event()
    shop.on["charge"] = lambda number: reached.wait()
    async with running(elsewhere.saga), running(shop.saga):
        await until(lambda: bool(shop.saga._here))
        await shop.saga.start("o-1", Order("milk"))
        assert [(line.step, line.what) for line in await shop.saga.history("o-1")] == [("charge", "began")]
        (holder,) = await db.read(db.claims.holders("saga:fulfil"))
        assert (holder.state, holder.owner) == ("held", shop.saga._owner)
        reached.set()
        assert isinstance(await shop.saga.wait("o-1"), fp.Completed)
        assert (elsewhere.calls, shop.counted()["charge"]) == ([], 1)


async def test_two_that_start_the_same_saga_at_once_start_it_once_and_it_goes_on(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    async with running(shop.saga):
        await until(lambda: bool(shop.saga._here))
        starts = [shop.saga.start(id, Order("milk")) for id in ("o-0", "o-1", "o-1", "o-1")]
        assert sorted(await asyncio.gather(*starts)) == [False, False, True, True]
        assert isinstance(await shop.saga.wait("o-1", timeout=5.0), fp.Completed)
        assert shop.counted() == {"charge": 2, "reserve": 2, "ship": 2}


async def test_what_a_busy_process_starts_is_left_to_others(engine: Engine, db: Database, connect: Connect) -> None:
    shop, elsewhere = await opened(engine, db), await opened(engine, await connect())
    reached = asyncio.Event()
    shop.on["charge"] = lambda number: reached.wait()
    async with running(shop.saga, concurrency=1), running(elsewhere.saga):
        await until(lambda: bool(shop.saga._here))
        await asyncio.gather(*(shop.saga.start(f"o-{number}", Order("milk")) for number in range(5)))
        await until(lambda: elsewhere.counted()["ship"] == 4)
        assert shop.counted() == {"charge": 1}
        reached.set()
        await asyncio.gather(*(shop.saga.wait(f"o-{number}") for number in range(5)))
    assert shop.counted()["charge"] + elsewhere.counted()["charge"] == 5


async def test_a_saga_whose_starter_was_cancelled_amid_it_goes_on(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    async with running(shop.saga):
        await shop.saga.start("o-0", Order("milk"))  # or the next would begin alone, in its caller's own task
        starts = [asyncio.create_task(shop.saga.start(f"o-{number}", Order("milk"))) for number in range(1, 10)]
        await asyncio.sleep(0)
        for start in starts[1:]:
            start.cancel()
        await asyncio.gather(*starts, return_exceptions=True)
        begun = [id for (id,) in engine.execute("SELECT id FROM faultproof_saga")]
        for id in begun:
            assert isinstance(await shop.saga.wait(id, timeout=5.0), fp.Completed)


async def test_actions_see_nothing_of_who_started_the_saga(engine: Engine, db: Database) -> None:
    """Neither a request's identity nor its trace: sagas share transactions, and tasks, with those of others."""
    shop = await opened(engine, db)
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[str] = []
    for step in ("charge", "reserve", "ship"):
        shop.on[step] = lambda number: seen.append(request.get())
    async with running(shop.saga):

        async def handle(number: int) -> None:
            request.set(f"request {number}")
            await shop.saga.start(f"o-{number}", Order("milk"))
            await shop.saga.wait(f"o-{number}")

        await asyncio.gather(*(handle(number) for number in range(5)))
    assert seen == ["none"] * 15


async def test_every_step_leaves_its_lines_in_the_history(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    async with running(shop.saga):
        await shop.saga.start("o-1", Order("milk"))
        await shop.saga.wait("o-1")
    lines = await shop.saga.history("o-1")
    assert [(line.step, line.what) for line in lines] == [
        *((step, what) for step in ("charge", "reserve", "ship") for what in ("began", "done")),
        ("", "completed"),
    ]
    assert [line.seq for line in lines] == list(range(1, 8))
    assert lines[1].data == '{"key":"fulfil/o-1/charge","amount":1}'
    with pytest.raises(InvalidInput, match="no saga"):
        await shop.saga.history("o-2")


async def test_pictures_show_the_definition_and_one_saga(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    async with running(shop.saga):
        await shop.saga.start("o-1", Order("milk"))
        await shop.saga.wait("o-1")
    lines = (await shop.saga.picture("o-1")).splitlines()
    assert lines[0] == "fulfil o-1: completed"
    assert [line.split()[:3] for line in lines[1:]] == [
        ["1", "✓", "charge"],
        ["2", "✓", "reserve"],
        ["3", "✓", "ship"],
    ]
    drawn = shop.saga.mermaid()
    assert drawn.startswith("flowchart TD")
    assert 's1["reserve (local)"]' in drawn
    assert "s0 --> s1" in drawn
    assert "s1 -.-> u1" in drawn


async def test_what_is_over_is_forgotten_when_it_is_old_and_nothing_else(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    async with running(shop.saga):
        await shop.saga.start("old", Order("milk"))
        await shop.saga.wait("old")
        elapse(engine, 3_600)
    other = Shop(db)
    async with running(other.saga):
        other.spelled = engine.spelled
        await other.saga.start("young", Order("milk"))
        await other.saga.wait("young")
    await Shop(db).saga.start("open", Order("milk"))
    retention = shop.saga.retention(keep=1_800)
    assert await retention.step() == 10.0
    assert engine.execute("SELECT id FROM faultproof_saga ORDER BY id") == [("open",), ("young",)]
    assert engine.execute("SELECT DISTINCT id FROM faultproof_saga_entry") == [("young",)]
