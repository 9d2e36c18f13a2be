"""Scripts: durable operations as I/O-free generators.

A script yields *steps* (a statement with its values, or a wake-up to send after the commit) and receives rows. It never
sees a connection, so one script serves the SQLite engine, a joined handle, PostgreSQL and the simulator, and every
yield is a place where a crash can be staged. A statement is declared as a typed function without a body::

    class Taken(NamedTuple):
        id: str
        token: int

    @sql("UPDATE job SET token = token + 1 WHERE due_us <= {now} AND id IN {ids} RETURNING id, token")
    def take(ids: Sequence[str]) -> list[Taken]: ...

    def work(ids: Sequence[str]) -> Script[int]:
        taken = yield from take(ids)
        return len(taken)

The signature is the whole contract: parameter types give PostgreSQL its casts, a sequence parameter becomes a set of
rows (`{ids}` is a subselect; of plain values its column is `value`, of named tuples it has their fields and an
`ordinal`), and the return type says how to decode:

===================  ==========================================================
`None`               nothing
`Changed`            how many rows were inserted, updated or deleted
`list[Row]`          all rows as the named tuple `Row`, or as plain values
`Row | None`         the first row, or None
`int`, `str` …       the first column of the only row
===================  ==========================================================

In the text `:name` is a parameter, and in braces stand the few things whose spelling differs between engines: `{now}` the
engine's clock in microseconds at the statement's beginning, `{moment}` after it may have waited for a lock, `{lock}` the
row lock that PostgreSQL needs and SQLite's one writer does not, `{lock_or_skip}` the same lock on those rows that nobody
else has locked (the others are left out of the result), and in data definitions `{serial}`, a growing integer key of which no
value is ever used again, and `{updated}` behind a table whose rows change often, which PostgreSQL had better store with room.
Values always travel as parameters; the text is fixed when the module is imported.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Awaitable, Callable, Generator
from typing import (
    Any,
    Generic,
    NamedTuple,
    ParamSpec,
    TypeAlias,
    TypeVar,
)

from faultproof.ports.statement import Answer, Statement, declared_statement, decoder

T = TypeVar("T")
P = ParamSpec("P")


class Call(NamedTuple):
    """A statement with its values: the step that an engine executes."""

    statement: Statement
    values: dict[str, Any]


class Later(NamedTuple):
    """A statement for whose answer the script does not wait. The engine gives it to `check` when it has it: at the latest
    with the answer to the next statement, or before the commit. What `check` raises ends the transaction."""

    call: Call
    check: Callable[[Answer], None]
    refuses: bool = True
    """No: `check` only takes note, so the answer may come with that to the commit."""
    strict: Call | None = None
    """The same as a statement that the server itself refuses, by a division by zero, where `check` would raise: then the
    commit need not wait for the answer either. Its own answer says nothing."""


class Wake(NamedTuple):
    """A step without I/O: once the transaction has committed, wake who waits for `topic`."""

    topic: str
    when: Callable[[], bool] | None = None
    """Asked then whether there is news, because it hangs on an answer that came with the commit. None: there is."""


class Patience(NamedTuple):
    """From here to the end of the transaction, wait at most so long for each row that another has locked; then `Busy`.

    Where one writer at a time makes row locks needless it means nothing, and so it does inside a user's transaction, whose
    settings are the user's.
    """

    seconds: float


class ByIndexes(NamedTuple):
    """From here to the end of the transaction, tables are looked into by their indexes: they may be nearly empty now, and full
    in a moment, and a planner that has seen them empty would read all of them each time.

    Like `Patience` it means nothing where there is no such planner, and nothing inside a user's transaction.
    """


class Begin(NamedTuple):
    """Open a transaction that may write (SQLite: BEGIN IMMEDIATE), or a read-only one with a snapshot of its own."""

    writes: bool


class Commit(NamedTuple):
    """Make it durable. The answer's rows are the topics to wake."""


class Rollback(NamedTuple):
    """Undo it. Never fails visibly: a connection that cannot roll back is replaced."""


class Savepoint(NamedTuple):
    """Begin a part of the transaction that can be undone alone."""


class Release(NamedTuple):
    """Keep the part since the last `Savepoint`."""


class RollbackTo(NamedTuple):
    """Undo the part since the last `Savepoint`. Like `Rollback`, it never fails visibly."""


Step: TypeAlias = (
    Call | Later | Wake | Patience | ByIndexes | Begin | Commit | Rollback | Savepoint | Release | RollbackTo
)
Script: TypeAlias = Generator[Step, Answer, T]
Runnable: TypeAlias = Script[T] | Callable[[], Script[T]]
"""What a `Database` runs in a transaction of its own: a script, or a function that makes it. The function may be called
again, on another transaction, when one was rolled back through no fault of its own (a deadlock's victim, a connection
that broke before the commit): what it does to Python objects must bear that. A script alone cannot be begun again."""


