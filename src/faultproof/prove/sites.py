"""Which line of a pattern, or of the user's code, asked for something: found by walking the stack outwards, past ourselves.

Slow, so it is done only when a run is retold for a report.
"""

from __future__ import annotations

import linecache
import sys
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from faultproof.prove.story import Site

_PACKAGE = Path(__file__).resolve().parents[1]
_OURS = ("prove/simulated/", "prove/testing/", "engines/", "ports/")
"""What carries an operation out for others: never shown."""
_SHARED = ("primitives/",)
"""Shown only where nothing else asked."""
_BOTTOM = tuple(str(_PACKAGE / "prove" / "simulated" / name) for name in ("loop.py", "world.py"))
"""Below them stands whoever started the simulation."""
_DECLARED = str(_PACKAGE / "ports" / "script.py")
"""Scripts of one statement come from there, under the statement's name."""


class Place:
    """A line, before it is put into words."""

    __slots__ = ("code", "line")

    def __init__(self, code: CodeType, line: int) -> None:
        self.code = code
        self.line = line

    @property
    def is_shared(self) -> bool:
        """A primitive's: what it does for others is better named by them."""
        return _rank(self.code.co_filename) == 1

    def site(self) -> Site:
        """As text. Reads the source file, so not while a simulation runs."""
        path = self.code.co_filename
        return Site(
            file=shown(path),
            line=self.line,
            function=self.code.co_qualname.replace("<locals>.", ""),
            code=linecache.getline(path, self.line).strip()[:200],
        )


def asked_by(frame: FrameType | None) -> Place | None:
    """The innermost line of somebody else's code on the stack; of a primitive, if that is all there is."""
    fallback = None
    while frame is not None and frame.f_code.co_filename not in _BOTTOM:
        rank = _rank(frame.f_code.co_filename)
        if rank == 0:
            return Place(frame.f_code, frame.f_lineno)
        if rank == 1 and fallback is None:
            fallback = Place(frame.f_code, frame.f_lineno)
        frame = frame.f_back
    return fallback


def yielded_by(script: Any) -> Place | None:
    """The line that a suspended script stands at: in the innermost of its generators that is somebody else's code."""
    best, fallback = None, None
    while (frame := getattr(script, "gi_frame", None)) is not None:
        rank = _rank(frame.f_code.co_filename)
        if rank == 0:
            best = Place(frame.f_code, frame.f_lineno)
        elif rank == 1:
            fallback = Place(frame.f_code, frame.f_lineno)
        script = script.gi_yieldfrom
    return best or fallback


def name_of(script: Any) -> str:
    """What its author called the script, below the transaction that it is wrapped in; "" for one of our own."""
    while (frame := getattr(script, "gi_frame", None)) is not None:
        inner = frame.f_locals.get("script")
        if _rank(frame.f_code.co_filename) == 0 or not hasattr(inner, "gi_frame"):
            break
        script = inner
    code = script.gi_code
    declared = code.co_filename == _DECLARED and script.__name__ != code.co_name
    return script.__name__.strip("_") if declared or _rank(code.co_filename) == 0 else ""


@cache  # bounded: by the files that are imported
def _rank(path: str) -> int:
    """0 for somebody else's code, 1 for a primitive, 2 for what is never shown."""
    if path.startswith("<"):
        return 2
    if not Path(path).is_relative_to(_PACKAGE):
        return 2 if Path(path).is_relative_to(_STANDARD) and "site-packages" not in path else 0
    inside = Path(path).relative_to(_PACKAGE).as_posix()
    return 2 if inside.startswith(_OURS) else 1 if inside.startswith(_SHARED) else 0


_STANDARD = Path(linecache.__file__).resolve().parent


@cache  # bounded: likewise
def shown(path: str) -> str:
    """A file's name without whose machine it is on: relative to where we are, or to where it is imported from."""
    file = Path(path)
    roots = [Path.cwd(), *sorted((Path(entry) for entry in sys.path if entry), key=lambda each: -len(each.parts))]
    for root in roots:
        if file.is_relative_to(root):
            return file.relative_to(root).as_posix()
    return file.name
