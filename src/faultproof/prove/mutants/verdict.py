"""What a hunt says about a proof: every mutant killed or explained, no explanation untrue, and few of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from faultproof.errors import InvalidInput
from faultproof.prove.harness import Tell
from faultproof.prove.mutants.hunt import Effort, Outcome, Target, hunt
from faultproof.prove.mutants.mutant import Mutant
from faultproof.prove.proof import Survivor

if TYPE_CHECKING:
    from faultproof.prove.mutants.stepping import Stage

ONE_IN = 10
"""At most one in so many mutants may survive on somebody's word; of a handful one."""


ALIVE = ("survived", "idle")
"""Fates that somebody has to explain."""


@dataclass(frozen=True)
class Verdict:
    """Outcomes, held against what was said beforehand."""

    outcomes: list[Outcome]
    twins: list[Outcome]
    """Two redundant guards dropped at once."""
    survivors: tuple[Survivor, ...]
    stepped: list[Outcome] = field(default_factory=list)
    """What the stepped world makes of those that simulation lets live; none where nobody has asked it."""
    of: int | None = None
    """How many mutants there are, if not all of them were tried."""

    @property
    def complaints(self) -> list[str]:
        """A sentence for whatever is not as it must be; none if the proof can tell."""
        reasons = explained(self.survivors)
        twins = {survivor.twin for survivor in self.survivors}
        return [
            *(
                f"{each.fate}, and nobody says why: {each.label}"
                for each in self.outcomes
                if each.fate in ALIVE and each.label not in reasons
            ),
            *(
                f"said to survive, and killed: {each.label}"
                for each in self.outcomes
                if each.killed and each.label in reasons
            ),
            *(f"survived without both: {each.label}" for each in self.twins if not each.killed),
            *(
                f"said to be a twin, and killed alone: {each.label}"
                for each in self.outcomes
                if each.killed and each.label in twins
            ),
            *(sentence for each in self.stepped for sentence in _disagreement(each, reasons.get(each.label))),
            *self._too_many(reasons),
        ]

    def _too_many(self, reasons: Mapping[str, Survivor]) -> Iterator[str]:
        """A reason is somebody's word; a twin, or a case, is shown."""
        alone = sum(survivor.twin is None and survivor.stepped is None for survivor in reasons.values())
        every = self.of or len(self.outcomes)
        if alone > max(1, every // ONE_IN):
            yield f"{alone} of {every} mutants live on a reason alone; at most a tenth may"

    def count(self) -> Counter[tuple[str, str]]:
        """How many mutants of each kind ended how."""
        return Counter((outcome.kind, outcome.fate) for outcome in self.outcomes)


def _disagreement(stepped: Outcome, survivor: Survivor | None) -> Iterator[str]:
    """Where the stepped world says something else of it than its explanation, or than simulation."""
    said = survivor.stepped if survivor else None
    if said is not None and stepped.killed is None:
        yield f"said to be noticed by {said}, and is not: {stepped.label}"
    if said is None and stepped.killed is not None:
        yield f"the worlds do not agree: {stepped.killed.proof} notices {stepped.label}"


def explained(survivors: Sequence[Survivor]) -> dict[str, Survivor]:
    """The explanation of each mutant that has one, by its name."""
    return {name: survivor for survivor in survivors for name in survivor.mutants}


def judged(
    targets: Sequence[Target],
    survivors: tuple[Survivor, ...],
    effort: Effort,
    *,
    every: int = 1,
    stage: Callable[[], AbstractContextManager[Stage]] | None = None,
    processes: int = 2,
    progress: Tell | None = None,
) -> Verdict:
    """Hunt each `every`-th mutant, and every pair of redundant guards; then step those that live through the cases of a
    `stage`, if there is one: it is made when the hunt, for which processes are forked, is over.

    Raises `InvalidInput` where survivors are listed that no proof has.
    """
    known = {target.mutant.label: target for target in targets}
    reasons = explained(survivors)
    strange = [name for name in (*reasons, *(each.twin for each in survivors if each.twin)) if name not in known]
    if strange:
        raise InvalidInput(f"listed as survivors, and no mutants of these proofs: {'; '.join(sorted(strange))}")
    pairs = [
        Target(known[name].mutant | known[survivor.twin].mutant, known[name].references)
        for name, survivor in reasons.items()
        if survivor.twin is not None
    ]
    chosen = list(targets[::every])
    outcomes = hunt(chosen, effort, processes=processes, progress=progress)
    # What is left of two guards is needed at few places only, and there are few pairs: they are struck at all.
    twins = hunt(pairs, replace(effort, points=None), processes=processes)
    alive = [outcome for outcome in outcomes if outcome.fate in ALIVE]
    with stage() if stage else nullcontext() as opened:
        stepped = [
            _stepped(opened, each, known[each.label].mutant, reasons.get(each.label)) for each in alive if opened
        ]
    return Verdict(outcomes, twins, survivors, stepped, of=len(targets))


def _stepped(stage: Stage, alive: Outcome, mutant: Mutant, survivor: Survivor | None) -> Outcome:
    return alive._replace(killed=stage.killed(mutant, survivor.stepped if survivor else None))
