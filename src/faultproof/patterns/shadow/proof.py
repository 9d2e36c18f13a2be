"""Shadow's proofs: a candidate that does its worst, and production does not notice; and flags that reach every process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from faultproof.errors import Misuse, OutcomeUnknown
from faultproof.patterns.bulkhead import Bulkhead, BulkheadPolicy
from faultproof.patterns.bulkhead.proof_watch import Watch
from faultproof.patterns.scatter_gather.proof_overdue import Overdue
from faultproof.patterns.shadow.findings import ShadowReport
from faultproof.patterns.shadow.policy import ShadowPolicy
from faultproof.patterns.shadow.proof_flags import FLAGS as FLAGS
from faultproof.patterns.shadow.proof_planted import (
    BELIEVES,
    CUTS,
    FORGETS,
    INHERITS,
    KEEPS,
    LIVES_ON,
    OLDEST,
    PLANTED,
    RAISES,
    SHARES,
    UNBOUNDED,
    WAITS,
    WRITES,
    Sharing,
)
from faultproof.patterns.shadow.shadow import Shadow
from faultproof.ports.database import Database
from faultproof.primitives.deadline import ambient, within
from faultproof.primitives.flags import FeatureFlag
from faultproof.primitives.shadowing import is_shadow
from faultproof.prove.proof import ANY_FAULT, Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted

SERVICE = "service"
PLACES = 6
"""Calls that production serves at once."""
POLICY = ShadowPolicy(concurrency=3, queue=4, timeout=0.2, age=60.0, size=2_000, control=1.0)
BESIDE_MOST = 1.05
"""A candidate may move the callers' p99 by a twentieth."""
TRIES, BURSTS, AT_ONCE = 5, 20, 5
CARD = "4111-1111"
VILLAINY = ("hangs", "raises", "exits", "ignores", "swells", "writes", "answers")
STOPPED_S = 1.5
"""Who ignores that it is cancelled goes on for a second."""


async def _no_tables(database: Database) -> None:
    """Nothing of it is durable, and what a candidate tries to write is no table of ours."""


class _Service:
    """Production, and a candidate that does its worst."""

    def __init__(self, process: Process, plant: str | None) -> None:
        self.process = process
        self.clock = process.env.clock
        self._made = PLANTED.get(plant or "", Shadow)
        self.production = Bulkhead(
            process.env, BulkheadPolicy(concurrency=PLACES, queue=64, wait=10.0), name="production"
        )
        self.flag = FeatureFlag("mirror", True)
        self.shadow: Shadow[Any, Any]
        self._is_over = False

    def mirror(self, candidate: Callable[[Any], Coroutine[Any, Any, Any]], **given: Any) -> Shadow[Any, Any]:
        """To that candidate from now on."""
        options = {"is_safe": _is_safe, "share": 1.0, "policy": POLICY, "env": self.process.env, **given}
        self.shadow = self._made(candidate, **options)
        if isinstance(self.shadow, Sharing):
            self.shadow.production = self.production
        return self.shadow

    async def primary(self, number: int) -> Any:
        """8 to 16 ms, of which nobody waits for a place."""
        async with self.production.permit():
            await self.clock.sleep(0.008 + 0.008 * _spread(number))
        return {"number": number, "card": CARD}

    async def villain(self, number: int) -> Any:
        """What it does differs; at first it asks another service, where any fault may strike."""
        does = VILLAINY[number % len(VILLAINY)]
        self._look_around(number)
        if does != "answers":
            await self._asks()
        if does in ("hangs", "ignores"):
            await self._hangs(number, is_stubborn=does == "ignores")
        elif does == "raises":
            raise ValueError(CARD)
        elif does == "exits":
            raise SystemExit(1)
        elif does == "writes":
            await self._writes()
        return "x" * 3_000 if does == "swells" else {"number": number, "card": CARD + "x"}

    async def _hangs(self, number: int, *, is_stubborn: bool) -> None:
        due = Overdue(self.process, f"the candidate's request {number}", POLICY.timeout)
        try:
            await self.clock.sleep(60.0)
        except asyncio.CancelledError:
            due.is_over = True
            if is_stubborn:
                await self.clock.sleep(1.0)
            raise

    def _look_around(self, number: int) -> None:
        if ambient() is not None or not is_shadow():
            self.process.note("not apart", number)
        if self.flag.is_on is False:
            self.process.note("asked although off", number)
        if not _is_safe(number):
            self.process.note("asked to write", number)
        if (waiting := self.shadow.report().waiting) > POLICY.queue + POLICY.concurrency:
            self.process.note("crowd", waiting)

    async def _asks(self) -> None:
        try:
            await self.process.outside("elsewhere", lambda state: state.update(asked=True))
        except OutcomeUnknown:
            self.process.note("villainy", "got no answer")

    async def _writes(self) -> None:
        try:
            async with self.process.database().transaction() as tx:
                await tx.execute("CREATE TABLE candidates (n INTEGER)")
        except Misuse:
            self.process.note("villainy", "was refused to write")
        else:
            self.process.note("wrote", True)


