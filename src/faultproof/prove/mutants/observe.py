"""What the scripts of a proof do when nothing is left out: their statements, and in which transactions these stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from faultproof.ports.script import Call, Later
from faultproof.ports.statement import Answer, Statement
from faultproof.prove.mutants.images import Row, definitions, rows
from faultproof.prove.simulated.lanes import NestedConnection

Snapshot: TypeAlias = Mapping[str, list[Row]]
"""A table's rows by its name."""

_FEW = 3


@dataclass
class Observed:
    """What was seen in any run. Dictionaries, which keep the order in which things were first seen."""

    statements: dict[Statement, None] = field(default_factory=dict)
    neighbours: dict[tuple[Statement, Statement], None] = field(default_factory=dict)
    """One followed the other in a transaction that was committed, with something changed, or guarded, up to the one, and
    something changed from the other on: what a commit between them would tear apart."""
    last: dict[Statement, None] = field(default_factory=dict)
    """The last of a transaction that was committed and had changed something."""
    values: dict[tuple[Statement, str], set[Any]] = field(default_factory=dict)
    """What a parameter was given; of many values the first few."""
    moments: list[Snapshot] | None = None
    """If it is a list, all rows are added to it after every commit."""


class _Open(NamedTuple):
    statements: list[Statement]
    changes: list[bool]
    matters: list[bool]
    """It changed something, or refuses to go on."""


class ObservingConnection(NestedConnection):
    """Executes statements, and writes down which."""

    observed: Observed
    _open: _Open | None = None

    def _call(self, call: Call) -> Answer:
        answer = super()._call(call)
        statement = call.statement
        self._note(call)
        if self._open is not None:
            self._open.statements.append(statement)
            self._open.changes.append(not statement.reads and answer.changed > 0)
            self._open.matters.append(self._open.changes[-1])
        return answer

    def _later(self, step: Later) -> Answer:
        answer = super()._later(step)
        if self._open is not None and step.refuses:
            self._open.matters[-1] = True
        return answer

    def _note(self, call: Call) -> None:
        statement, observed = call.statement, self.observed
        observed.statements[statement] = None
        for parameter in statement.parameters:
            values = observed.values.setdefault((statement, parameter.name), set())
            if parameter.fields is None and len(values) < _FEW:
                values.add(call.values[parameter.name])

    def _begin(self, begin: object) -> Answer:
        self._open = _Open([], [], [])
        return super()._begin(begin)  # type: ignore[arg-type]

    def _commit(self) -> Answer:
        answer = super()._commit()
        if self._open is not None and self._open.statements:
            statements, changes, _ = self._open
            for number, pair in enumerate(pairwise(statements), 1):
                if any(self._open.matters[:number]) and any(changes[number:]):
                    self.observed.neighbours[pair] = None
            if any(changes):
                self.observed.last[statements[-1]] = None
        if self.observed.moments is not None:
            tables = [each.name for each in definitions(self.raw) if each.kind == "table"]
            self.observed.moments.append({table: rows(self.raw, table) for table in tables})
        self._open = None
        return answer

    def _rollback(self) -> Answer:
        self._open = None
        return super()._rollback()


def observing(observed: Observed) -> type[NestedConnection]:
    """The connection of a world that is observed."""
    return type("Observing", (ObservingConnection,), {"observed": observed})
