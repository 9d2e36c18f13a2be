"""Fan-out: one request to several services at once, and one answer that says which of them are in it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from faultproof import bounds
from faultproof.clock import Env, system
from faultproof.errors import InvalidInput
from faultproof.patterns.scatter_gather.gathered import Gathered, Incomplete, Missing, Outcome, sorted_out
from faultproof.patterns.scatter_gather.gathering import Gathering, Means, gathered
from faultproof.primitives.callables import check_arity, check_async
from faultproof.primitives.deadline import by
from faultproof.primitives.hedging import HedgePolicy, Hedging
from faultproof.primitives.retry import RetryBudget
from faultproof.primitives.timeouts import Alarms
from faultproof.signals import SHARDS_MISSING

R = TypeVar("R")

SERVICES_MAX = 100


@dataclass(frozen=True, kw_only=True)
class Source(Generic[R]):
    """One of those that are asked."""

    call: Callable[[R], Coroutine[Any, Any, Any]]
    """`await call(request)` gives its part of the answer."""
    is_required: bool = True
    """Without its part there is no answer; False: the answer goes out without, and says so."""
    hedge: HedgePolicy | None = None
    """A second call beside one that takes long; only where it may be made twice."""

    def __post_init__(self) -> None:
        check_arity(self.call, 1, "a service is called with the request")
        check_async(self.call, "a service's call")


class FanOut(Generic[R]):
    """Asks services at once, each in its own words.

    ::

        page = fp.FanOut({
            "price": fp.Source(call=price),
            "reviews": fp.Source(call=reviews, is_required=False),
        }, deadline=0.3)
        parts = await page.ask(item)
        parts.values["price"], parts.missing.get("reviews")

    `deadline`: seconds for all of it, or less where the caller's own deadline is earlier; `each`: for one service. `budget`:
    hedges are paid from it. Belongs to one event loop. Proof: `faultproof.patterns.fan_out.proof:FAN_OUT`.
    """

    def __init__(
        self,
        services: Mapping[str, Source[R]],
        *,
        deadline: float = 1.0,
        each: float | None = None,
        env: Env | None = None,
        budget: RetryBudget | None = None,
    ) -> None:
        bounds.count("services", len(services), most=SERVICES_MAX)
        bounds.seconds("deadline", deadline)
        if each is not None:
            bounds.seconds("each", each)
            if each > deadline:
                raise InvalidInput(f"`each` must be at most `deadline`, got {each} and {deadline}")
        self._services = dict(services)
        self._deadline = deadline
        self._each = each
        self._env = env or system()
        self._budget = budget or RetryBudget()
        self._hedging = {
            name: Hedging(self._env, service.hedge, self._budget) for name, service in self._services.items()
        }
        clock = self._env.clock
        self._means = Means(clock, self._hedging.__getitem__, Alarms(clock), Alarms(clock), SERVICES_MAX)

    async def ask(self, request: R) -> Gathered[Any]:
        """The parts that there are, by service, and why the others are missing.

        Raises `Incomplete`, with the parts that there are, as soon as a required one cannot come; the others are cut off
        then. A caller that is cancelled cancels all.
        """
        outcomes: dict[str, Outcome[Any]] = {}

        def told(name: str, outcome: Outcome[Any]) -> None:
            outcomes[name] = outcome
            if self._is_in_vain(name, outcome):
                gathering.stop("cut off")

        gathering = Gathering(
            self._means,
            lambda name, number: self._call(name, number, request),
            told,
            at=by(self._env.clock, self._deadline),
            each=self._each,
            enough=len(self._services),
        )
        await gathered(gathering, list(self._services))
        return self._judged({name: outcomes[name] for name in self._services})

    async def close(self) -> int:
        """Wait for calls that were told to stop, for up to 10 s each; how many had not ended then."""
        return sum([await hedging.close() for hedging in self._hedging.values()])

    def _call(self, name: str, number: int, request: R) -> Coroutine[Any, Any, Any]:
        if number == 1:
            self._budget.first_attempt()
        return self._services[name].call(request)

    def _is_in_vain(self, name: str, outcome: Outcome[Any]) -> bool:
        return isinstance(outcome, Missing) and self._services[name].is_required

    def _judged(self, outcomes: Mapping[str, Outcome[Any]]) -> Gathered[Any]:
        parts = sorted_out(outcomes)
        if parts.missing:
            self._env.signals.emit(SHARDS_MISSING, len(parts.missing))
        required = {name: why for name, why in parts.missing.items() if self._services[name].is_required}
        if required:
            name = next((name for name, missing in required.items() if missing.why != "cut off"), next(iter(required)))
            raise Incomplete(f"{name!r} is required, and is missing: {required[name]}", gathered=parts)
        return parts
