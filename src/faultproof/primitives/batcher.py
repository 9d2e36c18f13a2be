"""Natural batching: what arrived while the last batch ran is the next batch.

No timed window by default: an idle batcher runs a lone item at once, in the caller's own task, so that a single caller
loses nothing; under load batches grow by themselves. (The idea is group commit: DeWitt et al., "Implementation
Techniques for Main Memory Database Systems", SIGMOD 1984, §5.) Everything is bounded: items in a batch, their weight,
waiting items, and how long one may wait.
"""

from __future__ import annotations

import asyncio
import copy
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar, Union

from faultproof import bounds
from faultproof.clock import Env
from faultproof.errors import Closed, DeadlineExceeded, Failed, OutcomeUnknown, Overloaded
from faultproof.signals import QUEUE_AGE, QUEUE_DEPTH

T = TypeVar("T")
R = TypeVar("R")

RETRY_AFTER_MIN_S = 0.1
"""Somebody who is refused does not come back at once."""
SMOOTHING = 0.2
"""How much of what is known about the time of a batch comes from the last one."""
WEIGHT_MIN, WEIGHT_MAX = 0.000_001, 1e15
"""In the caller's own unit; most mean bytes."""


@dataclass(frozen=True, slots=True)
class Later(Generic[R]):
    """As an item's result: `work` gives it, and neither the others of its batch nor the next batch wait for that."""

    work: Callable[[], Awaitable[R]]


Result: TypeAlias = Union[R, BaseException, Later[R]]  # noqa: UP007  # a type variable takes no | at run time
Apply = Callable[[Sequence[T]], Awaitable[Sequence[Result[R]]]]


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

    def __post_init__(self) -> None:
        bounds.count("items", self.items)
        bounds.number("weight", self.weight, least=WEIGHT_MIN, most=WEIGHT_MAX)
        bounds.seconds("window", self.window, least=0)
        bounds.count("pending", self.pending)
        if self.shed_after is not None:
            bounds.seconds("shed_after", self.shed_after)
        bounds.seconds("timeout", self.timeout)


