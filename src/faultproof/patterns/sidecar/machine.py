"""What a supervisor decides: pure functions of where it stands, what it sees and what time it is.

::

              it is there                ready                    told to end             calls are over, or `drain` is
    down ────────────────▶ starting ──────────────▶ serving ──────────────▶ draining ─────────────────────────▶ stopping
     ▲  waits longer each     │                        │ dies                   │ dies                             │
     │  time it fails         │ dies, or takes         │                        ▼                                  ▼ is gone
     └────────────────────────┴── too long ◀───────────┘                      ended ◀─────────────────────────── ended

- One proxy at a time: another is started when the last is gone, never before.
- Configurations: `wanted` is what the next start takes, `good` the last with which a proxy was ready. A `wanted` one with
  which none gets ready gives way to the `good` one.
- The first start may fail, and then there is nothing to supervise: it ends. After that it never gives up; between two
  starts it waits up to `wait_most`, so that there are at most so many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from faultproof import bounds
from faultproof.clock import Rng
from faultproof.errors import InvalidInput

Phase = Literal["down", "starting", "serving", "draining", "stopping", "ended"]
Order = Literal["start", "shun", "close", "stop", "kill"]


@dataclass(frozen=True, kw_only=True)
class SupervisorPolicy:
    """How long what may take. All times in seconds."""

    start: float = 10.0
    """A proxy that is not ready after so long is killed."""
    wait: float = 0.1
    """Before the first restart, twice that before each further one …"""
    wait_most: float = 5.0
    """… and never more."""
    steady: float = 10.0
    """Whoever has served for so long has not failed: the next wait is the first one."""
    linger: float = 0.5
    """Told to end, connections are accepted for so long …"""
    drain: float = 10.0
    """… and calls may go on for so long."""
    stop: float = 5.0
    """A proxy that was told to stop and is there after so long is killed."""

    def __post_init__(self) -> None:
        bounds.seconds("start", self.start)
        bounds.seconds("wait", self.wait, least=0.001)
        bounds.seconds("wait_most", self.wait_most)
        bounds.seconds("steady", self.steady)
        bounds.seconds("linger", self.linger, least=0)
        bounds.seconds("drain", self.drain, least=0)
        bounds.seconds("stop", self.stop)
        if self.wait_most < self.wait:
            raise InvalidInput(f"`wait_most` must be at least `wait`, got {self.wait_most} and {self.wait}")


class Seen(NamedTuple):
    """What is the case right now."""

    is_there: bool
    """There is a process."""
    is_ready: bool = False
    calls: int = 0
    """Under way."""
    is_told_to_end: bool = False
    is_told_twice: bool = False
    """To end, and at once."""


class Standing(NamedTuple):
    """Where a supervisor stands."""

    wanted: Any
    """The configuration for the next start …"""
    good: Any = None
    """… and the last with which a proxy was ready."""
    phase: Phase = "down"
    until: float = 0.0
    """What this phase waits for is to come by then."""
    since: float = 0.0
    """When the phase began."""
    failures: int = 0
    """Starts, one after the other, that were followed by no steady time."""
    is_closed: bool = False
    """While draining: whether no more connections are accepted."""
    has_failed: bool = False
    """Ended, and not because it was told to."""


class Decision(NamedTuple):
    """Where it stands then, what is to be done, and what to say."""

    standing: Standing
    order: Order | None = None
    said: str = ""


def decide(policy: SupervisorPolicy, standing: Standing, seen: Seen, now: float, rng: Rng) -> Decision:
    """What to do now. To be asked again after it was done, until there is nothing to do."""
    match standing.phase:
        case "down":
            return _down(policy, standing, seen, now)
        case "starting":
            return _starting(policy, standing, seen, now, rng)
        case "serving":
            return _serving(policy, standing, seen, now, rng)
        case "draining":
            return _draining(policy, standing, seen, now)
        case "stopping":
            return _stopping(policy, standing, seen, now)
        case "ended":
            return Decision(standing)


def replaced(standing: Standing, config: Any, *, is_serving: bool) -> Standing:
    """A valid configuration has come: it is wanted, and good if a proxy that serves has taken it."""
    return standing._replace(wanted=config, good=config if is_serving else standing.good)


def _down(policy: SupervisorPolicy, standing: Standing, seen: Seen, now: float) -> Decision:
    if seen.is_told_to_end:
        return Decision(_ended(standing))
    if now < standing.until or seen.is_there:
        return Decision(standing)
    return Decision(standing._replace(phase="starting", since=now, until=now + policy.start), "start")


def _starting(policy: SupervisorPolicy, standing: Standing, seen: Seen, now: float, rng: Rng) -> Decision:
    if not seen.is_there:
        return _failed(policy, standing, now, rng)
    if seen.is_told_to_end:
        return _stop(policy, standing, now)
    if seen.is_ready:
        return Decision(standing._replace(phase="serving", good=standing.wanted, since=now), said="ready")
    if now >= standing.until:
        # Seen as gone the next time, and judged then.
        return Decision(standing, "kill", f"it was not ready after {policy.start:g} s, and is killed")
    return Decision(standing)


def _serving(policy: SupervisorPolicy, standing: Standing, seen: Seen, now: float, rng: Rng) -> Decision:
    if not seen.is_there:
        steady = now - standing.since >= policy.steady
        return _failed(policy, standing._replace(failures=0) if steady else standing, now, rng)
    if seen.is_told_to_end:
        until = now + policy.linger + policy.drain
        return Decision(standing._replace(phase="draining", since=now, until=until), "shun", "draining")
    return Decision(standing)


def _draining(policy: SupervisorPolicy, standing: Standing, seen: Seen, now: float) -> Decision:
    if not seen.is_there:
        return Decision(_ended(standing), said="the proxy ended while it drained: calls may have been cut off")
    if seen.is_told_twice:
        return _stop(policy, standing, now)
    if not standing.is_closed:
        if now >= standing.since + policy.linger:
            return Decision(standing._replace(is_closed=True), "close")
        return Decision(standing)
    if seen.calls == 0:
        return _stop(policy, standing, now)
    if now >= standing.until:
        stopped = _stop(policy, standing, now)
        return stopped._replace(said=f"{seen.calls} calls are cut off, they were not over after {policy.drain:g} s")
    return Decision(standing)


def _stopping(policy: SupervisorPolicy, standing: Standing, seen: Seen, now: float) -> Decision:
    if not seen.is_there:
        return Decision(_ended(standing))
    if now >= standing.until:
        return Decision(standing._replace(until=now + policy.stop), "kill")
    return Decision(standing)


def _stop(policy: SupervisorPolicy, standing: Standing, now: float) -> Decision:
    return Decision(standing._replace(phase="stopping", since=now, until=now + policy.stop), "stop")


def _failed(policy: SupervisorPolicy, standing: Standing, now: float, rng: Rng) -> Decision:
    """The proxy is gone, and should not be."""
    if standing.good is None:
        return Decision(_ended(standing)._replace(has_failed=True))
    said = "the proxy ended, and is started again"
    if standing.phase == "starting" and standing.wanted is not standing.good:
        said = "the proxy does not start with the new configuration: the last one is in force again"
    elif seen_twice := standing.failures:
        said += f"; it has failed {seen_twice + 1} times"
    longest = min(policy.wait_most, policy.wait * 2.0 ** min(standing.failures, 30))
    # At least half of it, or chance might start it again and again without a rest.
    wait = longest * (0.5 + 0.5 * rng.random())
    down = standing._replace(phase="down", since=now, until=now + wait, failures=standing.failures + 1)
    return Decision(down._replace(wanted=standing.good), said=said)


def _ended(standing: Standing) -> Standing:
    return standing._replace(phase="ended")
