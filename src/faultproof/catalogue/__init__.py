"""The specification as data: 24 patterns, 20 primitives, and the advice that goes with them.

`PATTERNS` lists every pattern in the order of the specification, `find` takes a name as people type it, and
`describe` gathers all that the specification says about one pattern. `KERNEL` is what patterns are made of here.
"""

from faultproof.catalogue.guidance import ANTI_PATTERNS, PERFORMANCE, SELECTION
from faultproof.catalogue.kernel import KERNEL, Mechanism
from faultproof.catalogue.lookup import PATTERNS, Sheet, UnknownPattern, describe, find
from faultproof.catalogue.model import (
    AntiPattern,
    Pattern,
    Performance,
    Primitive,
    Selection,
    Status,
    Variant,
)
from faultproof.catalogue.primitives import PRIMITIVES

__all__ = [
    "ANTI_PATTERNS",
    "KERNEL",
    "PATTERNS",
    "PERFORMANCE",
    "PRIMITIVES",
    "SELECTION",
    "AntiPattern",
    "Mechanism",
    "Pattern",
    "Performance",
    "Primitive",
    "Selection",
    "Sheet",
    "Status",
    "UnknownPattern",
    "Variant",
    "describe",
    "find",
]
