"""What a simulated test gets as `world`: it prepares, spawns processes, waits for them, and looks at what is left.

The test itself is a process of the same world that no fault strikes: it stands for whoever watches.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from faultproof import bounds
from faultproof.clock import Env
from faultproof.engines.sqlite.connection import Connection
from faultproof.engines.sqlite.database import SqliteDatabase
from faultproof.errors import InvalidInput, LeaseLost, Misuse, OutcomeUnknown, TryAgain
from faultproof.ports.database import Database
from faultproof.ports.script import Script, drive
from faultproof.prove.proof import Main, Process
from faultproof.prove.simulated.lanes import SimLane
from faultproof.prove.simulated.loop import StepLimit
from faultproof.prove.simulated.process import Gone
from faultproof.prove.simulated.process import Process as SimProcess
from faultproof.prove.simulated.world import World
from faultproof.prove.testing.words import TEST

if TYPE_CHECKING:
    from faultproof.prove.simulated.lanes import Store

T = TypeVar("T")

Check = TypeVar("Check", bound=Callable[[], None])

Body: TypeAlias = "Callable[[SimulatedWorld], Coroutine[Any, Any, object]]"

_TURN_S = 0.01
"""How long the test waits, in virtual seconds, before it looks again whether a writer's transaction is over."""

RESTARTED_AFTER = (TryAgain, OutcomeUnknown, LeaseLost)
"""What a fault may do to a process that is without blame. It dies of it, and is started again."""

_ENDED_FROM_OUTSIDE = (asyncio.CancelledError, GeneratorExit, Gone)


