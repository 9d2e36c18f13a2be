"""Mutants in the stepped world: the same values, in the cases that execute their statements, on PostgreSQL.

What matters only between two writers, or two snapshots, survives in simulation, which has one of each. Here it is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from types import TracebackType

from faultproof.ports.script import Call
from faultproof.ports.statement import Statement
from faultproof.prove.harness import HarnessError, NoEnd, ShowsNothing
from faultproof.prove.mutants.derive import hangs_on
from faultproof.prove.mutants.groups import Group
from faultproof.prove.mutants.hunt import Killed
from faultproof.prove.mutants.mutant import Mutant
from faultproof.prove.mutants.parsed import tables
from faultproof.prove.mutants.postgres import relax
from faultproof.prove.stepped.case import Case
from faultproof.prove.stepped.cases import cases_of
from faultproof.prove.stepped.explore import SteppedReport, explore
from faultproof.prove.stepped.world import World

PREEMPTIONS = 2
"""Of each case's interleavings those with so few: mutants are many, and few bugs need more."""
_SQLITE, _POSTGRES = "engines.sqlite.", "engines.postgres."
_GUARDS = {f"{_SQLITE}claims._count_held": (f"{_POSTGRES}claims._lock", f"{_POSTGRES}claims._lock_all")}
"""Where what an engine does for the same call of a script is called otherwise on PostgreSQL."""


@dataclass
class _Stood:
    """A case that holds, and what it executes."""

    world: World
    statements: set[Statement] = field(default_factory=set)
    pairs: set[tuple[str, str]] = field(default_factory=set)
    """One followed the other in a transaction."""
    never: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.world.case.name

    def executes(self, mutant: Mutant) -> bool:
        """Whether anything of what is left out is done here."""
        changed = mutant.left_out | mutant.conditions.keys()
        named = {table for statement in self.statements for table in tables(statement.text)}
        return bool(
            self.statements & changed
            or self.pairs & _cut(mutant)
            or named & {each.table for each in mutant.constraints}
        )


class Stage:
    """Cases on a server, to be stepped through with one mutant after the other. A context manager.

    Raises `HarnessError` for a case that does not hold without any mutant, or cannot be carried out; `TryAgain` where the
    server cannot be reached.
    """

    def __init__(self, cases: Iterable[Case], url: str) -> None:
        self._url = url
        self._open = ExitStack()
        self._cases: list[_Stood] = []
        try:
            for case in cases:
                limited = replace(case, preemptions=_fewer(case.preemptions))
                self._cases.append(_stood(self._open.enter_context(World(limited, url))))
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def executing(self, mutant: Mutant) -> list[str]:
        """The names of those cases that execute anything of what it leaves out."""
        return [case.name for case in self._cases if not mutant.answers_after and case.executes(mutant)]

    def killed(self, mutant: Mutant, only: str | None = None) -> Killed | None:
        """By the first case that notices; `only`: tried in the case of that name alone."""
        names = [only] if only else self.executing(mutant)
        for case in self._cases:
            if case.name in names and (killed := self._tried(case, mutant)) is not None:
                return killed
        return None

    def _tried(self, case: _Stood, mutant: Mutant) -> Killed | None:
        where = _cut(mutant)
        cuts = (lambda before, after: (before.name, after.name) in where) if where else None
        try:
            if not mutant.constraints:
                return _noticed(case, explore(case.world, rewrite=mutant.rewrite, cuts=cuts))
            relaxing = partial(relax, constraints=mutant.constraints)
            hanging = (each for each in case.statements for key in mutant.constraints if hangs_on(each, key))
            mutant = replace(mutant, plain=mutant.plain.union(hanging))
            with World(case.world.case, self._url, relax=relaxing) as world:
                return _noticed(case, explore(world, rewrite=mutant.rewrite, cuts=cuts))
        except ShowsNothing:
            return None
        except NoEnd as error:
            return Killed(case.name, "stepped", (), str(error)[:300])


def stage_of(group: Group, url: str) -> Stage:
    """With all cases of the group's proofs."""
    return Stage((case for proof in group.proofs for case in cases_of(proof)), url)


def _cut(mutant: Mutant) -> set[tuple[str, str]]:
    """Between which statements it commits, by name. Mutants are derived on SQLite: what its engine does stands for what
    PostgreSQL's does instead, a guard's count for a guard's lock."""
    return {
        pair for before, after in mutant.commits_between for pair in product(_there(before.name), _there(after.name))
    }


def _there(name: str) -> tuple[str, ...]:
    return _GUARDS.get(name) or (name.replace(_SQLITE, _POSTGRES),)


def _fewer(preemptions: int | None) -> int:
    return PREEMPTIONS if preemptions is None else min(preemptions, PREEMPTIONS)


def _stood(world: World) -> _Stood:
    stood = _Stood(world)

    def note(call: Call) -> Call:
        stood.statements.add(call.statement)
        return call

    def pair(before: Statement, after: Statement) -> bool:
        stood.pairs.add((before.name, after.name))
        return False

    report = explore(world, rewrite=note, cuts=pair, until_violated=False)
    if report.violations:
        raise HarnessError(f"{world.case.name} does not hold: {report.violations[0].sentences[0]}")
    stood.never = report.never  # with so few preemptions it need not happen
    return stood


def _noticed(case: _Stood, report: SteppedReport) -> Killed | None:
    for violation in report.violations:
        return Killed(case.name, "stepped", (violation.schedule,), violation.sentences[0])
    for claim in report.never:
        if report.is_complete and claim not in case.never:
            return Killed(case.name, "vacuity", (), f"never happened: {claim}")
    return None
