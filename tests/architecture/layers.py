"""Who may import whom, and what is exported where."""

import ast
from pathlib import Path

from tests.architecture.source import Module, imports, modules, strings, top_level_names

_LEAVES = frozenset({"bounds", "errors", "clock", "signals"})
_MAY_IMPORT = {
    "bounds": _LEAVES,
    "errors": _LEAVES,
    "clock": _LEAVES,
    "signals": _LEAVES,
    "ports": _LEAVES | {"ports"},
    "primitives": _LEAVES | {"ports", "primitives"},
    "patterns": _LEAVES | {"ports", "primitives", "patterns"},
    "engines": _LEAVES | {"ports", "primitives", "engines"},
    "catalogue": _LEAVES | {"catalogue"},
}
_ADAPTERS = {("engines", "envoy"): frozenset({"patterns"})}
"""Envoy is an engine for policies, and those are values of the patterns whose rooms they live in: it reads them."""
_WHERE_BOTH_MEET = frozenset({"connect", "prove", "cli", "shop"})


def layers(root: Path) -> list[str]:
    """Rule 1: patterns never see engines nor engines patterns; both meet only where things are joined."""
    return [violation for module in modules(root) for violation in _layer_violations(module)]


def _layer_violations(module: Module) -> list[str]:
    seen = [(node, layer) for node, target, _ in imports(module) if (layer := _layer(module, target)) is not None]
    if module.layer in _MAY_IMPORT:
        allowed = _MAY_IMPORT[module.layer]
        allowed = allowed | _ADAPTERS.get(module.place[:2], frozenset())
        name = module.place[-1]
        if module.layer == "patterns" and (name == "proof.py" or name.startswith("proof_")):
            allowed |= {"prove"}
        return [
            module.at(node, f"{module.layer} may not import {layer or 'the front of the package'}.")
            for node, layer in seen
            if layer not in allowed
        ]
    if module.layer not in _WHERE_BOTH_MEET and {"engines", "patterns"} <= {layer for _, layer in seen}:
        node = next(node for node, layer in seen if layer == "engines")
        return [module.at(node, "engines and patterns meet only in connect, prove, cli and shop.")]
    return []


def _layer(module: Module, target: str) -> str | None:
    """The layer that a dotted name belongs to; "" for the front; None for other people's packages."""
    package, *rest = target.split(".")
    if package != module.root.name:
        return None
    if not rest:
        return ""
    name = rest[0]
    known = name in _MAY_IMPORT.keys() | _WHERE_BOTH_MEET
    there = (module.root / name).is_dir() or (module.root / f"{name}.py").is_file()
    return name if known or there else ""


def exported_once(root: Path) -> list[str]:
    """Rule 7: a public name has one definition and one way in, besides a pattern's own room."""
    front = next((module for module in modules(root, "")), None)
    if front is None:
        return []
    exported = _all(front)
    if exported is None:
        return [front.at(1, "__all__ must be there, a literal list of names.")]
    return [violation for name in exported for violation in _export_violations(root, front, name)]


def _export_violations(root: Path, front: Module, name: str) -> list[str]:
    everywhere = modules(root)
    defining = [m for m in everywhere if name in top_level_names(m.tree)]
    home = _home(everywhere, front, name)
    found: list[str] = []
    if home is None:
        found.append(front.at(1, f"{name} is in __all__ and defined nowhere."))
    for module in defining:
        # A second function may share a verb (every engine opens something); a second class may not.
        if module is not home and isinstance(node := top_level_names(module.tree)[name], ast.ClassDef):
            found.append(module.at(node, f"{name} is public and has a second definition here."))
    for module in everywhere:
        if module in (front, home) or not _is_public_package(module) or name not in (_all(module) or ()):
            continue
        own_room = module.layer == "patterns" and home is not None and home.place[:2] == module.place[:2]
        if not own_room:
            found.append(module.at(1, f"{name} is exported here and by the front: one of them is enough."))
    return found


def _home(everywhere: list[Module], module: Module, name: str) -> Module | None:
    """The module that defines `name`, found by following the imports from `module`."""
    if name in top_level_names(module.tree):
        return module
    target = next((target for _, target, local in imports(module) if local == name), None)
    if target is None:
        return None
    *package, last = target.split(".")
    source = next((m for m in everywhere if _dotted_name(m) == tuple(package)), None)
    return _home(everywhere, source, last) if source and source is not module else None


def _dotted_name(module: Module) -> tuple[str, ...]:
    last = module.place[-1].removesuffix(".py")
    return module.package if last == "__init__" else (*module.package, last)


def _is_public_package(module: Module) -> bool:
    return module.place[-1] == "__init__.py" and not any(part.startswith("_") for part in module.place[:-1])


def _all(module: Module) -> list[str] | None:
    match top_level_names(module.tree).get("__all__"):
        case ast.Assign(value=ast.List() | ast.Tuple() as value):
            return strings(value)
        case _:
            return None
