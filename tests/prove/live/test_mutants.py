"""Mutants in the live world: what is noticed there is noticed in simulation, and the other way round.

A few every time; all that both worlds can run with `make soak`."""

import functools
from functools import partial

import pytest

from faultproof.patterns.escrow.proof import ESCROW
from faultproof.prove.harness import HarnessError
from faultproof.prove.live.options import LiveOptions
from faultproof.prove.live.orders import Order
from faultproof.prove.live.proving import prove_live
from faultproof.prove.mutants.groups import groups, targets
from faultproof.prove.mutants.hunt import Effort, Target, tried
from faultproof.prove.mutants.living import mutation
from faultproof.prove.mutants.mutant import Mutant
from faultproof.prove.proof import Proof
from faultproof.prove.simulated.escapes import no_escapes
from faultproof.prove.simulated.explore import Explorer, Variation
from faultproof.prove.simulated.lanes import MemoryStore
from faultproof.prove.simulated.mutated import Difference, connected
from faultproof.prove.simulated.tape import Tape
from tests.prove.test_proofs import PROOFS

GROUPS = {group.name: group for group in groups(PROOFS.values())}
RUN_S = 6.0
"""What comes to no end is given up then."""
TRIES = 5
"""Live runs in which what an undisturbed simulated run notices must be noticed once."""


@functools.cache
def _targets(group: str) -> dict[str, Target]:
    found = targets(GROUPS[group], Effort(points=None, seeds=0))
    return {target.mutant.label: target for target in found if mutation(target.mutant) is not None}


def _simulated(proof: Proof, mutant: Mutant) -> bool:
    """Whether the undisturbed run is wrong."""
    store = partial(MemoryStore, connection=connected(mutant, Difference()))
    with no_escapes():
        try:
            _, wrong = Explorer(proof, variation=Variation(store=store)).run(Tape(), faults_max=0)
        except Exception:  # rows are such that the proof's own code cannot read them
            return True
    return bool(wrong)


def _live(proof: Proof, mutant: Mutant, engine: str, orders: tuple[Order, ...] | None = ()) -> bool:
    left_out = mutation(mutant)
    assert left_out is not None
    try:
        report = prove_live(proof, engine, LiveOptions(orders=orders, run_s=RUN_S, mutation=left_out))
    except HarnessError:  # the same
        return True
    assert report.left == []
    return report.verdict == "violated"


@pytest.mark.parametrize(
    ("label", "is_noticed"),
    [
        ("statement patterns.escrow.sql.move", True),
        ("condition patterns.escrow.sql.take: item = :item", True),
        ("condition patterns.escrow.sql.hold_all: i.escrow = :escrow", False),
    ],
)
def test_a_mutant_fares_live_as_in_simulation(label: str, is_noticed: bool) -> None:
    mutant = _targets("patterns.escrow")[label].mutant
    assert _simulated(ESCROW, mutant) == is_noticed
    assert _live(ESCROW, mutant, "sqlite") == is_noticed


def test_what_is_about_transactions_or_tables_is_not_for_the_live_world() -> None:
    for target in targets(GROUPS["patterns.escrow"], Effort(points=None, seeds=0)):
        mutant = target.mutant
        assert (mutation(mutant) is not None) == (mutant.kind in ("statement", "condition"))


def _agree(target: Target, proof: Proof, stepped: set[str]) -> bool:
    """What one world notices, the other does as well. Machines choose schedules that no tape does, and the other way round: so
    the live world has some runs, and one with kills and stops at every place if that is not enough, and the simulated one all
    that a hunt tries; or the stepped one is said to notice."""
    if _simulated(proof, target.mutant):
        runs = any(_live(proof, target.mutant, "sqlite") for _ in range(TRIES))
        return runs or _live(proof, target.mutant, "sqlite", orders=None)
    if not _live(proof, target.mutant, "sqlite") or target.mutant.label in stepped:
        return True
    with no_escapes():
        return tried(target, Effort()).killed is not None


@pytest.mark.soak
@pytest.mark.parametrize("group", GROUPS)
def test_every_mutant_fares_live_as_in_simulation(group: str) -> None:
    stepped = {label for each in GROUPS[group].survivors if each.stepped for label in each.mutants}
    disagreed = [
        f"{label} under {reference.proof.name}"
        for label, target in _targets(group).items()
        for reference in target.references
        if not _agree(target, reference.proof, stepped)
    ]
    assert not disagreed, "\n".join(disagreed)
