"""What an escrow is: every option with its unit, checked when it is built."""

from __future__ import annotations

from dataclasses import dataclass

from faultproof import bounds
from faultproof.errors import InvalidInput

SHARDS_MAX = 256
BATCH_MAX = 10_000


@dataclass(frozen=True, kw_only=True)
class EscrowOptions:
    """How an escrow works. Times in seconds."""

    ttl: float = 300.0
    """How long a hold lasts unless the call says otherwise."""
    ttl_max: float = 86_400.0
    """No hold may be asked to last longer."""
    lock_timeout: float = 2.0
    """How long a call waits for an item that another transaction has locked; every hold lasts longer than this."""
    shards: int = 8
    """Calls that have to wait for a lock wait in this many queues, by a stable hash of the item."""
    batch: int = 256
    """At most this many calls share a transaction."""
    overlap: int = 32
    """Once so many calls wait, a second transaction begins beside the one that runs: holds are written and answers given
    while the other one commits."""
    shed_after: float = 0.25
    """A call that would have to wait longer than this behind others is refused with `Overloaded`."""
    pending: int = 10_000
    """At most this many calls wait in one queue, however fast it is."""

    def __post_init__(self) -> None:
        bounds.seconds("ttl", self.ttl)
        bounds.seconds("ttl_max", self.ttl_max)
        bounds.seconds("lock_timeout", self.lock_timeout, least=0.001)
        bounds.count("shards", self.shards, most=SHARDS_MAX)
        bounds.count("batch", self.batch, most=BATCH_MAX)
        bounds.count("overlap", self.overlap)
        bounds.seconds("shed_after", self.shed_after)
        bounds.count("pending", self.pending)
        if not self.lock_timeout < self.ttl <= self.ttl_max:
            raise InvalidInput(
                f"a hold lasts longer than any wait for a lock and no longer than `ttl_max`: got lock_timeout="
                f"{self.lock_timeout}, ttl={self.ttl}, ttl_max={self.ttl_max}"
            )
