"""Tables of a release that does not fit are refused before they are used."""

from collections.abc import Awaitable, Callable

import pytest

import faultproof as fp
from faultproof.errors import SchemaMismatch
from faultproof.ports.database import Database
from faultproof.ports.script import Inline
from tests.conformance.conftest import Connect
from tests.conformance.engines import Engine
from tests.fakes import within
from tests.patterns.saga.shop import Order, Shop, opened

pytestmark = pytest.mark.anyio

Call = Callable[[], Awaitable[object]]


def loops(shop: Shop) -> list[Call]:
    return [shop.saga.runner().open, shop.saga.retention().open]


def writes(shop: Shop) -> list[Call]:
    """Each as the first use in a process of its own."""

    def fresh() -> fp.Saga[Order]:
        return Shop(shop.db).saga

    return [
        lambda: fresh().start("o-1", Order("milk")),
        lambda: shop.db.transact(fresh().start("o-1", Order("milk"), tx=Inline())),
        lambda: fresh().retry("o-1"),
        lambda: fresh().skip("o-1"),
        lambda: fresh().resolve("o-1", "completed", reason="by hand"),
        lambda: fresh().adopt("o-1"),
    ]


@pytest.mark.parametrize("component", ["claims", "saga"])
@pytest.mark.parametrize(("version", "says"), [(99, "upgrade faultproof"), (0, r"older release.*install\(\)")])
async def test_tables_that_this_release_cannot_work_with_are_refused(
    engine: Engine, db: Database, connect: Connect, component: str, version: int, says: str
) -> None:
    await opened(engine, db)
    engine.execute("UPDATE faultproof_schema SET version = ? WHERE name = ?", (version, component))
    later = Shop(await connect())
    for call in [*loops(later), *writes(later)]:
        with pytest.raises(SchemaMismatch, match=says):
            await within(call())
    assert engine.execute("SELECT count(*) FROM faultproof_saga") == [(0,)]


async def test_before_install_it_says_what_to_call(engine: Engine, db: Database) -> None:
    shop = Shop(db)
    for call in [*loops(shop), *writes(shop), shop.saga.sagas, lambda: shop.saga.wait("o-1")]:
        with pytest.raises(SchemaMismatch, match=r"install\(\)"):
            await within(call())


async def test_what_was_seen_to_fit_is_not_looked_at_again(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)
    with pytest.raises(SchemaMismatch):
        await _with_version(engine, 99, Shop(db).saga.start("o-1", Order("milk")))
    await shop.saga.start("o-1", Order("milk"))
    await _with_version(engine, 99, shop.saga.start("o-2", Order("milk")))
    assert len(await shop.saga.sagas()) == 2
    await shop.saga.close()


async def _with_version(engine: Engine, version: int, call: Awaitable[object]) -> None:
    engine.execute("UPDATE faultproof_schema SET version = ? WHERE name = 'saga'", (version,))
    try:
        await within(call)
    finally:
        engine.execute("UPDATE faultproof_schema SET version = 1 WHERE name = 'saga'")
