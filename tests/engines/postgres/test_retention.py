"""What retention and vacuum leave behind: bounded steps, that take as long whatever is held elsewhere, and room used again."""

import asyncio
import re

import psycopg
import pytest

from faultproof.engines.postgres.database import PostgresDatabase
from faultproof.patterns.outbox.sql import SCHEMA as OUTBOX
from faultproof.ports.log import Cursor
from tests.docs.markdown import REPOSITORY, code_spans, rows, section
from tests.engines.postgres.conftest import Open

pytestmark = pytest.mark.anyio

WAIT_S = 20.0
LOG = "orders"


async def fill(db: PostgresDatabase, events: int) -> None:
    """The first partition gets events at its end."""
    async with db.transaction() as tx:
        await tx.execute(
            """WITH p AS (UPDATE faultproof_log_partition SET next_offset = next_offset + %s WHERE "partition" = 0
                          RETURNING next_offset - %s AS first)
               INSERT INTO faultproof_log (log, "partition", "offset", intake_id, at_us, event_id, type, payload)
               SELECT 'orders', 0, first + n, n, 0, n, 'T', repeat('x', 200) FROM p, generate_series(0, %s - 1) AS n""",
            events,
            events,
            events,
        )


async def trim(db: PostgresDatabase, *, limit: int) -> tuple[int, int]:
    """One step: how many events it removed, and how many entries of the index it went over."""
    seen = "SELECT pg_stat_get_xact_tuples_returned('faultproof_log_pkey'::regclass)"  # since it last told everybody
    async with asyncio.timeout(WAIT_S), db.transaction() as tx:
        ((before,),) = await tx.fetch(seen)
        removed = await tx.run(db.logs.trim(LOG, upto=[Cursor(0, 1_000_000)], older_us=0, limit=limit))
        ((after,),) = await tx.fetch(seen)
    return removed, after - before


async def test_old_snapshot_elsewhere_does_not_make_steps_long(db: PostgresDatabase, peer: PostgresDatabase) -> None:
    """What earlier steps removed stays in the index, dead, and is not gone over again."""
    await fill(db, 2_000)
    async with peer.transaction() as old:
        await old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await old.fetch("SELECT pg_current_xact_id()")
        steps = [await trim(db, limit=100) for _ in range(20)]
    assert [removed for removed, _ in steps] == [100] * 20
    assert max(entries for _, entries in steps) <= 400
    assert (await trim(db, limit=100))[0] == 0


async def test_room_of_what_was_removed_is_used_again(db: PostgresDatabase, postgres_url: str) -> None:
    sizes: list[int] = []
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        for _ in range(3):
            await fill(db, 5_000)
            while (await trim(db, limit=1_000))[0]:
                pass
            await fill(db, 10)  # or vacuum would cut off the end of a file in which nothing is left
            raw.execute("VACUUM faultproof_log")
            sizes += raw.execute("SELECT pg_relation_size('faultproof_log')").fetchone() or ()
    assert sizes[0] >= 5_000 * 200
    assert sizes[2] <= sizes[0] * 1.1


async def test_tables_ask_for_vacuum_as_the_page_says(db: PostgresDatabase, connect: Open, postgres_url: str) -> None:
    await (await connect()).install(OUTBOX)
    page = (REPOSITORY / "docs/postgresql.md").read_text(encoding="utf-8")
    said = {
        table: (int(room.rstrip(" %")), changes)
        for tables, room, changes, _ in rows(section(page, "Growth"))
        for table in code_spans(tables)
    }
    with psycopg.connect(postgres_url) as raw:
        found = raw.execute(
            "SELECT relname, reloptions FROM pg_class"
            " WHERE relkind = 'r' AND relname LIKE 'faultproof_%' AND reloptions IS NOT NULL"
        ).fetchall()
    set_on = {table: dict(option.split("=") for option in options) for table, options in found}
    assert set_on.keys() == said.keys()
    for table, options in set_on.items():
        room, changes = said[table]
        assert int(options.get("fillfactor", 100)) == room, table
        numbers = [
            f"{int(options[name]):,}" if name.endswith("threshold") else f"{float(options[name]) * 100:g} %"
            for name in (
                "autovacuum_vacuum_threshold",
                "autovacuum_vacuum_scale_factor",
                "autovacuum_vacuum_insert_scale_factor",
            )
            if float(options.get(name, 0))
        ]
        assert re.findall(r"\d[\d,]*(?: %)?", changes) == numbers, table
