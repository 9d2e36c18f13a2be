"""A schedule in words: the faults that struck, what happened, and a tape that can be typed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from faultproof.errors import InvalidInput
from faultproof.ports.script import Committed
from faultproof.ports.statement import Answer
from faultproof.prove.simulated.world import World

TRACE_LINES = 12
"""Of what happened, the last so many lines are shown."""
_WIDTH = 110
_LANES = {"writer": "transaction", "reader": "read", "Commit": "commit", "Rollback": "roll back"}
_ANSWERS_MAX = 1_000
_ANSWER = re.compile(r"(\d{1,9}):(\d{1,9})")


def spelled(answers: Mapping[int, int]) -> str:
    """A tape as `position:answer,position:answer`; the empty one is the undisturbed schedule."""
    return ",".join(f"{position}:{answer}" for position, answer in sorted(answers.items()))


def read(text: str) -> dict[int, int]:
    """What `spelled` wrote. Raises `InvalidInput` for anything else."""
    answers: dict[int, int] = {}
    for number, part in enumerate(text.split(",") if text else ()):
        match = _ANSWER.fullmatch(part)
        if match is None or number == _ANSWERS_MAX:
            raise InvalidInput(
                f"a tape is position:answer,position:answer with at most {_ANSWERS_MAX} of them, as a failed test "
                f"prints it, not {text[:60]!r}"
            )
        answers[int(match[1])] = int(match[2])
    return answers


def struck(world: World) -> str:
    """By which faults."""
    return " and ".join(world.faults) or "no fault"


def story(world: World) -> list[str]:
    """The end of what happened, a line each."""
    lines = [_cut(f"{now:7.3f} {who:<12} {_event(what, outcome)}") for now, who, what, outcome in world.trace]
    left = len(lines) - TRACE_LINES
    return [f"({left} earlier lines)", *lines[left:]] if left > 0 else lines


def _event(what: str, outcome: Any) -> str:
    """A fact of the trace. A lane's own words say how an operation is carried out; people want to know what it was."""
    if what == "FAULT":
        return f"*** {outcome} ***"
    if what in ("notes", "hears", "died of"):
        return f"{what} {outcome!r}"
    done = _LANES.get(what, what)
    if isinstance(outcome, BaseException):
        return f"{done} failed: {outcome!r}"
    if isinstance(outcome, Committed):
        return f"transaction -> {outcome.result!r}"
    if what == "writer":
        return "begin"
    return done if isinstance(outcome, Answer) else f"{done} -> {outcome!r}"


def _cut(line: str) -> str:
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"
