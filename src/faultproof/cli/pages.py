"""What every verb that proves says in full: a page on disk, a run for machines, and where it ran."""

import os
import platform
import sqlite3
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from faultproof.errors import InvalidInput
from faultproof.prove.reports.facts import Document, Hunt, ProofReport
from faultproof.prove.reports.lines import expected_and_seen, operations, struck
from faultproof.prove.reports.page import page
from faultproof.prove.story import Story

HtmlOption = Annotated[
    str | None, typer.Option("--html", metavar="FILE", help="Write a page, complete in itself, with pictures of runs.")
]
_OPERATIONS_MAX = 12


def page_path(name: str | None) -> Path | None:
    """Where the page goes: to learn after an hour that it cannot be written would be late."""
    if name is None:
        return None
    path = Path(name)
    if not name or "\0" in name or path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InvalidInput(f"the page cannot be written to {name!r}: name a file in a directory that is writable")
    return path


def write(reports: Sequence[ProofReport], path: Path, hunts: Sequence[Hunt] = ()) -> bool:
    """Write a page of these; whether that worked: if not, stderr says why, for the verdict is as true without it."""
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    try:
        path.write_text(
            page(Document(proofs=reports, hunts=hunts, environment=environment(), when=when)), encoding="utf-8"
        )
    except OSError as error:
        print(f"the page could not be written to {path}: {error.strerror}", file=sys.stderr)
        return False
    return True


def told(story: Story) -> dict[str, object]:
    """A run in few words, and in full."""
    return {
        "struck": [{"what": what, "at": where or None} for what, where in struck(story)],
        "operations": operations(story, _OPERATIONS_MAX),
        "expected": [{"expected": expected, "seen": seen} for expected, seen in expected_and_seen(story)],
        "history": story,
    }


def environment() -> dict[str, str]:
    """Versions and the kind of machine: nothing that says whose."""
    return {
        "faultproof": version("faultproof"),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "SQLite": sqlite3.sqlite_version,
        "system": f"{platform.system()} on {platform.machine() or 'an unknown machine'}, {os.cpu_count() or 1} cores",
    }


def nobodys(traceback: str) -> str:
    """A traceback without whose machine it is from: a page is shown to others."""
    for directory, name in ((Path.cwd(), "."), (Path(sys.prefix), "…"), (Path.home(), "~")):
        if directory != directory.parent:  # not `/`, which is everywhere
            traceback = traceback.replace(f"{directory}{os.sep}", f"{name}{os.sep}")
    return traceback
