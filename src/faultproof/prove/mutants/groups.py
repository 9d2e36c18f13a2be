"""Whose mutants are whose: a proof answers for the scripts of its own package, the kernel's are for all proofs together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from faultproof.prove.mutants.derive import derived
from faultproof.prove.mutants.hunt import Target
from faultproof.prove.mutants.reference import Reference


def targets(references: Iterable[Reference], packages: Sequence[str]) -> list[Target]:
    """The mutants of the statements declared in these packages, each once."""
    found = dict[object, Target]()
    for reference in references:
        for mutant in derived(reference.observed, reference.image, packages):
            known = found.get(mutant.key)
            on = (*known.references, reference) if known else (reference,)
            found[mutant.key] = Target(mutant, on)
    return sorted(found.values(), key=lambda target: (target.mutant.kind, target.mutant.name))
