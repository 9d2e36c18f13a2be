"""`Shadow`: a share of live requests, copied to a candidate whose answers nobody waits for."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

from faultproof import bounds
from faultproof.clock import Env
from faultproof.errors import Overloaded
from faultproof.patterns.shadow.copies import TooLarge, copied
from faultproof.patterns.shadow.diff import Diff
from faultproof.patterns.shadow.findings import Ended, Findings, ShadowReport
from faultproof.patterns.shadow.policy import ShadowPolicy
from faultproof.primitives.callables import check_arity, check_async
from faultproof.primitives.flags import FeatureFlag
from faultproof.primitives.reaper import Reaper
from faultproof.primitives.shadowing import detached
from faultproof.primitives.timeouts import Timeouts
from faultproof.signals import SHADOW_DIFFERENT, SHADOW_DROPPED, SHADOW_FAILED

Q = TypeVar("Q")
A = TypeVar("A")

Candidate = Callable[[Q], Awaitable[Any]]

LEFT_MAX = 16
"""Calls that were cancelled and have not ended: with so many the candidate gets nothing more."""
SAFE_METHODS = frozenset({"GET", "HEAD"})

_logger = logging.getLogger("faultproof")


class _Copy(NamedTuple):
    """A request that the candidate is to have."""

    request: Any
    primary: Ended
    since: float


class Shadow(Generic[Q, A]):
    """A share of live requests goes to a candidate as well; its answers are compared, and otherwise nobody notices.

    ::

        shadow = fp.Shadow(candidate, share=0.05, flag=flags["pricing.shadow"], is_safe=lambda request: True)
        answer = await shadow.call(primary, request)
        # or, where the answer is at hand:
        shadow.offer(request, answer, took_s=…)
        shadow.report()

    `candidate`, `control`: `async def (request)`; the control is what answers in production, once more, so that what differs
    from call to call is known for noise. `share`: of the requests, or a flag that says so. `flag`: off, nothing is mirrored
    from this moment on, what waits is dropped and what runs is cancelled. `is_safe`: whether a request has no effects; without
    it only those with a `method` of GET or HEAD are mirrored. Requests and answers are copied as far as they are dicts and
    lists; let nobody change other objects.

    Promise: who calls waits for nothing of this and gets no error of it; queue, calls, memory and what is kept are bounded; the
    candidate runs in a context of its own, marked by `fp.is_shadow()`, in which our durable calls refuse. A candidate that
    computes or blocks takes the event loop with it: give it processes of its own, `fp.ShadowProcesses`. Belongs to one event
    loop. Proof: `faultproof.patterns.shadow.proof:SHADOW`.
    """

    def __init__(
        self,
        candidate: Candidate[Q],
        *,
        share: float | FeatureFlag = 0.05,
        flag: FeatureFlag | None = None,
        control: Candidate[Q] | None = None,
        is_safe: Callable[[Q], bool] | None = None,
        policy: ShadowPolicy | None = None,
        compare: Diff | None = None,
        env: Env | None = None,
        name: str = "shadow",
    ) -> None:
        for what, function in (("the candidate", candidate), ("the control", control)):
            check_async(function, what) if function is not None else None
            check_arity(function, 1, f"{what} is called with the request")
        check_arity(is_safe, 1, "`is_safe` is called with the request")
        self._env = env or Env()
        self._candidate = candidate
        self._control = control
        self._is_safe = is_safe or _is_read
        self._policy = policy or ShadowPolicy()
        self._name = bounds.name("a shadow", name)
        self._share = share if isinstance(share, FeatureFlag) else FeatureFlag(f"{name}.share", float(share))
        self._flag = flag
        salt = self._env.ids.new().encode()  # drawn anew in each process: of short values hashes alone would tell
        self._findings = Findings(self._policy, compare or Diff(), salt)
        self._timeouts = Timeouts(self._env.clock, self._policy.timeout)
        self._reaper = Reaper(LEFT_MAX)
        self._queue: deque[_Copy] = deque()  # bounded: by policy.queue, in `_accept`
        self._running: dict[asyncio.Task[None], None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self._is_pumping = False
        self._offered = 0
        self._told: Counter[str] = Counter()
        self._gap: float = 0
        """Requests that are not mirrored before the next one that is."""
        self._endings = [each.subscribe(self._changed) for each in (self._share, flag) if each is not None]
        self._draw()

    async def __aenter__(self) -> Shadow[Q, A]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def offer(
        self,
        request: Q,
        answer: A | None = None,
        *,
        error: BaseException | None = None,
        took_s: float | None = None,
        key: str | None = None,
    ) -> bool:
        """A request that has been answered, or has failed with `error`: whether the candidate will have it.

        Never waits and never raises. `key`: whose it is; then the share is one of keys, always the same ones.
        """
        try:
            return self._is_chosen(key) and self._accept(request, self._ended(answer, error, took_s), copy=True)
        except Exception as wrong:
            return self._broken(wrong)

    async def call(self, primary: Callable[[Q], Awaitable[A]], request: Q, *, key: str | None = None) -> A:
        """What `await primary(request)` gives or raises; offered when it has."""
        given = self._given(request, key)
        if given is None:
            return await primary(request)
        clock = self._env.clock
        began = clock.monotonic()
        try:
            answer = await primary(request)
        except Exception as error:
            self._answered(given, None, error, clock.monotonic() - began)
            raise
        self._answered(given, answer, None, clock.monotonic() - began)
        return answer

    def report(self) -> ShadowReport:
        """What has been found out since it was made."""
        return self._findings.report(
            offered=self._offered, waiting=len(self._queue), running=len(self._running), left=len(self._reaper)
        )

    async def drain(self, timeout: float = 10.0) -> bool:
        """Wait until the candidate has nothing to do any more: whether that was so within `timeout` seconds."""
        with Timeouts(self._env.clock, timeout).cut(self._env.clock.monotonic()) as cut:
            while self._queue or self._running:
                self._pump()
                if self._running:
                    await asyncio.wait(self._running)
        return not cut.is_due

    async def close(self) -> int:
        """Mirror no more, and cancel what runs; how many of the candidate's calls had not ended after 10 s."""
        self._is_closed = True
        for end in self._endings:
            end()
        self._gap = math.inf
        self._stop("closed")
        return await self._reaper.close(self._env.clock)

    # -- on the caller's path -------------------------------------------------------------------------------------------

    def _is_chosen(self, key: str | None) -> bool:
        self._offered += 1
        if key is not None:
            return self._is_on and self._share.holds(key)
        self._gap -= 1
        if self._gap >= 0:
            return False
        self._draw()
        return self._gap != math.inf

    @property
    def _is_on(self) -> bool:
        return not self._is_closed and (self._flag is None or self._flag.is_on)

    def _draw(self) -> None:
        """How many are passed over: as if each were drawn for, and one number for all of them."""
        share = self._share.share if self._is_on else 0.0
        if share <= 0:
            self._gap = math.inf
        elif share >= 1:
            self._gap = 0
        else:
            self._gap = math.floor(math.log(1 - self._env.rng.random()) / math.log1p(-share))

    def _accept(self, request: Q, primary: Ended, *, copy: bool) -> bool:
        refusal = self._refusal(request)
        if refusal is None and copy:
            request, refusal = self._copied(request, "request too large")
        answer, refusal = (None, refusal) if refusal else self._copied(primary.answer, "answer too large")
        if refusal is not None:
            self._findings.dropped[refusal] += 1
            return False
        self._queue.append(_Copy(request, primary._replace(answer=answer), self._env.clock.monotonic()))
        if not self._is_pumping and len(self._running) < self._policy.concurrency:
            self._is_pumping = True
            assert self._loop is not None
            self._loop.call_soon(self._pump, context=Context())
        return True

    def _refusal(self, request: Q) -> str | None:
        """Why it is not mirrored, by what costs least to find out."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None and not self._loop.is_closed():
                return "another event loop"
            self._loop, self._is_pumping = loop, False
            self._running.clear()
        if not self._is_on:
            return "off"
        if self._reaper.is_full:
            return "candidate is stuck"
        if len(self._queue) >= self._policy.queue + self._policy.concurrency - len(self._running):
            return "queue is full"
        return None if self._is_safe(request) else "not safe"

    def _copied(self, value: Any, refusal: str) -> tuple[Any, str | None]:
        try:
            return copied(value, self._policy.size), None
        except TooLarge:
            return None, refusal

    def _ended(self, answer: A | None, error: BaseException | None, took_s: float | None) -> Ended:
        return Ended(answer, None if error is None else _kind(error), took_s)

    def _given(self, request: Q, key: str | None) -> tuple[Q] | None:
        """The request as it is before it is answered, if it is to be mirrored."""
        try:
            if not self._is_chosen(key):
                return None
            refusal = self._refusal(request)
            if refusal is None:
                given, refusal = self._copied(request, "request too large")
                if refusal is None:
                    return (given,)
            self._findings.dropped[refusal] += 1
        except Exception as wrong:
            self._broken(wrong)
        return None

    def _answered(self, given: tuple[Q], answer: A | None, error: Exception | None, took_s: float) -> None:
        try:
            self._accept(given[0], self._ended(answer, error, took_s), copy=False)
        except Exception as wrong:
            self._broken(wrong)

    def _broken(self, wrong: Exception) -> bool:
        self._findings.dropped[f"failed before ({type(wrong).__name__})" if _is_known(wrong) else "failed before"] += 1
        return False

    # -- behind its back ------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """A flag has: in whatever thread."""
        self._draw()
        if math.isinf(self._gap):
            loop = self._loop
            if loop is None or loop is _running_loop():
                self._stop("off")
            else:
                with suppress(RuntimeError):  # it has been closed, and nothing runs in it
                    loop.call_soon_threadsafe(self._stop, "off")

    def _stop(self, reason: str) -> None:
        self._findings.dropped[reason] += len(self._queue) + len(self._running)
        self._queue.clear()
        running, self._running = self._running, {}
        for task in running:
            task.cancel()
        self._tell()

    def _pump(self) -> None:
        self._is_pumping = False
        now = self._env.clock.monotonic()
        while self._queue and len(self._running) < self._policy.concurrency:
            copy = self._queue.popleft()
            if now - copy.since > self._policy.age:
                self._findings.dropped["waited too long"] += 1
            elif self._reaper.is_full:
                self._findings.dropped["candidate is stuck"] += 1
            else:
                task = asyncio.get_running_loop().create_task(
                    self._mirror(copy), name=f"faultproof-{self._name}", context=Context()
                )
                self._running[task] = None
                task.add_done_callback(self._mirrored)

    def _mirrored(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (wrong := task.exception()) is not None:
            _logger.error("the shadow %s failed by itself", self._name, exc_info=wrong)
        if task in self._running:  # or it has been stopped, and counted
            del self._running[task]
            self._pump()
        self._tell()

    async def _mirror(self, copy: _Copy) -> None:
        control, again = None, None
        if self._control is not None and self._env.rng.random() < self._policy.control:
            control, again = self._control, copied(copy.request, self._policy.size)
        findings = self._findings
        candidate = await self._asked(self._candidate, copy.request)
        if isinstance(candidate, str):
            findings.dropped[candidate] += 1
            return
        findings.ended(copy.primary, candidate)
        if candidate.is_timeout or candidate.error is not None:
            self._env.signals.emit(
                SHADOW_FAILED, 1, shadow=self._name, how="timeout" if candidate.is_timeout else "error"
            )
        if candidate.is_timeout:
            return
        second = None if control is None else await self._asked(control, again)
        is_second = isinstance(second, Ended) and not second.is_timeout
        try:
            differs = findings.compare(copy.primary, candidate, second if is_second else None)  # type: ignore[arg-type]
        except Exception:  # what JSON has no way to write
            findings.dropped["cannot be compared"] += 1
            return
        if differs:
            self._env.signals.emit(SHADOW_DIFFERENT, 1, shadow=self._name)

    async def _asked(self, function: Candidate[Q], request: Any) -> Ended | str:
        """What became of it, or why it is not to be counted."""
        clock = self._env.clock
        began = clock.monotonic()
        task = asyncio.get_running_loop().create_task(self._guarded(function, request), context=detached())
        try:
            with self._timeouts.cut(began):
                await asyncio.wait({task})
        finally:
            self._reaper.take(task)  # also where this one is cancelled; of one that has ended it knows nothing
        if not task.done():
            return Ended(None, None, None, is_timeout=True)
        outcome = task.result()
        return outcome if isinstance(outcome, str) else outcome._replace(took_s=clock.monotonic() - began)

    async def _guarded(self, function: Candidate[Q], request: Any) -> Ended | str:
        """Whatever the candidate raises ends here: SystemExit would end the process, and a cancel of its own this task."""
        try:
            return Ended(copied(await function(request), self._policy.size), None, None)
        except Overloaded:
            return "no room at the candidate"
        except TooLarge:
            return "candidate's answer too large"
        except KeyboardInterrupt:  # somebody's at the keyboard, and not the candidate's
            raise
        except BaseException as error:
            return Ended(None, _kind(error), None)

    def _tell(self) -> None:
        """What was dropped since the last time: not on the path of those that were."""
        for reason, count in self._findings.dropped.items():
            if count > self._told[reason]:
                self._env.signals.emit(SHADOW_DROPPED, count - self._told[reason], shadow=self._name, reason=reason)
                self._told[reason] = count


def _is_read(request: Any) -> bool:
    """Of a request that says so by itself: an object with a `method`, or a mapping such as an ASGI scope."""
    method = request.get("method") if isinstance(request, dict) else getattr(request, "method", None)
    return isinstance(method, str) and method.upper() in SAFE_METHODS


def _kind(error: BaseException) -> str:
    """The class of an error; of one in another process as it is called there."""
    return str(getattr(error, "kind", None) or type(error).__name__)[:100]


def _is_known(error: Exception) -> bool:
    """Names of Python's own: those of others have no bound."""
    return type(error).__module__ == "builtins"


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
