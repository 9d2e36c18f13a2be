"""What operators and detectors need to see, emitted from one place.

A `Signal` is declared once, here, with its unit. `Signals.emit` hands a value to every sink; the default sinks are
`logging` (warnings only for what wants a person) and, where `opentelemetry-api` is installed, its meter. A sink that
raises is dropped from that call and never reaches the caller: telemetry must not break the work that it watches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["count", "gauge", "duration"]
Attributes = dict[str, str | int]


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One thing worth watching: its name, how it adds up, its unit, and what it means."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    alarming: bool = False
    """Whether each emission is worth a line at WARNING."""


LOCK_WAIT = Signal(
    name="faultproof.lock.wait",
    kind="duration",
    unit="s",
    meaning="from asking for the write lock to having it",
)
QUEUE_DEPTH = Signal(
    name="faultproof.queue.depth", kind="gauge", unit="items", meaning="items waiting in a bounded queue"
)
QUEUE_AGE = Signal(name="faultproof.queue.age", kind="duration", unit="s", meaning="how long the oldest item waited")
LAG_EVENTS = Signal(name="faultproof.lag.events", kind="gauge", unit="events", meaning="committed, not yet delivered")
LAG_AGE = Signal(name="faultproof.lag.age", kind="gauge", unit="s", meaning="age of the oldest undelivered event")
STEP = Signal(name="faultproof.step", kind="duration", unit="s", meaning="one step of a loop, handler or transaction")
RETRY = Signal(name="faultproof.retry", kind="count", unit="attempts", meaning="an attempt after the first")
BUDGET_SPENT = Signal(
    name="faultproof.budget.spent",
    kind="count",
    unit="refusals",
    meaning="a retry that the shared budget refused",
    alarming=True,
)
DEAD_LETTER = Signal(
    name="faultproof.dead_letter", kind="count", unit="events", meaning="an event was given up", alarming=True
)
STUCK = Signal(
    name="faultproof.stuck",
    kind="count",
    unit="claims",
    meaning="a claim expired unfinished and was taken over",
    alarming=True,
)
LOOP_RESTART = Signal(
    name="faultproof.loop.restart",
    kind="count",
    unit="restarts",
    meaning="a supervised loop died",
    alarming=True,
)
LOOP_LAG = Signal(
    name="faultproof.loop.lag",
    kind="duration",
    unit="s",
    meaning="the event loop was blocked so long that a lease was given up; effects may repeat",
    alarming=True,
)
SAGA_STEP = Signal(
    name="faultproof.saga.step", kind="duration", unit="s", meaning="one attempt of a saga's action or undo"
)
SAGA_STUCK = Signal(
    name="faultproof.saga.stuck",
    kind="gauge",
    unit="sagas",
    meaning="sagas that want attention, or have been quiet for long",
)
SAGA_ATTENTION = Signal(
    name="faultproof.saga.attention",
    kind="count",
    unit="sagas",
    meaning="a saga can go on no more without a person",
    alarming=True,
)

HOLDS_EXPIRED = Signal(
    name="faultproof.holds.expired",
    kind="count",
    unit="holds",
    meaning="a hold's time ran out and its stock was returned",
)

BREAKER_OPENED = Signal(
    name="faultproof.breaker.opened",
    kind="count",
    unit="openings",
    meaning="a circuit breaker opened: calls to its endpoint are refused for a while",
    alarming=True,
)
BREAKER_STATE = Signal(
    name="faultproof.breaker.state",
    kind="gauge",
    unit="level",
    meaning="a circuit breaker changed to closed (0), half-open (1) or open (2)",
)

ENDPOINT_EJECTED = Signal(
    name="faultproof.endpoint.ejected",
    kind="count",
    unit="ejections",
    meaning="an endpoint that does worse than the others gets no calls for a while",
    alarming=True,
)
ENDPOINT_DOWN = Signal(
    name="faultproof.endpoint.down",
    kind="count",
    unit="endpoints",
    meaning="an endpoint failed its health checks, and gets no calls until it passes them",
    alarming=True,
)
ENDPOINTS_USABLE = Signal(
    name="faultproof.endpoints.usable",
    kind="gauge",
    unit="endpoints",
    meaning="endpoints of a group that may be picked; none: the calls go to all that are not draining",
)
CALLS_SHED = Signal(
    name="faultproof.calls.shed",
    kind="count",
    unit="calls",
    meaning="a client refused a call at once: too many were under way",
    alarming=True,
)
HEDGE = Signal(name="faultproof.hedge", kind="count", unit="requests", meaning="a second request beside a slow one")
HEDGE_WON = Signal(
    name="faultproof.hedge.won",
    kind="count",
    unit="requests",
    meaning="a hedge whose answer was the first acceptable one",
)
SHARDS_MISSING = Signal(
    name="faultproof.shards.missing",
    kind="count",
    unit="shards",
    meaning="shards, or services, that gave no answer to a question which all of them were asked",
)
PERMITS_IN_FLIGHT = Signal(
    name="faultproof.permits.in_flight",
    kind="gauge",
    unit="permits",
    meaning="permits of a bulkhead that are held, when a call has to wait for one",
)
PERMITS_LIMIT = Signal(
    name="faultproof.permits.limit",
    kind="gauge",
    unit="permits",
    meaning="permits that a bulkhead has, whenever that changes",
)
PERMITS_SHED = Signal(
    name="faultproof.permits.shed",
    kind="count",
    unit="calls",
    meaning="a call that a bulkhead refused: no room to wait, pushed out, or waited too long",
)
FLAG_CHANGED = Signal(
    name="faultproof.flag.changed",
    kind="count",
    unit="flags",
    meaning="a feature flag has another value in this process",
)
FLAGS_STALE = Signal(
    name="faultproof.flags.stale",
    kind="count",
    unit="errors",
    meaning="flags cannot be read, or one has a value that it cannot have: the last good one counts",
    alarming=True,
)
SHADOW_DROPPED = Signal(
    name="faultproof.shadow.dropped",
    kind="count",
    unit="requests",
    meaning="requests that were to be mirrored and were not, by reason",
)
SHADOW_DIFFERENT = Signal(
    name="faultproof.shadow.different",
    kind="count",
    unit="requests",
    meaning="requests to which a shadow's candidate answered otherwise, noise included",
)
SHADOW_FAILED = Signal(
    name="faultproof.shadow.failed",
    kind="count",
    unit="requests",
    meaning="requests at which a shadow's candidate failed, or that it did not answer in time",
)

REQUEST_REPLAYED = Signal(
    name="faultproof.request.replayed",
    kind="count",
    unit="requests",
    meaning="a repeated request got the first answer, and was not carried out again",
)
REQUEST_SUPERSEDED = Signal(
    name="faultproof.request.superseded",
    kind="count",
    unit="requests",
    meaning="a request was refused because a later one of its session had been taken",
)
REQUEST_LATE = Signal(
    name="faultproof.request.late",
    kind="count",
    unit="requests",
    meaning="a request was refused because its caller's deadline was over",
)
SESSION_UNKNOWN = Signal(
    name="faultproof.session.unknown",
    kind="count",
    unit="requests",
    meaning="a session's request was given up without anybody knowing whether it happened",
    alarming=True,
)

ALL: tuple[Signal, ...] = (
    LOCK_WAIT,
    QUEUE_DEPTH,
    QUEUE_AGE,
    LAG_EVENTS,
    LAG_AGE,
    STEP,
    RETRY,
    BUDGET_SPENT,
    DEAD_LETTER,
    STUCK,
    LOOP_RESTART,
    LOOP_LAG,
    SAGA_STEP,
    SAGA_STUCK,
    SAGA_ATTENTION,
    HOLDS_EXPIRED,
    BREAKER_OPENED,
    BREAKER_STATE,
    ENDPOINT_EJECTED,
    ENDPOINT_DOWN,
    ENDPOINTS_USABLE,
    HEDGE,
    HEDGE_WON,
    SHARDS_MISSING,
    PERMITS_IN_FLIGHT,
    PERMITS_LIMIT,
    PERMITS_SHED,
    CALLS_SHED,
    FLAG_CHANGED,
    FLAGS_STALE,
    SHADOW_DROPPED,
    SHADOW_DIFFERENT,
    SHADOW_FAILED,
    REQUEST_REPLAYED,
    REQUEST_SUPERSEDED,
    REQUEST_LATE,
    SESSION_UNKNOWN,
)

Sink = Callable[[Signal, float, Attributes], None]

_logger = logging.getLogger("faultproof")


def log_sink(signal: Signal, value: float, attributes: Attributes) -> None:
    """To `logging`: WARNING for what wants a person, DEBUG for the rest."""
    level = logging.WARNING if signal.alarming else logging.DEBUG
    if _logger.isEnabledFor(level):
        _logger.log(level, "%s %s %s %s", signal.name, value, signal.unit, attributes)


def opentelemetry_sink() -> Sink | None:
    """A sink on OpenTelemetry's API, or None where it is not installed."""
    try:
        from opentelemetry import metrics
    except ImportError:
        return None
    meter = metrics.get_meter("faultproof")
    record: dict[str, Callable[..., Any]] = {}
    for signal in ALL:
        if signal.kind == "count":
            record[signal.name] = meter.create_counter(signal.name, signal.unit, signal.meaning).add
        elif signal.kind == "gauge":
            record[signal.name] = meter.create_gauge(signal.name, signal.unit, signal.meaning).set
        else:
            record[signal.name] = meter.create_histogram(signal.name, signal.unit, signal.meaning).record

    def sink(signal: Signal, value: float, attributes: Attributes) -> None:
        record[signal.name](value, attributes)

    return sink


class Signals:
    """Hands each value to its sinks. Cheap enough for every transaction: no sink, no work."""

    def __init__(self, sinks: Iterable[Sink] | None = None) -> None:
        if sinks is None:
            otel = opentelemetry_sink()
            sinks = (log_sink,) if otel is None else (log_sink, otel)
        self._sinks = tuple(sinks)

    def emit(self, signal: Signal, value: float, **attributes: str | int) -> None:
        """Hand `value`, in the signal's unit, to every sink."""
        for sink in self._sinks:
            try:
                sink(signal, value, attributes)
            except Exception:
                _logger.exception("a signal sink failed on %s", signal.name)
