"""The database port on SQLite: one writer lane, one reader lane, and our own waiting for locks."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Any, TypeVar

from faultproof import bounds
from faultproof.clock import Env
from faultproof.engines.scopes import Home, Scope, is_inside, refuse_inside
from faultproof.engines.sqlite.checkpoint import Checkpointer
from faultproof.engines.sqlite.claims import SqliteClaims
from faultproof.engines.sqlite.faults import NotBegun
from faultproof.engines.sqlite.lane import Lane
from faultproof.engines.sqlite.log import SqliteLog
from faultproof.engines.sqlite.telling import Telling
from faultproof.engines.sqlite.wake import Wakeups
from faultproof.errors import Busy, Closed, DeadlineExceeded
from faultproof.ports.claims import ClaimTable
from faultproof.ports.database import Health, News
from faultproof.ports.log import LogTable
from faultproof.ports.schema import Schema
from faultproof.ports.script import Begin, Commit, Rollback, Runnable, Script, atomic, begun, on_snapshot, transaction
from faultproof.ports.statement import Answer
from faultproof.primitives.install import install
from faultproof.primitives.retry import full_jitter
from faultproof.primitives.shadowing import refuse_in_shadow
from faultproof.signals import LOCK_WAIT

T = TypeVar("T")

LOCK_TIMEOUT_S = 5.0
"""How long a transaction waits for its turn: behind others of this process, and for the write lock of other ones."""
LOCK_BASE_S = 0.0005
LOCK_CAP_S = 0.02


class SqliteTransaction:
    """A transaction that a user holds open; see `faultproof.ports.database.Transaction`."""

    def __init__(self, database: SqliteDatabase, lane: Lane, scope: Scope) -> None:
        self.database = database
        self._lane = lane
        self._scope = scope

    def run(self, script: Script[T], *, single: bool = False) -> Coroutine[Any, Any, T]:
        return self._scope.call(lambda: self._lane.drive(script if single else atomic(script)))

    def execute(self, sql: str, *parameters: Any) -> Coroutine[Any, Any, int]:
        return self._scope.call(lambda: self._lane.call(lambda raw: raw.execute_raw(sql, parameters).changed))

    def fetch(self, sql: str, *parameters: Any) -> Coroutine[Any, Any, list[tuple[Any, ...]]]:
        return self._scope.call(lambda: self._lane.call(lambda raw: list(raw.execute_raw(sql, parameters).rows)))


class SqliteDatabase:
    """One SQLite file, used from one event loop; other processes and connections may use it at the same time."""

    def __init__(
        self,
        *,
        env: Env,
        writer: Lane,
        reader: Lane,
        wakeups: Wakeups,
        checkpointer: Checkpointer | None,
        durability: str,
    ) -> None:
        self.env = env
        self.durability = durability
        self.writers = 1
        self.claims: ClaimTable = SqliteClaims()
        self.logs: LogTable = SqliteLog()
        self._writer = writer
        self._reader = reader
        self._wakeups = wakeups
        self._checkpointer = checkpointer
        self._telling = Telling(self._send)
        self._gate = asyncio.BoundedSemaphore(1)  # first come, first served among this process's transactions
        self._home = Home()
        self._closed = False

    async def transact(self, work: Runnable[T]) -> T:
        self._check()
        refuse_in_shadow()
        script = begun(work)
        asked = self.env.clock.monotonic()
        await self._turn(LOCK_TIMEOUT_S)
        try:
            committed = await self._locked(
                asked,
                LOCK_TIMEOUT_S,
                lambda: self._writer.drive(transaction(script), then=lambda made: self._after_commit(made.topics)),
            )
        finally:
            self._gate.release()
        return committed.result

    async def read(self, script: Script[T], *, snapshot: bool = True) -> T:
        self._check()
        return await self._reader.drive(on_snapshot(script))

    def transaction(self, *, timeout: float = 30.0) -> AbstractAsyncContextManager[SqliteTransaction]:
        self._check()
        refuse_in_shadow()
        bounds.seconds("timeout", timeout)
        return _Opened(self, timeout)

    async def install(self, *schemas: Schema) -> None:
        for schema in schemas:
            await self.transact(install(schema))

    def in_transaction(self) -> bool:
        self._home.check()
        return is_inside(self)

    def changed(self, topic: str) -> News:
        self._check()
        return self._wakeups.listen(topic)

    def wake(self, topics: Iterable[str], *, after: Callable[[], bool] | None = None) -> None:
        self._telling(topics, after)

    async def health(self) -> Health:
        self._check()
        warnings = [] if self._checkpointer is None else await self._checkpointer.warnings(self._reader)
        return Health(f"SQLite {sqlite3.sqlite_version}", self.durability, tuple(warnings))

    async def close(self) -> None:
        """Every step can be taken twice, so that a call that was cancelled is finished by calling again."""
        self._home.check_closing()
        self._closed = True
        self._wakeups.close()
        # All are told before anything is awaited: a cancel leaves nothing that goes on. One after the other, because the
        # last connection takes the log with it, and of two that close at once none is the last.
        checkpoints = None if self._checkpointer is None else self._checkpointer.close
        self._reader.end(lambda: self._writer.end(checkpoints))
        await asyncio.gather(self._reader.ended(), self._writer.ended())

    async def _turn(self, patience: float) -> None:
        """Acquire the gate: wait, for a while, until the transactions of this process that came before are over."""
        if not self._gate.locked():  # nobody is before, and this does not wait
            await self._gate.acquire()
            return
        try:
            async with asyncio.timeout(patience):
                await self._gate.acquire()
        except TimeoutError as late:
            raise Busy(
                f"other transactions of this process were open for {patience} s: try again, or keep them shorter",
                retry_after=patience,
            ) from late

    async def _locked(self, asked: float, patience: float, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Repeat `begin` while another connection holds the write lock: SQLite's own waiting is neither fair nor ours.

        Only a BEGIN that was refused is repeated; nothing has happened by then, and the script has not started.
        """
        clock, tries = self.env.clock, 0
        while True:
            try:
                result = await begin()
            except NotBegun as busy:
                waited = clock.monotonic() - asked
                if waited >= patience:
                    raise Busy(f"{busy} (waited {waited:.1f} s)", retry_after=patience) from busy
                await clock.sleep(full_jitter(tries, base=LOCK_BASE_S, cap=LOCK_CAP_S, rng=self.env.rng))
                tries += 1
            else:
                self.env.signals.emit(LOCK_WAIT, clock.monotonic() - asked, engine="sqlite")
                return result

    def _after_commit(self, topics: tuple[str, ...]) -> None:
        if self._closed:  # meanwhile: nothing to wake with any more
            return
        self._send(topics)
        if self._checkpointer is not None:
            self._checkpointer.committed(self._writer, self._gate)

    def _send(self, topics: tuple[str, ...]) -> None:
        if topics and not self._closed:
            self._wakeups.send(topics)

    def _check(self) -> None:
        if self._closed:
            raise Closed("the database is closed: connect again")
        self._home.check()
        refuse_inside(self)