def _is_safe(number: int) -> bool:
    if number % 10 == 7:
        raise PermissionError("nobody knows")
    return number % 10 != 3


def _spread(number: int) -> float:
    """From 0 to 1, evenly spread and in no order: multiples of the golden ratio."""
    return number * 0.618_033_988_75 % 1.0


def _processes(plant: str | None) -> dict[str, Main]:
    async def service(process: Process) -> None:
        site = _Service(process, plant)
        await _latencies(site)
        await _turned_off(site)
        await _turns(site)
        await _too_large(site)
        await _noise(site)
        process.note("finished", process.name)

    return {SERVICE: service}


async def _latencies(site: _Service) -> None:
    """The callers' p99, alone and with a shadow, in times in which the process itself was not stopped."""
    alone = await _measured(site, site.primary)
    shadow = site.mirror(site.villain, flag=site.flag)

    async def mirrored(number: int) -> Any:
        return await shadow.call(site.primary, number)

    beside = await _measured(site, mirrored)
    if alone is not None and beside is not None:
        site.process.note("measured", alone, beside)
    _note_report(site, shadow.report())


async def _measured(site: _Service, call: Callable[[int], Coroutine[Any, Any, Any]]) -> float | None:
    for _ in range(TRIES):
        watch = Watch(site.process.env)
        p99 = await _callers(site, call)
        watch.end()
        if not watch.stopped:
            return p99
    return None


async def _callers(site: _Service, call: Callable[[int], Coroutine[Any, Any, Any]]) -> float:
    """A hundred calls, in bursts of five, by callers with little time."""
    clock, took = site.clock, list[float]()

    async def caller(number: int) -> None:
        began = clock.monotonic()
        try:
            with within(1.0, clock):
                answer = await call(number)
            if answer["number"] != number:
                site.process.note("caller got", str(answer))
        except Exception as error:
            site.process.note("caller got", type(error).__name__)
        took.append(clock.monotonic() - began)

    async with asyncio.TaskGroup() as group:
        for burst in range(BURSTS):
            for number in range(AT_ONCE):
                group.create_task(caller(AT_ONCE * burst + number))
            await clock.sleep(0.025)
    return sorted(took)[98]


def _note_report(site: _Service, report: ShadowReport) -> None:
    note = site.process.note
    if CARD in repr(report):
        note("kept", "a card's number")
    ended = report.mirrored + sum(report.dropped.values()) + report.waiting + report.running
    if ended < report.offered:
        note("lost", report.offered - ended)
    for what, count in (("hung", report.candidate.timeouts), ("overran", report.dropped.get("queue is full", 0))):
        if count:
            note("villainy", what)


async def _turned_off(site: _Service) -> None:
    """With some that wait and some that run."""
    for number in (0, 3, 7, 14, 21, 28, 35):
        site.shadow.offer(number, None)
    await site.clock.sleep(0.01)
    site.flag.set(False)
    await site.clock.sleep(STOPPED_S)
    if site.shadow.report().left:
        site.process.note("lived on", "after it was turned off")
    await site.shadow.close()
    site.flag.set(True)


async def _turns(site: _Service) -> None:
    """More than may wait, of which the first ones are served, in order."""
    asked: list[int] = []

    async def candidate(number: int) -> None:
        asked.append(number)
        await site.clock.sleep(0.01)

    policy = ShadowPolicy(concurrency=1, queue=3, age=3_600.0, timeout=3_600.0)
    shadow = site.mirror(candidate, policy=policy, is_safe=lambda number: True)
    for number in range(8):
        shadow.offer(number, None)
    await shadow.drain(3_600.0)
    await shadow.close()
    site.process.note("turns", asked)


async def _too_large(site: _Service) -> None:
    """A request, an answer, and one of the candidate's."""

    async def candidate(number: int) -> Any:
        return "x" * 3_000

    shadow = site.mirror(candidate, is_safe=lambda number: True)
    for request, answer in (("x" * 3_000, 0), (0, "x" * 3_000), (0, 0)):
        shadow.offer(request, answer)
    await shadow.drain()
    dropped = shadow.report().dropped
    await shadow.close()
    large = ("request too large", "answer too large", "candidate's answer too large")
    site.process.note("large", [dropped.get(reason, 0) for reason in large])


async def _noise(site: _Service) -> None:
    """Answers of which a part differs each time, and a price with the candidate only."""
    serial = iter(range(10_000))

    async def primary(number: int) -> Any:
        return {"serial": next(serial), "price": number}

    async def candidate(number: int) -> Any:
        answer = await primary(number)
        return {**answer, "price": number + (number % 10 == 0)}

    policy = ShadowPolicy(control=1.0, timeout=3_600.0, age=3_600.0)
    shadow = site.mirror(candidate, control=primary, policy=policy, is_safe=lambda number: True)
    for number in range(30):
        await shadow.call(primary, number)
        await shadow.drain(3_600.0)
    report = shadow.report()
    await shadow.close()
    site.process.note("compared", report.compared, report.differing, report.different)


# -- the verdict ------------------------------------------------------------------------------------------------------


