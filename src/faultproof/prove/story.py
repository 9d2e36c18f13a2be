"""What happened in one run, as it is shown to people: who did what, when, asked for by which line of the source.

Neutral: any world can tell its runs so. Everything in it is text that was made for reading, and short; nothing here computes a
verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

EVENTS_MAX = 2_000
"""Of one run; what comes later is counted in `Story.left_out`."""
STATEMENTS_MAX = 50
"""Of one operation; likewise."""

Kind = Literal["operation", "note", "message", "fault", "start", "wakes", "dies", "gone"]
"""`operation`: an input or output of a process. `note`: something told to the outside. `message`: a wake-up arrived.
`fault`: one struck. `start`: a life of a process begins. `wakes`: one that was frozen or cut off goes on. `dies`: of its own
error. `gone`: a life is over."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """A line of the source: of a pattern or of the user's, never of the prover or an engine."""

    file: str
    """Relative: to where we are, or to where the package is installed."""
    line: int
    function: str
    code: str
    """What stands there."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


USER_SQL = "user SQL"
"""The name of statements that were not declared."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One statement of an operation, and what the database said."""

    name: str
    text: str
    values: str
    answer: str
    site: Site | None


@dataclass(frozen=True, kw_only=True)
class Happening:
    """One thing that happened."""

    at: float
    """Seconds since the run began (in simulation, virtual ones)."""
    process: str
    """Its name, the same in all its lives; "world" for nobody's."""
    life: int
    kind: Kind
    what: str
    answer: str = ""
    failed: bool = False
    commits: bool = False
    """Something became durable."""
    site: Site | None = None
    statements: tuple[Asked, ...] = ()
    left_out: int = 0
    """Statements beyond `STATEMENTS_MAX`."""

    @property
    def who(self) -> str:
        """Process and life, as in `api-1.0`."""
        return self.process if self.process == "world" else f"{self.process}.{self.life}"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What became of one property in this run."""

    kind: Literal["always", "eventually", "sometimes", "ends"]
    """`ends`: what every proof claims: its work comes to an end, and no process dies of an error of its own."""
    claim: str
    wrong: tuple[str, ...] = ()
    """What was seen instead; for `sometimes` empty."""
    happened: bool = False
    """Of `sometimes`."""
    event: int | None = None
    """Of `always`: the index of the event with which it was broken first."""


@dataclass(frozen=True, kw_only=True)
class Story:
    """One run."""

    events: Sequence[Happening]
    judged: Sequence[Judged]
    faults: Sequence[str]
    """Those that struck, in words."""
    seconds: float
    left_out: int = 0
    """Events beyond `EVENTS_MAX`."""

    @property
    def broken(self) -> list[Judged]:
        """The properties that did not hold."""
        return [each for each in self.judged if each.wrong]


def what_matters(story: Story, most: int) -> list[int]:
    """The indices of the events that explain a run, at most so many, in order: its faults, what broke an `always`, what the
    process had done before it was struck, and what came of it."""
    breaking = [each.event for each in story.broken if each.event is not None and each.event < len(story.events)]
    faults = [index for index, event in enumerate(story.events) if event.kind == "fault"]
    chosen = dict.fromkeys([*faults, *breaking, *(index for fault in faults for index in _around(story, fault))])
    return sorted(list(chosen)[:most])


def _around(story: Story, fault: int) -> list[int]:
    """The most telling first."""
    events, struck = story.events, story.events[fault]
    own = [index for index, event in enumerate(events) if event.process == struck.process and event.kind != "fault"]
    telling = [index for index in own if events[index].commits or events[index].kind in ("note", "dies", "wakes")]
    before = [index for index in telling if index < fault]
    # What was interrupted is done again by the next life, and by the first one if it wakes.
    again = [index for index in own if index > fault and events[index].site == struck.site and struck.site is not None]
    lives = {events[index].life: index for index in reversed([each for each in again if events[each].commits] or again)}
    woken = [index for index in telling if index > fault and events[index].life == struck.life]
    after = [index for index in telling if index > fault]
    return [*before[-1:], *lives.values(), *woken[:2], *after[:3], *before[-2:-1], *after[3:]]
