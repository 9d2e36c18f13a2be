"""Loops for a worker that do as the test says."""

import asyncio
from collections.abc import Awaitable, Callable

from faultproof.ports.database import News


class Silence:
    """No news, until somebody rings."""

    def __init__(self) -> None:
        self.rung = asyncio.Event()
        self.waits: list[float] = []

    async def wait(self, timeout: float) -> bool:
        self.waits.append(timeout)
        await self.rung.wait()
        self.rung.clear()
        return True

    def close(self) -> None: ...


class Scripted:
    """Takes its steps from a function, and keeps a diary."""

    def __init__(self, name: str, step: Callable[[], Awaitable[float]]) -> None:
        self.name = name
        self.diary: list[str] = []
        self.news = Silence()
        self._step = step
        self.opening: Callable[[], None] = lambda: None
        self.closing: Callable[[], Awaitable[None]] | None = None

    async def open(self) -> News:
        self.diary.append("open")
        self.opening()
        return self.news

    async def step(self) -> float:
        self.diary.append("step")
        try:
            seconds = await self._step()
        except BaseException as error:
            self.diary.append(type(error).__name__)
            raise
        self.diary.append("done")
        return seconds

    async def close(self) -> None:
        self.diary.append("close")
        if self.closing is not None:
            await self.closing()
