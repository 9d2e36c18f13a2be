"""One simulated operating-system process: what its main function gets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from faultproof.clock import Env
from faultproof.engines.sqlite.database import SqliteDatabase
from faultproof.errors import OutcomeUnknown
from faultproof.prove.proof import Main
from faultproof.prove.simulated.faults import OUTSIDE, Fault
from faultproof.prove.simulated.loop import Strand
from faultproof.prove.simulated.senses import SimClock, SimIds, SimRng, SimWakeups

if TYPE_CHECKING:
    from faultproof.prove.simulated.world import World

T = TypeVar("T")


class Process:
    """Reaches nothing but its environment, the database, and whoever it leaves a note."""

    def __init__(self, world: World, name: str, main: Main, incarnation: int) -> None:
        self.world = world
        self.name = name
        self.main = main
        self.incarnation = incarnation
        self.strand = Strand(f"{name}.{incarnation}")
        self.env = Env(
            clock=SimClock(self),
            rng=SimRng(world),
            ids=SimIds(world),
            signals=world.signals,
            process=self.strand.name,
        )
        self.wakeups = SimWakeups(self)
        self.cut_until = 0.0
        """Until then nothing of it reaches anybody."""
        self.skew_s = 0.0
        """By how much its own clock is wrong."""
        self.notes = 0
        self.operations = 0
        """Completed so far."""
        self.refusals = 0
        """Operations of others while it held the write lock."""

    def database(self) -> SqliteDatabase:
        """The production database class, on this world's store."""
        store = self.world.store
        return SqliteDatabase(
            env=self.env,
            writer=self.world.lane(self, store, "writer"),
            reader=self.world.lane(self, store, "reader"),
            wakeups=self.wakeups,
            checkpointer=None,
            durability="simulated",
        )

    def check_alive(self) -> None:
        """Raise `Gone` if this process may not reach anything any more."""
        if self.strand.dead or self.world.closed:
            raise Gone(self.strand.name)

    def note(self, kind: str, *facts: Any) -> None:
        """Tell the outside world something that cannot be taken back: an answer to a client, an e-mail sent."""
        self.notes += 1
        self.world.notes.append((kind, *facts))
        self.world.trace.append((self.world.loop.now, self.strand.name, "notes", (kind, *facts)))

    async def outside(self, what: str, act: Callable[[dict[str, Any]], T]) -> T:
        """A request to a service outside: one operation, before and after which its sender may die."""
        world = self.world

        def arrives() -> T:
            self.notes += 1  # what the other side knows cannot be taken back either
            world.arrivals += 1
            return act(world.outside)

        def is_sent() -> T:
            if world.fault is Fault.LATE:
                world.post_late(what, arrives)
            if world.fault in (Fault.LOST, Fault.LATE):
                raise OutcomeUnknown(f"no answer to {what}")
            answer = arrives()
            if world.fault is Fault.TWICE:
                answer = arrives()
            if world.fault is Fault.UNHEARD:
                raise OutcomeUnknown(f"no answer to {what}")
            return answer

        result: T = await world.operate(self, object(), what, is_sent, kinds=OUTSIDE)
        return result

    def bury(self) -> None:
        """End its tasks, without letting them reach anything."""
        for task in self.strand.tasks:
            _bury(task)
        self.strand.tasks.clear()


class Gone(BaseException):
    """A dead process, or one of a world that is over, tried to reach a port."""


def _bury(task: asyncio.Task[Any]) -> None:
    """Close an abandoned coroutine here and now, where whatever its `finally` tries can only fail."""
    coroutine = task.get_coro()
    for _ in range(8):  # a `finally` that awaits swallows one close each time
        try:
            if coroutine is not None:
                coroutine.close()
            return
        except BaseException:  # noqa: S112  # there is nobody left to tell
            continue
