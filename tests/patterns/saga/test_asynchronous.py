"""Steps whose answer comes later: early answers are kept, late ones do not count, and nobody waits meanwhile."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import faultproof as fp
from faultproof.errors import InProgress, InvalidInput, OutcomeUnknown, TransactionOpen, TryAgain
from faultproof.patterns.saga.runner import Runner
from faultproof.ports.database import Database
from tests.conformance.engines import Engine
from tests.fakes import until, within
from tests.patterns.saga.shop import QUICK, Order, elapse, running

pytestmark = pytest.mark.anyio


class Courier:
    """A provider that answers later."""

    def __init__(self, db: Database, retry: fp.StepRetry = QUICK) -> None:
        self.tokens: list[str] = []
        self.undone: list[str | None] = []
        self.early: Callable[[str], object] | None = None
        self.ask = fp.Step.asynchronous(
            self._ask, result=str, undo=self._undo, name="deliver", answer_within=60.0, retry=retry
        )
        self.after = fp.Step.remote(self._after, name="after", undo=fp.NOTHING_TO_UNDO)
        self.saga = fp.Saga(db, "delivery", input=Order, steps=[self.ask, self.after])

    async def _ask(self, context: fp.StepContext[Order]) -> fp.Pending:
        assert context.token is not None
        self.tokens.append(context.token)
        if self.early is not None:
            await self.early(context.token)  # type: ignore[misc]
        return fp.Pending()

    async def _undo(self, context: fp.StepContext[Order], result: str | None) -> None:
        self.undone.append(result)

    async def _after(self, context: fp.StepContext[Order]) -> str:
        return f"after {context.result(self.ask)}"


async def asked(courier: Courier, runner: Runner, times: int = 1) -> str:
    """The saga waits for an answer, and takes no place."""
    await until(lambda: len(courier.tokens) == times and runner.under_way == 0)
    return courier.tokens[-1]


async def test_an_answer_completes_the_step_and_the_saga_goes_on(engine: Engine, db: Database) -> None:
    courier = Courier(db)
    await courier.saga.install()
    async with running(courier.saga) as (runner,):
        await courier.saga.start("o-1", Order("milk"))
        token = await asked(courier, runner)
        with pytest.raises(InProgress):
            await courier.saga.wait("o-1", timeout=0.05)
        assert await courier.saga.complete("o-1", courier.ask, token, "signed") is True
        outcome = await courier.saga.wait("o-1")
        assert isinstance(outcome, fp.Completed)
        assert outcome.result(courier.after) == "after signed"
        assert await courier.saga.complete("o-1", courier.ask, token, "again") is False
    assert len(courier.tokens) == 1


async def test_an_answer_that_comes_before_the_action_has_returned_is_kept(engine: Engine, db: Database) -> None:
    courier = Courier(db)
    courier.early = lambda token: courier.saga.complete("o-1", courier.ask, token, "at once")
    await courier.saga.install()
    async with running(courier.saga):
        await courier.saga.start("o-1", Order("milk"))
        outcome = await courier.saga.wait("o-1", timeout=5.0)
    assert isinstance(outcome, fp.Completed)
    assert outcome.result(courier.ask) == "at once"


@pytest.mark.parametrize("attempts", [1, 3])
async def test_an_answer_that_came_counts_although_the_action_s_own_answer_was_lost(
    engine: Engine, db: Database, attempts: int
) -> None:
    """Found: the answer was told that it counts, and then the step was repeated, or given up and undone."""

    async def early(token: str) -> None:
        assert await courier.saga.complete("o-1", courier.ask, token, "signed") is True
        raise OutcomeUnknown("the request's answer is lost")

    courier = Courier(db, retry=fp.StepRetry(attempts=attempts, base=0.0, cap=0.0))
    courier.early = early
    await courier.saga.install()
    async with running(courier.saga):
        await courier.saga.start("o-1", Order("milk"))
        outcome = await courier.saga.wait("o-1")
    assert isinstance(outcome, fp.Completed)
    assert outcome.result(courier.ask) == "signed"
    assert (len(courier.tokens), courier.undone) == (1, [])


async def test_an_answer_that_comes_between_two_attempts_counts(engine: Engine, db: Database) -> None:
    async def early(token: str) -> None:
        raise TryAgain("tomorrow", retry_after=3_600.0)

    courier = Courier(db)
    courier.early = early
    await courier.saga.install()
    async with running(courier.saga) as (runner,):
        await courier.saga.start("o-1", Order("milk"))
        token = await asked(courier, runner)
        assert await courier.saga.complete("o-1", courier.ask, token, "signed") is True
        outcome = await courier.saga.wait("o-1")
    assert isinstance(outcome, fp.Completed)
    assert (outcome.result(courier.ask), len(courier.tokens)) == ("signed", 1)


async def test_beside_other_steps_as_well_an_answer_that_came_counts(engine: Engine, db: Database) -> None:
    async def early(token: str) -> None:
        assert await courier.saga.complete("o-1", courier.ask, token, "signed") is True
        answered.set()
        raise OutcomeUnknown("the request's answer is lost")

    async def slowly(context: fp.StepContext[Order]) -> None:
        await within(answered.wait())

    answered = asyncio.Event()
    courier = Courier(db)
    courier.early = early
    beside = fp.Step.remote(slowly, undo=fp.NOTHING_TO_UNDO)
    courier.saga = fp.Saga(db, "delivery", input=Order, steps=[[courier.ask, beside], courier.after])
    await courier.saga.install()
    async with running(courier.saga):
        await courier.saga.start("o-1", Order("milk"))
        outcome = await courier.saga.wait("o-1")
    assert isinstance(outcome, fp.Completed)
    assert (outcome.result(courier.after), len(courier.tokens)) == ("after signed", 1)


async def test_a_refusal_turns_the_saga(engine: Engine, db: Database) -> None:
    courier = Courier(db)
    await courier.saga.install()
    async with running(courier.saga) as (runner,):
        await courier.saga.start("o-1", Order("milk"))
        token = await asked(courier, runner)
        assert await courier.saga.fail("o-1", courier.ask, token, "nobody at home") is True
        assert await courier.saga.wait("o-1") == fp.Compensated("o-1", "deliver: nobody at home")
    assert courier.undone == []


async def test_without_an_answer_in_time_it_is_asked_again_and_then_undone(engine: Engine, db: Database) -> None:
    courier = Courier(db)
    await courier.saga.install()
    async with running(courier.saga) as (runner,):
        await courier.saga.start("o-1", Order("milk"))
        first = await asked(courier, runner)
        elapse(engine, 61)
        second = await asked(courier, runner, 2)
        assert second != first
        assert await courier.saga.complete("o-1", courier.ask, first, "late") is False
        assert await courier.saga.fail("o-1", courier.ask, first, "late as well") is False
        assert runner.under_way == 0, "what came late does not wake it either"
        elapse(engine, 61)
        await asked(courier, runner, 3)
        elapse(engine, 61)
        assert await courier.saga.wait("o-1") == fp.Compensated("o-1", "deliver: no callback within 60 s")
        assert await courier.saga.complete("o-1", courier.ask, courier.tokens[-1], "late") is False
    assert courier.undone == [None]


async def test_an_answer_outlives_the_process_that_asked(engine: Engine, db: Database) -> None:
    courier = Courier(db)
    await courier.saga.install()
    async with running(courier.saga) as (runner,):
        await courier.saga.start("o-1", Order("milk"))
        token = await asked(courier, runner)
    again = Courier(db)
    assert await again.saga.complete("o-1", again.ask, token, "signed") is True
    async with running(again.saga):
        assert isinstance(await again.saga.wait("o-1"), fp.Completed)
    assert again.tokens == []


async def test_a_token_that_was_never_given_out_is_refused_and_nothing_is_kept(engine: Engine, db: Database) -> None:
    courier = Courier(db)
    await courier.saga.install()
    async with running(courier.saga) as (runner,):
        await courier.saga.start("o-1", Order("milk"))
        token = await asked(courier, runner)
        nonsense: list[Any] = [
            "",
            "1",
            "1.",
            "2." + token[2:],
            token + "0",
            "1.\u00e9",
            "1.\ud800",
            1,
            None,
            token.encode(),
        ]
        for wrong in nonsense:
            with pytest.raises(InvalidInput, match="none that step"):
                await courier.saga.complete("o-1", courier.ask, wrong, "stolen")
        with pytest.raises(InvalidInput, match="no saga"):
            await courier.saga.complete("o-2", courier.ask, token, "stolen")
        with pytest.raises(InvalidInput, match="no asynchronous step"):
            await courier.saga.complete("o-1", courier.after, token, "stolen")
        with pytest.raises(InvalidInput, match="cannot be kept"):
            await courier.saga.complete("o-1", courier.ask, token, 7)  # type: ignore[misc]
        assert engine.execute("SELECT count(*) FROM faultproof_saga_callback") == [(0,)]
        assert all(token[2:] not in str(line) for line in await courier.saga.history("o-1")), "the secret is kept"


async def test_of_two_answers_at_once_one_counts(engine: Engine, db: Database) -> None:
    courier = Courier(db)
    await courier.saga.install()
    async with running(courier.saga) as (runner,):
        await courier.saga.start("o-1", Order("milk"))
        token = await asked(courier, runner)
        answers = await asyncio.gather(
            *(courier.saga.complete("o-1", courier.ask, token, text) for text in ("one", "two", "three"))
        )
        assert sorted(answers) == [False, False, True]
        outcome = await courier.saga.wait("o-1")
        assert isinstance(outcome, fp.Completed)
        assert outcome.result(courier.ask) == ("one", "two", "three")[answers.index(True)]


async def test_the_deadline_of_the_whole_ends_the_wait(engine: Engine, db: Database) -> None:
    courier = Courier(db)
    await courier.saga.install()
    async with running(courier.saga) as (runner,):
        await courier.saga.start("o-1", Order("milk"), deadline=30.0)
        await asked(courier, runner)
        elapse(engine, 31)
        assert isinstance(await courier.saga.wait("o-1"), fp.Compensated)
    assert courier.undone == [None]


async def test_an_answer_inside_an_open_transaction_is_refused_and_says_what_to_do(
    engine: Engine, db: Database
) -> None:
    courier = Courier(db)
    await courier.saga.install()
    async with running(courier.saga) as (runner,):
        await courier.saga.start("o-1", Order("milk"))
        token = await asked(courier, runner)
        async with db.transaction():
            for call in (
                lambda: courier.saga.complete("o-1", courier.ask, token, "signed"),
                lambda: courier.saga.fail("o-1", courier.ask, token, "nobody at home"),
                lambda: courier.saga.retry("o-1"),
            ):
                with pytest.raises(TransactionOpen, match=r"takes no `tx=`.*local step"):
                    await call()
        assert await courier.saga.complete("o-1", courier.ask, token, "signed") is True
        assert isinstance(await courier.saga.wait("o-1"), fp.Completed)
