"""Policies for four sizes of a business: the specification's scale variants, each with what it adds and why.

Begin with the one that you are, and change what you have measured: `dataclasses.replace(fp.GROWTH, deadline=0.5)`.
"""

from __future__ import annotations

from faultproof.patterns.bulkhead import BulkheadPolicy
from faultproof.patterns.request_response.policy import Budget, Policy
from faultproof.primitives.adaptive import AdaptivePolicy
from faultproof.primitives.breaker import BreakerPolicy
from faultproof.primitives.health import HealthPolicy
from faultproof.primitives.hedging import HedgePolicy
from faultproof.primitives.outliers import OutlierPolicy
from faultproof.primitives.retry import Backoff

STARTUP = Policy(
    # "Direct connections, basic timeouts." One endpoint, few callers: what hurts is a call that never ends, and a
    # thousand that wait for it. So: a deadline, a bound on what may be under way, and one more try where nothing had
    # happened. A breaker would turn a hiccup of the only endpoint into an outage, and there is nobody to eject.
    deadline=10.0,
    attempt_timeout=5.0,
    calls=200,
    retry=Backoff(attempts=2, base=0.1, cap=1.0),
    breaker=None,
    outliers=None,
    bulkhead=None,
)

GROWTH = Policy(
    # "Load balancer, circuit breaker, retry logic." A few endpoints, and several services that call each other: now
    # one that is ill makes others ill. Attempts are short, so that there is time for a second one elsewhere; breakers
    # stop calls that would only wait; a bulkhead keeps one dependency from taking all there is of the process; and a
    # tenth more traffic is all that repeating may cost, or the first incident is ended by its own retries.
    deadline=5.0,
    attempt_timeout=2.0,
    retry=Backoff(attempts=3, base=0.05, cap=1.0),
    budget=Budget(ratio=0.1, burst=10.0),
    breaker=BreakerPolicy(slow_after=2.0),
    bulkhead=BulkheadPolicy(concurrency=64, queue=128, wait=0.5),
)

SCALE = Policy(
    # "Regional load balancing, auto-scaling groups." Endpoints come and go, and there are enough of them for one to
    # be worse than the others without anybody noticing: they are asked for their health before a call is spent on it,
    # ejected sooner, and the number of calls at once is found out, because after every deployment it is another.
    # Tenants get even shares.
    deadline=2.0,
    attempt_timeout=0.5,
    calls=5_000,
    retry=Backoff(attempts=3, base=0.025, cap=0.25),
    budget=Budget(ratio=0.1, burst=50.0),
    breaker=BreakerPolicy(window=5.0, minimum_calls=50, slow_after=0.5, open_for=1.0, open_most=15.0),
    outliers=OutlierPolicy(in_a_row=5, gap=0.2, share=0.3),
    health=HealthPolicy(interval=2.0, timeout=0.5),
    bulkhead=BulkheadPolicy(concurrency=256, queue=256, wait=0.1, adaptive=AdaptivePolicy(latency=0.25, least=8)),
)

HYPERSCALE = Policy(
    # "Global load balancers, intelligent routing." A request asks so many services that the slowest in a hundred is
    # what everybody waits for: so whatever may be repeated is hedged where it takes longer than 95 in 100 do. Keys
    # stay where their cache is, within a bound on how busy that may get. Fewer repetitions, not more: at this size
    # they are what takes a region down. It says that calls may be made twice; those that may not say so: `call(…,
    # idempotent=False)`.
    deadline=1.0,
    attempt_timeout=0.25,
    calls=10_000,
    idempotent=True,
    retry=Backoff(attempts=2, base=0.01, cap=0.05),
    hedge=HedgePolicy(quantile=0.95),
    budget=Budget(ratio=0.075, burst=100.0),
    balance="ring",
    ring_bound=1.25,
    breaker=BreakerPolicy(window=5.0, minimum_calls=100, slow_after=0.25, open_for=1.0, open_most=10.0, probes=5),
    outliers=OutlierPolicy(in_a_row=5, gap=0.15, share=0.2, interval=5.0),
    health=HealthPolicy(interval=1.0, timeout=0.25),
    bulkhead=BulkheadPolicy(concurrency=512, queue=512, wait=0.05, adaptive=AdaptivePolicy(latency=0.1, least=16)),
)
