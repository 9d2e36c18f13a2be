"""The specification's advice: which pattern for which need, what to stop doing, and what each costs."""

from faultproof.catalogue.model import AntiPattern, Performance, Selection

SELECTION: tuple[Selection, ...] = (
    Selection(
        requirement="Atomic multi-service operation",
        recommended="Saga",
        alternative="Two-phase commit",
        avoid="Distributed transactions",
    ),
    Selection(
        requirement="High-throughput inventory",
        recommended="Escrow",
        alternative="Global locks",
        avoid="Optimistic concurrency",
    ),
    Selection(
        requirement="Audit requirements",
        recommended="Event Sourcing",
        alternative="Change logs",
        avoid="CRUD with audit table",
    ),
    Selection(
        requirement="Read/write performance gap",
        recommended="CQRS",
        alternative="Read replicas",
        avoid="Single model",
    ),
    Selection(
        requirement="Tail latency sensitive",
        recommended="Hedged Request",
        alternative="Caching only",
        avoid="Synchronous calls",
    ),
    Selection(
        requirement="Cross-cutting concerns",
        recommended="Sidecar",
        alternative="Library per service",
        avoid="Embedded logic",
    ),
    Selection(
        requirement="Cache consistency",
        recommended="Write-Through",
        alternative="Eventual consistency",
        avoid="Cache-aside",
    ),
    Selection(
        requirement="Fault isolation",
        recommended="Bulkhead",
        alternative="Global resources",
        avoid="Shared thread pools",
    ),
)

ANTI_PATTERNS: tuple[AntiPattern, ...] = (
    AntiPattern(
        name="Distributed Transactions",
        mistake="Using 2PC instead of Saga",
        detection="XA transaction monitoring",
        fix="Replace with Saga pattern",
        pattern="Saga",
    ),
    AntiPattern(
        name="Dual Writes",
        mistake="Writing to DB and message broker separately",
        detection="Inconsistency between DB and events",
        fix="Use Outbox pattern",
        pattern="Outbox",
    ),
    AntiPattern(
        name="Global Locks",
        mistake="Single lock for high-contention resource",
        detection="Lock wait time monitoring",
        fix="Use Escrow with sharding",
        pattern="Escrow",
    ),
    AntiPattern(
        name="Synchronous Saga",
        mistake="Calling all saga steps synchronously",
        detection="High latency for complex operations",
        fix="Asynchronous orchestration",
        pattern="Saga",
    ),
    AntiPattern(
        name="Unbounded Queues",
        mistake="No backpressure in event processing",
        detection="Memory growth, processing lag",
        fix="Add Bulkhead pattern",
        pattern="Bulkhead",
    ),
)

PERFORMANCE: tuple[Performance, ...] = (
    Performance(
        pattern="Outbox",
        latency="+5-10ms",
        throughput="High",
        consistency="Strong",
        complexity="Medium",
    ),
    Performance(
        pattern="Saga",
        latency="+50-200ms",
        throughput="Medium",
        consistency="Eventual",
        complexity="High",
    ),
    Performance(
        pattern="Escrow",
        latency="+1-5ms",
        throughput="High",
        consistency="Strong",
        complexity="Medium",
    ),
    Performance(
        pattern="Event Sourcing",
        latency="+10-20ms",
        throughput="High",
        consistency="Strong",
        complexity="High",
    ),
    Performance(
        pattern="CQRS",
        latency="Read: <1ms, Write: +5ms",
        throughput="Very High",
        consistency="Eventual",
        complexity="High",
    ),
    Performance(
        pattern="Hedged Request",
        latency="P99 improved",
        throughput="+50% load",
        consistency="N/A",
        complexity="Low",
    ),
    Performance(
        pattern="Sidecar",
        latency="+1-5ms",
        throughput="High",
        consistency="N/A",
        complexity="Medium",
    ),
    Performance(
        pattern="Leader-Follower",
        latency="+2-10ms",
        throughput="High",
        consistency="Strong",
        complexity="Medium",
    ),
)