def _moved(evidence: Evidence) -> list[str]:
    return [
        f"the callers' p99 was {1e3 * alone:.1f} ms alone, and {1e3 * beside:.1f} ms with the shadow"
        for kind, alone, beside in _facts(evidence, "measured", 2)
        if beside > BESIDE_MOST * alone
    ]


def _noticed(evidence: Evidence) -> list[str]:
    return [f"a caller got {what}" for what in sorted(noted(evidence, "caller got"))]


def _out_of_bounds(evidence: Evidence) -> list[str]:
    wrong = [f"{crowd} requests waited for the candidate" for crowd in sorted(noted(evidence, "crowd"))]
    wrong += [f"{call} lived on after its time" for call in sorted(noted(evidence, "overdue"))]
    wrong += [f"a candidate lived on {when}" for when in noted(evidence, "lived on")]
    wrong += [f"{count} requests came to no end that was counted" for count in noted(evidence, "lost")]
    return wrong + [
        f"of 8 requests at once these were served: {asked}"
        for kind, asked in _facts(evidence, "turns", 1)
        if asked != [0, 1, 2, 3]
    ]


def _effects(evidence: Evidence) -> list[str]:
    said = {
        "asked to write": "a request that was not said to be safe was mirrored",
        "wrote": "the candidate wrote",
        "not apart": "the candidate ran with the caller's deadline, or unmarked",
        "asked although off": "the candidate was asked after the flag was turned off",
        "kept": "what was in an answer was kept",
    }
    return [words for kind, words in said.items() if noted(evidence, kind)]


def _misjudged(evidence: Evidence) -> list[str]:
    wrong = [
        f"of {compared} requests {differing} differed, and {different} were said to differ by more than noise"
        for kind, compared, differing, different in _facts(evidence, "compared", 3)
        if (compared, differing, different) != (30, 30, 3)
    ]
    return wrong + [
        f"of a request and two answers that were too large there were reported: {counts}"
        for kind, counts in _facts(evidence, "large", 1)
        if counts != [1, 1, 1]
    ]


def _facts(evidence: Evidence, kind: str, count: int) -> list[tuple[Any, ...]]:
    return [note for note in evidence.notes if note[0] == kind and len(note) == count + 1]


def _did(what: str) -> Callable[[Evidence], bool]:
    return lambda evidence: what in noted(evidence, "villainy")


SHADOW = Proof(
    name="faultproof.patterns.shadow.proof:SHADOW",
    claim=(
        "A candidate that hangs, fails, exits, ignores that it is cancelled, answers too much or tries to write moves the "
        "callers' p99 by less than a twentieth, gives none of them an error, and writes nothing; when its flag goes off it is "
        "asked no more; what differs by itself is told from what it does."
    ),
    faults=ANY_FAULT,
    assumptions=(
        "a candidate in the same process awaits what it waits for; one that does not has processes of its own",
        "the process runs: a time in which it was stopped as a whole is measured again",
    ),
    not_tested=(
        "a candidate that burns a core: in virtual time computing takes none. It is measured live, see the README",
    ),
    prepare=_no_tables,
    processes=_processes,
    done=lambda evidence: bool(noted(evidence, "finished")),
    eventually=(
        Eventually(claim="the callers' p99 is moved by less than a twentieth", wrong=_moved),
        Eventually(claim="every caller gets the primary's answer", wrong=_noticed),
        Eventually(claim="no more waits or lives on than may, and the newest is dropped", wrong=_out_of_bounds),
        Eventually(claim="the candidate has no effects, and nothing of an answer is kept", wrong=_effects),
        Eventually(claim="noise is told from differences, and what is too large is reported", wrong=_misjudged),
    ),
    sometimes=(
        Sometimes(claim="the candidate hangs", happened=_did("hung")),
        Sometimes(claim="the queue is full", happened=_did("overran")),
        Sometimes(claim="the candidate tries to write", happened=_did("was refused to write")),
        Sometimes(claim="the candidate gets no answer itself", happened=_did("got no answer")),
        Sometimes(
            claim="nothing else disturbs a measurement", happened=lambda evidence: bool(noted(evidence, "measured"))
        ),
    ),
    plants=(
        Plant(name=WAITS, breaks="callers wait for the candidate to answer or be cut off"),
        Plant(name=SHARES, breaks="callers wait for places that the candidate has"),
        Plant(name=UNBOUNDED, breaks="however many wait for the candidate, another one may"),
        Plant(name=OLDEST, breaks="what has waited longest is thrown away, and nothing is served under load"),
        Plant(name=INHERITS, breaks="the candidate runs in the caller's context, by its deadline, and may write"),
        Plant(name=RAISES, breaks="what goes wrong in the shadow reaches the caller"),
        Plant(name=WRITES, breaks="what has effects is done twice"),
        Plant(name=FORGETS, breaks="what waited when the flag went off is mirrored all the same"),
        Plant(name=KEEPS, breaks="the numbers of cards are in the report"),
        Plant(name=BELIEVES, breaks="what differs each time is taken for the candidate's doing"),
        Plant(name=CUTS, breaks="a part of an answer is compared as if it were all of it"),
        Plant(name=LIVES_ON, breaks="a candidate that hangs is never cut off"),
    ),
)
