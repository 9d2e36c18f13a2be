"""Patterns 16 to 24: those that only the detailed part of the specification describes."""

from faultproof.catalogue.model import Pattern, Variant

PATTERNS_16_24: tuple[Pattern, ...] = (
    Pattern(
        number=16,
        name="Request-Response",
        primitives=("P1", "P8", "P9", "P12"),
        problem="How to implement reliable synchronous communication between client and server?",
        guarantee="ordered, linearizable per client",
        guarantees=(
            "Sequential ordering per client",
            "Linearizable operations",
            "Total order guarantee within single client session",
        ),
        must_show="per-client order holds under retries, failover and timeouts",
        scale_variants=(
            Variant(name="Startup", means="Direct connections, basic timeouts"),
            Variant(name="Growth", means="Load balancer, circuit breaker, retry logic"),
            Variant(name="Scale", means="Regional load balancing, auto-scaling groups"),
            Variant(name="Hyperscale", means="Global load balancers, intelligent routing"),
        ),
    ),
    Pattern(
        number=17,
        name="Streaming",
        primitives=("P3", "P7", "P19"),
        problem="How to process continuous data streams with ordering and fault tolerance?",
        guarantee="partition order, multi-reader",
        guarantees=(
            "Eventual consistency",
            "Partition ordering preserved",
            "Multi-reader capability",
        ),
        must_show="state and offset never disagree after a crash",
        use_cases=(
            "Real-time analytics",
            "Event processing pipelines",
            "Log aggregation",
            "Change data capture",
        ),
    ),
    Pattern(
        number=18,
        name="Fan-out",
        primitives=("P1", "P4", "P8"),
        problem="How to distribute single request to multiple services and aggregate results?",
        guarantee="partial results on failure",
        guarantees=(
            "Parallel processing",
            "Completeness (when all services respond)",
            "Partial results on failures",
        ),
        must_show="partial failures are reported, never swallowed",
    ),
    Pattern(
        number=19,
        name="Analytics",
        primitives=("P4", "P5", "P10", "P12"),
        problem="How to build high-performance analytical processing system?",
        guarantee="parallel, multi-dimensional",
        guarantees=(
            "Eventual consistency for analytics data",
            "Parallel processing for queries",
            "Multi-dimensional aggregation",
        ),
        must_show="same answers as a reference engine; a heavy query cannot starve a light one",
        variants=(
            Variant(name="Real-Time", means="Low latency, limited complexity"),
            Variant(name="Batch", means="High throughput, complex queries"),
            Variant(name="Hybrid", means="Balanced approach with lambda architecture"),
        ),
        architecture=(
            Variant(name="edge", means="Analytics API (query interface)"),
            Variant(
                name="service", means="Query Engine (parallel processing), ETL Processor (data preparation)"
            ),
            Variant(
                name="state", means="Data Warehouse (columnar storage), Staging Area (temporary storage)"
            ),
            Variant(name="control", means="Workload Manager (resource optimization)"),
        ),
    ),
    Pattern(
        number=20,
        name="Async Task",
        primitives=("P7", "P16", "P8"),
        problem="How to process long-running tasks asynchronously with reliability?",
        guarantee="eventual completion",
        guarantees=(
            "Eventual completion",
            "Worker failure tolerance",
            "Batch efficiency",
        ),
        must_show="every task completes or is in the dead-letter queue, with effects once",
    ),
    Pattern(
        number=21,
        name="Graph",
        primitives=("P1", "P18", "P11"),
        problem="How to efficiently query and traverse graph data structures?",
        guarantee="index-optimised, cached",
        guarantees=(
            "Index-optimized queries",
            "Distributed traversal capability",
            "Cached performance",
        ),
        must_show="same traversal as a reference library; cache never outlives a change",
    ),
    Pattern(
        number=22,
        name="Ledger",
        primitives=("P3", "P5", "P13"),
        problem="How to implement immutable transaction ledger with strong consistency?",
        guarantee="immutable, ACID",
        guarantees=(
            "Immutable transaction history",
            "Strong consistency through consensus",
            "ACID properties for financial operations",
        ),
        must_show="debits == credits always; history cannot be altered unnoticed",
    ),
    Pattern(
        number=23,
        name="ML Inference",
        primitives=("P11", "P12", "P4"),
        problem="How to serve machine learning models at scale with low latency?",
        guarantee="low latency, available",
        guarantees=(
            "Low latency through caching",
            "High availability through load balancing",
            "Parallel inference for ensemble models",
        ),
        must_show="same predictions as the model run alone; a dead replica costs no request",
    ),
    Pattern(
        number=24,
        name="Search",
        primitives=("P18", "P11", "P4"),
        problem="How to implement fast, relevant search across large datasets?",
        guarantee="fast, relevant",
        guarantees=(
            "Fast lookup through indexing",
            "Distributed scalability",
            "Relevance ranking",
        ),
        must_show="sharded ranking == single-index ranking",
    ),
)
