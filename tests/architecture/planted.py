"""Planted violations that the rules must catch, and near-misses that they must let pass.

Each case is a small source tree. `caught` names the file and line of every violation; an innocent case
has none. A path that begins with "tests/" lies beside `src`; every other lies below `src/faultproof`.
"""

from dataclasses import dataclass
from textwrap import dedent

from tests.architecture.engines import capabilities_tested, no_dialect_in_patterns, sql_not_glued
from tests.architecture.layers import exported_once, layers
from tests.architecture.outcomes import failed_is_not_unknown
from tests.architecture.rooms import modules_small_and_named, nothing_unsafe
from tests.architecture.rules import Rule
from tests.architecture.waits import every_wait_bounded, nothing_ambient, tests_never_sleep


@dataclass(frozen=True)
class Case:
    """`files` are planted, then `rule` must report exactly the places in `caught`."""

    rule: Rule
    name: str
    files: dict[str, str]
    caught: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.rule.__name__}: {self.name}"


def _in(path: str, text: str) -> dict[str, str]:
    return {path: dedent(text).strip() + "\n"}


def _violations(rule: Rule, path: str, **cases: str) -> list[Case]:
    """One case each: the lines of `path` that end in `# !` are the violations."""
    made: list[Case] = []
    for name, text in cases.items():
        files = _in(path, text)
        lines = files[path].splitlines()
        caught = tuple(f"{path}:{n}" for n, line in enumerate(lines, start=1) if line.endswith("# !"))
        assert caught, name
        made.append(Case(rule, name, files, caught))
    return made


def _innocent(rule: Rule, path: str, **cases: str) -> list[Case]:
    return [Case(rule, name, _in(path, text)) for name, text in cases.items()]


ROOM = "patterns/outbox/publish.py"

LAYERS = [
    *_violations(
        layers,
        ROOM,
        pattern_imports_engine="from faultproof.engines.sqlite import open  # !",
        pattern_imports_engines_by_parent="from faultproof import engines  # !",
        pattern_imports_relatively="from ...engines import sqlite  # !",
        pattern_imports_cli="import faultproof.cli  # !",
        pattern_imports_prove="from faultproof.prove import Proof  # !",
        pattern_imports_front="from faultproof import Outbox  # !",
        pattern_imports_late="""
            import importlib
            def engine():
                return importlib.import_module("faultproof.engines.sqlite")  # !
        """,
        pattern_imports_for_types="""
            from typing import TYPE_CHECKING
            if TYPE_CHECKING:
                from faultproof.shop import Shop  # !
        """,
    ),
    *_violations(
        layers,
        "primitives/batcher.py",
        primitive_imports_pattern="from faultproof.patterns import batch  # !",
    ),
    *_violations(
        layers,
        "engines/sqlite/database.py",
        engine_imports_pattern="from faultproof.patterns.outbox import Outbox  # !",
    ),
    *_violations(layers, "ports/database.py", port_imports_primitive="from faultproof.primitives import claim  # !"),
    *_violations(
        layers,
        "dashboard/page.py",
        stranger_joins_both="""
            from faultproof.patterns.outbox import Outbox
            from faultproof.engines.sqlite import open  # !
        """,
    ),
    *_innocent(
        layers,
        ROOM,
        pattern_imports_what_it_may="""
            from faultproof.clock import Clock
            from faultproof.errors import FaultproofError
            from faultproof.ports.database import Tx
            from faultproof.primitives.claim import take
            from faultproof.signals import emit
            from .sql import publish
            import engines
        """,
    ),
    *_innocent(layers, "patterns/outbox/proof.py", proof_imports_prover="from faultproof.prove import Proof"),
    *_innocent(layers, "patterns/saga/proof_callbacks.py", its_companion_too="from faultproof.prove import Proof"),
    *_innocent(
        layers,
        "connect.py",
        connect_joins_both="""
            from faultproof.engines.sqlite import open
            from faultproof.patterns.outbox import Outbox
        """,
    ),
    *_innocent(layers, "engines/sqlite/claims.py", engine_imports_primitive="from faultproof.primitives import claim"),
]

