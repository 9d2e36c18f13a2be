"""Fan-out's proof: requests to services of which some are required, and any may fail, hang or be slow, under any fault."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from faultproof.patterns.fan_out.fan_out import FanOut, Source
from faultproof.patterns.scatter_gather.gathered import Answer, Gathered, Incomplete, Missing, Outcome
from faultproof.patterns.scatter_gather.proof_overdue import Overdue, overdue
from faultproof.ports.database import Database
from faultproof.primitives.hedging import HedgePolicy
from faultproof.prove.proof import ANY_FAULT, Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted

DEADLINE_S, SLOW_S = 1.0, 0.3
REQUIRED, OPTIONAL = ("price", "stock"), ("reviews", "photos")
SERVICES = (*REQUIRED, *OPTIONAL)
PLAN = {
    "whole": {"price": "slow"},
    "partial": {"reviews": "hangs", "photos": "fails"},
    "failing": {"stock": "fails", "photos": "hangs"},
    "hanging": {"price": "hangs", "photos": "slow"},
    "late": {"photos": "hangs"},
    "quick": {},
}
"""What the services do with a request, where they do not answer quickly and chance does not will it otherwise."""


async def _prepare(database: Database) -> None:
    """Nothing is stored."""


def _services(process: Process) -> Mapping[str, Source[str]]:
    return {
        name: Source(
            call=_Called(process, name),
            is_required=name in REQUIRED,
            hedge=HedgePolicy(at_first=0.1) if name == "price" else None,
        )
        for name in SERVICES
    }


class _Called:
    """One service. The first call of a request may be slow, a second one is not."""

    def __init__(self, process: Process, name: str) -> None:
        self._process = process
        self._name = name
        self._called = set[str]()

    async def __call__(self, request: str) -> str:
        env, name = self._process.env, self._name
        does, chance = PLAN[request].get(name, "quick"), env.rng.random()
        if chance > 0.8:
            does = ("quick", "slow", "fails", "hangs")[int((chance - 0.8) * 20)]
        is_first = request not in self._called
        self._called.add(request)
        if does == "fails":
            raise ConnectionError(f"{name} is down")
        if does == "hangs" or (does == "slow" and is_first):
            await env.clock.sleep(60.0 if does == "hangs" else SLOW_S)
        self._process.note("called", request, name)
        return await self._process.outside(name, lambda state: f"{name} of {request}")


def _processes(plant: str | None) -> dict[str, Main]:
    async def caller(process: Process) -> None:
        fan_out = _BROKEN.get(plant or "", FanOut)(_services(process), deadline=DEADLINE_S, env=process.env)
        for request in PLAN:
            overdue = Overdue(process, request, DEADLINE_S)
            parts: Gathered[Any]
            try:
                parts, verdict = await fan_out.ask(request), "answered"
            except Incomplete as incomplete:
                parts, verdict = incomplete.gathered, "refused"
            overdue.is_over = True
            there = {name: answer.value for name, answer in parts.answers.items()}
            missing = {name: missing.why for name, missing in parts.missing.items()}
            process.note(verdict, request, there, missing, sum(one.attempts > 1 for one in parts.answers.values()))
        process.note("finished", process.name)

    return {"caller": caller}


# -- the verdict ------------------------------------------------------------------------------------------------------------

_Told = tuple[str, str, dict[str, str], dict[str, str], int]


def _told(evidence: Evidence) -> list[_Told]:
    return [note for note in evidence.notes if note[0] in ("answered", "refused")]


def _wrong_parts(evidence: Evidence) -> list[str]:
    wrong = []
    for _, request, there, missing, _ in _told(evidence):
        if sorted([*there, *missing]) != sorted(SERVICES):
            wrong.append(f"{request}: {[*there]} are there and {[*missing]} are not; asked were {[*SERVICES]}")
        wrong += [f"{request}: {name} was not asked" for name, why in missing.items() if why == "not asked"]
        wrong += [f"{request}: {name} is {part!r}" for name, part in there.items() if part != f"{name} of {request}"]
    return wrong


def _wrong_verdicts(evidence: Evidence) -> list[str]:
    wrong = []
    for verdict, request, _, missing, _ in _told(evidence):
        required = [name for name in missing if name in REQUIRED]
        if (verdict == "refused") != bool(required):
            wrong.append(f"{request}: {verdict}, and {missing} are missing")
        if "cut off" in missing.values() and not any(missing[name] != "cut off" for name in required):
            wrong.append(f"{request}: cut off, and nothing that is required had failed: {missing}")
    return wrong


# -- planted bugs -----------------------------------------------------------------------------------------------------------


class _Swallows(FanOut[str]):
    """A failure is logged, and the rest is the answer: the specification's own sample."""

    def _judged(self, outcomes: Mapping[str, Outcome[Any]]) -> Gathered[Any]:
        return super()._judged({name: one for name, one in outcomes.items() if not _has_failed(one)})


