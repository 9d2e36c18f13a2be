"""Supervisors that are broken, each in one place: what `proof.py` must notice."""

from __future__ import annotations

from math import inf

from faultproof.patterns.sidecar.machine import Decision, Seen, Standing
from faultproof.patterns.sidecar.supervisor import Supervisor


class _Beside(Supervisor[str]):
    """Told to kill one that hangs it takes it for dead."""

    def _decide(self, seen: Seen) -> Decision:
        decision = super()._decide(seen)
        if decision.order == "kill" and decision.standing.phase == "starting":
            down = Standing(decision.standing.wanted, decision.standing.good)
            return decision._replace(standing=down)
        return decision

    async def _see(self) -> Seen:
        seen = await super()._see()
        return seen._replace(is_there=False) if self.standing.phase == "down" else seen


class _Trusting(Supervisor[str]):
    """What was checked will be taken."""

    async def _take(self) -> bool:
        config = self._came
        has_taken = await super()._take()
        if has_taken and config is not None and self.standing.phase == "serving":
            self.standing = self.standing._replace(wanted=config, good=config)
        return has_taken


class _Stubborn(Supervisor[str]):
    """The newest is the one to start with, whether it starts or not."""

    def _decide(self, seen: Seen) -> Decision:
        wanted = self.standing.wanted
        decision = super()._decide(seen)
        return decision._replace(standing=decision.standing._replace(wanted=wanted))


class _Rude(Supervisor[str]):
    """Whoever is to end is told to end."""

    def _decide(self, seen: Seen) -> Decision:
        return super()._decide(seen._replace(calls=0))


class _Abrupt(Supervisor[str]):
    """Nobody need know before."""

    def _decide(self, seen: Seen) -> Decision:
        if self.standing.phase == "draining":
            self.standing = self.standing._replace(since=-inf)
        return super()._decide(seen)


class _Restless(Supervisor[str]):
    """What is down is started."""

    def _decide(self, seen: Seen) -> Decision:
        self.standing = self.standing._replace(
            failures=0, until=0.0 if self.standing.phase == "down" else self.standing.until
        )
        return super()._decide(seen)


class _Faint(Supervisor[str]):
    """Three times are enough."""

    def _decide(self, seen: Seen) -> Decision:
        decision = super()._decide(seen)
        if decision.standing.failures >= 3:
            return decision._replace(standing=decision.standing._replace(phase="ended"))
        return decision


class _Forgetful(Supervisor[str]):
    """It was begun with a policy, and that is it."""

    def _decide(self, seen: Seen) -> Decision:
        decision = super()._decide(seen)
        if decision.standing.phase == "down":
            return decision._replace(standing=decision.standing._replace(wanted="v1"))
        return decision


PLANTED: dict[str, type[Supervisor[str]]] = {
    "starts beside it": _Beside,
    "takes it as taken": _Trusting,
    "stubborn": _Stubborn,
    "rude": _Rude,
    "abrupt": _Abrupt,
    "restless": _Restless,
    "gives up": _Faint,
    "forgetful": _Forgetful,
}
