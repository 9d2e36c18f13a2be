"""A script as a part of a transaction that somebody else begins and ends."""

from __future__ import annotations

import asyncio
import os
from typing import TypeVar

from faultproof.errors import InvalidInput, Misuse, UsedAfterFork
from faultproof.ports.script import Begin, ByIndexes, Commit, Later, Patience, Rollback, Script, Wake, atomic
from faultproof.ports.statement import NOTHING

T = TypeVar("T")

WHERE = "the joined database"
"""What errors call it: the connection is the user's, and only the user knows where it leads."""

Topics = dict[str, None]
"""What a script wakes, in order."""


def inside(script: Script[T], topics: Topics, *, single: bool) -> Script[T]:
    """The script inside a transaction that is not ours, with a savepoint around it unless it makes a `single` change.

    Raises `InvalidInput` where it would begin or end transactions. What it wakes is added to `topics`.
    """
    script = script if single else atomic(script)
    try:
        step = next(script)
        while True:
            try:
                if isinstance(step, (Begin, Commit, Rollback)):
                    raise InvalidInput("a script that ends transactions cannot be run inside the user's")
                if isinstance(step, Wake):
                    if step.when is None or step.when():  # every answer is waited for here
                        topics[step.topic] = None
                    answer = NOTHING
                elif isinstance(step, (Patience, ByIndexes)):
                    answer = NOTHING
                elif isinstance(step, Later):
                    step.check((yield step.call))
                    answer = NOTHING
                else:
                    answer = yield step
            except Exception as error:
                step = script.throw(error)
            else:
                step = script.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result


class Origin:
    """The process, and the event loop if there is one, in which a handle was joined."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = _running_loop()

    def check(self) -> None:
        """Raise `UsedAfterFork` in another process."""
        if os.getpid() != self._pid:
            raise UsedAfterFork("this connection was joined before a fork: connect in the child process instead")

    def check_loop(self) -> None:
        """Raise `Misuse` in another event loop as well; for handles that belong to one."""
        self.check()
        if self._loop is not None and self._loop is not _running_loop():
            raise Misuse("this connection was joined in another event loop: connect in the one that uses it")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
