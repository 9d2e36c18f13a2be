"""`@simulated`: an async test function becomes a plain one that runs it once for each schedule."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, overload

from faultproof.bounds import count
from faultproof.errors import InvalidInput
from faultproof.prove.simulated.world import Limits
from faultproof.prove.testing.campaign import Campaign, Plan
from faultproof.prove.testing.words import read
from faultproof.prove.testing.world import SimulatedWorld

_WORLD = "world"
_LIMITS = Limits(steps=50_000)

Test = Callable[..., Coroutine[Any, Any, object]]


@overload
def simulated(test: Test, /) -> Callable[..., None]: ...
@overload
def simulated(
    *, schedules: int = 200, tape: str | None = None, limits: Limits = _LIMITS
) -> Callable[[Test], Callable[..., None]]: ...
def simulated(
    test: Test | None = None, /, *, schedules: int = 200, tape: str | None = None, limits: Limits = _LIMITS
) -> Callable[..., Any]:
    """Give an async test the simulated world, as its argument `world` (a `SimulatedWorld`).

    The test runs again and again: twice undisturbed; then with each fault at each distinct point that its processes
    pass; then, as far as `schedules` go, in random order with up to three random faults. The first schedule that fails
    is shrunk, and what it raised comes out with its story and the line that repeats it. A test in which no fault could
    strike fails as well (`NothingShown`).

    For a test runner the result is a plain function without that argument: fixtures, parameters, classes and plugins
    work as ever. Fixtures are set up once for all schedules, so what must be fresh belongs into the test.

    :param schedules: from 3 to 1,000,000 runs of the test; a small one takes about a millisecond.
    :param tape: repeat this schedule alone, as a failure has printed it.
    :param limits: when a schedule is given up, and how long faults last, in virtual seconds.
    :raises InvalidInput: for a test that is not async or has no argument `world`, and for any other nonsense.
    """
    count("schedules", schedules, least=3)
    plan = Plan(schedules=schedules, tape=None if tape is None else read(tape), limits=limits)

    def decorated(test: Test) -> Callable[..., None]:
        name = getattr(test, "__qualname__", repr(test))
        if not inspect.iscoroutinefunction(test):
            raise InvalidInput(f"@simulated is for async test functions, and {name} is not")
        signature = inspect.signature(test)
        if _WORLD not in signature.parameters:
            raise InvalidInput(f"@simulated hands {name} its world: give it an argument `{_WORLD}`")

        @functools.wraps(test)
        def run(*args: object, **named: object) -> None:
            __tracebackhide__ = True

            async def body(world: SimulatedWorld) -> None:
                await test(*args, **named, world=world)

            Campaign(body, plan).run()

        # What fixtures are looked for by; without it, `functools.wraps` would show the test's own arguments.
        rest = [each for each in signature.parameters.values() if each.name != _WORLD]
        run.__signature__ = signature.replace(parameters=rest, return_annotation=None)  # type: ignore[attr-defined]
        run.faultproof_simulated = True  # type: ignore[attr-defined]  # for the pytest plugin
        return run

    return decorated if test is None else decorated(test)
