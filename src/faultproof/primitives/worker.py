"""Workers: supervised loops in one process. The user's own supervisor (systemd, Kubernetes) owns the processes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from faultproof import bounds
from faultproof.clock import Env
from faultproof.errors import InvalidInput
from faultproof.ports.database import News
from faultproof.primitives.apart import Escaped, apart
from faultproof.primitives.retry import full_jitter
from faultproof.signals import LOOP_RESTART, STEP

RESTART_BASE_S = 0.1
RESTART_CAP_S = 30.0


class Loop(Protocol):
    """Work that goes on as long as its process: a sequencer, a consumer, retention."""

    @property
    def name(self) -> str:
        """For logs and health."""
        ...

    async def open(self) -> News:
        """Begin (again, after a step has failed); news that end a rest early."""
        ...

    async def step(self) -> float:
        """Do one bounded piece of work; how many seconds to rest (0: there is more)."""
        ...

    async def close(self) -> None:
        """Give back what is held, so that others can go on at once."""
        ...


class LoopHealth(NamedTuple):
    """How one loop is doing."""

    name: str
    running: bool
    restarts: int
    """Since the process began."""
    error: str | None
    """The last one, if it ever failed."""
    last_step_s: float
    """Seconds since a step last ended well."""


@dataclass
class _State:
    loop: Loop
    running: bool = False
    resting: bool = False
    restarts: int = 0
    error: str | None = None
    stepped: float = 0.0


class Worker:
    """Runs loops until it is told to stop.

    Promise: a loop whose step raises, or cancels itself, is started again after a pause (full jitter, up to 30 s),
    without harm to the others, and shows in `health()`; `stop()`, SIGTERM or SIGINT let each running step end, then give
    every lease back. A process that is killed instead loses nothing: its leases expire, and any peer goes on.

    `drain_timeout`: seconds that a running step has to end after `stop()`, and then as long again to give leases back.
    """

    def __init__(self, env: Env, *loops: Loop, drain_timeout: float = 10.0) -> None:
        if not loops:
            raise InvalidInput("a worker needs at least one loop to run")
        bounds.seconds("drain_timeout", drain_timeout, least=0)
        self._env = env
        self._states = [_State(loop) for loop in loops]
        self._drain_timeout = drain_timeout
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._drain: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Run until `stop()`. Does not touch signal handlers; see `run_until_signal`."""
        start = self._env.clock.monotonic()
        for state in self._states:
            state.stepped = start
        self._tasks = [asyncio.create_task(self._supervise(state), name=state.loop.name) for state in self._states]
        try:
            await asyncio.gather(*self._tasks)
            # All steps have ended: none holds up the transactions in which leases are given back.
            self._tasks.clear()
            await asyncio.gather(*(self._close(state) for state in self._states))
        finally:
            self._stopping = True
            for task in (*self._tasks, *self._drain):  # those left after an error or a cancel, and the one that drains
                task.cancel()

    async def run_until_signal(self) -> None:
        """Run until SIGTERM, SIGINT or `stop()`. In the main thread of a process only."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            await self.run()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Let running steps end, then come back from `run`. A step still running after `drain_timeout` is cancelled."""
        if self._stopping:
            return
        self._stopping = True
        for task, state in zip(self._tasks, self._states, strict=False):
            if state.resting:
                task.cancel()
        if self._tasks:  # or it has not begun to run, and will not
            self._drain.append(asyncio.create_task(self._cut_short(), name="faultproof-drain"))

    def health(self) -> list[LoopHealth]:
        """How each loop is doing."""
        now = self._env.clock.monotonic()
        return [
            LoopHealth(state.loop.name, state.running, state.restarts, state.error, now - state.stepped)
            for state in self._states
        ]

    async def _cut_short(self) -> None:
        await self._env.clock.sleep(self._drain_timeout)
        for task in self._tasks:
            task.cancel()

    async def _supervise(self, state: _State) -> None:
        failures = 0

        def healthy() -> None:
            nonlocal failures
            failures = 0

        while not self._stopping:
            try:
                await apart(self._serve(state, healthy), name=state.loop.name)
            except asyncio.CancelledError:  # of this task: nothing that a step does to its own comes here
                if not self._being_stopped():
                    raise
                break
            except Exception as raised:
                error = _meant(raised)
                state.error = _words(error)
                state.restarts += 1
                self._env.signals.emit(LOOP_RESTART, 1, loop=state.loop.name, error=type(error).__name__)
                await self._rest(
                    state,
                    lambda tries=failures: self._env.clock.sleep(  # type: ignore[misc]
                        full_jitter(tries, base=RESTART_BASE_S, cap=RESTART_CAP_S, rng=self._env.rng)
                    ),
                )
                failures += 1

    async def _serve(self, state: _State, healthy: Callable[[], None]) -> None:
        clock = self._env.clock
        news = await state.loop.open()
        state.running = True
        try:
            while not self._stopping:
                began = clock.monotonic()
                seconds = await state.loop.step()
                state.stepped = clock.monotonic()
                self._env.signals.emit(STEP, state.stepped - began, loop=state.loop.name)
                healthy()
                if seconds > 0:
                    await self._rest(state, lambda: news.wait(seconds))  # noqa: B023  # awaited at once
                else:
                    await clock.sleep(0)  # a loop with endless work must not starve the others
        finally:
            state.running = False
            news.close()

    async def _rest(self, state: _State, wait: Callable[[], Awaitable[object]]) -> None:
        if self._stopping:
            return
        state.resting = True
        try:
            await wait()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not self._being_stopped():
                raise
            task.uncancel()  # `stop` woke us up; there is a lease to give back yet
        finally:
            state.resting = False

    def _being_stopped(self) -> bool:
        return self._stopping

    async def _close(self, state: _State) -> None:
        try:
            async with asyncio.timeout(self._drain_timeout):
                await apart(state.loop.close(), name=state.loop.name)
        except Exception as raised:  # its leases will expire instead
            error = _meant(raised)
            state.error = _words(error)


def _meant(error: Exception) -> BaseException:
    """What a loop has raised."""
    return error.__cause__ or error if isinstance(error, Escaped) else error


def _words(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # whatever its class does there, it harms no other loop
        return f"{type(error).__name__}: (an error that cannot be put into words)"
