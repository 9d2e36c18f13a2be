"""The proofs of the patterns and of the kernel hold at every point, once and twice, and catch each planted bug."""

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from faultproof.engines.sqlite.connection import Synchronous
from faultproof.patterns.batch.proof import BATCH
from faultproof.patterns.bulkhead.proof import BULKHEAD, PERMITS
from faultproof.patterns.escrow.proof import ESCROW, FORGETTING, SHORTAGE
from faultproof.patterns.fan_out.proof import FAN_OUT
from faultproof.patterns.hedged_request.proof import HEDGED
from faultproof.patterns.outbox.proof import DEAD_LETTERS, KEYS_GO_ON, OUTBOX, POISON, RELAY
from faultproof.patterns.request_response.proof import REQUEST_RESPONSE
from faultproof.patterns.request_response.proof_client import CLIENT
from faultproof.patterns.saga.proof import ANSWERS, CALLBACKS, DECISIONS, SAGA, STARTS
from faultproof.patterns.scatter_gather.proof import SCATTER
from faultproof.patterns.shadow.proof import FLAGS, SHADOW
from faultproof.patterns.sidecar.proof import SUPERVISED
from faultproof.prove.kernel.claim import CLAIM
from faultproof.prove.kernel.idempotency import IDEMPOTENCY
from faultproof.prove.kernel.log import LOG
from faultproof.prove.proof import Proof
from faultproof.prove.saved import load, save
from faultproof.prove.simulated.escapes import no_escapes
from faultproof.prove.simulated.explore import Explorer, explore
from faultproof.prove.simulated.faults import CRASH, EVERY, FREEZE, OUTSIDE, Fault, Point
from faultproof.prove.simulated.tape import Tape

PROOFS = {
    "batch": BATCH,
    "bulkhead": BULKHEAD,
    "answers": ANSWERS,
    "callbacks": CALLBACKS,
    "claim": CLAIM,
    "client": CLIENT,
    "dead letters": DEAD_LETTERS,
    "decisions": DECISIONS,
    "escrow": ESCROW,
    "fan-out": FAN_OUT,
    "flags": FLAGS,
    "forgetting": FORGETTING,
    "hedged": HEDGED,
    "idempotency": IDEMPOTENCY,
    "keys go on": KEYS_GO_ON,
    "log": LOG,
    "outbox": OUTBOX,
    "permits": PERMITS,
    "poison": POISON,
    "relay": RELAY,
    "request-response": REQUEST_RESPONSE,
    "saga": SAGA,
    "scatter": SCATTER,
    "shadow": SHADOW,
    "shortage": SHORTAGE,
    "starts": STARTS,
    "supervised": SUPERVISED,
}
PLANTS = [(name, plant.name) for name, proof in PROOFS.items() for plant in proof.plants]
MANY_PAIRS = {
    "answers": 16,
    "bulkhead": 16,
    "callbacks": 16,
    "claim": 16,
    "client": 16,
    "dead letters": 24,
    "decisions": 16,
    "hedged": 16,
    "idempotency": 8,
    "keys go on": 32,
    "log": 8,
    "outbox": 8,
    "permits": 8,
    "poison": 16,
    "request-response": 64,
    "saga": 16,
    "shadow": 16,
    "starts": 8,
    "supervised": 16,
}
"""Proofs whose pairs of crashes take long: all of them with `make soak`; every time each so-many-th first crash, and
behind it every second one."""

MANY_FAULTS = {"dead letters": 16, "hedged": 2, "keys go on": 16, "outbox": 6, "poison": 12, "request-response": 24}
"""Proofs whose places take long, or of which each third is of one kind; and each how many-th of them is struck by every kind of
fault."""

SEEDS = {"decisions": 120, "idempotency": 160}
"""Random schedules of proofs in which there is less to strike at, or what happens sometimes is rare."""

NO_DATABASE = {"bulkhead", "client", "fan-out", "hedged", "permits", "scatter", "shadow", "supervised"}
"""Proofs of what is not durable: only the faults of requests to the outside can strike."""

SOME = [
    name if name in {"batch", "claim", "escrow", "outbox", "saga"} else pytest.param(name, marks=pytest.mark.soak)
    for name in PROOFS
]
"""Of all proofs: the others with `make soak`."""

