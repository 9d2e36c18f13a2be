"""What the prover and the nursery say to each other: one JSON line each."""

from __future__ import annotations

import msgspec

from faultproof.prove.live.orders import Order


class Mutation(msgspec.Struct, frozen=True):
    """What is left out of the scripts (`prove.mutants`), by the names of their statements."""

    left_out: list[str]
    conditions: dict[str, list[int]]
    """By their number, as `parsed.conditions` counts."""


class Hello(msgspec.Struct, tag=True):
    """The first line: what every worker needs, imported before the first is forked."""

    proof: str
    plant: str | None
    path: list[str]
    """Where modules are looked for."""
    mutation: Mutation | None = None


class Start(msgspec.Struct, tag=True):
    """Start a process under this number."""

    id: int
    process: str
    incarnation: int
    url: str
    directory: str
    """Of the run: its history, the services outside, and what its processes print."""
    order: Order | None = None
    """What it does to itself."""
    command: list[str] | None = None
    """A service of the user's to run instead of the proof's own main function."""


class Signal(msgspec.Struct, tag=True):
    """Send it, if it still runs."""

    id: int
    signal: int


class Ready(msgspec.Struct, tag=True):
    """The proof has been imported."""


class Failed(msgspec.Struct, tag=True):
    """It could not be; nothing will be started."""

    traceback: str


class Stopped(msgspec.Struct, tag=True):
    """A process has been stopped by a signal."""

    id: int


class Ended(msgspec.Struct, tag=True):
    """A process has ended: its exit status, or minus the number of the signal that killed it."""

    id: int
    status: int


Command = Start | Signal
Event = Ready | Failed | Stopped | Ended
