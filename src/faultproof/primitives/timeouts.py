"""Alarms that nearly never ring: one timer for however many calls wait for theirs.

A timer for each call costs more than everything else that a client does for it. Calls that all may take equally long end
in the order in which they began, so a timer for the oldest is enough; mostly it finds that this one is over, and is set
for the next. Only what is to ring before one that was set earlier has a timer of its own.
"""

from __future__ import annotations

import asyncio
from math import inf
from threading import get_ident
from types import TracebackType
from typing import Protocol

from faultproof import bounds
from faultproof.clock import Alarm, Clock
from faultproof.errors import Misuse

_NOT_THERE = object()


class Waiting(Protocol):
    """What has an alarm."""

    @property
    def at(self) -> float:
        """On the monotonic clock."""
        ...

    def ring(self) -> None:
        """It is time."""
        ...


class Alarms:
    """For waits most of which take about equally long, in one event loop at a time."""

    __slots__ = ("_apart", "_clock", "_is_set", "_latest", "_loop", "_thread", "_waiting")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[Waiting, object] = {}
        """Those that ring one after the other."""
        self._latest = -inf
        """When the last of them that was set rings: the timer does so by then."""
        self._apart: dict[Waiting, Alarm] = {}
        """Those that ring earlier than one that was set before them."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._is_set = False

    def set(self, waiting: Waiting, now: float) -> None:
        """`now` is `clock.monotonic()`, for which most callers have just asked.

        Raises `Misuse` while another event loop runs that has used these.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._move(loop)
        self.put(waiting, now)

    def running_task(self) -> asyncio.Task[object]:
        """The task that runs; raises `Misuse` as `set` does.

        Which loop runs is asked of asyncio once: up to Python 3.11 that asks the operating system for the process each time.
        In the same thread, a loop of which a task runs is the one that runs.
        """
        task = asyncio.current_task(self._loop) if get_ident() == self._thread else None
        if task is None:
            loop = asyncio.get_running_loop()
            if loop is not self._loop:
                self._move(loop)
            task = asyncio.current_task(loop)
            assert task is not None  # whatever is awaited in asyncio has one
        return task

    def put(self, waiting: Waiting, now: float) -> None:
        """`set`, behind `running_task`."""
        at = waiting.at
        if at < self._latest:
            self._apart[waiting] = self._clock.alarm(at - now, lambda: self._ring_apart(waiting))
            return
        self._latest = at
        self._waiting[waiting] = None
        if not self._is_set:
            self._start(at - now)

    def unset(self, waiting: Waiting) -> None:
        """It need not ring any more; it may have rung."""
        if self._waiting.pop(waiting, _NOT_THERE) is _NOT_THERE and waiting in self._apart:
            self._apart.pop(waiting).cancel()

    def _move(self, loop: asyncio.AbstractEventLoop) -> None:
        """The last one has ended, with whatever waited in it; its timer will never ring."""
        if self._loop is not None and self._loop.is_running():
            raise Misuse("this belongs to another event loop, which still runs: make one for each")
        self._loop, self._thread = loop, get_ident()
        self._is_set, self._latest = False, -inf
        self._waiting.clear()
        self._apart.clear()

    def _start(self, seconds: float) -> None:
        self._is_set = True
        self._clock.alarm(seconds, self._ring)

    def _ring_apart(self, waiting: Waiting) -> None:
        del self._apart[waiting]
        waiting.ring()

    def _ring(self) -> None:
        self._is_set = False
        now = self._clock.monotonic()
        for waiting in list(self._waiting):
            if waiting.at > now:
                if not self._is_set:  # what rang may have set one
                    self._start(waiting.at - now)
                return
            if self._waiting.pop(waiting, self) is None:
                waiting.ring()


class Cut:
    """One call's time: a context manager around what is awaited.

    What is awaited when the time runs out is cancelled, and the cancel ends here; `is_due` says behind the `with` that it
    was so. A cancel from outside goes on upwards.
    """

    __slots__ = ("_alarms", "_cancelling", "_task", "at", "is_due")

    def __init__(self, alarms: Alarms, at: float, now: float) -> None:
        self._alarms = alarms
        self._task = task = alarms.running_task()
        self._cancelling = task.cancelling()
        self.at = at
        self.is_due = False
        alarms.put(self, now)

    def ring(self) -> None:
        self.is_due = True
        self._task.cancel()

    def __enter__(self) -> Cut:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not self.is_due:
            self._alarms.unset(self)
            return False
        is_own = self._task.uncancel() <= self._cancelling
        return is_own and kind is not None and issubclass(kind, asyncio.CancelledError)


class Timeouts:
    """Cuts off what takes longer than `seconds`."""

    __slots__ = ("_alarms", "_seconds")

    def __init__(self, clock: Clock, seconds: float) -> None:
        bounds.seconds("seconds", seconds)
        self._alarms = Alarms(clock)
        self._seconds = seconds

    def cut(self, now: float, by: float = inf) -> Cut:
        """For what this task begins now; cut off at `by` where that is earlier."""
        at = now + self._seconds
        return Cut(self._alarms, at if at < by else by, now)
