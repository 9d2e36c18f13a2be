"""Contestants in turns: round by round each once, the order moving on by one, so that drift meets all of them alike."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import msgspec

from benchmarks.child import order
from benchmarks.model import Benchmark, Contestant, Place

CHECKOUT = Path(__file__).parents[1]
OPEN_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0
ERROR_CHARS_MAX = 400
_ERROR = re.compile(r"[\w.]+(Error|Exception|Timeout|Failed|Supported)\w*: ")

Progress = Callable[[str], None]


class ContestantFailed(Exception):
    """It could not be measured; the text is the end of what it said."""


@dataclass
class Outcome:
    """What became of one contestant."""

    contestant: Contestant
    settings: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    rounds: list[dict[str, float]] = field(default_factory=list)
    error: str | None = None


def turns(contestants: Sequence[str], rounds: int) -> list[list[str]]:
    """Who comes when: each once a round, and the first of a round is the second of the one before."""
    count = len(contestants)
    return [[contestants[(start + i) % count] for i in range(count)] for start in range(rounds)]


async def contest(
    benchmark: Benchmark, places: Mapping[str, Place], *, rounds: int, progress: Progress
) -> list[Outcome]:
    """Measure all contestants of a benchmark. One that fails is out; the others go on."""
    outcomes = {each.name: Outcome(each) for each in benchmark.contestants}
    progress(f"{benchmark.name}: {len(outcomes)} contestants get ready")
    async with AsyncExitStack() as stack:
        started = {
            name: await stack.enter_async_context(_started(benchmark.home, benchmark.name, name)) for name in outcomes
        }
        async with asyncio.TaskGroup() as opening:
            for name, child in started.items():
                opening.create_task(_open(child, places[name], outcomes[name]))
        for number, round_ in enumerate(turns(list(outcomes), rounds), 1):
            for name in round_:
                if outcomes[name].error is None:
                    progress(f"{benchmark.name}: round {number} of {rounds}, {name}")
                    await _measure(started[name], outcomes[name], benchmark.round_timeout)
        for child in started.values():
            child.end()
    return list(outcomes.values())


async def _open(child: _Child, place: Place, outcome: Outcome) -> None:
    try:
        hello = await child.ask(order(place), OPEN_TIMEOUT_S)
    except ContestantFailed as failed:
        outcome.error = str(failed)
    else:
        outcome.settings, outcome.versions = hello["settings"], hello["versions"]


async def _measure(child: _Child, outcome: Outcome, timeout: float) -> None:
    try:
        answer = await child.ask(b"\n", timeout)
    except ContestantFailed as failed:
        outcome.error = str(failed)
    else:
        outcome.rounds.append(answer["figures"])


class _Child:
    """The parent's end of `child.py`."""

    def __init__(self, process: asyncio.subprocess.Process, said: IO[bytes]) -> None:
        self._process = process
        self._said = said

    async def ask(self, line: bytes, timeout: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout):
                with suppress(ConnectionError):
                    self._process.stdin.write(line)
                    await self._process.stdin.drain()
                answer = await self._process.stdout.readline()
        except TimeoutError as error:
            self.kill()
            raise ContestantFailed(f"no answer within {timeout:g} s {self._last_words()}".strip()) from error
        if not answer:
            raise ContestantFailed(self._last_words() or "it ended without a word")
        decoded: dict[str, Any] = msgspec.json.decode(answer)
        return decoded

    def end(self) -> None:
        """Ask it to finish; nobody waits yet."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def kill(self) -> None:
        """End it now, with its own children: senders, workers."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        # Libraries put advice behind their errors.
        error = next((line for line in reversed(lines) if _ERROR.match(line)), lines[-1] if lines else "")
        return " ".join(error.split())[:ERROR_CHARS_MAX]


@asynccontextmanager
async def _started(home: str, benchmark: str, contestant: str) -> AsyncIterator[_Child]:
    with tempfile.TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "benchmarks.child",
            home,
            benchmark,
            contestant,
            cwd=CHECKOUT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=said,
            start_new_session=True,  # Ctrl-C is ours to hand on, and the group is what we end
        )
        child = _Child(process, said)
        try:
            yield child
            child.end()
            with suppress(TimeoutError):
                async with asyncio.timeout(END_TIMEOUT_S):
                    await process.wait()
        finally:
            child.kill()
            await process.wait()
