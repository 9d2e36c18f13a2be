"""A proxy before PostgreSQL that counts what a client says: statements, and the exchanges that it waits for."""

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from tests.fakes import WAIT_S

_ASKING_FOR_ENCRYPTION = (80877103, 80877104)  # answered with one byte, and then the start-up message comes


@dataclass
class Connection:
    """What one client connection has said so far."""

    said: Counter[str] = field(default_factory=Counter)
    texts: set[bytes] = field(default_factory=set)
    """Of statements that were parsed, or sent as they are."""

    @property
    def statements(self) -> int:
        """Executed: prepared ones (E) and plain ones (Q)."""
        return self.said["E"] + self.said["Q"]

    @property
    def round_trips(self) -> int:
        """Each Sync (S) and each plain query is answered by "ready", which psycopg waits for."""
        return self.said["S"] + self.said["Q"]


class Frontend:
    """Takes a client's bytes apart."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._bytes = bytearray()
        self._started = False

    def feed(self, data: bytes) -> None:
        """Count the messages that have come whole."""
        self._bytes += data
        while self._bytes:
            head = 0 if not self._started else 1
            if len(self._bytes) < head + 8 - 4 * self._started:
                return
            (length,) = struct.unpack_from("!I", self._bytes, head)
            if len(self._bytes) < head + length:
                return
            message = bytes(self._bytes[: head + length])
            del self._bytes[: head + length]
            if self._started:
                self._count(chr(message[0]), message[5:])
            else:
                self._started = struct.unpack_from("!I", message, 4)[0] not in _ASKING_FOR_ENCRYPTION

    def _count(self, kind: str, body: bytes) -> None:
        self._connection.said[kind] += 1
        if kind == "Q":
            self._connection.texts.add(body.rstrip(b"\0"))
        elif kind == "P":
            self._connection.texts.add(body.split(b"\0")[1])


@asynccontextmanager
async def counted(url: str) -> AsyncIterator[tuple[str, list[Connection]]]:
    """The address of the proxy, and its connections in the order in which they came."""
    parts = urlsplit(url)
    connections: list[Connection] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        connections.append(Connection())
        frontend = Frontend(connections[-1])
        server, to_server = await asyncio.open_connection(parts.hostname, parts.port)

        async def carry(source: asyncio.StreamReader, to: asyncio.StreamWriter, heard: Callable[[bytes], None]) -> None:
            while data := await source.read(65_536):
                heard(data)
                to.write(data)
                await to.drain()
            to.close()

        try:
            with suppress(ConnectionError):
                await asyncio.gather(
                    carry(client, to_server, frontend.feed), carry(server, to_client, lambda data: None)
                )
        finally:
            for end in (to_client, to_server):
                end.close()
                with suppress(ConnectionError):
                    await end.wait_closed()

    def accept(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(serve(client, to_client))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    proxy = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    try:
        yield urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}")), connections
    finally:
        proxy.close()
        # The clients have hung up; what is left ends by itself.
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*tasks)
