"""Scripts whose steps are changed or left out on their way to the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from faultproof.ports.script import Call, Later, Script, Step
from faultproof.ports.statement import NOTHING, Answer, Statement

T = TypeVar("T")


def through(script: Script[T], see: Callable[[Step], Step | Answer]) -> Script[T]:
    """The script, each of whose steps is what `see` makes of it; where that is an answer, the step is not executed."""
    try:
        step = next(script)
        while True:
            seen = see(step)
            try:
                answer = seen if isinstance(seen, Answer) else (yield seen)
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


def rewritten(step: Step, rewrite: Callable[[Call], Call | None]) -> Step | Answer:
    """The step with its statement rewritten. One that nobody waits for is left out together with its check: a guard that is
    not there refuses nobody."""
    if isinstance(step, Call):
        return rewrite(step) or nothing_done(step.statement)
    if isinstance(step, Later):
        call = rewrite(step.call)
        return NOTHING if call is None else step._replace(call=call, strict=step.strict and rewrite(step.strict))
    return step


def statement_of(step: Step) -> Statement | None:
    """What the step executes, if it is about a statement."""
    if type(step) is Later:
        return step.call.statement
    return step.statement if type(step) is Call else None


def nothing_done(statement: Statement) -> Answer:
    """The answer of a statement that was left out: it found nothing and touched nothing.

    Where there is always one row, as for a count, it is of zeros: a script that cannot read its answer would die of that,
    whoever judges it.
    """
    try:
        statement.decode(NOTHING)
    except IndexError:
        return Answer(((0,) * statement.columns,), 0)
    return NOTHING
