"""What proofs that measure say of a time in which the process itself was stopped."""

from __future__ import annotations

import asyncio

from faultproof.clock import Env

TICK_S = 0.005
LAG_MOST_S = 0.001


class Watch:
    """Notices when the process did not run for a while: what was measured then says nothing of what it was to show."""

    def __init__(self, env: Env) -> None:
        self._clock = env.clock
        self.stopped = False
        self._task = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        while True:
            before = self._clock.monotonic()
            await self._clock.sleep(TICK_S)
            self.stopped |= self._clock.monotonic() - before > TICK_S + LAG_MOST_S

    def end(self) -> None:
        self._task.cancel()
