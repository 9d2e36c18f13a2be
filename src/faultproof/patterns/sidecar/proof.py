"""Sidecar's proof: a supervisor whose proxy dies, hangs, refuses what it is given or does not end, under any fault.

It is about the supervisor. That the policies act with no change to the application is shown with Envoy itself, which no
simulation can run: `tests/engines/envoy/`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Any

from faultproof.errors import Failed, InvalidInput
from faultproof.patterns.sidecar.machine import SupervisorPolicy
from faultproof.patterns.sidecar.proof_planted import PLANTED
from faultproof.patterns.sidecar.supervisor import Look, Supervisor
from faultproof.ports.database import Database
from faultproof.prove.proof import ANY_FAULT, Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted

POLICY = SupervisorPolicy(start=1.0, wait=0.1, wait_most=0.8, steady=5.0, linger=0.2, drain=1.0, stop=0.5)
HANGS = 12
"""The start after which a proxy never gets ready, whatever chance says of others."""
REFUSED, CRASHES = "refused", "crashes"
MOMENT_S = 0.001
WAIT_S = 5.0


async def _prepare(database: Database) -> None:
    """Nothing is stored."""


class _Child:
    """A process: what it was given, and what becomes of it."""

    def __init__(self, config: str) -> None:
        self.config = config
        self.ready_at = inf
        self.shunned_at = self.closed_at = inf
        self.calls_until = inf
        """Calls are under way all the time, and no more come once it is closed."""
        self.is_told = False


class _Model:
    """What Envoy does, and worse: it dies whenever it likes, does not get ready, and does not end when it is told to."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._clock, self._rng = process.env.clock, process.env.rng
        self.children: list[_Child] = []
        """That are there: one at most."""
        self._ended: Callable[[], object] = lambda: None
        self.good = ""
        """The last configuration that was in force."""
        self.failed: set[str] = set()
        self._starts = 0

    def note(self, kind: str, *facts: Any) -> None:
        self._process.note(kind, self._process.incarnation, round(self._clock.monotonic(), 4), *facts)

    def is_there(self) -> bool:
        return bool(self.children)

    async def look(self) -> Look:
        await self._clock.sleep(MOMENT_S)
        child, now = self._child(), self._clock.monotonic()
        if now < child.ready_at:
            return Look(is_ready=False, calls=0)
        if self.good != child.config:
            self.good = child.config
        return Look(is_ready=child.shunned_at == inf, calls=int(now < child.calls_until))

    async def start(self, config: str, ended: Callable[[], object]) -> None:
        self.note("started", config, len(self.children), config in self.failed, self.good)
        await self._process.outside("machine", lambda state: state.update(started=config))
        child, chance = _Child(config), self._rng.random()
        self._ended = ended
        self.children.append(child)
        now = self._clock.monotonic()
        self._starts += 1
        if config == CRASHES or (chance > 0.9 and self.good):
            self._dies(child, 0.05)
        elif self._starts == HANGS or (chance > 0.8 and self.good):
            self.note("hangs")
        else:
            child.ready_at = now + 0.05

    async def put(self, config: str) -> None:
        await self._clock.sleep(0.02)
        child = self._child()
        if config == REFUSED:
            self.failed.add(config)
            self.note("refused")
            raise InvalidInput("it is not taken")
        child.config = self.good = config
        self.note("taken", config)

    async def shun(self) -> None:
        await self._clock.sleep(MOMENT_S)
        self._child().shunned_at = self._clock.monotonic()

    async def close(self) -> None:
        await self._clock.sleep(MOMENT_S)
        child, now = self._child(), self._clock.monotonic()
        if now < child.shunned_at + POLICY.linger:
            self.note("closed early")
        child.closed_at = now
        last = (0.3, 5.0, 0.0)[int(self._rng.random() * 3)]
        child.calls_until = now + last
        self.note("closed", last)

    async def end(self, *, at_once: bool) -> None:
        child = self._child()
        now = self._clock.monotonic()
        if at_once:
            self._dies(child, 0.01)
            return
        is_busy = child.ready_at <= now < child.calls_until
        self.note("told to stop", is_busy, now - child.shunned_at >= POLICY.drain)
        if not child.is_told and self._rng.random() < 0.7:
            self._dies(child, 0.02)
        child.is_told = True

    def strike(self) -> None:
        """Whatever is there dies."""
        for child in list(self.children):
            self._die(child)

    def _child(self) -> _Child:
        if not self.children:
            raise Failed("there is no process")
        return self.children[-1]

    def _dies(self, child: _Child, seconds: float) -> None:
        self._clock.alarm(seconds, lambda: self._die(child))

    def _die(self, child: _Child) -> None:
        if child in self.children:
            self.children.remove(child)
            if self._clock.monotonic() < child.ready_at:
                self.failed.add(child.config)
            self.note("died", child.config)
            self._ended()


