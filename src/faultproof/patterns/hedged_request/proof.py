"""Hedged Request's proof: requests to endpoints that are slow, hang, fail or answer what nobody wants, under any fault."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from faultproof.errors import FaultproofError
from faultproof.patterns.hedged_request.hedged import Hedged, HedgedRequest, Send
from faultproof.patterns.scatter_gather.proof_overdue import Overdue, overdue
from faultproof.ports.database import Database
from faultproof.primitives.endpoints import Endpoint
from faultproof.primitives.hedging import Attempt, HedgePolicy, Hedging, Race, Raced
from faultproof.primitives.reaper import Reaper
from faultproof.primitives.retry import RetryBudget
from faultproof.prove.proof import ANY_FAULT, Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted

T = TypeVar("T")

ENDPOINTS = ("a", "b", "c")
POLICY = HedgePolicy(quantile=0.9, at_first=0.1)
RATIO, BURST = 0.15, 1.0
TIMEOUT_S, CLEAN_UP_S, QUICK_S, SLOW_S = 2.0, 1.0, 0.02, 0.4
QUICK = ("quick", "quick")
REQUESTS: tuple[tuple[str, str], ...] = (
    *[QUICK] * 6,
    ("hangs", "quick"),
    *[QUICK] * 7,
    ("slow", "fails"),
    *[QUICK] * 7,
    ("unwanted", "quick"),
    QUICK,
    ("fails", "quick"),
    ("hangs", "quick"),
    ("slow", "unwanted"),
    ("hangs", "quick"),
    ("hangs", "quick"),
)
"""What the first and the second attempt come to, where chance does not will it otherwise. A second one is only made if the
first takes long; the last requests are more than the budget pays for."""


async def _prepare(database: Database) -> None:
    """Nothing is stored."""


class _Request:
    """One request's attempts. Whoever is cancelled takes its time to clean up."""

    def __init__(self, process: Process, number: int) -> None:
        self._process = process
        self._number = number
        self.overdue: Overdue | None = None

    async def send(self, endpoint: Endpoint, attempt: int) -> str:
        process, clock = self._process, self._process.env.clock
        does, chance = REQUESTS[self._number][attempt - 1], process.env.rng.random()
        if chance > 0.8:
            does = ("quick", "slow", "fails", "hangs")[int((chance - 0.8) * 20)]
        self._note("sent", attempt, endpoint.name)
        try:
            await clock.sleep({"hangs": 60.0, "slow": SLOW_S, "unwanted": 0.11}.get(does, QUICK_S))
            if does == "fails":
                raise ConnectionError(f"{endpoint.name} is down")
            answer = await process.outside(endpoint.name, lambda state: f"{does} from {endpoint.name}")
        except asyncio.CancelledError:
            self._note("told to stop", attempt)
            await clock.sleep(CLEAN_UP_S)
            raise
        except Exception:
            self._note("failed", attempt)
            raise
        self._note("delivered", attempt, answer)
        if _is_wanted(answer) and self.overdue is None:
            self.overdue = Overdue(process, f"request {self._number}", 0.0)
        return answer

    def _note(self, kind: str, *facts: Any) -> None:
        self._process.note(kind, self._number, self._process.incarnation, *facts)


def _processes(plant: str | None) -> dict[str, Main]:
    async def caller(process: Process) -> None:
        budget = RetryBudget(ratio=RATIO, burst=BURST)
        endpoints = [Endpoint(name) for name in ENDPOINTS]
        replicas = _BROKEN.get(plant or "", HedgedRequest)(
            endpoints, POLICY, timeout=TIMEOUT_S, room=3, env=process.env, budget=budget
        )
        for number in range(len(REQUESTS)):
            request = _Request(process, number)
            try:
                answer = await replicas.call(request.send, is_acceptable=_is_wanted)
                request._note("answered", answer.value, answer.endpoint.name, answer.attempts)
            except (ConnectionError, FaultproofError) as error:
                request._note("refused", type(error).__name__)
            if request.overdue is not None:
                request.overdue.is_over = True
        process.note("finished", process.incarnation)

    return {"caller": caller}


