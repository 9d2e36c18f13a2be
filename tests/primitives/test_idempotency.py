"""The same request again gets the first answer; other content under its key, an error of its own."""

import asyncio
import math
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import faultproof as fp
from faultproof.errors import (
    Duplicate,
    InProgress,
    InvalidInput,
    KeyReused,
    LeaseLost,
    OutcomeUnknown,
    PayloadTooLarge,
)
from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from faultproof.primitives import idempotency
from faultproof.primitives.idempotency import Duplicates
from tests.fakes import settle, until
from tests.processes import running

pytestmark = pytest.mark.anyio


@sql("INSERT INTO charge (amount) VALUES (:amount) RETURNING n")
def _charge(amount: int) -> int: ...


def _charge_twice(amount: int) -> Script[int]:
    yield from _charge(amount)
    return (yield from _charge(amount))


def _refuse(amount: int) -> Script[int]:
    yield from _charge(amount)
    raise ValueError("card refused")


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with fp.connect(str(tmp_path / "shop.db")) as database:
        async with database.transaction() as tx:
            await tx.execute("CREATE TABLE charge (n INTEGER PRIMARY KEY, amount INTEGER)")
        await fp.Idempotency(database, "charge", answer=int).install()
        yield database


def _keys(database: Database, duplicates: Duplicates = "wait", ttl: float = 30.0) -> fp.Idempotency[int]:
    return fp.Idempotency(database, "charge", answer=int, duplicates=duplicates, ttl=ttl)


async def _count(database: Database) -> int:
    async with database.transaction() as tx:
        return int((await tx.fetch("SELECT count(*) FROM charge"))[0][0])


async def test_a_retry_gets_the_first_answer_and_changes_nothing(db: Database):
    keys = _keys(db)
    first = await db.transact(keys.script("k", {"amount": 5}, _charge_twice(5)))
    again = await db.transact(keys.script("k", {"amount": 5}, _charge_twice(5)))
    assert (first, again, await _count(db)) == (2, 2, 2)


async def test_work_that_failed_leaves_the_key_free(db: Database):
    keys = _keys(db)
    with pytest.raises(ValueError, match="refused"):
        await db.transact(keys.script("k", {}, _refuse(5)))
    assert await _count(db) == 0
    assert await db.transact(keys.script("k", {}, _charge(5))) == 1


async def test_other_content_under_the_same_key_is_an_error_of_its_own(db: Database):
    keys = _keys(db)
    await db.transact(keys.script("k", {"amount": 5, "currency": "EUR"}, _charge(5)))
    await db.transact(keys.script("k", {"currency": "EUR", "amount": 5}, _charge(5)))
    with pytest.raises(KeyReused, match="new key"):
        await db.transact(keys.script("k", {"amount": 6, "currency": "EUR"}, _charge(6)))
    with pytest.raises(KeyReused):
        await keys.run("k", {"amount": 7}, lambda: asyncio.sleep(0, 1))
    assert await _count(db) == 1


async def test_many_concurrent_duplicates_have_one_effect_and_one_answer(db: Database):
    keys = _keys(db)
    answers = await asyncio.gather(*(db.transact(keys.script("k", 1, _charge(5))) for _ in range(50)))
    assert (set(answers), await _count(db)) == ({1}, 1)


async def test_a_duplicate_waits_for_the_running_first_call(db: Database):
    started, finish, calls = asyncio.Event(), asyncio.Event(), []

    async def work() -> int:
        calls.append(1)
        started.set()
        await finish.wait()
        return 42

    keys = _keys(db)
    async with asyncio.timeout(10):
        first = asyncio.create_task(keys.run("k", 1, work))
        await started.wait()
        second = asyncio.create_task(keys.run("k", 1, work))
        with pytest.raises(InProgress) as busy:
            await _keys(db, "replay").run("k", 1, work)
        with pytest.raises(InProgress):
            await _keys(db, "raise").run("k", 1, work)
        with pytest.raises(InProgress):
            await keys.run("k", 1, work, timeout=0.01)
        assert busy.value.retry_after is not None
        assert 0 < busy.value.retry_after <= 30
        finish.set()
        assert (await first, await second, len(calls)) == (42, 42, 1)
    assert await _keys(db, "replay").run("k", 1, work) == 42
    with pytest.raises(Duplicate) as duplicate:
        await _keys(db, "raise").run("k", 1, work)
    assert duplicate.value.answer == 42