class _Item(Generic[T, R]):
    __slots__ = ("arrived", "expires", "future", "value", "weight")

    def __init__(self, value: T, weight: float, future: asyncio.Future[R], arrived: float, expires: float) -> None:
        self.value = value
        self.weight = weight
        self.future = future
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
        self._name = name
        self._pending: OrderedDict[int, _Item[T, R]] = OrderedDict()  # by arrival; a cancelled one leaves at once
        self._arrivals = 0
        self._leading = False
        self._led: asyncio.Future[None] | None = None  # whoever closes waits on it for the one who leads
        self._loop: asyncio.Task[None] | None = None
        self._postponed: set[asyncio.Task[None]] = set()
        self._closed = False
        self._took = 0.0
        self._began = 0.0

    @property
    def pending(self) -> int:
        """Items waiting for a batch, or postponed by theirs."""
        return len(self._pending) + len(self._postponed)

    async def submit(self, item: T, *, weight: float = 1.0, timeout: float | None = None) -> R:
        """Apply `item` in some batch, and give its result.

        Raises what `apply` gave for the item; `Overloaded` when too many wait; `DeadlineExceeded` when `timeout` seconds
        passed before its batch began (nothing happened); `OutcomeUnknown` when they passed after; `InvalidInput` for a
        weight or a timeout that is no finite number. A caller that is cancelled before its batch began takes the item
        with it; afterwards the outcome is unknown to it.
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
        if not self._busy() and not self._pending and self._limits.window == 0:
            return await self._lead(item, seconds)
        return await self._follow(item, weight, seconds)

    async def close(self) -> None:
        """Refuse new items, and wait until those accepted have been applied."""
        self._closed = True
        while self._busy():
            if self._leading:
                self._led = self._led or asyncio.get_running_loop().create_future()
            running = self._led if self._leading else self._loop
            assert running is not None
            await asyncio.wait([running])  # unbounded: each batch is bounded by what `apply` bounds
        while self._postponed:
            await asyncio.wait(set(self._postponed))  # unbounded: so is each of these

    async def _lead(self, item: T, seconds: float) -> R:
        """Nobody is ahead: run the item as a batch of its own, at once, without another task in between."""
        self._leading = True
        try:
            async with asyncio.timeout(seconds) as limit:
                (result,) = await self._run([item])
        except TimeoutError as error:
            if limit.expired():
                raise OutcomeUnknown(f"a batch of {self._name!r} was still running after {seconds} s") from error
            raise
        finally:
            self._leading = False
            if self._led is not None:
                self._led.set_result(None)
                self._led = None
            self._start()
        if isinstance(result, Later):  # it leads no longer: others may go ahead meanwhile
            future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
            self._postpone(future, result)
            return await self._outcome(future, seconds)
        if isinstance(result, BaseException):
            raise _raisable(self._name, result)
        return result

    async def _outcome(self, future: asyncio.Future[R], seconds: float) -> R:
        try:
            async with asyncio.timeout(seconds) as limit:
                return await future
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise OutcomeUnknown(f"an item of {self._name!r} was still being worked on after {seconds} s") from error

    async def _follow(self, item: T, weight: float, seconds: float) -> R:
        self._admit()
        loop = asyncio.get_running_loop()
        now = self._env.clock.monotonic()
        future: asyncio.Future[R] = loop.create_future()
        arrival = self._arrivals = self._arrivals + 1
        self._pending[arrival] = _Item(item, weight, future, now, now + seconds)
        self._start()
        try:
            async with asyncio.timeout(seconds) as limit:
                return await future
        except TimeoutError as error:
            if not limit.expired():
                raise
            if arrival in self._pending:
                raise DeadlineExceeded(f"{seconds} s passed before a batch of {self._name!r} took the item") from error
            raise OutcomeUnknown(f"a batch of {self._name!r} was still running after {seconds} s") from error
        finally:
            self._pending.pop(arrival, None)

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
        return self._leading or (self._loop is not None and not self._loop.done())

    def _start(self) -> None:
        if self._pending and not self._busy():
            self._loop = asyncio.get_running_loop().create_task(self._drain(), name=f"faultproof-{self._name}")

    async def _drain(self) -> None:
        """Batch after batch, until none is left."""
        while self._pending:
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
            arrival, item = next(iter(self._pending.items()))
            if item.future.done() or item.expires <= now:
                del self._pending[arrival]
                if not item.future.done():
                    item.future.set_exception(
                        DeadlineExceeded(f"the item expired before a batch of {self._name!r} took it")
                    )
                continue
            if batch and weight + item.weight > self._limits.weight:
                break
            weight += item.weight
            del self._pending[arrival]
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
            return [_failed(self._name, asyncio.CancelledError("cancelled inside")) for _ in values]
        except Exception as error:
            return [error] if len(values) == 1 else [for_each_caller(error) for _ in values]
        if isinstance(answer, Sequence) and len(answer) == len(values):
            return answer
        count = len(answer) if isinstance(answer, Sequence) else type(answer).__qualname__
        wrong = f"the function of batcher {self._name!r} returned {count} for {len(values)} results"
        return [OutcomeUnknown(wrong + ": whether an item took effect is unknown") for _ in values]

    def _answer(self, batch: Sequence[_Item[T, R]], results: Sequence[Result[R]]) -> None:
        for item, result in zip(batch, results, strict=True):
            if item.future.done():  # its caller was cancelled or ran out of time
                continue
            if isinstance(result, Later):
                self._postpone(item.future, result)
            elif isinstance(result, BaseException):
                item.future.set_exception(_raisable(self._name, result))
            else:
                item.future.set_result(result)

    def _postpone(self, future: asyncio.Future[R], later: Later[R]) -> None:
        """A task of its own, held to the same bound as waiting items."""

        async def work() -> None:
            try:
                result = await later.work()
            except BaseException as error:  # a caller waits for it, whatever it is
                if not future.done():
                    future.set_exception(_raisable(self._name, error))
                if not isinstance(error, Exception):
                    raise
            else:
                if not future.done():
                    future.set_result(result)

        task = asyncio.get_running_loop().create_task(work(), name=f"faultproof-{self._name}-later")
        self._postponed.add(task)
        task.add_done_callback(self._postponed.discard)


def _raisable(name: str, error: BaseException) -> BaseException:
    """What a caller may be given: a cancel would look like its own, and no future takes a StopIteration."""
    return _failed(name, error) if isinstance(error, (asyncio.CancelledError, StopIteration)) else error


def _failed(name: str, cause: BaseException) -> Failed:
    failed = Failed(f"the function of batcher {name!r} was cut short by {cause!r}")
    failed.__cause__ = cause
    return failed


def for_each_caller(error: Exception) -> Exception:
    """An exception of the same kind for each caller: one object raised in many tasks would mix up their tracebacks."""
    kind = type(error)
    try:
        # Python's own keep facts outside `args`, and know how to be copied. The others may not be made from their `args`.
        twin: Exception = copy.copy(error) if kind.__module__ == "builtins" else kind.__new__(kind, *error.args)
        twin.args = error.args
        twin.__dict__.update(error.__dict__)
        twin.__cause__ = error
    except Exception:  # made in a way of its own, or frozen
        twin = Failed(f"{kind.__qualname__}: {error}")
        twin.__cause__ = error
    return twin
