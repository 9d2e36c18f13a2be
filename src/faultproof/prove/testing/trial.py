"""One schedule of a simulated test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from faultproof.prove.simulated.escapes import no_escapes
from faultproof.prove.simulated.faults import EVERY, Fault
from faultproof.prove.simulated.lanes import MemoryStore
from faultproof.prove.simulated.tape import Tape
from faultproof.prove.simulated.watched import WatchedWorld
from faultproof.prove.simulated.world import Limits, World
from faultproof.prove.testing.words import happenings
from faultproof.prove.testing.world import Body, SimulatedWorld


@dataclass(frozen=True)
class Run:
    """A schedule that was run: the world as it ended, and what went wrong with it, if anything did."""

    world: World
    failure: BaseException | None
    claims: dict[str, bool]

    @property
    def answers(self) -> dict[int, int]:
        """The tape that repeats it."""
        return dict(self.world.tape.answers)

    @property
    def length(self) -> int:
        """Operations that were carried out."""
        return sum(process.operations for process in self.world.processes)


class Trial:
    """Runs one test again and again, each time on an empty database."""

    def __init__(self, body: Body, limits: Limits) -> None:
        self._body = body
        self._limits = limits
        self._store = MemoryStore()

    def run(self, tape: Tape, *, faults_max: int, kinds: frozenset[Fault] = EVERY) -> Run:
        """One schedule. Only Ctrl-C comes out of it; everything else that the test raises is in the `Run`."""
        __tracebackhide__ = True
        return self._run(World, tape, faults_max=faults_max, kinds=kinds)

    def told(self, answers: Mapping[int, int]) -> tuple[Run, list[str]]:
        """The schedule with these answers, and all that happens in it, a line each. Several times slower."""
        __tracebackhide__ = True
        watched = partial(WatchedWorld, at_end=lambda world: None)
        # Each fault is one answer on the tape, so there are no more than those.
        run = self._run(watched, Tape(dict(answers)), faults_max=len(answers), kinds=EVERY)
        assert isinstance(run.world, WatchedWorld)
        return run, list(happenings(run.world))

    def _run(self, world_of: Callable[..., World], tape: Tape, *, faults_max: int, kinds: frozenset[Fault]) -> Run:
        __tracebackhide__ = True
        world = world_of(self._store, tape, faults_max=faults_max, faults=kinds, limits=self._limits)
        self._store.reset(world.wall_us)
        failure, claims = None, dict[str, bool]()
        try:
            with no_escapes():
                simulated = SimulatedWorld(world, self._body)
                claims = simulated.claims
                simulated.run()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # an `Escape`, or what pytest skips by, is none of Exception's
            failure = error
        finally:
            world.close()
        return Run(world, failure, claims)

    def close(self) -> None:
        """Let go of the database."""
        self._store.raw.close()
