"""The bounds of a shadow."""

from __future__ import annotations

from dataclasses import dataclass

from faultproof import bounds


@dataclass(frozen=True, kw_only=True)
class ShadowPolicy:
    """What a shadow may take of the process that it runs in. Times in seconds."""

    concurrency: int = 4
    """Requests that the candidate has at once."""
    queue: int = 64
    """Requests that wait for it. What comes then is dropped, and counted."""
    timeout: float = 2.0
    """For one request: the candidate is cancelled then, and so is the control."""
    age: float = 5.0
    """A request that has waited for longer is dropped: the world has moved on, and the answer would be another."""
    size: int = 65_536
    """Bytes of one request, and of one answer; about, and 16 for each thing in it. What has more is dropped, and counted."""
    control: float = 0.1
    """Of the mirrored requests, the share that the control gets as well, where there is one."""
    paths: int = 200
    """Places of differences that are kept apart; the others are counted as one."""
    samples: int = 3
    """Differences that are kept for each of them, without their values."""

    def __post_init__(self) -> None:
        bounds.count("concurrency", self.concurrency, most=1_000)
        bounds.count("queue", self.queue, least=0)
        bounds.seconds("timeout", self.timeout)
        bounds.seconds("age", self.age)
        bounds.count("size", self.size, most=16_777_216)
        bounds.number("control", self.control, least=0, most=1)
        bounds.count("paths", self.paths, most=10_000)
        bounds.count("samples", self.samples, least=0, most=100)