class _Operator:
    """Gives policies, good and bad; kills; and in the end says that it is enough."""

    def __init__(self, process: Process, supervisor: Supervisor[str], model: _Model) -> None:
        self._process = process
        self._clock = process.env.clock
        self._supervisor = supervisor
        self._model = model

    async def run(self) -> None:
        put, model = self._supervisor.put, self._model
        await self._serving()
        await self._act("v2")
        put("v2")
        await self._clock.sleep(0.5)
        put(REFUSED)
        await self._clock.sleep(0.5)
        model.strike()
        put(CRASHES)
        await self._serving()
        await self._act("v3")
        put("v3")
        await self._clock.sleep(0.2)
        for _ in range(8):
            model.strike()
            await self._serving()
        await self._act("stop")
        is_twice = self._process.env.rng.random() > 0.8
        model.note("told to end", is_twice, model.good)
        self._supervisor.stop()
        if is_twice:
            self._supervisor.stop()

    async def _act(self, what: str) -> None:
        await self._process.outside("operator", lambda state: state.update({what: True}))

    async def _serving(self) -> None:
        """Or ended, or it takes too long."""
        await self._clock.sleep(0.02)  # what has just died is still believed to serve
        by = self._clock.monotonic() + WAIT_S
        while self._supervisor.standing.phase not in ("serving", "ended") and self._clock.monotonic() < by:
            await self._clock.sleep(0.01)


def _processes(plant: str | None) -> dict[str, Main]:
    async def machine(process: Process) -> None:
        model = _Model(process)
        supervisor = PLANTED.get(plant or "", Supervisor)(process.env, model, "v1", POLICY)
        operating = asyncio.get_running_loop().create_task(_Operator(process, supervisor, model).run())
        standing = await supervisor.run()
        await process.env.clock.sleep(0.1)
        model.note("ended", standing.has_failed, len(model.children))
        try:
            async with asyncio.timeout(60):
                await operating
        finally:
            operating.cancel()
        process.note("finished", process.incarnation)

    return {"machine": machine}


# -- the verdict ------------------------------------------------------------------------------------------------------------


def _of(evidence: Evidence, kind: str) -> list[tuple[Any, ...]]:
    """Life, time and the facts of these notes."""
    return [note[1:] for note in evidence.notes if note[0] == kind]


def _two(evidence: Evidence) -> list[str]:
    wrong = [
        f"{config} was started while {there} were there"
        for *_, config, there, _, _ in _of(evidence, "started")
        if there
    ]
    return wrong + [f"it has ended, and {left} are left" for *_, left in _of(evidence, "ended") if left]


def _bad(evidence: Evidence) -> list[str]:
    wrong = []
    for *_, config, _, has_failed, good in _of(evidence, "started"):
        if has_failed and good and config != good:
            wrong.append(
                f"{config} was started again, with which none got ready or which was refused, and {good} is good"
            )
    return wrong


def _forgotten(evidence: Evidence) -> list[str]:
    """What was taken while it served is what the next start takes, unless another came meanwhile."""
    return [
        f"{config} was started, and {good} was in force"
        for *_, config, _, _, good in _of(evidence, "started")
        if good and config not in (good, CRASHES, "v2", "v3")
    ]


