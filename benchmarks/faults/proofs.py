"""Contenders as proofs for the live world, whose faults strike from outside: SIGKILL at any time, what networks do, kill -9
of the server. Their processes are services of their own.

Not DBOS: its tables are in one schema, and the live world gives each run another.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from benchmarks.faults.index import CONTENDERS
from benchmarks.faults.judging import proof_of
from benchmarks.faults.model import Contender, Trial
from faultproof.errors import InvalidInput
from faultproof.prove.live.options import LiveOptions
from faultproof.prove.live.proving import Progress, prove_live
from faultproof.prove.live.report import LiveReport
from faultproof.prove.proof import Proof

KILLS, NETWORK, SERVER_KILLS = 4, 2, 1
"""Runs with SIGKILLs at random times, four each; runs with each fault of the network; runs in which the server is killed."""
_SECONDS = 3_600.0
_PARALLEL = 3


def _proof(contender: str, called: str, jobs: int) -> Proof:
    """So many jobs that there is still work when the faults come, and not much more."""
    trial = Trial(fault="none", strikes=jobs // 10, every=10)
    return replace(proof_of(CONTENDERS[contender], trial), name=f"{__name__}:{called}")


PGQUEUER = _proof("pgqueuer", "PGQUEUER", 5_000)
PROCRASTINATE = _proof("procrastinate-retrying", "PROCRASTINATE", 200)
FASTSTREAM_OUTBOX = _proof("faststream-outbox", "FASTSTREAM_OUTBOX", 500)
INBOX = _proof("faultproof-inbox", "INBOX", 1_000)
RELAY = _proof("faultproof-relay", "RELAY", 1_000)
PROOFS = {
    "pgqueuer": PGQUEUER,
    "procrastinate-retrying": PROCRASTINATE,
    "faststream-outbox": FASTSTREAM_OUTBOX,
    "faultproof-inbox": INBOX,
    "faultproof-relay": RELAY,
}


def proof_called(name: str) -> Proof:
    """The proof of this contender. Raises `InvalidInput` where it has none."""
    try:
        return PROOFS[name]
    except KeyError:
        raise InvalidInput(f"for the live world there is no {name!r}: choose from {', '.join(PROOFS)}") from None


def proved(contender: Contender, kills: int | None, progress: Progress) -> LiveReport:
    """What the live world makes of it. Raises what `prove_live` raises."""
    options = LiveOptions(
        kills=KILLS if kills is None else kills,
        points=0,
        stops=0,
        network=NETWORK,
        server_kills=SERVER_KILLS,
        seconds=_SECONDS,
        run_s=2 * contender.patience_s + 60,  # so that what is stuck is found out before time is up
        parallel=_PARALLEL,
        command=(sys.executable, "-m", "benchmarks.faults.service", contender.name),
    )
    return prove_live(proof_called(contender.name), "postgresql", options, progress)