def _is_wanted(value: str) -> bool:
    return not value.startswith("unwanted")


# -- the verdict ------------------------------------------------------------------------------------------------------------


def _won(evidence: Evidence, winner: int) -> bool:
    """Of a request with two attempts."""
    delivered = _of(evidence, "delivered")
    return any(
        attempts == 2 and (winner, value) in delivered.get(request, [])
        for request, [(value, _, attempts)] in _of(evidence, "answered").items()
    )


def _of(evidence: Evidence, kind: str) -> dict[tuple[int, int], list[tuple[Any, ...]]]:
    """The facts of these notes, by request and life of the caller."""
    found: dict[tuple[int, int], list[tuple[Any, ...]]] = {}
    for note in evidence.notes:
        if note[0] == kind:
            found.setdefault((note[1], note[2]), []).append(note[3:])
    return found


def _wrong_answers(evidence: Evidence) -> list[str]:
    delivered, wrong = _of(evidence, "delivered"), []
    for request, [(value, endpoint, _)] in _of(evidence, "answered").items():
        values = [answer for _, answer in delivered.get(request, [])]
        wanted = [answer for answer in values if _is_wanted(answer)]
        if value not in values or not value.endswith(f" from {endpoint}"):
            wrong.append(f"request {request[0]} was answered with {value!r} of {endpoint}, and delivered were {values}")
        elif wanted and not _is_wanted(value):
            wrong.append(f"request {request[0]} was answered with {value!r}, and {wanted} was there")
    for request, [(error,)] in _of(evidence, "refused").items():
        wanted = [answer for _, answer in delivered.get(request, []) if _is_wanted(answer)]
        if wanted:
            wrong.append(f"request {request[0]} was refused with {error}, and {wanted} was there")
    return wrong


def _given_up_early(evidence: Evidence) -> list[str]:
    """A request fails, or has an answer that nobody wants, only when no attempt is left."""
    wrong, stopped = [], _of(evidence, "told to stop")
    for request, [(value, *_)] in _of(evidence, "answered").items():
        if not _is_wanted(value) and stopped.get(request):
            wrong.append(
                f"request {request[0]} was answered with {value!r}, and an attempt that might have come was stopped"
            )
    for request, [(error,)] in _of(evidence, "refused").items():
        if error != "OutcomeUnknown" and stopped.get(request):
            wrong.append(
                f"request {request[0]} was refused with {error}, and an attempt that might have come was stopped"
            )
    return wrong


def _too_many(evidence: Evidence) -> list[str]:
    sent = _of(evidence, "sent")
    requests, hedges = Counter(life for _, life in sent), Counter[int]()
    wrong = []
    for (number, life), attempts in sent.items():
        hedges[life] += len(attempts) - 1
        if len({endpoint for _, endpoint in attempts}) < len(attempts):
            wrong.append(f"request {number} went to {[endpoint for _, endpoint in attempts]}")
    return wrong + [
        f"{count} of {requests[life]} requests were hedged, and the budget is {BURST:g} and {RATIO:g} of them"
        for life, count in hedges.items()
        if count > BURST + RATIO * requests[life]
    ]


def _left_behind(evidence: Evidence) -> list[str]:
    finished, wrong = noted(evidence, "finished"), []
    ended = [_of(evidence, kind) for kind in ("delivered", "failed", "told to stop")]
    for request, attempts in _of(evidence, "sent").items():
        known = {facts[0] for kind in ended for facts in kind.get(request, [])}
        running = {attempt for attempt, _ in attempts} - known
        if request[1] in finished and running:
            wrong.append(f"request {request[0]} is over, and its attempts {sorted(running)} go on")
    return wrong


# -- planted bugs -----------------------------------------------------------------------------------------------------------


class _Waits(HedgedRequest):
    """The winner is told when the loser has cleaned up."""

    async def call(self, send: Send[T], *, is_acceptable: Callable[[T], bool] = lambda value: True) -> Hedged[T]:
        answer = await super().call(send, is_acceptable=is_acceptable)
        await self.close()
        return answer


