"""The mutants of the rooms' scripts: killed, idle, dearer, or explained beside the proof.

Hunting all of them takes minutes, and runs with `make soak`; a fixed part always."""

import pytest

from faultproof.prove.mutants.groups import groups, targets
from faultproof.prove.mutants.hunt import Effort
from faultproof.prove.mutants.verdict import Verdict, judged
from tests.prove.test_proofs import PROOFS

GROUPS = {group.name: group for group in groups(PROOFS.values())}
SURVIVE = "survived, and nobody says why: "
UNEXPLAINED = {"patterns.batch": 0, "patterns.escrow": 4, "patterns.outbox": 20, "patterns.saga": 20}
"""How many may survive without an explanation: those that did when they were first counted. It may only become less."""
ALWAYS = {"patterns.batch": 1, "patterns.escrow": 9}
"""Of these rooms' mutants each so-many-th is hunted with every run of the tests."""


def _hunted(name: str, every: int = 1) -> Verdict:
    effort, group = Effort(), GROUPS[name]
    return judged(targets(group, effort), group.survivors, effort, every=every)


def _untrue(verdict: Verdict) -> list[str]:
    """Explanations that do not hold."""
    return [each for each in verdict.complaints if not each.startswith(SURVIVE)]


@pytest.mark.parametrize("name", ALWAYS)
def test_some_mutants_are_killed_or_explained_and_redundant_guards_are_needed(name: str) -> None:
    verdict = _hunted(name, ALWAYS[name])
    assert _untrue(verdict) == []
    assert len(verdict.complaints) <= UNEXPLAINED[name]
    assert sum(bool(outcome.killed) for outcome in verdict.outcomes) >= 2
    assert len(verdict.twins) == {"patterns.batch": 0, "patterns.escrow": 4}[name]


@pytest.mark.soak
@pytest.mark.parametrize("name", GROUPS)
def test_every_mutant_is_killed_or_explained(name: str) -> None:
    verdict = _hunted(name)
    assert _untrue(verdict) == []
    assert len(verdict.complaints) <= UNEXPLAINED[name]