AMBIENT = [
    *_violations(
        nothing_ambient,
        ROOM,
        module_time="import time  # !",
        time_function="from time import monotonic as now  # !",
        asyncio_sleep="""
            import asyncio as aio
            async def pause():
                await aio.sleep(1)  # !
        """,
        sleep_by_name="from asyncio import sleep  # !",
        loop_time="""
            import asyncio
            def now():
                return asyncio.get_running_loop().time()  # !
        """,
        loop_time_by_name="""
            def later(self, f):
                self._loop.call_later(1, f)  # !
        """,
        datetime_now="""
            from datetime import UTC, datetime as dt
            def now():
                return dt.now(UTC)  # !
        """,
        date_today="""
            import datetime
            today = datetime.date.today()  # !
        """,
        randomness="from random import Random  # !",
        secrets="import secrets  # !",
        uuid="""
            import uuid
            def fresh():
                return uuid.uuid4()  # !
        """,
        uuid_by_name="from uuid import uuid4  # !",
        urandom="""
            import os
            def fresh():
                return os.urandom(16)  # !
        """,
    ),
    *_violations(nothing_ambient, "primitives/retry.py", primitive_too="import random  # !"),
    *_innocent(
        nothing_ambient,
        ROOM,
        injected_objects="""
            import asyncio, os, uuid
            from datetime import datetime, timedelta
            async def wait(clock, rng, ids, time: float) -> uuid.UUID:
                await clock.sleep(rng.uniform(0, time))
                started: datetime = clock.now()
                order = os.path.join("a", str(started + timedelta(seconds=clock.time())))
                return uuid.UUID(ids.fresh(order))
        """,
    ),
    *_innocent(nothing_ambient, "engines/sqlite/writer.py", engines_have_real_time="import time"),
]

WAITS = [
    *_violations(
        every_wait_bounded,
        ROOM,
        queue_without_bound="""
            import asyncio
            q = asyncio.Queue()  # !
        """,
        typed_queue_without_bound="""
            import asyncio
            q = asyncio.Queue[int](maxsize=0)  # !
        """,
        thread_queue="""
            from queue import Queue, SimpleQueue
            q = Queue()  # !
            r = SimpleQueue()  # !
        """,
        deque_without_reason="""
            from collections import deque
            d = deque[int]()  # !
            e = deque([1], maxlen=None)  # !
        """,
        deque_as_factory="""
            from collections import deque
            from dataclasses import dataclass, field
            @dataclass
            class Pending:
                items: deque[int] = field(default_factory=deque)  # !
        """,
        event_wait="""
            async def f(event):
                await event.wait()  # !
        """,
        lock_acquire="""
            async def f(lock, key):
                await lock.acquire(key)  # !
        """,
        queue_get="""
            async def f(self):
                return await self._queue.get()  # !
        """,
        queue_join="""
            async def f(self):
                await self._queue.join()  # !
        """,
        no_timeout_given="""
            async def f(lock):
                await lock.acquire(timeout=None)  # !
        """,
        lock_as_context="""
            async def f(self):
                async with self._lock:  # !
                    pass
        """,
        asyncio_wait="""
            import asyncio
            async def f(tasks):
                await asyncio.wait(tasks)  # !
        """,
        timeout_of_another_function="""
            import asyncio
            async def f(event):
                async with asyncio.timeout(1):
                    async def g():
                        await event.wait()  # !
        """,
        timeout_none="""
            import asyncio
            async def f(event):
                async with asyncio.timeout(None):
                    await event.wait()  # !
        """,
    ),
    Case(
        every_wait_bounded,
        "comment_without_reason",
        _in(ROOM, "async def f(event):\n    await event.wait()  # unbounded:"),
        (f"{ROOM}:2",),
    ),
    *_innocent(
        every_wait_bounded,
        ROOM,
        bounded_in_many_ways="""
            import asyncio
            from collections import deque
            q = asyncio.Queue(maxsize=10)
            r = asyncio.Queue[int](10)
            d = deque([], 5)
            e = deque()  # bounded: by the batch's items_max
            async def f(self, event, lock, cache, clock, tasks):
                async with clock.timeout(1.0):
                    await event.wait()
                    async with self._lock:
                        pass
                await lock.acquire(timeout=1.0)
                await lock.acquire("key", self.deadline)
                await event.wait(timeout=2)
                await event.wait()  # unbounded: the caller's own cancel ends it
                async with lock:  # unbounded: held for one await of a bounded call
                    pass
                await cache.get("key")
                await asyncio.wait(tasks, timeout=1)
                await asyncio.wait_for(event.wait(), 1)
                return ", ".join({}.get("a"))
        """,
    ),
    *_innocent(
        every_wait_bounded,
        "engines/sqlite/writer.py",
        engines_are_elsewhere="import queue\nq = queue.Queue()",
    ),
]

