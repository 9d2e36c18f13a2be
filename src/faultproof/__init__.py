"""faultproof: distributed-systems micro-patterns for Python that bring their own proof.

What users import, and nothing else. Start with `connect` and the pattern you need; errors are in `faultproof.errors`.
"""

from faultproof.blocking import Blocking
from faultproof.clock import Env
from faultproof.connect import PostgresOptions, connect
from faultproof.joining import join
from faultproof.patterns.bulkhead import Bulkhead, BulkheadPolicy
from faultproof.patterns.escrow import Escrow, EscrowOptions, Hold, StockAudit, StockItem
from faultproof.patterns.fan_out import FanOut, Source
from faultproof.patterns.hedged_request import Hedged, HedgedRequest
from faultproof.patterns.outbox import (
    ConsumerOptions,
    DeadLetter,
    Event,
    GroupLag,
    Lag,
    MessageInbox,
    Outbox,
    OutboxOptions,
)
from faultproof.patterns.request_response import (
    AiohttpExchange,
    Budget,
    Client,
    ClientSession,
    Deadlines,
    Envelope,
    Http,
    HttpxExchange,
    Idempotent,
    IdempotentOptions,
    Keyed,
    Policy,
    Result,
    SessionOptions,
    Understood,
    httpx_transport,
    upstream_from_toml,
)
from faultproof.patterns.request_response.presets import GROWTH, HYPERSCALE, SCALE, STARTUP
from faultproof.patterns.saga import (
    NOTHING_TO_UNDO,
    Compensated,
    Completed,
    NeedsAttention,
    Pending,
    Saga,
    SagaOptions,
    Services,
    Step,
    StepContext,
    StepRetry,
    saga_from_yaml,
)
from faultproof.patterns.scatter_gather import Gathered, GatherPolicy, Incomplete, Missing, ScatterGather
from faultproof.patterns.shadow import (
    Diff,
    HttpCandidate,
    HttpRequest,
    Shadow,
    ShadowPolicy,
    ShadowProcesses,
    ShadowReport,
)
from faultproof.primitives.adaptive import AdaptivePolicy
from faultproof.primitives.batcher import Batcher, BatchLimits
from faultproof.primitives.breaker import BreakerPolicy
from faultproof.primitives.compartments import TenantPolicy
from faultproof.primitives.deadline import Deadline, within
from faultproof.primitives.endpoints import Endpoint
from faultproof.primitives.flag_file import FlagFile
from faultproof.primitives.flag_table import FlagTable
from faultproof.primitives.flags import FeatureFlag, Flags
from faultproof.primitives.group_commit import Err, GroupCommit, Ok
from faultproof.primitives.health import HealthPolicy
from faultproof.primitives.hedging import HedgePolicy
from faultproof.primitives.idempotency import Idempotency
from faultproof.primitives.outliers import OutlierPolicy
from faultproof.primitives.retry import Backoff, Retry, RetryBudget, RetryPolicy
from faultproof.primitives.shadowing import is_shadow, unshadowed
from faultproof.primitives.worker import Worker
from faultproof.signals import Signals

__all__ = [
    "GROWTH",
    "HYPERSCALE",
    "NOTHING_TO_UNDO",
    "SCALE",
    "STARTUP",
    "AdaptivePolicy",
    "AiohttpExchange",
    "Backoff",
    "BatchLimits",
    "Batcher",
    "Blocking",
    "BreakerPolicy",
    "Budget",
    "Bulkhead",
    "BulkheadPolicy",
    "Client",
    "ClientSession",
    "Compensated",
    "Completed",
    "ConsumerOptions",
    "DeadLetter",
    "Deadline",
    "Deadlines",
    "Diff",
    "Endpoint",
    "Env",
    "Envelope",
    "Err",
    "Escrow",
    "EscrowOptions",
    "Event",
    "FanOut",
    "FeatureFlag",
    "FlagFile",
    "FlagTable",
    "Flags",
    "GatherPolicy",
    "Gathered",
    "GroupCommit",
    "GroupLag",
    "HealthPolicy",
    "HedgePolicy",
    "Hedged",
    "HedgedRequest",
    "Hold",
    "Http",
    "HttpCandidate",
    "HttpRequest",
    "HttpxExchange",
    "Idempotency",
    "Idempotent",
    "IdempotentOptions",
    "Incomplete",
    "Keyed",
    "Lag",
    "MessageInbox",
    "Missing",
    "NeedsAttention",
    "Ok",
    "Outbox",
    "OutboxOptions",
    "OutlierPolicy",
    "Pending",
    "Policy",
    "PostgresOptions",
    "Result",
    "Retry",
    "RetryBudget",
    "RetryPolicy",
    "Saga",
    "SagaOptions",
    "ScatterGather",
    "Services",
    "SessionOptions",
    "Shadow",
    "ShadowPolicy",
    "ShadowProcesses",
    "ShadowReport",
    "Signals",
    "Source",
    "Step",
    "StepContext",
    "StepRetry",
    "StockAudit",
    "StockItem",
    "TenantPolicy",
    "Understood",
    "Worker",
    "connect",
    "httpx_transport",
    "is_shadow",
    "join",
    "saga_from_yaml",
    "unshadowed",
    "upstream_from_toml",
    "within",
]
