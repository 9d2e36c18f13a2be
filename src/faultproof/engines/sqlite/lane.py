"""Where a connection's scripts run: a lane executes them one after the other."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, TypeAlias, TypeVar

from faultproof.engines.scopes import refuse_after_fork
from faultproof.engines.sqlite.connection import Connection
from faultproof.errors import Closed
from faultproof.ports.script import Script, Step, drive
from faultproof.ports.statement import Answer

T = TypeVar("T")


_Work: TypeAlias = tuple[Callable[[], Any], asyncio.Future[Any], Callable[[Any], None] | None]


class Lane(Protocol):
    """Runs scripts on one connection, in the order of the calls. In production a thread, in simulation a tape."""

    async def drive(self, script: Script[T], *, then: Callable[[T], None] | None = None) -> T:
        """Run the whole script, and give its result or its error. `then` gets the result too, whoever was cancelled."""
        ...

    async def call(self, function: Callable[[Connection], T]) -> T:
        """Run a function with the connection."""
        ...

    def end(self, then: Callable[[], object] | None = None) -> None:
        """From now on accept nothing; run what was accepted, close the connection, and call `then`. From any thread; a
        second call changes nothing."""
        ...

    async def ended(self) -> None:
        """Wait until all of that is done."""
        ...


class ThreadLane:
    """A thread that owns a connection. A hop there and back costs about 70 µs, so a script is one hop, not one a step.

    A caller that is cancelled does not stop what the thread runs: the outcome is then unknown to that caller, and the
    next script waits its turn all the same.
    """

    def __init__(self, connection: Connection, *, name: str) -> None:
        self._connection = connection
        self._jobs: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._closed = False
        self._then: Callable[[], object] | None = None
        self._ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._ended.set_running_or_notify_cancel()  # a caller of `close` that is cancelled cancels only its own waiting
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def drive(self, script: Script[T], *, then: Callable[[T], None] | None = None) -> T:
        execute: Callable[[Step], Answer] = self._connection.execute
        return await self._submit(lambda: drive(script, execute), then)

    async def call(self, function: Callable[[Connection], T]) -> T:
        return await self._submit(lambda: function(self._connection))

    def end(self, then: Callable[[], object] | None = None) -> None:
        refuse_after_fork(self._pid)
        if not self._closed:
            self._closed, self._then = True, then
            self._jobs.put(None)

    async def ended(self) -> None:
        await asyncio.wrap_future(self._ended)

    def _submit(self, job: Callable[[], T], then: Callable[[T], None] | None = None) -> asyncio.Future[T]:
        refuse_after_fork(self._pid)  # the thread has stayed in the parent: nobody would answer
        if self._closed:
            raise Closed(f"the database {self._connection.name} is closed: connect again")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((job, future, then))
        return future

    def _work(self) -> None:
        try:
            while (work := self._jobs.get()) is not None:
                self._answer(*work)
                del work  # or the thread would keep it alive until the next job
        finally:
            self._connection.close()
            if self._then is not None:
                self._then()
            self._ended.set_result(None)

    def _answer(self, job: Callable[[], Any], future: asyncio.Future[Any], then: Callable[[Any], None] | None) -> None:
        try:
            result, error = job(), None
        except BaseException as raised:  # handed to the caller, whatever it is; the thread lives on
            result, error = None, raised
        with suppress(RuntimeError):  # the caller's loop has been closed: nobody waits any more
            future.get_loop().call_soon_threadsafe(_settle, future, result, error, then)
        del error  # its traceback holds this frame, which would hold it


def _settle(
    future: asyncio.Future[Any], result: Any, error: BaseException | None, then: Callable[[Any], None] | None
) -> None:
    if error is None and then is not None:
        then(result)
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):  # a future refuses it
        future.set_exception(RuntimeError("a script raised StopIteration"))
    else:
        future.set_exception(error)
