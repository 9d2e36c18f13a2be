"""Permits of a compartment: so many calls at once, so many that wait, none for too long; fair among tenants.

Promise:

- Never more than `concurrency` permits are held, over all event loops and threads of the process, nor more by one tenant
  than it may have.
- No permit is lost. A call that is cancelled while it waits, also in the very moment in which it is given a permit, leaves
  neither a permit nor a place behind; so does one whose event loop is closed, and one that is collected as garbage.
- Nobody overtakes: what comes while others wait that may have a permit waits, too. Who is next: `fair_queue.py`.
- What has waited for too long, or past its deadline, never runs; what finds no room to wait is refused at once, with
  `Overloaded`, or pushes out who would be last.

Proof: `faultproof.patterns.bulkhead.proof:PERMITS`.

Undisturbed, `try_enter` and `leave` are a few additions under a lock that nobody holds across a wait. The lock is reentrant,
and what changes the queue is done one after the other (`_change`), because a permit can be given back anywhere: by the
garbage collector, in the middle of one of these functions, in the same thread.
"""

from __future__ import annotations

import asyncio
import enum
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from faultproof import bounds
from faultproof.clock import Env
from faultproof.errors import Closed, DeadlineExceeded, InvalidInput, Misuse, Overloaded, TryAgain
from faultproof.primitives.compartments import PermitsPolicy
from faultproof.primitives.fair_queue import FairQueue, Queued, Tenant
from faultproof.signals import PERMITS_IN_FLIGHT, PERMITS_LIMIT, PERMITS_SHED, QUEUE_AGE, QUEUE_DEPTH

RETRY_AFTER_MIN_S = 0.1
"""Somebody who is refused does not come back at once."""
IDLE_TENANTS = 1_000
"""Tenants of which nothing is in flight or waits are kept as long as they are not many more than this."""
PRIORITY_MOST = 9
"""Priorities are whole numbers from so far below zero to so far above."""
OTHER = "other"
"""Tenants that no policy names are one in signals: their number has no bound."""


class Left(Protocol):
    """A deadline."""

    def left(self) -> float:
        """Seconds until then; none or fewer when it is over."""
        ...


class State(enum.Enum):
    """Of a call that had to wait."""

    WAITING = "waiting"
    GRANTED = "granted"
    GONE = "gone"


class Waiter(Queued):
    """A call that waits, in whatever loop it runs."""

    __slots__ = ("expires", "future", "is_deadline", "loop", "refusal", "since", "state")

    def __init__(self, tenant: Tenant, priority: int, since: float, seconds: float, is_deadline: bool) -> None:
        super().__init__(tenant, priority)
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.since = since
        self.expires = since + seconds
        self.is_deadline = is_deadline
        """Whether that is its deadline, or only as long as anybody waits."""
        self.state = State.WAITING
        self.refusal: TryAgain | Closed | None = None

    def wake(self) -> bool:
        """False if there is nobody any more."""
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:  # a thread without one
            here = False
        if here:
            return self._woken()
        try:
            self.loop.call_soon_threadsafe(self._woken)
        except RuntimeError:  # closed
            return False
        return True

    def _woken(self) -> bool:
        if self.future.done():
            return False
        self.future.set_result(None)
        return True


class TenantStanding(NamedTuple):
    """One tenant at this moment."""

    in_flight: int
    waiting: int
    most: int
    """Permits that it may have."""


class Standing(NamedTuple):
    """A compartment at this moment."""

    limit: int
    """Permits that there are."""
    in_flight: int
    """Permits that are held."""
    waiting: int
    oldest_s: float
    """How long the oldest of them has waited."""
    shed: int
    """Calls refused so far: no room, pushed out, or waited too long …"""
    expired: int
    """… or past their deadline."""
    tenants: Mapping[str, TenantStanding]
    """Those that have, or want, any."""


