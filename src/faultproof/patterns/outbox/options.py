"""How a group consumes: every option with its unit, checked when it is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from faultproof import bounds
from faultproof.errors import InvalidInput

OnPoison = Literal["key waits", "key goes on"]


@dataclass(frozen=True, kw_only=True)
class ConsumerOptions:
    """How a group consumes. Times in seconds."""

    attempts: int = 5
    """Failed attempts after which an event becomes a dead letter."""
    backoff: float = 0.5
    """After n failed attempts wait up to this times 2**(n-1), with full jitter …"""
    backoff_max: float = 60.0
    """… and never more than this."""
    on_poison: OnPoison = "key waits"
    """What the later events of a dead letter's key do: wait until it is replayed or discarded, or go on without it."""
    batch: int = 100
    """Events that one transaction carries at most."""
    timeout: float = 30.0
    """For one event's handler; one that takes longer has failed."""
    ttl: float = 5.0
    """Lease on a partition: how long after a crash another process takes over."""

    def __post_init__(self) -> None:
        bounds.count("attempts", self.attempts)
        bounds.seconds("backoff", self.backoff, least=0)
        bounds.seconds("backoff_max", self.backoff_max, least=0)
        bounds.count("batch", self.batch)
        bounds.seconds("timeout", self.timeout)
        bounds.seconds("ttl", self.ttl)
        if self.on_poison not in ("key waits", "key goes on"):
            raise InvalidInput(f"on_poison is 'key waits' or 'key goes on', not {self.on_poison!r}")