def _cut_off(evidence: Evidence) -> list[str]:
    wrong = ["connections were refused before others could know of it" for _ in _of(evidence, "closed early")]
    twice = {life for life, _, is_twice, _ in _of(evidence, "told to end") if is_twice}
    for life, _, is_busy, has_waited in _of(evidence, "told to stop"):
        if is_busy and not has_waited and life not in twice:
            wrong.append("a call was cut off that had time left")
    return wrong


def _restless(evidence: Evidence) -> list[str]:
    """However often it dies: within so long no more starts than the waits in between allow."""
    times: dict[int, list[float]] = {}
    for life, at, *_ in _of(evidence, "started"):
        times.setdefault(life, []).append(at)
    window = 1.0
    most = 1 + 4  # after 0.05, 0.1, 0.2 and 0.4 s at the earliest
    return [
        f"{len(inside)} starts within {window:g} s"
        for starts in times.values()
        for first in starts
        if len(inside := [at for at in starts if first <= at < first + window]) > most
    ]


def _given_up(evidence: Evidence) -> list[str]:
    told = {life for life, *_ in _of(evidence, "told to end")}
    return ["it has given up, and had served" for life, _, has_failed, _ in _of(evidence, "ended") if life not in told]


def _happened(kind: str) -> Callable[[Evidence], bool]:
    return lambda evidence: bool(_of(evidence, kind))


SUPERVISED = Proof(
    name="faultproof.patterns.sidecar.proof:SUPERVISED",
    claim=(
        "There is never more than one proxy, and none once the supervisor has ended; one that dies is started again, after "
        "waits that grow, with the last policy that was in force: a bad one never replaces a good one. Nobody's call is cut "
        "off before it has had its time."
    ),
    faults=(
        *ANY_FAULT,
        "a proxy dies at any moment, never gets ready, refuses a policy that was checked, or does not end",
    ),
    assumptions=("a proxy dies with its supervisor: on Linux the kernel sees to that",),
    not_tested=("what Envoy does with a policy: that is shown with Envoy",),
    prepare=_prepare,
    processes=_processes,
    done=lambda evidence: bool(noted(evidence, "finished")),
    eventually=(
        Eventually(claim="one proxy at a time, and none is left", wrong=_two),
        Eventually(claim="a bad policy never replaces a good one", wrong=_bad),
        Eventually(claim="what was in force is in force again", wrong=_forgotten),
        Eventually(claim="no call is cut off before it has had its time", wrong=_cut_off),
        Eventually(claim="starts are apart", wrong=_restless),
        Eventually(claim="it never gives up what has served", wrong=_given_up),
    ),
    sometimes=(
        Sometimes(claim="a proxy never gets ready", happened=_happened("hangs")),
        Sometimes(claim="a policy that was checked is refused", happened=_happened("refused")),
        Sometimes(
            claim="none gets ready with a policy that came while there was none",
            happened=lambda evidence: any(note[2] == CRASHES for note in _of(evidence, "died")),
        ),
        Sometimes(
            claim="calls outlast the drain",
            happened=lambda evidence: any(note[2] and note[3] for note in _of(evidence, "told to stop")),
        ),
        Sometimes(
            claim="the last policy is in force", happened=lambda e: any(n[3] == "v3" for n in _of(e, "told to end"))
        ),
    ),
    plants=(
        Plant(name="starts beside it", breaks="one that hangs, and was told to die, is there when the next is started"),
        Plant(name="takes it as taken", breaks="a policy that the proxy refused is what the next one starts with"),
        Plant(name="stubborn", breaks="a policy with which no proxy gets ready is tried for ever"),
        Plant(name="rude", breaks="calls that are under way are cut off"),
        Plant(name="abrupt", breaks="connections are refused before others could know of it"),
        Plant(name="restless", breaks="a proxy that dies at once is started a hundred times a second"),
        Plant(name="gives up", breaks="after a few deaths nobody starts it any more"),
        Plant(name="forgetful", breaks="after a death the first policy is in force again"),
    ),
)
