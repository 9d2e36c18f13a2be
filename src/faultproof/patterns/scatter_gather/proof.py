"""Scatter-gather's proof: one question after the other to shards that answer, fail, are slow or hang, under any fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from faultproof.patterns.scatter_gather.gathered import Answer, Gathered, Incomplete, Missing, Outcome
from faultproof.patterns.scatter_gather.gathering import Ask, Gathering
from faultproof.patterns.scatter_gather.policy import GatherPolicy
from faultproof.patterns.scatter_gather.proof_overdue import Overdue, overdue
from faultproof.patterns.scatter_gather.scatter import ScatterGather
from faultproof.ports.database import Database
from faultproof.primitives.hedging import HedgePolicy
from faultproof.prove.proof import ANY_FAULT, Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted

T = TypeVar("T")

SHARDS = ("s1", "s2", "s3", "s4")
DEADLINE_S, EACH_S, SLOW_S = 1.0, 0.8, 0.3
_HEDGE = HedgePolicy(at_first=0.1)
POLICIES = {
    "all": GatherPolicy(deadline=DEADLINE_S, each=EACH_S, hedge=_HEDGE),
    "quorum": GatherPolicy(deadline=DEADLINE_S, each=EACH_S, at_least=2, until_enough=True, at_once=3),
    "any": GatherPolicy(deadline=DEADLINE_S, each=EACH_S, at_least=0, hedge=_HEDGE, at_once=2),
    "most": GatherPolicy(deadline=DEADLINE_S, at_least=3),
    "in turn": GatherPolicy(deadline=DEADLINE_S, at_least=1, at_once=1),
    "again": GatherPolicy(deadline=DEADLINE_S, each=EACH_S, hedge=_HEDGE),
}
"""By the question that they are for."""
PLAN = {
    "all": ("quick", "slow", "quick", "quick"),
    "quorum": ("fails", "quick", "slow", "quick"),
    "any": ("quick", "hangs", "fails", "hangs"),
    "most": ("fails", "quick", "slow", "quick"),
    "in turn": ("slow", "slow", "quick", "slow"),
    "again": ("quick", "quick", "quick", "quick"),
}
"""What the shards do, where chance does not will it otherwise."""


async def _prepare(database: Database) -> None:
    """Nothing is stored."""


def _asking(process: Process, question: str) -> Ask[str]:
    """Shards are services outside. Some are slow, fail or hang at a first attempt; at a second one only those that hang."""
    env = process.env

    async def ask(shard: str, number: int) -> str:
        does = PLAN[question][SHARDS.index(shard)]
        chance = env.rng.random()
        if chance > 0.8:
            does = ("quick", "slow", "fails", "hangs")[int((chance - 0.8) * 20)]
        if does == "hangs":
            await env.clock.sleep(60.0)
        if number == 1 and does == "slow":
            await env.clock.sleep(SLOW_S)
        if number == 1 and does == "fails":
            raise ConnectionError(f"{shard} is down")
        return await process.outside(shard, lambda state: f"{shard} on {question}")

    return ask


def _processes(plant: str | None) -> dict[str, Main]:
    async def caller(process: Process) -> None:
        for question, policy in POLICIES.items():
            scatter = _BROKEN.get(plant or "", ScatterGather)(policy, env=process.env)
            overdue = Overdue(process, question, DEADLINE_S)
            gathered: Gathered[Any]
            try:
                gathered = await scatter.gather(SHARDS, _asking(process, question))
                verdict = "complete" if gathered.is_complete else "partial"
            except Incomplete as incomplete:
                gathered, verdict = incomplete.gathered, "incomplete"
            overdue.is_over = True
            answers = {name: answer.value for name, answer in gathered.answers.items()}
            hedged = sum(answer.attempts > 1 for answer in gathered.answers.values())
            missing = {name: missing.why for name, missing in gathered.missing.items()}
            process.note(verdict, question, answers, missing, hedged)
        process.note("finished", process.name)

    return {"caller": caller}


# -- the verdict ------------------------------------------------------------------------------------------------------------

_Told = tuple[str, str, dict[str, str], dict[str, str], int]


def _told(evidence: Evidence) -> list[_Told]:
    return [note for note in evidence.notes if note[0] in ("complete", "partial", "incomplete")]


def _wrong_answers(evidence: Evidence) -> list[str]:
    wrong = []
    for _, question, answers, missing, _ in _told(evidence):
        if sorted([*answers, *missing]) != sorted(SHARDS):
            wrong.append(f"{question}: {[*answers]} have answered and {[*missing]} have not; asked were {[*SHARDS]}")
        wrong += [
            f"{question}: {shard} is said to have answered {value!r}"
            for shard, value in answers.items()
            if value != f"{shard} on {question}"
        ]
    return wrong


def _wrong_verdicts(evidence: Evidence) -> list[str]:
    wrong = []
    for verdict, question, answers, missing, _ in _told(evidence):
        least = _least(question)
        expected = "incomplete" if len(answers) < least else "partial" if len(answers) < len(SHARDS) else "complete"
        if verdict != expected:
            wrong.append(
                f"{question}: called {verdict} with {len(answers)} answers of {len(SHARDS)}, and {missing} missing"
            )
        is_enough = POLICIES[question].until_enough and len(answers) >= least
        if is_enough and len(answers) > least:
            wrong.append(f"{question}: {len(answers)} answers were waited for, and {least} were enough")
        wrong += [
            f"{question}: {shard} was {why}, and not enough had answered"
            for shard, why in missing.items()
            if why == "cut off" and not is_enough
        ]
    return wrong


def _least(question: str) -> int:
    least = POLICIES[question].at_least
    return len(SHARDS) if least is None else least


def _was(why: str) -> Callable[[Evidence], bool]:
    return lambda evidence: any(why in missing.values() for _, _, _, missing, _ in _told(evidence))


# -- planted bugs -----------------------------------------------------------------------------------------------------------


class _LeavesOut(ScatterGather):
    """Whoever failed is logged, and forgotten: what a loop over `as_completed` with a `try` in it does."""

    def _judged(self, outcomes: dict[str, Outcome[T]], least: int) -> Gathered[T]:
        there = {name: outcome for name, outcome in outcomes.items() if not _has_failed(outcome)}
        return super()._judged(there, min(least, len(there)))


class _FillsIn(ScatterGather):
    """A shard that is late has its neighbour's answer."""

    def _judged(self, outcomes: dict[str, Outcome[T]], least: int) -> Gathered[T]:
        some = next((outcome for outcome in outcomes.values() if isinstance(outcome, Answer)), None)
        filled = {
            name: some if some and isinstance(outcome, Missing) and outcome.why == "late" else outcome
            for name, outcome in outcomes.items()
        }
        return super()._judged(filled, least)


