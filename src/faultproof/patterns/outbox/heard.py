"""News that remember whether they came: who was called need not look first whether there is anything."""

from __future__ import annotations

from faultproof.ports.database import News


class Heard:
    """`News` around another."""

    def __init__(self, news: News) -> None:
        self._news = news
        self._came = False

    async def wait(self, timeout: float) -> bool:
        """As `News.wait`."""
        self._came = await self._news.wait(timeout)
        return self._came

    def take(self) -> bool:
        """Whether the last wait ended with news; once."""
        came, self._came = self._came, False
        return came

    def close(self) -> None:
        """As `News.close`."""
        self._news.close()
