"""The prover's hold on the nursery, and through it on every process of every run."""

from __future__ import annotations

import itertools
import os
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from faultproof.prove.harness import HarnessError
from faultproof.prove.live.orders import Order
from faultproof.prove.live.protocol import Command, Ended, Event, Failed, Hello, Mutation, Ready, Signal, Start, Stopped

MARKER_VARIABLE = "FAULTPROOF_RUN"
START_S = 60.0
"""For importing the proof."""
LAST_WORDS_S = 2.0
"""For one that does not listen any more to end."""
END_S = 10.0
"""For a process to end after SIGKILL, and for the nursery to end with it."""


class Fleet:
    """Starts, signals and hears of processes; `with` ends them all. Threads may share it, each with runs of its own."""

    def __init__(self, proof: str, plant: str | None, *, marker: str, mutation: Mutation | None = None) -> None:
        """`marker`: in the environment of every process, so that those left behind can be found."""
        self._numbers = itertools.count(1)
        self._writing = threading.Lock()
        self._runs: dict[int, queue.SimpleQueue[Ended | Stopped]] = {}  # bounded: by the processes that run
        self._ready: queue.SimpleQueue[Ready | Failed | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "faultproof.prove.live.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(marker),
            start_new_session=True,  # Ctrl-C is for the prover, which ends the others in good order
        )
        self._hearing = threading.Thread(target=self._hear, name="faultproof-fleet", daemon=True)
        self._hearing.start()
        try:
            self._write(Hello(proof, plant, sys.path, mutation))
            self._await_ready()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _await_ready(self) -> None:
        try:
            said = self._ready.get(timeout=START_S)
        except queue.Empty:
            raise HarnessError(f"the proof was not imported in {START_S:.0f} s") from None
        if not isinstance(said, Ready):
            raise HarnessError(said.traceback if said is not None else self._last_words())

    def begin(self, start: Start, events: queue.SimpleQueue[Ended | Stopped]) -> None:
        """Start a process whose end is to be told there."""
        self._runs[start.id] = events
        self._write(start)

    def number(self) -> int:
        """For the next process."""
        return next(self._numbers)

    def signal(self, number: int, which: signal.Signals) -> None:
        """Send it, if the process still runs."""
        self._write(Signal(number, which))

    def close(self) -> None:
        """End every process; on return none is left."""
        assert self._process.stdin is not None
        with self._writing, suppress(OSError):  # what it was not told, it will not hear any more
            self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # the kernel ends the others
            self._process.wait(END_S)
        self._hearing.join(END_S)
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def _write(self, command: Hello | Command) -> None:
        assert self._process.stdin is not None
        try:
            with self._writing:
                self._process.stdin.write(msgspec.json.encode(command) + b"\n")
                self._process.stdin.flush()
        except (OSError, ValueError) as error:  # it is gone, or closed
            raise HarnessError(f"the nursery of the processes is gone: {self._last_words()}") from error

    def _hear(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = msgspec.json.decode(line, type=Event)
            if isinstance(event, (Ready, Failed)):
                self._ready.put(event)
            elif isinstance(event, Ended):
                self._runs.pop(event.id).put(event)
            else:
                self._runs[event.id].put(event)
        self._ready.put(None)
        for number, events in list(self._runs.items()):
            events.put(Ended(number, -signal.SIGKILL))

    def _last_words(self) -> str:
        assert self._process.stderr is not None
        try:  # its pipes close before it has ended
            self._process.wait(LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            return "it does not answer"
        return self._process.stderr.read()[-4_000:].decode(errors="replace").strip() or "it left no message"


class Member:
    """One process of a run, from its start to its end."""

    def __init__(self, number: int, name: str, incarnation: int) -> None:
        self.number = number
        self.name = name
        self.incarnation = incarnation
        self.is_stopped = False

    @property
    def who(self) -> str:
        """As its history has it."""
        return f"{self.name}.{self.incarnation}"


class Crew:
    """The processes of one run."""

    def __init__(self, fleet: Fleet) -> None:
        self.alive: dict[int, Member] = {}  # bounded: by the restarts that a run allows
        self._fleet = fleet
        self._events: queue.SimpleQueue[Ended | Stopped] = queue.SimpleQueue()
        self._lives: dict[str, int] = {}

    def lives(self, name: str) -> int:
        """How often it has been started."""
        return self._lives.get(name, 0)

    def start(
        self, name: str, url: str, directory: Path, *, order: Order | None = None, command: list[str] | None = None
    ) -> Member:
        """Start the next incarnation of a process."""
        incarnation = self.lives(name)
        self._lives[name] = incarnation + 1
        member = Member(self._fleet.number(), name, incarnation)
        self.alive[member.number] = member
        self._fleet.begin(Start(member.number, name, incarnation, url, str(directory), order, command), self._events)
        return member

    def signal(self, member: Member, which: signal.Signals) -> None:
        """Send it, if the process still runs."""
        self._fleet.signal(member.number, which)
        if which is signal.SIGCONT:
            member.is_stopped = False

    def heard(self, seconds: float) -> tuple[Member, int | None] | None:
        """Who has ended next, and with which status, or has stopped (None); None if nobody does in this time."""
        try:
            event = self._events.get(timeout=max(0.0, seconds)) if seconds > 0 else self._events.get_nowait()
        except queue.Empty:
            return None
        member = self.alive[event.id]
        if isinstance(event, Stopped):
            member.is_stopped = True
            return member, None
        del self.alive[event.id]
        return member, event.status

    def end(self) -> None:
        """Kill all that are left, also those that are stopped, and wait until they are gone."""
        for member in list(self.alive.values()):
            self.signal(member, signal.SIGKILL)
        while self.alive:
            if self.heard(END_S) is None:
                raise HarnessError(f"processes survived SIGKILL: {[each.who for each in self.alive.values()]}")


def _environment(marker: str) -> dict[str, str]:
    return {**os.environ, MARKER_VARIABLE: marker}


def left_behind(marker: str) -> list[int]:
    """Processes of this user's that carry the marker and still run."""
    wanted, found = f"{MARKER_VARIABLE}={marker}".encode(), []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                if wanted in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                    found.append(int(entry))
    return found
