"""Group commit on a real file: operations share a transaction, and fail, wait or stay unknown one by one."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from faultproof.errors import Busy as LockedElsewhere
from faultproof.errors import (
    ConstraintViolated,
    DiskFull,
    FaultproofError,
    OutcomeUnknown,
    TransactionOpen,
    TryAgain,
)
from faultproof.ports.database import Database
from faultproof.ports.script import Script, sql
from faultproof.primitives.group_commit import Busy, Err, GroupCommit, Ok, Outcome
from tests.fakes import within

pytestmark = pytest.mark.anyio


@sql("INSERT INTO journal (item) VALUES (:item)")
def write(item: int) -> None: ...


class Journal:
    """An `apply` that writes each item down, and does as it is told about some."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[int], bool]] = []
        self.special: dict[int, Callable[[bool], Outcome[int]]] = {}

    def __call__(self, items: Sequence[int], wait: bool) -> Script[list[Outcome[int]]]:
        self.calls.append((list(items), wait))
        outcomes: list[Outcome[int]] = []
        for item in items:
            outcome = self.special[item](wait) if item in self.special else Ok(2 * item)
            if isinstance(outcome, Ok):
                yield from write(item)
            outcomes.append(outcome)
        return outcomes


def fails(error: Exception) -> Callable[[bool], Outcome[int]]:
    def fail(wait: bool) -> Outcome[int]:
        raise error

    return fail


@pytest.fixture
async def table(db: Database) -> Database:
    async with db.transaction() as tx:
        await tx.execute("CREATE TABLE journal (item INTEGER CHECK (item <> 66))")
    return db


async def written(db: Database) -> Counter[int]:
    async with db.transaction() as tx:
        return Counter(item for (item,) in await tx.fetch("SELECT item FROM journal"))


async def submit_all(commit: GroupCommit[int, int], items: Sequence[int]) -> list[Any]:
    return await within(asyncio.gather(*(commit.submit(item) for item in items), return_exceptions=True))


async def test_what_a_caller_is_told_is_committed_in_few_transactions(table: Database) -> None:
    journal = Journal()
    items = range(100, 300)
    assert await submit_all(GroupCommit(table, journal), items) == [2 * item for item in items]
    assert await written(table) == Counter(items)
    assert [len(items) for items, _ in journal.calls] == [1, 199]


async def test_of_two_hundred_only_the_poisoned_fail_each_with_its_own_error(table: Database) -> None:
    journal = Journal()
    journal.special = {13: fails(ValueError("13")), 150: fails(KeyError("150"))}
    results = await submit_all(GroupCommit(table, journal), range(200))
    poisoned = {13: ValueError, 66: ConstraintViolated, 150: KeyError}
    for item, result in enumerate(results):
        assert (type(result) if item in poisoned else result) == poisoned.get(item, 2 * item), item
    assert (results[13].args, results[150].args) == (("13",), ("150",))
    # Splitting commits each of the others once, however often it was rolled back on the way.
    assert await written(table) == Counter(set(range(200)) - set(poisoned))
    assert len(journal.calls) < 60


async def test_a_refused_operation_rolls_nothing_back(table: Database) -> None:
    journal = Journal()
    refusal = LookupError("sold out")
    journal.special = {3: lambda wait: Err(refusal)}
    results = await submit_all(GroupCommit(table, journal), range(8))
    assert results == [0, 2, 4, refusal, 8, 10, 12, 14]
    assert await written(table) == Counter({0, 1, 2, 4, 5, 6, 7})
    assert len(journal.calls) == 2


async def test_a_contended_operation_gets_a_transaction_of_its_own_that_waits(table: Database) -> None:
    journal = Journal()
    journal.special = {3: lambda wait: Ok(33) if wait else Busy()}
    results = await submit_all(GroupCommit(table, journal), range(6))
    assert results == [0, 2, 4, 33, 8, 10]
    assert await written(table) == Counter(range(6))
    assert journal.calls[1:] == [([1, 2, 3, 4, 5], False), ([3], True)]


async def test_nobody_waits_for_a_contended_operation_but_its_own_caller(table: Database) -> None:
    freed, asked = asyncio.Event(), asyncio.Event()
    journal = Journal()
    journal.special = {3: lambda wait: Ok(33) if wait else Busy()}
    group_commit = GroupCommit(Contended(table, asked, freed), journal)
    async with asyncio.timeout(10):
        tasks = [asyncio.create_task(group_commit.submit(n)) for n in range(6)]
        await asked.wait()
        assert [await tasks[n] for n in (0, 1, 2, 4, 5)] == [0, 2, 4, 8, 10]
        assert await group_commit.submit(7) == 14
        assert not tasks[3].done()
        freed.set()
        assert await tasks[3] == 33
        await group_commit.close()
    assert await written(table) == Counter([*range(6), 7])


class Contended:
    """A database whose transaction for the third operation alone waits until somebody lets go of a lock."""

    def __init__(self, inner: Database, asked: asyncio.Event, freed: asyncio.Event) -> None:
        self._inner, self._asked, self._freed, self._count = inner, asked, freed, 0
        self.env = inner.env

    def in_transaction(self) -> bool:
        return False

    async def transact(self, script: Any) -> Any:
        self._count += 1
        if self._count == 3:  # the leader's, the batch's, and then the one that waits
            self._asked.set()
            await self._freed.wait()
        return await self._inner.transact(script)


