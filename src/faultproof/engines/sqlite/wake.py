"""News of commits between processes that share an SQLite file, without polling hot.

Each process that listens binds a Unix datagram socket in `<database>-wake/`; whoever commits sends the topic to every
socket there, after the commit. A datagram may be lost and a writer may not be ours at all (a joined connection), so a
poll stands behind it: every `POLL_S`, jittered, a thread compares the size and time of the write-ahead log
(`watch.py`). Only when they have moved is SQLite asked whether another connection has committed: mostly it was this
process itself, renewing its leases. And `News.wait` always has a timeout, so that no wait depends on any of this.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from faultproof.clock import Env
from faultproof.engines.bells import Bells
from faultproof.engines.sqlite.watch import WalWatch
from faultproof.errors import FaultproofError
from faultproof.ports.database import News

_TOPIC_BYTES_MAX = 200


class Wakeups(Protocol):
    """Carries topics from commits to listeners."""

    def listen(self, topic: str) -> News:
        """Hear of commits under `topic`."""
        ...

    def send(self, topics: Iterable[str]) -> None:
        """Tell every listener in every process. Never blocks and never fails."""
        ...

    def close(self) -> None:
        """Stop hearing and sending."""
        ...


class DatagramWakeups:
    """Datagrams between processes on one machine, and the poll behind them."""

    def __init__(self, database: str, env: Env, *, others: Callable[[], Awaitable[int]], poll_s: float) -> None:
        """`others`: a number that moves when a connection commits which is not this process's writer."""
        self._wal = database + "-wal"
        self._others_committed = others
        self._others_seen: int | None = None
        self._poll_s = poll_s
        self._directory = Path(database + "-wake")
        self._env = env
        self._bells = Bells()
        self._socket: socket.socket | None = None
        self._own: Path | None = None
        self._peers: tuple[str, ...] = ()
        self._peers_seen_ns = -1
        self._watch: WalWatch | None = None
        self._asking: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # where somebody listens
        self._descriptor = -1

    def listen(self, topic: str) -> News:
        if self._watch is None:
            self._loop = asyncio.get_running_loop()
            self._bind()
            self._watch = WalWatch(self._wal, self._moved, poll_s=self._poll_s, rng=self._env.rng)
        return self._bells.listen(topic)

    def send(self, topics: Iterable[str]) -> None:
        topics = tuple(topics)
        self._bells.ring(topics)
        for peer in self._others():
            for topic in topics:
                self._send_one(peer, topic)

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        loop, self._loop = self._loop, None
        if loop is not None and not loop.is_closed():  # nobody waits in a loop that is closed
            if self._asking is not None:
                self._asking.cancel()
            if self._own is not None and self._socket is not None:
                loop.remove_reader(self._socket)
            self._bells.ring_all()
        if self._own is not None:
            with suppress(OSError):  # what stands where the directory was is not ours
                self._own.unlink()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _bind(self) -> None:
        """Listen on a socket of our own. Where that cannot be had (no Unix sockets, no right), the poll remains."""
        if not hasattr(socket, "AF_UNIX"):
            return
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            path = self._directory / f"{os.getpid()}-{self._env.ids.new()[:8]}"
            listener = self._sending_socket()
            listener.bind(self._address(path.name))
        except OSError:
            return
        self._own = path
        asyncio.get_running_loop().add_reader(listener, self._hear, listener)

    def _sending_socket(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        return self._socket

    def _address(self, name: str) -> str:
        """A socket's path. Paths over 107 bytes do not fit; there the directory is named by its descriptor."""
        path = str(self._directory / name)
        if len(os.fsencode(path)) <= 100:
            return path
        if self._descriptor < 0:
            self._descriptor = os.open(self._directory, os.O_RDONLY)
        return f"/proc/self/fd/{self._descriptor}/{name}"

    def _others(self) -> tuple[str, ...]:
        """The sockets of other processes. Listed anew only when the directory changed."""
        try:
            changed_ns = os.stat(self._directory).st_mtime_ns
        except OSError:
            return ()
        if changed_ns != self._peers_seen_ns:
            own = self._own.name if self._own is not None else None
            with suppress(OSError):
                self._peers = tuple(name for name in sorted(os.listdir(self._directory)) if name != own)
            # A listener that came in the same tick of the clock as this listing would be missed: look once more then.
            fresh = self._env.clock.wall_us() * 1000 - changed_ns < 20_000_000
            self._peers_seen_ns = -1 if fresh else changed_ns
        return self._peers

    def _send_one(self, peer: str, topic: str) -> None:
        try:
            self._sending_socket().sendto(topic.encode()[:_TOPIC_BYTES_MAX], self._address(peer))
        except ConnectionRefusedError:  # its process is gone and could not clean up
            with suppress(OSError):
                (self._directory / peer).unlink()
        except OSError:  # full (it has news waiting anyway) or gone: its poll will tell it
            pass

    def _hear(self, listener: socket.socket) -> None:
        heard: dict[str, None] = {}
        with suppress(OSError):  # until nothing is left to read
            for _ in range(256):
                heard[listener.recv(_TOPIC_BYTES_MAX).decode(errors="replace")] = None
        self._bells.ring(heard)

    def _moved(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask(), name="faultproof-wake-ask")

    async def _ask(self) -> None:
        try:
            committed = await self._others_committed()
        except FaultproofError:  # then they look in vain
            committed = -1
        if committed != self._others_seen:
            self._others_seen = committed
            self._bells.ring_all()
