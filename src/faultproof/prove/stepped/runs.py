"""What is left of one schedule: its statements, its outcome, and the tape that repeats it."""

from __future__ import annotations

from typing import NamedTuple


class Stepped(NamedTuple):
    """One statement of a schedule."""

    session: str
    """Its letter."""
    number: int
    """Of the session's statements."""
    what: str
    waited: bool = False
    refused: str = ""
    """The SQLSTATE, where it was refused at once."""

    @property
    def short(self) -> str:
        """As `A3 (waits)`."""
        return f"{self.session}{self.number}{' (waits)' if self.waited else ''}"


class Run(NamedTuple):
    """What came of one schedule."""

    steps: tuple[Stepped, ...]
    wrong: list[str]
    taken: list[int]
    """The answers of the tape."""
    widths: list[int]
    """Out of how many each was chosen."""
    refused: tuple[str, ...]
    """SQLSTATEs, of all sessions."""
    happened: tuple[bool, ...]
    """Of the case's `sometimes`, in order."""

    @property
    def waited(self) -> bool:
        """Whether a statement had to wait for another session's lock."""
        return any(step.waited for step in self.steps)

    @property
    def schedule(self) -> str:
        """As `A1 A2 B1 (waits) A3`."""
        return " ".join(step.short for step in self.steps)

    @property
    def answers(self) -> dict[int, int]:
        """The tape that repeats it."""
        return {position: answer for position, answer in enumerate(self.taken) if answer}
