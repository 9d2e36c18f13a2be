"""Asking a database until there is an answer, as whoever uses one must."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from faultproof.errors import OutcomeUnknown, TryAgain
from faultproof.ports.script import sql
from faultproof.prove.proof import Process

T = TypeVar("T")

AGAIN_S = 0.05


@sql("SELECT {now}")
def now() -> int:
    """By the engine's clock, in microseconds."""


async def answered(process: Process, ask: Callable[[], Awaitable[T]]) -> T:
    """What `ask` returns at last: it is called again for as long as it was not its turn, or its outcome is unknown. So it must
    bear that."""
    while True:
        try:
            return await ask()
        except TryAgain:
            await process.env.clock.sleep(AGAIN_S)
        except OutcomeUnknown:
            await process.env.clock.sleep(AGAIN_S)
