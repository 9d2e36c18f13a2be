"""What runs on the copy of a request commits nothing by a database of ours, and keeps nobody else from doing so."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import faultproof as fp
from faultproof.errors import Misuse
from faultproof.ports.database import Database
from tests.conformance.conftest import connect, db, engine, peer
from tests.fakes import env_of, settle

__all__ = ["connect", "db", "engine", "peer"]

pytestmark = pytest.mark.anyio


async def mirrored(candidate: Callable[[Any], Awaitable[Any]], request: Any = "a") -> fp.ShadowReport:
    """What a shadow says of one request."""
    shadow = fp.Shadow[Any, Any](candidate, share=1.0, is_safe=lambda request: True, env=env_of())
    shadow.offer(request, None)
    assert await shadow.drain()
    return shadow.report()


async def test_a_candidate_publishes_reserves_and_commits_nothing_and_production_does(db: Database) -> None:
    outbox = fp.Outbox(db, events={"placed": dict})
    escrow = fp.Escrow(db)
    idempotency = fp.Idempotency(db, "pay", answer=dict)
    await outbox.install()
    await escrow.install()
    await idempotency.install()
    await escrow.restock("seat", 5, key="first")
    refused = list[str]()

    async def candidate(request: Any) -> None:
        async def tries(call: Callable[[], Awaitable[object]]) -> None:
            try:
                await call()
            except Misuse as error:
                refused.append(str(error))

        async def opens() -> None:
            async with db.transaction():
                raise AssertionError("begun")

        async def works() -> Any:
            raise AssertionError("begun")

        await tries(lambda: outbox.publish({"n": 1}, key="a", type="placed"))
        await tries(lambda: escrow.reserve({"seat": 1}, key="h", ttl=60.0))
        await tries(lambda: idempotency.run("k", {"n": 1}, works))
        await tries(opens)

    report = await mirrored(candidate)
    assert (report.same, len(refused)) == (1, 4)
    assert all("copy of a request" in words for words in refused)
    (item,) = await escrow.items()
    assert item.available == 5
    # The refusals have left nothing behind in what is shared: the same objects serve production.
    await outbox.publish({"n": 1}, key="a", type="placed")
    await escrow.reserve({"seat": 1}, key="h", ttl=60.0)
    await outbox.close()
    await escrow.close()


async def test_what_production_commits_for_others_too_it_does_not_commit_for_a_candidate(db: Database) -> None:
    async def candidate(request: Any) -> None:
        await outbox.publish({"n": 9}, key="a", type="placed")

    outbox = fp.Outbox(db, events={"placed": dict})
    await outbox.install()
    await outbox.publish({"n": 0}, key="a", type="placed")
    mine = [asyncio.ensure_future(outbox.publish({"n": n}, key="a", type="placed")) for n in range(3)]
    report = await mirrored(candidate)
    assert len(set(await asyncio.gather(*mine))) == 3
    assert report.candidate.errors == {"Misuse": 1}
    async with db.transaction() as tx:
        assert await tx.fetch("SELECT count(*) FROM faultproof_intake") == [(4,)]
    await outbox.close()


async def test_a_transaction_that_production_has_open_is_closed_to_a_candidate(db: Database) -> None:
    async def candidate(request: Any) -> None:
        await opened[0].execute("CREATE TABLE candidates (n INTEGER)")

    opened = list[Any]()
    async with db.transaction() as tx:
        opened.append(tx)
        report = await mirrored(candidate)
        assert report.candidate.errors == {"Misuse": 1}
        await tx.execute("CREATE TABLE mine (n INTEGER)")


async def test_reading_is_allowed_and_what_is_the_candidate_s_own_may_be_written(db: Database, peer: Database) -> None:
    async def candidate(request: Any) -> None:
        await db.health()
        with fp.unshadowed():
            async with peer.transaction() as tx:
                await tx.execute("CREATE TABLE candidates (n INTEGER)")
        assert fp.is_shadow()

    assert (await mirrored(candidate)).same == 1


async def test_a_candidate_joins_no_transaction(tmp_path: Path) -> None:
    async def candidate(request: Any) -> None:
        fp.join(raw)

    raw = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    raw.execute("BEGIN")
    assert (await mirrored(candidate)).candidate.errors == {"Misuse": 1}
    raw.close()
    await settle()
