"""All benchmarks by name, in the order in which they run."""

from __future__ import annotations

from benchmarks.measures import (
    batch,
    callers,
    delivery,
    drain,
    escrow,
    exploration,
    fan_out,
    million,
    policies,
    publish,
    recovery,
    saga,
    sidecar,
    tail,
)
from benchmarks.model import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    each.name: each
    for each in (
        drain.POSTGRESQL,
        drain.SQLITE,
        callers.POSTGRESQL,
        publish.POSTGRESQL,
        publish.SQLITE,
        batch.POSTGRESQL,
        batch.SQLITE,
        escrow.POSTGRESQL,
        escrow.SQLITE,
        delivery.POSTGRESQL,
        delivery.SQLITE,
        saga.POSTGRESQL,
        saga.SQLITE,
        saga.THREE_STEPS,
        policies.POLICIES,
        policies.HEDGED,
        fan_out.FAN_OUT,
        tail.TAIL,
        tail.LOAD,
        recovery.RECOVERY,
        recovery.CANCELS,
        million.POSTGRESQL,
        million.SQLITE,
        exploration.EXPLORATION,
        sidecar.SIDECAR,
    )
}
