"""The client's proof: calls to endpoints that fail, hang, are busy, or do what they were asked when nobody waits any more."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from faultproof.errors import Failed, FaultproofError, Overloaded
from faultproof.patterns.bulkhead import BulkheadPolicy
from faultproof.patterns.request_response.client import Client
from faultproof.patterns.request_response.policy import Budget, Policy
from faultproof.patterns.request_response.proof_client_after import after
from faultproof.patterns.request_response.proof_client_planted import CLIENTS_PLANTED
from faultproof.patterns.scatter_gather.proof_overdue import Overdue, overdue
from faultproof.ports.database import Database
from faultproof.primitives.breaker import BreakerPolicy
from faultproof.primitives.compartments import TenantPolicy
from faultproof.primitives.endpoints import Endpoint
from faultproof.primitives.hedging import HedgePolicy
from faultproof.primitives.outliers import OutlierPolicy
from faultproof.primitives.retry import Backoff
from faultproof.prove.proof import ANY_FAULT, Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted

ENDPOINTS = ("a", "b", "c")
DEADLINE_S, ATTEMPT_S, HEDGED_AFTER_S, LATE_S = 1.2, 0.5, 0.1, 0.6
RATIO, BURST, AT_ONCE = 0.25, 3.0, 8
_EACH = TenantPolicy(concurrency=4, queue=4)
POLICY = Policy(
    deadline=DEADLINE_S,
    calls=AT_ONCE,
    idempotent=True,
    retry=Backoff(attempts=3, base=0.02, cap=0.1),
    hedge=HedgePolicy(quantile=0.9, at_first=HEDGED_AFTER_S),
    budget=Budget(ratio=RATIO, burst=BURST),
    breaker=BreakerPolicy(minimum_calls=3, open_for=0.4, open_most=0.8, probes=2, probe_timeout=0.6),
    outliers=OutlierPolicy(in_a_row=3, eject_for=0.4, eject_most=0.8),
    bulkhead=BulkheadPolicy(concurrency=4, queue=4, wait=0.3, others=_EACH),
    attempt_timeout=ATTEMPT_S,
)
NOTHING_HAPPENED = {"TryAgain", "Overloaded", "DeadlineExceeded", "RetriesExhausted"}


class Asked(NamedTuple):
    """One call: what its attempts come to, where chance does not will it otherwise, and what its caller does."""

    attempts: str
    """The last one counts for all that follow."""
    is_idempotent: bool = False
    gives_up_s: float | None = None
    """After so long it is cancelled."""
    timeout: float | None = None


_QUICK, _TWICE, _IDLE = Asked("quick"), Asked("quick", is_idempotent=True), Asked("idle")
WAVES: tuple[tuple[Asked, ...], ...] = (
    (_IDLE,) * 4,
    (_QUICK, _TWICE, Asked("slow quick", True)),
    (_IDLE, Asked("busy"), Asked("slow down", True)),
    (_IDLE,) * 4,
    (Asked("busy quick"), Asked("down quick"), Asked("lost quick")),
    (_IDLE,) * 4,
    (_TWICE, Asked("never"), Asked("lost busy busy", True), Asked("busy lost busy", True)),
    (_IDLE,) * 4,
    (Asked("late quick"), Asked("late busy busy", True), Asked("hangs", True)),
    (Asked("lost quick", True), Asked("quick", gives_up_s=0.01), _IDLE, _IDLE),
    (
        *[Asked("slow", gives_up_s=number / 100) for number in (0, 1, 3)],
        Asked("late", gives_up_s=0.05),
        *[Asked("idle", gives_up_s=number / 100) for number in (0, 1, 2)],
        *[_QUICK] * 3,
    ),
    (*[Asked("late")] * 3, Asked("hangs"), _QUICK, Asked("idle", timeout=0.2)),
    (Asked("hangs", True, 0.2), Asked("down", True), _QUICK, Asked("down")),
    (Asked("down"),) * 4,
)
"""Those of a wave come at once; of one there are more than may."""


async def _prepare(database: Database) -> None:
    """Nothing is stored."""


class _Call:
    """One call's attempts, at a dependency whose deeds outlive the attempts."""

    def __init__(self, process: Process, number: int, asked: Asked) -> None:
        self._process = process
        self._number = number
        self._script = asked.attempts.split()
        self.deeds: list[asyncio.Task[None]] = []

    async def send(self, endpoint: Endpoint, attempt: int) -> str:
        process, clock = self._process, self._process.env.clock
        does, chance = self._script[min(attempt, len(self._script)) - 1], process.env.rng.random()
        if chance > 0.8:
            does = ("quick", "slow", "late", "hangs", "lost", "down", "busy", "idle")[int((chance - 0.8) * 40)]
        self.note("sent", attempt, endpoint.name, does)
        match does:
            case "down":
                raise ConnectionRefusedError(f"{endpoint.name} is down")
            case "busy":
                raise Overloaded(f"{endpoint.name} is busy", retry_after=0.05)
            case "never":
                raise Failed(f"{endpoint.name} will not")
            case "late":
                self.deeds.append(asyncio.get_running_loop().create_task(self._late(attempt)))
        await clock.sleep({"late": 60.0, "hangs": 60.0, "slow": 0.3, "idle": 0.1}.get(does, 0.02))
        if does != "idle":  # a question that changes nothing
            await self._deed(attempt)
        if does == "lost":
            raise ConnectionResetError(f"{endpoint.name} is gone")
        return f"{does} {attempt}"

    async def _late(self, attempt: int) -> None:
        await self._process.env.clock.sleep(LATE_S)
        try:
            await self._deed(attempt)
        except FaultproofError:
            return

    async def _deed(self, attempt: int) -> None:
        """The effect. It may arrive twice; that is one attempt's."""
        of = f"{self._process.incarnation} {self._number}"

        def done(state: dict[str, Any]) -> None:
            state[of] = sorted({*state.get(of, []), attempt})

        await self._process.outside("dependency", done)

    def note(self, kind: str, *facts: Any) -> None:
        self._process.note(kind, self._number, self._process.incarnation, *facts)


