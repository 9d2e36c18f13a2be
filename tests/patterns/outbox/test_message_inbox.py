"""The inbox of a consumer that faultproof does not run: each message for the first time once, and no more kept than needed."""

from contextlib import suppress

import pytest

import faultproof
from faultproof.ports.database import Database
from faultproof.ports.script import Inline, Script, sql

pytestmark = pytest.mark.anyio


@sql("SELECT count(*) FROM faultproof_seen")
def kept() -> int: ...


@pytest.fixture
async def inbox(db: Database) -> faultproof.MessageInbox:
    """With its table."""
    inbox = faultproof.MessageInbox(db, "mail")
    await inbox.install()
    return inbox


async def test_in_a_transaction_of_ours_a_message_is_new_once_and_a_rollback_forgets_it(
    db: Database, inbox: faultproof.MessageInbox
) -> None:
    with suppress(KeyError):
        async with db.transaction() as tx:
            assert await inbox.first("m", tx=tx)
            raise KeyError
    async with db.transaction() as tx:
        assert await inbox.first("m", tx=tx)
    async with db.transaction() as tx:
        assert not await inbox.first("m", tx=tx)


async def test_inside_a_script_it_is_a_part_of_it(db: Database, inbox: faultproof.MessageInbox) -> None:
    def script() -> Script[list[bool]]:
        found = []
        for id in ("a", "b", "a"):
            found.append((yield from inbox.first(id, tx=Inline())))
        return found

    assert await db.transact(script()) == [True, True, False]


async def test_inboxes_of_other_names_have_their_own_messages(db: Database, inbox: faultproof.MessageInbox) -> None:
    other = faultproof.MessageInbox(db, "billing")
    async with db.transaction() as tx:
        assert await inbox.first("m", tx=tx)
        assert await other.first("m", tx=tx)
    assert await other.trim(older=0) == 1
    assert await db.read(kept()) == 1


async def test_retention_forgets_in_bounded_steps_and_keeps_what_is_young(
    db: Database, inbox: faultproof.MessageInbox
) -> None:
    async with db.transaction() as tx:
        for number in range(5):
            await inbox.first(str(number), tx=tx)
    young = inbox.retention(keep=3_600.0)
    assert await young.step() == 60.0
    assert await db.read(kept()) == 5
    all_of_it = inbox.retention(keep=0, every=7.0, batch=2)
    assert [await all_of_it.step() for _ in range(3)] == [0.0, 0.0, 7.0]
    assert await db.read(kept()) == 0


@pytest.mark.parametrize("wrong", [{"keep": -1}, {"every": 0}, {"batch": 0}, {"keep": float("nan")}])
async def test_a_retention_that_cannot_be_is_refused(inbox: faultproof.MessageInbox, wrong: dict[str, float]) -> None:
    with pytest.raises(faultproof.errors.InvalidInput):
        inbox.retention(**wrong)  # type: ignore[arg-type]