OUTCOMES = [
    *_violations(
        failed_is_not_unknown,
        "errors.py",
        both="""
            class Failed(Exception): ...
            class OutcomeUnknown(Exception): ...
            class CommitLost(Failed, OutcomeUnknown): ...  # !
        """,
        unknown_is_a_failure="""
            class CallFailed(Exception): ...
            class OutcomeUnknown(CallFailed): ...  # !
        """,
        failure_is_unknown="""
            class OutcomeUnknown(Exception): ...
            class Lost(OutcomeUnknown): ...
            class RequestRejected(Lost): ...  # !
        """,
    ),
    Case(
        failed_is_not_unknown,
        "caught_together",
        {
            **_in("errors.py", "class OutcomeUnknown(Exception): ...\nclass Failed(Exception): ..."),
            **_in(
                "shop/orders.py",
                """
                from faultproof import errors
                class CardDeclined(errors.Failed): ...
                try:
                    pass
                except (errors.OutcomeUnknown, CardDeclined):
                    pass
                """,
            ),
        },
        ("shop/orders.py:5",),
    ),
    *_innocent(
        failed_is_not_unknown,
        "errors.py",
        kept_apart="""
            class FaultproofError(Exception): ...
            class Failed(FaultproofError): ...
            class OutcomeUnknown(FaultproofError): ...
            try:
                pass
            except OutcomeUnknown:
                pass
            except (Failed, ValueError):
                pass
        """,
    ),
]

_SUITE = "tests/conformance/test_database.py"
CAPABILITIES = [
    Case(
        capabilities_tested,
        "claimed_and_untested",
        {
            **_in("engines/sqlite/__init__.py", "X = 1\nCAPABILITIES = Capabilities(wake_up=True, listen=False)"),
            **_in(_SUITE, '"""Mentions listen in prose only."""\nDEMANDS = {"wake_up": 1}'),
        },
        ("engines/sqlite/__init__.py:2",),
    ),
    Case(
        capabilities_tested,
        "claims_nothing_readable",
        _in("engines/sqlite/__init__.py", "CAPABILITIES = Capabilities()"),
        ("engines/sqlite/__init__.py:1",),
    ),
    Case(
        capabilities_tested,
        "skips_in_silence",
        _in(_SUITE, "import pytest\n@pytest.mark.xfail\ndef test_a():\n    pytest.skip('no')"),
        (f"{_SUITE}:2", f"{_SUITE}:4"),
    ),
    Case(
        capabilities_tested,
        "claimed_and_tested",
        {
            **_in("engines/sqlite/__init__.py", "CAPABILITIES = Capabilities(wake_up=True)"),
            **_in("engines/nats/log.py", 'CAPABILITIES: frozenset[str] = frozenset({"replay"})'),
            **_in("engines/redis/cache.py", "CAPABILITIES = {Capability.EXPIRY}"),
            **_in(_SUITE, 'DEMANDS = {"wake_up": 1, Capability.EXPIRY: 2}\nreplay = needs("replay").skipped'),
        },
    ),
]

