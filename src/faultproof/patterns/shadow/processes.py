"""A candidate in processes of its own: it may compute, block, leak or crash there, and gets what others leave of the cores."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from contextvars import Context
from types import TracebackType
from typing import Any

import msgspec

from faultproof import bounds
from faultproof.clock import Env
from faultproof.errors import Closed, Failed, InvalidInput, Overloaded, PayloadTooLarge
from faultproof.patterns.shadow.child import HEADER_BYTES
from faultproof.primitives.retry import full_jitter
from faultproof.primitives.timeouts import Timeouts

PAUSE_CAP_S = 30.0
CLOSE_TIMEOUT_S = 10.0
SIZE_MAX = 16_777_216


class CandidateFailed(Failed):
    """What the candidate raised in its process, or how that ended; `kind` is the class of the error there."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class ShadowProcesses:
    """The candidate `module:function` in processes of its own, to be called like a candidate here.

    ::

        async with fp.ShadowProcesses("shop.pricing_v2:price", processes=1) as candidate:
            shadow = fp.Shadow(candidate, policy=fp.ShadowPolicy(concurrency=1))

    The function, plain or async, is called with the request as msgspec writes it: dicts, lists, numbers, texts. One request at
    a time in each process. A process whose request is cancelled, or takes `timeout` seconds, is killed with whatever it has
    started; the next is started when `pause` has passed, longer each time it fails at once. While none is free a call raises
    `Overloaded`, and the shadow counts it.

    `nice`: how far it stands back when all cores are busy, 19 the most. `memory`: bytes of data that one may have; and where
    the machine as a whole has too little, Linux ends these first. `size`: bytes of a request and of an answer, as they travel.
    `environ`: their environment, this one's unless given: leave out what a candidate should not have. What they print is not
    kept. They end with this process, at the latest when their request has taken its time. Not on Windows.
    """

    def __init__(
        self,
        target: str | Callable[..., Any],
        *,
        processes: int = 1,
        timeout: float = 10.0,
        nice: int = 19,
        memory: int = 1_073_741_824,
        size: int = 262_144,
        start: float = 30.0,
        pause: float = 1.0,
        environ: Mapping[str, str] | None = None,
        env: Env | None = None,
    ) -> None:
        bounds.count("processes", processes, most=64)
        bounds.seconds("timeout", timeout)
        bounds.count("nice", nice, least=0, most=19)
        bounds.count("memory", memory, least=67_108_864, most=1 << 50)
        bounds.count("size", size, most=SIZE_MAX)
        bounds.seconds("start", start)
        bounds.seconds("pause", pause)
        self._target = named(target)
        self._processes = processes
        self._size = size
        self._arguments = [self._target, str(nice), str(memory), str(size), str(timeout + 1)]
        self._pause = pause
        self._environ = dict(os.environ if environ is None else environ)
        self._env = env or Env()
        self._call_timeouts = Timeouts(self._env.clock, timeout)
        self._start_timeouts = Timeouts(self._env.clock, start)
        self._idle: list[Process] = []
        self._alive: set[Process] = set()
        self._failures = 0
        self._not_before = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starters: set[asyncio.Task[Any]] = set()
        self._ready = asyncio.Event()
        self._is_closed = False
        self.error: str | None = None
        """Why the last process that was to be started did not begin to serve."""

    async def __aenter__(self) -> ShadowProcesses:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def pids(self) -> list[int]:
        """Of the processes that serve."""
        return [process.pid for process in self._alive]

    async def __call__(self, request: Any) -> Any:
        """What the function gives there. Raises `CandidateFailed` for what it raises, `Overloaded` when no process is free."""
        if self._is_closed:
            raise Closed("these processes have been ended")
        self._replenish()
        if not self._idle:
            raise Overloaded("no process of the candidate is free")
        message = msgspec.msgpack.encode(request)
        if len(message) > self._size:
            raise PayloadTooLarge(
                "the request is too large for the candidate's process",
                size_bytes=len(message),
                limit_bytes=self._size,
            )
        process = self._idle.pop()
        try:
            with self._call_timeouts.cut(self._env.clock.monotonic()) as cut:
                answer = await self._exchange(process, message)
            if cut.is_due:
                raise CandidateFailed("the candidate took too long, and its process was killed", kind="timeout")
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            self._end(process)
            raise CandidateFailed("the candidate's process died", kind="process died") from error
        except BaseException:  # cancelled, above all: what runs there stops no other way
            self._end(process)
            raise
        self._failures = 0
        self._idle.append(process)
        if answer[0] == "answer":
            return answer[1]
        raise CandidateFailed(f"the candidate failed with {answer[1]}", kind=str(answer[1]))

    async def start(self) -> bool:
        """Start them now, and wait until one is ready; whether that was so within 30 s, or what `start` says."""
        with self._start_timeouts.cut(self._env.clock.monotonic()):
            while not self._alive and not self._is_closed:
                self._ready.clear()
                self._replenish()
                if not self._starters:
                    await self._env.clock.sleep(max(0.001, self._not_before - self._env.clock.monotonic()))
                    continue
                await self._ready.wait()
        return bool(self._alive)

    async def close(self) -> None:
        """Kill them all, and wait for their end."""
        timeout = CLOSE_TIMEOUT_S
        self._is_closed = True
        for task in self._starters:
            task.cancel()
        for process in list(self._alive):
            self._end(process)
        with Timeouts(self._env.clock, timeout).cut(self._env.clock.monotonic()):
            while pending := self._tasks | self._starters:
                await asyncio.wait(pending)

    async def _exchange(self, process: Process, message: bytes) -> tuple[str, Any]:
        assert process.stdin is not None
        process.stdin.write(len(message).to_bytes(HEADER_BYTES) + message)
        await process.stdin.drain()
        return await self._message(process)

    async def _message(self, process: Process) -> tuple[str, Any]:
        """The next one: what it is, and what is in it. Raises `ValueError` for what is none."""
        assert process.stdout is not None
        size = int.from_bytes(await process.stdout.readexactly(HEADER_BYTES))
        if size > self._size:
            raise ValueError("a message is too large")
        return msgspec.msgpack.decode(await process.stdout.readexactly(size), type=tuple[str, Any])

    def _replenish(self) -> None:
        while len(self._alive) + len(self._starters) < self._processes:
            if self._is_closed or self._env.clock.monotonic() < self._not_before:
                return
            self._spawn(self._started(), self._starters)

    async def _started(self) -> None:
        process: Process | None = None
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "faultproof.patterns.shadow.child", *self._arguments),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                env={**self._environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # to be killed with all that it starts
            )
            self._spawn(self._watched(process), self._tasks)
            with self._start_timeouts.cut(self._env.clock.monotonic()):
                first, words = await self._message(process)
                self.error = None if first == "ready" else str(words)
                if first == "ready" and not self._is_closed:
                    self._alive.add(process)
                    self._idle.append(process)
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self._ready.set()
            if process is None or process not in self._alive:
                self._wait_a_while()
                self._kill(process)

    def _end(self, process: Process) -> None:
        self._kill(process)
        self._forget(process)

    def _kill(self, process: Process | None) -> None:
        """With whatever it has started. Only while it has not been waited for: later its number may be another's."""
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _forget(self, process: Process) -> None:
        if process in self._alive:
            self._alive.discard(process)
            if process in self._idle:
                self._idle.remove(process)
            self._wait_a_while()

    async def _watched(self, process: Process) -> None:
        """Until its end, also where nobody has asked it anything."""
        await process.wait()  # unbounded: as long as it lives
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # what it has left behind, at once
        process._transport.close()  # type: ignore[attr-defined]  # or it is collected after the event loop, with a warning
        self._forget(process)

    def _wait_a_while(self) -> None:
        """Starting a process takes a moment of this one."""
        wait = full_jitter(self._failures, base=self._pause, cap=PAUSE_CAP_S, rng=self._env.rng)
        self._failures += 1
        self._not_before = self._env.clock.monotonic() + max(self._pause, wait)

    def _spawn(self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[Any]]) -> None:
        task = asyncio.get_running_loop().create_task(work, context=Context())
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def named(target: str | Callable[..., Any]) -> str:
    """`module:function`. Raises `InvalidInput` for what another process could not find by a name."""
    if not isinstance(target, str):
        module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", "<")
        if module in (None, "__main__") or "<" in name or "." in name:
            raise InvalidInput(
                f"another process cannot find {target!r}: put it into a module, at its top level, and say `module:function`"
            )
        return f"{module}:{name}"
    module, _, name = target.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
        raise InvalidInput(f"a candidate in another process is named module:function, got {bounds.short(target)}")
    return target
