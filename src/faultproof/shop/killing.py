"""Whom to kill, and when: a seeded choice among the processes that are busy, checked while the victim stands still.

A look at a byte is old by the time a signal arrives. So the victim is stopped first (SIGSTOP), looked at again while it
cannot move, and only then killed; one that slipped out of the window is let go and the next chance is waited for.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Collection, Mapping
from typing import NamedTuple

from faultproof.shop.board import Board, State
from faultproof.shop.messages import ROLES, Role
from faultproof.shop.mistakes import DELAYED, Breakage

_PATIENCE_S = 0.5
"""How long one role is watched for a busy process before another role gets its turn …"""
_GLANCE_S = 0.05
"""… and one in which nobody was busy the last time: a role whose work is done must not keep the others alive."""
_LOOK_S = 0.00002

_BUSY = frozenset(State) - {State.IDLE}


class Window(NamedTuple):
    """Where a mistake shows: in which role, while its byte says what."""

    role: Role
    states: frozenset[State]


def window(mistake: Breakage) -> Window:
    """The window of a mistake that a kill brings to light; correct code passes through the same place and comes to no harm."""
    if mistake == "dual-write":
        return Window("api", frozenset({State.WROTE}))
    if mistake == "no-inbox":
        return Window("consumer", frozenset({State.APPLIED}))
    if mistake == "ack-early":
        return Window("consumer", frozenset({State.MOVED}))
    return Window("orchestrator", frozenset({State.CALLING}))


class Struck(NamedTuple):
    """What one attempt came to."""

    slot: int | None
    """Killed; None if nobody could be."""
    state: State
    """What its byte said after its death."""
    missed: list[Role]
    """Roles that were not busy as long as they were watched."""
    ended: dict[int, int]
    """Slot -> exit status of processes that were found to have ended by themselves. Their ids are free again."""


class Killer:
    """Kills one busy process every `every_s` seconds, the roles in turn; nobody where orders are held up instead."""

    def __init__(self, board: Board, *, seed: int, every_s: float, target: Breakage | None) -> None:
        self._board = board
        self._rng = random.Random(f"killer-{seed}")  # noqa: S311  # to be repeated, not to be secret
        self._every_s = 0.0 if target in DELAYED else every_s
        self._window = window(target) if target is not None and target not in DELAYED else None
        self._turns: list[Role] = []
        self._idle: set[Role] = set()
        """Roles that were missed when they were watched last."""
        self._next: float | None = None

    def armed(self, wanted: bool) -> None:
        """Begin, or cease."""
        self._next = time.monotonic() + self._every_s if wanted and self._every_s > 0 else None

    def due_in_s(self) -> float:
        """Seconds until the next kill."""
        return 3600.0 if self._next is None else self._next - time.monotonic()

    def strike(self, processes: Mapping[int, tuple[Role, int]]) -> Struck:
        """Kill one of `processes` (slot -> role and process id), children of this one, while it is busy."""
        assert self._next is not None
        self._next = max(self._next + self._every_s, time.monotonic())
        missed: list[Role] = []
        ended: dict[int, int] = {}
        for role in self._order():
            pids = {slot: pid for slot, (of, pid) in processes.items() if of == role}
            slot = self._hunt(pids, self._window.states if self._window else _BUSY, ended, self._patience_s(role))
            if slot is not None:
                self._idle.discard(role)
                if role in self._turns:
                    self._turns.remove(role)
                return Struck(slot, self._board.state(slot), missed, ended)
            self._idle.add(role)
            missed.append(role)
        return Struck(None, State.IDLE, missed, ended)

    def _order(self) -> list[Role]:
        """The roles that have not had their turn come first."""
        if self._window is not None:
            return [self._window.role]
        roles = self._rng.sample(ROLES, k=len(ROLES))
        if not self._turns:
            self._turns = list(roles)
        return [*self._turns, *(role for role in roles if role not in self._turns)]

    def _patience_s(self, role: Role) -> float:
        return _GLANCE_S if role in self._idle and self._window is None else _PATIENCE_S

    def _hunt(
        self, pids: dict[int, int], wanted: Collection[State], ended: dict[int, int], patience_s: float
    ) -> int | None:
        deadline = time.monotonic() + patience_s
        while pids and time.monotonic() < deadline:
            there = [slot for slot in pids if self._board.state(slot) in wanted]
            if there:
                slot = self._rng.choice(there)
                status = self._try(pids[slot], slot, wanted)
                if status == -signal.SIGKILL:
                    return slot
                if status is not None:
                    ended[slot] = status
                    del pids[slot]
            time.sleep(_LOOK_S)
        return None

    def _try(self, pid: int, slot: int, wanted: Collection[State]) -> int | None:
        """Stop it, and kill it if it stopped in the window. Its exit status; None if it lives on."""
        os.kill(pid, signal.SIGSTOP)
        _, status = os.waitpid(pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            if self._board.state(slot) not in wanted:
                os.kill(pid, signal.SIGCONT)
                return None
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)
