"""The keeper: a small process that forks the shop's processes, kills them while they are busy, and replaces them.

It imports what they need once and forks before anything is connected, so that a replacement costs milliseconds and not
the import of a web server. It is their parent: a process id it kills cannot have been given to somebody else. When the
command that started it is gone, its input ends and it takes every process with it; when it is gone itself, theirs does.

    python -m faultproof.shop.keeper < a Fleet and then Commands, one JSON line each > Messages
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO

import msgspec

from faultproof.shop import roles
from faultproof.shop.board import Board, State
from faultproof.shop.killing import Killer, Struck
from faultproof.shop.messages import Command, Died, Fleet, Killed, Message, Missed, Role, Started

_GRACE_S = 5.0
"""From SIGTERM to SIGKILL at the end of a run."""
_TICK_S = 0.2


@dataclass
class _Slot:
    role: Role
    listener: int
    """A descriptor; -1 for those that do not listen."""
    pid: int = 0


class Keeper:
    """Keeps one process in every slot."""

    def __init__(self, fleet: Fleet, commands: FileIO) -> None:
        self._fleet = fleet
        self._commands = commands
        self._slots = [
            *(_Slot("api", listener) for listener in fleet.listeners),
            *(_Slot("sequencer", -1) for _ in range(fleet.sequencers)),
            *(_Slot("consumer", -1) for _ in range(fleet.consumers)),
            *(_Slot("orchestrator", -1) for _ in range(fleet.orchestrators)),
        ]
        self._board = Board(len(self._slots))
        self._killer = Killer(self._board, seed=fleet.seed, every_s=fleet.kill_every, target=fleet.target)
        self._lifeline, self._hold = os.pipe()

    def run(self) -> None:
        """Until told to stop, or until nobody is left to tell."""
        for number in range(len(self._slots)):
            self._start(number)
        try:
            while self._obeyed(min(_TICK_S, self._killer.due_in_s())):
                self._report_the_dead()
                if self._killer.due_in_s() <= 0:
                    self._strike()
        finally:
            self._end_all()

    def _obeyed(self, wait_s: float) -> bool:
        """Wait for a command, no longer than this, and carry it out; False if it is to end."""
        ready, _, _ = select.select([self._commands], [], [], max(0.0, wait_s))
        if not ready:
            return True
        line = self._commands.readline()
        do = msgspec.json.decode(line, type=Command).do if line else "stop"  # no line: the command is gone
        self._killer.armed(do == "kill")
        return do != "stop"

    def _strike(self) -> None:
        pids = {number: slot.pid for number, slot in enumerate(self._slots) if slot.pid}
        struck = self._killer.strike({number: (self._slots[number].role, pid) for number, pid in pids.items()})
        for number, status in struck.ended.items():
            self._report_death(number, status)
        for miss in struck.missed:
            _say(Missed(miss))
        if struck.slot is not None:
            self._replace_killed(struck.slot, struck)

    def _replace_killed(self, number: int, struck: Struck) -> None:
        slot = self._slots[number]
        _say(Killed(slot.role, number, slot.pid, struck.state.name.lower(), busy=bool(struck.state)))
        self._start(number)

    def _report_the_dead(self) -> None:
        """Report those that ended by themselves, which none should; the command decides what that means."""
        for number, slot in enumerate(self._slots):
            if slot.pid and (status := _ended(slot.pid)) is not None:
                self._report_death(number, status)

    def _report_death(self, number: int, status: int) -> None:
        slot = self._slots[number]
        slot.pid = 0
        _say(Died(slot.role, number, status))

    def _start(self, number: int) -> None:
        slot = self._slots[number]
        flag = self._board.flag(number)
        flag.show(State.IDLE)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self._become(slot)
                status = roles.run(slot.role, self._fleet, flag, slot.listener, self._lifeline)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        slot.pid = pid
        _say(Started(slot.role, number, pid))

    def _become(self, slot: _Slot) -> None:
        """In the child: let go of what belongs to the keeper and to the other processes."""
        os.close(self._hold)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, self._commands.fileno())
        os.close(nothing)
        for listener in self._fleet.listeners:
            if listener != slot.listener:
                os.close(listener)

    def _end_all(self) -> None:
        for slot in self._slots:
            if slot.pid:
                os.kill(slot.pid, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S
        while any(slot.pid for slot in self._slots):
            for slot in self._slots:
                if slot.pid and time.monotonic() >= deadline:
                    os.kill(slot.pid, signal.SIGKILL)
                    os.waitpid(slot.pid, 0)
                    slot.pid = 0
                elif slot.pid and _ended(slot.pid) is not None:
                    slot.pid = 0
            time.sleep(0.005)


def _ended(pid: int) -> int | None:
    """The exit status of a child that has ended, None while it runs."""
    gone, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if gone else None


def _say(message: Message) -> None:
    # One write: processes of the shop report on the same pipe, and lines must not mix.
    os.write(sys.stdout.fileno(), msgspec.json.encode(message) + b"\n")


def main() -> None:
    """Read the fleet from the first line of the input, and keep it."""
    # Unbuffered: what is read ahead would be invisible to `select`.
    commands = FileIO(sys.stdin.fileno(), "rb", closefd=False)
    fleet = msgspec.json.decode(commands.readline(), type=Fleet)
    roles.warm(fleet.url)
    gc.collect()
    gc.freeze()  # what is shared with the forks stays shared
    with suppress(BrokenPipeError):  # the command is gone; its processes have been ended
        Keeper(fleet, commands).run()


if __name__ == "__main__":
    main()
