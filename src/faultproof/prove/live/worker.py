"""One process of a run: the proof's main function, on a real database, with its points numbered."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from faultproof.clock import Env
from faultproof.connect import PostgresOptions, connect
from faultproof.errors import CannotOpen, OutcomeUnknown, TryAgain
from faultproof.ports.database import Database
from faultproof.prove.live.history import HISTORY_NAME, History
from faultproof.prove.live.mutated import MutatedDatabase
from faultproof.prove.live.pointed import PointedDatabase
from faultproof.prove.live.points import Points
from faultproof.prove.live.protocol import Mutation, Start
from faultproof.prove.live.services import SERVICES_NAME, Outside
from faultproof.prove.proof import Main
from faultproof.signals import Signals

T = TypeVar("T")

CONNECTIONS_MAX = 4
"""Of one process; one or two more hear and tell of commits."""
FINISHED, DIED = 0, 1
"""Exit statuses: the main function has returned, or raised."""


class LiveProcess:
    """See `faultproof.prove.proof.Process`."""

    def __init__(self, start: Start, env: Env, database: Database, history: History, points: Points) -> None:
        self.name = start.process
        self.incarnation = start.incarnation
        self.env = env
        self._database = PointedDatabase(database, points)
        self._history = history
        self._points = points
        self._services = Outside(Path(start.directory) / SERVICES_NAME)

    def database(self) -> Database:
        return self._database

    def note(self, kind: str, *facts: Any) -> None:
        self._points.reach(f"before note {kind}")
        self._history.add(note=[kind, *facts])
        self._points.reach(f"after note {kind}")

    async def outside(self, what: str, act: Callable[[dict[str, Any]], T]) -> T:
        twice = self._points.reach(f"before request {what}") == "twice"
        result = self._services.request(act)
        if twice:
            result = self._services.request(act)
        if self._points.reach(f"after request {what}") == "lose":
            raise OutcomeUnknown(f"the answer to {what} was lost")
        return result


def run(start: Start, main: Main, mutation: Mutation | None = None) -> int:
    """Run it to its end; the exit status."""
    who = f"{start.process}.{start.incarnation}"
    history = History(Path(start.directory) / HISTORY_NAME, who)
    try:
        asyncio.run(_run(start, main, Env(process=who, signals=Signals(sinks=())), history, mutation))
    except Exception as error:
        traceback.print_exc()
        history.add(died=f"{type(error).__name__}: {error}"[:2_000], again=_may_be_tried_again(error))
        return DIED
    return FINISHED


async def _run(start: Start, main: Main, env: Env, history: History, mutation: Mutation | None) -> None:
    options = PostgresOptions(pool_max=CONNECTIONS_MAX) if "://" in start.url else None
    async with connect(start.url, env=env, options=options) as database:
        points = Points(history, start.order)
        changed = database if mutation is None else MutatedDatabase(database, mutation)
        await main(LiveProcess(start, env, changed, history, points))


def _may_be_tried_again(error: BaseException) -> bool:
    """Whether somebody who starts the process again does what the error asks for."""
    if isinstance(error, BaseExceptionGroup):
        return all(_may_be_tried_again(each) for each in error.exceptions)
    return isinstance(error, (TryAgain, OutcomeUnknown, CannotOpen))


def become(start: Start) -> None:
    """In a process that was forked a moment ago: let go of what belongs to its parent."""
    os.setsid()  # Ctrl-C in a terminal is for the prover; and what a service of the user's starts is in this group too
    errors = os.open(Path(start.directory) / f"{start.process}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    os.closerange(3, 256)  # the pipes of the prover and of the nursery
