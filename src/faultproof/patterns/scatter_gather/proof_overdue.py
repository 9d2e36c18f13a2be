"""What proofs of the request path say of a call that is not over when its time is."""

from __future__ import annotations

from faultproof.prove.proof import Evidence, Process, noted

MOMENT_S = 0.05


class Overdue:
    """Complains of a call that is not over when its time is. A process that was frozen is given a moment first, in which it can
    do what has become due meanwhile; each time that it was."""

    def __init__(self, process: Process, call: str, seconds: float) -> None:
        self._process = process
        self._call = call
        self.is_over = False
        self._look(seconds + MOMENT_S, again=True)

    def _look(self, seconds: float, *, again: bool) -> None:
        clock = self._process.env.clock
        due = clock.monotonic() + seconds
        clock.alarm(seconds, lambda: self._complain(again or clock.monotonic() > due + MOMENT_S))

    def _complain(self, again: bool) -> None:
        if self.is_over:
            return
        if again:
            self._look(MOMENT_S, again=False)
        else:
            self._process.note("overdue", self._call)


def overdue(evidence: Evidence) -> list[str]:
    """A sentence for each complaint."""
    return [f"{call}: nobody was told anything by the deadline" for call in sorted(noted(evidence, "overdue"))]
