"""A supervisor: keeps a proxy running, changes its configuration without ending it, and ends it without cutting calls off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, NamedTuple, Protocol, TypeVar

from faultproof.clock import Env
from faultproof.errors import Failed, FaultproofError, InvalidInput
from faultproof.patterns.sidecar.machine import Decision, Order, Seen, Standing, SupervisorPolicy, decide, replaced

C = TypeVar("C")
C_contra = TypeVar("C_contra", contravariant=True)

LOOK_S = 0.05
"""While something is about to change that nobody tells of."""
REST_S = 1.0
"""While it serves: its end is told."""


class Look(NamedTuple):
    """What a proxy says of itself."""

    is_ready: bool
    calls: int
    """Under way."""


class Proxy(Protocol[C_contra]):
    """One process at a time, somewhere below. Each wait in it is bounded; `Failed` is raised where it does not answer."""

    def is_there(self) -> bool:
        """Whether there is a process."""
        ...

    async def look(self) -> Look:
        """What it says of itself."""
        ...

    async def start(self, config: C_contra, ended: Callable[[], object]) -> None:
        """Begin a process, and call `ended` when it is gone. Raises `Failed` if there will be none."""
        ...

    async def put(self, config: C_contra) -> None:
        """Put another configuration in force, without cutting a connection off. Raises `InvalidInput` or `Failed`: then the
        last one is in force, or the process is gone."""
        ...

    async def shun(self) -> None:
        """From now on say that it is not ready, and on each connection that this is the last call."""
        ...

    async def close(self) -> None:
        """Accept no more connections."""
        ...

    async def end(self, *, at_once: bool) -> None:
        """Tell the process to end, or kill it. Returns before it is gone."""
        ...


class Supervisor(Generic[C]):
    """Supervises one proxy. `config`: what it begins with, valid. `said`: is told in a sentence whatever an operator should
    know. Decisions are `machine.decide`'s; proof: `faultproof.patterns.sidecar.proof:SUPERVISED`."""

    def __init__(
        self,
        env: Env,
        proxy: Proxy[C],
        config: C,
        policy: SupervisorPolicy | None = None,
        *,
        said: Callable[[str], object] = lambda sentence: None,
    ) -> None:
        self._env = env
        self._proxy = proxy
        self._policy = policy or SupervisorPolicy()
        self._said = said
        self._told = 0
        self._came: C | None = None
        self._rest: asyncio.Future[None] | None = None
        self.standing = Standing(wanted=config)

    def stop(self) -> None:
        """Drain and end; told a second time, end at once."""
        self._told += 1
        self.look_again()

    def put(self, config: C) -> None:
        """Put a valid configuration in force. Of several that come before there was time for it, the last counts."""
        self._came = config
        self.look_again()

    def look_again(self) -> None:
        """Something has changed."""
        if self._rest is not None and not self._rest.done():
            self._rest.set_result(None)

    async def run(self) -> Standing:
        """Until told to stop, or until the first start fails. No process is left, whatever ends this."""
        try:
            while self.standing.phase != "ended":
                if not await self._step():
                    await self._pause()
        finally:
            if self._proxy.is_there():
                await self._carry_out("kill")
        return self.standing

    async def _step(self) -> bool:
        """One look and what follows from it; False if that was nothing."""
        before = self.standing
        decision = self._decide(await self._see())
        self.standing = decision.standing
        if decision.said:
            self._said(decision.said)
        if decision.order is not None:
            await self._carry_out(decision.order)
            return decision.order != "kill"
        return await self._take() or self.standing.phase != before.phase

    def _decide(self, seen: Seen) -> Decision:
        return decide(self._policy, self.standing, seen, self._env.clock.monotonic(), self._env.rng)

    async def _see(self) -> Seen:
        is_there = self._proxy.is_there()
        look = Look(is_ready=False, calls=0)
        if is_there and self.standing.phase in ("starting", "draining"):
            # Who does not answer is not ready, and may have calls.
            look = Look(is_ready=False, calls=1)
            with suppress(Failed):
                look = await self._proxy.look()
        return Seen(is_there, look.is_ready, look.calls, is_told_to_end=self._told > 0, is_told_twice=self._told > 1)

    async def _carry_out(self, order: Order) -> None:
        proxy = self._proxy
        try:
            match order:
                case "start":
                    await proxy.start(self.standing.wanted, self.look_again)
                case "shun":
                    await proxy.shun()
                case "close":
                    await proxy.close()
                case "stop" | "kill":
                    await proxy.end(at_once=order == "kill")
        except FaultproofError as error:
            self._said(str(error))

    async def _take(self) -> bool:
        """Look whether a configuration has come, and do with it what can be done now."""
        config, phase = self._came, self.standing.phase
        if config is None or phase == "starting":
            return False
        self._came = None
        if phase == "serving":
            try:
                await self._proxy.put(config)
            except (InvalidInput, Failed) as error:
                self._said(f"the new policy is not in force, the last one is: {error}")
                return True
            self._said("the new policy is in force")
        elif phase != "down":
            self._said("the new policy is not put in force: the sidecar is ending")
            return True
        self.standing = replaced(self.standing, config, is_serving=phase == "serving")
        return True

    async def _pause(self) -> None:
        clock, standing = self._env.clock, self.standing
        seconds = REST_S
        if standing.phase == "down":
            seconds = max(0.0, min(REST_S, standing.until - clock.monotonic()))
        elif standing.phase != "serving":
            seconds = LOOK_S
        self._rest = asyncio.get_running_loop().create_future()
        alarm = clock.alarm(seconds, self.look_again)
        try:
            await self._rest  # unbounded: the alarm rings
        finally:
            alarm.cancel()
            self._rest = None
