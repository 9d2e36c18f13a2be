"""How a run of the shop is to be."""

from __future__ import annotations

from dataclasses import dataclass

from faultproof.errors import InvalidInput
from faultproof.shop.mistakes import DELAYED, Breakage
from faultproof.shop.stores import Store


@dataclass(frozen=True, kw_only=True)
class ShopOptions:
    """Times in seconds."""

    store: Store
    """Where the tables are."""
    workers: int = 2
    """API processes."""
    sequencers: int = 2
    """One works, the others stand by."""
    consumers: int = 2
    """Each runs both groups; they share the partitions."""
    orchestrators: int = 2
    """They go on with the orders' sagas."""
    clients: int = 32
    """Customers that order at the same time."""
    kill_every: float = 0.0
    """0: nobody is killed."""
    sidecar: bool = False
    """Whether the provider is called through Envoy."""
    seed: int = 1
    """Decides the generated orders, whom of the busy processes a kill meets, and the customers' pauses."""
    planted: Breakage | None = None
    aim: Breakage | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= 32:
            raise InvalidInput(f"a shop has 1 to 32 API processes, not {self.workers}")
        if not (self.kill_every == 0 or 0.05 <= self.kill_every <= 3600):
            raise InvalidInput(
                f"processes are killed every 0.05 to 3600 seconds, or not at all (0); not every {self.kill_every}"
            )
        if not 0 <= self.seed < 2**53:
            raise InvalidInput(f"a seed is a whole number from 0 to 2**53 - 1, not {self.seed}")
        if not 1 <= self.clients <= 1_000:
            raise InvalidInput(f"a shop has 1 to 1,000 customers at a time, not {self.clients}")
        if not (1 <= self.sequencers <= 8 and 1 <= self.consumers <= 8 and 1 <= self.orchestrators <= 8):
            raise InvalidInput(
                f"a shop has 1 to 8 sequencers, consumers and orchestrators, not {self.sequencers}, {self.consumers} and "
                f"{self.orchestrators}"
            )

    @property
    def ttl(self) -> float:
        """Lease time. Short where processes are killed, so that others take over soon. Without kills a slow machine
        must not lose a lease: the planted bugs would show for another reason than theirs."""
        return 1.0 if self.kill_every and self.target not in DELAYED else 15.0

    @property
    def target(self) -> Breakage | None:
        """The mistake in whose window all kills or delays go; None: busy processes of every role are killed in turn."""
        return self.aim or self.planted
