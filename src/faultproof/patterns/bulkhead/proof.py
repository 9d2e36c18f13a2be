"""Bulkhead's proofs: a tenant that has all it can get leaves the others as they were, and no permit is ever lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from faultproof.clock import Env
from faultproof.errors import OutcomeUnknown, Overloaded, TryAgain
from faultproof.patterns.bulkhead.bulkhead import Bulkhead, BulkheadPolicy
from faultproof.patterns.bulkhead.proof_planted import FORGETS_DEADLINES, PERMITS_PLANTED
from faultproof.patterns.bulkhead.proof_watch import Watch
from faultproof.ports.database import Database
from faultproof.primitives.compartments import TenantPolicy
from faultproof.primitives.deadline import Deadline
from faultproof.primitives.permits import Permits
from faultproof.prove.proof import ANY_FAULT, Eventually, Evidence, Main, Plant, Process, Proof, Sometimes, noted

NOT_TESTED = (
    "event loops in several threads: simulation has one (tests run three)",
    "a tenant that burns a core: in virtual time computing takes none. Live, what other processes disturb is measured anew",
)


async def _no_tables(database: Database) -> None:
    """Nothing of it is durable."""


def _spread(number: int) -> float:
    """From 0 to 1, evenly spread and in no order: multiples of the golden ratio."""
    return number * 0.618_033_988_75 % 1.0


# -- isolation --------------------------------------------------------------------------------------------------------

SERVICE = "service"
QUIET, NOISY, GOLD, IRON = "quiet", "noisy", "gold", "iron"
PERMITS_THERE, ROOM = 8, 8
TRIES = 5
BESIDE_MOST = 1.1
"""A saturated tenant may move the others' p99 by a tenth."""


def _isolating(plant: str | None) -> dict[str, Main]:
    """One service, whose quiet tenant is measured alone and beside a noisy one; then two that are never satisfied."""
    part = PERMITS_THERE if plant == "a tenant may have everything" else None
    apart = BulkheadPolicy(
        concurrency=PERMITS_THERE,
        queue=ROOM,
        wait=10.0,
        tenants={NOISY: TenantPolicy(concurrency=part, queue=ROOM), QUIET: TenantPolicy(queue=ROOM)},
    )
    gold = TenantPolicy(weight=1.0 if plant == "ignores weights" else 3.0, concurrency=4)
    shared = BulkheadPolicy(
        concurrency=4,
        queue=64,
        wait=60.0,
        patience=0 if plant == "first come, first served" else 8,
        tenants={GOLD: gold, IRON: TenantPolicy(concurrency=4)},
    )

    async def service(process: Process) -> None:
        bulkhead = _bulkhead(process.env, apart, PERMITS_PLANTED.get(plant or "", Permits))
        alone = await _measured(process, bulkhead)
        noise = [asyncio.get_running_loop().create_task(_noise(process, bulkhead, n)) for n in range(14)]
        await process.env.clock.sleep(0.1)
        beside = await _measured(process, bulkhead)
        for each in noise:
            each.cancel()
        await asyncio.wait(noise, timeout=60)
        if alone is not None and beside is not None:
            process.note("measured", *alone, *beside)
        process.note("shares", *await _shares(process, Bulkhead(process.env, shared, name="shared")))
        process.note("finished", process.name)

    return {SERVICE: service}


def _bulkhead(env: Env, policy: BulkheadPolicy, permits: type[Permits]) -> Bulkhead:
    bulkhead = Bulkhead(env, policy, name="payments")
    bulkhead.permits = permits(env, policy, name="payments")
    return bulkhead


async def _measured(process: Process, bulkhead: Bulkhead) -> tuple[float, int] | None:
    """The p99 of the quiet tenant's calls and how many were refused, in a time in which the process itself was not stopped."""
    for _ in range(TRIES):
        watch = Watch(process.env)
        p99, refused = await _quiet(process, bulkhead)
        watch.end()
        if not watch.stopped:
            return p99, refused
    return None


async def _quiet(process: Process, bulkhead: Bulkhead) -> tuple[float, int]:
    """A hundred calls in bursts of five, of 8 to 16 ms each: a burst is more than its part, so that some of its own wait."""
    clock, took, refused = process.env.clock, list[float](), 0

    async def call(number: int) -> None:
        nonlocal refused
        began = clock.monotonic()
        try:
            async with bulkhead.permit(tenant=QUIET):
                await clock.sleep(0.008 + 0.008 * _spread(number))
        except TryAgain:
            refused += 1
        took.append(clock.monotonic() - began)

    async with asyncio.TaskGroup() as group:
        for burst in range(20):
            for number in range(5):
                group.create_task(call(5 * burst + number))
            await clock.sleep(0.025)
    return sorted(took)[98], refused


