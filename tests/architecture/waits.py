"""Time, chance and waiting: owned by the simulator, and bounded."""

import ast
import re
from itertools import pairwise
from pathlib import Path

from tests.architecture.source import Module, dotted, imports, modules, origins, parents, repository

_DURABLE = ("patterns", "primitives")

_AMBIENT = re.compile(
    r"""(time|random|secrets)(\..*)?
    | uuid\.(?!UUID\b).*                        # the type is fine, making one is not
    | (asyncio|anyio|trio)\.sleep\w*
    | datetime\.(datetime|date)\.(now|utcnow|today)
    | os\.(urandom|getrandom|times)""",
    re.VERBOSE,
)
_LOOP_CLOCK = {"time", "call_later", "call_at"}


def nothing_ambient(root: Path) -> list[str]:
    """Rule 2: clocks, randomness and ids come from injected objects, or simulation does not own them."""
    return [violation for module in modules(root, *_DURABLE) for violation in _ambient(module)]


def _ambient(module: Module) -> list[str]:
    names = origins(module)
    uses: list[tuple[ast.AST, str]] = [
        (node, target) for node, target, _ in imports(module) if _AMBIENT.fullmatch(target)
    ]
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Attribute):
            continue
        if _AMBIENT.fullmatch(name := dotted(node, names)):
            uses.append((node, name))
        elif node.attr in _LOOP_CLOCK and _is_loop(node.value):
            uses.append((node, f"loop.{node.attr}"))
    return [module.at(node, f"{name} is ambient; take a Clock, Rng or Ids instead.") for node, name in uses]


def _is_loop(node: ast.expr) -> bool:
    return re.search(r"(^|[._])loop$|get_(running|event)_loop\(\)$", ast.unparse(node)) is not None


_QUEUES = re.compile(r"(asyncio|queue)\.(Queue|LifoQueue|PriorityQueue)")
_WAITS = {"wait", "join", "acquire", "get"}
_LIMIT = re.compile(r"timeout|deadline|fail_after|move_on_after")
_NO_LIMIT = re.compile(r"timeout\w*\((\w+=)?None\)")
_LOCK = re.compile(r"(lock|mutex|semaphore|condition)$", re.IGNORECASE)


def every_wait_bounded(root: Path) -> list[str]:
    """Rule 3: every wait has a timeout, every queue a bound, unless a comment says why not."""
    return [violation for module in modules(root, *_DURABLE) for violation in _unbounded(module)]


def _unbounded(module: Module) -> list[str]:
    names = origins(module)
    above = parents(module.tree)
    found: list[str] = []
    for node in ast.walk(module.tree):
        sentence = ""
        match node:
            case ast.Call() if _is_unbounded_queue(node, names):
                sentence = "a queue without a bound; give it one, or say `# unbounded: <reason>`."
            case ast.keyword(arg="default_factory", value=made) if _QUEUES.fullmatch(dotted(made, names)):
                node, sentence = made, "a queue without a bound; give it one, or say `# unbounded: <reason>`."
            case ast.Call() if dotted(node.func, names) == "collections.deque" and not _has_maxlen(node):
                found += _deque_without_reason(module, node)
            case ast.keyword(arg="default_factory", value=made) if dotted(made, names) == "collections.deque":
                found += _deque_without_reason(module, made)
            case ast.Await(value=ast.Call() as call) if _is_bare_wait(call, names):
                if not _under_a_limit(node, above):
                    sentence = f"`{ast.unparse(call)}` waits for ever; or say `# unbounded: <reason>`."
            case ast.AsyncWith(items=items):
                locks = [text for item in items if _LOCK.search(text := ast.unparse(item.context_expr))]
                # The comment belongs on the `async with` line, not somewhere in its body.
                if locks and not _under_a_limit(node, above) and not _first_line_says(module, node):
                    found.append(module.at(node, f"`async with {locks[0]}` waits for ever; or say `# unbounded: …`."))
        if sentence and not module.has_comment(node, "unbounded"):
            found.append(module.at(node, sentence))
    return found


def _is_unbounded_queue(call: ast.Call, names: dict[str, str]) -> bool:
    name = dotted(call.func, names)
    if name == "queue.SimpleQueue":
        return True
    if not _QUEUES.fullmatch(name):
        return False
    bounds = [*call.args, *(k.value for k in call.keywords if k.arg == "maxsize")]
    return not bounds or ast.unparse(bounds[0]) in {"0", "-1"}


def _deque_without_reason(module: Module, node: ast.AST) -> list[str]:
    if module.has_comment(node, "bounded"):
        return []
    return [module.at(node, "a deque without maxlen; say `# bounded: <by what>`.")]


def _has_maxlen(call: ast.Call) -> bool:
    bounds = [*call.args[1:], *(k.value for k in call.keywords if k.arg == "maxlen")]
    return bool(bounds) and ast.unparse(bounds[0]) != "None"


def _is_bare_wait(call: ast.Call, names: dict[str, str]) -> bool:
    """An awaited `.wait()`, `.join()`, `.get()` without arguments, or `.acquire(…)` without a limit.

    With arguments `get(key)` and `join(x)` are something else; `acquire(key)` still waits.
    """
    limits = [*(k.arg or "" for k in call.keywords), *(ast.unparse(arg) for arg in call.args)]
    if any(_LIMIT.search(limit) for limit in limits):
        return any(_LIMIT.search(k.arg or "") and ast.unparse(k.value) == "None" for k in call.keywords)
    if dotted(call.func, names) == "asyncio.wait":
        return True
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in _WAITS:
        return False
    return call.func.attr == "acquire" or not call.args


def _under_a_limit(node: ast.AST, above: dict[ast.AST, ast.AST]) -> bool:
    """Whether an enclosing `async with …timeout…` of the same function ends the wait."""
    while (node := above[node]) in above and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        if isinstance(node, ast.AsyncWith | ast.With):
            texts = [ast.unparse(item.context_expr) for item in node.items]
            if any(_LIMIT.search(text) and not _NO_LIMIT.search(text) for text in texts):
                return True
    return False


def _first_line_says(module: Module, node: ast.AsyncWith) -> bool:
    return re.search(r"#\s*unbounded:\s*\w", module.lines[node.lineno - 1]) is not None


_SLEEP = re.compile(r"(time|asyncio|anyio|trio)\.sleep")


def tests_never_sleep(root: Path) -> list[str]:
    """Rule 9: a test waits for what it needs, never for a while that is too short today and too long tomorrow."""
    return [
        module.at(node, "a test that sleeps; wait for an event, or with `until`; or say `# sleeps: <reason>`.")
        for module in modules(repository(root) / "tests")
        for node in _sleeps(module)
        if not module.has_comment(node, "sleeps")
    ]


def _sleeps(module: Module) -> list[ast.AST]:
    """Every use of a sleep, but for `sleep(0)`, which lets others run."""
    names = origins(module)
    turns = {
        before
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        for before, after in pairwise([node.func, *node.args])  # `sleep(0)`, and `call(sleep, 0)`
        if ast.unparse(after) == "0"
    }
    return [
        node
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute | ast.Name) and node not in turns and _SLEEP.fullmatch(dotted(node, names))
    ]
