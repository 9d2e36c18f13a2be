"""What carries proofs out: processes that share the work, and one error for whatever goes wrong with them."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Generic, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")

Tell: TypeAlias = Callable[[int], object]
"""Hears now and then how many schedules have been run so far."""


class HarnessError(Exception):
    """The proof could not be carried out, so that it shows nothing; the message is the traceback of what went wrong."""


class NoEnd(HarnessError):
    """What is tried comes to no end, whatever time it is given."""


class ShowsNothing(HarnessError):
    """What was planted, or left out, cannot be tried here: that says nothing about it, least of all that it was noticed."""


@contextmanager
def carried_out() -> Iterator[None]:
    """Whatever the proof's own code raises inside comes out as `HarnessError`: in words, since not every error can be
    sent from one process to another."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException:  # an `Escape` is none of Exception's
        raise HarnessError(traceback.format_exc().rstrip()) from None


class _Done(NamedTuple, Generic[T]):
    result: T


def in_processes(job: Callable[[int, Tell], T], parts: int, progress: Tell) -> Iterator[T]:
    """The results of `job(0, tell)`, `job(1, tell)` …, each from a process of its own, as they come.

    `progress` hears what all have told together. Raises `HarnessError` for the first that fails or is killed, and ends
    the others. Not a pool: it waits for ever for a worker that was killed.
    """
    context = multiprocessing.get_context("fork")
    told, workers = dict[Connection, int](), []
    try:
        for part in range(parts):
            ours, theirs = context.Pipe(duplex=False)
            worker = context.Process(target=_work, args=(job, part, theirs), daemon=True)
            worker.start()
            workers.append(worker)
            told[ours] = 0
            theirs.close()  # or its end would not be noticed
        left = set(told)
        while left:
            for pipe in wait(left):
                assert isinstance(pipe, Connection)
                said: _Done[T] | int = _hear(pipe)
                if isinstance(said, _Done):
                    yield said.result
                    left.remove(pipe)
                else:
                    told[pipe] = said
                    progress(sum(told.values()))
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _hear(pipe: Connection) -> _Done[T] | int:
    try:
        said: _Done[T] | int | str = pipe.recv()
    except EOFError:
        raise HarnessError("a process that was exploring has been killed") from None
    if isinstance(said, str):
        raise HarnessError(said)
    return said


def _work(job: Callable[[int, Tell], T], part: int, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; ours ends the others
    said: _Done[T] | str
    try:
        with carried_out():
            said = _Done(job(part, pipe.send))
    except HarnessError as error:
        said = str(error)
    pipe.send(said)
