"""Envoy's admin interface on a Unix socket, which nobody but its owner can reach."""

from __future__ import annotations

import asyncio
import http.client
import socket

from faultproof.errors import Failed

TIMEOUT_S = 2.0
ANSWER_BYTES_MAX = 16_777_216


class _OnSocket(http.client.HTTPConnection):
    """Of Python's own client, and not at an address."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Admin:
    """What is asked and told there. `Failed` where it does not answer, or not as it should."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def state(self) -> str:
        """LIVE, DRAINING, INITIALIZING or PRE_INITIALIZING."""
        return (await self._asked("GET", "/ready", any_status=True)).strip()

    async def numbers(self, *names: str) -> dict[str, int]:
        """Counters and gauges by name; those that there are not yet are 0."""
        pattern = "|".join(f"^{name.replace('.', '[.]')}$" for name in names)
        lines = (await self._asked("GET", f"/stats?filter={pattern.replace('|', '%7C')}")).splitlines()
        found = dict.fromkeys(names, 0)
        for line in lines:
            name, _, value = line.rpartition(": ")
            if name in found and value.isdigit():
                found[name] = int(value)
        return found

    async def tell(self, path: str) -> None:
        """A command."""
        await self._asked("POST", path)

    async def _asked(self, method: str, path: str, *, any_status: bool = False) -> str:
        try:
            # In a thread, with the socket's own timeouts: a handful of requests in a sidecar's life.
            status, text = await asyncio.to_thread(self._ask, method, path)
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"envoy does not answer {path}: {type(error).__name__}") from error
        if status != http.client.OK and not any_status:
            raise Failed(f"envoy answers {status} to {path}")
        return text

    def _ask(self, method: str, path: str) -> tuple[int, str]:
        connection = _OnSocket(self._path)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read(ANSWER_BYTES_MAX).decode(errors="replace")
        finally:
            connection.close()