HASHES = """
import sys
from faultproof.patterns.outbox.proof import OUTBOX
from faultproof.prove.simulated.explore import Explorer
from faultproof.prove.simulated.tape import Tape
explorer = Explorer(OUTBOX)
for seed in (1, 2):
    import random
    world, _ = explorer.run(Tape(rng=random.Random(seed), chance=0.03), faults_max=3)
    print(world.hash())
"""


@pytest.mark.parametrize("name", PROOFS)
def test_holds_at_every_point(name: str):
    report = explore(PROOFS[name], depth=1)
    assert [violation.sentences for violation in report.violations] == []
    assert report.distinct == report.schedules - 1 > 45
    assert report.points > report.distinct or name in NO_DATABASE, "some places are one"


def _outcome_of_a_crash(explorer: Explorer, point: Point) -> tuple[object, ...]:
    world, wrong = explorer.run(Tape({point.position: CRASH}), faults_max=1)
    return wrong, world.notes, world.outside, list(world.store.dump()), world.loop.now


@pytest.mark.parametrize("name", ["claim", "escrow", "idempotency", "poison", "starts"])
def test_crashes_at_equivalent_places_come_to_the_same_end(name: str):
    explorer, ends = Explorer(PROOFS[name]), dict[object, list[tuple[object, ...]]]()
    with no_escapes():
        for point in explorer.run(Tape(), faults_max=1)[0].points:
            if CRASH in point.kinds:
                ends.setdefault(point.crash, []).append(_outcome_of_a_crash(explorer, point))
    assert sum(map(len, ends.values())) > len(ends) + 5
    assert [key for key, (first, *others) in ends.items() if any(other != first for other in others)] == []


@pytest.mark.parametrize("name", sorted(MANY_PAIRS.keys() & {"claim", "outbox", "saga"}))
def test_holds_at_some_pairs_of_crashes(name: str):
    with no_escapes():
        report = Explorer(PROOFS[name]).depth(2, part=0, parts=MANY_PAIRS[name], faults=(CRASH,))
    assert [violation.sentences for violation in report.violations] == []
    assert report.schedules > 30


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.soak) if name in MANY_PAIRS else name for name in PROOFS]
)
def test_holds_at_every_pair_of_crashes(name: str):
    report = explore(PROOFS[name], depth=2, faults=(CRASH,))
    assert [violation.sentences for violation in report.violations] == []
    assert report.schedules > 200


@pytest.mark.parametrize("name", SOME)
def test_holds_under_every_kind_of_fault(name: str):
    """Every kind, at each third place where it could strike."""
    with no_escapes():
        report = Explorer(PROOFS[name]).depth(1, part=0, parts=MANY_FAULTS.get(name, 3), faults=sorted(EVERY))
    assert [violation.sentences for violation in report.violations] == []
    assert report.fired == set(OUTSIDE) if name in NO_DATABASE else len(report.fired) > 8


@pytest.mark.parametrize("name", PROOFS)
def test_holds_at_random(name: str):
    report = explore(PROOFS[name], seeds=range(SEEDS.get(name, 60)))
    assert [violation.sentences for violation in report.violations] == []
    assert report.distinct > 15, "faults must have struck"
    assert len(report.offered - report.fired) <= 2, "of every kind"
    assert report.seen == {each.claim for each in PROOFS[name].sometimes}


@pytest.mark.parametrize("name", ["batch", "escrow", "saga"])
def test_what_was_synced_survives_a_power_failure_and_what_was_not_does_not(name: str, tmp_path: Path):
    """On real WAL files, cut where the last sync was: with `synchronous=normal`, which does not sync, the claim must break."""
    explorer = Explorer(PROOFS[name])
    wrong: dict[Synchronous, int] = {"full": 0, "normal": 0}
    for synchronous in wrong:
        failures = 0
        for seed in range(16):
            tape = Tape(rng=random.Random(seed), chance=0.05)
            world, violations = explorer.run(
                tape, faults_max=2, faults=frozenset({Fault.POWER}), files=tmp_path, synchronous=synchronous
            )
            failures += len(world.faults)
            wrong[synchronous] += bool(violations)
        assert failures > 8
    assert wrong["full"] == 0
    assert wrong["normal"] > 0


