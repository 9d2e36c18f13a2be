"""A schedule in words: the faults that struck, what happened, and a tape that can be typed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from faultproof.errors import InvalidInput
from faultproof.prove.reports.lines import operation
from faultproof.prove.simulated.watched import WatchedWorld
from faultproof.prove.simulated.world import World

TEST = "test"
"""The name of the process that the test is."""
LINES = 12
"""Of what happened, the last so many are shown."""
_WIDTH = 110
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


def happenings(world: WatchedWorld) -> Iterator[str]:
    """What the test's processes did and met with, a line each. That a process is gone or started, its number shows."""
    for each in world.events():
        if each.process != TEST and each.kind not in ("start", "gone"):
            yield operation(each)


def shortened(lines: Sequence[str]) -> list[str]:
    """The end of it."""
    left = max(0, len(lines) - LINES)
    cut = [line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…" for line in lines[left:]]
    return [f"({left} earlier lines)"] * bool(left) + cut
