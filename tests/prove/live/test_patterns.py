"""The proofs of the patterns, live. Some points every time; all of them, and every kind of fault, with `make soak`."""

import pytest

from faultproof.patterns.batch.proof import BATCH
from faultproof.patterns.escrow.proof import ESCROW, FORGETTING, SHORTAGE
from faultproof.patterns.outbox.proof import DEAD_LETTERS, KEYS_GO_ON, OUTBOX, POISON, RELAY
from faultproof.patterns.saga.proof import ANSWERS, CALLBACKS, DECISIONS, SAGA, STARTS
from faultproof.prove.live.options import LiveOptions
from faultproof.prove.live.proving import prove_live

PROOFS = {
    "batch": BATCH,
    "answers": ANSWERS,
    "callbacks": CALLBACKS,
    "dead letters": DEAD_LETTERS,
    "decisions": DECISIONS,
    "escrow": ESCROW,
    "shortage": SHORTAGE,
    "forgetting": FORGETTING,
    "keys go on": KEYS_GO_ON,
    "outbox": OUTBOX,
    "poison": POISON,
    "relay": RELAY,
    "saga": SAGA,
    "starts": STARTS,
}
FEW = LiveOptions(points=3, stops=2, kills=1, network=0, run_s=60.0)


@pytest.mark.parametrize("name", ["outbox", pytest.param("escrow", marks=pytest.mark.soak)])
def test_holds_at_some_points(name: str, postgres_url: str) -> None:
    report = prove_live(PROOFS[name], postgres_url, FEW)
    assert [violation.sentences for violation in report.violations] == []
    assert report.strikes["kill"] >= 2
    assert report.strikes["stop"] >= 1
    assert report.left == []


@pytest.mark.soak
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
@pytest.mark.parametrize("name", PROOFS)
def test_holds_at_every_point_and_under_every_fault(name: str, engine: str) -> None:
    report = prove_live(PROOFS[name], engine, LiveOptions(stops=30, kills=20))
    assert [violation.sentences for violation in report.violations] == []
    assert report.verdict == "held", report.lines()


@pytest.mark.soak
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
@pytest.mark.parametrize(("name", "plant"), [(name, plant.name) for name in PROOFS for plant in PROOFS[name].plants])
def test_catches_the_planted_bug(name: str, plant: str, engine: str) -> None:
    report = prove_live(PROOFS[name], engine, LiveOptions(plant=plant, stops=60))
    assert report.verdict == "violated"
