"""One question to many shards, under way: who is asked, who has answered, and who is told to stop.

The promise that nobody is left out in silence is kept here: every shard is waiting, asked or settled, and what is not settled
when it is over is settled then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from typing import Any, Generic, NamedTuple, TypeVar

from faultproof.clock import Clock
from faultproof.patterns.scatter_gather.gathered import Answer, Missing, Outcome, Why
from faultproof.primitives.hedging import Hedging, Race
from faultproof.primitives.timeouts import Alarms

T = TypeVar("T")

Ask = Callable[[str, int], Coroutine[Any, Any, T]]
"""`ask(shard, n)` makes the n-th attempt at asking it."""


class Means(NamedTuple):
    """What all gatherings of one object share."""

    clock: Clock
    hedging: Callable[[str], Hedging]
    """Of a shard's calls."""
    whole: Alarms
    single: Alarms
    at_once: int


class Gathering(Generic[T]):
    """`at` the end of its time everybody is told to stop; `each`: seconds for one shard; `enough` answers are enough.

    `told` hears of every shard once.
    """

    __slots__ = (
        "_ask",
        "_asked",
        "_context",
        "_each",
        "_enough",
        "_left",
        "_means",
        "_told",
        "_waiting",
        "at",
        "is_over",
        "over",
    )

    def __init__(
        self,
        means: Means,
        ask: Ask[T],
        told: Callable[[str, Outcome[T]], object],
        *,
        at: float,
        each: float | None,
        enough: int,
    ) -> None:
        self._means = means
        self._ask = ask
        self._told = told
        self._each = each
        self._enough = enough
        self._left = 0
        self._waiting: deque[str] = deque()  # bounded: by the shards that there are
        self._asked: dict[str, _Asked[T]] = {}
        self._context = copy_context()  # alarms ring in whosever they were set in
        self.at = at
        self.is_over = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def begin(self, shards: Sequence[str]) -> None:
        """Ask as many as there is room for; the others follow."""
        self._left = len(shards)
        self._waiting.extend(shards)
        self._means.whole.set(self, self._means.clock.monotonic())
        self._go_on()

    def ring(self) -> None:
        """The time for the whole is over."""
        self.stop("late")

    def stop(self, why: Why) -> None:
        """Nobody is asked any more, and whoever has been is told to stop."""
        if self.is_over:
            return
        self.is_over = True
        self._means.whole.unset(self)
        for name, asked in self._asked.items():
            asked.end()
            self._told(name, Missing(why))
        while self._waiting:  # who is told may stop it in the middle of asking
            self._told(self._waiting.popleft(), Missing("not asked"))
        if not self.over.done():
            self.over.set_result(None)

    def settle(self, name: str, outcome: Outcome[T]) -> None:
        """This came of it."""
        if self.is_over:
            return
        self._asked.pop(name).end()
        self._left -= 1
        self._enough -= isinstance(outcome, Answer)
        self._told(name, outcome)
        if self._left and self._enough:
            self._context.run(self._go_on)
        else:
            self.stop("cut off")

    def _go_on(self) -> None:
        means = self._means
        while self._waiting and len(self._asked) < means.at_once:
            name = self._waiting.popleft()
            race = means.hedging(name).begin(_attempt(self._ask, name))
            self._asked[name] = _Asked(self, means, name, race, self._each)


async def gathered(gathering: Gathering[T], shards: Sequence[str]) -> None:
    """Ask them, and wait until it is over. A caller that is cancelled stops it."""
    try:
        gathering.begin(shards)
        await gathering.over  # unbounded: it rings at its end
    finally:
        gathering.stop("cut off")


def _attempt(ask: Ask[T], name: str) -> Callable[[int], Coroutine[Any, Any, T]]:
    return lambda number: ask(name, number)


class _Asked(Generic[T]):
    """One shard that has been asked."""

    __slots__ = ("_began", "_gathering", "_means", "_name", "_race", "at")

    def __init__(self, gathering: Gathering[T], means: Means, name: str, race: Race[T], each: float | None) -> None:
        self._gathering = gathering
        self._means = means
        self._name = name
        self._race = race
        self._began = means.clock.monotonic()
        self.at = self._began
        if each is not None:
            self.at += each
            means.single.set(self, self._began)
        race.decided.add_done_callback(self._decided)

    def ring(self) -> None:
        """Its time is over."""
        self._gathering.settle(self._name, Missing("late"))

    def end(self) -> None:
        """Nobody waits for it any more."""
        self._means.single.unset(self)
        self._race.decided.remove_done_callback(self._decided)
        self._race.end()

    def _decided(self, decided: asyncio.Future[Any]) -> None:
        error = decided.exception()
        outcome: Outcome[T]
        if error is None:
            raced = decided.result()
            outcome = Answer(raced.value, raced.attempts, self._means.clock.monotonic() - self._began)
        else:
            assert isinstance(error, Exception)  # a race ends in no other
            outcome = Missing("failed", error)
        self._gathering.settle(self._name, outcome)
