"""A proxy before PostgreSQL that counts what a client says: statements, and the exchanges that it waits for."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from faultproof.prove.live.address import changed, places
from faultproof.prove.live.messages import Message
from faultproof.prove.live.proxy import Proxy


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

    def hear(self, message: Message) -> None:
        """Count one more message."""
        self.said[message.kind] += 1
        if message.kind == "Q":
            self.texts.add(message.body.rstrip(b"\0"))
        elif message.kind == "P":
            self.texts.add(message.body.split(b"\0")[1])


@asynccontextmanager
async def counted(url: str) -> AsyncIterator[tuple[str, list[Connection]]]:
    """The address of the proxy, and its connections in the order in which they came."""
    connections: list[Connection] = []

    def heard(number: int, message: Message) -> None:
        while len(connections) < number:
            connections.append(Connection())
        connections[number - 1].hear(message)

    ((host, port),) = places(url)
    proxy = Proxy(host, port, heard=heard)
    await proxy.start()
    try:
        yield changed(url, host="127.0.0.1", port=proxy.port), connections
    finally:
        await proxy.close()
