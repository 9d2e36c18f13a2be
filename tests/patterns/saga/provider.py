"""A small HTTP service on a real socket that answers as it is told, and keeps what it was asked."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple


class Asked(NamedTuple):
    path: str
    headers: dict[str, str]
    body: Any


class Provider:
    """`on[path](number)` gives status, headers and body of the n-th call there; None cuts the connection."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self.on: dict[str, Callable[[int], tuple[int, str, bytes] | None]] = {}

    def paths(self) -> list[str]:
        return [each.path for each in self.asked]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
                path = first.split()[1]
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                self.asked.append(Asked(path, headers, body))
                made = self.on.get(path, lambda number: (200, "", b"{}"))(self.paths().count(path))
                if made is None:
                    return
                status, more, content = made
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n{more}\r\n".encode() + content)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving() -> AsyncIterator[Provider]:
    provider = Provider()
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0)
    provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/"
    try:
        yield provider
    finally:
        server.close()
