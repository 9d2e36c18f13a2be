"""A run on disk: which proof it belongs to, what was planted, in which world, and the answers that repeat it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from faultproof.errors import InvalidInput
from faultproof.prove.simulated.world import Granularity

FORMAT = "faultproof-tape-3"

_Count = Annotated[int, msgspec.Meta(ge=0)]


class SavedRun(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What must be the same for the same answers to tell the same story, apart from the code."""

    format: str = FORMAT
    proof: str
    """`pkg.module:NAME`."""
    plant: str | None = None
    """The planted bug that it was found with."""
    store: Literal["memory", "files"] = "memory"
    """One database in memory, or real WAL files."""
    granularity: Granularity = "commit"
    answers: list[tuple[_Count, _Count]]
    """Position and value, in order; every other answer is zero."""


class _Format(msgspec.Struct):
    format: str


def save(
    path: Path,
    answers: Mapping[int, int],
    *,
    proof: str,
    plant: str | None = None,
    store: Literal["memory", "files"] = "memory",
    granularity: Granularity = "commit",
) -> None:
    """Write a run down, so that `load` finds all that it takes to repeat it."""
    run = SavedRun(proof=proof, plant=plant, store=store, granularity=granularity, answers=sorted(answers.items()))
    path.write_bytes(msgspec.json.encode(run))


def load(path: Path) -> SavedRun:
    """The run that was saved there. Raises `InvalidInput` for anything else, and for another release's format."""
    try:
        raw = path.read_bytes()
        found = msgspec.json.decode(raw, type=_Format).format
        if found != FORMAT:
            raise InvalidInput(
                f"{str(path)!r} is a tape of format {found!r}; this release replays {FORMAT!r}: find it once more"
            )
        return msgspec.json.decode(raw, type=SavedRun)
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InvalidInput(f"{str(path)!r} is not a tape that can be replayed: {why}") from error