@pytest.mark.parametrize("name", SOME)
def test_holds_statement_by_statement(name: str):
    report = explore(PROOFS[name], seeds=range(12), granularity="statement")
    assert [violation.sentences for violation in report.violations] == []


@pytest.mark.parametrize("name", SOME)
def test_holds_on_real_files(name: str, tmp_path: Path):
    """The write lock and the readers' snapshots are played in memory; here SQLite does them itself."""
    explorer = Explorer(PROOFS[name])
    for seed in range(6):
        tape = Tape(rng=random.Random(seed), chance=0.02)
        world, wrong = explorer.run(tape, faults_max=2, files=tmp_path)
        assert wrong == [], (seed, world.faults)


@pytest.mark.parametrize(("name", "plant"), PLANTS)
def test_catches_the_planted_bug(name: str, plant: str):
    explorer = Explorer(PROOFS[name], plant)
    with no_escapes():  # a little at a time: one violation is enough
        parts = (explorer.depth(1, part=part, parts=24, faults=(CRASH, FREEZE)) for part in range(24))
        assert any(part.violations for part in parts), f"{plant} survived"


def test_each_proof_has_enough_planted_bugs():
    assert len(BATCH.plants) >= 5
    assert len({plant.name for plant in (*BULKHEAD.plants, *PERMITS.plants)}) >= 5
    assert len(SAGA.plants) >= 5
    assert len(SHADOW.plants) >= 5
    assert len(ESCROW.plants) >= 5
    assert len(SHORTAGE.plants) == len(FORGETTING.plants) == 2
    assert len(CLAIM.plants) >= 5
    assert len(LOG.plants) >= 5
    assert len(IDEMPOTENCY.plants) >= 5
    assert len(REQUEST_RESPONSE.plants) >= 5
    assert len({plant.name for plant in (*OUTBOX.plants, *POISON.plants)}) >= 5


def test_a_violation_shrinks_to_the_one_fault_that_matters_and_replays(tmp_path: Path):
    explorer = Explorer(OUTBOX, "split transaction")
    with no_escapes():
        violation = next(v for v in explorer.sample(range(40), chance=0.05).violations if len(v.faults) > 1)
        shrunk = explorer.shrunk(violation)
        save(tmp_path / "tape", shrunk.answers, proof=OUTBOX.name, plant="split transaction")
        saved = load(tmp_path / "tape")
        world, wrong = explorer.run(Tape(dict(saved.answers)), faults_max=8)
    assert len(shrunk.faults) == 1
    assert "writer in api-" in shrunk.faults[0]
    assert (saved.proof, saved.plant) == (OUTBOX.name, "split transaction")
    assert (tuple(wrong), tuple(world.faults)) == (shrunk.sentences, shrunk.faults)


@pytest.mark.parametrize("name", SOME)
def test_a_tape_replays_exactly_a_hundred_times(name: str):
    explorer = Explorer(PROOFS[name])
    with no_escapes():
        chance = 0.2 if name in NO_DATABASE else 0.05
        first, _ = explorer.run(Tape(rng=random.Random(7), chance=chance), faults_max=3)
        expected, answers = first.hash(), dict(first.tape.answers)
        assert first.faults
        hashes = {explorer.run(Tape(answers), faults_max=3)[0].hash() for _ in range(100)}
    assert hashes == {expected}


def test_the_seed_of_pythons_hashes_changes_nothing():
    outputs = set()
    for seed in ("0", "1", "12345"):
        done = subprocess.run(
            [sys.executable, "-c", HASHES],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        outputs.add(hashlib.sha256(done.stdout.encode()).hexdigest())
        assert len(done.stdout.split()) == 2
    assert len(outputs) == 1


def _sample(proof: Proof, seeds: range) -> None:
    report = explore(proof, seeds=seeds)
    assert [violation.sentences for violation in report.violations] == []
    statements = explore(proof, seeds=range(seeds.start, seeds.start + len(seeds) // 10), granularity="statement")
    assert [violation.sentences for violation in statements.violations] == []


@pytest.mark.soak
@pytest.mark.parametrize("name", PROOFS)
def test_holds_at_random_for_long(name: str):
    _sample(PROOFS[name], range(1_000, 7_000))
