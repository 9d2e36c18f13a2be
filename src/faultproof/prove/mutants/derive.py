"""From what a proof's scripts were seen to do to everything that could be left out of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from faultproof.ports.statement import Statement
from faultproof.prove.mutants.constraints import Constraint, constraints
from faultproof.prove.mutants.mutant import Mutant
from faultproof.prove.mutants.observe import Observed
from faultproof.prove.mutants.parsed import conditions, conflict, written


def derived(observed: Observed, image: bytes, packages: Sequence[str] = ("",)) -> list[Mutant]:
    """Every mutant of the statements declared in these packages, and of the tables they change; in a fixed order.

    Raises `InvalidInput` for a statement that cannot be parsed: what cannot be changed cannot be shown to matter.
    """
    every = sorted(observed.statements, key=lambda each: each.name)
    statements = [each for each in every if _is_in(each, packages)]
    return [
        *_statements(statements),
        *_conditions(statements),
        *_constraints(statements, every, image),
        *_splits(pair for pair in observed.neighbours if _is_in(pair[0], packages) or _is_in(pair[1], packages)),
        *_early_answers(last for last in observed.last if _is_in(last, packages)),
    ]


def _is_in(statement: Statement, packages: Sequence[str]) -> bool:
    return any(statement.name.startswith(package) for package in packages)


def _statements(statements: Iterable[Statement]) -> Iterator[Mutant]:
    for statement in statements:
        yield Mutant(kind="statement", name=statement.name, left_out=frozenset({statement}))


def _conditions(statements: Iterable[Statement]) -> Iterator[Mutant]:
    for statement in statements:
        seen = dict[str, int]()
        for number, text in enumerate(conditions(statement)):
            seen[text] = seen.get(text, 0) + 1
            again = f" ({seen[text]})" if seen[text] > 1 else ""  # the same words stand in a subselect as well
            name = f"{statement.name}: {text}{again}"
            yield Mutant(kind="condition", name=name, conditions={statement: frozenset({number})})


def _constraints(statements: list[Statement], every: list[Statement], image: bytes) -> Iterator[Mutant]:
    # Of those tables that they write to: a statement that only reads cannot violate anything.
    changed = {table for statement in statements for table in written(statement.text)}
    for constraint in constraints(image, changed):
        plain = frozenset(each for each in every if hangs_on(each, constraint))
        name = f"{constraint.table}: {constraint.what}"
        yield Mutant(kind="constraint", name=name, constraints=frozenset({constraint}), plain=plain)


def hangs_on(statement: Statement, constraint: Constraint) -> bool:
    """Whether it is an insertion that does something else where this key is there already."""
    found = conflict(statement)
    return found is not None and bool(constraint.columns) and found == (constraint.table, constraint.columns)


def _splits(pairs: Iterable[tuple[Statement, Statement]]) -> Iterator[Mutant]:
    for before, after in sorted(pairs, key=lambda pair: (pair[0].name, pair[1].name)):
        if after.reads and after.deferred:  # it only locks: the split behind it takes the lock away as well
            continue
        name = f"{before.name} | {after.name}"
        yield Mutant(kind="split", name=name, commits_between=frozenset({(before, after)}))


def _early_answers(ends: Iterable[Statement]) -> Iterator[Mutant]:
    for last in sorted(ends, key=lambda each: each.name):
        yield Mutant(kind="early answer", name=f"… {last.name}", answers_after=frozenset({last}))
