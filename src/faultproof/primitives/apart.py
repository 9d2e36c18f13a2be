"""Code of others in a task of its own: a cancel that it brings on itself is told from one that is meant for its caller,
and what must not be cut short is not."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Escaped(Exception):
    """The code raised what is no `Exception`, or cancelled itself; `__cause__` is what it raised."""


async def apart(work: Coroutine[Any, Any, T], *, name: str | None = None) -> T:
    """Await `work`, which runs in a task of its own with a copy of this one's context.

    Promise: `asyncio.CancelledError` leaves here only when the caller has been cancelled, which cancels `work` too, and
    waits for its end. Whatever else `work` does with its task, the caller's is as it was. What it raises is raised here:
    an `Exception` as it is, SystemExit and KeyboardInterrupt as well, anything else as `Escaped`.
    """
    caller = asyncio.current_task()
    assert caller is not None  # a coroutine that is awaited in asyncio has one
    before = caller.cancelling()
    try:
        return await asyncio.create_task(work, name=name)
    except (Exception, SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and caller.cancelling() > before:
            raise
        raise Escaped(type(error).__name__) from error


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, which a cancel of the caller does not reach: it is waited for, however often the caller is cancelled,
    and the cancel is raised when it has ended, in place of what it returned or raised.

    Bounded by `work`, which has a timeout of its own. The end of the event loop cancels every task, this one too.
    """
    task = asyncio.create_task(work)
    cancel: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])  # unbounded: see above
        except asyncio.CancelledError as error:
            cancel = error
    if cancel is not None:
        if not task.cancelled():
            task.exception()  # looked at: nobody else will
        raise cancel
    return task.result()
