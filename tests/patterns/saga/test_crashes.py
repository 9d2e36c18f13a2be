"""Runners that are killed, stopped and continued: each saga ends well, and no effect is there twice."""

import asyncio
import signal
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from faultproof.patterns.saga import Saga
from faultproof.ports.database import Database
from tests.conformance.engines import Engine
from tests.fakes import until
from tests.patterns.saga import actors
from tests.patterns.saga.actors import Order, Provider
from tests.patterns.saga.shop import reserved
from tests.processes import Child
from tests.processes import running as process

pytestmark = pytest.mark.anyio

ACTORS = "tests.patterns.saga.actors"
TOTAL = 120


def url_of(engine: Engine) -> str:
    return getattr(engine, "url", None) or f"sqlite:///{engine.path}?synchronous=normal"  # type: ignore[attr-defined]


async def started(db: Database, provider: Path, monkeypatch: pytest.MonkeyPatch) -> Saga[Order]:
    monkeypatch.setattr(sys, "argv", ["", "", "none"])
    saga = actors.saga_of(db, Provider(str(provider)))
    await saga.install()
    await asyncio.gather(*(saga.start(f"o-{number}", Order(number)) for number in range(TOTAL)))
    return saga


async def all_ended(saga: Saga[Order]) -> bool:
    return not await saga.sagas()


async def few_are_left(saga: Saga[Order]) -> bool:
    return len(await saga.sagas(limit=1_000)) <= actors.CONCURRENCY


def is_stopped_outside_the_provider(runner: Child, provider: Path) -> bool:
    """Stop it; and let it go on if it holds the lock of the provider's file, which would stop everybody."""
    runner.send(signal.SIGSTOP)
    with closing(sqlite3.connect(provider, timeout=0.5, isolation_level=None)) as theirs:
        try:
            theirs.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            runner.send(signal.SIGCONT)
            return False
        theirs.execute("ROLLBACK")
    return True


def the_books_agree(engine: Engine, provider: Path) -> None:
    """Of every order either all is there, once, or nothing."""
    shipped = [f"o-{number}" for number in range(TOTAL) if number % 3]
    states = Counter(state for (state,) in engine.execute("SELECT state FROM faultproof_saga"))
    assert states == {"completed": len(shipped), "compensated": TOTAL - len(shipped)}
    raw = sqlite3.connect(provider)
    try:
        charged = [id for (id,) in raw.execute("SELECT id FROM done WHERE what = 'charge'")]
        paid = [
            id
            for (id,) in raw.execute(
                "SELECT id FROM done WHERE what = 'charge' AND key NOT IN (SELECT key FROM undone)"
            )
        ]
        left = [id for (id,) in raw.execute("SELECT id FROM done WHERE what = 'ship'")]
    finally:
        raw.close()
    assert len(charged) == len(set(charged)) == TOTAL
    assert sorted(paid) == sorted(left) == sorted(shipped) == reserved(engine)


async def test_runners_killed_while_busy_leave_every_saga_whole(
    engine: Engine, db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = tmp_path / "provider.db"
    saga = await started(db, provider, monkeypatch)
    left = [TOTAL]
    for number in range(4):
        async with process(ACTORS, "run", url_of(engine), provider, 3 + 5 * number) as child:
            await child.says("busy")
            child.send(signal.SIGKILL)
            assert await child.ended() == -signal.SIGKILL
        left.append(len(await saga.sagas(limit=1_000)))
    assert left == sorted(left, reverse=True)
    assert 0 < left[-1] < TOTAL, "the kills have missed the work"
    async with process(ACTORS, "run", url_of(engine), provider, 0) as child:
        await until(lambda: all_ended(saga))
        child.send(signal.SIGTERM)
        assert await child.ended() == 0
    the_books_agree(engine, provider)
    await saga.close()


async def test_a_runner_that_is_stopped_is_replaced_and_when_it_wakes_nothing_doubles(
    engine: Engine, db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = tmp_path / "provider.db"
    saga = await started(db, provider, monkeypatch)
    async with process(ACTORS, "run", url_of(engine), provider, 5) as frozen:
        await frozen.says("busy")
        await until(lambda: is_stopped_outside_the_provider(frozen, provider))
        try:
            async with process(ACTORS, "run", url_of(engine), provider, 0) as successor:
                if engine.name != "sqlite":  # which the stopped one may hold locked, and there its own sagas at most
                    await until(lambda: few_are_left(saga))
                frozen.send(signal.SIGCONT)
                await until(lambda: all_ended(saga))
                successor.send(signal.SIGTERM)
                assert await successor.ended() == 0
        finally:
            frozen.send(signal.SIGCONT)
        frozen.send(signal.SIGTERM)
        assert await frozen.ended() == 0
    the_books_agree(engine, provider)
    await saga.close()
