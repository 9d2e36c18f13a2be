"""What the client's proof looks at when the storm is over: that everything is there again, and that probes are counted.

No fault strikes here (nothing outside is asked), so each of it has exactly one right answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from faultproof.errors import FaultproofError, OutcomeUnknown, TryAgain
from faultproof.patterns.request_response.client import Client
from faultproof.patterns.request_response.policy import Policy
from faultproof.primitives.breaker import BreakerPolicy
from faultproof.primitives.endpoints import Endpoint
from faultproof.prove.proof import Process

Made = Callable[..., Client]
SECONDS_MAX = 60.0


async def after(process: Process, client: Client, policy: Policy, make: Made) -> None:
    """Note what is expected, and what is."""
    assert policy.breaker is not None
    assert policy.outliers is not None
    breaker = policy.breaker
    bound = breaker.open_most + 2 * breaker.probe_timeout
    for endpoint in client.endpoints.all:
        took = await _recovers(process, client, endpoint, bound, breaker.probes)
        process.note("recovered", endpoint.name, took)
        process.note("after", f"{endpoint.name} is callable again within {bound:g} s", True, took <= bound)
    process.note("after", "calls in flight", 0, client.endpoints.in_flight)
    await _together(process, client, policy)
    await process.env.clock.sleep(policy.outliers.eject_most)
    await _elsewhere(process, client)
    await _probes(process, breaker, make([Endpoint("lone")], _lone(policy), env=process.env, name="lone"))


async def _recovers(process: Process, client: Client, endpoint: Endpoint, bound: float, probes: int) -> float:
    """Seconds until it answers, while there is no other; more than the bound if it does not."""
    clock = process.env.clock
    for other in client.endpoints.all:
        other.is_draining = other is not endpoint
    began = clock.monotonic()
    while (took := clock.monotonic() - began) <= bound:
        try:
            for _ in range(probes + 1):  # and its breaker is closed
                await client.call(_well, idempotent=False)
            break
        except TryAgain:
            await clock.sleep(0.1)
    for other in client.endpoints.all:
        other.is_draining = False
    return took


async def _well(endpoint: Endpoint, attempt: int) -> str:
    return endpoint.name


async def _together(process: Process, client: Client, policy: Policy) -> None:
    """As many calls as may be under way, half of them in the queue: a permit or place less, and it shows."""
    assert policy.bulkhead is not None
    permits, inside, full = policy.bulkhead.concurrency, 0, asyncio.Event()

    async def send(endpoint: Endpoint, attempt: int) -> int:
        nonlocal inside
        inside += 1
        if inside == permits:
            full.set()
        await full.wait()  # unbounded: the attempt has a timeout
        return inside

    calls = [client.call(send, idempotent=False) for _ in range(policy.calls)]
    got = await asyncio.gather(*calls, return_exceptions=True)
    refused = [type(one).__name__ for one in got if isinstance(one, BaseException)]
    process.note("after", f"of {policy.calls} calls at once are refused", [], refused)


async def _elsewhere(process: Process, client: Client) -> None:
    """Each of a call's attempts goes to another endpoint while there is one."""
    clock, asked = process.env.clock, list[str]()

    async def refuses(endpoint: Endpoint, attempt: int) -> str:
        asked.append(endpoint.name)
        if attempt < len(client.endpoints.all):
            raise TryAgain("not here")
        return endpoint.name

    async def hesitates(endpoint: Endpoint, attempt: int) -> str:
        asked.append(endpoint.name)
        await clock.sleep(0.3 if attempt == 1 else 0.0)
        return endpoint.name

    for send, is_idempotent in ((refuses, False), (hesitates, True)):
        asked.clear()
        got: object = None
        try:
            await client.call(send, idempotent=is_idempotent)
        except FaultproofError as error:  # it would be none of the faults'
            got = type(error).__name__
        process.note("after", "a call for which there is an endpoint raises", None, got)
        process.note("after", "endpoints of one call that were asked twice", 0, len(asked) - len(set(asked)))


# -- probes -----------------------------------------------------------------------------------------------------------


def _lone(policy: Policy) -> Policy:
    return replace(policy, retry=None, hedge=None, bulkhead=None, outliers=None)


async def _probes(process: Process, policy: BreakerPolicy, client: Client) -> None:
    """Many calls come at once to an endpoint whose breaker is half-open."""
    crowd = _Crowd(process, client)
    for _ in range(policy.minimum_calls):
        await crowd.come("fail", 1)
    await process.env.clock.sleep(policy.open_most)
    for does, calls, admitted in (
        ("are cancelled", 8, policy.probes),
        ("hang", 8, policy.probes),  # at once, in the places of those
        ("come too early", 8, 0),
        ("answer", 8, policy.probes),
        ("find it closed", 8, 8),
    ):
        process.note("after", f"of {calls} calls that {does} are admitted", admitted, await crowd.come(does, calls))
        if does == "come too early":
            await process.env.clock.sleep(policy.open_most)


class _Crowd:
    """Calls that come in the same moment."""

    def __init__(self, process: Process, client: Client) -> None:
        self._clock = process.env.clock
        self._client = client

    async def come(self, does: str, count: int) -> int:
        """How many of them were sent."""
        sent = list[asyncio.Task[object] | None]()

        async def send(endpoint: Endpoint, attempt: int) -> None:
            sent.append(asyncio.current_task())
            if does == "fail":
                raise OutcomeUnknown("nobody knows")
            await self._clock.sleep(SECONDS_MAX if does in ("hang", "are cancelled") else 0.05)

        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._client.call(send)) for _ in range(count)]
        await self._clock.sleep(0.01)
        if does == "are cancelled":
            for task in sent:
                assert task is not None
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(sent)
