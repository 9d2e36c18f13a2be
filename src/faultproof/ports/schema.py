"""What a component's tables are, and with which versions of them this release works."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The tables of one component.

    `versions[i]` holds the statements that lead from version i to version i+1, in the subset of DDL that engines share,
    with the macros that `ports/script.py` names (`{serial}`, `{updated}`). This release makes version
    `len(versions)` and runs on any from `works_from` up to `works_to`: a change first adds (expand), and only a later
    release drops what nobody uses any more (contract), so that old and new processes run side by side in a roll-out.
    """

    name: str
    versions: Sequence[Sequence[str]]
    works_from: int
    works_to: int

    @property
    def version(self) -> int:
        """The version that `install` brings a database to."""
        return len(self.versions)
