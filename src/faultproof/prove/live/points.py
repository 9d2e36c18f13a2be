"""Numbered points: a process counts where it passes, and strikes itself at the one that it was told.

By itself, because only then the place is exact: a signal from outside comes some microseconds later. SIGKILL and SIGSTOP
to oneself take effect before the system call returns.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter

from faultproof.prove.live.history import History
from faultproof.prove.live.orders import Order


class Points:
    """The points of one incarnation, counted from 1. `reach` may be called from any thread."""

    def __init__(self, history: History, order: Order | None) -> None:
        self._history = history
        self._order = order
        self._lock = threading.Lock()
        self._number = 0
        self._passed = Counter[str]()  # bounded: by the labels of a proof

    def reach(self, label: str) -> str | None:
        """Pass a point. Dies here, or stops here for a while, or returns what else is to strike ("lose", "twice")."""
        with self._lock:
            self._number += 1
            self._history.add(point=self._number, at=label)
            self._passed[label] += 1
            order = self._order
            if order is None or not self._is_meant(order, label):
                return None
            self._history.add(strikes=str(order))
        if order.kind in ("kill", "orphan"):
            os.kill(os.getpid(), signal.SIGKILL)
        elif order.kind == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        return order.kind

    def _is_meant(self, order: Order, label: str) -> bool:
        if order.label:
            return (order.label, order.number) == (label, self._passed[label])
        return order.number == self._number
