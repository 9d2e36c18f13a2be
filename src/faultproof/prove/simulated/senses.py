"""What a simulated process sees of its world: clock, randomness, ids and news, all from the tape."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextvars import Context
from hashlib import blake2b
from typing import TYPE_CHECKING

from faultproof.clock import Alarm
from faultproof.engines.bells import Bells
from faultproof.ports.database import News

if TYPE_CHECKING:
    from faultproof.prove.simulated.process import Process
    from faultproof.prove.simulated.world import World

_GRAIN = 8


class SimClock:
    """Virtual time. The wall clock may be wrong, by as much as the database's and its process's have been put."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._loop = process.world.loop

    def wall_us(self) -> int:
        return self._process.world.wall_us() + int(self._process.skew_s * 1_000_000)

    def monotonic(self) -> float:
        return self._loop.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def alarm(self, seconds: float, ring: Callable[[], object], *, context: Context | None = None) -> Alarm:
        alarm: Alarm = self._loop.call_later(seconds, ring, context=context)
        return alarm


class SimRng:
    """Random numbers in steps of an eighth: coarse enough to explore, fine enough to break ties. The dull one is ½."""

    def __init__(self, world: World) -> None:
        self._world = world

    def random(self) -> float:
        return ((self._world.tape.choose(_GRAIN) + _GRAIN // 2) % _GRAIN) / _GRAIN


class SimIds:
    """1, 2, 3 …, each with digits behind it that look as random as a real id's: they decide on partitions."""

    def __init__(self, world: World) -> None:
        self._world = world

    def new(self) -> str:
        self._world.ids += 1
        number = self._world.ids.to_bytes(4, "big")
        return number.hex() + blake2b(number, digest_size=12).hexdigest()


class SimWakeups:
    """News between simulated processes: at once inside one, by a message that may be late or lost to the others."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._bells = Bells()
        self.under_way: set[str] = set()
        """Topics of messages on their way here; a second one would tell nothing new."""

    def listen(self, topic: str) -> News:
        return self._bells.listen(topic)

    def send(self, topics: Iterable[str]) -> None:
        topics = tuple(topics)
        self._bells.ring(topics)
        world = self._process.world
        for other in world.processes:
            if other is not self._process and not other.strand.dead:
                for topic in topics:
                    if other.wakeups.listens(topic) and topic not in other.wakeups.under_way:
                        other.wakeups.under_way.add(topic)
                        world.post(other, topic, lambda other=other, topic=topic: other.wakeups.hear(topic))  # type: ignore[misc]

    def listens(self, topic: str) -> bool:
        """Whether a message about `topic` would be heard."""
        return self._bells.has(topic)

    def hear(self, topic: str) -> None:
        """A message arrived."""
        self.under_way.discard(topic)
        self._bells.ring((topic,))

    def close(self) -> None:
        self._bells = Bells()
