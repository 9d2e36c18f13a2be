"""A declared statement, parsed: its conditions, and the statement without some of them.

The text of a statement is the engines' common SQL with `:name` and `{macro}` in it. A macro is given a name that SQL can
parse, and gets its own back; so what comes out is again a text that each engine renders in its own spelling.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import sqlglot
from sqlglot import expressions as exp
from sqlglot.errors import SqlglotError

from faultproof.errors import InvalidInput
from faultproof.ports.statement import Statement, asked

_MACRO = re.compile(r"\{([a-z_]+)\}")
_MOMENTS = ("now", "moment")
_LOCK = re.compile(r"\s*\{(lock|lock_or_skip)\}\s*$")
_PROTECTED = re.compile(r":faultproof_(now|moment)\b|faultproof_set_([a-z_]+)")
_POSTGRES = re.compile(r"::|\bARRAY\b|\bFOR\s+(NO\s+KEY\s+|KEY\s+)?(UPDATE|SHARE)\b")
"""What PostgreSQL alone understands: casts, arrays and row locks. Other statements are the engines' common SQL, which is
written as it was read."""
_NAMED = re.compile(r"%\((\w+)\)s")
_NOT_NULL = re.compile(r'\bNOT ([\w."]+) IS NULL\b')


def conditions(statement: Statement) -> tuple[str, ...]:
    """What is joined by AND in its WHERE, ON and HAVING clauses, and in each WHEN, from left to right; as it is written.

    Raises `InvalidInput` for a statement that cannot be parsed.
    """
    return tuple(_written(each) for each in _conditions(_parse(statement.text)))


def tables(sql: str) -> frozenset[str]:
    """The tables that a statement names, those that it is given as parameters left out."""
    named = {table.name for table in _parse(sql).find_all(exp.Table)}
    return frozenset(name for name in named if not name.startswith("faultproof_set_"))


def written(sql: str) -> frozenset[str]:
    """The tables that a statement inserts into, changes or deletes from."""
    tree = _parse(sql)
    changed = [each.this.find(exp.Table) for each in tree.find_all(exp.Insert, exp.Update, exp.Delete)]
    return frozenset(table.name for table in changed if table is not None)


def equalities(statement: Statement) -> list[tuple[str, str]]:
    """Columns that are compared with a parameter, each with the parameter's name."""
    found = []
    for each in _parse(statement.text).find_all(exp.EQ):
        if isinstance(each.this, exp.Column) and isinstance(each.expression, exp.Placeholder):
            found.append((each.this.name, str(each.expression.this)))
    return [(column, name) for column, name in found if not name.startswith("faultproof_")]


def conflict(statement: Statement) -> tuple[str, frozenset[str]] | None:
    """The table and the columns of the key on whose conflict an insertion does something else; no columns: of any key."""
    insert = _parse(statement.text)
    if not isinstance(insert, exp.Insert) or insert.args.get("conflict") is None:
        return None
    table = insert.find(exp.Table)
    assert table is not None
    columns = insert.args["conflict"].args.get("conflict_keys") or ()
    return table.name, frozenset(column.name for each in columns for column in each.find_all(exp.Column))


@functools.lru_cache(maxsize=4096)  # one object for each text, or nothing that is kept for a statement would be found
def changed(statement: Statement, dropped: frozenset[int], is_plain: bool = False) -> Statement:
    """The statement without these of its `conditions`; `is_plain`: and without its ON CONFLICT clause.

    A variant for PostgreSQL loses the conditions of the same wording. A parameter that nothing asks for any more is none.
    """
    left_out = {text for number, text in enumerate(conditions(statement)) if number in dropped}
    text = _without(statement.text, lambda number, _: number in dropped, is_plain)
    postgres = statement.postgres and _without(statement.postgres, lambda _, text: text in left_out, is_plain)
    named = asked(f"{text} {postgres or ''}")
    parameters = tuple(each for each in statement.parameters if each.name in named)
    return replace(statement, text=text, postgres=postgres, parameters=parameters)


_Choice = Callable[[int, str], bool]


def _without(text: str, is_dropped: _Choice, is_plain: bool) -> str:
    lock = _LOCK.search(text)
    tree = _parse(text)
    for number, condition in enumerate(list(_conditions(tree))):
        if is_dropped(number, _written(condition)):
            _drop(condition)
    if is_plain:
        tree.set("conflict", None)
    return _restored(tree.sql(dialect=_dialect(text))) + (lock[0] if lock else "")


def _drop(condition: exp.Expr) -> None:
    joined = condition.parent
    if isinstance(joined, exp.And):
        joined.replace(joined.right if condition is joined.left else joined.left)
    else:
        condition.replace(exp.true())


def _parse(text: str) -> exp.Expr:
    protected = _MACRO.sub(
        lambda found: f":faultproof_{found[1]}" if found[1] in _MOMENTS else f"faultproof_set_{found[1]}",
        _LOCK.sub("", text),
    )
    try:
        return sqlglot.parse_one(protected, dialect=_dialect(text))
    except SqlglotError as error:
        raise InvalidInput(f"no mutants of a statement that cannot be parsed: {text!r}") from error


def _dialect(text: str) -> str | None:
    return "postgres" if _POSTGRES.search(text) else None


def _conditions(tree: exp.Expr) -> Iterator[exp.Expr]:
    for node in tree.walk(bfs=False):
        clause = _clause(node)
        if clause is not None and not isinstance(clause, exp.Boolean):
            yield from _conjuncts(clause)


def _clause(node: exp.Expr) -> exp.Expr | None:
    if isinstance(node, (exp.Where, exp.Having)) or (isinstance(node, exp.If) and isinstance(node.parent, exp.Case)):
        condition: exp.Expr = node.this
        return condition
    on = node.args.get("on") if isinstance(node, exp.Join) else None
    return on if isinstance(on, exp.Expr) else None


def _conjuncts(clause: exp.Expr) -> Iterator[exp.Expr]:
    if isinstance(clause, exp.And):
        yield from _conjuncts(clause.left)
        yield from _conjuncts(clause.right)
    else:
        yield clause


def _written(condition: exp.Expr) -> str:
    return _NOT_NULL.sub(r"\1 IS NOT NULL", _restored(condition.sql()))


def _restored(text: str) -> str:
    named = _NAMED.sub(r":\1", text)  # sqlglot's spelling of a parameter on PostgreSQL
    return _PROTECTED.sub(lambda found: f"{{{found[1] or found[2]}}}", named)
