"""Every case holds through its interleavings, did what is interesting in one of them, and catches each planted bug."""

import pytest

from faultproof.patterns.escrow import proof_stepped as escrow
from faultproof.patterns.outbox import proof_stepped as outbox
from faultproof.patterns.outbox import proof_stepped_choices as choices
from faultproof.patterns.outbox import proof_stepped_groups as groups
from faultproof.patterns.outbox import proof_stepped_lost as lost
from faultproof.patterns.outbox import proof_stepped_members as members
from faultproof.patterns.saga import proof_stepped as saga
from faultproof.prove.stepped import proof_claims, proof_idempotency, proof_log
from faultproof.prove.stepped.explore import explore, explore_stepped
from faultproof.prove.stepped.world import World

MODULES = {
    "claims": proof_claims,
    "log": proof_log,
    "idempotency": proof_idempotency,
    "outbox": outbox,
    "groups": groups,
    "members": members,
    "lost": lost,
    "choices": choices,
    "escrow": escrow,
    "saga": saga,
}
CASES = {f"{name}-{case.name.rpartition(':')[2]}": case for name, module in MODULES.items() for case in module.CASES}
SAMPLED = {
    "log-LATE": 1,
    "outbox-CONSUME": 2,
    "groups-FORGET": 2,
    "escrow-SKIP": 1,
    "escrow-NEW": 1,
    "escrow-FORGET": 2,
}
"""Those with very many: all of them with `make soak`, and every time those with so few preemptions."""
LONG = "log-FOLLOWED"
"""Thousands even so: with `make soak` alone. What it shows, `log-LATE` shows with two sessions."""
EXACTLY = {
    # Nobody waits: 8 statements, of which 4 are one session's, and 8! / (4! 4!) orders.
    "claims-TAKE": "70 interleavings of 2 sessions",
    "claims-FENCE": "49 interleavings of 2 sessions, 3 with a wait",
    "outbox-PUBLISH": "8 interleavings of 2 sessions, 6 with a wait",
    "outbox-PUBLISH_SERIALIZABLE": "8 interleavings of 2 sessions, 6 with a wait, 6 with a serialization failure",
    "idempotency-THREE": "108 interleavings of 3 sessions with at most 3 preemptions, 102 with a wait",
}


@pytest.mark.parametrize("name", sorted(CASES.keys() - {LONG}))
def test_holds_through_its_interleavings(name: str, url: str) -> None:
    report = explore_stepped(CASES[name], url, preemptions=SAMPLED.get(name))
    assert [(violation.sentences, violation.schedule) for violation in report.violations] == []
    assert report.never == ()
    assert report.interleavings > 5
    if name in EXACTLY:
        assert str(report) == EXACTLY[name]


@pytest.mark.soak
@pytest.mark.parametrize("name", [*SAMPLED, LONG])
def test_holds_through_all_of_very_many_interleavings(name: str, url: str) -> None:
    report = explore_stepped(CASES[name], url)
    assert [(violation.sentences, violation.schedule) for violation in report.violations] == []
    assert report.never == ()


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.plants])
def test_catches_each_planted_bug(name: str, url: str) -> None:
    with World(CASES[name], url) as world:
        for plant in CASES[name].plants:
            report = explore(world, plant=plant.name)
            assert len(report.violations) == 1, f"{plant.name} survived {report}"
            assert not report.is_complete


def test_every_case_can_be_found_by_its_name() -> None:
    for name, case in CASES.items():
        module, _, attribute = case.name.partition(":")
        found = MODULES[name.partition("-")[0]]
        assert (found.__name__, getattr(found, attribute)) == (module, case)
