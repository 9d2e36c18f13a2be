"""Several processes on one file: locks, order, forks."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from faultproof.clock import Env
from faultproof.engines.sqlite.database import LOCK_TIMEOUT_S, SqliteDatabase
from faultproof.errors import Busy
from faultproof.ports.log import Cursor
from tests.children import WAIT_S, Python
from tests.engines.sqlite.conftest import Open
from tests.fakes import ManualClock
from tests.moving import moving

pytestmark = pytest.mark.anyio

# --- locks ------------------------------------------------------------------------------------------------------------

HOLDER = """
import sqlite3, sys
raw = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.stdin:
    raw.execute(line)
    print("done", flush=True)
"""


def command(holder: Python, sql: str) -> None:
    holder.tell(sql)
    assert holder.hear() == "done"


async def test_lock_of_another_process_is_busy_after_the_timeout_and_nothing_happened(
    db: SqliteDatabase, path: Path, connect: Open
) -> None:
    clock = ManualClock(flows=True)
    began = clock.now
    patient = await connect(Env(clock=clock))
    with Python(HOLDER, path) as holder:
        command(holder, "BEGIN IMMEDIATE")
        with pytest.raises(Busy) as raised:
            await patient.transact(patient.claims.add("job", ["a"]))
        assert raised.value.retry_after == LOCK_TIMEOUT_S
        assert LOCK_TIMEOUT_S <= clock.now - began < LOCK_TIMEOUT_S + 1
        with pytest.raises(Busy):
            await patient.transaction().__aenter__()
        assert not patient.in_transaction()
        command(holder, "COMMIT")
    assert await patient.transact(patient.claims.add("job", ["a"])) == 1


async def test_lock_that_is_freed_in_time_is_waited_for(db: SqliteDatabase, path: Path, connect: Open) -> None:
    with Python(HOLDER, path) as holder:
        sleeps: list[float] = []

        def free_after_some(seconds: float) -> None:
            sleeps.append(seconds)
            if len(sleeps) == 5:
                command(holder, "COMMIT")

        patient = await connect(Env(clock=ManualClock(flows=True, on_sleep=free_after_some)))
        command(holder, "BEGIN IMMEDIATE")
        assert await patient.transact(patient.claims.add("job", ["a"])) == 1
        assert len(sleeps) == 5
        sleeps.clear()
        command(holder, "BEGIN IMMEDIATE")
        async with patient.transaction() as tx:
            await tx.run(patient.claims.add("job", ["b"]))
        assert len(sleeps) == 5


async def test_reader_does_not_wait_for_a_writer(db: SqliteDatabase, path: Path) -> None:
    with Python(HOLDER, path) as holder:
        command(holder, "BEGIN EXCLUSIVE")
        assert await db.read(db.claims.holders("job")) == []


async def test_first_processes_of_all_open_the_file_at_once(path: Path) -> None:
    """Turning a new file to WAL needs it alone; those that come at the same moment wait for it."""
    opening = """
import asyncio, sys, faultproof
print("ready", flush=True)
sys.stdin.readline()
async def main():
    async with faultproof.connect(sys.argv[1]) as db:
        await db.install(db.claims.schema, db.logs.schema)
asyncio.run(main())
"""
    with Python(opening, path) as a, Python(opening, path) as b, Python(opening, path) as c, Python(opening, path) as d:
        processes = (a, b, c, d)
        assert [process.hear() for process in processes] == ["ready"] * 4
        for process in processes:
            process.tell()
        assert [process.finish() for process in processes] == [""] * 4


# --- order ------------------------------------------------------------------------------------------------------------

WRITER = """
import asyncio, random, sqlite3, sys
import faultproof
from faultproof.ports.log import Entry

path, name = sys.argv[1:]
rng = random.Random(name)

def entry(id):
    return Entry(0, id, name, "T", "{}", None, 0)

async def main():
    async with faultproof.connect(f"sqlite:///{path}?synchronous=normal") as db:
        print("ready", flush=True)
        sys.stdin.readline()
        for n in range(60):
            kind = rng.choice(("plain", "long", "rolled back", "joined"))
            if kind == "plain":
                await db.transact(db.logs.append("orders", [entry(f"{name}{n}")], partitions=1))
            elif kind == "joined":
                raw = sqlite3.connect(path, timeout=20)
                faultproof.join(raw).run(db.logs.append("orders", [entry(f"{name}{n}")], partitions=1))
                raw.commit()
                raw.close()
            else:
                try:
                    async with db.transaction() as tx:
                        event = entry(f"{name}{n}" if kind == "long" else "never")
                        await tx.run(db.logs.append("orders", [event], partitions=1))
                        await tx.fetch("SELECT count(*) FROM faultproof_intake")
                        if kind == "rolled back":
                            raise KeyError
                except KeyError:
                    await db.transact(db.logs.append("orders", [entry(f"{name}{n}")], partitions=1))

