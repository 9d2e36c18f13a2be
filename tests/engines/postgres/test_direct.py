"""Statements that go straight to libpq: prepared once, and known exactly whatever happened to the others."""

from collections.abc import Sequence

import pytest

from faultproof.engines.postgres.database import PostgresDatabase
from faultproof.engines.postgres.direct import Direct
from faultproof.engines.postgres.options import PostgresOptions
from faultproof.engines.postgres.render import render
from faultproof.errors import ConstraintViolated
from faultproof.ports.script import Script, ddl, later, sql
from tests.engines.postgres.conftest import Open

pytestmark = pytest.mark.anyio


@sql(
    """SELECT count(*) FROM pg_prepared_statements
       WHERE name LIKE 'faultproof%' AND (statement LIKE 'INSERT INTO orders%' OR statement LIKE 'SELECT item FROM%')"""
)
def prepared() -> int: ...


@sql("INSERT INTO orders (item) VALUES (:item)", deferred=True)
def insert(item: str) -> None: ...


@sql("SELECT item FROM orders WHERE item IN {items} ORDER BY item")
def found(items: Sequence[str]) -> list[str]: ...


@sql("SELECT count(*) FROM orders WHERE item > :item")
def behind(item: str) -> int: ...


def ordered(*items: str) -> Script[list[str]]:
    for item in items:
        yield from insert(item)
    return (yield from found(items))


@pytest.fixture
async def orders(connect: Open) -> PostgresDatabase:
    """On one connection, or what is prepared would depend on which one is lent."""
    db = await connect(PostgresOptions(pool_max=1))
    await db.transact(ddl("CREATE TABLE orders (item TEXT NOT NULL CHECK (item <> 'refused'))"))
    return db


async def test_a_statement_is_prepared_once_however_often_and_with_whatever_it_comes(orders: PostgresDatabase) -> None:
    for n in range(4):
        assert await orders.transact(lambda n=n: ordered("a", f"b{n}", "ü" * n)) is not None  # type: ignore[misc]
    assert await orders.read(prepared()) == 2


async def test_what_stood_behind_an_error_is_not_taken_for_prepared(orders: PostgresDatabase) -> None:
    pid = await orders.read(backend())
    for _ in range(2):
        with pytest.raises(ConstraintViolated):
            await orders.transact(lambda: ordered("a", "refused"))
        assert await orders.transact(lambda: ordered("a"))
    assert await orders.read(backend()) == pid, "the connection was thrown away"
    assert await orders.read(found(["a", "refused"])) == ["a", "a"]


@sql("SELECT pg_backend_pid()")
def backend() -> int: ...


async def test_what_psycopg_forgets_does_not_take_ours_with_it(orders: PostgresDatabase) -> None:
    for n in range(4):
        async with orders.transaction() as tx:
            for _ in range(7):  # so often that psycopg prepares it, and forgets it after the DROP
                assert await tx.fetch("SELECT item FROM orders WHERE item = %s", "none") == []
            await tx.execute("CREATE TABLE passing (n BIGINT)")
            await tx.execute("DROP TABLE passing")
            assert await tx.run(ordered(f"a{n}")) == [f"a{n}"]
            assert await tx.fetch("SELECT item FROM orders WHERE item = %s", "none") == []
            assert await tx.run(ordered(f"b{n}")) == [f"b{n}"]
    assert await orders.transact(lambda: ordered("c")) == ["c"]
    assert await orders.read(prepared()) == 2


async def test_an_answer_that_refuses_nothing_comes_with_the_commit(
    orders: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips: list[list[bytes]] = []
    exchange = Direct.exchange

    async def counted(self, statements, **options):  # type: ignore[no-untyped-def]
        trips.append([text for text, _ in statements])
        return await exchange(self, statements, **options)

    monkeypatch.setattr(Direct, "exchange", counted)
    noted: list[int] = []

    def script(refuses: bool) -> Script[None]:
        yield from insert("a")
        yield from later(behind(""), noted.append, refuses=refuses)

    await orders.transact(lambda: script(False))
    assert noted == [1]
    assert len(trips) == 1
    await orders.transact(lambda: script(True))
    assert noted == [1, 2]
    assert len(trips) == 3


@sql("SELECT size FROM held WHERE shop = :shop AND name IN {names}")
def sizes(shop: str, names: Sequence[str]) -> list[int]: ...


async def test_a_set_is_what_an_index_is_asked_for_also_where_nothing_is_known_of_the_table(
    orders: PostgresDatabase,
) -> None:
    await orders.transact(
        ddl("CREATE TABLE held (shop TEXT, name TEXT, line BIGINT, size BIGINT, PRIMARY KEY (shop, name, line))")
    )
    statement = sizes.statement  # type: ignore[attr-defined]
    text = render(statement).text.decode().replace("%(shop)s", "%s").replace("%(names)s", "%s")
    async with orders.transaction() as tx:
        plan = "\n".join(line for (line,) in await tx.fetch(f"EXPLAIN {text}", "shop", '["a", "b"]'))
    assert "name = ANY" in plan.split("Index Cond", 1)[1].split("\n")[0], plan
