"""News of commits by polling: the listener is told to look, now and then."""

from __future__ import annotations

from faultproof.clock import Env

POLL_S = 0.1
"""At the latest this long after any commit, listeners look."""


class PolledNews:
    """`News` that tells nothing apart. A NOTIFY in every user's transaction would take a global lock at its commit."""

    def __init__(self, env: Env) -> None:
        self._env = env

    async def wait(self, timeout: float) -> bool:
        pause = POLL_S * (0.5 + 0.5 * self._env.rng.random())
        await self._env.clock.sleep(min(pause, timeout))
        return pause <= timeout

    def close(self) -> None:
        pass
