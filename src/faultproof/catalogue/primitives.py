"""P1 … P20: what the patterns are made of, as the specification numbers them."""

from faultproof.catalogue.model import Primitive


def _table(*rows: tuple[str, str, str]) -> dict[str, Primitive]:
    """Number the rows in order, so that a row cannot carry the wrong number."""
    return {
        f"P{number}": Primitive(id=f"P{number}", name=name, provides=provides, must_show=must_show)
        for number, (name, provides, must_show) in enumerate(rows, start=1)
    }


PRIMITIVES: dict[str, Primitive] = _table(
    (
        "Partitioning",
        "scale out, no hot spot",
        "load variance < 2x between partitions; no partition > 10 % hot without a warning",
    ),
    (
        "Replication",
        "durability, read scale",
        "failover within its RTO, loss within its RPO; lag is visible",
    ),
    (
        "Durable log",
        "replay, order",
        "a replay gives the identical state; no gap in the sequence that a reader can skip over",
    ),
    (
        "Specialised index / fan-out over it",
        "fast lookup, parallel query",
        "index used by the query; maintenance cost known",
    ),
    (
        "Consensus (leases, elections, quorum commit)",
        "one writer, linearizability",
        "split brain prevented. Always an existing engine's consensus, never ours",
    ),
    (
        "Causal tracking",
        "order that users can see",
        "no causal violation; clock size bounded (HLC, dotted version vectors)",
    ),
    (
        "Idempotency",
        "effect exactly once under retry",
        "duplicate == no-op with the same answer; same key, other content == an error of its own",
    ),
    (
        "Retry and timeouts",
        "fault tolerance",
        "exponential backoff with jitter, a shared budget, an absolute deadline; no storm",
    ),
    (
        "Circuit breaker",
        "fail fast",
        "recovery < 1 min; half-open admits its probes and no more",
    ),
    (
        "Bulkheading",
        "isolation, fairness",
        "a noisy neighbour is isolated; every queue bounded",
    ),
    (
        "Caching",
        "latency",
        "hit ratio measured; staleness bounded and stated",
    ),
    (
        "Load balancing and shedding",
        "graceful degradation",
        "critical work preserved; nothing dropped silently",
    ),
    (
        "Sharded locks",
        "concurrency on hot resources",
        "deadlocks avoided by order; every wait has a timeout",
    ),
    (
        "Write-ahead log and snapshots",
        "crash recovery",
        "recovery correct, and faster than a full replay",
    ),
    (
        "Bloom filter",
        "cheap existence checks",
        "measured false-positive rate",
    ),
    (
        "Batching (in this specification's use; a Merkle tree elsewhere)",
        "throughput; cheap diff",
        ">= 10x on small operations; diff traffic < 10 % of the data",
    ),
    (
        "Vector clock",
        "causality per replica",
        "causality kept, size bounded",
    ),
    (
        "Index structures (in this specification's use; gossip elsewhere)",
        "traversal and search at speed",
        "same answer as a full scan",
    ),
    (
        "Change data capture",
        "a stream out of a database",
        "no event lost, order preserved; log-based, not polling, where the engine can",
    ),
    (
        "Feature flags",
        "progressive rollout",
        "instant rollback, no restart",
    ),
)
