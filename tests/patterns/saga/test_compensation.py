"""Sagas that turn: what happened, or may have, is undone in reverse order, and nothing else."""

import asyncio

import pytest

import faultproof as fp
from faultproof.errors import Failed, OutcomeUnknown
from faultproof.ports.database import Database
from tests.conformance.engines import Engine
from tests.fakes import within
from tests.patterns.saga.shop import QUICK, Order, always, opened, raising, reserved, running

pytestmark = pytest.mark.anyio


async def test_a_refusal_undoes_what_was_done_in_reverse_order_with_its_results(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    shop.on["ship"] = always(Failed("nobody ships there"))
    async with running(shop.saga):
        await shop.saga.start("o-1", Order("milk"))
        outcome = await shop.saga.wait("o-1")
    assert outcome == fp.Compensated("o-1", "ship: Failed: nobody ships there")
    assert shop.names() == ["charge", "reserve", "ship", "release", "refund"]
    assert shop.calls[-1] == ("refund", "fulfil/o-1/charge/undo")
    assert reserved(engine) == []


async def test_what_was_refused_at_once_is_not_undone(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    shop.on["charge"] = always(Failed("declined"))
    async with running(shop.saga):
        await shop.saga.start("o-1", Order("milk"))
        assert isinstance(await shop.saga.wait("o-1"), fp.Compensated)
    assert shop.names() == ["charge"]


@pytest.mark.parametrize("error", [OutcomeUnknown("no answer"), ConnectionResetError("cut"), TimeoutError("late")])
async def test_an_unknown_outcome_is_repeated_with_the_same_key(
    engine: Engine, db: Database, error: BaseException
) -> None:
    shop = await opened(engine, db)
    shop.on["charge"] = raising(error)
    async with running(shop.saga):
        await shop.saga.start("o-1", Order("milk"))
        assert isinstance(await shop.saga.wait("o-1"), fp.Completed)
    assert shop.calls[:2] == [("charge", "fulfil/o-1/charge")] * 2


async def test_what_stays_unknown_is_undone_although_nobody_knows_whether_it_happened(
    engine: Engine, db: Database
) -> None:
    shop = await opened(engine, db)
    shop.on["ship"] = always(OutcomeUnknown("no answer"))
    async with running(shop.saga):
        await shop.saga.start("o-1", Order("milk"))
        assert isinstance(await shop.saga.wait("o-1"), fp.Compensated)
    assert shop.names() == [
        "charge",
        "reserve",
        "ship",
        "ship",
        "ship",
        "cancel what may have been",
        "release",
        "refund",
    ]


async def test_a_refusal_after_an_unknown_attempt_is_no_proof_that_nothing_happened(
    engine: Engine, db: Database
) -> None:
    shop = await opened(engine, db)
    shop.on["ship"] = raising(OutcomeUnknown("no answer"), Failed("no"))
    async with running(shop.saga):
        await shop.saga.start("o-1", Order("milk"))
        await shop.saga.wait("o-1")
    assert shop.names()[-3:] == ["cancel what may have been", "release", "refund"]


async def test_an_attempt_that_takes_too_long_is_cut_off_and_counts_as_unknown(engine: Engine, db: Database) -> None:
    async def forever(context: fp.StepContext[Order]) -> None:
        calls.append(context.remaining)
        await asyncio.Event().wait()

    async def undo(context: fp.StepContext[Order], result: None) -> None:
        undone.append(context.undone_key)

    calls, undone = list[float](), list[str | None]()
    step = fp.Step.remote(forever, undo=undo, timeout=0.05, retry=fp.StepRetry(attempts=2, base=0.0, cap=0.0))
    saga = fp.Saga(db, "slow", input=Order, steps=[step])
    await saga.install()
    async with running(saga):
        await saga.start("o-1", Order("milk"))
        outcome = await saga.wait("o-1")
    assert outcome == fp.Compensated("o-1", "forever: no answer within 0.05 s")
    assert len(calls) == 2
    assert all(0 < remaining <= 0.05 for remaining in calls)
    assert undone == ["slow/o-1/forever"]


async def test_a_local_step_that_fails_leaves_nothing_behind_and_is_tried_again(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    shop.on["reserve"] = raising(ValueError("not yet"), None)
    async with running(shop.saga):
        await shop.saga.start("o-1", Order("milk"))
        assert isinstance(await shop.saga.wait("o-1"), fp.Completed)
    assert shop.counted()["reserve"] == 2
    assert reserved(engine) == ["o-1"]


async def test_a_local_step_that_is_given_up_needs_no_undo(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    shop.on["reserve"] = always(ValueError("sold out"))
    async with running(shop.saga):
        await shop.saga.start("o-1", Order("milk"))
        assert await shop.saga.wait("o-1") == fp.Compensated("o-1", "reserve: ValueError: sold out")
    assert shop.names() == ["charge", *["reserve"] * 3, "refund"]
    assert reserved(engine) == []


async def test_an_undo_is_repeated_with_its_own_key_until_it_is_done(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    shop.on["ship"] = always(Failed("no"))
    shop.on["refund"] = raising(OutcomeUnknown("no answer"), ConnectionError("down"))
    shop.on["release"] = raising(ValueError("locked"))
    async with running(shop.saga):
        await shop.saga.start("o-1", Order("milk"))
        assert isinstance(await shop.saga.wait("o-1"), fp.Compensated)
    assert shop.names()[3:] == ["release"] * 2 + ["refund"] * 3
    assert {key for what, key in shop.calls if what == "refund"} == {"fulfil/o-1/charge/undo"}
    assert reserved(engine) == []


async def test_what_is_about_to_be_done_or_undone_is_in_the_journal_before_it_is(engine: Engine, db: Database) -> None:
    """Whoever dies after this line leaves word of what may have happened; read on another connection."""

    def journal() -> list[str]:
        rows = engine.execute("SELECT step, what FROM faultproof_saga_entry ORDER BY seq")
        return [f"{step} {what}".strip() for step, what in rows]

    async def act(context: fp.StepContext[Order]) -> None:
        seen[context.step] = journal()
        if context.step == "last":
            raise Failed("no")

    async def undo(context: fp.StepContext[Order], result: None) -> None:
        seen[f"undo {context.step}"] = journal()

    seen = dict[str, list[str]]()
    steps = [fp.Step.remote(act, name=name, undo=undo, retry=QUICK) for name in ("first", "last")]
    saga = fp.Saga(db, "announced", input=Order, steps=steps)
    await saga.install()
    async with running(saga):
        await saga.start("o-1", Order("milk"))
        assert isinstance(await saga.wait("o-1"), fp.Compensated)
    whole = journal()
    assert seen == {
        "first": ["first began"],
        "last": ["first began", "first done", "last began"],
        "undo first": whole[: whole.index("first undo_began") + 1],
    }
    assert whole[3:] == ["last failed", "turned", "first undo_began", "first undone", "compensated"]


async def test_an_undo_has_a_policy_of_its_own(engine: Engine, db: Database) -> None:
    async def act(context: fp.StepContext[Order]) -> None:
        attempts.append("act")
        raise OutcomeUnknown("no answer")

    async def undo(context: fp.StepContext[Order], result: None) -> None:
        attempts.append("undo")
        raise ConnectionError("down")

    attempts = list[str]()
    once = fp.StepRetry(attempts=1)
    step = fp.Step.remote(act, undo=undo, retry=once, undo_retry=fp.StepRetry(attempts=4, base=0.0, cap=0.0))
    saga = fp.Saga(db, "patient", input=Order, steps=[step])
    await saga.install()
    async with running(saga):
        await saga.start("o-1", Order("milk"))
        assert isinstance(await saga.wait("o-1"), fp.NeedsAttention)
    assert attempts == ["act", *["undo"] * 4]
    assert fp.Step.remote(act, undo=undo, retry=once).undo_retry.attempts == 20


async def test_steps_of_a_group_are_undone_side_by_side_before_those_in_front_of_them(
    engine: Engine, db: Database
) -> None:
    both, undone = asyncio.Barrier(2), list[str]()

    async def act(context: fp.StepContext[Order]) -> str:
        if context.step == "refuses":
            raise Failed("no")
        return context.step

    async def undo(context: fp.StepContext[Order], result: str | None) -> None:
        if context.step != "first":
            await within(both.wait())
        undone.append(context.step)

    def step(name: str) -> fp.Step[Order, str]:
        return fp.Step.remote(act, undo=undo, name=name, retry=QUICK)

    saga = fp.Saga(db, "grouped", input=Order, steps=[step("first"), [step("left"), step("right"), step("refuses")]])
    await saga.install()
    async with running(saga):
        await saga.start("o-1", Order("milk"))
        assert isinstance(await saga.wait("o-1"), fp.Compensated)
    assert sorted(undone[:2]) == ["left", "right"]
    assert undone[2:] == ["first"]


async def test_a_deadline_cuts_the_step_short_and_undoes_the_whole(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    shop.on["ship"] = lambda number: asyncio.Event().wait()
    async with running(shop.saga):
        await shop.saga.start("o-1", Order("milk"), deadline=0.3)
        outcome = await shop.saga.wait("o-1")
    assert outcome == fp.Compensated("o-1", "the deadline of the whole has passed")
    assert shop.names() == ["charge", "reserve", "ship", "cancel what may have been", "release", "refund"]


async def test_a_deadline_that_passed_before_the_first_step_leaves_nothing_to_undo(
    engine: Engine, db: Database
) -> None:
    shop = await opened(engine, db)
    await shop.saga.start("o-1", Order("milk"), deadline=0.000_001)
    async with running(shop.saga):
        assert isinstance(await shop.saga.wait("o-1"), fp.Compensated)
    assert shop.names() == []


async def test_no_deadline_counts_once_the_pivot_is_done(engine: Engine, db: Database) -> None:
    passed = asyncio.Event()

    async def act(context: fp.StepContext[Order]) -> None:
        if context.step == "after":
            await within(passed.wait())

    first = fp.Step.remote(act, name="first", undo=fp.NOTHING_TO_UNDO)
    pivot, after = fp.Step.remote(act, name="pivot"), fp.Step.remote(act, name="after")
    saga = fp.Saga(db, "pivotal", input=Order, steps=[first, pivot, after], pivot=pivot)
    await saga.install()
    async with running(saga):
        await saga.start("o-1", Order("milk"), deadline=0.2)
        asyncio.get_running_loop().call_later(0.3, passed.set)
        assert isinstance(await saga.wait("o-1"), fp.Completed)


async def test_a_result_that_cannot_be_kept_fails_the_step_and_undoes_it(engine: Engine, db: Database) -> None:
    async def act(context: fp.StepContext[Order]) -> int:
        return object()  # type: ignore[return-value]

    async def undo(context: fp.StepContext[Order], result: int | None) -> None:
        undone.append(result)

    async def here(context: fp.StepContext[Order], tx: object) -> str:
        return "\0"

    undone = list[int | None]()
    saga = fp.Saga(db, "nonsense", input=Order, steps=[fp.Step.remote(act, undo=undo, retry=QUICK)])
    local = fp.Saga(db, "local", input=Order, steps=[fp.Step.local(here, undo=fp.NOTHING_TO_UNDO, retry=QUICK)])
    await saga.install()
    async with running(saga, local):
        await saga.start("o-1", Order("milk"))
        outcome = await saga.wait("o-1")
        await local.start("o-1", Order("milk"))
        there = await local.wait("o-1")
    assert isinstance(outcome, fp.Compensated)
    assert "the result of step 'act' cannot be kept as JSON" in outcome.reason
    assert undone == [None]
    assert len([line for line in await saga.history("o-1") if line.what == "began"]) == 1, "to repeat it helps nobody"
    assert isinstance(there, fp.Compensated)
    assert "NUL" in there.reason


async def test_words_that_no_database_keeps_are_no_obstacle(engine: Engine, db: Database) -> None:
    """The name of a file that is no UTF-8 has halves of characters in it."""
    shop = await opened(engine, db)
    shop.on["charge"] = raising(Failed("no file x\udcff.pdf\0"))
    async with running(shop.saga):
        await shop.saga.start("o-1", Order("milk"))
        outcome = await shop.saga.wait("o-1")
    assert outcome == fp.Compensated("o-1", "charge: Failed: no file x?.pdf")
