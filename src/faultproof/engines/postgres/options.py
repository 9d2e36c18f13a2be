"""How a PostgreSQL database is used: every option with its unit, checked when it is built. Needs no driver."""

from __future__ import annotations

from dataclasses import dataclass

from faultproof import bounds


@dataclass(frozen=True, kw_only=True)
class PostgresOptions:
    """How a PostgreSQL database is used. Times in seconds."""

    pool_min: int = 1
    """Connections that are kept open, and made when connecting."""
    pool_max: int = 8
    """Connections at most: PostgreSQL itself gets slower with more than a few per core. One or two more send and hear
    wake-ups."""
    pool_timeout: float = 5.0
    """How long a transaction waits for a connection; then `Busy`, and nothing has happened."""
    poll: float = 0.05
    """At the latest this long after a commit that sends no wake-up, such as a joined connection's, the sequencer hears of
    it; and all that listen, where none can be heard."""
    pooler: bool | None = None
    """Whether a pooler in transaction mode (pgbouncer) stands before the server: then nothing is prepared, and wake-ups
    are sent but not heard. None: look."""

    def __post_init__(self) -> None:
        bounds.count("pool_max", self.pool_max, most=10_000)
        bounds.count("pool_min", self.pool_min, most=self.pool_max)
        bounds.seconds("pool_timeout", self.pool_timeout)
        bounds.seconds("poll", self.poll, least=0.001)
