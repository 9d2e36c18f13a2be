"""Finding the programs in a README that promise to run.

A program is a ```python fence right after the line `<!-- runs -->`. A ```text fence right after the line
`<!-- prints -->`, anywhere before the next program, is exactly what it prints.
"""

import re
from dataclasses import dataclass

_RUNS, _PRINTS = "<!-- runs -->", "<!-- prints -->"
_FENCE = re.compile(r"(?P<marker>`{3,})(?P<language>\w*)\s*")


@dataclass(frozen=True, kw_only=True)
class Program:
    """A complete program of a README: `line` is its fence's, `prints` None where the README does not say."""

    line: int
    code: str
    prints: str | None = None


class MarkerWithoutFence(Exception):
    """A marker with nothing to mark, as a typing error leaves it: the program would silently not run."""


def programs(text: str) -> list[Program]:
    """The marked programs of a Markdown text, in order.

    :raises MarkerWithoutFence: if a marker is not followed at once by its fence, or output by no program.
    """
    lines = text.splitlines()
    found: list[Program] = []
    inside = ""  # the fence that is open
    for at, line in enumerate(lines):
        fence = _FENCE.match(line)
        if inside:
            inside = "" if line.strip() == inside else inside
        elif line.strip() == _RUNS:
            code = _body(lines, at + 1, "python")
            found.append(Program(line=at + 2, code=code))
        elif line.strip() == _PRINTS:
            if not found or found[-1].prints is not None:
                raise MarkerWithoutFence(f"line {at + 1}: {_PRINTS} belongs to no program")
            last = found.pop()
            found.append(Program(line=last.line, code=last.code, prints=_body(lines, at + 1, "text")))
        elif fence:
            inside = fence["marker"]
    return found


def _body(lines: list[str], at: int, language: str) -> str:
    fence = _FENCE.fullmatch(lines[at]) if at < len(lines) else None
    if fence is None or fence["language"] != language:
        raise MarkerWithoutFence(f"line {at}: the marker is not followed by a ```{language} fence")
    try:
        end = lines.index(fence["marker"], at + 1)
    except ValueError:
        raise MarkerWithoutFence(f"line {at + 1}: the fence is never closed") from None
    return "\n".join(lines[at + 1 : end]) + "\n"
