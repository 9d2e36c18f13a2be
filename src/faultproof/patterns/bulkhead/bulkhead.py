"""`Bulkhead`: the calls to one dependency, bounded, and kept apart by tenant."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from threading import Lock
from types import TracebackType
from typing import ParamSpec, TypeVar

from faultproof.clock import Env
from faultproof.errors import Closed, DeadlineExceeded, Misuse, OutcomeUnknown, Overloaded
from faultproof.primitives.adaptive import AdaptiveLimit, AdaptivePolicy
from faultproof.primitives.compartments import PermitsPolicy
from faultproof.primitives.deadline import ambient
from faultproof.primitives.fair_queue import Tenant
from faultproof.primitives.permits import Left, Permits, Standing

P = ParamSpec("P")
T = TypeVar("T")

_OVERLOAD = (TimeoutError, Overloaded, DeadlineExceeded, OutcomeUnknown)
"""Errors that say that there was too much to do, or that there was no answer in time."""


@dataclass(frozen=True, kw_only=True)
class BulkheadPolicy(PermitsPolicy):
    """The bounds of a bulkhead. Times in seconds."""

    adaptive: AdaptivePolicy | None = None
    """Find out how many permits the dependency bears, up to `concurrency`. None: there are always so many."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adaptive is not None:
            AdaptiveLimit(self.adaptive, most=self.concurrency)  # refuses a contradiction


class Permit:
    """What `async with bulkhead.permit()` holds. For one entry."""

    __slots__ = ("_began", "_bulkhead", "_deadline", "_priority", "_tenant", "held")

    def __init__(self, bulkhead: Bulkhead, tenant: str, priority: int, deadline: Left | None) -> None:
        self._bulkhead = bulkhead
        self._tenant = tenant
        self._priority = priority
        self._deadline = deadline
        self._began = 0.0
        self.held: Tenant | None = None
        """By which tenant; None before and after."""

    async def __aenter__(self) -> Permit:
        if self.held is not None:
            raise Misuse("this permit is held already: ask the bulkhead for another one")
        bulkhead = self._bulkhead
        if self._deadline is None and not self._priority:
            self.held = bulkhead.permits.try_enter(self._tenant)  # nearly always; without another coroutine
        if self.held is None:
            self.held = await bulkhead.permits.enter(self._tenant, priority=self._priority, deadline=self._deadline)
        if bulkhead.adaptive is not None:
            self._began = bulkhead.now()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        held, bulkhead = self.held, self._bulkhead
        if held is None or bulkhead.adaptive is not None:
            self.give_back(error)
        else:
            self.held = None
            bulkhead.permits.leave(held)

    def give_back(self, error: BaseException | None) -> None:
        """The call has ended, with that error if with any."""
        held, self.held = self.held, None
        if held is None:
            raise Misuse("this permit is not held")
        bulkhead = self._bulkhead
        if bulkhead.adaptive is not None:
            bulkhead.adapt(self._began, error)
        bulkhead.permits.leave(held)


class Bulkhead:
    """The calls to one dependency: so many at once, so many that wait, and of each only a part by one tenant.

    ::

        payments = fp.Bulkhead(policy=fp.BulkheadPolicy(concurrency=20), name="payments")

        async with payments.permit(tenant=customer):
            await client.post(…)
        await payments.run(charge, order, tenant=customer)     # the same
        await payments.threads(legacy.charge, order, tenant=customer)   # a blocking function, in a thread

    Promise: a tenant that saturates its part leaves the others' latency and errors as they were, as long as these together
    need no more than what is left; no permit is ever lost. Proofs: `faultproof.patterns.bulkhead.proof:BULKHEAD` and
    `:PERMITS`. From any number of event loops and threads; make one for each dependency, and after a fork.
    """

    def __init__(self, env: Env | None = None, policy: BulkheadPolicy | None = None, *, name: str = "bulkhead") -> None:
        self._clock = (env or Env()).clock
        self._policy = policy or BulkheadPolicy()
        self._name = name
        self.permits = Permits(env or Env(), self._policy, name=name)
        """For whoever counts nanoseconds: `try_enter` and `leave`. With `adaptive`, `adapt` wants to be told of each call."""
        adaptive = self._policy.adaptive
        self.adaptive = None if adaptive is None else AdaptiveLimit(adaptive, most=self._policy.concurrency)
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._is_closed = False

    def permit(self, *, tenant: str = "", priority: int = 0, deadline: Left | None = None) -> Permit:
        """`async with` it: inside, a permit is held.

        `tenant`: whose call it is. `priority`: from -9 to 9, a higher one goes first. `deadline`: until when it is worth
        while to wait; the ambient one (`primitives/deadline.py`) unless another is given. Entering raises `Overloaded` when
        there is no room, `DeadlineExceeded` when it is too late, and `Closed` after `close`; in each case nothing was done.
        """
        return Permit(self, tenant, priority, ambient() if deadline is None else deadline)

    async def run(
        self,
        function: Callable[..., Awaitable[T]],
        *args: object,
        tenant: str = "",
        priority: int = 0,
        deadline: Left | None = None,
    ) -> T:
        """What `await function(*args)` gives or raises, with a permit; raises what entering one does."""
        async with self.permit(tenant=tenant, priority=priority, deadline=deadline):
            return await function(*args)

    async def threads(
        self,
        function: Callable[..., T],
        *args: object,
        tenant: str = "",
        priority: int = 0,
        deadline: Left | None = None,
    ) -> T:
        """What the blocking `function(*args)` gives or raises, in a thread of this bulkhead's own, with a permit.

        No thread can be stopped from outside: one whose caller was cancelled goes on, and holds its permit until it ends. So
        there are never more threads than `concurrency`. Context variables are those of the caller.
        """
        permit = self.permit(tenant=tenant, priority=priority, deadline=deadline)
        await permit.__aenter__()
        try:
            work = self._submit(copy_context().run, function, *args)
        except BaseException as error:
            permit.give_back(error)
            raise
        work.add_done_callback(lambda ended: permit.give_back(None if ended.cancelled() else ended.exception()))
        return await asyncio.wrap_future(work)

    def snapshot(self) -> Standing:
        """How things are: permits, who holds and who waits, and how many were refused so far."""
        return self.permits.standing()

    def close(self) -> None:
        """Refuse whoever waits or comes from now on, with `Closed`. What runs goes on; threads end with what they do."""
        with self._lock:
            self._is_closed = True
            if self._pool is not None:
                self._pool.shutdown(wait=False)
        self.permits.close()

    def now(self) -> float:
        """When a call that `adapt` is told of began."""
        return self._clock.monotonic()

    def adapt(self, began: float, error: BaseException | None) -> None:
        """A call has ended that still holds its permit: the limit may be another now."""
        adaptive = self.adaptive
        if adaptive is None:
            return
        now = self._clock.monotonic()
        took = now - began
        if isinstance(error, asyncio.CancelledError | GeneratorExit) and took <= adaptive.policy.latency:
            return
        with self._lock:
            before = adaptive.limit
            limit = adaptive.ended(
                now=now, took_s=took, in_flight=self.permits.in_flight, overload=isinstance(error, _OVERLOAD)
            )
        if limit != before:
            self.permits.resize(limit)

    def _submit(self, run: Callable[..., T], *args: object) -> Future[T]:
        with self._lock:
            if self._is_closed:
                raise Closed(f"the bulkhead {self._name!r} is closed")
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._policy.concurrency, thread_name_prefix=f"faultproof-{self._name}")
            return self._pool.submit(run, *args)