async def test_a_contended_operation_that_fails_alone_fails_alone(table: Database) -> None:
    journal = Journal()
    broken = ValueError("broken")

    def contended(wait: bool) -> Outcome[int]:
        if wait:
            raise broken
        return Busy()

    journal.special = {2: contended, 4: lambda wait: Busy(), 5: lambda wait: Err(broken) if wait else Busy()}
    results = await submit_all(GroupCommit(table, journal), range(6))
    assert results[:4] == [0, 2, broken, 6]
    assert isinstance(results[4], TryAgain)
    assert results[5] is broken
    assert await written(table) == Counter({0, 1, 3})


class Losing:
    """A database whose next commits happen, and whose answers are lost."""

    def __init__(self, database: Database, *, happens: bool) -> None:
        self._database = database
        self._happens = happens
        self.losing = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def transact(self, script: Script[Any]) -> Any:
        if not self.losing:
            return await self._database.transact(script)
        if self._happens:
            await self._database.transact(script)
        raise OutcomeUnknown("the connection broke while COMMIT was under way")


@pytest.mark.parametrize("happens", [True, False])
async def test_a_lost_commit_is_unknown_to_every_caller_and_is_not_repeated(table: Database, happens: bool) -> None:
    journal, losing = Journal(), Losing(table, happens=happens)
    commit: GroupCommit[int, int] = GroupCommit(losing, journal)
    losing.losing = True
    results = await submit_all(commit, range(9))
    assert [type(result) for result in results] == [OutcomeUnknown] * 9
    assert len({id(result) for result in results}) == 9
    assert await written(table) == (Counter(range(9)) if happens else Counter())
    losing.losing = False
    assert await within(commit.submit(20)) == 40


@pytest.mark.parametrize("error", [DiskFull("full"), LockedElsewhere("locked"), OutcomeUnknown("lost")], ids=repr)
async def test_what_is_wrong_with_the_database_is_not_asked_again_for_each_item(
    table: Database, error: FaultproofError
) -> None:
    journal = Journal()
    journal.special = {5: fails(error)}
    results = await submit_all(GroupCommit(table, journal), range(40))
    assert results[0] == 0
    assert [(type(result), str(result)) for result in results[1:]] == [(type(error), str(error))] * 39
    assert len(journal.calls) == 2
    assert await written(table) == Counter({0})


@pytest.mark.parametrize("extra", [-1, 1])
async def test_the_wrong_number_of_outcomes_commits_nothing(table: Database, extra: int) -> None:
    """Found: it was noticed after the commit, and callers were told of a failure that had not happened."""
    calls = []

    def apply(items: Sequence[int], wait: bool) -> Script[list[Outcome[int]]]:
        calls.append(len(items))
        for item in items:
            yield from write(item)
        return [Ok(0)] * (len(items) + extra)

    results = await submit_all(GroupCommit(table, apply), range(5))
    assert all(isinstance(result, FaultproofError) and not isinstance(result, OutcomeUnknown) for result in results)
    assert await written(table) == Counter()


async def test_inside_an_open_transaction_it_says_what_to_pass(table: Database) -> None:
    commit: GroupCommit[int, int] = GroupCommit(table, Journal())
    async with table.transaction():
        with pytest.raises(TransactionOpen, match="pass `tx=`"):
            await within(commit.submit(1))
    assert await within(commit.submit(2)) == 4
    assert await written(table) == Counter({2})


async def test_close_commits_what_was_accepted(table: Database) -> None:
    commit: GroupCommit[int, int] = GroupCommit(table, Journal())
    tasks = [asyncio.create_task(commit.submit(item)) for item in range(5)]
    await asyncio.sleep(0)
    await within(commit.close())
    assert await written(table) == Counter(range(5))
    assert [await task for task in tasks] == [0, 2, 4, 6, 8]


async def test_a_quicker_way_is_tried_first_and_the_ordinary_one_decides_when_it_does_nothing(table: Database) -> None:
    journal, tried = Journal(), list[list[int]]()

    async def first(items: Sequence[int]) -> list[int] | None:
        tried.append(list(items))
        return [-item for item in items] if items[0] < 10 else None

    commit: GroupCommit[int, int] = GroupCommit(table, journal, first=first)
    assert await within(commit.submit(1)) == -1
    assert journal.calls == []
    assert await within(commit.submit(10)) == 20
    assert tried == [[1], [10]]
    assert journal.calls == [([10], False)]


async def test_a_quicker_way_whose_outcome_is_unknown_is_not_followed_by_the_ordinary_one(table: Database) -> None:
    journal = Journal()

    async def first(items: Sequence[int]) -> list[int] | None:
        raise OutcomeUnknown("the commit was sent")

    commit: GroupCommit[int, int] = GroupCommit(table, journal, first=first)
    with pytest.raises(OutcomeUnknown):
        await within(commit.submit(1))
    assert journal.calls == []


async def test_what_fails_in_the_quicker_way_fails_nobody_else(table: Database) -> None:
    journal = Journal()
    journal.special[3] = fails(ZeroDivisionError("the third"))

    async def first(items: Sequence[int]) -> list[int] | None:
        if len(items) > 1:
            raise ZeroDivisionError("one of them")
        return None

    commit: GroupCommit[int, int] = GroupCommit(table, journal, first=first)
    answers = await within(asyncio.gather(*map(commit.submit, range(6)), return_exceptions=True))
    assert [type(answer) for answer in answers] == [int, int, int, ZeroDivisionError, int, int]
    assert await written(table) == Counter({0, 1, 2, 4, 5})
