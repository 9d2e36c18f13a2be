"""faultproof from synchronous code: one event loop on a thread of its own.

Inside a transaction of a synchronous driver nothing of this is needed: join it (`faultproof.join`), and durable calls
run on that connection directly. Everything else, connecting, installing, publishing on its own, workers, goes through
`Blocking.call`. There is no second set of classes for it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from faultproof import bounds
from faultproof.errors import Closed, Misuse, OutcomeUnknown, UsedAfterFork

P = ParamSpec("P")
T = TypeVar("T")


class Blocking:
    """A background event loop for synchronous callers, from any number of threads.

    ::

        with fp.Blocking() as blocking:
            db = blocking.call(fp.connect, "shop.db")
            outbox = fp.Outbox(db, events={"order-placed": dict})
            blocking.call(outbox.install)
            blocking.call(outbox.publish, {"total": 990}, key="o-1", type="order-placed")
            blocking.call(db.close)

    `timeout`: seconds that one call may take; then it is cancelled and its outcome is unknown. Everything made on this
    loop belongs to it: use it through the same object, and in this process only.
    """

    def __init__(self, *, timeout: float = 60.0) -> None:
        bounds.seconds("timeout", timeout)
        self._timeout = timeout
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faultproof-blocking", daemon=True)
        self._pid = os.getpid()
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `await function(*args, **kwargs)` gives or raises, awaited on the background loop.

        Raises `OutcomeUnknown` after the timeout, `Closed` after `close`, `UsedAfterFork` in a forked child, and
        `Misuse` on the loop's own thread, where the call would wait for itself.
        """
        self._check()

        async def awaited() -> T:
            return await function(*args, **kwargs)

        future = asyncio.run_coroutine_threadsafe(awaited(), self._loop)
        try:
            return future.result(self._timeout)
        except concurrent.futures.TimeoutError as error:
            if future.done():  # it was the call's own
                raise
            future.cancel()
            raise OutcomeUnknown(f"the call did not end within {self._timeout} s and was cancelled") from error
        except BaseException:
            future.cancel()  # an interrupt of the waiting thread; a finished call is not affected
            raise

    def close(self) -> None:
        """Cancel what is still running, and end the thread. Close databases before, so that they finish in order."""
        if self._loop.is_closed() or os.getpid() != self._pid:
            return
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result(self._timeout)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(self._timeout)
        self._loop.close()

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise UsedAfterFork("this background loop was started before a fork: make one in the child process instead")
        if self._loop.is_closed():
            raise Closed("this background loop has been closed: make a new one")
        if threading.current_thread() is self._thread:
            raise Misuse("this is the background loop's own thread: await the call instead")


async def _cancel_all() -> None:
    tasks: set[asyncio.Task[Any]] = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
