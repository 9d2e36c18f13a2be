"""The mistakes that can be planted: their names, and what brings each to light."""

from __future__ import annotations

from typing import Literal, get_args

Breakage = Literal[
    "dual-write",
    "no-inbox",
    "ack-early",
    "undo-after",
    "no-idempotency-key",
    "no-lock",
    "confirm-after-expiry",
]
BREAKAGES: tuple[Breakage, ...] = get_args(Breakage)
DELAYED: frozenset[Breakage] = frozenset({"no-lock", "confirm-after-expiry"})
"""These need no crash, but somebody who comes in between: orders are held up in their windows. The others need a kill."""
