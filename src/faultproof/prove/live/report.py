"""What is going to be done, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from faultproof.prove.live.orders import Order

VIOLATIONS_MAX = 20
_WORDS: Mapping[str, str] = {
    "kill": "SIGKILL at a numbered point",
    "stop": "SIGSTOP at a numbered point, a successor, and SIGCONT",
    "orphan": "SIGKILL at a numbered point while the server keeps the connection",
    "lose": "the answer of a service outside lost",
    "twice": "a request to a service outside sent twice",
    "drop": "a COMMIT forwarded and its answer dropped",
    "kills": "SIGKILL at random times",
    "reset": "connections reset",
    "half-open": "connections half open",
    "lost-requests": "what is sent to the server lost",
    "lost-answers": "what the server sends lost",
    "latency": "everything late",
    "server": "kill -9 of the server",
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a call is going to do, before it does anything."""

    proof: str
    engine: str
    """Which, and where; nothing of a password."""
    makes: str
    processes: tuple[str, ...]
    command: str | None
    faults: Mapping[str, int | None]
    """Runs by kind of fault; None: as many as there are points."""
    seconds: float
    """At most."""
    parallel: int
    leftovers: tuple[str, ...]
    """What provers that were killed have left, and this one removes first."""

    def lines(self) -> list[str]:
        """For people."""
        runs = [
            f"{_WORDS[kind]}: {'at every distinct point, a run each' if count is None else f'{count} runs'}"
            for kind, count in self.faults.items()
            if count != 0
        ]
        return [
            f"engine      {self.engine}",
            f"makes       {self.makes}, and removes it at the end",
            f"removes     {', '.join(self.leftovers) or 'nothing else'}",
            f"processes   {len(self.processes)} a run ({', '.join(self.processes)}), {self.parallel} runs at a time"
            + (f", each `{self.command}`" if self.command else ""),
            *(f"{'faults' if not number else '':<11} {run}" for number, run in enumerate(runs)),
            f"at most     {self.seconds:,.0f} s",
        ]


class LiveViolation(NamedTuple):
    """A run whose outcome was wrong."""

    order: Order
    """What to give again; the machine schedules the rest."""
    struck: str
    """Where it struck, in words."""
    sentences: tuple[str, ...]
    history: Path | None
    """Where the run's history was kept."""


@dataclass
class LiveReport:
    """What was tried, and what came of it."""

    proof: str
    plant: str | None
    engine: str = ""
    points: int = 0
    """That the processes of the undisturbed run passed."""
    distinct: int = 0
    """Those that leave different worlds behind when a process is killed there; each was tried, unless less was asked for."""
    runs: int = 0
    planned: Counter[str] = field(default_factory=Counter)
    """Runs by the kind of their fault."""
    fired: Counter[str] = field(default_factory=Counter)
    """Runs in which it really struck."""
    strikes: Counter[str] = field(default_factory=Counter)
    """How often: several in some runs."""
    restarts: int = 0
    seconds: float = 0.0
    violations: list[LiveViolation] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    """The claims of those `Sometimes` that did happen."""
    missing: set[str] = field(default_factory=set)
    """Of those that did not."""
    unreached: list[Order] = field(default_factory=list)
    """Whose point was not passed, however often it was tried: processes are not scheduled the same way each time."""
    not_run: list[Order] = field(default_factory=list)
    """For which no time was left."""
    left: list[str] = field(default_factory=list)
    """What could not be cleaned up."""
    swept: list[str] = field(default_factory=list)
    """What provers that were killed had left, and was removed."""
    kept: Path | None = None
    """The history of the undisturbed run."""

    @property
    def kills(self) -> int:
        """SIGKILLs of processes."""
        return self.strikes["kill"] + self.strikes["orphan"] + self.strikes["kills"]

    @property
    def never_fired(self) -> list[str]:
        """Kinds of faults that were planned and never struck."""
        return sorted(kind for kind, count in self.planned.items() if count and not self.fired[kind])

    @property
    def verdict(self) -> Literal["held", "violated", "inconclusive"]:
        """Whatever did not strike, or did not happen, has not been shown."""
        if self.violations:
            return "violated"
        shown = self.runs and not (self.never_fired or self.missing or self.not_run)
        return "held" if shown else "inconclusive"

    def lines(self) -> list[str]:
        """For people."""
        found = [
            f"{self.runs:,} runs in {self.seconds:.1f} s on {self.engine}: {self.points:,} points "
            f"({self.distinct:,} distinct), {self.kills:,} kills, {self.strikes['stop']:,} stops, {self.restarts:,} restarts"
        ]
        found += [
            f"{_WORDS[kind]}: struck in {self.fired[kind]} of {count} runs" for kind, count in self.planned.items()
        ]
        found += [f"never struck: {_WORDS[kind]}" for kind in self.never_fired]
        found += [f"never happened: {claim}" for claim in sorted(self.missing)]
        if self.not_run:
            found.append(f"no time was left for {len(self.not_run)} runs")
        if self.unreached:
            found.append(f"not reached again: {', '.join(map(str, self.unreached[:5]))} … ({len(self.unreached)})")
        return found + [f"left behind: {sentence}" for sentence in self.left]
