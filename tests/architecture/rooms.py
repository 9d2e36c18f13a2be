"""Furniture and hygiene: what every pattern's room has, how long a module may be, what nobody imports."""

import ast
import re
from collections.abc import Sequence
from pathlib import Path

from faultproof.catalogue import PATTERNS, Pattern, Status
from tests.architecture.source import Module, dotted, imports, modules, origins, repository, top_level_names

HEADINGS = (
    "Problem",
    "Promise",
    "Usage",
    "States",
    "Defaults",
    "Signals",
    "Failure table",
    "Runbook",
    "When not to use it",
    "Checklist",
    "Cost",
    "Sources",
)


def rooms_furnished(root: Path, catalogue: Sequence[Pattern] = PATTERNS) -> list[str]:
    """Rule 7: a room with code has its README, every heading and its proof; the catalogue agrees."""
    patterns = {re.sub(r"[\s-]+", "_", pattern.name).lower(): pattern for pattern in catalogue}
    folder = root / "patterns"
    rooms = sorted({path.parent.name for path in folder.glob("*/*.py")})
    found = [
        f"{_where(root, folder / room)}:1: the catalogue says {pattern.name} is ready, and it has no room."
        for room, pattern in patterns.items()
        if pattern.status is Status.READY and room not in rooms
    ]
    for room in rooms:
        where = f"{_where(root, folder / room)}:1:"
        pattern = patterns.get(room)
        if pattern is None:
            found.append(f"{where} no pattern of the catalogue lives here.")
            continue
        if pattern.status is not Status.READY:
            found.append(f"{where} it has code, and the catalogue says {pattern.name} is {pattern.status}.")
        found += _readme_violations(root, folder / room, pattern)
        found += _proof_violations(root, folder / room, pattern)
    return found


def _readme_violations(root: Path, room: Path, pattern: Pattern) -> list[str]:
    readme = room / "README.md"
    if not readme.is_file():
        return [f"{_where(root, readme)}:1: the room has no README."]
    text = readme.read_text(encoding="utf-8")
    lines = {line.rstrip() for line in text.splitlines()}
    found = [
        f"{_where(root, readme)}:1: the heading `## {heading}` is missing."
        for heading in HEADINGS
        if f"## {heading}" not in lines
    ]
    proof = pattern.proof or f"faultproof.patterns.{room.name}.proof:"
    if proof not in text:
        found.append(f"{_where(root, readme)}:1: it does not name its proof, {proof}.")
    return found


def _proof_violations(root: Path, room: Path, pattern: Pattern) -> list[str]:
    if pattern.proof is None:
        return []
    path = room / "proof.py"
    name = pattern.proof.partition(":")[2]
    if path.is_file() and name in top_level_names(ast.parse(path.read_text(encoding="utf-8"))):
        return []
    return [f"{_where(root, path)}:1: the catalogue promises the proof {pattern.proof}, and it is not there."]


def _where(root: Path, path: Path) -> Path:
    return path.relative_to(repository(root))


_LINES_MAX = 400
_DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc"}


def modules_small_and_named(root: Path) -> list[str]:
    """A module has one subject: at most 400 lines (aim at 200), and no name that means "the rest"."""
    found: list[str] = []
    for module in modules(root):
        if len(module.lines) > _LINES_MAX:
            found.append(module.at(_LINES_MAX + 1, f"{len(module.lines)} lines; aim at 200, split at 400."))
        if _DRAWERS & {part.removesuffix(".py") for part in module.place}:
            found.append(module.at(1, "a drawer for the rest; name the module for what it does."))
    return found


_UNSAFE_IMPORT = re.compile(r"(pickle|_pickle|cPickle|dill|cloudpickle|shelve|marshal)(\..*)?")
_UNSAFE_CALL = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}


def nothing_unsafe(root: Path) -> list[str]:
    """No pickle, no eval or exec, no shell: each turns data into code."""
    return [violation for module in modules(root) for violation in _unsafe(module)]


def _unsafe(module: Module) -> list[str]:
    names = origins(module)
    found = [
        module.at(node, f"{target}: data that runs code when read.")
        for node, target, _ in imports(module)
        if _UNSAFE_IMPORT.fullmatch(target)
    ]
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(func=ast.Name(id="eval" | "exec" as builtin)):
                found.append(module.at(node, f"{builtin} turns data into code."))
            case ast.Call(func=func) if (name := dotted(func, names)) in _UNSAFE_CALL:
                found.append(module.at(node, f"{name} goes through a shell."))
            case ast.keyword(arg="shell", value=value) if ast.unparse(value) != "False":
                found.append(module.at(node.value, "shell=True: pass a list of arguments."))
    return found
