"""A connection on which each statement waits to be let through.

Production sends several statements in one round trip. The server executes them one after the other all the same, each
with a snapshot and locks of its own, and other sessions come between: so here each of them is a step by itself, and what
is stepped through is what production's server may do, no more and no less.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.pq import TransactionStatus

from faultproof.engines.postgres.direct import Direct, Exchange, Reply
from faultproof.engines.postgres.faults import line
from faultproof.prove.harness import ShowsNothing

Sent = tuple[bytes, Sequence[Any]]

# Nobody else can notice these: they take no lock and no snapshot, and make nothing visible. (`set_config` does take a
# snapshot, which at READ COMMITTED, where alone it is said, is gone with the statement.)
_UNNOTICED = (b"BEGIN", b"SAVEPOINT", b"RELEASE", b"SET ", b"SELECT set_config(")
_ENDS = (b"COMMIT", b"ROLLBACK")


class Turn:
    """One statement that waits to be let through; awaiting it gives its answer."""

    __slots__ = ("is_silent", "what", "work")

    def __init__(self, work: PQGen[Any], what: str, *, is_silent: bool) -> None:
        self.work = work
        """Sends the statement, and collects the answer. Has not begun."""
        self.what = what
        self.is_silent = is_silent
        """Others cannot notice it, so it need not wait."""

    def __await__(self) -> Generator[Turn, Any, Any]:
        return (yield self)


class _Doing(NamedTuple):
    what: str
    is_silent: bool


class Wire(Direct):
    """One session's connection. Everything that psycopg or the engine sends goes through `wait`, and waits there."""

    def __init__(self, raw: psycopg.Connection[Any], name_of: Callable[[bytes], str]) -> None:
        super().__init__(raw.pgconn)
        self._autocommit = True
        self._raw = raw  # it owns what both use
        self._name_of = name_of
        self._doing = _Doing("", is_silent=False)
        self._only_reads = False
        self._savepoints = 0
        self.refused: list[str] = []
        """SQLSTATEs of this run, in order."""
        self.hurries = False
        """Deadlocks are looked for at once in its transactions."""

    def announce(self, what: str, *, is_silent: bool = False) -> None:
        """What goes through `wait` next, until something else is announced."""
        self._doing = _Doing(what, is_silent)

    async def wait(self, gen: PQGen[RV], interval: float = 0.0, timeout: float | None = None) -> RV:
        answer: RV = await Turn(gen, self._doing.what, is_silent=self._doing.is_silent)
        return answer

    async def exchange(self, statements: Sequence[Sent], *, prepare: bool) -> Exchange:
        replies: list[Reply] = []
        for group in self._steps(statements):
            done = await super().exchange(group, prepare=prepare)
            replies += done.replies
            if done.refused is not None:
                self.note_refusal(done.refused)
                return Exchange(replies, done.refused)
        return Exchange(replies, None)

    def _steps(self, statements: Sequence[Sent]) -> Iterator[list[Sent]]:
        """Each statement with those before it that nobody can notice."""
        group: list[Sent] = []
        for statement in statements:
            text = statement[0]
            is_silent = self._is_unnoticed(text)
            self._follow(text)
            group.append(statement)
            if not is_silent:
                self.announce(self._name_of(text))
                yield group
                group = []
        if group:
            self.announce(self._name_of(group[-1][0]), is_silent=True)
            yield group

    def _is_unnoticed(self, text: bytes) -> bool:
        if text.startswith(_UNNOTICED):
            return True
        # An error has given back all locks already, unless it was inside a savepoint.
        failed = self.pgconn.transaction_status == TransactionStatus.INERROR and not self._savepoints
        return text in _ENDS and (self._only_reads or failed)

    def _follow(self, text: bytes) -> None:
        if text.startswith(b"BEGIN"):
            self._only_reads = text.endswith(b"READ ONLY")
            self._savepoints = 0
        elif text.startswith(b"SAVEPOINT"):
            self._savepoints += 1
        elif text.startswith(b"RELEASE"):
            self._savepoints -= 1

    def note_refusal(self, error: psycopg.Error) -> None:
        """The server has refused a statement of this run. Raises `ShowsNothing` for one that it does not understand."""
        state = error.sqlstate or ""
        if state.startswith("42"):
            raise ShowsNothing(f"the server does not understand {self._doing.what}: {line(error)}") from error
        self.refused.append(state)

    def shut(self) -> None:
        """Close it; the server rolls back what is open."""
        self._raw.close()
