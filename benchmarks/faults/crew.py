"""The processes of a trial: forked, so that a start costs milliseconds, and started again whenever they end.

A supervisor of two dozen lines: it does what systemd or Kubernetes would do for a service, and nothing of what the
contenders promise.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from benchmarks.faults.handler import Handler
from benchmarks.faults.model import PRODUCER, Contender
from faultproof.prove.harness import HarnessError

RESTART_S = 0.05
"""From a death to the next life; it doubles each time a process ends by itself, up to …"""
RESTART_S_MAX = 2.0
CRASHES_MAX = 50
"""Of processes that end by themselves: then the harness is wrong, or the contender cannot run."""
LAST_WORDS = 1_500
_FILES_MAX = 1_024
_PR_SET_PDEATHSIG = 1
_STARTED, _DIED = 0, 1


class Crew:
    """Used in one thread, in a process that has no other."""

    def __init__(self, contender: Contender, url: str, workers: Sequence[str], directory: Path) -> None:
        """Files with what the processes print go into the directory."""
        self.killed = self.crashed = 0
        self.last_words = ""
        """Of the last process that ended by itself."""
        self._contender = contender
        self._url = url
        self._directory = directory
        self._pid = os.getpid()
        self._libc = ctypes.CDLL(None)
        self._lives: Counter[str] = Counter()
        self._crashes: Counter[str] = Counter()
        self._alive: dict[int, str] = {}
        self._due = dict.fromkeys((PRODUCER, *workers), 0.0)
        for module in contender.modules:
            import_module(module)
        gc.freeze()  # pages that no collection touches stay shared

    def look(self) -> None:
        """Note who has ended, and start whose time has come. Raises `HarnessError` when they keep ending by themselves."""
        now = time.monotonic()
        for pid, name in list(self._alive.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._alive[pid]
                self._ended(name, os.waitstatus_to_exitcode(status), now)
        if self.crashed > CRASHES_MAX:
            raise HarnessError(f"processes of {self._contender.name} keep ending by themselves:\n{self.last_words}")
        for name in [name for name, at in self._due.items() if at <= now]:
            del self._due[name]
            self._start(name)

    def close(self) -> None:
        """Kill all that are left, also those that are stopped."""
        for pid in self._alive:
            os.kill(pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
        for pid in self._alive:
            os.waitpid(pid, 0)  # unbounded: nothing outlives SIGKILL for long
        self._alive.clear()

    def _ended(self, name: str, status: int, now: float) -> None:
        if status == 0 and name == PRODUCER:
            return
        if status == -signal.SIGKILL:
            self.killed += 1
        else:
            self.crashed += 1
            self._crashes[name] += 1
            self.last_words = self._log(name).read_bytes()[-LAST_WORDS:].decode(errors="replace")
        self._due[name] = now + min(RESTART_S_MAX, RESTART_S * 2 ** self._crashes[name])

    def _start(self, name: str) -> None:
        life = self._lives[name]
        self._lives[name] += 1
        pid = os.fork()
        if pid:
            self._alive[pid] = name
            return
        status = _DIED
        try:
            self._become(name)
            _live(self._contender, Handler(self._url, name, life), self._url)
            status = _STARTED
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(OSError, ValueError):
                sys.stderr.flush()
            os._exit(status)

    def _become(self, name: str) -> None:
        """In the child: die with the parent, and share nothing with it."""
        self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != self._pid:  # it died in between
            os._exit(_DIED)
        os.setsid()  # Ctrl-C is for the parent, which ends us
        log = os.open(self._log(name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, file in ((0, nothing), (1, log), (2, log)):
            os.dup2(file, target)
        os.closerange(3, _FILES_MAX)

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"


def _live(contender: Contender, handler: Handler, url: str) -> None:
    if handler.process == PRODUCER:
        asyncio.run(produce(contender, handler, url))
    else:
        handler.wait_for_all()
        asyncio.run(_work(contender, handler, url))


async def produce(contender: Contender, handler: Handler, url: str) -> None:
    """Install the library's tables and enqueue all jobs: once, however often the producer dies and is started again."""
    if handler.is_enqueued():
        return
    found = handler.count(contender.unfinished)
    if found is None:
        await contender.install(url)
    if not found:
        await contender.enqueue(url, range(1, handler.trial.jobs + 1))
    handler.enqueued()


async def _work(contender: Contender, handler: Handler, url: str) -> None:
    await contender.work(url, handler)