class SimulatedWorld:
    """One schedule of a simulated test.

    Time is virtual (`env.clock`), and every schedule begins with an empty database. Each process that was spawned is
    crashed, frozen or cut off by the schedules in turn and started again from the beginning of its main function, so what
    it asks for must be idempotent.
    """

    def __init__(self, world: World, body: Body) -> None:
        self._world = world
        self._waits: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._spawned: set[str] = set()
        self._returned: set[SimProcess] = set()
        self._is_over = False
        self._failures: list[BaseException] = []
        self.claims: dict[str, bool] = {}
        """What was said with `sometimes`."""

        async def main(process: Process) -> None:
            try:
                await body(self)
            except _ENDED_FROM_OUTSIDE:
                raise
            except BaseException as error:  # an `Escape`, or what pytest skips by, is none of Exception's
                self._end(error)
            self._end()

        self._test = world.spawn(TEST, main)

    # -- what is there ----------------------------------------------------------------------------------------------

    @property
    def env(self) -> Env:
        """The test's own clock, randomness and ids."""
        return self._test.env

    def database(self) -> Database:
        """The world's database, for the test itself: to prepare and to look. No fault strikes what is done through it."""
        world, test = self._world, self._test
        return SqliteDatabase(
            env=test.env,
            writer=_Spared(test, world.store, "writer"),
            reader=_Spared(test, world.store, "reader"),
            wakeups=test.wakeups,
            checkpointer=None,
            durability="simulated",
        )

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        """A query on what is committed. Raises `Misuse` while a process has a transaction open, whose changes it would see."""
        owner = self._world.store.owner
        if owner not in (None, self._test):
            raise Misuse(
                f"{owner.strand.name} has a transaction open: wait with `finished` or `until`, or read through `database()`"
            )
        return self._world.fetch(sql)

    @property
    def notes(self) -> Sequence[tuple[Any, ...]]:
        """What processes told the outside with `note`, in order: kind and facts."""
        return self._world.notes

    @property
    def outside(self) -> Mapping[str, Any]:
        """The state of the services outside, which processes reach with `outside`."""
        return self._world.outside

    # -- what happens -----------------------------------------------------------------------------------------------

    def spawn(self, name: str, main: Main) -> None:
        """Start a process now: `main` is called with its `Process`, again after each death.

        If `main` raises, the test fails with that error; except for `TryAgain`, `OutcomeUnknown` and `LeaseLost`, after
        which it is started again, like a service whose request has failed.

        :raises InvalidInput: for a name that is none, or taken.
        """
        if bounds.name("a process", name) in (TEST, *self._spawned):
            raise InvalidInput(f"there is a process {name!r} already ({TEST!r} is the test itself)")
        self._spawned.add(name)

        async def life(process: Process) -> None:
            try:
                await _called(name, main, process)
            except (*RESTARTED_AFTER, *_ENDED_FROM_OUTSIDE):
                raise
            except BaseException as error:
                self._end(error)
            assert isinstance(process, SimProcess)
            self._returned.add(process)

        self._world.spawn(name, life)

    async def finished(self, *names: str) -> None:
        """Until the main functions of these processes (of all, if none is named) have returned, in every life of theirs;
        nobody is frozen any more, and nothing is under way.

        :raises InvalidInput: for a name that was never spawned.
        """
        for name in names:
            if name not in self._spawned:
                raise InvalidInput(
                    f"no process {name!r} was spawned; there are {', '.join(sorted(self._spawned)) or 'none'}"
                )
        waited = set(names)
        await self.until(lambda: self._are_finished(waited or self._spawned))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Until `condition` holds at a moment when nobody is frozen, no transaction is open and nothing is under way. For
        processes that never return; a schedule that does not come so far within its limits fails."""
        met = asyncio.get_running_loop().create_future()
        self._waits.append((condition, met))
        await met

    # -- what must hold ---------------------------------------------------------------------------------------------

    def always(self, check: Check) -> Check:
        """Call `check` after every commit of a process from now on: it asserts what must hold at every moment. Usable as a
        decorator."""
        self._world.watchers.append(check)
        return check

    def sometimes(self, claim: str, happened: bool) -> None:
        """Say whether the interesting thing did happen in this schedule. The test fails if it never does in any, because
        then it has not shown what it seems to."""
        self.claims[claim] = self.claims.get(claim, False) or bool(happened)

    # -- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """To the end of the test; raises what it or one of its processes raised, and `StepLimit` where there is no end."""
        __tracebackhide__ = True
        while not self._is_over:
            self._advance()
            waits, self._waits = self._waits, []
            for condition, met in waits:
                if condition():
                    met.set_result(None)
                else:
                    self._waits.append((condition, met))
        if self._failures:
            raise self._failures[0]

    def _advance(self) -> None:
        __tracebackhide__ = True
        limit = None
        try:
            self._world.run(self._is_due)
        except _Over:
            return
        except StepLimit as error:
            limit = error
        if limit is not None:
            lives = (process for process in self._world.processes if not process.strand.dead)
            busy = ", ".join(
                life.strand.name for life in lives if life is not self._test and life not in self._returned
            )
            raise StepLimit(f"{limit}; at work then: {busy or 'the test alone'}")

    def _end(self, error: BaseException | None = None) -> None:
        """Here and now: what its processes do afterwards, a test that did not wait for them has not seen."""
        if error is not None:
            self._failures.append(error)
        self._is_over = True
        self._world.loop.failure = _Over()

    def _is_due(self) -> bool:
        return self._world.store.owner in (None, self._test) and any(condition() for condition, _ in self._waits)

    def _are_finished(self, names: set[str]) -> bool:
        lives = [process for process in self._world.processes if process.name in names and not process.strand.dead]
        return not self._more_is_to_come() and all(process in self._returned for process in lives)

    def _more_is_to_come(self) -> bool:
        """Whether the world has something in mind: it starts again who died, thaws who froze, delivers what is late."""
        world = self._world.loop.strands[0]
        return any(handle.process is world and not handle.cancelled() for _, _, handle in self._world.loop.timers)


class _Over(BaseException):
    """The test has ended."""


async def _called(name: str, main: Main, process: Process) -> None:
    running = main(process)
    if not inspect.isawaitable(running):
        raise InvalidInput(f"the main function of {name!r} must be an async function, and {main!r} is not")
    await running


class _Spared(SimLane):
    """A lane whose operations happen at once, so that the tape has no say and no fault strikes."""

    def __init__(self, process: SimProcess, store: Store, role: str) -> None:
        super().__init__(process, store, role)
        self._shared = store

    async def drive(self, script: Script[T], *, then: Callable[[T], None] | None = None) -> T:
        await self._turn()
        result = drive(script, self._shared.executor(self, script))
        if then is not None:
            then(result)
        return result

    async def call(self, function: Callable[[Connection], T]) -> T:
        await self._turn()
        return self._shared.call(self, function)

    async def _turn(self) -> None:
        self.process.check_alive()
        while self._shared.owner not in (None, self.process):
            await self.process.env.clock.sleep(_TURN_S)  # bounded: the world's limits end a schedule
