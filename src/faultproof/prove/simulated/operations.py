"""What processes wait for: their inputs and outputs, of which the tape picks the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from faultproof.prove.simulated.process import Process
from faultproof.prove.simulated.tape import Tape


class Operation:
    """One input or output that waits for its turn."""

    __slots__ = ("action", "eligible", "future", "label", "lane", "process")

    def __init__(
        self,
        process: Process,
        lane: object,
        label: str,
        action: Callable[[], Any],
        future: asyncio.Future[Any] | None,
        eligible: Callable[[], bool] | None,
    ) -> None:
        self.process = process
        self.lane = lane
        self.label = label
        self.action = action
        self.future = future
        self.eligible = eligible

    def can_run(self) -> bool:
        """Whether its process is awake, and what it needs is free."""
        return not self.process.strand.frozen and (self.eligible is None or self.eligible())


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

    def pick(self) -> Operation | None:
        """The next to happen, taken out; None if none can."""
        if self._tape.is_dull():  # the oldest that can run; those before it in its lane could as well
            oldest = next((operation for operation in self._waiting if operation.can_run()), None)
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
            if operation.can_run():
                eligible.append(operation)
        if not eligible:
            return None
        chosen = eligible[self._tape.choose(len(eligible))]
        self._waiting.remove(chosen)
        return chosen