async def _made(client: Client, call: _Call, asked: Asked, process: Process) -> None:
    """One call, and what its caller is told."""
    limit = Overdue(process, f"call {call._number}", min(DEADLINE_S, asked.timeout or DEADLINE_S))
    call.note("began")
    try:
        result = await client.call(call.send, idempotent=asked.is_idempotent, timeout=asked.timeout)
        call.note("answered", result.value, result.attempts, result.hedged)
    except FaultproofError as error:
        call.note("refused", type(error).__name__)
    except asyncio.CancelledError:
        call.note("gave up")
    limit.is_over = True


async def _storm(process: Process, client: Client) -> None:
    numbers, deeds = iter(range(1_000)), list[asyncio.Task[None]]()
    loop, clock = asyncio.get_running_loop(), process.env.clock
    for wave in WAVES:
        calls = [(_Call(process, next(numbers), asked), asked) for asked in wave]
        tasks = [loop.create_task(_made(client, call, asked, process)) for call, asked in calls]
        for task, asked in zip(tasks, wave, strict=True):
            if asked.gives_up_s is not None:
                clock.alarm(asked.gives_up_s, task.cancel)
        await asyncio.wait(tasks, timeout=60)
        deeds += [deed for call, _ in calls for deed in call.deeds]
    if deeds:
        await asyncio.wait(deeds, timeout=60)


def _processes(plant: str | None) -> dict[str, Main]:
    make = CLIENTS_PLANTED.get(plant or "", Client)

    async def caller(process: Process) -> None:
        client = make([Endpoint(name) for name in ENDPOINTS], POLICY, env=process.env)
        await _storm(process, client)
        await after(process, client, POLICY, make)
        process.note("finished", process.incarnation)

    return {"caller": caller}


# -- the verdict ------------------------------------------------------------------------------------------------------------

_ASKED = [asked for wave in WAVES for asked in wave]


def _of(evidence: Evidence, kind: str) -> list[tuple[Any, ...]]:
    """Number, life and facts of these notes."""
    return [note[1:] for note in evidence.notes if note[0] == kind]


def _deeds(evidence: Evidence, number: int, life: int) -> list[int]:
    """The attempts of this call that took effect."""
    return list(evidence.outside.get(f"{life} {number}", []))


def _untrue(evidence: Evidence) -> list[str]:
    wrong = []
    for number, life, error in _of(evidence, "refused"):
        if error in NOTHING_HAPPENED and (deeds := _deeds(evidence, number, life)):
            wrong.append(f"call {number} was told {error}, and attempts {deeds} took effect")
    for number, life, value, *_ in _of(evidence, "answered"):
        does, attempt = value.split()
        if does != "idle" and int(attempt) not in _deeds(evidence, number, life):
            wrong.append(f"call {number} was answered by attempt {attempt}, which took no effect")
    return wrong


def _twice(evidence: Evidence) -> list[str]:
    return [
        f"call {number} may happen once, and attempts {deeds} took effect"
        for number, life in _of(evidence, "began")
        if len(deeds := _deeds(evidence, number, life)) > 1 and not _ASKED[number].is_idempotent
    ]


