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
from typing import ParamSpec, Self, TypeVar

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
        self._lock = threading.Lock()  # what is handed to the loop, against its end
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="faultproof-blocking", daemon=True)
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

        Raises `OutcomeUnknown` after the timeout and where `close` cut the call off, `Closed` once `close` was called,
        `UsedAfterFork` in a forked child, and `Misuse` on the loop's own thread, where the call would wait for itself.
        """
        self._check()

        async def awaited() -> T:
            return await function(*args, **kwargs)

        with self._lock:
            if self._closing:
                raise Closed("this background loop has been closed: make a new one")
            future = asyncio.run_coroutine_threadsafe(awaited(), self._loop)
        try:
            return future.result(self._timeout)
        except concurrent.futures.CancelledError as error:
            if not self._closing:  # it was the call's own
                raise
            raise OutcomeUnknown("the background loop was closed while the call ran, and cancelled it") from error
        except concurrent.futures.TimeoutError as error:
            if future.done():  # it was the call's own
                raise
            self._cancel(future)
            raise OutcomeUnknown(f"the call did not end within {self._timeout} s and was cancelled") from error
        except BaseException:
            self._cancel(future)  # an interrupt of the waiting thread; a finished call is not affected
            raise

    def close(self) -> None:
        """Cancel what is still running, and end the thread. Close databases before, so that they finish in order.

        Of several calls at once each returns when the thread has ended. Raises `OutcomeUnknown` if it has not after the
        timeout, because something in it blocks or goes on although cancelled; calling again waits again. Raises
        `Misuse` on the loop's own thread.
        """
        if os.getpid() != self._pid:
            return
        self._check()
        with self._lock:
            if not self._closing:
                self._closing = True
                # After every call that was accepted: each has begun by then, and is cancelled like any other task.
                asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        self._thread.join(self._timeout)
        if self._thread.is_alive():
            raise OutcomeUnknown(f"what was cancelled in the background loop did not end within {self._timeout} s")

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise UsedAfterFork("this background loop was started before a fork: make one in the child process instead")
        if threading.current_thread() is self._thread:
            raise Misuse("this is the background loop's own thread: await the call instead")

    def _cancel(self, future: concurrent.futures.Future[T]) -> None:
        with self._lock:
            future.cancel()  # does nothing to one that is done, as all are before the loop is closed

    def _run(self) -> None:
        self._loop.run_forever()
        with self._lock:
            self._loop.close()

    async def _end(self) -> None:
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
        await asyncio.sleep(0)  # a call that ended in this round hands its result over in the next
        self._loop.stop()
