"""Natural batching: what arrived while the last batch ran is the next batch.

No timed window by default: an idle batcher runs a lone item at once, in the caller's own task, so that a single caller
loses nothing; under load batches grow by themselves. (The idea is group commit: DeWitt et al., "Implementation
Techniques for Main Memory Database Systems", SIGMOD 1984, §5.) Everything is bounded: items in a batch, their weight,
waiting items, and how long one may wait.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar, Union

from faultproof import bounds
from faultproof.clock import Alarm, Env
from faultproof.errors import Closed, DeadlineExceeded, OutcomeUnknown, Overloaded
from faultproof.primitives.callers import cut_short, for_each_caller, raisable
from faultproof.signals import QUEUE_AGE, QUEUE_DEPTH

T = TypeVar("T")
R = TypeVar("R")

RETRY_AFTER_MIN_S = 0.1
"""Somebody who is refused does not come back at once."""
SMOOTHING = 0.2
"""How much of what is known about the time of a batch comes from the last one."""
AT_ONCE = 2
"""Batches that may overlap."""
WEIGHT_MIN, WEIGHT_MAX = 0.000_001, 1e15
"""In the caller's own unit; most mean bytes."""


@dataclass(frozen=True, slots=True)
class Later(Generic[R]):
    """As an item's result: `work` gives it, and neither the others of its batch nor the next batch wait for that."""

    work: Callable[[], Awaitable[R]]


Result: TypeAlias = Union[R, BaseException, Later[R]]  # noqa: UP007  # a type variable takes no | at run time
Apply = Callable[[Sequence[T]], Awaitable[Sequence[Result[R]]]]
Told = Callable[[Union[R, BaseException]], None]  # noqa: UP007  # as above


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """The bounds of a batcher. Times in seconds."""

    items: int = 1_000
    """At most this many in one batch."""
    weight: float = 4_000_000
    """At most this much weight in one batch; a heavier item runs alone."""
    window: float = 0.0
    """How long the oldest item may wait for others. 0: natural batching."""
    pending: int = 10_000
    """At most this many items wait; one more is refused with `Overloaded`."""
    shed_after: float | None = None
    """An item behind a full batch that would wait longer than this, as batches have taken lately, is refused too."""
    timeout: float = 30.0
    """How long a caller waits unless it says otherwise."""
    overlap: int | None = None
    """Once so many wait, a second batch begins beside the one that runs: one is got ready, or answered, while the other is
    written. None: one after the other."""

    def __post_init__(self) -> None:
        bounds.count("items", self.items)
        bounds.number("weight", self.weight, least=WEIGHT_MIN, most=WEIGHT_MAX)
        bounds.seconds("window", self.window, least=0)
        bounds.count("pending", self.pending)
        if self.shed_after is not None:
            bounds.seconds("shed_after", self.shed_after)
        bounds.seconds("timeout", self.timeout)
        if self.overlap is not None:
            bounds.count("overlap", self.overlap)


class _Item(Generic[T, R]):
    __slots__ = ("arrived", "expires", "future", "told", "value", "weight")

    def __init__(
        self,
        value: T,
        weight: float,
        future: asyncio.Future[R] | None,
        told: Told[R] | None,
        arrived: float,
        expires: float,
    ) -> None:
        self.value = value
        self.weight = weight
        self.future = future
        """Of whoever waits; None if nobody does."""
        self.told = told
        self.arrived = arrived
        self.expires = expires


