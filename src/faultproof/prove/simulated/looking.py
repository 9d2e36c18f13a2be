"""Judging a run: at its end, and whenever there is something new in between."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from faultproof.prove.proof import Always, Eventually
from faultproof.prove.simulated.world import World


class Looking:
    """Judges the evidence whenever there is other than at the last look, until something is wrong."""

    def __init__(self, properties: tuple[Always, ...], world: World, wrong: list[str]) -> None:
        self._properties = properties
        self._world = world
        self._wrong = wrong
        self._seen: Hashable = None

    def __call__(self) -> None:
        seen = self._world.evidence
        if seen != self._seen and not self._wrong:
            self._seen = seen
            self._wrong += judged(self._properties, self._world)


def judged(properties: Iterable[Always | Eventually], world: World) -> list[str]:
    """A sentence for whatever is not as claimed."""
    return [sentence for each in properties for sentence in each.wrong(world)]
