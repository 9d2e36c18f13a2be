"""Crash, recover, check: how fast the prover tries schedules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from benchmarks.model import Aim, Benchmark, Contestant, Figure, Place, Ready
from faultproof.patterns.batch.proof import BATCH
from faultproof.patterns.escrow.proof import ESCROW, FORGETTING, SHORTAGE
from faultproof.patterns.outbox.proof import DEAD_LETTERS, KEYS_GO_ON, OUTBOX, POISON, RELAY
from faultproof.patterns.saga.proof import ANSWERS, CALLBACKS, DECISIONS, SAGA, STARTS
from faultproof.prove.kernel.claim import CLAIM
from faultproof.prove.kernel.idempotency import IDEMPOTENCY
from faultproof.prove.kernel.log import LOG
from faultproof.prove.proof import Proof
from faultproof.prove.simulated.explore import explore
from faultproof.prove.simulated.faults import CRASH

ONCE, TWICE, SCHEDULES, RATE = "one fault", "two crashes", "schedules, two crashes", "schedules/s, two crashes"
PLACES, DISTINCT = "places x faults", "not equivalent"


@asynccontextmanager
async def exploring(place: Place, *, proof: Proof) -> AsyncIterator[Ready]:
    """Exhaustively, on as many processes as there are cores."""

    async def measure() -> dict[str, float]:
        once = await asyncio.to_thread(explore, proof, depth=1)
        assert not once.violations
        found = {ONCE: once.seconds, PLACES: float(once.points), DISTINCT: float(once.distinct)}
        if place.quick:  # every pair takes seconds
            return found
        twice = await asyncio.to_thread(explore, proof, depth=2, faults=(CRASH,))
        assert not twice.violations
        return {**found, TWICE: twice.seconds, SCHEDULES: float(twice.schedules), RATE: twice.rate}

    yield Ready(measure=measure, settings={"simulated": "SQLite in memory"})


PROOFS = {
    "outbox": OUTBOX,
    "poison": POISON,
    "dead letters": DEAD_LETTERS,
    "keys go on": KEYS_GO_ON,
    "relay": RELAY,
    "batch": BATCH,
    "saga": SAGA,
    "starts": STARTS,
    "answers": ANSWERS,
    "callbacks": CALLBACKS,
    "decisions": DECISIONS,
    "escrow": ESCROW,
    "shortage": SHORTAGE,
    "forgetting": FORGETTING,
    "claim": CLAIM,
    "log": LOG,
    "idempotency": IDEMPOTENCY,
}
RATED = ("outbox", "poison", "batch")

EXPLORATION = Benchmark(
    name="exploration",
    engine="none",
    measures="A proof in simulation: every place struck by every fault once, and every pair of places by a crash.",
    figures=(
        Figure(name=ONCE, unit="s", better="less"),
        Figure(name=PLACES, unit=""),
        Figure(name=DISTINCT, unit=""),
        Figure(name=TWICE, unit="s", better="less"),
        Figure(name=SCHEDULES, unit=""),
        Figure(name=RATE, unit="/s"),
    ),
    contestants=tuple(
        Contestant(
            name=name, side="ours", configured="as `faultproof prove` runs it", open=partial(exploring, proof=proof)
        )
        for name, proof in PROOFS.items()
    ),
    aims=(
        *(Aim(figure=ONCE, of=name, at_most=1) for name in PROOFS),
        *(Aim(figure=TWICE, of=name, at_most=15) for name in PROOFS),
        *(Aim(figure=RATE, of=name, at_least=700) for name in RATED),
    ),
    rounds=2,
)