DIALECT = [
    *_violations(
        no_dialect_in_patterns,
        "patterns/outbox/sql.py",
        skip_locked='TAKE = "SELECT id FROM work FOR UPDATE SKIP LOCKED"  # !',
        skip_locked_over_lines='TAKE = "SELECT id FROM work skip   locked"  # !',
        json_each='ALL = "SELECT value FROM json_each(:items)"  # !',
        jsonb='ALL = "SELECT * FROM jsonb_array_elements(:items)"  # !',
        pragma='SAFE = "PRAGMA synchronous = FULL"  # !',
        clock='NOW = "SELECT statement_timestamp()"  # !',
        pg_function='LOCK = f"SELECT pg_advisory_lock({1})"  # !',
        snapshot='ROWS = "SELECT xmin FROM t"  # !',
        driver="import sqlite3  # !",
        keyword='take = sql("SELECT 1", postgres="SELECT 2")  # !',
        branch="""
            def ready(db):
                return db.name == "postgresql"  # !
        """,
        attribute="""
            def ready(db):
                return db.is_sqlite  # !
        """,
    ),
    *_innocent(
        no_dialect_in_patterns,
        "patterns/outbox/sql.py",
        shared_sql_and_prose='''
            """On SQLite and PostgreSQL; the engine adds FOR UPDATE SKIP LOCKED."""
            PUT = "INSERT INTO t (id) VALUES (:id) ON CONFLICT (id) DO UPDATE SET n = t.n + 1"
            HELP = "pass a postgresql:// address"
            # PRAGMA is an engine's word
        ''',
    ),
    *_innocent(no_dialect_in_patterns, "engines/sqlite/sql.py", engines_own_it='X = "PRAGMA journal_mode = WAL"'),
]

EXPORTS = [
    Case(
        exported_once,
        "no_all",
        _in("__init__.py", "from faultproof.connect import connect"),
        ("__init__.py:1",),
    ),
    Case(
        exported_once,
        "defined_nowhere",
        _in("__init__.py", '__all__ = ["Outbox"]\nX = 1'),
        ("__init__.py:1",),
    ),
    Case(
        exported_once,
        "second_definition",
        {
            **_in("__init__.py", 'from faultproof.patterns.outbox import Outbox\n__all__ = ["Outbox"]'),
            **_in("patterns/outbox/__init__.py", "from .publish import Outbox\n__all__ = ['Outbox']"),
            **_in("patterns/outbox/publish.py", "class Outbox: ..."),
            **_in("shop/models.py", "# a model\nclass Outbox: ..."),
        },
        ("shop/models.py:2",),
    ),
    Case(
        exported_once,
        "second_way_in",
        {
            **_in("__init__.py", 'from faultproof.ports.database import Database\n__all__ = ["Database"]'),
            **_in("ports/__init__.py", 'from faultproof.ports.database import Database\n__all__ = ["Database"]'),
            **_in("ports/database.py", "class Database: ..."),
        },
        ("ports/__init__.py:1",),
    ),
    Case(
        exported_once,
        "room_exports_its_own",
        {
            **_in(
                "__init__.py",
                'from faultproof.patterns.outbox import Outbox\n__all__ = ["Outbox", "V"]\nV = 1',
            ),
            **_in("patterns/outbox/__init__.py", "from .publish import Outbox\n__all__ = ['Outbox']"),
            **_in("patterns/outbox/publish.py", "class Outbox: ..."),
            **_in("shop/_models/__init__.py", "from faultproof import Outbox\n__all__ = ['Outbox']"),
        },
    ),
]

