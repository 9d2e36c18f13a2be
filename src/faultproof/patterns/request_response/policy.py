"""What a client does for each call: one value, checked as a whole before the first call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from faultproof import bounds
from faultproof.errors import InvalidInput
from faultproof.patterns.bulkhead import BulkheadPolicy
from faultproof.primitives.breaker import BreakerPolicy
from faultproof.primitives.health import HealthPolicy
from faultproof.primitives.hedging import HedgePolicy
from faultproof.primitives.outliers import OutlierPolicy
from faultproof.primitives.retry import Backoff, RetryBudget

Balance = Literal["least-loaded", "round-robin", "ring"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What retries and hedges together may add to the traffic."""

    ratio: float = 0.1
    """Each call adds so much of an attempt …"""
    burst: float = 10.0
    """… at most so many are kept, and it begins with them."""

    def __post_init__(self) -> None:
        self.made()

    def made(self) -> RetryBudget:
        """A budget like this. Share it among the clients that call the same."""
        return RetryBudget(ratio=self.ratio, burst=self.burst)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What stands between a call and its endpoint, from the outside in: the order is not yours to change.

    Deadline, shed, retry and hedge (one budget), pick, breaker, bulkhead, attempt timeout. None leaves a part out. All times
    in seconds. Raises `InvalidInput` for parts that contradict each other.
    """

    deadline: float = 10.0
    """For a call, all its attempts and waits included; the caller's own deadline counts where it is earlier."""
    calls: int = 1_000
    """At once, those included that wait. More are shed: refused before anything is done for them."""
    idempotent: bool = False
    """Whether a call may be made twice, unless it says so itself. Only such are hedged, or repeated when nobody knows whether
    they happened; all others only when nothing has happened."""
    retry: Backoff | None = field(default_factory=lambda: Backoff(attempts=3))
    hedge: HedgePolicy | None = None
    budget: Budget = Budget()
    balance: Balance = "least-loaded"
    ring_bound: float = 1.25
    """With "ring": how many times its share of the calls in flight an endpoint may have."""
    breaker: BreakerPolicy | None = field(default_factory=BreakerPolicy)
    """One for each endpoint."""
    outliers: OutlierPolicy | None = field(default_factory=OutlierPolicy)
    health: HealthPolicy | None = None
    bulkhead: BulkheadPolicy | None = field(default_factory=BulkheadPolicy)
    attempt_timeout: float | None = None
    """For one attempt. None: as long as the call has."""

    def __post_init__(self) -> None:
        bounds.seconds("deadline", self.deadline)
        bounds.count("calls", self.calls)
        bounds.number("ring_bound", self.ring_bound, least=1.01, most=100)
        if self.balance not in get_args(Balance):
            known = ", ".join(get_args(Balance))
            raise InvalidInput(f"`balance` must be one of {known}, got {bounds.short(self.balance)}")
        if self.attempt_timeout is not None:
            bounds.seconds("attempt_timeout", self.attempt_timeout)
            if self.attempt_timeout > self.deadline:
                raise InvalidInput(
                    f"`attempt_timeout` is {self.attempt_timeout:g} s, and the whole call has {self.deadline:g} s "
                    "(`deadline`): an attempt must be shorter"
                )
        self._check_hedge()

    def _check_hedge(self) -> None:
        hedge = self.hedge
        if hedge is None:
            return
        if not self.idempotent:
            raise InvalidInput(
                "`hedge` sends calls twice, and `idempotent` is False: say `idempotent = true` if all may be made twice, "
                "or leave `hedge` out"
            )
        if self.budget.ratio <= 1 - hedge.quantile:
            raise InvalidInput(
                f"`budget.ratio` is {self.budget.ratio:g}, and {1 - hedge.quantile:.4g} of the calls take longer than "
                f"`hedge.quantile` {hedge.quantile:g}: hedges would starve, and retries with them; give more"
            )
        longest = self.attempt_timeout or self.deadline
        if hedge.at_first is not None and hedge.at_first >= longest:
            raise InvalidInput(
                f"`hedge.at_first` is {hedge.at_first:g} s, and an attempt has {longest:g} s: it would never be hedged"
            )
