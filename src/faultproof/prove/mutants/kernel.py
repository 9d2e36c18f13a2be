"""The kernel's own statements: mutated in the runs of all patterns together, and the survivors among them explained."""

from __future__ import annotations

from collections.abc import Iterable

from faultproof.prove.mutants.groups import KERNEL, Group
from faultproof.prove.proof import Proof, Survivor

SURVIVORS: tuple[Survivor, ...] = ()


def kernel(proofs: Iterable[Proof]) -> Group:
    """Claims, logs, and what is installed, under the proofs of all patterns."""
    return Group("kernel", KERNEL, tuple(proofs), SURVIVORS)
