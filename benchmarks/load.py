"""What every contestant is given to do, and how it is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

BODY = {"order": "o-123456", "item": "whole milk", "version": 17}
"""What is published."""


async def by_callers(callers: int, each: int, call: Callable[[], Awaitable[object]]) -> float:
    """Calls a second of `callers` at the same time that make `each` calls, one after the other."""

    async def caller() -> None:
        for _ in range(each):
            await call()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return callers * each / (time.perf_counter() - began)
