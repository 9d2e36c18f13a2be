"""What only several writers at once show of escrow: answers about holds that somebody else is deciding."""

from collections.abc import AsyncIterator

import pytest

import faultproof as fp
from faultproof.errors import Busy
from tests.engines.postgres.conftest import Open
from tests.fakes import until

pytestmark = pytest.mark.anyio

OPTIONS = fp.EscrowOptions(ttl=0.2, lock_timeout=0.05)


@pytest.fixture
async def escrow(connect: Open) -> AsyncIterator[fp.Escrow]:
    escrow = fp.Escrow(await connect(), options=OPTIONS)
    await escrow.install()
    await escrow.restock("milk", 5, key="d-1")
    yield escrow
    await escrow.close()


@pytest.mark.parametrize("question", ["confirm", "release", "extend", "reserve"])
async def test_nobody_is_told_expired_while_another_s_confirmation_is_not_yet_committed(
    escrow: fp.Escrow, connect: Open, question: str
) -> None:
    """Found live: a process was stopped with its COMMIT still to come. The hold's time went by, its successor asked for the
    same hold, saw it unlocked as it had been before, and said "expired"; then the first woke up and confirmed it."""
    other = await connect()
    another = fp.Escrow(other, options=OPTIONS)
    await escrow.reserve({"milk": 1}, key="o-1")

    async def overdue() -> bool:
        return (await escrow.audit()).overdue == 1

    async with other.transaction() as tx:
        await another.confirm("o-1", tx=tx)
        await until(overdue)
        with pytest.raises(Busy):
            await (
                escrow.reserve({"milk": 1}, key="o-1") if question == "reserve" else getattr(escrow, question)("o-1")
            )
    assert (await escrow.confirm("o-1")).state == "confirmed"
    await another.close()
