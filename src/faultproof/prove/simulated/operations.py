"""What processes wait for: their inputs and outputs, of which the tape picks the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from faultproof.prove.simulated.faults import Fault
from faultproof.prove.simulated.process import Process
from faultproof.prove.simulated.tape import Tape


class Operation:
    """One input or output that waits for its turn."""

    __slots__ = ("action", "eligible", "future", "kinds", "label", "lane", "not_before", "process")

    def __init__(
        self,
        process: Process,
        lane: object,
        label: str,
        action: Callable[[], Any],
        future: asyncio.Future[Any] | None,
        eligible: Callable[[], bool] | None,
        kinds: tuple[Fault, ...] = (),
    ) -> None:
        self.process = process
        self.lane = lane
        self.label = label
        self.action = action
        self.future = future
        self.eligible = eligible
        self.kinds = kinds
        """The faults that may strike before it."""
        self.not_before = 0.0

    def can_run(self, now: float) -> bool:
        """Whether its process is awake and reaches others, and what it needs is free."""
        process = self.process
        if process.strand.frozen or self.not_before > now or process.cut_until > now:
            return False
        return self.eligible is None or self.eligible()


class Operations:
    """Those of all processes, oldest first. A lane keeps the order of its calls."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._waiting: list[Operation] = []

    def add(self, operation: Operation) -> None:
        """Behind all others."""
        self._waiting.append(operation)

    def put_back(self, operation: Operation) -> None:
        """Before all others: it was picked, and has not happened yet."""
        self._waiting.insert(0, operation)

    def drop(self, process: Process) -> None:
        """Those of a process that is gone."""
        self._waiting = [operation for operation in self._waiting if operation.process is not process]

    def clear(self) -> None:
        """The world is over."""
        self._waiting.clear()

    def pick(self, now: float) -> Operation | None:
        """The next to happen, taken out; None if none can."""
        if self._tape.is_dull():
            oldest = self._oldest(now)
            if oldest is not None:
                self._tape.position += 1
                self._waiting.remove(oldest)
            return oldest
        eligible: list[Operation] = []
        lanes: list[object] = []
        for operation in self._waiting:
            if operation.lane in lanes:
                continue  # a lane keeps the order of its calls
            lanes.append(operation.lane)
            if operation.can_run(now):
                eligible.append(operation)
        if not eligible:
            return None
        chosen = eligible[self._tape.pick([operation.process.strand.name for operation in eligible])]
        self._waiting.remove(chosen)
        return chosen

    def _oldest(self, now: float) -> Operation | None:
        slow: list[object] = []
        for operation in self._waiting:
            if operation.lane in slow:
                continue  # whatever else keeps an operation from running keeps those behind it in its lane as well
            if operation.can_run(now):
                return operation
            if operation.not_before > now:
                slow.append(operation.lane)
        return None
