"""Rows that cannot be read park their saga, in sight of a person; the others go on as if nothing had happened."""

import pytest

import faultproof as fp
from faultproof.errors import Failed, Repair, TryAgain
from faultproof.ports.database import Database
from tests.conformance.engines import Engine
from tests.fakes import until
from tests.patterns.saga.shop import Order, elapse, opened, running

pytestmark = pytest.mark.anyio

CALLED = ("charge", "reserve", "ship")
UNKNOWN_LINE = """INSERT INTO faultproof_saga_entry (saga, id, seq, step, what, attempt, data, due_us, at_us)
                  VALUES ('fulfil', 'bad', 1, 'charge', 'teleported', 1, NULL, NULL, 0)"""
DAMAGES = {
    "input of another type": ("UPDATE faultproof_saga SET input = '{\"colour\": 7}'", "input cannot be read"),
    "input that is no JSON": ("UPDATE faultproof_saga SET input = '{'", "input cannot be read"),
    "input that is too deep": (
        "UPDATE faultproof_saga SET input = '{\"item\":' || DEEP || '}'",
        "input cannot be read",
    ),
    "shape that is no JSON": (
        "UPDATE faultproof_saga SET shape = 'x', fingerprint = 'x'",
        "stored of it cannot be read",
    ),
    "shape of something else": ("UPDATE faultproof_saga SET shape = '[7]', fingerprint = 'x'", "cannot be read"),
    "journal with an unknown line": (UNKNOWN_LINE, "line 1 of its journal says 'teleported'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_row_that_cannot_be_read_parks_its_saga_and_stops_no_other(
    engine: Engine, db: Database, damage: str
) -> None:
    shop = await opened(engine, db)
    ids = ["a", "bad", "z"]
    for id in ids:
        await shop.saga.start(id, Order("milk"))
    statement, words = DAMAGES[damage]
    statement = statement.replace("DEEP", "'" + "[" * 20_000 + "]" * 20_000 + "'")
    engine.execute(statement if statement.startswith("INSERT") else f"{statement} WHERE id = 'bad'")
    async with running(shop.saga) as (runner,):
        for id in ("a", "z"):
            assert isinstance(await shop.saga.wait(id), fp.Completed)
        outcome = await shop.saga.wait("bad")
        assert isinstance(outcome, fp.NeedsAttention)
        assert words in outcome.reason
        assert [row.id for row in await shop.saga.stuck(older=3_600)] == ["bad"]
        assert (await shop.saga.history("bad"))[-1].what == "attention"
        assert {key for _, key in shop.calls} == {f"fulfil/{id}/{what}" for id in "az" for what in CALLED}
        assert runner.under_way == 0
        await shop.saga.resolve("bad", "compensated", reason="seen to by hand")
        assert await shop.saga.wait("bad") == fp.Compensated("bad", "seen to by hand")
    assert await db.read(db.claims.holders("saga:fulfil")) == []


async def test_what_a_person_asks_of_a_saga_whose_shape_is_damaged_is_answered_with_a_sentence(
    engine: Engine, db: Database
) -> None:
    shop = await opened(engine, db)
    await shop.saga.start("bad", Order("milk"))
    engine.execute("UPDATE faultproof_saga SET shape = 'x', fingerprint = 'x'")
    async with running(shop.saga):
        assert isinstance(await shop.saga.wait("bad"), fp.NeedsAttention)
        for call in (shop.saga.retry, shop.saga.skip, shop.saga.adopt, shop.saga.picture):
            with pytest.raises(Repair, match="resolve it"):
                await call("bad")
    assert [row.state for row in await shop.saga.stuck(older=3_600)] == ["attention"]


async def test_a_result_that_its_undo_cannot_read_is_shown_to_people_and_not_tried_for_ever(
    engine: Engine, db: Database
) -> None:
    async def charge(context: fp.StepContext[Order]) -> int:
        return 7

    async def refund(context: fp.StepContext[Order], result: int | None) -> None:
        refunded.append(result)

    async def refuse(context: fp.StepContext[Order]) -> None:
        raise TryAgain("tomorrow", retry_after=3_600.0) if context.attempt == 1 else Failed("no")

    refunded = list[int | None]()
    steps = [fp.Step.remote(charge, undo=refund), fp.Step.remote(refuse, undo=fp.NOTHING_TO_UNDO)]
    saga = fp.Saga(db, "damaged", input=Order, steps=steps)
    await saga.install()
    async with running(saga) as (runner,):
        await saga.start("o-1", Order("milk"))
        await until(lambda: runner.under_way == 0 and _lines(engine) == [("charge", "7"), ("refuse", None)])
        engine.execute("UPDATE faultproof_saga_entry SET data = '\"seven\"' WHERE what = 'done'")
        elapse(engine, 3_601)
        outcome = await saga.wait("o-1")
        assert isinstance(outcome, fp.NeedsAttention)
        assert "its result cannot be read any more" in outcome.reason
        assert refunded == []
        engine.execute("UPDATE faultproof_saga_entry SET data = '7' WHERE what = 'done'")
        await saga.retry("o-1")
        assert isinstance(await saga.wait("o-1"), fp.Compensated)
    assert refunded == [7]


def _lines(engine: Engine) -> list[tuple[str, str | None]]:
    """What has been done or has failed, with results."""
    rows = engine.execute(
        "SELECT step, what, data FROM faultproof_saga_entry WHERE what IN ('done', 'failed') ORDER BY seq"
    )
    return [(step, data if what == "done" else None) for step, what, data in rows]