async def _noise(process: Process, bulkhead: Bulkhead, number: int) -> None:
    """One of many that call again and again a dependency which is slow, and sometimes does not answer for long."""
    clock = process.env.clock
    for turn in range(1_000):
        try:
            async with bulkhead.permit(tenant=NOISY):
                await process.outside("search", lambda state: state.update(searched=True))
                await clock.sleep(0.15 + 0.1 * _spread(14 * turn + number))
        except Overloaded:
            process.note("shed", NOISY)
            await clock.sleep(0.25)
        except OutcomeUnknown:
            await clock.sleep(0.05)


async def _shares(process: Process, bulkhead: Bulkhead) -> tuple[int, int]:
    """Turns that two tenants had of 60, each of which always has calls waiting."""
    had = {GOLD: 0, IRON: 0}

    async def calls(tenant: str) -> None:
        while sum(had.values()) < 60:
            async with bulkhead.permit(tenant=tenant):
                if sum(had.values()) < 60:
                    had[tenant] += 1
                await process.env.clock.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for tenant in [GOLD, IRON] * 8:
            group.create_task(calls(tenant))
    return had[GOLD], had[IRON]


def _contagion(evidence: Evidence) -> list[str]:
    wrong = []
    for alone, refused_alone, beside, refused in [note[1:] for note in evidence.notes if note[0] == "measured"]:
        if beside > BESIDE_MOST * alone:
            wrong.append(f"its p99 was {1e3 * alone:.1f} ms alone and {1e3 * beside:.1f} ms beside the noisy one")
        if refused > refused_alone:
            wrong.append(f"{refused} of its calls were refused beside the noisy one, and {refused_alone} alone")
    return wrong


def _unfair(evidence: Evidence) -> list[str]:
    """Within four turns: those that were under way before there was anybody to wait beside were nobody's to share."""
    shares = [note[1:] for note in evidence.notes if note[0] == "shares"]
    return [
        f"of {gold + iron} turns three parts were {gold} and one was {iron}"
        for gold, iron in shares
        if abs(gold - 3 * iron) > 3 * 4
    ]


BULKHEAD = Proof(
    name="faultproof.patterns.bulkhead.proof:BULKHEAD",
    claim=(
        "A tenant that has all it can get, and whose dependency hangs, moves the p99 of another's calls by less than a tenth "
        "and lets none of them be refused; tenants that wait for the same permits get them by weight."
    ),
    faults=ANY_FAULT,
    assumptions=(
        "the others together need no more permits than the noisy tenant may not have",
        "the process runs: a time in which it was stopped as a whole is measured again",
    ),
    not_tested=NOT_TESTED,
    prepare=_no_tables,
    processes=_isolating,
    done=lambda evidence: bool(noted(evidence, "finished")),
    eventually=(
        Eventually(
            claim="the quiet tenant's calls are as quick beside the noisy one, and none is refused", wrong=_contagion
        ),
        Eventually(claim="turns are shared by weight", wrong=_unfair),
    ),
    sometimes=(
        Sometimes(claim="the noisy tenant is shed", happened=lambda evidence: bool(noted(evidence, "shed"))),
        Sometimes(
            claim="nothing else disturbs a measurement", happened=lambda evidence: bool(noted(evidence, "measured"))
        ),
    ),
    plants=(
        Plant(name="a tenant may have everything", breaks="the quiet tenant's calls wait for the noisy one's to end"),
        Plant(
            name="sheds the latest",
            breaks="a full queue of the noisy tenant's keeps the quiet one's calls from waiting",
        ),
        Plant(name="ignores weights", breaks="three parts are as much as one"),
        Plant(name="first come, first served", breaks="who asks as often gets as much, whatever its weight"),
    ),
)


# -- permits ----------------------------------------------------------------------------------------------------------

STORMS = ("storm-1", "storm-2")
LIMIT, QUEUE, CALLS, ROUNDS = 3, 8, 14, 3
LATE_S = 0.5
"""A process may be stopped by others between the moment in which a call enters and that in which it is asked how late it is."""


