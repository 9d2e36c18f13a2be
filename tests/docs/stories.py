"""Finding what a document tells step by step: files that a reader writes, and commands that a reader types.

A file is a fence right after the line `<!-- file NAME -->`; a ```diff fence after `<!-- change NAME -->` replaces its lines
that begin with "-" or a space by those with "+" or a space. A command is a
```console fence right after `<!-- types -->`, or `<!-- types, exit 1 -->`: its first line is `$ command`, the rest is what is
printed, where `…` stands for anything: as a line for any number of lines, inside a line for any part of it.
"""

import re
from dataclasses import dataclass

from tests.docs.programs import MarkerWithoutFence

_FILE = re.compile(r"<!-- file ([\w./-]+) -->")
_CHANGE = re.compile(r"<!-- change ([\w./-]+) -->")
_TYPES = re.compile(r"<!-- types(?:, exit (\d+))? -->")
_FENCE = re.compile(r"(`{3,})(\w+)")


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """A file that the reader has by now."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ChangedFile:
    """`old` is in the file, once, and `new` takes its place."""

    name: str
    old: str
    new: str


@dataclass(frozen=True, kw_only=True)
class Typed:
    """A command that the reader types: `line` is its fence's."""

    line: int
    command: str
    prints: str
    status: int


Step = WrittenFile | ChangedFile | Typed


def story(text: str) -> list[Step]:
    """What a Markdown text has its reader do, in order.

    :raises MarkerWithoutFence: if a marker is not followed at once by its fence.
    """
    lines = text.splitlines()
    steps: list[Step] = []
    inside = ""  # the fence that is open
    for at, line in enumerate(lines):
        if inside:
            inside = "" if line.strip() == inside else inside
        elif file := _FILE.fullmatch(line.strip()):
            steps.append(WrittenFile(name=file[1], text=_body(lines, at + 1)))
        elif change := _CHANGE.fullmatch(line.strip()):
            diff = _body(lines, at + 1).splitlines(keepends=True)
            old, new = ("".join(each[1:] for each in diff if each[0] in kept) for kept in (" -", " +"))
            steps.append(ChangedFile(name=change[1], old=old, new=new))
        elif types := _TYPES.fullmatch(line.strip()):
            prompt, _, prints = _body(lines, at + 1).partition("\n")
            if not prompt.startswith("$ "):
                raise MarkerWithoutFence(f"line {at + 2}: no `$ command` to type")
            steps.append(Typed(line=at + 2, command=prompt[2:], prints=prints, status=int(types[1] or 0)))
        elif fence := _FENCE.match(line):
            inside = fence[1]
    return steps


def matches(shown: str, printed: str) -> bool:
    """Whether a command printed what the document shows. Spaces at the ends of lines are nobody's."""
    parts = []
    for line in shown.splitlines():
        if line.strip() == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(".*?".join(re.escape(part) for part in line.rstrip().split("…")) + r" *\n")
    return re.fullmatch("".join(parts), "".join(f"{line.rstrip()}\n" for line in printed.splitlines())) is not None


def _body(lines: list[str], at: int) -> str:
    fence = _FENCE.fullmatch(lines[at]) if at < len(lines) else None
    if fence is None:
        raise MarkerWithoutFence(f"line {at}: the marker is not followed by a fence")
    try:
        end = lines.index(fence[1], at + 1)
    except ValueError:
        raise MarkerWithoutFence(f"line {at + 1}: the fence is never closed") from None
    return "\n".join(lines[at + 1 : end]) + "\n"
