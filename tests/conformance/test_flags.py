"""Flags in a table reach every process that has them open."""

import asyncio
from time import monotonic

import pytest

from faultproof.ports.database import Database
from faultproof.primitives.flag_table import FlagTable
from tests.children import Python
from tests.conformance.engines import Engine
from tests.primitives.test_flags import FOLLOWS

pytestmark = pytest.mark.anyio

LOOK_S = 5.0
"""Of the processes that follow: sooner it can only be the news that they heard."""


async def test_two_processes_hear_of_a_change_in_a_table_before_they_look(db: Database, engine: Engine) -> None:
    table = FlagTable(db)
    await table.install()
    where = getattr(engine, "url", None) or getattr(engine, "path", None)
    with Python(FOLLOWS, where) as one, Python(FOLLOWS, where) as other:
        assert await asyncio.to_thread(lambda: [one.hear(), other.hear()]) == ["False", "False"]
        began = monotonic()
        await table.set("shadow", True)
        assert await asyncio.to_thread(lambda: [one.hear(), other.hear()]) == ["True", "True"]
        assert monotonic() - began < LOOK_S / 2
