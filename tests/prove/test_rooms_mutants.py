"""The mutants of the rooms' scripts: killed, idle, dearer, or explained beside the proof.

Hunting all of them takes minutes, and runs with `make soak`; a fixed part always."""

from functools import partial

import pytest

from faultproof.prove.mutants.groups import groups, targets
from faultproof.prove.mutants.hunt import Effort
from faultproof.prove.mutants.stepping import stage_of
from faultproof.prove.mutants.verdict import Verdict, judged
from tests.prove.test_proofs import PROOFS

GROUPS = {group.name: group for group in groups(PROOFS.values())}
ALWAYS = {"patterns.batch": 1, "patterns.escrow": 18, "patterns.outbox": 31, "patterns.saga": 29, "prove.kernel": 24}
"""Of these rooms' mutants each so-many-th is hunted with every run of the tests."""


def _hunted(name: str, every: int = 1, url: str | None = None) -> Verdict:
    effort, group = Effort(), GROUPS[name]
    stage = None if url is None else partial(stage_of, group, url)
    return judged(targets(group, effort), group.survivors, effort, every=every, stage=stage)


@pytest.mark.parametrize("name", ALWAYS)
def test_some_mutants_are_killed_or_explained_and_redundant_guards_are_needed(name: str) -> None:
    verdict = _hunted(name, ALWAYS[name])
    assert verdict.complaints == []
    assert sum(bool(outcome.killed) for outcome in verdict.outcomes) >= 2
    twins = {"patterns.batch": 0, "patterns.escrow": 4, "patterns.outbox": 1, "patterns.saga": 9, "prove.kernel": 2}
    assert len(verdict.twins) == twins[name]


@pytest.mark.soak
@pytest.mark.parametrize("name", GROUPS)
def test_every_mutant_is_killed_or_explained(name: str, postgres_url: str) -> None:
    verdict = _hunted(name, url=postgres_url)
    assert verdict.complaints == []
