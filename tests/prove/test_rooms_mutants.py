"""The mutants of every room's scripts, and of the kernel's: killed, or explained beside the proof.

All of them take minutes, and run with `make soak`; a fixed part of them always."""

import pytest

from faultproof.prove.mutants.groups import groups, targets
from faultproof.prove.mutants.hunt import Effort
from faultproof.prove.mutants.kernel import kernel
from faultproof.prove.mutants.verdict import judged
from tests.prove.test_proofs import PROOFS

GROUPS = {group.name: group for group in [*groups(PROOFS.values()), kernel(PROOFS.values())]}
EVERY = {"patterns.batch": 1, "patterns.escrow": 8, "patterns.outbox": 24, "patterns.saga": 16, "kernel": 40}
"""Of the mutants each so-many-th."""


@pytest.mark.parametrize("name", GROUPS)
def test_some_mutants_are_killed_or_explained(name: str) -> None:
    effort = Effort()
    found = targets(GROUPS[name], effort)
    verdict = judged(found, GROUPS[name].survivors, effort, every=EVERY[name])
    assert verdict.complaints == []
    assert any(outcome.killed for outcome in verdict.outcomes)


@pytest.mark.soak
@pytest.mark.parametrize("name", GROUPS)
def test_every_mutant_is_killed_or_explained(name: str) -> None:
    effort = Effort()
    verdict = judged(targets(GROUPS[name], effort), GROUPS[name].survivors, effort)
    assert verdict.complaints == []
