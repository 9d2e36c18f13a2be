"""`faultproof saga …`: look after sagas, from outside their application and while its workers run."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Literal, TypeVar, cast

import typer
from rich.table import Table
from rich.text import Text

from faultproof.cli.output import JsonOption, confirm, console, one_line, print_json, span_of_time
from faultproof.clock import Env
from faultproof.connect import connect
from faultproof.errors import InvalidInput
from faultproof.patterns.saga import operations, pictures, sql
from faultproof.ports.database import Database
from faultproof.ports.script import Script
from faultproof.signals import Signals

T = TypeVar("T")

_WIDTH_PIPED = 200
_NOTICE_S = 1.0

app = typer.Typer(
    no_args_is_help=True, help="Look after sagas: how far they are, what is stuck, and what to do about it."
)

DbOption = Annotated[
    str, typer.Option("--db", metavar="URL", help="The database: a path, sqlite:///path, or postgresql://…")
]
NameOption = Annotated[str, typer.Option("--name", help="The kind of saga; needed where the database has several.")]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="A saga's id.")]
LimitOption = Annotated[int, typer.Option("--limit", help="How many to show, 1 to 10,000.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command("list")
def list_(
    db: DbOption,
    name: NameOption = "",
    state: Annotated[str, typer.Option("--state", help=f"One of {', '.join(operations.STATES)}.")] = "",
    limit: LimitOption = 100,
    json: JsonOption = False,
) -> None:
    """List sagas that are not over, or those of one state."""
    _show(_on(db, name, lambda database, saga: database.read(operations.listed(saga, state or None, limit))), json)


@app.command("stuck")
def stuck(
    db: DbOption,
    name: NameOption = "",
    older: Annotated[float, typer.Option("--older", help="Seconds without a line in the journal.")] = 60.0,
    limit: LimitOption = 100,
    json: JsonOption = False,
) -> None:
    """List sagas that want attention, and those that have been quiet for long.

    One that wants attention goes on after `retry` or `skip`, or ends with
    `resolve`. One that is quiet waits for a callback or a far retry, or has
    no worker: `faultproof saga show ID` says which step it is at.
    """
    _show(_on(db, name, lambda database, saga: database.read(operations.stuck(saga, older, limit))), json)


@app.command("show")
def show(id: IdArgument, db: DbOption, name: NameOption = "", json: JsonOption = False) -> None:
    """Show one saga: its steps, and its journal."""

    def look(saga: str) -> Script[tuple[str, list[operations.HistoryEntry]]]:
        return (yield from pictures.of_one(saga, id)), (yield from operations.history(saga, id))

    picture, lines = _on(db, name, lambda database, saga: database.read(look(saga)))
    if json:
        print_json([line._asdict() for line in lines])
        return
    out = console(width_piped=_WIDTH_PIPED)
    for line in picture.splitlines():
        out.print(Text(line if line.isprintable() else one_line(line)), soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("after", "step", "what", "attempt", "data"):
        table.add_column(title, overflow="fold")
    began = lines[0].at_us if lines else 0
    for entry in lines:
        after = f"{(entry.at_us - began) / 1000:,.1f} ms"
        attempt = str(entry.attempt) if entry.attempt else ""
        table.add_row(after, entry.step, entry.what, attempt, Text(one_line(entry.data or "", 200)))
    out.print(table)


@app.command("retry")
def retry(id: IdArgument, db: DbOption, name: NameOption = "", json: JsonOption = False) -> None:
    """Try again what a saga could not do, with fresh attempts.

    For when the reason is gone: `faultproof saga stuck` shows it. The same
    calls are made with the same idempotency keys, as often as the step's
    policy says; if they fail, the saga wants attention again.
    """
    _on(
        db,
        name,
        lambda database, saga: database.transact(lambda: operations.retry(database, saga, id)),
    )
    _told("retried", id, json)


@app.command("skip")
def skip(
    id: IdArgument,
    db: DbOption,
    name: NameOption = "",
    result: Annotated[
        str,
        typer.Option(
            "--result",
            metavar="JSON",
            help="What the action has returned, for the steps that ask for it; without: null. Not for an undo.",
        ),
    ] = "",
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Count the step that a saga could not do, or undo, as done: somebody has seen to it.

    See first which step that is, with `faultproof saga show ID`. The result
    of an action must be of the type that the step returns in the application,
    which this command does not know: a text is '"ch-17"', an object
    '{"charge": "ch-17"}'. If it is of another, the steps that ask for it fail.
    `Saga.skip` in a program of the application checks it.
    """
    encoded = operations.typed_in(result) if result else None  # before anybody is asked
    if not yes:
        confirm(f"Count what the saga {id!r} could not do as done?")
    _on(
        db,
        name,
        lambda database, saga: database.transact(lambda: operations.skip(database, saga, id, result=encoded)),
    )
    _told("skipped", id, json)


