"""A run of the simulated world once more, told in full: every event with its statements and its line of the source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from faultproof.prove.proof import Always, Eventually, Evidence, Proof
from faultproof.prove.simulated.escapes import no_escapes
from faultproof.prove.simulated.explore import Explorer
from faultproof.prove.simulated.tape import Tape
from faultproof.prove.simulated.watched import WatchedWorld
from faultproof.prove.simulated.world import Granularity, World
from faultproof.prove.story import Judged, Story

ENDS = "the work comes to an end, and no process dies of an error of its own"


def retold(
    proof: Proof,
    answers: Mapping[int, int],
    *,
    plant: str | None = None,
    granularity: Granularity = "commit",
    files: Path | None = None,
) -> Story:
    """What happens under these answers. The same as in any other run with them: only more of it is remembered."""
    judge = _Judge(proof)
    world = partial(WatchedWorld, at_end=judge.look_for_what_happens_sometimes)
    explorer = Explorer(judge.listening(), plant, granularity=granularity, world=world)
    with no_escapes():
        # Each fault is one answer on the tape, so there are no more than those.
        ended, wrong = explorer.run(Tape(dict(answers)), faults_max=len(answers), files=files)
    assert isinstance(ended, WatchedWorld)
    return Story(
        events=list(ended.events()),
        judged=judge.verdict(wrong),
        faults=tuple(ended.faults),
        seconds=ended.loop.now,
        left_out=ended.left_out,
    )


class _Judge:
    """Remembers which property said what, and when: in the run they come out as one list of sentences."""

    def __init__(self, proof: Proof) -> None:
        self._proof = proof
        self._wrong: dict[str, list[str]] = {}
        self._broken_at: dict[str, int] = {}
        self._happened: set[str] = set()

    def listening(self) -> Proof:
        """The proof, with properties that are heard."""
        proof = self._proof
        return replace(
            proof,
            always=tuple(replace(each, wrong=self._heard(each)) for each in proof.always),
            eventually=tuple(replace(each, wrong=self._heard(each)) for each in proof.eventually),
        )

    def look_for_what_happens_sometimes(self, world: World) -> None:
        """Called at the end, while the database is still there."""
        self._happened = {each.claim for each in self._proof.sometimes if each.happened(world)}

    def verdict(self, wrong: list[str]) -> tuple[Judged, ...]:
        """Property by property. `wrong` is all that was wrong: what no property said was the world's own finding."""
        said = {sentence for sentences in self._wrong.values() for sentence in sentences}
        proof = self._proof
        return (
            Judged(kind="ends", claim=ENDS, wrong=tuple(each for each in wrong if each not in said)),
            *(self._judged("always", each.claim) for each in proof.always),
            *(self._judged("eventually", each.claim) for each in proof.eventually),
            *(
                Judged(kind="sometimes", claim=each.claim, happened=each.claim in self._happened)
                for each in proof.sometimes
            ),
        )

    def _judged(self, kind: Literal["always", "eventually"], claim: str) -> Judged:
        event = self._broken_at.get(claim) if kind == "always" else None
        return Judged(kind=kind, claim=claim, wrong=tuple(self._wrong.get(claim, ())), event=event)

    def _heard(self, each: Always | Eventually) -> Callable[[Evidence], list[str]]:
        def wrong(evidence: Evidence) -> list[str]:
            sentences = each.wrong(evidence)
            if sentences and each.claim not in self._wrong:
                assert isinstance(evidence, WatchedWorld)
                self._wrong[each.claim] = sentences
                # The operation that is being carried out is told next.
                self._broken_at[each.claim] = len(evidence.happenings)
            return sentences

        return wrong
