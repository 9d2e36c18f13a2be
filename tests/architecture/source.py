"""Reading the source tree for the rules: modules, the names they import, and where a node stands."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Module:
    """One parsed file. `place` is its path below the source root: ("patterns", "outbox", "sql.py")."""

    path: Path
    root: Path
    place: tuple[str, ...]
    lines: tuple[str, ...]
    tree: ast.Module

    @property
    def layer(self) -> str:
        """The top-level package or module it belongs to: "patterns", "errors"; the front itself is ""."""
        return "" if self.place == ("__init__.py",) else self.place[0].removesuffix(".py")

    @property
    def package(self) -> tuple[str, ...]:
        """The dotted package that a relative import starts from."""
        return (self.root.name, *self.place[:-1])

    def at(self, node: ast.AST | int, sentence: str) -> str:
        """A violation, the way compilers print theirs."""
        line = node if isinstance(node, int) else getattr(node, "lineno", 1)
        return f"{self.path.relative_to(repository(self.root))}:{line}: {sentence}"

    def has_comment(self, node: ast.AST, marker: str) -> bool:
        """Whether a line of `node` carries the comment `# marker: <some reason>`."""
        first, last = (
            getattr(node, "lineno", 1),
            getattr(node, "end_lineno", None) or getattr(node, "lineno", 1),
        )
        return any(re.search(rf"#\s*{marker}:\s*\w", line) for line in self.lines[first - 1 : last])


def repository(root: Path) -> Path:
    """The checkout that holds `src/faultproof`, or `tests`."""
    return root.parent if root.name == "tests" else root.parent.parent


def modules(root: Path, *layers: str) -> list[Module]:
    """All modules below `root`, or those of the given layers, in a stable order."""
    found = (_read(root, path, path.stat().st_mtime_ns) for path in sorted(root.rglob("*.py")))
    return [module for module in found if not layers or module.layer in layers]


@cache
def _read(root: Path, path: Path, _changed: int) -> Module:
    text = path.read_text(encoding="utf-8")
    return Module(
        path=path,
        root=root,
        place=path.relative_to(root).parts,
        lines=tuple(text.splitlines()),
        tree=ast.parse(text, filename=str(path)),
    )


def imports(module: Module) -> Iterator[tuple[ast.stmt | ast.expr, str, str]]:
    """Every import as (node, dotted target, local name); `from a import b` has the target "a.b".

    `importlib.import_module("a.b")` with a literal counts: it is an import in disguise.
    """
    for node in ast.walk(module.tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield node, alias.name, alias.asname or alias.name.split(".")[0]
            case ast.ImportFrom(names=names):
                for alias in names:
                    yield node, f"{_origin(module, node)}.{alias.name}", alias.asname or alias.name
            case ast.Call(func=func, args=[ast.Constant(value=str() as target), *_]) if ast.unparse(func).endswith(
                "import_module"
            ):
                yield node, target, ""


def _origin(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    base = module.package[: len(module.package) - (node.level - 1)]
    return ".".join((*base, *([node.module] if node.module else [])))


def origins(module: Module) -> dict[str, str]:
    """Local name -> dotted origin, for all that the module imports."""
    names: dict[str, str] = {}
    for node, target, local in imports(module):
        # `import a.b` binds `a`; only `import a.b as c` and `from a import b` bind the whole.
        plain = isinstance(node, ast.Import) and local == target.split(".")[0]
        names[local] = local if plain else target
    return names


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """The dotted origin of `a.b.c`, or "" when it does not begin with an imported name."""
    if isinstance(node, ast.Subscript):  # deque[int]() makes a deque
        node = node.value
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in names:
        return ""
    return ".".join([names[node.id], *reversed(parts)])


def parents(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    """Child -> parent for the whole tree."""
    return {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}


def docstrings(tree: ast.AST) -> set[ast.AST]:
    """The constants that are prose: docstrings, and the strings that stand under an attribute as one."""
    return {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def top_level_names(tree: ast.Module) -> dict[str, ast.stmt]:
    """What a module defines itself at its top: classes, functions, assignments."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found[name] = node
            case ast.Assign(targets=targets):
                found |= {target.id: node for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = node
    return found


def strings(node: ast.AST) -> list[str]:
    """The string constants below `node`."""
    return [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
