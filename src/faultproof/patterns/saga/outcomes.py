"""How a saga ended, and waiting for it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

from faultproof import bounds
from faultproof.errors import FaultproofError, InProgress, InvalidInput, Misuse, Overloaded
from faultproof.patterns.saga import sql
from faultproof.patterns.saga.journal import ended_topic
from faultproof.patterns.saga.machine import Run
from faultproof.patterns.saga.steps import Step
from faultproof.ports.database import Database
from faultproof.ports.script import Script

R = TypeVar("R")

LOOK_S = 0.25
"""How often those who wait look although nobody called."""
WAITING_MAX = 10_000
FRESH_MAX = 1_000
"""Sagas that were started here and not waited for yet, whose end is remembered."""


@dataclass(frozen=True)
class Completed:
    """All steps are done."""

    id: str
    results: Mapping[str, str]
    """By step, as JSON."""

    def result(self, step: Step[Any, R]) -> R:
        """What a step returned. Raises `Misuse` for a step that the saga did not have."""
        if step.name not in self.results:
            raise Misuse(f"the saga {self.id!r} has no result of a step {step.name!r}")
        return step.decode(self.results[step.name])


@dataclass(frozen=True)
class Compensated:
    """It could not be carried through, and everything that happened, or may have, has been undone."""

    id: str
    reason: str


@dataclass(frozen=True)
class NeedsAttention:
    """It cannot go on by itself: retry, skip or resolve it by hand."""

    id: str
    reason: str


Outcome: TypeAlias = Completed | Compensated | NeedsAttention


class Waiting:
    """Who waits in this process, for which sagas. One look in the database serves all of them."""

    def __init__(self, database: Database, saga: str) -> None:
        self._database = database
        self._saga = saga
        self._futures: dict[str, list[asyncio.Future[Outcome]]] = {}
        self._fresh: OrderedDict[str, Outcome | None] = OrderedDict()
        self._watcher: asyncio.Task[None] | None = None
        self._here: set[str] = set()  # started by this process, and waited for
        self.held: Callable[[str], bool] | None = None
        """Whether the runner in this process is at it, and will tell; None if there is no runner."""

    def starting(self, id: str) -> None:
        """This process starts it: nothing can be found yet, and whoever started it may ask in a moment."""
        self._fresh[id] = None
        if len(self._fresh) > FRESH_MAX:
            self._fresh.popitem(last=False)

    def not_started(self, id: str) -> None:
        """It was there before, or could not be started."""
        self._fresh.pop(id, None)

    def tell(self, id: str, run: Run) -> None:
        """A runner in this process has committed its end."""
        if id not in self._futures and id not in self._fresh:
            return
        results = {name: state.result for name, state in run.steps.items() if state.result is not None}
        outcome = _outcome(id, run.phase, run.reason, results)
        if isinstance(outcome, NeedsAttention):  # unless a person has decided since: who waits is to look
            self._fresh.pop(id, None)
            self._here.discard(id)
            self._database.wake([ended_topic(self._saga)])
            return
        if id in self._fresh:
            self._fresh[id] = outcome
        self._answer(outcome, self._futures.get(id, ()))

    async def wait(self, id: str, timeout: float) -> Outcome:
        """How it ended. Raises `InProgress` after `timeout` seconds, `InvalidInput` for one that was never started."""
        bounds.seconds("timeout", timeout)
        is_fresh = id in self._fresh
        if (known := self._fresh.pop(id, None)) is not None:
            return known
        if len(self._futures) >= WAITING_MAX:
            raise Overloaded(f"{WAITING_MAX} sagas are waited for in this process: come back later", retry_after=1.0)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(id, []).append(future)
        alarm = self._database.env.clock.alarm(timeout, partial(_give_up, future, id, timeout))
        try:
            if is_fresh:
                self._here.add(id)
            elif self.held is None or not self.held(id):
                await self._look_for([id])
                if not future.done() and await self._database.read(sql.exists(self._saga, id)) is None:
                    raise InvalidInput(f"there is no saga {id!r} of {self._saga!r}: start it first")
            if self._watcher is None or self._watcher.done():
                self._watcher = asyncio.create_task(self._watch(), name=f"faultproof-{self._saga}-wait")
            return await future
        finally:
            alarm.cancel()
            waiting = self._futures.get(id, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._futures.pop(id, None)
                self._here.discard(id)

    async def close(self) -> None:
        """Nobody is told any more."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])  # unbounded: it has been cancelled

    # -- inside -----------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        news = self._database.changed(ended_topic(self._saga))
        try:
            while self._futures:
                called = await news.wait(LOOK_S)
                ids = list(self._futures)
                if self.held is not None:  # which nearly always takes up itself what was started here
                    ids = [id for id in ids if not self.held(id) and not (called and id in self._here)]
                if ids:
                    await self._look_for(ids)
        except FaultproofError as error:  # those who wait are told so
            for waiting in self._futures.values():
                for future in waiting:
                    if not future.done():
                        future.set_exception(error)
        finally:
            news.close()

    async def _look_for(self, ids: Sequence[str]) -> None:
        """For those who wait now: what is found may be over for who comes later, behind a decision that he knows of."""
        asking = {id: list(self._futures.get(id, ())) for id in ids}
        for outcome in await self._database.read(self._ended(ids)):
            self._answer(outcome, asking[outcome.id])

    def _ended(self, ids: Sequence[str]) -> Script[list[Outcome]]:
        outcomes: list[Outcome] = []
        for found in (yield from sql.ended(self._saga, ids)):
            results: dict[str, str] = {}
            if found.state == "completed":
                for step, data in (yield from sql.results(self._saga, found.id)):
                    results[step] = data or "null"
            outcomes.append(_outcome(found.id, found.state, found.reason, results))
        return outcomes

    def _answer(self, outcome: Outcome, asking: Sequence[asyncio.Future[Outcome]]) -> None:
        for future in asking:
            if not future.done():
                future.set_result(outcome)


def _give_up(future: asyncio.Future[Outcome], id: str, timeout: float) -> None:
    if not future.done():
        future.set_exception(InProgress(f"the saga {id!r} has not ended within {timeout} s: ask again later"))


def _outcome(id: str, state: str, reason: str | None, results: Mapping[str, str]) -> Outcome:
    if state == "completed":
        return Completed(id, results)
    if state == "compensated":
        return Compensated(id, reason or "")
    return NeedsAttention(id, reason or "")
