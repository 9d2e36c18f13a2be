"""Of a proof that held, the few runs that are worth looking at."""

from __future__ import annotations

from typing import NamedTuple

from faultproof.prove.proof import Proof
from faultproof.prove.simulated.escapes import no_escapes
from faultproof.prove.simulated.explore import Explorer, worth_striking
from faultproof.prove.simulated.faults import CRASH, FREEZE
from faultproof.prove.simulated.tape import Tape
from faultproof.prove.simulated.world import World

LOOKED_AT_MAX = 60
"""Runs that are compared: a moment's work."""
SAMPLES_MAX = 5


class Sample(NamedTuple):
    """A run, by its tape."""

    title: str
    why: str
    answers: dict[int, int]


def samples(proof: Proof) -> list[Sample]:
    """The undisturbed run; of each kind of fault the run with the most aftermath; and for everything that happens
    `sometimes` and in none of those, the first run in which it does. All with one fault at most."""
    looked_at = _looked_at(proof)
    undisturbed, struck = looked_at[0], looked_at[1:]
    chosen = [(undisturbed, "The undisturbed run", "what happens when nothing goes wrong")]
    for fault in (CRASH, FREEZE):
        of_kind = [each for each in struck if fault in each.answers.values()]
        if of_kind:
            liveliest = max(of_kind, key=lambda each: each.length)  # the first of several
            chosen.append(
                (liveliest, f"One {fault.name.lower()}", f"of all runs with one {fault.name.lower()}, most happens")
            )
    for each in proof.sometimes:
        if any(each.claim in look.happened for look, _, _ in chosen):
            continue
        shows = next((look for look in struck if each.claim in look.happened), None)
        if shows is not None:
            chosen.append((shows, f"Sometimes {each.claim}", "the first run in which it happened"))
    return [
        Sample(title, f"{why}: {', '.join(look.faults)}" if look.faults else why, look.answers)
        for look, title, why in chosen[:SAMPLES_MAX]
    ]


class _Look(NamedTuple):
    answers: dict[int, int]
    faults: tuple[str, ...]
    length: int
    happened: frozenset[str]


def _looked_at(proof: Proof) -> list[_Look]:
    explorer = Explorer(proof)
    with no_escapes():
        world, _ = explorer.run(Tape(), faults_max=1)
        points = list(worth_striking(world.points, (CRASH, FREEZE)))
        looks = [_look(proof, {}, world)]
        # Evenly over the run, if there are too many.
        for position, fault in points[:: 1 + len(points) // LOOKED_AT_MAX]:
            answers = {position: int(fault)}
            world, wrong = explorer.run(Tape(dict(answers)), faults_max=1)
            if not wrong:
                looks.append(_look(proof, answers, world))
    return looks


def _look(proof: Proof, answers: dict[int, int], world: World) -> _Look:
    happened = frozenset(each.claim for each in proof.sometimes if each.happened(world))
    return _Look(answers, tuple(world.faults), len(world.trace), happened)
