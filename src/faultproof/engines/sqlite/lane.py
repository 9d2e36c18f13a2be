"""Where a connection's scripts run: a lane executes them one after the other."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from faultproof.engines.scopes import refuse_after_fork
from faultproof.engines.sqlite.connection import Connection
from faultproof.errors import Closed
from faultproof.ports.script import Answer, Script, Step, drive

T = TypeVar("T")


class Lane(Protocol):
    """Runs scripts on one connection, in the order of the calls. In production a thread, in simulation a tape."""

    async def drive(self, script: Script[T]) -> T:
        """Run the whole script, and give its result or its error."""
        ...

    async def call(self, function: Callable[[Connection], T]) -> T:
        """Run a function with the connection."""
        ...

    async def close(self) -> None:
        """Run what was accepted, then close the connection."""
        ...


class ThreadLane:
    """A thread that owns a connection. A hop there and back costs about 70 µs, so a script is one hop, not one a step.

    A caller that is cancelled does not stop what the thread runs: the outcome is then unknown to that caller, and the
    next script waits its turn all the same.
    """

    def __init__(self, connection: Connection, *, name: str) -> None:
        self._connection = connection
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()
        self._closed = False
        self._pid = os.getpid()

    async def drive(self, script: Script[T]) -> T:
        execute: Callable[[Step], Answer] = self._connection.execute
        return await self._submit(lambda: drive(script, execute))

    async def call(self, function: Callable[[Connection], T]) -> T:
        return await self._submit(lambda: function(self._connection))

    async def close(self) -> None:
        if not self._closed:
            closing = self._submit(self._connection.close)
            self._closed = True
            try:
                await closing
            finally:
                self._jobs.put(None)

    def _submit(self, job: Callable[[], T]) -> asyncio.Future[T]:
        refuse_after_fork(self._pid)  # the thread has stayed in the parent: nobody would answer
        if self._closed:
            raise Closed(f"the database {self._connection.name} is closed: connect again")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((job, future))
        return future

    def _work(self) -> None:
        while (work := self._jobs.get()) is not None:
            job, future = work
            try:
                result, error = job(), None
            except BaseException as raised:  # handed to the caller, whatever it is; the thread lives on
                result, error = None, raised
            try:
                future.get_loop().call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:  # the caller's loop has been closed: nobody waits any more
                continue
            finally:
                del job, future, work, result, error  # or the thread would keep them alive until the next job


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration):  # a future refuses it
        future.set_exception(RuntimeError("a script raised StopIteration"))
    else:
        future.set_exception(error)