async def test_a_waiting_duplicate_takes_over_when_the_first_fails(db: Database):
    started, finish = asyncio.Event(), asyncio.Event()

    async def fails() -> int:
        started.set()
        await finish.wait()
        raise ValueError("no")

    keys = _keys(db)
    async with asyncio.timeout(10):
        first = asyncio.create_task(keys.run("k", 1, fails))
        await started.wait()
        second = asyncio.create_task(keys.run("k", 1, lambda: asyncio.sleep(0, 7)))
        finish.set()
        with pytest.raises(ValueError, match="no"):
            await first
        assert await second == 7


async def test_an_unknown_outcome_keeps_the_key_until_its_lease_ends(db: Database):
    async def unknown() -> int:
        raise OutcomeUnknown("the answer was lost")

    keys = _keys(db, "replay", ttl=0.3)
    with pytest.raises(OutcomeUnknown):
        await keys.run("k", 1, unknown)
    with pytest.raises(InProgress):
        await keys.run("k", 1, lambda: asyncio.sleep(0, 7))
    assert await _keys(db, "wait", ttl=0.3).run("k", 1, lambda: asyncio.sleep(0, 7)) == 7


async def test_work_that_outlives_its_lease_is_cut_off_and_unknown(db: Database):
    async def hangs() -> int:
        await asyncio.get_running_loop().create_future()
        return 1

    with pytest.raises(OutcomeUnknown, match="longer than"):
        await _keys(db, ttl=0.1).run("k", 1, hangs)


async def test_a_zombie_cannot_answer_after_somebody_took_over(db: Database):
    keys = _keys(db, ttl=0.2)
    token, _ = await db.transact(keys._take("k", "f"))
    assert token == 1
    async with asyncio.timeout(10):
        again = None
        while again is None:
            again, _ = await db.transact(keys._take("k", "f"))
    assert again == 2
    with pytest.raises(LeaseLost):
        await db.transact(keys._answered("k", 1, "1"))
    await db.transact(keys._answered("k", 2, "2"))


async def test_a_cancel_amid_the_work_keeps_the_key_taken(db: Database):
    started = asyncio.Event()

    async def work() -> int:
        started.set()
        await asyncio.get_running_loop().create_future()
        return 1

    keys = _keys(db, "replay", ttl=30.0)
    first = asyncio.create_task(keys.run("k", 1, work))
    await started.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(InProgress):  # the work may have reached somebody
        await keys.run("k", 1, lambda: asyncio.sleep(0, 2))


