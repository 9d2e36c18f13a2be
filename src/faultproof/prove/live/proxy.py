"""A TCP proxy before a PostgreSQL server: what networks do to connections, done on purpose, on loopback only.

Each fault ends by itself, or with `close`: connections that it has spoilt are reset, as a network that recovers does.
TLS is refused in the start-up exchange, because behind it no COMMIT could be seen; an address that demands it
(`sslmode=require`) cannot be used through this proxy.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from faultproof.prove.live.messages import Frames, Message, Speaker, has_committed, in_transaction, is_ready

Towards = Literal["server", "client"]
CONNECTIONS_MAX = 500
"""Further clients are turned away."""
START_S = 20.0
"""How long a client may take to say who it is, and the server to be reached."""
_CHUNK = 65_536
_ENCRYPTION = (80877103, 80877104)  # SSLRequest, GSSENCRequest
_CANCEL = 80877102
_STARTUP_MAX = 10_000  # the server's own limit


class Proxy:
    """Listens on a port of loopback and carries connections to one server. Use it in one event loop.

    `heard` is told of each message that a client sends, with the number of its connection.
    """

    def __init__(self, host: str, port: int, *, heard: Callable[[int, Message], object] | None = None) -> None:
        self.latency_s = 0.0
        """Added to what is carried, in either direction."""
        self.keep_s = 0.0
        """How long the server's side stays open when its client is gone: what an orphaned backend holds, it keeps holding."""
        self.fired: Counter[str] = Counter()
        """Which faults have really met a connection, and how often."""
        self.port = 0
        self._there = (host, port)
        self._heard = heard
        self._pairs: dict[int, _Pair] = {}  # bounded: CONNECTIONS_MAX
        self._tasks: set[asyncio.Task[None]] = set()  # bounded: likewise
        self._numbers = 0
        self._commits_until_drop = 0
        self._lost: Towards | None = None
        self._healing: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, and cut what is still connected."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.heal()

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._pairs)

    # -- faults -------------------------------------------------------------------------------------------------------

    def delay(self, seconds: float) -> None:
        """From now on everything takes so much longer."""
        self.latency_s = seconds

    def reset(self) -> None:
        """Both ends of every connection are told at once that it is gone."""
        for pair in list(self._pairs.values()):
            self.fired["reset"] += 1
            pair.cut()

    def half_open(self, seconds: float) -> None:
        """The server sees every connection end; the clients are not told, and get no answer, until so much later."""
        for pair in list(self._pairs.values()):
            self.fired["half-open"] += 1
            pair.lost = {"server", "client"}
            pair.to_server.close()
        self._heal_after(seconds)

    def blackhole(self, towards: Towards, seconds: float) -> None:
        """What travels in this direction is lost, on old connections and on new ones, until so much later."""
        self._lost = towards
        for pair in self._pairs.values():
            pair.lost.add(towards)
        self._heal_after(seconds)

    def drop_commit_answer(self, number: int = 1) -> None:
        """The so-many-th COMMIT from now on is forwarded; the server commits, and instead of its answer the client sees
        its connection reset. A COMMIT that the server refuses is answered, and the next one takes its place."""
        self._commits_until_drop = number

    def heal(self) -> None:
        """No more faults: whatever is spoilt is reset."""
        if self._healing is not None:
            self._healing.cancel()
        self._lost, self._healing, self.latency_s, self.keep_s = None, None, 0.0, 0.0
        self._commits_until_drop = 0
        for pair in list(self._pairs.values()):
            if pair.lost or pair.orphaned:
                pair.cut()

    def _heal_after(self, seconds: float) -> None:
        self._healing = asyncio.get_running_loop().call_later(seconds, self.heal)

    # -- carrying -----------------------------------------------------------------------------------------------------

    async def _accept(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if len(self._pairs) >= CONNECTIONS_MAX:
            to_client.close()
            return
        self._numbers += 1
        task = asyncio.create_task(self._serve(self._numbers, client, to_client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, number: int, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        pair: _Pair | None = None
        try:
            async with asyncio.timeout(START_S):
                first = await _started(client, to_client)
                server, to_server = await asyncio.open_connection(*self._there)
                pair = self._pairs[number] = _Pair(to_client, to_server)
                if self._lost is not None:
                    pair.lost.add(self._lost)
                to_server.write(first)
                await to_server.drain()
            async with asyncio.TaskGroup() as both:
                both.create_task(self._to_server(number, pair, client))
                both.create_task(self._to_client(pair, server))
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            pass  # the client is turned away, as it would be by a server that cannot be reached
        finally:
            self._pairs.pop(number, None)
            for end in (to_client, *([pair.to_server] if pair else [])):
                end.close()
                with suppress(OSError):
                    await end.wait_closed()

    async def _to_server(self, number: int, pair: _Pair, client: asyncio.StreamReader) -> None:
        frames, said = Frames(), Speaker()
        while data := await _read(client):
            for message in frames.feed(data):
                if self._heard is not None:
                    self._heard(number, message)
                pair.hears(message)
                if said.commits(message) and self._commits_until_drop:
                    self._commits_until_drop -= 1
                    pair.dropping = pair.dropping or not self._commits_until_drop
            await self._pause()
            if "server" in pair.lost:
                self.fired["blackhole to the server"] += 1
            else:
                pair.to_server.write(data)
                await _drain(pair.to_server)
        if not pair.is_cut and self.keep_s and (pair.busy or pair.in_transaction):
            pair.orphaned = True
            self.fired["orphan"] += 1
            await asyncio.sleep(self.keep_s)
        pair.to_server.close()

    async def _to_client(self, pair: _Pair, server: asyncio.StreamReader) -> None:
        frames, held = Frames(), bytearray()
        while data := await _read(server):
            committed = False
            for message in frames.feed(data):
                committed |= has_committed(message)
                if is_ready(message):
                    pair.busy, pair.in_transaction = False, in_transaction(message)
            if pair.dropping:
                held += data
                if committed:
                    self.fired["dropped answer"] += 1
                    pair.cut()
                    return
                if pair.busy:
                    continue
                data, pair.dropping, self._commits_until_drop = bytes(held), False, 1  # refused: the next one then
                held.clear()
            await self._pause()
            if "client" in pair.lost:
                self.fired["blackhole to the client"] += 1
            elif not pair.orphaned:
                pair.to_client.write(data)
                await _drain(pair.to_client)
        if not pair.lost:
            pair.to_client.close()

    async def _pause(self) -> None:
        if self.latency_s:
            self.fired["latency"] += 1
            await asyncio.sleep(self.latency_s)


class _Pair:
    """The two ends of one connection."""

    def __init__(self, to_client: asyncio.StreamWriter, to_server: asyncio.StreamWriter) -> None:
        self.to_client = to_client
        self.to_server = to_server
        self.lost: set[Towards] = set()
        self.busy = False
        """The server has been asked something that it has not answered."""
        self.in_transaction = False
        self.dropping = False
        """The answer to a COMMIT is awaited, and will be dropped."""
        self.orphaned = False
        """The client is gone, and the server has not been told."""
        self.is_cut = False

    def hears(self, message: Message) -> None:
        """The client has said this."""
        self.busy = message.kind != "X"  # which takes leave, and is not answered
        self.in_transaction &= self.busy

    def cut(self) -> None:
        """Reset both ends."""
        self.is_cut = True
        for end in (self.to_client, self.to_server):
            raw: socket.socket | None = end.get_extra_info("socket")
            if raw is not None:
                with suppress(OSError):  # it is closed
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()


async def _started(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> bytes:
    """The client's first message to be carried. Raises `ValueError` for one that is none."""
    for _ in range(3):
        head = await client.readexactly(8)
        length, code = struct.unpack("!II", head)
        if not 8 <= length <= _STARTUP_MAX:
            raise ValueError("not PostgreSQL's protocol")
        if code not in _ENCRYPTION:
            return head + await client.readexactly(length - 8)
        to_client.write(b"N")
        await to_client.drain()
    raise ValueError("asks for encryption again and again")


async def _read(source: asyncio.StreamReader) -> bytes:
    try:
        return await source.read(_CHUNK)
    except OSError:
        return b""


async def _drain(end: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # the other direction notices
        await end.drain()