HYGIENE = [
    Case(modules_small_and_named, "too_long", _in("engines/big.py", "x = 1\n" * 401), ("engines/big.py:401",)),
    Case(modules_small_and_named, "drawer", _in("ports/utils.py", ""), ("ports/utils.py:1",)),
    Case(
        modules_small_and_named,
        "drawer_as_package",
        _in("ports/common/names.py", ""),
        ("ports/common/names.py:1",),
    ),
    Case(modules_small_and_named, "just_short_enough", _in("engines/big.py", "x = 1\n" * 400)),
    Case(modules_small_and_named, "uncommon_name", _in("ports/uncommon.py", "")),
    *_violations(
        nothing_unsafe,
        "shop/state.py",
        pickle="import pickle  # !",
        pickle_by_name="from pickle import loads  # !",
        evaluates="x = eval('1')  # !",
        executes="exec('x = 1')  # !",
        shell="""
            import subprocess
            subprocess.run("ls", shell=True)  # !
        """,
        system="""
            from os import system
            system("ls")  # !
        """,
    ),
    *_innocent(
        nothing_unsafe,
        "shop/state.py",
        look_alikes="""
            import subprocess
            subprocess.run(["ls"], shell=False)
            model.eval()
            redis.exec()
            pickle = "a cucumber"
        """,
    ),
    *_violations(
        sql_not_glued,
        "shop/orders.py",
        f_string="""
            async def f(tx, table):
                await tx.execute(f"DELETE FROM {table}")  # !
        """,
        percent="""
            def f(cursor, id):
                cursor.execute("SELECT * FROM t WHERE id = %s" % id)  # !
        """,
        plus="""
            def f(cursor, id):
                cursor.executemany("SELECT * FROM t WHERE id = " + id, [])  # !
        """,
        format="""
            def f(cursor, id):
                cursor.execute(query="SELECT {}".format(id))  # !
        """,
        by_way_of_a_name="""
            def f(cursor, id):
                statement = f"SELECT {id}"
                cursor.executescript(statement)  # !
        """,
    ),
    *_innocent(
        sql_not_glued,
        "shop/orders.py",
        parameters_and_literals="""
            async def f(tx, cursor, id, SQL):
                await tx.execute("SELECT * FROM t " + "WHERE id = ?", id)
                await tx.execute(f"SELECT 1")
                cursor.execute(SQL("SELECT {}").format(id))
                cursor.execute(statement)
                log(f"executed {id}")
            def g(statement=f"{1}"): ...
        """,
    ),
]

_TEST = "tests/shop/test_orders.py"
SLEEPS = [
    *_violations(
        tests_never_sleep,
        _TEST,
        sleep="""
            import time
            def test_order():
                time.sleep(0.01)  # !
        """,
        sleep_of_a_task="""
            import asyncio as aio
            async def test_order():
                await aio.sleep(delay=0.5)  # !
        """,
        sleep_by_name="""
            from time import sleep as rest
            def test_order(seconds):
                rest(seconds)  # !
        """,
        sleep_handed_on="""
            import asyncio, time
            async def test_order():
                await asyncio.to_thread(time.sleep, 1)  # !
        """,
        reason_without_words="""
            import time
            def test_order():
                time.sleep(1)  # sleeps:  # !
        """,
    ),
    *_innocent(
        tests_never_sleep,
        _TEST,
        other_tasks_turn="""
            import asyncio
            async def test_order():
                await asyncio.sleep(0)
                await asyncio.sleep(0, 7)
                call(asyncio.sleep, 0)
        """,
        clock_of_its_own="""
            import time
            async def test_order(clock):
                await clock.sleep(10)
                assert time.monotonic() > 0
        """,
        reason="""
            import time
            def test_order():
                time.sleep(1)  # sleeps: what is measured is rest
        """,
    ),
    *_innocent(tests_never_sleep, "engines/sqlite/lane.py", code_that_is_no_test="import time\ntime.sleep(1)"),
]

CASES = SLEEPS + LAYERS + AMBIENT + WAITS + OUTCOMES + CAPABILITIES + DIALECT + EXPORTS + HYGIENE
