"""No statement that runs all the time reads a whole table: at a million events it would be the only one to be noticed."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import faultproof as fp
from faultproof.engines.sqlite import claims, log
from faultproof.engines.sqlite.render import Rendered, render, untyped
from faultproof.patterns.outbox import sql as outbox
from faultproof.ports.statement import Statement

pytestmark = pytest.mark.anyio

BIG = ("faultproof_log", "faultproof_intake", "faultproof_parked", "l")
"""Tables, and the alias of one, that grow with the number of events."""
FORBIDDEN = {f"SCAN {table}" for table in BIG} | {f"SEARCH {table} USING PRIMARY KEY (log=?)" for table in BIG}
"""The whole table, or all of one log, which is nearly the same."""
LOOKED_AT_RARELY = {"_intake"}
"""Counts the backlog, for operators and every ten seconds."""


@pytest.mark.parametrize("spelled", [render, untyped], ids=["own", "joined"])
@pytest.mark.parametrize("module", [claims, log, outbox], ids=lambda module: module.__name__)
async def test_no_statement_scans_a_table_of_events(
    module: ModuleType, spelled: Callable[[Statement], Rendered], tmp_path: Path
) -> None:
    path = str(tmp_path / "plans.db")
    async with fp.connect(path) as db:
        await fp.Outbox(db, events={"e": dict}).install()
        await fp.MessageInbox(db, "orders").install()
    raw = sqlite3.connect(path)
    scans, explained = [], 0
    for name, declared in vars(module).items():
        statement = getattr(declared, "statement", None)
        if statement is None or name in LOOKED_AT_RARELY:
            continue
        values = {parameter.name: None for parameter in statement.parameters} | {"now": 0}
        steps = [row[3] for row in raw.execute("EXPLAIN QUERY PLAN " + spelled(statement).text, values)]
        scans += [(name, step) for step in steps if step in FORBIDDEN]
        explained += 1
    raw.close()
    assert scans == []
    assert explained > 5
