"""The command's hold on the keeper, and through it on every process of the shop."""

from __future__ import annotations

import asyncio
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from faultproof.errors import Repair
from faultproof.shop.killing import window
from faultproof.shop.messages import (
    ROLES,
    Command,
    Counted,
    Delayed,
    Died,
    Fleet,
    Killed,
    Message,
    Missed,
    Role,
    Trouble,
)
from faultproof.shop.mistakes import DELAYED, Breakage
from faultproof.shop.timeline import Kill, Timeline

_END_S = 15.0
"""More than the keeper itself takes to end all processes."""
_PORTS = range(20_000, 32_000)
"""Below the ephemeral range: a client that polls a port in it can be connected to itself."""


class ProcessDied(Exception):
    """A process of the shop ended although nobody killed it: a bug, not a verdict."""


class Processes:
    """What runs, what was killed, and the first thing that went wrong by itself."""

    def __init__(self, keeper: Process, errors: Path, timeline: Timeline) -> None:
        self._timeline = timeline
        self.kills: Counter[Role] = Counter()
        self.states: Counter[str] = Counter()
        """What the killed ones were doing."""
        self.kills_while_busy = 0
        self.delays = 0
        self.counted: Counter[str] = Counter()
        """What happened on the request path."""
        self.misses: Counter[Role] = Counter()
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._keeper = keeper
        self._errors = errors
        self._hearing = asyncio.create_task(self._hear(), name="faultproof-shop-keeper")

    async def say(self, command: Command) -> None:
        """Tell the keeper."""
        assert self._keeper.stdin is not None
        with suppress(ConnectionError):  # it is gone; `failure` says so
            self._keeper.stdin.write(msgspec.json.encode(command) + b"\n")
            await self._keeper.stdin.drain()

    async def end(self) -> None:
        """End every process, and wait until they are gone."""
        await self.say(Command("stop"))
        try:
            async with asyncio.timeout(_END_S):
                await self._keeper.wait()
        except TimeoutError:
            self._keeper.kill()  # its lifeline ends the others
            await self._keeper.wait()
        self._hearing.cancel()
        with suppress(asyncio.CancelledError):
            await self._hearing
        self.failure.cancel()

    async def _hear(self) -> None:
        assert self._keeper.stdout is not None
        async for line in self._keeper.stdout:
            self._note(msgspec.json.decode(line, type=Message))
        self._fail(ProcessDied(f"the keeper of the processes ended: {self._last_words()}"))

    def _note(self, message: Message) -> None:
        if isinstance(message, Killed):
            self.kills[message.role] += 1
            self.kills_while_busy += message.busy
            self.states[message.state] += 1
            self._timeline.kills.append(Kill(self._timeline.now(), message.role, message.slot, message.state))
        elif isinstance(message, Missed):
            self.misses[message.role] += 1
        elif isinstance(message, Delayed):
            self.delays += 1
        elif isinstance(message, Counted):
            self.counted[message.what] += 1
        elif isinstance(message, Trouble):
            self._fail(Repair(message.sentence))
        elif isinstance(message, Died):
            self._fail(ProcessDied(f"the {message.role} ended with status {message.status}: {self._last_words()}"))

    def _fail(self, error: Exception) -> None:
        if not self.failure.done():
            self.failure.set_exception(error)

    def _last_words(self) -> str:
        return self._errors.read_text(errors="replace")[-4_000:].strip() or "it left no message"

    def missing(self, target: Breakage | None) -> list[Role]:
        """The roles that were to be killed and have not been."""
        if target in DELAYED:
            return []
        wanted = ROLES if target is None else (window(target).role,)
        return [role for role in wanted if not self.kills[role]]


@asynccontextmanager
async def started(
    fleet: Fleet, listeners: Sequence[socket.socket], timeline: Timeline | None = None
) -> AsyncIterator[Processes]:
    """The shop's processes; whatever happens, none of them is left at the end."""
    errors = Path(fleet.directory) / "processes.log"
    with errors.open("ab") as file:
        keeper = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "faultproof.shop.keeper"),
            stdin=PIPE,
            stdout=PIPE,
            stderr=file,
            pass_fds=[listener.fileno() for listener in listeners],
            start_new_session=True,  # Ctrl-C is for the command, which ends the others in good order
        )
    processes = Processes(keeper, errors, timeline or Timeline())
    assert keeper.stdin is not None
    keeper.stdin.write(msgspec.json.encode(fleet) + b"\n")
    try:
        yield processes
    finally:
        await asyncio.shield(processes.end())


def listen(count: int) -> list[socket.socket]:
    """Listening sockets on loopback, on free ports."""
    found: list[socket.socket] = []
    for port in _PORTS:
        if len(found) == count:
            break
        listener = socket.socket()
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(256)
        except OSError:
            listener.close()
        else:
            found.append(listener)
    return found
