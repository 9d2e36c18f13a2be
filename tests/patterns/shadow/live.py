"""Callers of a real process, by turns with a shadow whose candidate burns a core and without any.

`python -m tests.patterns.shadow.live MODE ROUNDS` prints JSON: for each pair of turns the 99th percentiles in milliseconds,
without and with, which part of a core the candidate had, and which part of all of them others had meanwhile. MODE is
`burns`, `burns_on` (until it is killed) or `crashes`, in a process of its own; or what a shadow must not do, for comparison:
`loop`, `thread`.
"""

import asyncio
import json
import os
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import faultproof as fp
from tests.patterns.shadow import candidates
from tests.patterns.shadow.candidates import burns

CALLERS = 8
ADDITIONS = 1_000_000
"""Of the candidate for one request: some 20 ms."""
SHARE = 0.02
"""Of some 2,000 requests in a second: with 20 ms for each the candidate is never idle for long."""
TURN_S = 0.5
SERVES_S = 0.002

Call = Callable[[int], Awaitable[int]]


class Primary:
    """What a process of its own answers after 2 ms, and a little to do here.

    Not a timer of this event loop: those are a millisecond late whenever anything else happens in it.
    """

    def __init__(self) -> None:
        self.pid = 0
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["Primary"]:
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.patterns.shadow.live", "serve"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert server.stdout is not None
        assert server.stdin is not None
        self.pid = server.pid
        port = int(await server.stdout.readline())
        self._idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CALLERS)]
        yield self
        for _, writer in self._idle:
            writer.close()
        server.stdin.close()
        await server.wait()

    async def __call__(self, request: int) -> int:
        reader, writer = self._idle.pop()
        writer.write(b"x")
        await reader.readexactly(1)
        self._idle.append((reader, writer))
        sum(range(500))
        return request


def serve() -> None:
    """Until standard input is closed."""
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)

    def connection(connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while connected.recv(1):
            time.sleep(SERVES_S)  # sleeps: that is what it does
            connected.sendall(b"y")

    def accepts() -> None:
        while True:
            threading.Thread(target=connection, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=accepts, daemon=True).start()
    sys.stdin.read()


async def in_loop(request: int) -> int:
    burns(ADDITIONS)
    return request


async def in_thread(request: int) -> int:
    await asyncio.to_thread(burns, ADDITIONS)
    return request


async def turn(call: Call) -> float:
    """The 99th percentile of the callers' latencies, in milliseconds."""
    until, took = monotonic() + TURN_S, list[float]()

    async def caller() -> None:
        while monotonic() < until:
            began = perf_counter()
            await call(ADDITIONS)
            took.append(perf_counter() - began)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    took.sort()
    return 1e3 * took[int(0.99 * len(took))]


def burned_s(*pids: int) -> float:
    """Of processor time, so far."""
    ticks = 0
    for pid in pids:
        with suppress(FileNotFoundError):  # killed, because it had too little to end in time
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / 100


def busy_s() -> float:
    """Of all processors, so far: user, nice, system, interrupts and what other machines took."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(fields[n]) for n in (0, 1, 2, 5, 6, 7)) / 100


async def compared(mode: str, rounds: int, processes: fp.ShadowProcesses, primary: Primary) -> dict[str, Any]:
    candidate: Any = {"loop": in_loop, "thread": in_thread}.get(mode, processes)
    policy = fp.ShadowPolicy(concurrency=1, queue=1, timeout=0.2 if mode == "burns_on" else 2.0)
    shadow = fp.Shadow[int, int](candidate, share=SHARE, is_safe=lambda request: True, policy=policy)
    turns: dict[str, Call] = {"without": primary, "with": partial(shadow.call, primary)}
    for call in turns.values():
        await turn(call)  # both once, to be warm
    found: dict[str, list[float]] = {"without": [], "with": []}
    ours = [os.getpid(), primary.pid, *processes.pids]
    burned, began, others = 0.0, monotonic(), busy_s() - burned_s(*ours)
    for number in range(rounds):
        for name in ("without", "with") if number % 2 else ("with", "without"):
            before = burned_s(*processes.pids)
            found[name].append(await turn(turns[name]))
            burned += burned_s(*processes.pids) - before if name == "with" else 0.0
            await shadow.drain()
    others = busy_s() - burned_s(*ours) - others
    report = shadow.report()
    await shadow.close()
    return {
        **found,
        "core": burned / (rounds * TURN_S),
        "others": others / (monotonic() - began) / (os.cpu_count() or 1),
        "same": report.same,
        "mirrored": report.mirrored,
        "failed": report.candidate.timeouts + sum(report.candidate.errors.values()),
    }


def has_realtime() -> bool:
    """Whether this process, and the primary, may go before whatever else the machine has to do: then that is no part of what is
    measured. The candidate never inherits it."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except (AttributeError, PermissionError):
        return False
    return True


async def main(mode: str, rounds: int) -> None:
    realtime = has_realtime()
    # Beside others, whoever stands back burns nothing; and what goes before them need not be stood back for.
    target, nice = getattr(candidates, mode, burns), 0 if realtime else 19
    async with fp.ShadowProcesses(target, nice=nice) as processes, Primary().connected() as primary:
        if mode not in ("loop", "thread"):
            await processes.start()
        found = await compared(mode, rounds, processes, primary)
        print(json.dumps({**found, "realtime": realtime}))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        asyncio.run(main(sys.argv[1], int(sys.argv[2])))