class _HastyRace(Race[T]):
    def _in_vain(self, number: int, outcome: Raced[T] | Exception) -> None:
        self._first = outcome
        self._running, running = {}, self._running
        super()._in_vain(number, outcome)
        self._running = running


class _HastyHedging(Hedging):
    def begin(self, attempt: Attempt[T], *, is_acceptable: Callable[[T], bool] = lambda value: True) -> Race[T]:
        race = super().begin(attempt, is_acceptable=is_acceptable)
        race.__class__ = _HastyRace
        return race


class _Hasty(HedgedRequest):
    """Whatever comes first, comes first: an error, too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._hedging.__class__ = _HastyHedging


class _Undemanding(HedgedRequest):
    """An answer is an answer."""

    async def call(self, send: Send[T], *, is_acceptable: Callable[[T], bool] = lambda value: True) -> Hedged[T]:
        return await super().call(send)


class _Stubborn(HedgedRequest):
    """The second request goes where the first one went."""

    async def _attempt(self, send: Send[T], number: int, tried: list[Endpoint]) -> T:
        if number == 1:
            return await super()._attempt(send, number, tried)
        tried.append(tried[0])
        return await send(tried[0], number)


class _Spendthrift(HedgedRequest):
    """Every slow request is hedged."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "budget": RetryBudget(ratio=1.0, burst=1_000)})


class _NoReaper(Reaper):
    def take(self, task: asyncio.Task[Any]) -> None:
        """Whoever lost will see."""


class _Forgetful(HedgedRequest):
    """Losers go on."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._hedging._reaper = _NoReaper()


_BROKEN: dict[str, type[HedgedRequest]] = {
    "waits": _Waits,
    "hasty": _Hasty,
    "undemanding": _Undemanding,
    "stubborn": _Stubborn,
    "spendthrift": _Spendthrift,
    "forgetful": _Forgetful,
}

HEDGED = Proof(
    name="faultproof.patterns.hedged_request.proof:HEDGED",
    claim=(
        "The first acceptable answer is told at once, whatever losers do; a request fails only when all its attempts have. "
        "Hedges go to other endpoints, are no more than the budget pays for, and nothing goes on that nobody waits for."
    ),
    faults=ANY_FAULT,
    assumptions=("the event loop is not blocked for longer than a moment", "requests may be made twice"),
    not_tested=("what hedging does to a dependency's latency: that is measured, in the README",),
    prepare=_prepare,
    processes=_processes,
    done=lambda evidence: bool(noted(evidence, "finished")),
    eventually=(
        Eventually(claim="the answer is the first acceptable one", wrong=_wrong_answers),
        Eventually(claim="a request fails only when all its attempts have", wrong=_given_up_early),
        Eventually(claim="hedges go elsewhere, and are no more than the budget pays for", wrong=_too_many),
        Eventually(claim="nothing goes on that nobody waits for", wrong=_left_behind),
        Eventually(claim="a winner waits for no loser", wrong=overdue),
    ),
    sometimes=(
        Sometimes(claim="a hedge wins", happened=lambda evidence: _won(evidence, 2)),
        Sometimes(claim="a primary wins although it was hedged", happened=lambda evidence: _won(evidence, 1)),
        Sometimes(
            claim="a hedge fails", happened=lambda evidence: any((2,) in f for f in _of(evidence, "failed").values())
        ),
        Sometimes(
            claim="the budget refuses a hedge",
            happened=lambda evidence: any(
                error == "OutcomeUnknown" for [(error,)] in _of(evidence, "refused").values()
            ),
        ),
    ),
    plants=(
        Plant(name="waits", breaks="a loser that cleans up for a second holds the winner's answer up for as long"),
        Plant(name="hasty", breaks="a hedge that fails at once beats a primary that would have succeeded"),
        Plant(
            name="undemanding", breaks="an answer that nobody wants ends the request, and the hedge's comes too late"
        ),
        Plant(name="stubborn", breaks="both requests wait in the same queue"),
        Plant(name="spendthrift", breaks="where everything is slow, everything is sent twice"),
        Plant(name="forgetful", breaks="losers go on, and are work that nobody waits for"),
    ),
)
