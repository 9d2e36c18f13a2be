"""What the command and its keeper say to each other: one JSON document a line."""

from __future__ import annotations

from typing import Literal

import msgspec

from faultproof.shop.mistakes import Breakage

Role = Literal["api", "sequencer", "consumer", "orchestrator"]
ROLES: tuple[Role, ...] = ("api", "sequencer", "consumer", "orchestrator")


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """What the keeper is to keep running, and how it kills. Times in seconds."""

    url: str
    directory: str
    """For the files of this run."""
    listeners: list[int]
    """A listening socket for each API process, inherited: while one is being replaced, its clients wait in the queue."""
    sequencers: int
    consumers: int
    orchestrators: int
    provider: list[int]
    """Its ports."""
    ttl: float
    """Lease time: how long after a kill the work stands still, at most."""
    seed: int
    kill_every: float
    planted: Breakage | None
    target: Breakage | None
    """Kill in the window of this mistake only, whether or not the mistake is made."""


class Command(msgspec.Struct, frozen=True):
    """To the keeper: begin to kill, cease to kill, or end all processes and yourself."""

    do: Literal["kill", "spare", "stop"]


class Started(msgspec.Struct, frozen=True, tag="started"):
    """A process was forked."""

    role: Role
    slot: int
    pid: int


class Killed(msgspec.Struct, frozen=True, tag="killed"):
    """A process was killed. `busy`: what its byte said after its death."""

    role: Role
    slot: int
    pid: int
    state: str
    busy: bool


class Missed(msgspec.Struct, frozen=True, tag="missed"):
    """No process of the role was in the state to be killed in, for as long as the keeper looked."""

    role: Role


class Delayed(msgspec.Struct, frozen=True, tag="delayed"):
    """An order is being held up where a mistake would show."""


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """Something happened on the request path: what, under the report's name."""

    what: str


class Died(msgspec.Struct, frozen=True, tag="died"):
    """A process ended that nobody killed. `status`: negative for a signal."""

    role: Role
    slot: int
    status: int


class Trouble(msgspec.Struct, frozen=True, tag="trouble"):
    """A process met what only a person can repair."""

    sentence: str


Message = Started | Killed | Missed | Delayed | Counted | Died | Trouble