class _Storm:
    """Calls that are cancelled at any moment, and above all in the one in which they are given a permit."""

    def __init__(self, process: Process, bulkhead: Bulkhead) -> None:
        self._process = process
        self._bulkhead = bulkhead
        self._inside = 0
        self._strikes = 0
        self._waiting: dict[int, asyncio.Task[None]] = {}

    async def round(self, first: int) -> None:
        """Many at once; when they have ended, all permits must be there."""
        tasks = [asyncio.get_running_loop().create_task(self._call(number)) for number in range(first, first + CALLS)]
        self._waiting = dict(enumerate(tasks, first))
        await asyncio.wait(tasks, timeout=60)
        standing = self._bulkhead.snapshot()
        free = [held for _ in range(LIMIT + 1) if (held := self._bulkhead.permits.try_enter("probe")) is not None]
        for held in free:
            self._bulkhead.permits.leave(held)
        self._process.note("after", standing.in_flight, standing.waiting, len(free))

    async def _call(self, number: int) -> None:
        clock = self._process.env.clock
        deadline = Deadline(clock.monotonic() + 0.02 + 0.2 * _spread(number), clock)
        # In a round of equals they enter in order, so that it is known who has a permit.
        equals = number // CALLS % 2 == 0
        tenant, priority = ("a", 0) if equals else ("ab"[number % 2], number % 3)
        try:
            async with self._bulkhead.permit(tenant=tenant, priority=priority, deadline=deadline):
                self._entered(number, deadline)
                try:
                    await self._process.outside("payments", lambda state: state.update(paid=True))
                    await clock.sleep(0.03)
                finally:
                    self._inside -= 1
        except TryAgain as error:
            self._process.note("refused", type(error).__name__)
        except OutcomeUnknown:
            pass
        finally:
            self._waiting.pop(number, None)
        self._strike(equals)

    def _entered(self, number: int, deadline: Deadline) -> None:
        self._inside += 1
        del self._waiting[number]
        if self._inside > LIMIT:
            self._process.note("over", self._inside)
        if deadline.left() <= -LATE_S:
            self._process.note("late", number)
        if (crowd := self._bulkhead.snapshot().waiting) > QUEUE:
            self._process.note("crowd", crowd)

    def _strike(self, equals: bool) -> None:
        """A permit may have been given away just now, and whoever has it does not know it yet: cancel one of those that
        still wait, every second time the first."""
        self._strikes += 1
        waiting = list(self._waiting.values())
        if not waiting:
            return
        if self._strikes % 2 == 0:
            waiting[int(len(waiting) * _spread(self._strikes))].cancel()
            return
        if equals and self._bulkhead.snapshot().in_flight > self._inside:
            self._process.note("cancelled with a permit", True)
        waiting[0].cancel()


def _storming(plant: str | None) -> dict[str, Main]:
    permits = PERMITS_PLANTED.get(plant or "", Permits)
    whole = TenantPolicy(concurrency=LIMIT, queue=QUEUE)
    policy = BulkheadPolicy(concurrency=LIMIT, queue=QUEUE, wait=0.2, patience=2, others=whole)

    async def storm(process: Process) -> None:
        storm = _Storm(process, _bulkhead(process.env, policy, permits))
        for number in range(ROUNDS):
            await storm.round(number * CALLS)
        process.note("finished", process.name)

    return dict.fromkeys(STORMS, storm)


def _wrong_permits(evidence: Evidence) -> list[str]:
    wrong = []
    for kind, first, *rest in evidence.notes:
        match kind:
            case "over":
                wrong.append(f"{first} calls had a permit of {LIMIT}")
            case "late":
                wrong.append(f"call {first} ran after its deadline")
            case "crowd":
                wrong.append(f"{first} calls waited where {QUEUE} may")
            case "after" if [first, *rest] != [0, 0, LIMIT]:
                wrong.append(f"nobody calls, and {first} permits are held, {rest[0]} calls wait, {rest[1]} can enter")
            case _:
                pass
    return wrong


def _happened(kind: str, what: Any) -> Callable[[Evidence], bool]:
    return lambda evidence: what in noted(evidence, kind)


PERMITS = Proof(
    name="faultproof.patterns.bulkhead.proof:PERMITS",
    claim=(
        "Whatever is cancelled and whenever: no permit is lost, none is held twice, no call runs after its deadline, and no "
        "more calls wait than may."
    ),
    faults=ANY_FAULT,
    assumptions=("the process lives: its permits go with it",),
    not_tested=NOT_TESTED,
    prepare=_no_tables,
    processes=_storming,
    done=lambda evidence: noted(evidence, "finished") == set(STORMS),
    eventually=(
        Eventually(claim="permits are neither lost nor doubled, and what is too late never runs", wrong=_wrong_permits),
    ),
    sometimes=(
        Sometimes(
            claim="a call is cancelled that has a permit and does not know it",
            happened=_happened("cancelled with a permit", True),
        ),
        Sometimes(claim="a call finds no room to wait", happened=_happened("refused", "Overloaded")),
        Sometimes(claim="a call's deadline passes while it waits", happened=_happened("refused", "DeadlineExceeded")),
    ),
    plants=(
        Plant(name="loses what it gave", breaks="a call that is cancelled with a permit in hand keeps it for ever"),
        Plant(name="gives back twice", breaks="a call that is cancelled while it waits gives back what it never had"),
        Plant(name=FORGETS_DEADLINES, breaks="what waited past its deadline runs all the same"),
        Plant(name="waits without a bound", breaks="however many wait, another one may"),
    ),
)
