"""Finding a pattern by the name people type, and gathering what the specification says about it."""

import difflib
import re
from dataclasses import dataclass

from faultproof.catalogue.guidance import ANTI_PATTERNS, PERFORMANCE, SELECTION
from faultproof.catalogue.model import AntiPattern, Pattern, Performance, Primitive, Selection
from faultproof.catalogue.patterns_01_08 import PATTERNS_01_08
from faultproof.catalogue.patterns_09_15 import PATTERNS_09_15
from faultproof.catalogue.patterns_16_24 import PATTERNS_16_24
from faultproof.catalogue.primitives import PRIMITIVES
from faultproof.errors import InvalidInput

PATTERNS: tuple[Pattern, ...] = PATTERNS_01_08 + PATTERNS_09_15 + PATTERNS_16_24
"""All 24, in the order of the specification."""


class UnknownPattern(InvalidInput):
    """No pattern has this name: fix the call. `close` holds the names that look like it, best first."""

    def __init__(self, name: str, close: tuple[str, ...]) -> None:
        self.name = name
        self.close = close
        hint = f"did you mean {' or '.join(close)}?" if close else "`faultproof patterns` lists them."
        super().__init__(f"There is no pattern named {name!r}; {hint}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """Everything the specification says about one pattern, its primitives spelled out."""

    pattern: Pattern
    primitives: tuple[Primitive, ...]
    performance: Performance | None
    selection: tuple[Selection, ...]
    anti_patterns: tuple[AntiPattern, ...]


def find(name: str) -> Pattern:
    """The pattern called `name`; case, hyphens, underscores, spaces and a final "pattern" do not matter.

    :raises UnknownPattern: if there is none, with the names that come close.
    """
    by_key = {_key(pattern.name): pattern for pattern in PATTERNS}
    key = _key(name)
    for wanted in (key, key.removesuffix("pattern")):
        if wanted in by_key:
            return by_key[wanted]
    close = difflib.get_close_matches(key, by_key, n=3, cutoff=0.6)
    # A beginning is what people type when they are unsure: "event" is far from "eventsourcing" in edits.
    begun = [other for other in by_key if key and other.startswith(key) and other not in close]
    raise UnknownPattern(name, tuple(by_key[other].name for other in [*close, *begun]))


def describe(pattern: Pattern) -> Sheet:
    """Gather the rows of the specification's other tables that concern `pattern`."""
    return Sheet(
        pattern=pattern,
        primitives=tuple(PRIMITIVES[id] for id in pattern.primitives),
        performance=next((row for row in PERFORMANCE if row.pattern == pattern.name), None),
        selection=tuple(row for row in SELECTION if row.recommended == pattern.name),
        anti_patterns=tuple(row for row in ANTI_PATTERNS if row.pattern == pattern.name),
    )


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()
