"""An asyncio event loop on virtual time, shared by simulated processes.

Callbacks of one process run first in, first out, as asyncio promises. Processes share nothing but their inputs and
outputs, so the order in which two of them run plain Python cannot be observed, and is fixed; what can be observed, the
order in which inputs and outputs complete, is the world's choice (see `world`). Threads, sockets and signals raise.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any, NoReturn, cast


class Escape(BaseException):
    """Simulated code reached for the real world. A BaseException, so that no `except Exception` hides it."""


class Handle:
    """A callback that waits for its turn."""

    __slots__ = ("_args", "_callback", "_context", "cancelled_", "process", "when_")

    def __init__(
        self, process: Strand, callback: Callable[..., Any], args: tuple[Any, ...], context: Context, when: float
    ) -> None:
        self.process = process
        self._callback = callback
        self._args = args
        self._context = context
        self.cancelled_ = False
        self.when_ = when

    def cancel(self) -> None:
        self.cancelled_ = True

    def cancelled(self) -> bool:
        return self.cancelled_

    def when(self) -> float:
        return self.when_

    def run(self) -> None:
        if not self.cancelled_:
            self._context.run(self._callback, *self._args)


class Strand:
    """One simulated process as the loop sees it: its ready callbacks, and whether it may run."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready: deque[Handle] = deque()  # bounded: by the world's step limit
        self.tasks: list[asyncio.Task[Any]] = []
        """Kept alive to the end: a task of a dead process that is collected would run its `finally`."""
        self.dead = False
        self.frozen = False


STRAND: ContextVar[Strand] = ContextVar("faultproof_strand")


def _strand_of(context: Context) -> Strand:
    """Whose work runs in it. A context that was made empty is a part of the process that made it."""
    strand = context.get(STRAND)
    if strand is None:
        strand = STRAND.get()
        context.run(STRAND.set, strand)
    return strand


class SimLoop:
    """Just enough of an event loop for tasks, futures, timers and everything in asyncio made of them.

    Not an `AbstractEventLoop`: whatever is not here (threads, sockets, signals, subprocesses) is an escape.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.strands: list[Strand] = []
        self.timers: list[tuple[float, int, Handle]] = []
        self.failure: BaseException | None = None
        self._timer_count = 0
        self.steps = 0
        self.real = cast(asyncio.AbstractEventLoop, self)
        """Itself, as what asyncio takes it for."""

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        context = copy_context() if context is None else context  # as every event loop does
        strand = _strand_of(context)
        handle = Handle(strand, callback, args, context, self.now)
        strand.ready.append(handle)
        return handle

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        context = copy_context() if context is None else context
        strand = _strand_of(context)
        handle = Handle(strand, callback, args, context, when)
        self._timer_count += 1
        heapq.heappush(self.timers, (when, self._timer_count, handle))
        return handle

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self.real)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **_: Any
    ) -> asyncio.Task[Any]:
        strand = STRAND.get() if context is None else _strand_of(context)
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self.real, name=name or "simulated", context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # abandoned when its process dies
        strand.tasks.append(task)
        return task

    @contextmanager
    def running(self) -> Iterator[None]:
        """Be the running loop of this thread."""
        events._set_running_loop(self.real)
        try:
            yield
        finally:
            events._set_running_loop(None)

    def run_ready(self, steps_max: int) -> None:
        """Run the callbacks of every process until none is ready."""
        busy = True
        while busy:
            busy = False
            for strand in self.strands:
                if not strand.ready or strand.frozen:
                    continue
                busy = True
                ready = strand.ready
                while ready:
                    self.steps += 1
                    if self.steps > steps_max:
                        raise StepLimit(f"{steps_max} steps without an end; {strand.name} was running")
                    ready.popleft().run()
                    if self.failure is not None:
                        raise self.failure

    def advance(self) -> bool:
        """Go to the next timer of a living process, and make it ready; False if there is none."""
        while self.timers:
            when, _, handle = heapq.heappop(self.timers)
            if handle.cancelled_ or handle.process.dead:
                continue
            self.now = max(self.now, when)
            handle.process.ready.append(handle)
            return True
        return False

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Escape):
            self.failure = error

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def __getattr__(self, name: str) -> NoReturn:
        raise Escape(f"simulated code used the event loop's `{name}`, which reaches out of the simulation")


class StepLimit(Exception):
    """A simulated run did not come to an end."""
