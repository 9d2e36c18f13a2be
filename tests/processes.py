"""Processes of their own that a test starts, talks to line by line, and may kill, stop or continue."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.fakes import within

ROOT = Path(__file__).resolve().parent.parent


class Child:
    """A running `python -m module`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stdout is not None
        assert process.stdin is not None
        self._out, self._in = process.stdout, process.stdin

    @property
    def pid(self) -> int:
        return self.process.pid

    async def line(self) -> str:
        """Its next line; "" when there is none any more."""
        return (await within(self._out.readline())).decode().strip()

    async def says(self, expected: str) -> None:
        """Read on until it says this."""
        seen = []
        while (line := await self.line()) != expected:
            seen.append(line)
            assert line, f"it ended before it said {expected!r}: {seen}, status {self.process.returncode}"

    async def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        self._in.write(line.encode() + b"\n")
        await within(self._in.drain())

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):  # it has ended, and nobody has told us yet
            self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; its exit status."""
        return await within(self.process.wait())


@asynccontextmanager
async def running(module: str, *args: object) -> AsyncIterator[Child]:
    """Start `python -m module args`, and make sure that it is gone afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *map(str, args),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    child = Child(process)
    try:
        yield child
    finally:
        if process.returncode is None:
            child.send(signal.SIGKILL)  # also what is stopped
        await process.wait()
        # Or the pipes' transports are collected after the event loop, with a warning.
        process._transport.close()  # type: ignore[attr-defined]
