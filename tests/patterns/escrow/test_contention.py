"""Many who want the same: in processes that race and are killed, and behind locks that others hold."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextvars import Context
from typing import Any

import pytest

import faultproof as fp
from faultproof.clock import Env
from faultproof.engines.postgres.direct import Direct
from faultproof.errors import Busy, HoldEnded, InsufficientStock, Overloaded
from faultproof.patterns.escrow.lanes import shard_of
from faultproof.ports.database import Database
from faultproof.ports.script import sql
from faultproof.signals import LOCK_WAIT, Signals
from tests.conformance.conftest import Connect
from tests.conformance.engines import Engine, Postgres
from tests.fakes import Recorder, until, within
from tests.patterns.escrow.actors import OPTIONS
from tests.processes import Child
from tests.processes import running as process

pytestmark = pytest.mark.anyio

ACTOR = "tests.patterns.escrow.actors"


def url_of(engine: Engine) -> str:
    return engine.url if isinstance(engine, Postgres) else f"sqlite:///{engine.path}?synchronous=normal"  # type: ignore[attr-defined]


async def said(child: Child) -> list[list[str]]:
    lines = []
    while line := await child.line():
        lines.append(line.split())
    return lines


async def nothing_is_wrong(escrow: fp.Escrow, told: list[list[str]], stock: int) -> None:
    audit = await escrow.audit()
    assert audit.violations == ()
    hot = await escrow.item("hot")
    assert hot.total == stock
    last = {key: word for word, key in told}
    for key, word in last.items():
        if word in ("held", "confirmed", "released", "expired"):
            state = (await escrow.hold(key)).state
            assert state == word or (word == "held" and state in ("expired", "confirmed", "released")), (
                key,
                word,
                state,
            )
    assert sum(word == "confirmed" for word in last.values()) <= hot.sold


@pytest.fixture
async def hot(engine: Engine, connect: Connect) -> fp.Escrow:
    escrow = fp.Escrow(await connect(), options=OPTIONS)
    await escrow.install()
    await escrow.restock("hot", 60, key="d-1")
    await escrow.restock("cold", 20, key="d-2")
    return escrow


async def test_who_is_frozen_while_his_hold_expires_cannot_sell_what_others_have_bought(
    engine: Engine, hot: fp.Escrow
) -> None:
    """What a lock in another system does not prevent: its holder wakes up, and believes that he has it."""
    async with process(ACTOR, url_of(engine), "pays") as frozen:
        await frozen.says("held")
        frozen.send(signal.SIGSTOP)
        await frozen.tell("pay")

        async def overdue() -> bool:
            return (await hot.audit()).overdue == 1

        await until(overdue)
        await hot.reserve({"hot": 60}, key="other")
        frozen.send(signal.SIGCONT)
        assert await frozen.line() == "expired"
        assert await frozen.ended() == 0
    await hot.confirm("other")
    assert (await hot.item("hot"))[1:] == (60, 0, 0, 60)
    assert (await hot.audit()).violations == ()


async def test_processes_that_race_for_a_hot_item_oversell_nothing(engine: Engine, hot: fp.Escrow) -> None:
    async with (
        process(ACTOR, url_of(engine), "a", 16, 8) as a,
        process(ACTOR, url_of(engine), "b", 16, 8) as b,
        process(ACTOR, url_of(engine), "c", 16, 8) as c,
    ):
        told = [line for lines in await asyncio.gather(said(a), said(b), said(c)) for line in lines]
        assert [await child.ended() for child in (a, b, c)] == [0, 0, 0]
    words = Counter(word for word, _ in told)
    assert words["confirmed"] > 20
    assert words["refused"] > 20, "the stock was never short"
    await nothing_is_wrong(hot, told, 60)


async def test_processes_that_are_killed_lose_no_stock_and_no_word(engine: Engine, hot: fp.Escrow) -> None:
    told = []
    for round_, moment in enumerate((5, 17, 40)):
        async with (
            process(ACTOR, url_of(engine), f"a{round_}", 8, 8, moment) as a,
            process(ACTOR, url_of(engine), f"b{round_}", 8, 8) as b,
        ):
            for lines in await asyncio.gather(said(a), said(b)):
                told += lines
            assert await a.ended() == -signal.SIGKILL
            assert await b.ended() == 0
    loop = hot.expiry(every=0.05)
    news = await loop.open()

    async def all_returned() -> bool:
        await loop.step()
        return (await hot.item("hot")).reserved == 0

    await until(all_returned)
    news.close()
    await nothing_is_wrong(hot, told, 60)
    item = await hot.item("hot")
    assert item.available + item.sold == 60


@pytest.fixture
async def on_postgres(postgres_url: str, recorder: Recorder) -> AsyncIterator[Database]:
    async with fp.connect(postgres_url, env=Env(signals=Signals(sinks=[recorder]))) as db:
        yield db


async def stocked(db: Database, **options: float) -> fp.Escrow:
    escrow = fp.Escrow(db, options=fp.EscrowOptions(**options))  # type: ignore[arg-type]
    await escrow.install()
    for item in ("a", "b", "c", "d", "e"):
        await escrow.restock(item, 100, key=f"d-{item}")
    return escrow


async def test_an_item_that_is_locked_holds_up_no_other_and_waiting_is_measured(
    on_postgres: Database, recorder: Recorder
) -> None:
    db = on_postgres
    escrow = await stocked(db)
    free = next(item for item in "bcde" if shard_of(item, 8) != shard_of("a", 8))
    async with db.transaction() as tx:
        await escrow.reserve({"a": 1}, key="mine", tx=tx)
        waiting = elsewhere(escrow.reserve({"a": 1}, key="o-1"))
        began = time.perf_counter()
        for n in range(20):
            await elsewhere(escrow.reserve({free: 1}, key=f"p-{n}"))
        took = time.perf_counter() - began
        assert not waiting.done()
    assert (await within(waiting)).state == "held"
    assert sum(recorder.values(LOCK_WAIT, escrow="stock")) >= took / 2
    assert (await escrow.audit()).violations == ()
    await escrow.close()


def elsewhere(call: Coroutine[Any, Any, fp.Hold]) -> asyncio.Task[fp.Hold]:
    """As another request's task would: with nothing of this one's open transaction."""
    return asyncio.create_task(call, context=Context())


async def test_a_call_that_has_waited_decides_on_what_it_finds_then(on_postgres: Database) -> None:
    db = on_postgres
    escrow = await stocked(db)
    await escrow.reserve({"a": 1, "b": 1}, key="o-1")
    await escrow.reserve({"a": 98, "b": 98}, key="others")  # or a constraint would notice
    async with db.transaction() as tx:
        await escrow.release("o-1", tx=tx)
        await escrow.reserve({"a": 2}, key="o-2", tx=tx)
        confirming = elsewhere(escrow.confirm("o-1"))
        await until(lambda: waits_for_a_lock(db))
    with pytest.raises(HoldEnded, match="released already"):
        await within(confirming)
    assert (await escrow.audit()).violations == ()
    assert (await escrow.item("a"))[1:] == (100, 0, 100, 0)
    await escrow.close()


@sql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
def _waiting() -> int: ...


async def waits_for_a_lock(db: Database) -> bool:
    task = asyncio.create_task(db.read(_waiting()), context=Context())
    return await task > 0


async def test_an_item_that_stays_locked_is_busy_in_time_and_nothing_happened(on_postgres: Database) -> None:
    db = on_postgres
    escrow = await stocked(db, lock_timeout=0.1, ttl=10.0)
    async with db.transaction() as tx:
        await escrow.reserve({"a": 1}, key="mine", tx=tx)
        with pytest.raises(Busy, match=r"locked for 0\.1 s") as busy:
            await within(elsewhere(escrow.reserve({"a": 1, "b": 1}, key="o-1")), 3)
        assert busy.value.retry_after == pytest.approx(0.1)
    assert (await escrow.item("a")).reserved == 1
    assert (await escrow.item("b")).reserved == 0
    await escrow.close()


async def test_holds_over_the_same_items_in_any_order_never_deadlock(on_postgres: Database) -> None:
    db = on_postgres
    one, two = await stocked(db), fp.Escrow(db)
    calls = [
        (one, two)[n % 2].reserve({"a": 1, "b": 1, "c": 1} if n % 3 else {"c": 1, "a": 1}, key=f"o-{n}")
        for n in range(90)
    ]
    holds = await within(asyncio.gather(*calls))
    assert {hold.state for hold in holds} == {"held"}
    assert (await one.audit()).violations == ()
    await one.close()
    await two.close()


async def test_more_than_can_be_served_in_time_is_refused_and_told_when_to_come_back(
    hot: fp.Escrow, connect: Connect
) -> None:
    small = fp.Escrow(await connect(), options=fp.EscrowOptions(batch=1, shed_after=0.000_001))
    answers = await asyncio.gather(
        *(small.reserve({"hot": 1}, key=f"o-{n}") for n in range(30)), return_exceptions=True
    )
    shed = [answer for answer in answers if isinstance(answer, Overloaded)]
    held = [answer for answer in answers if isinstance(answer, fp.Hold)]
    assert len(shed) + len(held) == 30
    assert shed
    assert held
    assert all(answer.retry_after and answer.retry_after >= 0.1 for answer in shed)
    assert (await hot.item("hot")).reserved == len(held)
    assert await small.reserve({"hot": 1}, key="later")  # it does not stay shut
    await small.close()


async def test_reservations_that_come_together_are_one_round_trip_and_a_refusal_refuses_nobody_else(
    on_postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    escrow = await stocked(on_postgres)
    await escrow.reserve({"a": 1}, key="first")
    trips: list[int] = []
    exchange = Direct.exchange

    async def counted(self, statements, **options):  # type: ignore[no-untyped-def]
        trips.append(len(statements))
        return await exchange(self, statements, **options)

    monkeypatch.setattr(Direct, "exchange", counted)
    await asyncio.gather(*(escrow.reserve({"a": 1, "b": 1}, key=f"o-{n}") for n in range(20)))
    assert len(trips) == 2, "one who leads, and the others"
    answers = await asyncio.gather(
        *(escrow.reserve({"a": quantity}, key=f"p-{n}") for n, quantity in enumerate((5, 5, 101, 5))),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [fp.Hold, fp.Hold, InsufficientStock, fp.Hold]
    assert (await escrow.item("a"))[1:] == (100, 64, 36, 0)
    assert (await escrow.audit()).violations == ()
    await escrow.close()


async def test_no_more_is_held_than_there_is_although_the_table_has_lost_its_checks(on_postgres: Database) -> None:
    escrow = await stocked(on_postgres)
    async with on_postgres.transaction() as tx:
        for (name,) in await tx.fetch(
            "SELECT conname FROM pg_constraint WHERE contype = 'c' AND conrelid = 'faultproof_escrow_item'::regclass"
        ):
            await tx.execute(f'ALTER TABLE faultproof_escrow_item DROP CONSTRAINT "{name}"')
    answers = await asyncio.gather(*(escrow.reserve({"a": 30}, key=f"o-{n}") for n in range(9)), return_exceptions=True)
    assert Counter(type(answer) for answer in answers) == {fp.Hold: 3, InsufficientStock: 6}
    assert (await escrow.item("a"))[1:] == (100, 10, 90, 0)
    await escrow.close()


async def test_the_same_calls_by_two_processes_in_any_order_are_one_hold_each_and_never_deadlock(
    engine: Engine, hot: fp.Escrow, connect: Connect
) -> None:
    other = fp.Escrow(await connect(), options=OPTIONS)
    keys = [f"o-{n}" for n in range(20)]
    asked = [
        escrow.reserve({"hot": 1}, key=key, ttl=60)
        for escrow, order in ((hot, keys), (other, keys[::-1]))
        for key in order
    ]
    holds = await within(asyncio.gather(*asked))
    until = {(hold.key, hold.until_us) for hold in holds}
    assert len(until) == 20
    assert (await hot.item("hot")).reserved == 20
    assert (await hot.audit()).violations == ()
    await other.close()


async def test_keys_are_written_in_order_so_that_nobody_waits_for_each_other(on_postgres: Database) -> None:
    escrow = await stocked(on_postgres)
    await asyncio.gather(*(escrow.reserve({"a": 1}, key=f"o-{n}") for n in (9, 5, 3, 7, 1)))
    async with on_postgres.transaction() as tx:
        rows = await tx.fetch("SELECT key FROM faultproof_escrow_hold WHERE state = 'held' ORDER BY ctid")
    assert [key for (key,) in rows] == ["o-9", "o-1", "o-3", "o-5", "o-7"], "one who leads, and the others in order"
    await escrow.close()