class _Opened:
    """A transaction while it is open. A class and not a generator: one that is abandoned must not run on."""

    def __init__(self, database: SqliteDatabase, timeout: float) -> None:
        self._database = database
        self._seconds = timeout
        self._scope = Scope(database, database._home.check)

    async def __aenter__(self) -> SqliteTransaction:
        database = self._database
        database._check()  # again: it may have been made somewhere else, or long ago
        asked, patience = database.env.clock.monotonic(), min(LOCK_TIMEOUT_S, self._seconds)
        await database._turn(patience)
        try:
            await database._locked(asked, patience, lambda: database._writer.drive(_one(Begin(writes=True))))
            self._limit = asyncio.timeout(self._seconds)  # from here on: waiting for its turn is not counted
            await self._limit.__aenter__()
        except BaseException:
            await self._roll_back()
            raise
        self._scope.begin()
        return SqliteTransaction(database, database._writer, self._scope)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        database = self._database
        self._scope.end()
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError as expired:
            await self._roll_back()
            raise DeadlineExceeded(
                f"the transaction was open for {self._seconds} s and has been rolled back"
            ) from expired
        if error is not None:
            await self._roll_back()
            return
        try:
            self._scope.refuse_unawaited()
            await database._writer.drive(_one(Commit()), then=self._committed)
        except BaseException:
            await self._roll_back()
            raise
        database._gate.release()

    def _committed(self, answer: Answer) -> None:
        self._database._after_commit(tuple(topic for (topic,) in answer.rows))

    async def _roll_back(self) -> None:
        """The lane runs it after whatever is still under way there, a BEGIN or COMMIT included; after a COMMIT it does
        nothing. It is in the lane before the await, so that no second cancel can leave the transaction open."""
        try:
            with suppress(Closed):  # with the connection the transaction has ended
                await self._database._writer.drive(_one(Rollback()))
        finally:
            self._database._gate.release()


def _one(step: Begin | Commit | Rollback) -> Script[Any]:
    return (yield step)
