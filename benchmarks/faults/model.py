"""Who is tried, and how: a contender is what a service would write around a library, a trial is what strikes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import msgspec

from faultproof import bounds

Fault: TypeAlias = Literal["none", "kill", "stop", "server"]
"""Nothing, for comparison; SIGKILL between effect and acknowledgement; SIGSTOP there, for longer than a dead worker's jobs
wait; kill -9 of the database server while work goes on."""
Promise: TypeAlias = Literal["at least once", "once", "left to be found"]
"""Of a job's effect: at least once; once; or at least once if somebody retries what killed workers have left, as the
documentation says that one must."""

PRODUCER = "producer"
"""The process that installs and enqueues."""
WORKERS = 2
"""Processes that share the work; for `stop` there is one more for each stop, and these two are never stopped."""
KEYS = 47
"""Jobs have one of so many keys in turn, for contenders that promise an order for each. A prime, so that strikes at every
tenth job fall on all of them."""
STRIKES_MAX = 1_000


class Job(Protocol):
    """What a contender's handler calls. Both block for about a millisecond."""

    def __call__(self, number: int) -> None:
        """Make the effect, on a connection of its own, and strike."""
        ...

    def strike(self, number: int) -> None:
        """Only strike, for handlers that make the effect themselves."""
        ...

    @property
    def process(self) -> str:
        """Whose handler this is."""
        ...


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A library with its settings."""

    name: str
    package: str
    """Whose version is shown."""
    modules: tuple[str, ...]
    """Imported once, before processes are forked."""
    claims: str
    """What its documentation says about workers that die, in our words."""
    source: str
    """Where it says so."""
    configured: str
    """What was set, in words."""
    promise: Promise = "at least once"
    in_order: bool = False
    """Whether it promises that jobs of one key run in the order in which they were enqueued."""
    back_s: float
    """After how long at most, by its settings, a dead worker's job is run again; if ever."""
    patience_s: float
    """After so long in which nothing new happens, what is not done is stuck: more than twice what its settings take."""
    unfinished: str
    """A query: the number of jobs that are not done, and not given up."""
    install: Callable[[str], Awaitable[None]]
    """Makes its tables in the database at this address."""
    enqueue: Callable[[str, Sequence[int]], Awaitable[None]]
    """Commits all jobs."""
    work: Callable[[str, Job], Awaitable[None]]
    """Runs a worker until it is killed."""


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What is done to a contender."""

    fault: Fault = "kill"
    strikes: int = 100
    """How many; each at another job, and none twice."""
    every: int = 10
    """A strike at every so-manieth job."""
    stop_s: float = 0.0
    """How long a stopped process sleeps."""

    def __post_init__(self) -> None:
        bounds.count("strikes", self.strikes, most=STRIKES_MAX)
        bounds.count("every", self.every, least=2, most=1_000)
        bounds.seconds("stop_s", self.stop_s, least=0)

    @property
    def jobs(self) -> int:
        """How many jobs there are."""
        return self.strikes * self.every

    @property
    def workers(self) -> tuple[str, ...]:
        """The names of the workers' processes."""
        count = WORKERS + (self.strikes if self.fault == "stop" else 0)
        return tuple(f"worker-{number + 1}" for number in range(count))

    def strikes_at(self, job: int, process: str) -> bool:
        """Whether a worker is struck when it has made this job's effect for the first time."""
        if self.fault == "kill":
            return job % self.every == 0
        return self.fault == "stop" and process not in self.workers[:WORKERS]