class Batcher(Generic[T, R]):
    """Collects single items into batches for `apply`, and hands each caller its own result.

    Promise: an item is in at most one batch; its caller gets the result or error that `apply` gave for it; an item that
    was cancelled or expired before its batch began is never applied; whatever `apply` raises reaches the callers of that
    batch and no others, and the batcher goes on. Proof: `faultproof.patterns.batch.proof:BATCH`.
    """

    def __init__(self, apply: Apply[T, R], *, env: Env, limits: BatchLimits | None = None, name: str = "batch") -> None:
        self._apply = apply
        self._env = env
        self._limits = limits or BatchLimits()
        self._overlap = self._limits.overlap or self._limits.pending + 1
        self._name = name
        self._pending: OrderedDict[int, _Item[T, R]] = OrderedDict()  # by arrival; a cancelled one leaves at once
        self._arrivals = 0
        self._leading = False
        self._led: asyncio.Future[None] | None = None  # whoever closes waits on it for the one who leads
        self._drains: set[asyncio.Task[None]] = set()  # bounded: AT_ONCE
        self._postponed: set[asyncio.Task[None]] = set()
        self._watched: OrderedDict[int, _Item[T, R]] = OrderedDict()  # by arrival, until they are answered
        self._alarm: Alarm | None = None
        self._closed = False
        self._took = 0.0
        self._began = 0.0

    @property
    def pending(self) -> int:
        """Items waiting for a batch, or postponed by theirs."""
        return len(self._pending) + len(self._postponed)

    async def submit(
        self, item: T, *, weight: float = 1.0, timeout: float | None = None, told: Told[R] | None = None
    ) -> R:
        """Apply `item` in some batch, and give its result.

        Raises what `apply` gave for the item; `Overloaded` when too many wait; `DeadlineExceeded` when `timeout` seconds
        passed before its batch began (nothing happened); `OutcomeUnknown` when they passed after; `InvalidInput` for a
        weight or a timeout that is no finite number. A caller that is cancelled before its batch began takes the item
        with it; afterwards the outcome is unknown to it.

        `told` hears of the result or the error as soon as the batch has ended, before the caller goes on, and also when the
        caller has gone meanwhile; of an item that was in no batch it hears nothing.
        """
        if self._closed:
            raise Closed(f"the batcher {self._name!r} is closed: make a new one")
        seconds = self._limits.timeout
        if timeout is not None:  # what is left until a deadline may be nothing, or less
            bounds.seconds("timeout", timeout, least=-bounds.SECONDS_MAX)
            seconds = timeout
        if weight != 1.0:  # one that is no number would end the loop for everybody
            bounds.number("weight", weight, least=0, most=WEIGHT_MAX)
        if seconds <= 0:
            raise DeadlineExceeded(f"no time was left to wait for a batch of {self._name!r}")
        if not self._pending and not self._busy() and self._limits.window == 0:
            return await self._lead(item, seconds, told)
        self._admit()
        now = self._env.clock.monotonic()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        arrival = self._arrivals = self._arrivals + 1
        mine = self._pending[arrival] = _Item(item, weight, future, told, now, now + seconds)
        self._start()
        try:
            if timeout is not None:
                return await self._outcome(future, seconds, arrival)
            self._watched[arrival] = mine
            if self._alarm is None:
                self._alarm = self._env.clock.alarm(seconds, self._expire)
            return await future
        finally:
            self._pending.pop(arrival, None)
            self._watched.pop(arrival, None)

    def post(self, item: T, told: Told[R], *, weight: float = 1.0) -> None:
        """Apply `item` in some batch for nobody who waits; `told` hears of it. For whoever bounds by itself how many items
        it has under way: this refuses none for their number, and none expires. Raises `Closed`."""
        if self._closed:
            raise Closed(f"the batcher {self._name!r} is closed: make a new one")
        self._arrivals += 1
        self._pending[self._arrivals] = _Item(item, weight, None, told, self._env.clock.monotonic(), math.inf)
        self._start()

    async def close(self) -> None:
        """Refuse new items, and wait until those accepted have been applied."""
        self._closed = True
        while self._busy():
            if self._leading:
                self._led = self._led or asyncio.get_running_loop().create_future()
            running = [*self._drains, *([self._led] if self._led else [])]
            await asyncio.wait(running)  # unbounded: each batch is bounded by what `apply` bounds
        while self._postponed:
            await asyncio.wait(set(self._postponed))  # unbounded: so is each of these
        if self._alarm is not None:
            self._alarm.cancel()

    async def _lead(self, item: T, seconds: float, told: Told[R] | None) -> R:
        """Nobody is ahead: run the item as a batch of its own, at once, without another task in between."""
        self._leading = True
        result: Result[R] = OutcomeUnknown(f"whoever led a batch of {self._name!r} was cut short amid it")
        try:
            async with asyncio.timeout(seconds) as limit:
                (result,) = await self._run([item])
                if told is not None and not isinstance(result, Later):
                    self._tell(told, result)
        except TimeoutError as error:
            if limit.expired():
                raise OutcomeUnknown(f"a batch of {self._name!r} was still running after {seconds} s") from error
            raise
        finally:
            self._leading = False
            if self._led is not None:
                self._led.set_result(None)
                self._led = None
            if told is not None and not isinstance(result, Later):
                self._tell(told, result)
            self._start()
        if isinstance(result, Later):  # it leads no longer: others may go ahead meanwhile
            future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
            self._postpone(future, told, result)
            return await self._outcome(future, seconds, None)
        if isinstance(result, BaseException):
            raise raisable(self._name, result)
        return result

    async def _outcome(self, future: asyncio.Future[R], seconds: float, arrival: int | None) -> R:
        try:
            async with asyncio.timeout(seconds) as limit:
                return await future
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise self._late(arrival, seconds) from error

    def _expire(self) -> None:
        """Answer those whose time is up. They expire in the order in which they came, so that one alarm does for all: one for
        each would be a third of what a call costs."""
        self._alarm = None
        while self._watched:
            arrival, item = next(iter(self._watched.items()))
            left = item.expires - self._env.clock.monotonic()
            if left > 0:
                self._alarm = self._env.clock.alarm(left, self._expire)
                return
            del self._watched[arrival]
            if item.future is not None and not item.future.done():
                item.future.set_exception(self._late(arrival, self._limits.timeout))

    def _late(self, arrival: int | None, seconds: float) -> DeadlineExceeded | OutcomeUnknown:
        if arrival is not None and self._pending.pop(arrival, None) is not None:
            return DeadlineExceeded(f"{seconds} s passed before a batch of {self._name!r} took the item")
        return OutcomeUnknown(f"a batch of {self._name!r} was still running after {seconds} s")

    def _admit(self) -> None:
        """Refuse now what would be late anyway. Whoever finds no full batch ahead is let in, or nobody would ever notice
        that batches are quick again."""
        waiting, limits = self.pending, self._limits
        if waiting < min(limits.items, limits.pending):
            return
        longest = max(self._took, self._env.clock.monotonic() - self._began)  # the one that runs may be the slowest yet
        expected = longest * (waiting // limits.items + 1)
        if waiting >= limits.pending or (limits.shed_after is not None and expected > limits.shed_after):
            raise Overloaded(
                f"{waiting} items already wait in {self._name!r}, for about {expected:.3f} s: come back later",
                retry_after=max(expected, RETRY_AFTER_MIN_S),
            )

    def _busy(self) -> bool:
        return self._leading or bool(self._drains)

    def _start(self) -> None:
        """Begin a batch if there is one to be begun."""
        running = len(self._drains) + self._leading
        if self._pending and (not running or (running < AT_ONCE and len(self._pending) >= self._overlap)):
            task = asyncio.get_running_loop().create_task(self._drain(), name=f"faultproof-{self._name}")
            self._drains.add(task)
            task.add_done_callback(self._drained)

    def _drained(self, task: asyncio.Task[None]) -> None:
        self._drains.discard(task)
        self._start()

    async def _drain(self) -> None:
        """Batch after batch, until none is left, or so few that they can wait for the batch that runs besides."""
        while self._pending and (len(self._drains) + self._leading == 1 or len(self._pending) >= self._overlap):
            await self._fill()
            batch = self._next()
            if not batch:
                continue
            try:
                results = await self._run([item.value for item in batch])
            except asyncio.CancelledError:  # the event loop is shutting down
                cancelled = OutcomeUnknown(f"the batcher {self._name!r} was cancelled amid a batch")
                self._answer(batch, [cancelled for _ in batch])
                raise
            self._answer(batch, results)
            # Callers that were answered just now may come straight back: let them, so that they share the next batch.
            await self._env.clock.sleep(0)

    async def _fill(self) -> None:
        """With a window: wait for company, counted from the arrival of the oldest, no longer than a full batch needs."""
        if self._limits.window == 0:
            return
        while self._pending and not self._full() and not self._closed:
            oldest = next(iter(self._pending.values()))
            left = oldest.arrived + self._limits.window - self._env.clock.monotonic()
            if left <= 0:
                return
            await self._env.clock.sleep(min(left, self._limits.window / 4))

    def _full(self) -> bool:
        weight = sum(item.weight for item in self._pending.values())
        return len(self._pending) >= self._limits.items or weight >= self._limits.weight

    def _next(self) -> list[_Item[T, R]]:
        """The next batch: the oldest items that are still wanted, within the limits."""
        batch: list[_Item[T, R]] = []
        now, weight = self._env.clock.monotonic(), 0.0
        if self._pending:
            oldest = next(iter(self._pending.values()))
            self._env.signals.emit(QUEUE_DEPTH, len(self._pending), queue=self._name)
            self._env.signals.emit(QUEUE_AGE, now - oldest.arrived, queue=self._name)
        while self._pending and len(batch) < self._limits.items:
            arrival, item = self._pending.popitem(last=False)
            if item.future is not None and (item.future.done() or item.expires <= now):
                if not item.future.done():
                    item.future.set_exception(
                        DeadlineExceeded(f"the item expired before a batch of {self._name!r} took it")
                    )
                continue
            if batch and weight + item.weight > self._limits.weight:
                self._pending[arrival] = item
                self._pending.move_to_end(arrival, last=False)
                break
            weight += item.weight
            batch.append(item)
        return batch

    async def _run(self, values: Sequence[T]) -> Sequence[Result[R]]:
        """One batch. Nothing that `apply` does can end the loop."""
        self._began = began = self._env.clock.monotonic()
        try:
            answer: object = await self._apply(values)
            self._took += (self._env.clock.monotonic() - began - self._took) * SMOOTHING
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return [cut_short(self._name, asyncio.CancelledError("cancelled inside")) for _ in values]
        except Exception as error:
            return [error] if len(values) == 1 else [for_each_caller(error) for _ in values]
        if isinstance(answer, Sequence) and len(answer) == len(values):
            return answer
        count = len(answer) if isinstance(answer, Sequence) else type(answer).__qualname__
        wrong = f"the function of batcher {self._name!r} returned {count} for {len(values)} results"
        return [OutcomeUnknown(wrong + ": whether an item took effect is unknown") for _ in values]

    def _answer(self, batch: Sequence[_Item[T, R]], results: Sequence[Result[R]]) -> None:
        for item, result in zip(batch, results, strict=True):
            if isinstance(result, Later):
                if item.told is not None or (item.future is not None and not item.future.done()):
                    self._postpone(item.future, item.told, result)
            else:
                self._settle(item.future, item.told, result)

    def _settle(self, future: asyncio.Future[R] | None, told: Told[R] | None, result: R | BaseException) -> None:
        if told is not None:
            self._tell(told, result)
        if future is None or future.done():  # its caller was cancelled or ran out of time
            return
        if isinstance(result, BaseException):
            future.set_exception(raisable(self._name, result))
        else:
            future.set_result(result)

    def _tell(self, told: Told[R], result: R | BaseException) -> None:
        try:
            told(result)
        except Exception as error:  # the others are told nevertheless
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"whoever posted to the batcher {self._name!r} failed at being told", "exception": error}
            )

    def _postpone(self, future: asyncio.Future[R] | None, told: Told[R] | None, later: Later[R]) -> None:
        """A task of its own, held to the same bound as waiting items."""

        async def work() -> None:
            try:
                result = await later.work()
            except BaseException as error:  # a caller waits for it, whatever it is
                self._settle(future, told, error)
                if not isinstance(error, Exception):
                    raise
            else:
                self._settle(future, told, result)

        task = asyncio.get_running_loop().create_task(work(), name=f"faultproof-{self._name}-later")
        self._postponed.add(task)
        task.add_done_callback(self._postponed.discard)
