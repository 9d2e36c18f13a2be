"""What a session's main function is given, and what it leaves to be judged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

from faultproof.clock import Env
from faultproof.ports.database import Database, Tx
from faultproof.prove.stepped.case import Isolation
from faultproof.prove.stepped.database import SteppedDatabase
from faultproof.prove.stepped.ground import Ground
from faultproof.prove.stepped.wire import Turn

T = TypeVar("T")


class Seen:
    """The evidence of one run."""

    def __init__(self, ground: Ground) -> None:
        self.notes: list[tuple[Any, ...]] = []
        self.outside: dict[str, Any] = {}
        self.fetch = ground.fetch


class Party:
    """What a session's main function is given."""

    incarnation = 0

    def __init__(self, name: str, env: Env, database: SteppedDatabase, seen: Seen) -> None:
        self.name = name
        self.env = env
        self._database = database
        self._seen = seen

    def database(self) -> Database:
        return self._database

    def note(self, kind: str, *facts: Any) -> None:
        self._seen.notes.append((kind, *facts))

    async def outside(self, what: str, act: Callable[[dict[str, Any]], T]) -> T:
        def done() -> Generator[Any, Any, T]:  # a generator, like all that waits for its turn
            yield from ()
            return act(self._seen.outside)

        result: T = await Turn(done(), what, is_silent=False)
        return result

    async def joined(self, isolation: Isolation, work: Callable[[Tx], Awaitable[T]]) -> T:
        return await self._database.joined(isolation, work)
