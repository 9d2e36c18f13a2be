"""One connection that executes steps, in as few round trips as their answers allow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from faultproof.engines.postgres.faults import Lost, Restartable, Stale, connection_lost, line, translated
from faultproof.engines.postgres.render import Numbered, bind, render_numbered
from faultproof.engines.postgres.wire import Command, CommandFailed, Raw, is_idle, send
from faultproof.errors import InvalidInput, NoTransaction, OutcomeUnknown
from faultproof.ports.script import (
    Begin,
    ByIndexes,
    Call,
    Commit,
    Later,
    Patience,
    Release,
    Rollback,
    RollbackTo,
    Savepoint,
    Script,
    Step,
    Wake,
    drive_async,
)
from faultproof.ports.statement import NOTHING, Answer, Statement

T = TypeVar("T")
Replace = Callable[[Raw], Awaitable[Raw]]

# Said in full: the user's defaults may be others, and the guards of claims and logs need these.
_BEGIN = {
    True: Command(b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", prepare=True),
    False: Command(b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", prepare=True),
}
# Before version 18 what is off merely costs very much, and that would have some statements compiled each time.
_BY_INDEXES = Command(b"SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)", prepare=True)
_COMMIT = Command(b"COMMIT", prepare=True)
_ROLLBACK = Command(b"ROLLBACK", prepare=True)
_rendered: dict[Statement, Numbered] = {}  # bounded: statements are declared at import, never made


class Connection:
    """Executes steps on an autocommit connection, whose transactions are begun and ended by steps.

    What needs no answer waits in `_queue` and travels with the next statement that does: BEGIN, savepoints, statements
    declared `deferred`. A transaction in which nothing was done never reaches the server.
    """

    def __init__(
        self, raw: Raw, name: str, replace: Replace, *, prepare: bool = True, first: tuple[Command, ...] = ()
    ) -> None:
        """`first`: what each transaction begins with, where settings of the session are not ours to keep."""
        self.raw = raw
        self.name = name
        self._replace = replace
        self._prepare = prepare
        self._first = first
        self._woken: dict[Wake, None] = {}  # bounded: topics of one transaction; a dict keeps their order
        self._queue: list[Command] = []
        self._savepoints: list[int | None] = []  # where in the queue each open one stands; None: it has been sent
        self._begun = False  # from the BEGIN, sent or not, to the COMMIT
        self._sent = False  # the server has heard of this transaction
        self._writes = True
        self._refused: Exception | None = None
        """What a check has raised: nothing more happens in this transaction, whoever has caught it."""
        self.is_stale = False
        """To be replaced before the next transaction: what it has prepared does not fit the tables any more."""

    @property
    def is_idle(self) -> bool:
        """Open, and outside any transaction."""
        return is_idle(self.raw)

    async def drive(self, script: Script[T]) -> T:
        """Run a script to its end; one whose caller is cancelled is dropped where it is."""
        result = await drive_async(script, self.execute)
        if self._queue and not self._begun:  # outside a transaction no commit comes with which it could travel
            await self._flush(self._queue.pop())
        return result

    async def execute(self, step: Step) -> Answer:
        """Run one step."""
        match step:
            case Call():
                return await self._call(step)
            case Later():
                return await self._later(step)
            case Wake():
                self._woken[step] = None
            case Patience():
                self._queue.append(Command(b"SET LOCAL lock_timeout = %d" % max(1, int(step.seconds * 1_000))))
            case ByIndexes():
                self._queue.append(_BY_INDEXES)
            case Begin():
                self._begin(step)
            case Commit():
                return await self._commit()
            case Rollback():
                await self._rollback()
            case Savepoint():
                self._savepoints.append(len(self._queue))
                self._queue.append(_savepoint(b"SAVEPOINT", len(self._savepoints)))
            case Release():
                self._release()
            case RollbackTo():
                await self._rollback_to()
        return NOTHING

    async def execute_raw(self, sql: str, parameters: Sequence[Any]) -> Answer:
        """Run the user's own SQL as it is; the driver's errors are the user's and pass through untranslated, but for those
        that are about the whole transaction, which may be done again."""
        self._check()
        # Without parameters psycopg leaves a % alone, as users expect of SQL that takes none.
        return await self._flush(Command(sql.encode(), parameters or None, is_users=True))

    async def close(self) -> None:
        """Close; the server rolls back what is open."""
        await self.raw.close()

    def _check(self) -> None:
        if self._refused is not None:
            raise self._refused
        # On an idle connection the server would commit each further statement alone, and answer COMMIT with a warning.
        if self._sent and self.is_idle:
            raise NoTransaction(
                f"the transaction in {self.name} was ended by a COMMIT or ROLLBACK of yours: begin again"
            )

    async def _call(self, call: Call) -> Answer:
        self._check()
        try:
            command = _command(call)
            if call.statement.deferred and self._begun:
                self._queue.append(command)
                return NOTHING
            return await self._flush(command)
        except (UnicodeEncodeError, OverflowError) as error:
            raise InvalidInput(f"a value does not fit into {self.name}: {error}") from error

    async def _later(self, step: Later) -> Answer:
        self._check()
        strict = None if step.strict is None else _command(step.strict)._replace(denied=step.check)
        self._queue.append(_command(step.call)._replace(check=step.check, refuses=step.refuses, strict=strict))
        return NOTHING

    def _begin(self, begin: Begin) -> None:
        self._woken.clear()
        self._savepoints.clear()
        self._queue = [_BEGIN[begin.writes], *self._first]
        self._begun, self._sent, self._writes, self._refused = True, False, begin.writes, None

    async def _commit(self) -> Answer:
        self._check()
        nothing_done = not self._sent and len(self._queue) == 1 + len(self._first)
        if nothing_done:
            self._queue.clear()
        else:
            refusing = [command for command in self._queue if command.refuses]
            if all(command.strict for command in refusing):
                self._queue = [command.strict or command for command in self._queue]
            else:  # what a check raises must be known before
                await self._flush(self._queue.pop())
            await self._flush(_COMMIT)
        self._begun = self._sent = False
        topics = dict.fromkeys(wake.topic for wake in self._woken if wake.when is None or wake.when())
        return Answer([(topic,) for topic in topics], 0)

    async def _rollback(self) -> None:
        self._queue.clear()
        self._savepoints.clear()
        self._woken.clear()
        sent, self._begun, self._sent, self._refused = self._sent, False, False, None
        if sent and not self.is_idle:
            # psycopg forgets all that it has prepared at each ROLLBACK, and most transactions that only read end in one.
            await self._quietly(_ROLLBACK if self._writes else _COMMIT)

    def _release(self) -> None:
        at = self._savepoints.pop()
        if at is None:
            self._queue.append(_savepoint(b"RELEASE SAVEPOINT", len(self._savepoints) + 1))
        else:  # nothing behind it waits for an answer, so no error could be undone alone
            del self._queue[at]

    async def _rollback_to(self) -> None:
        at = self._savepoints.pop()
        if at is not None:
            del self._queue[at:]
            return
        self._queue.clear()
        name = len(self._savepoints) + 1
        await self._quietly(_savepoint(b"ROLLBACK TO SAVEPOINT", name))
        self._queue.append(_savepoint(b"RELEASE SAVEPOINT", name))

    async def _quietly(self, command: Command) -> None:
        """They never fail visibly; the connection will be replaced."""
        with suppress(CommandFailed):
            await send(self.raw, [command], prepare=self._prepare)

    async def _flush(self, command: Command) -> Answer:
        """Send what waits, and this behind it; its answer."""
        commands = [*self._queue, command]
        # Outside transactions there are single statements that read; like a BEGIN, they may be sent once more.
        begins = not self._sent
        self._queue.clear()
        self._savepoints = [None] * len(self._savepoints)
        self._sent = self._begun
        try:
            try:
                return await self._answered(commands)
            except CommandFailed as failed:
                if not begins or command is _COMMIT or not self._never_began(failed):
                    raise
                # The BEGIN was in it and the COMMIT was not: nothing has happened. A server that was restarted, or a
                # network that forgets, breaks connections while they are idle.
                self.raw = await self._replace(self.raw)
                return await self._answered(commands)
        except CommandFailed as failed:
            raise self._translated(failed, commits=command is _COMMIT) from failed.error

    async def _answered(self, commands: Sequence[Command]) -> Answer:
        replies = await send(self.raw, commands, prepare=self._prepare)
        try:
            for command, reply in zip(commands, replies, strict=True):
                if command.check is not None:
                    command.check(reply.answer)
        except Exception as refused:
            self._refused = refused
            raise
        # The server answers COMMIT with ROLLBACK, and no error, where a statement before has failed.
        if commands[-1] is _COMMIT and reply.status != "COMMIT":
            raise NoTransaction(f"the transaction in {self.name} was rolled back: a statement in it had failed before")
        return reply.answer

    def _never_began(self, failed: CommandFailed) -> bool:
        """Lost, or refused by what has become a standby: another connection may lead to another server."""
        return connection_lost(failed.error) or failed.command in _BEGIN.values()

    def _translated(self, failed: CommandFailed, *, commits: bool) -> Exception:
        error = failed.error
        if commits and (connection_lost(error) or self.raw.closed):
            return OutcomeUnknown(f"the commit to {self.name} was sent and its answer lost: {line(error)}")
        if failed.command.denied is not None and error.sqlstate == "22012":
            try:
                failed.command.denied(NOTHING)
            except Exception as denied:
                return denied
        problem = translated(error, self.name)
        if failed.command in _BEGIN.values() and not isinstance(problem, Lost):
            problem = Lost(f"{self.name} begins no transaction that writes, as a standby would not: {line(error)}")
        self.is_stale = self.is_stale or failed.unread or isinstance(problem, Stale)
        return error if failed.command.is_users and not isinstance(problem, Restartable) else problem


def _command(call: Call) -> Command:
    rendered = _rendered.get(call.statement)
    if rendered is None:
        rendered = _rendered[call.statement] = render_numbered(call.statement)
    bound = bind(rendered, call.values)
    return Command(rendered.text.encode(), [bound[name] for name in rendered.order])


def _savepoint(verb: bytes, depth: int) -> Command:
    return Command(b"%s faultproof_%d" % (verb, depth), prepare=True)
