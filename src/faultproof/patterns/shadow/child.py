"""A process that a candidate has for itself: requests come in by its standard input, answers go out by its standard output."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from faultproof.primitives.shadowing import detached

HEADER_BYTES = 4
"""Before each message: its length."""
NICE_MOST = 19


def main(target: str, nice: str, memory: str, size: str, limit: str) -> None:
    """Serve until nobody asks any more."""
    requests, answers = _pipes()
    try:
        _stand_back(int(nice), int(memory))
        function = _found(target)
    except BaseException as error:
        _send(answers, int(size), "failed", f"{type(error).__name__}: {error}"[:500])
        return
    _send(answers, int(size), "ready", None)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    while len(header := requests.read(HEADER_BYTES)) == HEADER_BYTES:
        message = requests.read(int.from_bytes(header))
        # Whoever hangs is ended by the kernel, also when nobody is there any more to kill it.
        signal.setitimer(signal.ITIMER_REAL, float(limit))
        try:
            kind, content = "answer", _call(loop, function, msgspec.msgpack.decode(message))
        except BaseException as error:
            kind, content = "error", type(error).__name__
        _send(answers, int(size), kind, content)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _pipes() -> tuple[BinaryIO, BinaryIO]:
    """Ours, and nowhere to read from and print to for everybody else."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return requests, answers


def _stand_back(nice: int, memory: int) -> None:
    import resource  # not on Windows

    os.nice(nice)
    if hasattr(os, "SCHED_IDLE"):
        # Of two tasks that differ in niceness alone, Linux may let the nice one go on for milliseconds although the other has
        # become ready; one that is to have what is idle is interrupted at once. And nobody's realtime is inherited.
        os.sched_setscheduler(0, os.SCHED_IDLE if nice == NICE_MOST else os.SCHED_OTHER, os.sched_param(0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # Linux's, where sessions share the cores before their processes do
        Path("/proc/self/autogroup").write_text(str(nice))
    with suppress(OSError):  # Linux's: who is ended first when there is no memory left
        Path("/proc/self/oom_score_adj").write_text("1000")


def _found(target: str) -> Callable[[Any], Any]:
    module, _, name = target.partition(":")
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{target} cannot be called")
    return found  # type: ignore[no-any-return]


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[Any], Any], request: Any) -> Any:
    answer = function(request)
    return loop.run_until_complete(_awaited(answer)) if inspect.isawaitable(answer) else answer


async def _awaited(answer: Any) -> Any:
    return await answer


def _send(answers: BinaryIO, most: int, kind: str, content: Any) -> None:
    try:
        message = msgspec.msgpack.encode((kind, content))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        message = msgspec.msgpack.encode(("error", type(error).__name__))
    if len(message) > most:
        message = msgspec.msgpack.encode(("error", "TooLarge"))
    answers.write(len(message).to_bytes(HEADER_BYTES) + message)
    answers.flush()


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        detached().run(main, *sys.argv[1:])
