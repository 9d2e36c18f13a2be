"""Sending commands to the server: one by itself, several in one round trip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from faultproof.engines.postgres.direct import Direct, Reply
from faultproof.ports.statement import Answer

Raw = psycopg.AsyncConnection[Any]


class Command(NamedTuple):
    """One statement with its parameters."""

    text: bytes
    parameters: Any = ()
    """Of ours, whose places are `$1` …: a value for each. The user's are as psycopg takes them."""
    prepare: bool | None = None
    """True: always, because it comes with nearly every transaction. None: psycopg decides, after five times."""
    is_users: bool = False
    """The user's own SQL, whose errors are the user's."""
    check: Callable[[Answer], None] | None = None
    """Given its answer, which nobody else waits for."""
    refuses: bool = False
    """`check` may raise, which has to be known before the commit."""
    denied: Callable[[Answer], None] | None = None
    """Raises what it means that the server has refused it for a division by zero."""
    strict: Command | None = None
    """What may be sent together with the commit instead, because the server refuses it where `check` would raise."""


class CommandFailed(Exception):
    """`command` was refused, or the connection was lost before the server had answered it; `__cause__` is psycopg's."""

    def __init__(self, command: Command, error: psycopg.Error, *, unread: bool) -> None:
        super().__init__(str(error))
        self.command = command
        self.error = error
        self.unread = unread
        """There were commands behind it, which the server skipped. psycopg may take one of them for prepared."""


async def send(raw: Raw, commands: Sequence[Command], *, prepare: bool) -> list[Reply]:
    """Run the commands in order, up to the first that fails; the reply to each. Raises `CommandFailed`.

    `prepare=False`: nothing is prepared, because the next transaction may meet another server process.
    """
    if not isinstance(raw, Direct):
        return await _by_cursors(raw, commands, prepare)
    if not any(command.is_users for command in commands):
        return await _directly(raw, commands, prepare)
    replies = await _by_cursors(raw, commands, prepare)
    raw.noticed(replies[-1].status)
    return replies


async def _directly(raw: Direct, commands: Sequence[Command], prepare: bool) -> list[Reply]:
    try:
        done = await raw.exchange([(command.text, command.parameters) for command in commands], prepare=prepare)
    except psycopg.Error as error:
        raise CommandFailed(commands[-1], error, unread=False) from error
    if done.refused is not None:
        raise CommandFailed(commands[len(done.replies)], done.refused, unread=False) from done.refused
    return done.replies


async def _by_cursors(raw: Raw, commands: Sequence[Command], prepare: bool) -> list[Reply]:
    before: Cursors = []
    if len(commands) > 1 and _takes_several(commands[-1]):
        before = await _pipelined(raw, commands[:-1], prepare)
        commands = commands[-1:]
    cursors = before + await (_alone if len(commands) == 1 else _pipelined)(raw, commands, prepare)
    return [Reply(Answer(await c.fetchall() if c.description else (), c.rowcount), c.statusmessage) for c in cursors]


def is_idle(raw: Raw) -> bool:
    """Open, outside any transaction, and with nothing under way."""
    return raw.pgconn.transaction_status == TransactionStatus.IDLE and raw.pgconn.pipeline_status == PipelineStatus.OFF


def is_alive(raw: Raw) -> bool:
    """Whether an idle connection can still be used, as far as can be told without asking the server: one that the
    server has ended meanwhile has said so already."""
    try:
        raw.pgconn.consume_input()
    except psycopg.Error:
        return False
    return is_idle(raw)


def is_settled(raw: Raw) -> bool:
    """Whether it can be lent again as it is."""
    return not isinstance(raw, Direct) or raw.is_settled


async def settle(raw: Raw) -> bool:
    """Make it so; False where it is lost."""
    return not isinstance(raw, Direct) or await raw.settle()


def _takes_several(command: Command) -> bool:
    """The user's own SQL without parameters may hold several statements, which a pipeline does not take."""
    return command.is_users and not command.parameters and b";" in command.text.strip().rstrip(b";")


Cursors = list[psycopg.AsyncCursor[TupleRow]]


def _cursor(raw: Raw, command: Command) -> psycopg.AsyncCursor[TupleRow]:
    # Said in full: the user's pool may make connections of other rows, or whose cursors splice parameters into the text.
    return (psycopg.AsyncCursor if command.is_users else psycopg.AsyncRawCursor)(raw, row_factory=tuple_row)


async def _alone(raw: Raw, commands: Sequence[Command], prepare: bool) -> Cursors:
    (command,) = commands
    cursor = _cursor(raw, command)
    try:
        # BEGIN and its like gain nothing from being prepared here: without parameters they travel as they are.
        wanted = False if not prepare or command.prepare else command.prepare
        await cursor.execute(command.text, command.parameters or None, prepare=wanted)
    except psycopg.Error as error:
        raise CommandFailed(command, error, unread=False) from error
    return [cursor]


async def _pipelined(raw: Raw, commands: Sequence[Command], prepare: bool) -> Cursors:
    cursors = [_cursor(raw, command) for command in commands]
    try:
        async with raw.pipeline():
            for cursor, command in zip(cursors, commands, strict=True):
                await cursor.execute(
                    command.text, command.parameters or None, prepare=command.prepare if prepare else False
                )
    except psycopg.Error as error:
        # Those before the one that failed have their results; those behind it the server did not look at.
        failed = next((n for n, cursor in enumerate(cursors) if cursor.pgresult is None), len(cursors) - 1)
        raise CommandFailed(commands[failed], error, unread=failed + 1 < len(commands)) from error
    return cursors
