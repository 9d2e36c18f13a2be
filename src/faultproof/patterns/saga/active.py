"""A saga that this process goes on with, and the attempts of its steps that are under way."""

from __future__ import annotations

import asyncio
from typing import Any

from faultproof.clock import Alarm
from faultproof.patterns.saga.journal import Write
from faultproof.patterns.saga.machine import Entry, Plan, Run, Work
from faultproof.ports.claims import Claim


class Attempt:
    """One call of an action or an undo, in a task of its own."""

    __slots__ = ("alarm", "began", "expired", "task", "timeout", "work")

    def __init__(self, work: Work, *, began: float, timeout: float) -> None:
        self.work = work
        self.began = began
        self.timeout = timeout
        self.expired = False
        self.task: asyncio.Task[Any]
        self.alarm: Alarm

    def expire(self) -> None:
        """Its time is over."""
        self.expired = True
        self.task.cancel()


class Active:
    """A saga in memory: where it stands in the journal, and what is under way. Changed only by its `Driver`."""

    __slots__ = (
        "attempts",
        "claim",
        "id",
        "in_transaction",
        "input",
        "is_busy",
        "is_over",
        "look",
        "look_us",
        "outcomes",
        "run",
        "seq",
        "until",
        "work",
    )

    def __init__(self, claim: Claim, input: Any, until: float) -> None:
        self.claim = claim
        self.id = claim.id
        self.input = input
        self.until = until
        """By the monotonic clock: when its lease ends."""
        self.run: Run
        self.seq = 0
        """Of the last entry that is written."""
        self.work: list[Work] = []
        """What is journaled as begun."""
        self.look_us: int | None = None
        """When time alone brings it on."""
        self.attempts: dict[Work, Attempt] = {}
        self.outcomes: dict[Work, Entry] = {}
        """Of attempts that have ended, to be journaled next."""
        self.is_busy = False
        """It is being written, or a local step has its transaction open: one after the other, or their numbers would clash."""
        self.in_transaction = False
        """A local step holds the claim's row locked: nobody can take it over, and to renew it would wait."""
        self.is_over = False
        """Nothing of it goes on here, whatever still comes back."""
        self.look: Alarm | None = None

    def __repr__(self) -> str:
        return f"<{self.id}: {self.run.phase}>"

    @property
    def is_under_way(self) -> bool:
        """Something has begun that ends by itself."""
        return self.is_busy or bool(self.attempts)

    @property
    def is_undoing(self) -> bool:
        """An undo is under way."""
        return any(work.undo for work in self.attempts)

    def accept(self, write: Write, plan: Plan) -> None:
        """What was written is so."""
        self.run, self.work, self.look_us = plan.run, plan.work, plan.look_us
        self.seq = write.seq + len(write.entries)

    def stop(self) -> None:
        """Nothing of it goes on here any more."""
        self.is_over = True
        if self.look is not None:
            self.look.cancel()
        for attempt in self.attempts.values():
            if not attempt.work.undo:  # what is being undone is not cut short
                attempt.task.cancel()
