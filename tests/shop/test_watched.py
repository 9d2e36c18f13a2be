"""The board: a process is busy while a transaction is open, and never else."""

import asyncio
from pathlib import Path

import pytest

from faultproof.errors import Repair, SchemaMismatch
from faultproof.ports.database import Database
from faultproof.ports.script import Script
from faultproof.ports.script import sql as statement
from faultproof.shop import sql
from faultproof.shop.baskets import basket
from faultproof.shop.board import Board, Flag, State
from faultproof.shop.mishandled import started_here
from faultproof.shop.orders import Orders, answers, outbox
from faultproof.shop.watched import Watched

pytestmark = pytest.mark.anyio


@statement("SELECT count(*) FROM shop_order")
def orders() -> int: ...


class Watch:
    """A database under watch, and every state that was shown."""

    def __init__(self, database: Database) -> None:
        self.shown: list[State] = []
        self.repairs: list[Repair] = []
        watch = self

        class Noting(Flag):
            def show(self, state: State) -> None:
                watch.shown.append(state)
                super().show(state)

        self.flag = Noting(bytearray(1), 0)
        self.database = Watched(database, self.flag, closing=State.MOVED, repair=self.repairs.append)


@pytest.fixture
async def watch(db: Database) -> Watch:
    await db.install(sql.SCHEMA)
    await outbox(db).install()
    await answers(db).install()
    await started_here(db).install()
    return Watch(db)


async def test_script_shows_open_then_committing_then_idle(watch: Watch) -> None:
    assert await watch.database.transact(orders()) == 0
    assert watch.shown == [State.OPEN, State.COMMITTING, State.IDLE]


async def test_transaction_of_the_user_s_shows_its_own_end(watch: Watch) -> None:
    async with watch.database.transaction() as tx:
        assert watch.shown == [State.OPEN]
        await tx.run(orders())
    assert watch.shown == [State.OPEN, State.MOVED, State.IDLE]


async def test_order_shows_where_a_dual_write_would_lose_its_events(watch: Watch) -> None:
    await Orders(watch.database, watch.flag, started_here(watch.database)).take("k1", basket(["milk"]))
    assert watch.shown == [State.OPEN, State.WROTE, State.OPEN, State.COMMITTING, State.IDLE]


async def test_failure_ends_idle(watch: Watch) -> None:
    def fails() -> Script[None]:
        yield from orders()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await watch.database.transact(fails())
    with pytest.raises(ValueError, match="no"):
        async with watch.database.transaction():
            raise ValueError("no")
    assert watch.shown == [State.OPEN, State.IDLE] * 2
    assert watch.repairs == []


async def test_transactions_one_after_the_other_leave_it_idle_at_the_end(watch: Watch) -> None:
    await asyncio.gather(*(watch.database.transact(orders()) for _ in range(50)))
    assert watch.shown.count(State.OPEN) == 50
    assert watch.shown[-1] == State.IDLE


async def test_what_needs_repair_is_told(db: Database, path: Path) -> None:
    watch = Watch(db)
    with pytest.raises(SchemaMismatch):
        await watch.database.transact(db.claims.add("x", ["1"]))
    assert [type(error) for error in watch.repairs] == [SchemaMismatch]


def test_board_remembers_what_each_showed_last() -> None:
    board = Board(3)
    board.flag(1).show(State.WROTE)
    assert [board.state(slot) for slot in range(3)] == [State.IDLE, State.WROTE, State.IDLE]
