"""Transactions that are committed in the middle: a mutant of the scripts that run through here."""

from __future__ import annotations

from typing import TypeVar

from faultproof.ports.script import (
    Begin,
    Commit,
    Release,
    Rollback,
    RollbackTo,
    Savepoint,
    Script,
    Step,
)
from faultproof.ports.statement import Statement
from faultproof.prove.rewriting import statement_of
from faultproof.prove.stepped.case import Cuts

T = TypeVar("T")


class Cut:
    """Of one session: where `cuts` says so, a COMMIT and a BEGIN stand between two statements of its own transactions.

    Those of the user, on a joined handle, are the user's, and are left whole.
    """

    def __init__(self, cuts: Cuts) -> None:
        self._cuts = cuts
        self._last: Statement | None = None
        self._is_begun = False
        self._savepoints = 0

    def through(self, script: Script[T]) -> Script[T]:
        """The script, with more steps."""
        try:
            step = next(script)
            while True:
                if self._is_before(step):
                    yield Commit()
                    yield Begin(writes=True)
                    for _ in range(self._savepoints):
                        yield Savepoint()
                self._note(step)
                try:
                    answer = yield step
                except GeneratorExit:
                    script.close()
                    raise
                except Exception as error:
                    step = script.throw(error)
                else:
                    step = script.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _is_before(self, step: Step) -> bool:
        after = statement_of(step)
        return self._is_begun and self._last is not None and after is not None and self._cuts(self._last, after)

    def _note(self, step: Step) -> None:
        match step:
            case Begin(writes=writes):
                self._last, self._savepoints, self._is_begun = None, 0, writes
            case Commit() | Rollback():
                self._is_begun = False
            case Savepoint():
                self._savepoints += 1
            case Release() | RollbackTo():
                self._savepoints -= 1
            case _:
                self._last = statement_of(step) or self._last
