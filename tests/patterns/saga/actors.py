"""What the saga's tests run as processes of their own: `python -m tests.patterns.saga.actors ROLE URL …`."""

import asyncio
import sqlite3
import sys

import msgspec

import faultproof as fp
from faultproof.errors import Failed
from faultproof.ports.database import Database, Transaction
from tests.fakes import env_of, until

DELAY_S = 0.002
CONCURRENCY = 20


class Order(msgspec.Struct):
    number: int


class Provider:
    """The other side, with a record of its own: an SQLite file that whoever calls writes to, one call a transaction."""

    def __init__(self, path: str) -> None:
        self._raw = sqlite3.connect(path, timeout=20.0, isolation_level=None)
        self._raw.execute("CREATE TABLE IF NOT EXISTS done (key TEXT PRIMARY KEY, id TEXT, what TEXT)")
        self._raw.execute("CREATE TABLE IF NOT EXISTS undone (key TEXT PRIMARY KEY)")

    def do(self, key: str, id: str, what: str) -> None:
        """Once for a key, and not after its undo."""
        self._raw.execute(
            "INSERT INTO done SELECT ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM undone WHERE key = ?) ON CONFLICT DO NOTHING",
            (key, id, what, key),
        )

    def undo(self, key: str) -> None:
        self._raw.execute("INSERT INTO undone VALUES (?) ON CONFLICT DO NOTHING", (key,))


def saga_of(db: Database, provider: Provider) -> fp.Saga[Order]:
    """Every third order is refused at its last step."""

    async def charge(context: fp.StepContext[Order]) -> str:
        provider.do(context.key, context.id, "charge")
        await asyncio.sleep(DELAY_S)  # sleeps: there must be a time in which to be killed
        return context.key

    async def refund(context: fp.StepContext[Order], key: str | None) -> None:
        assert context.undone_key is not None
        provider.undo(context.undone_key)
        await asyncio.sleep(DELAY_S)  # sleeps: there must be a time in which to be killed

    async def reserve(context: fp.StepContext[Order], tx: Transaction) -> None:
        mark = "%s" if url.startswith("postgres") else "?"
        await tx.execute(f"INSERT INTO reserved (id) VALUES ({mark})", context.id)

    async def release(context: fp.StepContext[Order], result: None, tx: Transaction) -> None:
        mark = "%s" if url.startswith("postgres") else "?"
        await tx.execute(f"DELETE FROM reserved WHERE id = {mark}", context.id)

    async def ship(context: fp.StepContext[Order]) -> None:
        if context.input.number % 3 == 0:
            raise Failed("nobody ships there")
        provider.do(context.key, context.id, "ship")

    url = sys.argv[2]
    return fp.Saga(
        db,
        "killed",
        input=Order,
        steps=[
            fp.Step.remote(charge, undo=refund),
            fp.Step.local(reserve, undo=release),
            fp.Step.remote(ship, undo=fp.NOTHING_TO_UNDO),
        ],
    )


async def main() -> None:
    """Run sagas until killed; "busy" once so many attempts have been begun."""
    _, _, url, provider, busy = sys.argv[:5]
    async with fp.connect(url, env=env_of()) as db:
        saga = saga_of(db, Provider(provider))
        worker = fp.Worker(db.env, saga.runner(ttl=0.3, concurrency=CONCURRENCY))
        task = asyncio.create_task(worker.run_until_signal())
        before = len(await saga.sagas(limit=10_000))

        async def some_ended() -> bool:
            return len(await saga.sagas(limit=10_000)) <= before - int(busy)

        await until(some_ended)
        print("busy", flush=True)
        await task


if __name__ == "__main__":
    asyncio.run(main())
