"""Shadows with one guard missing each, for the proof to catch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from faultproof.patterns.bulkhead import Bulkhead
from faultproof.patterns.shadow.copies import TooLarge, copied
from faultproof.patterns.shadow.diff import Diff, Difference, Redacted
from faultproof.patterns.shadow.findings import Ended
from faultproof.patterns.shadow.shadow import Candidate, Shadow
from faultproof.primitives.shadowing import detached

WAITS = "waits for the candidate"
SHARES = "shares production's places"
UNBOUNDED = "waits without a bound"
OLDEST = "drops the oldest"
INHERITS = "inherits the caller's context"
RAISES = "raises at the caller"
WRITES = "mirrors writes"
FORGETS = "forgets what waits"
KEEPS = "keeps values"
BELIEVES = "believes noise"
CUTS = "cuts silently"
LIVES_ON = "lets what hangs live on"


class _Waits(Shadow[Any, Any]):
    async def call(self, primary: Callable[[Any], Awaitable[Any]], request: Any, *, key: str | None = None) -> Any:
        answer = await super().call(primary, request, key=key)
        await self.drain()
        return answer


class Sharing(Shadow[Any, Any]):
    """The candidate takes a place of production's for each call."""

    production: Bulkhead

    async def _guarded(self, function: Candidate[Any], request: Any) -> Ended | str:
        async with self.production.permit():
            return await super()._guarded(function, request)


class _Unbounded(Shadow[Any, Any]):
    def _refusal(self, request: Any) -> str | None:
        refusal = super()._refusal(request)
        return None if refusal == "queue is full" else refusal


class _Oldest(Shadow[Any, Any]):
    def _refusal(self, request: Any) -> str | None:
        refusal = super()._refusal(request)
        if refusal == "queue is full" and self._queue:
            self._queue.popleft()
            return None
        return refusal


class _Inherits(Shadow[Any, Any]):
    async def call(self, primary: Callable[[Any], Awaitable[Any]], request: Any, *, key: str | None = None) -> Any:
        task = asyncio.create_task(self._guarded(self._candidate, request))
        try:
            return await primary(request)
        finally:
            self._reaper.take(task)


class _Raises(Shadow[Any, Any]):
    def _broken(self, wrong: Exception) -> bool:
        raise wrong


class _Writes(Shadow[Any, Any]):
    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **{**given, "is_safe": lambda request: True})


class _Forgets(Shadow[Any, Any]):
    def _stop(self, reason: str) -> None:
        """What waits, waits."""


class _KeepingDiff(Diff):
    def redacted(self, difference: Difference, salt: bytes) -> Redacted:
        return Redacted(difference.kind, repr(difference.primary), repr(difference.candidate))


class _Keeps(Shadow[Any, Any]):
    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **{**given, "compare": _KeepingDiff()})


class _Believes(Shadow[Any, Any]):
    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **{**given, "control": None})


class _Cuts(Shadow[Any, Any]):
    def _copied(self, value: Any, refusal: str) -> tuple[Any, str | None]:
        try:
            return copied(value, self._policy.size), None
        except TooLarge:
            return None, None


class _LivesOn(Shadow[Any, Any]):
    async def _asked(self, function: Candidate[Any], request: Any) -> Ended | str:
        return await asyncio.get_running_loop().create_task(self._guarded(function, request), context=detached())


PLANTED: dict[str, type[Shadow[Any, Any]]] = {
    WAITS: _Waits,
    SHARES: Sharing,
    UNBOUNDED: _Unbounded,
    OLDEST: _Oldest,
    INHERITS: _Inherits,
    RAISES: _Raises,
    WRITES: _Writes,
    FORGETS: _Forgets,
    KEEPS: _Keeps,
    BELIEVES: _Believes,
    CUTS: _Cuts,
    LIVES_ON: _LivesOn,
}
