"""What is told of proofs that were tried, whichever world they were tried in; the same for a page and for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from faultproof.prove.story import Story

Verdict = Literal["held", "violated", "inconclusive", "failed"]
"""`inconclusive`: nothing was wrong, and nothing was shown. `failed`: the proof could not be carried out."""


@dataclass(frozen=True, kw_only=True)
class WorldVerdict:
    """What became of a proof in one world."""

    world: Literal["simulated", "stepped", "live"]
    verdict: Verdict
    scope: Sequence[str]
    """What was tried there, a sentence each."""
    numbers: Mapping[str, float]
    """The same as figures, by what they count."""


@dataclass(frozen=True, kw_only=True)
class Property:
    """One property, over all that was tried."""

    kind: Literal["always", "eventually", "sometimes", "ends"]
    claim: str
    verdict: Literal["held", "violated", "not broken", "happened", "never"]
    """`not broken`: in the run that is shown another one was, and what became of this one elsewhere is not known."""
    seen: Sequence[str] = ()
    """What was seen instead of what is claimed."""
    shown: str | None = None
    """The title of the run that shows it."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """The code with something broken in it; the proof must notice."""

    name: str
    kind: str
    """Planted by hand, or derived, and how."""
    breaks: str
    killed_by: str | None
    """In words; None: it survived."""
    reason: str | None = None
    """Why one that survived may."""
    fate: Literal["survived", "dearer", "idle"] = "survived"
    """If it was not killed. `dearer`: the same came out, with more work. `idle`: what the guard is there for never came up."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run that is shown."""

    title: str
    why: str
    """Why this one."""
    story: Story
    answers: Sequence[tuple[int, int]] = ()
    """The tape that repeats it, in a world that has tapes."""
    plant: str | None = None
    replay: str | None = None
    """What to type to see it again."""


@dataclass(frozen=True, kw_only=True)
class ProofReport:
    """Everything about one proof."""

    name: str
    verdict: Verdict
    claim: str
    faults: Sequence[str]
    assumptions: Sequence[str]
    not_tested: Sequence[str]
    worlds: Sequence[WorldVerdict]
    properties: Sequence[Property] = ()
    mutants: Sequence[Mutant] = ()
    runs: Sequence[Run] = ()
    """What is shown: of a proof that was violated the smallest run that shows it, first."""
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Hunt:
    """Mutants that several proofs share."""

    name: str
    proofs: Sequence[str]
    mutants: Sequence[Mutant]
    complaints: Sequence[str]
    """What is not as it must be, a sentence each: survivors without a reason, for one."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """Several proofs, and where they were tried."""

    proofs: Sequence[ProofReport]
    hunts: Sequence[Hunt] = ()
    environment: Mapping[str, str]
    """Versions and the platform; no names of machines or people."""
    when: str
