"""Tables of a release that does not fit are refused before they are used."""

from collections.abc import Awaitable, Callable

import pytest

import faultproof as fp
from faultproof.errors import SchemaMismatch
from faultproof.ports.script import Inline
from tests.conformance.conftest import Connect
from tests.conformance.engines import Engine
from tests.fakes import within

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("version", "says"), [(99, "upgrade faultproof"), (0, r"older release.*install\(\)")])
async def test_tables_that_this_release_cannot_work_with_are_refused(
    engine: Engine, escrow: fp.Escrow, connect: Connect, version: int, says: str
) -> None:
    engine.execute("UPDATE faultproof_schema SET version = ? WHERE name = 'escrow'", (version,))
    db = await connect()
    calls: list[Callable[[], Awaitable[object]]] = [
        fp.Escrow(db).expiry().open,
        lambda: fp.Escrow(db).restock("milk", 1, key="d-1"),
        lambda: fp.Escrow(db).reserve({"milk": 1}, key="o-1"),
        lambda: fp.Escrow(db).confirm("o-1"),
        lambda: fp.Escrow(db).release("o-1"),
        lambda: fp.Escrow(db).extend("o-1"),
        lambda: db.transact(fp.Escrow(db).reserve({"milk": 1}, key="o-1", tx=Inline())),
    ]
    for call in calls:
        with pytest.raises(SchemaMismatch, match=says):
            await within(call())
    assert (await escrow.item("milk"))[1:] == (10, 10, 0, 0)
    await escrow.reserve({"milk": 1}, key="o-1")  # it has seen that they fit, and does not look again
