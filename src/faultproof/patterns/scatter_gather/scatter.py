"""Scatter-gather: the same question to many shards, and an answer that says which of them it comes from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from faultproof import bounds
from faultproof.clock import Env, system
from faultproof.errors import InvalidInput
from faultproof.patterns.scatter_gather.gathered import Gathered, Incomplete, Missing, Outcome, sorted_out
from faultproof.patterns.scatter_gather.gathering import Ask, Gathering, Means, gathered
from faultproof.patterns.scatter_gather.merged import Merged
from faultproof.patterns.scatter_gather.policy import GatherPolicy
from faultproof.primitives.deadline import by
from faultproof.primitives.hedging import Hedging
from faultproof.primitives.retry import RetryBudget
from faultproof.primitives.timeouts import Alarms
from faultproof.signals import SHARDS_MISSING

T = TypeVar("T")

SHARDS_MAX = 10_000


class ScatterGather:
    """Asks shards, all at once and each in its time, and leaves none out in silence.

    ::

        search = fp.ScatterGather(fp.GatherPolicy(deadline=0.2, at_least=3))
        found = await search.gather(["s1", "s2", "s3", "s4"], ask)
        if not found.is_complete:
            warn(found.missing)

    `ask(shard, n)` is to make the n-th attempt at it. `budget`: hedges are paid from it; share it with whoever calls the same
    dependency. Belongs to one event loop. Proof: `faultproof.patterns.scatter_gather.proof:SCATTER`.
    """

    def __init__(
        self, policy: GatherPolicy | None = None, *, env: Env | None = None, budget: RetryBudget | None = None
    ) -> None:
        self._policy = policy or GatherPolicy()
        self._env = env or system()
        self._budget = budget or RetryBudget()
        self._hedging = Hedging(self._env, self._policy.hedge, self._budget)
        clock = self._env.clock
        self._means = Means(clock, lambda name: self._hedging, Alarms(clock), Alarms(clock), self._policy.at_once)

    async def gather(self, shards: Sequence[str], ask: Ask[T]) -> Gathered[T]:
        """Ask all of them; return when each has answered, failed or run out of time, or enough have answered.

        Raises `Incomplete`, with what there is, if fewer answered than have to; `InvalidInput` for no shards, one that is
        named twice, or fewer of them than have to answer. A caller that is cancelled cancels whatever is under way.
        """
        least = self._least(shards, len(set(shards)))
        enough = least if self._policy.until_enough else len(shards)
        return self._judged(await self._asked(shards, ask, enough), least)

    async def stream(self, shards: Sequence[str], ask: Ask[T]) -> AsyncIterator[tuple[str, Outcome[T]]]:
        """Each shard once, with its answer or why there is none, as soon as that is known.

        Nothing is raised for too few answers: whoever reads to the end has seen them all. Close it (`contextlib.aclosing`)
        to stop earlier.
        """
        self._least(shards, len(set(shards)))
        arrived: asyncio.Queue[tuple[str, Outcome[T]]] = asyncio.Queue(SHARDS_MAX)
        gathering = self._gathering(ask, lambda *outcome: arrived.put_nowait(outcome), len(shards))
        try:
            gathering.begin(shards)
            for _ in shards:
                yield await arrived.get()  # unbounded: the gathering rings at its end, and tells of the rest
        finally:
            gathering.stop("cut off")

    def merge(self, streams: Mapping[str, AsyncIterator[T]], *, key: Callable[[T], Any]) -> Merged[T]:
        """The items of sorted streams as one sorted stream, a stream for each shard.

        The policy's times are for each next item. Raises `InvalidInput` where the policy hedges: an item that was taken off a
        stream cannot be taken again.
        """
        if self._policy.hedge is not None:
            raise InvalidInput("streams cannot be merged with `hedge`: an item cannot be taken off a stream twice")
        names = list(streams)

        async def gather(shards: Sequence[str], ask: Ask[Any]) -> Gathered[Any]:
            return sorted_out(await self._asked(shards, ask, len(shards)))

        return Merged(gather, streams, key=key, least=self._least(names, len(names)))

    async def close(self) -> int:
        """Wait for what was told to stop, for up to 10 s; how many calls had not ended then."""
        return await self._hedging.close()

    async def _asked(self, shards: Sequence[str], ask: Ask[T], enough: int) -> dict[str, Outcome[T]]:
        outcomes: dict[str, Outcome[T]] = dict.fromkeys(shards, Missing("not asked"))
        await gathered(self._gathering(ask, outcomes.__setitem__, enough), shards)
        return outcomes

    def _gathering(self, ask: Ask[T], told: Callable[[str, Outcome[T]], object], enough: int) -> Gathering[T]:
        at = by(self._env.clock, self._policy.deadline)

        def counted(shard: str, number: int) -> Coroutine[Any, Any, T]:
            if number == 1:
                self._budget.first_attempt()
            return ask(shard, number)

        return Gathering(self._means, counted, told, at=at, each=self._policy.each, enough=enough)

    def _least(self, shards: Sequence[str], distinct: int) -> int:
        """How many have to answer."""
        if isinstance(shards, str):
            raise InvalidInput(f"`shards` are several names, and {shards!r} is one: each of its letters would be asked")
        bounds.count("shards", len(shards), most=SHARDS_MAX)
        if distinct != len(shards):
            twice = next(name for name in shards if shards.count(name) > 1)
            raise InvalidInput(f"the shard {twice!r} is named twice: each is asked once")
        least = len(shards) if self._policy.at_least is None else self._policy.at_least
        if least > len(shards):
            raise InvalidInput(f"`at_least` {least} have to answer, and there are {len(shards)} shards")
        return least

    def _judged(self, outcomes: dict[str, Outcome[T]], least: int) -> Gathered[T]:
        told = sorted_out(outcomes)
        if told.missing:
            self._env.signals.emit(SHARDS_MISSING, len(told.missing))
        if len(told.answers) < least:
            name, missing = next(iter(told.missing.items()))
            raise Incomplete(
                f"{len(told.answers)} of {len(outcomes)} shards answered, {least} have to: {name} {missing}",
                gathered=told,
            )
        return told
