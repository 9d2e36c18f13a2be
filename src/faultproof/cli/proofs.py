"""Proofs by the names people type: a pattern (`outbox`), a part of the kernel (`claim`), or `pkg.module:NAME`."""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from faultproof.catalogue import KERNEL, PATTERNS, find
from faultproof.errors import InvalidInput
from faultproof.prove.harness import HarnessError, carried_out
from faultproof.prove.proof import Plant, Proof


def proofs_of(names: list[str]) -> list[Proof]:
    """The proofs of these names, each once; of every ready pattern and of the kernel if none is named.

    :raises InvalidInput: for a name that leads to no proof; `HarnessError` for a module that fails when imported.
    """
    found: dict[str, Proof] = {}
    ready = [pattern.name for pattern in PATTERNS if pattern.proof]
    for name in names or [*ready, *(mechanism.name for mechanism in KERNEL)]:
        for proof in [proof_called(name)] if ":" in name else _of_kernel(name) or _of_pattern(name):
            found[proof.name] = proof
    return list(found.values())


def proof_called(name: str) -> Proof:
    """The proof at `pkg.module:NAME`, of a module that is installed or below the current directory."""
    module, _, attribute = name.partition(":")
    found = imported(module, f"proof {name!r}")
    proof = getattr(found, attribute, None)
    if not isinstance(proof, Proof):
        there = ", ".join(each for each, value in vars(found).items() if isinstance(value, Proof)) or "none"
        raise InvalidInput(f"there is no proof {name!r}: the module has no Proof of that name; it has {there}")
    if proof.name != name:
        raise InvalidInput(
            f"the proof at {name!r} must be named so, not {proof.name!r}: its tapes are found by that name"
        )
    return proof


def plant_called(proof: Proof, name: str) -> Plant:
    """One of the proof's planted bugs."""
    for plant in proof.plants:
        if plant.name == name:
            return plant
    known = ", ".join(plant.name for plant in proof.plants) or "none"
    raise InvalidInput(f"{proof.name} has no planted bug {name!r}; its planted bugs are: {known}")


def _of_kernel(name: str) -> list[Proof]:
    """That of the part of the kernel that is called so, if there is one."""
    return [proof_called(each.proof) for each in KERNEL if each.name == name.strip().casefold()]


def _of_pattern(name: str) -> list[Proof]:
    """All that the pattern's room has, the catalogue's and its companions."""
    pattern = find(name)
    if pattern.proof is None:
        ready = ", ".join(each.name for each in PATTERNS if each.proof)
        raise InvalidInput(f"{pattern.name} has no proof yet; ready are {ready}")
    room = pattern.proof.partition(":")[0]
    proofs = (value for value in vars(import_module(room)).values() if isinstance(value, Proof))
    return [proof for proof in proofs if proof.name.startswith(f"{room}:")]


def imported(module: str, what: str) -> ModuleType:
    """The module in which `what` should be.

    :raises InvalidInput: if there is no such module; `HarnessError` if it fails when imported.
    """
    if all(part.isidentifier() for part in module.split(".")):
        _look_here()
        try:
            with carried_out():
                return import_module(module)
        except HarnessError:
            # A module that is there and fails is broken, not misspelt.
            if _is_there(module):
                raise
    raise InvalidInput(f"there is no {what}: no module {module!r} is in the current directory, or installed")


def _look_here() -> None:
    """Find modules in the current directory first, as `python -m` does; a script finds them beside itself only."""
    if not sys.flags.safe_path and "" not in sys.path:
        sys.path.insert(0, "")


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError as error:  # of its parents, which `find_spec` imports, or of one that they need
        return not f"{module}.".startswith(f"{error.name}.")
    except Exception:  # one of its parents is broken
        return True