@app.command("resolve")
def resolve(
    id: IdArgument,
    db: DbOption,
    outcome: Annotated[str, typer.Option("--as", help="completed or compensated.")],
    reason: Annotated[str, typer.Option("--reason", help="For the journal: what was done, and by whom.")],
    name: NameOption = "",
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """End a saga by hand: somebody has done, or undone, what was left.

    Nobody is called and nothing is undone any more. It also ends a saga whose
    rows are damaged.
    """
    if outcome not in ("completed", "compensated"):
        raise InvalidInput(f"--as is completed or compensated, got {outcome!r}")
    if not yes:
        confirm(f"End the saga {id!r} as {outcome}, without calling anybody?")
    ends = cast(Literal["completed", "compensated"], outcome)
    _on(
        db,
        name,
        lambda database, saga: database.transact(
            lambda: operations.resolve(saga, id, outcome=ends, reason=one_line(reason))
        ),
    )
    _told("resolved", id, json)


def _on(db: str, name: str, work: Callable[[Database, str], Awaitable[T]]) -> T:
    """Do the work on a database that is there and has sagas of that name, or of one name only."""

    async def main() -> T:
        notice = asyncio.get_running_loop().call_later(_NOTICE_S, _waiting)
        try:
            # The application's telemetry is not ours to feed.
            async with connect(db, env=Env(signals=Signals(sinks=())), create=False) as database:
                return await work(database, await database.read(_named(database, name)))
        finally:
            notice.cancel()

    return asyncio.run(main())


def _named(database: Database, name: str) -> Script[str]:
    yield from operations.require(database)
    names = yield from sql.names()
    if name in names:
        return name
    if not name and len(names) == 1:
        return names[0]
    there = ", ".join(map(repr, names)) or "none yet"
    raise InvalidInput(f"give the kind of saga with --name, of those that were ever started here: {there}")


def _waiting() -> None:
    if sys.stderr.isatty():
        print("waiting for the database …", file=sys.stderr)


def _show(rows: Sequence[sql.Listed], json: bool) -> None:
    if json:
        print_json([row._asdict() for row in rows])
        return
    out = console(width_piped=_WIDTH_PIPED)
    if not rows:
        out.print("no sagas")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("id", "state", "last", "age", "quiet", "reason"):
        table.add_column(title, no_wrap=title == "id", overflow="fold")
    for row in rows:
        last = " ".join(filter(None, (row.step, row.what)))
        quiet = span_of_time(row.quiet_s)
        table.add_row(
            Text(row.id), row.state, last, span_of_time(row.age_s), quiet, Text(one_line(row.reason or "", 200))
        )
    out.print(table)


def _told(verb: str, id: str, json: bool) -> None:
    if json:
        print_json({verb: id})
    else:
        console(width_piped=_WIDTH_PIPED).print(Text(f"{verb} {one_line(id)}"), soft_wrap=True)