class Writing:
    """Another transaction, which keeps the answer from being stored until it has ended."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._begun, self._over = asyncio.Event(), asyncio.Event()

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._write())
        await self._begun.wait()

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await self._task

    async def _write(self) -> None:
        async with self._db.transaction():
            self._begun.set()
            await self._over.wait()


class Work:
    """Does something once, when it is let go, and counts how often."""

    def __init__(self) -> None:
        self.done = 0
        self.begun, self.go = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> int:
        self.begun.set()
        await self.go.wait()
        self.done += 1
        return 42


@pytest.mark.parametrize("cancels", [1, 3])
async def test_an_answer_is_stored_although_its_caller_was_cancelled(db: Database, cancels: int):
    work = Work()
    async with asyncio.timeout(20):
        call = asyncio.create_task(_keys(db).run("k", 1, work))
        await work.begun.wait()
        async with Writing(db):
            work.go.set()
            await until(lambda: work.done)
            for _ in range(cancels):
                await settle()
                call.cancel()
            await settle()
            assert not call.done()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await _keys(db, "replay").run("k", 1, work) == 42
    assert work.done == 1
    assert _no_task_is_left()


async def test_a_cancelled_caller_waits_for_its_answer_no_longer_than_it_says(
    db: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(idempotency, "STORE_S", 0.02)
    work = Work()
    async with asyncio.timeout(20):
        call = asyncio.create_task(_keys(db).run("k", 1, work))
        await work.begun.wait()
        async with Writing(db):
            work.go.set()
            await until(lambda: work.done)
            await settle()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        with pytest.raises(InProgress):  # nobody knows the answer, and the work must not be repeated yet
            await _keys(db, "replay").run("k", 1, work)
    assert work.done == 1
    assert _no_task_is_left()


def test_a_loop_that_shuts_down_while_the_answer_is_stored_keeps_the_key_taken(tmp_path: Path):
    async def end_amid() -> tuple[Database, Work]:
        db, work = await fp.connect(str(tmp_path / "shop.db")), Work()
        await _keys(db).install()
        call = asyncio.create_task(_keys(db).run("k", 1, work))
        await work.begun.wait()
        held = Writing(db)
        await held.__aenter__()
        work.go.set()
        await until(lambda: work.done)
        await settle()
        assert not call.done()
        return db, work

    async def again(db: Database, work: Work) -> None:
        await db.close()
        async with fp.connect(str(tmp_path / "shop.db")) as another:
            with pytest.raises(InProgress):
                await _keys(another, "replay").run("k", 1, work)

    db, work = asyncio.run(end_amid())
    asyncio.run(again(db, work))
    assert work.done == 1


async def test_a_call_whose_answer_nobody_disturbs_leaves_no_task(db: Database):
    assert await _keys(db).run("k", 1, lambda: asyncio.sleep(0, 7)) == 7
    assert _no_task_is_left()


def _no_task_is_left() -> bool:
    return not any("idempotency" in task.get_name() for task in asyncio.all_tasks())


CHILD = "tests.primitives.hangs_with_key"


async def test_the_key_of_a_killed_process_is_taken_over(db: Database, tmp_path: Path):
    async with running(CHILD, tmp_path / "shop.db") as child:
        await child.says("working")
        child.send(signal.SIGKILL)
        await child.ended()
    async with asyncio.timeout(10):
        assert await _keys(db, ttl=1.0).run("k", 1, lambda: asyncio.sleep(0, 9)) == 9


async def test_old_answers_are_forgotten_in_bounded_steps(db: Database):
    keys = _keys(db)
    for number in range(5):
        await db.transact(keys.script(f"k{number}", 1, _charge(1)))
    assert await keys.trim(older=3600) == 0
    assert await keys.trim(older=0, limit=3) == 3
    assert await keys.trim(older=0, limit=3) == 2
    assert await keys.trim(older=0) == 0


@pytest.mark.parametrize("value", [-1, math.inf, math.nan, 10**30, "1", True], ids=repr)
async def test_times_that_nobody_can_mean_are_refused_and_nothing_is_done(db: Database, value: Any):
    keys = _keys(db)
    await db.transact(keys.script("k", 1, _charge(1)))
    with pytest.raises(InvalidInput, match="`ttl` must be"):
        _keys(db, ttl=value)
    with pytest.raises(InvalidInput, match="`older` must be"):
        await keys.trim(older=value)
    if value != -1:  # nothing is left until some deadline: then nobody waits
        with pytest.raises(InvalidInput, match="`timeout` must be"):
            await keys.run("k", 1, lambda: asyncio.sleep(0, 5), timeout=value)
    with pytest.raises(InvalidInput, match="`limit` must be"):
        await keys.trim(older=0, limit=0 if value == -1 else value)
    assert await keys.trim(older=0) == 1


@pytest.mark.parametrize("key", ["", "k" * 256, "a\0b"])
async def test_a_bad_key_is_refused_and_nothing_is_done(db: Database, key: str):
    with pytest.raises(InvalidInput, match="idempotency key"):
        await db.transact(_keys(db).script(key, 1, _charge(5)))
    assert await _count(db) == 0


async def test_content_and_answers_must_be_storable(db: Database):
    keys = _keys(db)
    with pytest.raises(InvalidInput, match="fingerprint"):
        await db.transact(keys.script("k", object(), _charge(5)))
    texts = fp.Idempotency(db, "text", answer=str)
    with pytest.raises(OutcomeUnknown) as unknown:  # the work is done: no error may say that nothing has happened
        await texts.run("k", 1, lambda: asyncio.sleep(0, "x" * 1_048_576))
    assert isinstance(unknown.value.__cause__, PayloadTooLarge)
    with pytest.raises(InProgress):
        await fp.Idempotency(db, "text", answer=str, duplicates="replay").run("k", 1, lambda: asyncio.sleep(0, "y"))
    assert await _count(db) == 0
