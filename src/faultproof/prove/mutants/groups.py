"""Whose mutants are whose: proofs answer for the scripts of their own package, and for those that they say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from faultproof.prove.harness import carried_out
from faultproof.prove.mutants.derive import derived
from faultproof.prove.mutants.hunt import Effort, Target, runs
from faultproof.prove.mutants.reference import reference
from faultproof.prove.proof import Proof, Survivor
from faultproof.prove.simulated.escapes import no_escapes


@dataclass(frozen=True)
class Group:
    """Statements declared in some packages, and the proofs whose runs they are mutated in; each with what else it answers
    for."""

    name: str
    packages: tuple[str, ...]
    proofs: tuple[Proof, ...]
    survivors: tuple[Survivor, ...]


def groups(proofs: Iterable[Proof]) -> list[Group]:
    """One for each package that has some of these proofs."""
    found = dict[str, list[Proof]]()
    for proof in proofs:
        found.setdefault(_package(proof), []).append(proof)
    return [
        Group(
            package.removesuffix("."),
            (package,),
            tuple(members),
            tuple(survivor for proof in members for survivor in proof.survivors),
        )
        for package, members in found.items()
    ]


def _package(proof: Proof) -> str:
    """As the names of its statements begin."""
    module = proof.name.partition(":")[0]
    return (module.rpartition(".")[0] or module).removeprefix("faultproof.") + "."


def targets(group: Group, effort: Effort) -> list[Target]:
    """The mutants of a group, each once, with the proofs that execute it.

    Raises `HarnessError` if one of the proofs does not hold.
    """
    with carried_out(), no_escapes():
        references = [reference(proof, partial(runs, effort=effort)) for proof in group.proofs]
    found = dict[object, Target]()
    for each in references:
        for mutant in derived(each.observed, each.image, (*group.packages, *each.proof.answers_for)):
            known = found.get(mutant.key)
            found[mutant.key] = Target(mutant, (*known.references, each) if known else (each,))
    return list(found.values())
