"""Where a run that aims at a mistake holds orders up, whether or not the mistake is made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from faultproof.shop.mistakes import Breakage

HOLD_S = 300.0
"""Longer than any run: what is held is confirmed or released, and never lost to the clock."""
_SHORT_HOLD_S = 2.5
"""Longer than a call may wait for a lock, as the escrow asks."""
_EXPIRED_S = 4.0
"""More than a short hold and the second after which it is given back at the latest."""
_BETWEEN_S = 0.2
"""Enough for others to buy what somebody has just seen; and the correct shop waits it out with the database locked."""
_EVERY = 6
"""Of the orders that get as far as shipping, the second of each so many is held up there."""


def _nobody() -> None:
    """Nobody counts."""


class Delays:
    """None, unless a run aims at one of `mistakes.DELAYED`."""

    def __init__(self, target: Breakage | None = None, tell: Callable[[], None] = _nobody) -> None:
        """`tell` hears of each."""
        self._target = target
        self._tell = tell
        self._shipped = 0

    @property
    def hold_s(self) -> float:
        """How long an order holds its items before it ships."""
        return _SHORT_HOLD_S if self._target == "confirm-after-expiry" else HOLD_S

    async def before_taking(self) -> None:
        """Between seeing what is available and taking it."""
        if self._target == "no-lock":
            self._tell()
            await asyncio.sleep(_BETWEEN_S)

    async def before_shipping(self, attempt: int) -> None:
        """Between reserving and shipping: some orders, once, for so long that their holds end."""
        if self._target == "confirm-after-expiry" and attempt == 1:
            self._shipped += 1
            if self._shipped % _EVERY == 2:
                self._tell()
                await asyncio.sleep(_EXPIRED_S)