class Permits:
    """The permits of one compartment. From any thread, but for `enter`, which waits in the event loop that it is called in."""

    def __init__(self, env: Env, policy: PermitsPolicy, *, name: str) -> None:
        self._env = env
        self._policy = policy
        self._name = bounds.name("a compartment", name)
        self._lock = threading.RLock()
        self._limit = policy.concurrency
        self._in_flight = 0
        self._tenants: dict[str, Tenant] = {}
        self._queue = FairQueue(patience=policy.patience)
        self._waiting = self._queue.calls
        self._changes: deque[tuple[Callable[[Any], None], Any]] = deque()  # bounded: done at once
        self._changing = False
        self._shed = 0
        self._expired = 0
        self._closed = False

    @property
    def limit(self) -> int:
        """Permits that there are; none once it is closed."""
        return self._limit

    @property
    def in_flight(self) -> int:
        """Permits that are held."""
        return self._in_flight

    def try_enter(self, tenant: str = "") -> Tenant | None:
        """A permit, to be given to `leave`, if one is free and nobody else is to have it; without waiting."""
        with self._lock:
            mine = self._tenants.get(tenant) or self._made(tenant)
            if self._in_flight >= self._limit or mine.in_flight >= mine.most:
                return None  # were there any that others wait for, they would have it
            self._in_flight += 1
            mine.in_flight += 1
            return mine

    def leave(self, tenant: Tenant) -> None:
        """Give a permit back: what `try_enter` or `enter` gave, once."""
        with self._lock:
            if not tenant.in_flight:
                raise Misuse(f"a permit of {self._name!r} was given back twice")
            self._in_flight -= 1
            tenant.in_flight -= 1
            if self._waiting:
                self._change(self._freed, tenant)

    async def enter(self, tenant: str = "", *, priority: int = 0, deadline: Left | None = None) -> Tenant:
        """A permit, to be given to `leave`; waits for its turn.

        Raises `Overloaded` when there is no room to wait, somebody with more right to it took the place, or `wait` seconds
        passed; `DeadlineExceeded` when the deadline did. In each case nothing was done.
        """
        if priority:
            bounds.count("priority", priority, least=-PRIORITY_MOST, most=PRIORITY_MOST)
        left = math.inf if deadline is None else deadline.left()
        if left <= 0:
            raise self._too_late()
        return self.try_enter(tenant) or await self._wait(tenant, priority, left)

    def resize(self, limit: int) -> None:
        """From now on there are so many permits, at least one and at most the policy's. Those held stay held."""
        limit = max(1, min(limit, self._policy.concurrency))
        with self._lock:
            if limit == self._limit or self._closed:
                return
            self._change(self._resized, limit)
        self._env.signals.emit(PERMITS_LIMIT, limit, bulkhead=self._name)

    def close(self) -> None:
        """Refuse whoever waits, and whoever would have to."""
        with self._lock:
            self._change(self._close, None)

    def standing(self) -> Standing:
        """How things are."""
        now = self._env.clock.monotonic()
        with self._lock:
            oldest = self._queue.oldest
            tenants = {
                each.name: TenantStanding(each.in_flight, len(each.waiting), each.most)
                for each in self._tenants.values()
                if each.in_flight or each.waiting
            }
            since = oldest.since if isinstance(oldest, Waiter) else now
            return Standing(
                self._limit, self._in_flight, len(self._waiting), now - since, self._shed, self._expired, tenants
            )

    # -- waiting ----------------------------------------------------------------------------------------------------

    async def _wait(self, name: str, priority: int, left: float) -> Tenant:
        now = self._env.clock.monotonic()
        longest = self._policy.wait
        with self._lock:
            tenant = self._tenants.get(name) or self._made(name)
            waiter = Waiter(tenant, priority, now, min(left, longest), left <= longest)
            self._change(self._came, waiter)
        if waiter.state is State.WAITING:
            await self._turn(waiter, waiter.expires - now)
        if waiter.refusal is not None:
            self._tell_refused(waiter)
            raise waiter.refusal
        return tenant

    async def _turn(self, waiter: Waiter, seconds: float) -> None:
        signals = self._env.signals
        signals.emit(QUEUE_DEPTH, len(self._waiting), queue=self._name)
        signals.emit(PERMITS_IN_FLIGHT, self._in_flight, bulkhead=self._name)
        alarm = self._env.clock.alarm(seconds, lambda: self._rings(waiter))
        try:
            await waiter.future
        except BaseException:  # cancelled, or thrown away: also when it has a permit already
            with self._lock:
                self._change(self._gave_up, waiter)
            raise
        finally:
            alarm.cancel()
        now = self._env.clock.monotonic()
        signals.emit(QUEUE_AGE, now - waiter.since, queue=self._name)
        if waiter.is_deadline and waiter.expires <= now and waiter.state is State.GRANTED:
            with self._lock:  # it was in time when it was given the permit, and the event loop was busy since
                self._change(self._gave_up, waiter)
                waiter.refusal = self._too_late()

    def _rings(self, waiter: Waiter) -> None:
        with self._lock:
            self._change(self._waited_too_long, waiter)

    def _tell_refused(self, waiter: Waiter) -> None:
        if isinstance(waiter.refusal, Overloaded):
            name = waiter.tenant.name
            known = name if not name or name in self._policy.tenants else OTHER
            self._env.signals.emit(PERMITS_SHED, 1, bulkhead=self._name, tenant=known)

    # -- what changes the queue, one after the other ------------------------------------------------------------------

    def _change(self, step: Callable[[Any], None], subject: object) -> None:
        """Under the lock. What comes while another is under way, in the same thread, is done behind it."""
        self._changes.append((step, subject))
        if self._changing:
            return
        self._changing = True
        try:
            while self._changes:
                step, subject = self._changes.popleft()
                step(subject)
                self._hand_on()
        finally:
            self._changing = False

    def _came(self, waiter: Waiter) -> None:
        tenant = waiter.tenant
        if self._closed:
            waiter.refusal, waiter.state = Closed(f"the bulkhead {self._name!r} is closed"), State.GONE
            return
        of_tenant = len(tenant.waiting) >= tenant.queue
        if of_tenant or len(self._waiting) >= self._policy.queue:
            last = self._queue.last(waiter, of_tenant=of_tenant)
            assert isinstance(last, Waiter)
            waiting = len(tenant.waiting) if of_tenant else len(self._waiting)
            self._refuse(last, self._overloaded(f"{waiting} calls wait already"))
            if last is waiter:
                return
        self._queue.add(waiter)

    def _freed(self, tenant: Tenant) -> None:
        self._queue.show(tenant)

    def _gave_up(self, waiter: Waiter) -> None:
        if waiter.state is State.WAITING:
            self._queue.remove(waiter)
        elif waiter.state is State.GRANTED:
            self._take_back(waiter.tenant)
        waiter.state = State.GONE

    def _waited_too_long(self, waiter: Waiter) -> None:
        if waiter.state is State.WAITING:
            self._refuse(waiter, self._overdue(waiter))

    def _resized(self, limit: int) -> None:
        self._limit = limit
        for tenant in self._tenants.values():
            tenant.most = self._policy.most(tenant, limit)
            self._queue.show(tenant)

    def _close(self, _: None) -> None:
        self._closed, self._limit = True, 0
        while (waiter := self._queue.oldest) is not None:
            assert isinstance(waiter, Waiter)
            self._refuse(waiter, Closed(f"the bulkhead {self._name!r} was closed"))

    def _hand_on(self) -> None:
        """Give what is free to those whose turn it is."""
        while self._in_flight < self._limit and (waiter := self._queue.next()) is not None:
            assert isinstance(waiter, Waiter)
            if waiter.expires <= self._env.clock.monotonic():
                self._refuse(waiter, self._overdue(waiter))
            elif not waiter.wake():  # cancelled, and does not know it yet; or its loop is closed
                self._queue.remove(waiter)
                waiter.state = State.GONE
            else:
                waiter.state = State.GRANTED
                self._in_flight += 1
                waiter.tenant.in_flight += 1
                self._queue.take(waiter)

    def _take_back(self, tenant: Tenant) -> None:
        self._in_flight -= 1
        tenant.in_flight -= 1
        self._queue.show(tenant)

    def _refuse(self, waiter: Waiter, refusal: TryAgain | Closed) -> None:
        if waiter.arrival:  # it waits already
            self._queue.remove(waiter)
        waiter.state = State.GONE
        waiter.refusal = refusal
        waiter.wake()

    # -- words and sizes ------------------------------------------------------------------------------------------------

    def _overdue(self, waiter: Waiter) -> TryAgain:
        if waiter.is_deadline:
            return self._too_late()
        return self._overloaded(f"none came free in {self._policy.wait:g} s")

    def _too_late(self) -> DeadlineExceeded:
        self._expired += 1
        return DeadlineExceeded(f"the deadline passed before a permit of {self._name!r} was free: nothing was done")

    def _overloaded(self, why: str) -> Overloaded:
        self._shed += 1
        oldest = self._queue.oldest
        waited = self._env.clock.monotonic() - oldest.since if isinstance(oldest, Waiter) else 0.0
        return Overloaded(
            f"no permit of {self._name!r}: {why}. Come back later", retry_after=max(waited, RETRY_AFTER_MIN_S)
        )

    def _made(self, name: str) -> Tenant:
        """A tenant that has not been here, or was forgotten."""
        if not isinstance(name, str):
            raise InvalidInput(f"a tenant is named with a string, got {bounds.short(name)}")
        if len(self._tenants) >= IDLE_TENANTS + self._policy.concurrency + self._policy.queue:
            # What is in flight or waits is bounded, so that this is rare. Who is forgotten owes nothing any more.
            self._tenants = {
                name: tenant for name, tenant in self._tenants.items() if tenant.in_flight or tenant.waiting
            }
        tenant = self._policy.tenant(name)
        tenant.most = self._policy.most(tenant, self._limit)
        self._tenants[name] = tenant
        return tenant