asyncio.run(main())
"""


async def test_row_order_is_commit_order_for_writers_in_several_processes(db: SqliteDatabase, path: Path) -> None:
    """A plain cursor over the intake's ids never has to look back, even while a sequencer empties it."""
    await db.transact(db.logs.create("orders", partitions=1, epoch="e"))
    eye = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None)
    seen: list[tuple[int, str]] = []

    def look() -> None:
        last = seen[-1][0] if seen else 0
        seen.extend(eye.execute("SELECT id, event_id FROM faultproof_intake WHERE id > ? ORDER BY id", (last,)))

    names = ("u", "v", "w")
    try:
        with Python(WRITER, path, "u") as u, Python(WRITER, path, "v") as v, Python(WRITER, path, "w") as w:
            writers = [u, v, w]
            for writer in writers:
                assert writer.hear() == "ready"
            for writer in writers:
                writer.tell()
            written = asyncio.gather(*(asyncio.to_thread(writer.finish) for writer in writers))
            async with asyncio.timeout(WAIT_S * 2):
                while not written.done():
                    look()
                    await asyncio.sleep(0)
                    if len(seen) % 7 == 0:  # empty it now and then: an id must not come back
                        async with db.transaction() as tx:
                            look()  # nobody else commits now, so nothing is removed unseen
                            await tx.run(moving(db.logs, "orders", [0], limit=1_000))
                await written
        look()
    finally:
        eye.close()
    await db.transact(moving(db.logs, "orders", [0], limit=1_000))
    expected = sorted(f"{name}{n}" for name in names for n in range(60))
    assert sorted(id for _, id in seen) == expected
    records = await db.read(db.logs.read("orders", [Cursor(0, 0)], limit=1_000))
    assert [record.id for record in records] == [id for _, id in seen]
    assert [record.offset for record in records] == list(range(180))


# --- forks ------------------------------------------------------------------------------------------------------------

FORK = """
import asyncio, os, sqlite3, sys, traceback
import faultproof
from faultproof.errors import UsedAfterFork

async def tried(name, call):
    try:
        await asyncio.wait_for(call(), 5)
        return f"{name}: worked"
    except UsedAfterFork:
        return f"{name}: refused"
    except BaseException as error:
        return f"{name}: {error!r}"

async def child(db, tx, joined):
    async def join():
        joined.run(db.claims.add("job", ["child"]))
    async def listen():
        db.changed("topic")
    for name, call in {
        "transact": lambda: db.transact(db.claims.add("job", ["child"])),
        "read": lambda: db.read(db.claims.holders("job")),
        "transaction": lambda: db.transaction().__aenter__(),
        "open transaction": lambda: tx.execute("SELECT 1"),
        "changed": listen,
        "health": db.health,
        "joined": join,
        "close": db.close,
    }.items():
        print(await tried(name, call), flush=True)

async def main(path):
    db = await faultproof.connect(path)
    await db.install(db.claims.schema)
    db.changed("topic")
    sockets = os.listdir(path + "-wake")
    raw = sqlite3.connect(path)
    joined = faultproof.join(raw)
    async with db.transaction() as tx:
        if os.fork() == 0:
            try:
                asyncio._set_running_loop(None)
                asyncio.new_event_loop().run_until_complete(child(db, tx, joined))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(0)
        os.wait()
        await tx.run(db.claims.add("job", ["parent"]))
    print("parent:", [holder.id for holder in await db.read(db.claims.holders("job"))])
    print("sockets:", os.listdir(path + "-wake") == sockets)
    raw.close()
    await db.close()

asyncio.run(main(sys.argv[1]))
"""


async def test_nothing_made_before_a_fork_is_used_after_it(path: Path) -> None:
    with Python(FORK, path) as process:
        said = (await asyncio.to_thread(process.finish)).splitlines()
    calls = ("transact", "read", "transaction", "open transaction", "changed", "health", "joined", "close")
    assert said == [*(f"{call}: refused" for call in calls), "parent: ['parent']", "sockets: True"]
