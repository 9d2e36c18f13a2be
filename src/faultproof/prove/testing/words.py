"""A schedule in words: the faults that struck, what happened, and a tape that can be typed."""

from __future__ import annotations

import re
from collections.abc import Mapping

from faultproof.errors import InvalidInput
from faultproof.prove.simulated.world import World

TRACE_LINES = 12
"""Of what happened, the last so many lines are shown."""
_WIDTH = 110
_ANSWERS_MAX = 1_000
_ANSWER = re.compile(r"(\d{1,9}):(\d{1,9})")


def spelled(answers: Mapping[int, int]) -> str:
    """A tape as `position:answer,position:answer`; the empty one is the undisturbed schedule."""
    return ",".join(f"{position}:{answer}" for position, answer in sorted(answers.items()))


def read(text: str) -> dict[int, int]:
    """What `spelled` wrote. Raises `InvalidInput` for anything else."""
    answers: dict[int, int] = {}
    for part in text.split(",") if text else ():
        match = _ANSWER.fullmatch(part)
        if match is None or len(answers) == _ANSWERS_MAX:
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
    lines = [line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…" for line in world.lines()]
    left = len(lines) - TRACE_LINES
    return [f"({left} earlier lines)", *lines[left:]] if left > 0 else lines
