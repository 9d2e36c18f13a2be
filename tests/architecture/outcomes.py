"""Rule 4: "failed" and "outcome unknown" are different errors everywhere."""

import ast
import re
from pathlib import Path

from tests.architecture.source import modules

_UNKNOWN = "OutcomeUnknown"
_FAILURE = re.compile(r"Failed|Failure|Rejected")


def failed_is_not_unknown(root: Path) -> list[str]:
    """No class is both, neither derives from the other, and no `except` catches them in one tuple."""
    bases = {
        node.name: (module, node, [ast.unparse(base).split(".")[-1] for base in node.bases])
        for module in modules(root)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    }

    def lineage(name: str) -> set[str]:
        """The class and all above it."""
        above = bases[name][2] if name in bases else []
        return {name}.union(*(lineage(base) for base in above if base != name))

    def kinds(name: str) -> tuple[bool, bool]:
        line = lineage(name)
        return _UNKNOWN in line, any(_FAILURE.search(each) for each in line)

    found = [
        module.at(node, f"{name} is both a failure and {_UNKNOWN}; a caller may retry only one of them.")
        for name, (module, node, _) in bases.items()
        if all(kinds(name))
    ]
    for module in modules(root):
        for handler in ast.walk(module.tree):
            if isinstance(handler, ast.ExceptHandler) and isinstance(handler.type, ast.Tuple):
                caught = [kinds(ast.unparse(each).split(".")[-1]) for each in handler.type.elts]
                if any(unknown for unknown, _ in caught) and any(failed for _, failed in caught):
                    found.append(module.at(handler, f"catches {_UNKNOWN} and a failure as if they were one."))
    return found
