"""A quantile of latencies, learnt from what is seen, of those also that were not seen to their end.

A call that was cut off after 80 ms, because its hedge had won or its time was over, took *longer* than 80 ms: it is
censored. Learning from winners alone lets the quantile drift down, and more is hedged each time. So this is the
product-limit estimator: at every latency, the share of those that still ran then and ended there.

Latencies fall into bins of a fixed ratio, so memory is bounded and the answer is at most one bin too high; when there are
enough, all counts are halved, so the last few thousand decide.

Source: Kaplan and Meier, "Nonparametric Estimation from Incomplete Observations" (1958).
"""

from __future__ import annotations

import math

from faultproof import bounds

LEAST_S = 0.000_01
MOST_S = 1_000.0
RATIO = 1.05
"""Of one bin to the next: how far off the answer may be."""
_BINS = math.ceil(math.log(MOST_S / LEAST_S) / math.log(RATIO)) + 2
_PER_LOG = 1 / math.log(RATIO)
_ORIGIN = math.log(LEAST_S) * _PER_LOG
_EVERY = 64
"""Observations between two looks."""


class LearntQuantile:
    """The `q`-quantile of the latencies of late, in seconds; None until there are enough to tell.

    `q`: 0.95 means that one in twenty takes longer. `memory`: about how many observations decide, ten times those at least
    that `q` needs to be seen once; without, 10,000 or as many as that.
    """

    __slots__ = ("_censored", "_ended", "_memory", "_q", "_since", "_total", "value")

    def __init__(self, q: float, *, memory: int | None = None) -> None:
        bounds.number("q", q, least=0.5, most=0.9999)
        least = math.ceil(10 / (1 - q))
        memory = max(10_000, least) if memory is None else memory
        bounds.count("memory", memory, least=least)
        self._q = q
        self._memory = memory
        self._ended = [0.0] * _BINS
        self._censored = [0.0] * _BINS
        self._total = 0.0
        self._since = 0
        self.value: float | None = None
        """As of the last look, every 64 observations."""

    def ended(self, seconds: float) -> None:
        """A call took so long."""
        self._ended[_bin(seconds)] += 1.0
        self._seen()

    def cut_off(self, seconds: float) -> None:
        """A call had not ended after so long, and nobody waited any longer."""
        self._censored[_bin(seconds)] += 1.0
        self._seen()

    def _seen(self) -> None:
        self._total += 1.0
        self._since += 1
        if self._since == _EVERY:
            self._since = 0
            if self._total > self._memory:
                self._ended = [count / 2 for count in self._ended]
                self._censored = [count / 2 for count in self._censored]
                self._total /= 2
            self.value = self._estimate()

    def _estimate(self) -> float | None:
        """Where the share of those that run longer falls to 1 - q; beyond all that was seen, the longest seen."""
        if self._total * (1 - self._q) < 1:
            return None
        running, longer, last = self._total, 1.0, 0
        for number, (ended, censored) in enumerate(zip(self._ended, self._censored, strict=True)):
            if ended or censored:
                last = number
                longer *= 1 - ended / running
                if longer <= 1 - self._q:
                    break
                running -= ended + censored
        return math.exp((last + 1 + _ORIGIN) / _PER_LOG)


def _bin(seconds: float) -> int:
    if seconds <= LEAST_S:
        return 0
    return min(int(math.log(seconds) * _PER_LOG - _ORIGIN), _BINS - 1)
