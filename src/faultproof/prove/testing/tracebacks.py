"""A traceback as the author of a test wants it: down to the last line that is not ours."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

_PACKAGE = Path(__file__).resolve().parents[2]
_OURS = tuple(f"{_PACKAGE / room}/" for room in ("engines", "ports", "prove"))


def without_ours(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of engines, ports and prover; all of it where there are no others."""
    kept: list[TracebackType] = []
    each = traceback
    while each is not None:
        if not each.tb_frame.f_code.co_filename.startswith(_OURS):
            kept.append(each)
        each = each.tb_next
    shown = None
    for each in reversed(kept):
        shown = TracebackType(shown, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return shown or traceback