class _Content(ScatterGather):
    """Some answers are as good as all of them."""

    def _judged(self, outcomes: dict[str, Outcome[T]], least: int) -> Gathered[T]:
        return super()._judged(outcomes, min(least, 1))


class _Patient(ScatterGather):
    """Whoever was asked is waited for."""

    def _gathering(self, ask: Ask[T], told: Callable[[str, Outcome[T]], object], enough: int) -> Gathering[T]:
        gathering = super()._gathering(ask, told, enough)
        gathering.at += 60.0
        gathering._each = None
        return gathering


class _Greedy(ScatterGather):
    """It goes on asking where enough have answered."""

    def _gathering(self, ask: Ask[T], told: Callable[[str, Outcome[T]], object], enough: int) -> Gathering[T]:
        return super()._gathering(ask, told, len(SHARDS))


class _Hasty(ScatterGather):
    """The first failure ends it for all: what `asyncio.gather` does."""

    def _gathering(self, ask: Ask[T], told: Callable[[str, Outcome[T]], object], enough: int) -> Gathering[T]:
        def first(name: str, outcome: Outcome[T]) -> None:
            told(name, outcome)
            if _has_failed(outcome):
                gathering.stop("cut off")

        gathering = super()._gathering(ask, first, enough)
        return gathering


def _has_failed(outcome: Outcome[T]) -> bool:
    return isinstance(outcome, Missing) and outcome.why == "failed"


_BROKEN: dict[str, type[ScatterGather]] = {
    "leaves out": _LeavesOut,
    "fills in": _FillsIn,
    "content": _Content,
    "patient": _Patient,
    "greedy": _Greedy,
    "hasty": _Hasty,
}

SCATTER = Proof(
    name="faultproof.patterns.scatter_gather.proof:SCATTER",
    claim=(
        "Of every shard that was to be asked it is said what it answered, or why there is no answer; what is called complete "
        "is, fewer answers than have to be are an error, and all that by the deadline."
    ),
    faults=ANY_FAULT,
    assumptions=(
        "the event loop is not blocked for longer than a moment",
        "what asks a shard ends when it is cancelled",
    ),
    not_tested=("shards that ignore a cancel: the caller does not wait for them (tests/patterns/scatter_gather)",),
    prepare=_prepare,
    processes=_processes,
    done=lambda evidence: bool(noted(evidence, "finished")),
    eventually=(
        Eventually(claim="every shard has an answer of its own, or a reason", wrong=_wrong_answers),
        Eventually(claim="what is called complete, partial or not enough is so", wrong=_wrong_verdicts),
        Eventually(claim="it is over by the deadline", wrong=overdue),
    ),
    sometimes=(
        Sometimes(claim="a shard fails", happened=_was("failed")),
        Sometimes(claim="a shard is late", happened=_was("late")),
        Sometimes(claim="a shard is cut off because enough have answered", happened=_was("cut off")),
        Sometimes(claim="a straggler's hedge wins", happened=lambda evidence: any(told[4] for told in _told(evidence))),
    ),
    plants=(
        Plant(name="leaves out", breaks="a shard that failed is in neither list: the answer looks whole"),
        Plant(name="fills in", breaks="a late shard's place is filled with another's answer"),
        Plant(name="content", breaks="fewer answers than have to be there are taken for enough"),
        Plant(name="patient", breaks="a shard that hangs holds up the caller"),
        Plant(name="greedy", breaks="the slow are waited for although enough have answered"),
        Plant(name="hasty", breaks="one failure throws away what the others would have answered"),
    ),
)