def _too_many(evidence: Evidence) -> list[str]:
    """After every single call, not only at the end: that is every level of load that there was."""
    calls, sent, wrong = Counter[int](), Counter[int](), []
    for kind, *facts in evidence.notes:
        if kind == "began":
            calls[facts[1]] += 1
        elif kind == "sent":
            life = facts[1]
            sent[life] += 1
            if sent[life] > calls[life] * (1 + RATIO) + BURST:
                wrong.append(f"{sent[life]} attempts were made of {calls[life]} calls")
    return wrong[:1]


def _not_as_before(evidence: Evidence) -> list[str]:
    return [f"{what}: {got}, not {expected}" for what, expected, got in _of(evidence, "after") if got != expected]


def _refused_with(*errors: str) -> Callable[[Evidence], bool]:
    return lambda evidence: any(error in errors for *_, error in _of(evidence, "refused"))


def _unheard(evidence: Evidence) -> bool:
    """An attempt of a call that nobody heard of took effect."""
    told = [(number, life) for number, life, error in _of(evidence, "refused") if error == "OutcomeUnknown"]
    return any(_deeds(evidence, number, life) and "late" in _ASKED[number].attempts for number, life in told)


CLIENT = Proof(
    name="faultproof.patterns.request_response.proof_client:CLIENT",
    claim=(
        "Whoever is told that nothing happened can rely on it, and what may happen once takes effect once at most. Every call "
        "ends by its deadline; retries and hedges stay within the budget, and go to another endpoint. Half-open admits its "
        "probes and no more; whatever fails, hangs or is cancelled, no permit and no probe is lost."
    ),
    faults=(
        "endpoints that fail, hang, are busy or slow; that take effect and do not answer, or after the attempt was cut off",
        "callers that give up, at any moment",
        *ANY_FAULT,
    ),
    assumptions=(
        "what is awaited heeds a cancel",
        "a dependency that says that it is busy, or cannot be connected to, has done nothing",
        "a process that dies takes what it knows with it: the budget is each life's own",
    ),
    not_tested=("event loops in several threads: a client belongs to one", "the time that it takes: that is measured"),
    prepare=_prepare,
    processes=_processes,
    done=lambda evidence: bool(noted(evidence, "finished")),
    eventually=(
        Eventually(claim="what is said to have happened has, and what is said not to have has not", wrong=_untrue),
        Eventually(claim="what may happen once takes effect once at most", wrong=_twice),
        Eventually(claim="attempts are at most calls * (1 + ratio) + burst, at any moment", wrong=_too_many),
        Eventually(claim="every call ends by its deadline", wrong=overdue),
        Eventually(
            claim="nothing is lost: who is well is called again, all permits and exactly all probes are there, retries and "
            "hedges go elsewhere",
            wrong=_not_as_before,
        ),
    ),
    sometimes=(
        Sometimes(
            claim="a hedge wins",
            happened=lambda evidence: any(is_hedged for *_, is_hedged in _of(evidence, "answered")),
        ),
        Sometimes(
            claim="a retry succeeds",
            happened=lambda evidence: any(
                attempts > 1 and not is_hedged for *_, attempts, is_hedged in _of(evidence, "answered")
            ),
        ),
        Sometimes(claim="an attempt takes effect after it was cut off", happened=_unheard),
        Sometimes(claim="calls are shed", happened=_refused_with("Overloaded")),
        Sometimes(claim="a deadline passes before anything happened", happened=_refused_with("DeadlineExceeded")),
        Sometimes(claim="attempts or budget are used up", happened=_refused_with("RetriesExhausted")),
        Sometimes(claim="a caller gives up", happened=lambda evidence: bool(_of(evidence, "gave up"))),
        Sometimes(
            claim="an endpoint had to recover",
            happened=lambda evidence: any(took > 0 for _, took in _of(evidence, "recovered")),
        ),
    ),
    plants=(
        Plant(
            name="knows only the last attempt", breaks="one that may have happened is forgotten behind one that did not"
        ),
        Plant(name="repeats anything", breaks="an order whose answer was lost is placed again"),
        Plant(name="takes silence for a refusal", breaks="a lost connection is called a failure, and repeated"),
        Plant(name="never cuts off", breaks="a call whose endpoint hangs is not over when its time is"),
        Plant(name="spendthrift", breaks="where everything fails, everything is sent three times"),
        Plant(name="stubborn", breaks="a retry goes where the call has just failed"),
        Plant(name="admits everybody", breaks="an endpoint that comes back gets all calls at once"),
        Plant(name="keeps the probe", breaks="a probe whose caller gave up keeps its place"),
        Plant(name="forgets to leave", breaks="a breaker hears of no probe's end, and closes never"),
        Plant(name="keeps the permit", breaks="a caller who gives up takes a permit with it"),
        Plant(name="counts for ever", breaks="a caller who gives up is counted as under way"),
    ),
)
