"""Mutants in the live world: what is left out, told to other processes by the names of statements."""

from __future__ import annotations

from faultproof.prove.live.protocol import Mutation
from faultproof.prove.mutants.mutant import Mutant


def mutation(mutant: Mutant) -> Mutation | None:
    """What the live world can run of it: statements and conditions that are left out. None: it is about something else."""
    if not (mutant.left_out or mutant.conditions) or mutant.constraints or mutant.is_about_transactions:
        return None
    return Mutation(
        left_out=sorted(statement.name for statement in mutant.left_out),
        conditions={statement.name: sorted(numbers) for statement, numbers in mutant.conditions.items()},
    )
