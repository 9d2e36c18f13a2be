"""What a catalogue entry consists of: frozen, keyword-only, and nothing computed."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How far a pattern is: `ready` has code, README and proof; `planned` has its specification only."""

    READY = "ready"
    PLANNED = "planned"


@dataclass(frozen=True, kw_only=True, slots=True)
class Primitive:
    """A building block of the specification."""

    id: str
    name: str
    provides: str
    must_show: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A form the pattern takes, at a size of organisation or for a kind of work."""

    name: str
    means: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Performance:
    """A row of the specification's table of performance characteristics: what the pattern adds."""

    pattern: str
    latency: str
    throughput: str
    consistency: str
    complexity: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """A row of the selection matrix: for this requirement take `recommended`."""

    requirement: str
    recommended: str
    alternative: str
    avoid: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AntiPattern:
    """A common mistake, how it shows, and the pattern that mends it."""

    name: str
    mistake: str
    detection: str
    fix: str
    pattern: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Pattern:
    """One pattern as specified.

    `problem` is the specification's question where it asks one, else the table's two words; `guarantee` the
    promise in a line; `guarantees` are the specification's own sentences (for a pattern without a detailed
    section the table's one word). `table` is the row of the table of fifteen, None for the nine others.
    `proof` names the executable proof as `module:object`; `readme` is a path inside the installed package.
    """

    number: int
    name: str
    primitives: tuple[str, ...]
    problem: str
    guarantee: str
    guarantees: tuple[str, ...]
    must_show: str
    table: "TableRow | None" = None
    checklist: tuple[str, ...] = ()
    scale_variants: tuple[Variant, ...] = ()
    variants: tuple[Variant, ...] = ()
    architecture: tuple[Variant, ...] = ()
    use_cases: tuple[str, ...] = ()
    status: Status = Status.PLANNED
    proof: str | None = None
    readme: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """A row of the specification's table of fifteen, word for word."""

    problem_solved: str
    guarantees: str
    implementation: str
    proof: str
