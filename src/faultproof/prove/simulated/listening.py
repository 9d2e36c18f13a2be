"""A store that tells of every statement that is run in it, with values, answer and the line that asked for it."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from faultproof.engines.sqlite.connection import Connection
from faultproof.ports.script import Call, Later, Script, Step
from faultproof.ports.statement import Answer
from faultproof.prove.simulated.lanes import SimLane, Store
from faultproof.prove.sites import Place, asked_by, yielded_by
from faultproof.prove.story import USER_SQL

T = TypeVar("T")


class Executed(NamedTuple):
    """A statement, before the line is looked up in the source."""

    name: str
    text: str
    values: str
    answer: str
    place: Place | None


class Listener(Protocol):
    """Who is told."""

    def given(self, script: Script[Any] | None) -> None:
        """A lane was given a script; None: it has begun to execute it."""
        ...

    def executed(self, lane: SimLane, statement: Executed) -> None:
        """A statement was run for this lane."""
        ...


class TellingStore:
    """The store itself, but that it tells."""

    def __init__(self, store: Store, listener: Listener) -> None:
        self._store = store
        self._listener = listener

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def executor(self, lane: SimLane, script: Script[Any] | None = None) -> Callable[[Step], Answer]:
        execute, listener = self._store.executor(lane, script), self._listener
        listener.given(script)

        def watched(step: Step) -> Answer:
            listener.given(None)
            call = step.call if isinstance(step, Later) else step
            place = yielded_by(script) or asked_by(sys._getframe(1))
            try:
                answer = execute(step)
            except Exception as error:
                if isinstance(call, Call):
                    listener.executed(lane, _told(call, short(error), place))
                raise
            if isinstance(call, Call):
                said = "not waited for" if isinstance(step, Later) else _answered(answer)
                listener.executed(lane, _told(call, said, place))
            return answer

        return watched

    def call(self, lane: SimLane, function: Callable[[Connection], T]) -> T:
        return self._store.call(lane, lambda connection: function(_Listening(connection, lane, self._listener)))  # type: ignore[arg-type]


class _Listening:
    """A connection that tells of the user's own SQL."""

    def __init__(self, connection: Connection, lane: SimLane, listener: Listener) -> None:
        self._connection = connection
        self._lane = lane
        self._listener = listener

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute_raw(self, sql: str, parameters: Sequence[Any]) -> Answer:
        answer = self._connection.execute_raw(sql, parameters)
        said = Executed(
            USER_SQL, " ".join(sql.split()), short(parameters), _answered(answer), asked_by(sys._getframe(1))
        )
        self._listener.executed(self._lane, said)
        return answer


def _told(call: Call, answer: str, place: Place | None) -> Executed:
    values = ", ".join(f"{name}={short(value)}" for name, value in call.values.items())
    return Executed(call.statement.name, call.statement.text, values, answer, place)


def _answered(answer: Answer) -> str:
    if answer.rows:
        return f"{len(answer.rows)} row{'s' * (len(answer.rows) > 1)}: {short(list(answer.rows))}"
    return f"{answer.changed} changed" if answer.changed >= 0 else "no rows"


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 120
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = 8
_REPR.maxlevel = 4


def short(value: Any) -> str:
    """A value for reading: long ones are cut."""
    text = _REPR.repr(value)
    return text if len(text) <= 400 else f"{text[:399]}…"
