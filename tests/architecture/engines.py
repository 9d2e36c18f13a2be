"""What belongs to engines: their capabilities are tested, their dialect stays with them, SQL is not glued."""

import ast
import re
from pathlib import Path

from tests.architecture.source import Module, docstrings, modules, repository, strings, top_level_names

SQL_RENDERERS: dict[str, str] = {
    "engines/sqlite/connection.py": "a PRAGMA takes no parameters, and its value is one of a Literal's",
}
"""Engine modules that may build SQL text, each with the reason. `"engines/x/render.py": "why"`."""


def capabilities_tested(root: Path) -> list[str]:
    """Rule 5: what an engine claims is named by the conformance suite, which skips nothing in silence."""
    suite = repository(root) / "tests" / "conformance"
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(suite.rglob("*.py"))}
    tested = {word for tree in trees.values() for word in _words(tree)}
    found: list[str] = []
    for module in modules(root, "engines"):
        node = top_level_names(module.tree).get("CAPABILITIES")
        if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
            continue
        claimed = _claimed(node.value)
        if not claimed:
            found.append(module.at(node, "CAPABILITIES names none; write each out, so that it can be tested."))
        found += [
            module.at(node, f"no test under tests/conformance mentions the capability {name}.")
            for name in claimed
            if name not in tested
        ]
    for path, tree in trees.items():
        for each in ast.walk(tree):
            if isinstance(each, ast.Attribute) and each.attr in {"skip", "skipif", "xfail", "importorskip"}:
                where = f"{path.relative_to(repository(root))}:{each.lineno}"
                found.append(f"{where}: conformance skips nothing: a capability denied raises NotSupported.")
    return found


def _claimed(value: ast.expr) -> list[str]:
    """The names in `Capabilities(wake_up=True)`, `{Capability.WAKE_UP}`, `{"wake_up": …}`, `{"wake_up"}`."""
    match value:
        case ast.Call(keywords=[_, *_] as keywords):
            return [keyword.arg for keyword in keywords if keyword.arg]
        case ast.Call(args=[inner, *_]):
            return _claimed(inner)
        case ast.Dict(keys=keys):
            return [name for key in keys if key for name in _claimed(key)]
        case ast.Set(elts=elements) | ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [name for element in elements for name in _claimed(element)]
        case ast.BinOp(left=left, right=right):
            return _claimed(left) + _claimed(right)
        case ast.Attribute(attr=name) | ast.Constant(value=str() as name):
            return [name]
        case _:
            return []


def _words(tree: ast.Module) -> set[str]:
    prose = docstrings(tree)
    words: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str() as word) if node not in prose:
                words.add(word)
            case ast.Attribute(attr=word) | ast.keyword(arg=str() as word):
                words.add(word)
    return words


_DIALECT = re.compile(
    r"\b(SKIP\s+LOCKED|FOR\s+(NO\s+KEY\s+)?UPDATE|FOR\s+(KEY\s+)?SHARE|json_each|jsonb\w*|PRAGMA"
    r"|statement_timestamp|clock_timestamp|pg_\w+|xmin|txid\w*)\b",
    re.IGNORECASE,
)
_ENGINE_NAME = re.compile(r"sqlite|postgres|psycopg|asyncpg", re.IGNORECASE)


def no_dialect_in_patterns(root: Path) -> list[str]:
    """Rule 6: patterns speak the SQL that every engine shares, and never ask which engine it is."""
    return [violation for module in modules(root, "patterns") for violation in _dialect(module)]


def _dialect(module: Module) -> list[str]:
    prose = docstrings(module.tree)
    found: list[str] = []
    for node in ast.walk(module.tree):
        match node:
            case ast.Constant(value=str() as text) if node not in prose:
                if hit := _DIALECT.search(text):
                    found.append(module.at(node, f"{hit[0]} is dialect; it belongs to an engine."))
                elif _ENGINE_NAME.match(text) and text.isidentifier():
                    found.append(module.at(node, f"{text!r}: a pattern does not ask which engine it is."))
            case (
                ast.Name(id=name)
                | ast.Attribute(attr=name)
                | ast.arg(arg=name)
                | ast.keyword(arg=str() as name)
                | ast.alias(name=name)
                | ast.FunctionDef(name=name)
                | ast.ClassDef(name=name)
            ) if _ENGINE_NAME.search(name):
                line = getattr(node, "lineno", 1)
                found.append(module.at(line, f"{name}: a pattern does not ask which engine it is."))
    return found


def sql_not_glued(root: Path) -> list[str]:
    """No statement is glued together from pieces, except in the renderers that SQL_RENDERERS names."""
    return [
        violation
        for module in modules(root)
        if "/".join(module.place) not in SQL_RENDERERS
        for violation in _glued(module)
    ]


def _glued(module: Module) -> list[str]:
    scopes = [
        module.tree,
        *(n for n in ast.walk(module.tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)),
    ]
    found: set[str] = set()
    for scope in scopes:
        built = {
            target.id
            for node in ast.walk(scope)
            if isinstance(node, ast.Assign) and _is_glue(node.value)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(scope):
            if not isinstance(node, ast.Call) or not _called(node).startswith("execute"):
                continue
            for statement in [*node.args[:1], *(k.value for k in node.keywords if k.arg in {"sql", "query"})]:
                if _is_glue(statement) or (isinstance(statement, ast.Name) and statement.id in built):
                    found.add(module.at(node, "SQL glued from pieces; use parameters, or an engine's renderer."))
    return sorted(found)


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _is_glue(node: ast.expr) -> bool:
    match node:
        case ast.JoinedStr(values=values):
            return any(isinstance(value, ast.FormattedValue) for value in values)
        case ast.BinOp(op=ast.Add() | ast.Mod(), left=left, right=right):
            # Two literals added are one literal.
            return bool(strings(node)) and not (_is_text(left) and _is_text(right))
        case ast.Call(func=ast.Attribute(attr="format", value=template)):
            # psycopg.sql.SQL("…").format(…) composes with quoting, which is the point of it.
            return not (isinstance(template, ast.Call) and _called(template) == "SQL")
        case ast.Call(func=ast.Attribute(attr="join")):
            return True
        case _:
            return False


def _is_text(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=str()):
            return True
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return _is_text(left) and _is_text(right)
        case _:
            return False