def begun(work: Runnable[T]) -> Script[T]:
    """The script itself, made now if it is to be made."""
    return work() if callable(work) else work


def later(
    statement: Script[T],
    check: Callable[[T], None],
    *,
    refuses: bool = True,
    strict: Script[Any] | None = None,
) -> Script[None]:
    """The one statement of that script, with its result looked at whenever it comes: a round trip less where that counts."""
    call = next(statement)
    assert isinstance(call, Call)

    def answered(answer: Answer) -> None:
        try:
            statement.send(answer)
        except StopIteration as stop:
            check(stop.value)

    refusing = None if strict is None else next(strict)
    assert refusing is None or isinstance(refusing, Call)
    yield Later(call, answered, refuses, refusing)


class Inline:
    """As `tx` of a durable call inside a script: the call is then a part of that script, for `yield from`."""

    def run(self, script: Script[T], *, single: bool = False) -> Script[T]:
        """The script itself."""
        return script


def drive(script: Script[T], execute: Callable[[Step], Answer], step: Step | None = None) -> T:
    """Run a script to its end with a synchronous executor; errors are thrown into it, so that it may handle them.

    `step`: what a script that has been begun already yielded first.
    """
    try:
        if step is None:
            step = next(script)
        while True:
            try:
                answer = execute(step)
            except Exception as error:
                step = script.throw(error)
            else:
                step = script.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def drive_async(script: Script[T], execute: Callable[[Step], Awaitable[Answer]]) -> T:
    """Run a script to its end with an asynchronous executor; otherwise like `drive`."""
    try:
        step = next(script)
        while True:
            try:
                answer = await execute(step)
            except Exception as error:
                step = script.throw(error)
            else:
                step = script.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result


class Committed(NamedTuple, Generic[T]):
    """A transaction's result, with the topics that its commit makes news for."""

    result: T
    topics: tuple[str, ...]


def transaction(script: Script[T]) -> Script[Committed[T]]:
    """The script between BEGIN and COMMIT; any error inside rolls back."""
    yield Begin(writes=True)
    try:
        result = yield from script
    except GeneratorExit:  # abandoned: it may yield nothing any more
        raise
    except BaseException:
        yield Rollback()
        raise
    committed = yield Commit()
    return Committed(result, tuple(topic for (topic,) in committed.rows))


def atomic(script: Script[T]) -> Script[T]:
    """The script as a part of a transaction that goes on: all of its changes or, after an error, none of them."""
    yield Savepoint()
    try:
        result = yield from script
    except Exception:
        yield RollbackTo()
        raise
    yield Release()
    return result


def on_snapshot(script: Script[T]) -> Script[T]:
    """The script on one consistent snapshot, writing nothing."""
    yield Begin(writes=False)
    try:
        result = yield from script
    except Exception:  # not `finally`: a script that is abandoned is closed, and may yield nothing then
        yield Rollback()
        raise
    yield Rollback()
    return result


def sql(
    text: str, *, postgres: str | None = None, deferred: bool = False
) -> Callable[[Callable[P, T]], Callable[P, Script[T]]]:
    """Declare a statement; see the module's docstring. `postgres` is a variant only for what row locks require;
    `deferred` (of a statement that returns nothing) lets it travel with what follows in its transaction."""

    def declare(declared: Callable[P, T]) -> Callable[P, Script[T]]:
        statement = declared_statement(declared, text, postgres, deferred)
        names = tuple(parameter.name for parameter in statement.parameters)
        count = len(names)
        decode = statement.decode

        def script(*args: P.args, **kwargs: P.kwargs) -> Script[T]:
            given: tuple[Any, ...] = args
            if kwargs or len(args) != count:  # or a TypeError, as from any function
                given = inspect.signature(declared).bind(*args, **kwargs).args
            values = dict(zip(names, given, strict=True))
            answer = yield Call(statement, values)
            result: T = decode(answer)
            return result

        script.__name__ = declared.__name__
        script.__doc__ = declared.__doc__
        script.statement = statement  # type: ignore[attr-defined]  # for tests and derived mutants
        return script

    return declare


def ddl(text: str) -> Script[None]:
    """Run one data definition statement, written in what the engines have in common."""
    yield Call(_ddl(text), {})


@functools.cache  # bounded: the texts are constants; engines keep what they rendered for each statement
def _ddl(text: str) -> Statement:
    return Statement("ddl", " ".join(text.split()), None, (), decoder(types.NoneType), "install")
