"""What a hunt says about a proof: every mutant killed or explained, no explanation untrue, and few of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from faultproof.errors import InvalidInput
from faultproof.prove.harness import Tell
from faultproof.prove.mutants.hunt import Effort, Outcome, Target, hunt
from faultproof.prove.proof import Survivor

ONE_IN = 10
"""At most one in so many mutants may survive on somebody's word; of a handful one."""


@dataclass(frozen=True)
class Verdict:
    """Outcomes, held against what was said beforehand."""

    outcomes: list[Outcome]
    twins: list[Outcome]
    """Two redundant guards dropped at once."""
    survivors: tuple[Survivor, ...]

    @property
    def complaints(self) -> list[str]:
        """A sentence for whatever is not as it must be; none if the proof can tell."""
        reasons = explained(self.survivors)
        twins = {survivor.twin for survivor in self.survivors}
        alive = [outcome for outcome in self.outcomes if outcome.fate == "survived"]
        return [
            *(f"survived, and nobody says why: {each.label}" for each in alive if each.label not in reasons),
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
        ]

    def count(self) -> Counter[tuple[str, str]]:
        """How many mutants of each kind ended how."""
        return Counter((outcome.kind, outcome.fate) for outcome in self.outcomes)


def explained(survivors: Sequence[Survivor]) -> dict[str, Survivor]:
    """The explanation of each mutant that has one, by its name."""
    return {name: survivor for survivor in survivors for name in survivor.mutants}


def judged(
    targets: Sequence[Target],
    survivors: tuple[Survivor, ...],
    effort: Effort,
    *,
    every: int = 1,
    processes: int = 2,
    progress: Tell | None = None,
) -> Verdict:
    """Hunt each `every`-th mutant, and every pair of redundant guards.

    Raises `InvalidInput` where survivors are listed that no proof has, or too many.
    """
    known = {target.mutant.label: target for target in targets}
    reasons = explained(survivors)
    strange = [name for name in (*reasons, *(each.twin for each in survivors if each.twin)) if name not in known]
    if strange:
        raise InvalidInput(f"listed as survivors, and no mutants of these proofs: {'; '.join(sorted(strange))}")
    alone = [name for name, survivor in reasons.items() if survivor.twin is None]
    if len(alone) > max(1, len(targets) // ONE_IN):
        raise InvalidInput(f"{len(alone)} of {len(targets)} mutants are said to survive; at most a tenth may")
    pairs = [
        Target(known[name].mutant | known[survivor.twin].mutant, known[name].references)
        for name, survivor in reasons.items()
        if survivor.twin is not None
    ]
    chosen = list(targets[::every])
    outcomes = hunt([*chosen, *pairs], effort, processes=processes, progress=progress)
    return Verdict(outcomes[: len(chosen)], outcomes[len(chosen) :], survivors)
