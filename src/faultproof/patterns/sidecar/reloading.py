"""A policy file that changes: looked at now and then, read when it has come to rest, and put in force if it can be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from faultproof.clock import Env
from faultproof.errors import FaultproofError

C = TypeVar("C")

LOOK_S = 1.0
"""A file counts as at rest when it is the same at two looks."""


class Reloads(Generic[C]):
    """Reads a configuration again when it has changed, or somebody asks.

    `look`: gives something that is another one when the file is, without reading it. `load`: the configuration, or raises a
    `FaultproofError`, and then nothing changes. `put`: takes what was loaded. `said`: hears why something was refused.
    """

    def __init__(
        self,
        env: Env,
        *,
        look: Callable[[], object],
        load: Callable[[], Awaitable[C]],
        put: Callable[[C], object],
        said: Callable[[str], object],
    ) -> None:
        self._env = env
        self._look = look
        self._load = load
        self._put = put
        self._said = said
        self._is_asked = False
        self._rest: asyncio.Future[None] | None = None

    def ask(self) -> None:
        """Read it now, whether it has changed or not."""
        self._is_asked = True
        self._wake()

    async def run(self) -> None:
        """Until it is cancelled."""
        read = last = self._look()
        while True:
            await self._pause()
            before, last = last, self._look()
            if self._is_asked or (last != read and last == before):
                self._is_asked, read = False, last
                await self._reload()

    async def _reload(self) -> None:
        try:
            self._put(await self._load())
        except FaultproofError as error:
            self._said(f"the new policy is not in force, the last one is: {error}")

    def _wake(self) -> None:
        if self._rest is not None and not self._rest.done():
            self._rest.set_result(None)

    async def _pause(self) -> None:
        if self._is_asked:
            return
        self._rest = asyncio.get_running_loop().create_future()
        alarm = self._env.clock.alarm(LOOK_S, self._wake)
        try:
            await self._rest  # unbounded: the alarm rings
        finally:
            alarm.cancel()
            self._rest = None