class _Lenient(FanOut[str]):
    """Nothing is required."""

    def _is_in_vain(self, name: str, outcome: Outcome[Any]) -> bool:
        return False

    def _judged(self, outcomes: Mapping[str, Outcome[Any]]) -> Gathered[Any]:
        try:
            return super()._judged(outcomes)
        except Incomplete as incomplete:
            return incomplete.gathered


class _Strict(FanOut[str]):
    """Everything is required."""

    def _is_in_vain(self, name: str, outcome: Outcome[Any]) -> bool:
        return isinstance(outcome, Missing)


class _Stale(FanOut[str]):
    """What a service answered once is good enough for the next request too."""

    def _judged(self, outcomes: Mapping[str, Outcome[Any]]) -> Gathered[Any]:
        known = self.__dict__.setdefault("known", {})
        known |= {name: one for name, one in outcomes.items() if isinstance(one, Answer)}
        return super()._judged({name: known.get(name, one) for name, one in outcomes.items()})


class _Unbounded(FanOut[str]):
    """Each service has all the time it wants."""

    async def ask(self, request: str) -> Gathered[Any]:
        self._deadline = 90.0
        return await super().ask(request)


class _InTurn(FanOut[str]):
    """One after the other."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._means = self._means._replace(at_once=1)


def _has_failed(outcome: Outcome[Any]) -> bool:
    return isinstance(outcome, Missing) and outcome.why == "failed"


_BROKEN: dict[str, type[FanOut[str]]] = {
    "swallows": _Swallows,
    "lenient": _Lenient,
    "strict": _Strict,
    "stale": _Stale,
    "unbounded": _Unbounded,
    "in turn": _InTurn,
}

FAN_OUT = Proof(
    name="faultproof.patterns.fan_out.proof:FAN_OUT",
    claim=(
        "Services are asked at once, and of each it is said what its part is, or why there is none; an answer without a part "
        "that is required is an error, one without a part that is not goes out and says so, and all that by the deadline."
    ),
    faults=ANY_FAULT,
    assumptions=(
        "the event loop is not blocked for longer than a moment",
        "a service's call ends when it is cancelled",
    ),
    not_tested=("calls that ignore a cancel: nobody waits for them (tests/patterns/fan_out)",),
    prepare=_prepare,
    processes=_processes,
    done=lambda evidence: bool(noted(evidence, "finished")),
    eventually=(
        Eventually(claim="every service has a part of its own, or a reason", wrong=_wrong_parts),
        Eventually(claim="only what is required makes an answer impossible, and does", wrong=_wrong_verdicts),
        Eventually(claim="it is over by the deadline", wrong=overdue),
    ),
    sometimes=(
        Sometimes(
            claim="an answer goes out without a part that is not required",
            happened=lambda evidence: any(told[0] == "answered" and told[3] for told in _told(evidence)),
        ),
        Sometimes(
            claim="a required part is missing",
            happened=lambda evidence: any(told[0] == "refused" for told in _told(evidence)),
        ),
        Sometimes(claim="a hedge wins", happened=lambda evidence: any(told[4] for told in _told(evidence))),
    ),
    plants=(
        Plant(name="swallows", breaks="a service that failed is in neither list: the answer looks whole"),
        Plant(name="lenient", breaks="a page without a price goes out"),
        Plant(name="strict", breaks="one failing part that nobody needs takes the whole answer with it"),
        Plant(name="stale", breaks="a missing part is filled with that of another request"),
        Plant(name="unbounded", breaks="a service that hangs holds up the answer"),
        Plant(name="in turn", breaks="a service that hangs keeps the others from being asked"),
    ),
)
