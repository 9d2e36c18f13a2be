"""The nursery: a small process that starts the processes of all runs, signals them, and tells of their ends.

It imports the proof once and forks before anything is connected and without any event loop, so that a start costs
milliseconds. It is their parent, so a process id that it signals cannot have been given to somebody else. When the prover
is gone, its input ends, and it takes every process with it; when it is gone itself, the kernel kills them, also those that
are stopped (PR_SET_PDEATHSIG, which is Linux's).

    python -m faultproof.prove.live.nursery < a Hello and then Commands > Events
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from io import FileIO

import msgspec

from faultproof.prove.live import worker
from faultproof.prove.live.history import (
    HISTORY_NAME,
    INCARNATION_VARIABLE,
    PATH_VARIABLE,
    PROCESS_VARIABLE,
    URL_VARIABLE,
)
from faultproof.prove.live.protocol import Command, Ended, Event, Failed, Hello, Mutation, Ready, Signal, Start, Stopped
from faultproof.prove.proof import Main, Proof

_PR_SET_PDEATHSIG = 1
PROCESSES_MAX = 500


class Nursery:
    """Forks, signals and reaps."""

    def __init__(self, mains: Mapping[str, Main], mutation: Mutation | None, commands: FileIO) -> None:
        self._mains = mains
        self._mutation = mutation
        self._commands = commands
        self._pids: dict[int, int] = {}  # bounded: PROCESSES_MAX; number -> process id
        self._rest = b""
        self._pid = os.getpid()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._deaths, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a signal without a handler wakes nobody

    def run(self) -> None:
        """Until nobody is left to tell."""
        try:
            while True:
                ready, _, _ = select.select([self._commands.fileno(), self._deaths], [], [])
                if self._deaths in ready:
                    os.read(self._deaths, 4_096)
                    self._tell_of_changes()
                if self._commands.fileno() in ready and not self._obey():
                    return
        finally:
            for number in self._pids:
                self._signal(number, signal.SIGKILL)

    def _obey(self) -> bool:
        read = self._commands.read(1 << 20)
        if not read:
            return False
        *lines, self._rest = (self._rest + read).split(b"\n")
        for line in lines:
            command = msgspec.json.decode(line, type=Command)
            if isinstance(command, Signal):
                self._signal(command.id, command.signal)
            else:
                self._start(command)
        return True

    def _start(self, start: Start) -> None:
        if len(self._pids) >= PROCESSES_MAX:
            _tell(Ended(start.id, worker.DIED))
            return
        pid = os.fork()
        if pid == 0:
            status = worker.DIED
            try:
                self._live(start)
                if start.command is not None:
                    os.execvpe(start.command[0], start.command, os.environ | _variables(start))  # noqa: S606
                status = worker.run(start, self._mains[start.process], self._mutation)
            except BaseException:
                traceback.print_exc()
            finally:
                with suppress(OSError, ValueError):
                    sys.stderr.flush()
                os._exit(status)
        self._pids[start.id] = pid

    def _live(self, start: Start) -> None:
        """In the child: die with the nursery, and share nothing with it."""
        self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != self._pid:  # it died in between
            os._exit(worker.DIED)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        worker.become(start)

    def _signal(self, number: int, which: int) -> None:
        """The whole group, of which a service of the user's may have made more than one."""
        pid = self._pids.get(number)  # that of one that was reaped is not here any more
        if pid is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, which)
        with suppress(ProcessLookupError, PermissionError):  # it has no group of its own yet
            os.killpg(pid, which)

    def _tell_of_changes(self) -> None:
        for number, pid in list(self._pids.items()):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)  # what it has left behind; until it is reaped, the number is its own
                _, status = os.waitpid(pid, 0)
                del self._pids[number]
                _tell(Ended(number, os.waitstatus_to_exitcode(status)))
            elif _has_stopped(pid):
                _tell(Stopped(number))


def _has_stopped(pid: int) -> bool:
    """Since it was last asked. A zombie never has."""
    try:
        return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG) is not None
    except ChildProcessError:  # it has died since, and the dead are not asked for here: the next look finds it
        return False


def _variables(start: Start) -> dict[str, str]:
    """What a service of the user's is told."""
    return {
        URL_VARIABLE: start.url,
        PROCESS_VARIABLE: start.process,
        INCARNATION_VARIABLE: str(start.incarnation),
        PATH_VARIABLE: os.path.join(start.directory, HISTORY_NAME),
    }


def _tell(event: Event) -> None:
    os.write(1, msgspec.json.encode(event) + b"\n")  # shorter than a pipe takes at once


def _proof_called(name: str) -> Proof:
    module, _, attribute = name.partition(":")
    proof = getattr(import_module(module), attribute)
    if not isinstance(proof, Proof):
        raise TypeError(f"{name} is no Proof")
    return proof


def main() -> None:
    """Hear what is to be proved, import it, and begin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the prover ends us
    commands = FileIO(0)
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = commands.read(1)
        if not byte:
            return
        line += byte
    hello = msgspec.json.decode(bytes(line), type=Hello)
    sys.path[:] = hello.path
    try:
        mains = dict(_proof_called(hello.proof).processes(hello.plant))
    except BaseException:
        _tell(Failed(traceback.format_exc()[-20_000:]))
        return
    if hello.mutation is not None and hello.mutation.conditions:
        import_module("faultproof.prove.mutants.parsed")
    with suppress(ImportError):  # SQLite needs no driver
        import_module("faultproof.engines.postgres.opening")
    gc.collect()
    gc.freeze()  # pages that no collection touches stay shared
    _tell(Ready())
    Nursery(mains, hello.mutation, commands).run()


if __name__ == "__main__":
    main()
