"""What must not be cut short ends, whoever is cancelled meanwhile."""

import asyncio

import pytest

from faultproof.primitives.apart import to_its_end
from tests.fakes import settle, within

pytestmark = pytest.mark.anyio


async def test_work_that_is_not_cut_short_gives_its_result_or_its_error() -> None:
    async def work(error: Exception | None) -> int:
        if error is not None:
            raise error
        return 7

    assert await to_its_end(work(None)) == 7
    with pytest.raises(KeyError):
        await to_its_end(work(KeyError()))


@pytest.mark.parametrize("error", [None, KeyError("lost")])
async def test_a_cancel_is_raised_when_the_work_has_ended_and_not_before(error: Exception | None) -> None:
    async def work() -> None:
        began.set()
        await goes_on.wait()
        ended.append(1)
        if error is not None:
            raise error

    began, goes_on, ended = asyncio.Event(), asyncio.Event(), list[int]()
    caller = asyncio.create_task(to_its_end(work()))
    await within(began.wait())
    for _ in range(3):
        caller.cancel()
        await settle()
    assert (caller.done(), ended) == (False, [])
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await within(caller)
    assert ended == [1]
