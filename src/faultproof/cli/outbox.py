"""`faultproof outbox …`: look after an outbox, from outside its application and while its workers run."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, TypeVar

import typer
from rich.table import Table
from rich.text import Text

from faultproof.cli.output import JsonOption, confirm, console, one_line, print_json, span_of_time
from faultproof.clock import Env
from faultproof.connect import connect
from faultproof.errors import InvalidInput
from faultproof.patterns.outbox import DeadLetter, GroupLag, Lag, operations
from faultproof.patterns.outbox.dead_letters import DeadLetters
from faultproof.patterns.outbox.lag import measure
from faultproof.ports.database import Database
from faultproof.signals import Signals

T = TypeVar("T")

_WIDTH_PIPED = 200  # an event a line, with its error
_AT_ONCE = 1_000  # dead letters that one transaction replays or discards
_NOTICE_S = 1.0

app = typer.Typer(no_args_is_help=True, help="Look after an outbox: what waits, who is at it, what was given up.")

DbOption = Annotated[
    str, typer.Option("--db", metavar="URL", help="The database: a path, sqlite:///path, or postgresql://…")
]
NameOption = Annotated[str, typer.Option("--name", help="The outbox, where the database has several.")]
GroupOption = Annotated[str, typer.Option("--group", help="The consumer group.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="ID…", help="Dead letters, by event id.")]
AllOption = Annotated[bool, typer.Option("--all", help="All dead letters of the group.")]


@app.command("lag")
def lag(db: DbOption, name: NameOption = "outbox", json: JsonOption = False) -> None:
    """Show what is committed and not delivered yet, how old it is, and who is at it."""

    async def look(database: Database) -> tuple[Lag, int]:
        spans = await database.read(database.logs.spans(name))
        return await measure(database, name), len(spans)

    seen, partitions = _on(db, name, None, look)
    if json:
        print_json(_lag_document(seen, name, partitions))
        return
    out = console(width_piped=_WIDTH_PIPED)
    oldest = f", the oldest {span_of_time(seen.age_s)} old" if seen.events else ""
    out.print(Text(f"intake     {seen.events:,} events{oldest}; {seen.delayed:,} delayed"))
    for owner, numbers in seen.sequencers.items():
        out.print(Text(f"sequencer  {one_line(owner)} has partitions {_ranges(numbers)}"))
    if unheld := _unheld(seen.sequencers, partitions):
        out.print(
            Text(f"sequencer  nobody has partitions {_ranges(unheld)}: no worker runs one, or its lease has run out")
        )
    if not seen.groups:
        out.print("groups     none yet")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("group", "behind", "oldest", "parked", "dead", "consumed by (partitions)"):
        table.add_column(title, justify="right" if title in ("behind", "oldest", "parked", "dead") else "left")
    for group in seen.groups:
        table.add_row(*_group_row(group))
    out.print(table)


@app.command("dead")
def dead(
    db: DbOption,
    group: GroupOption,
    name: NameOption = "outbox",
    limit: Annotated[int, typer.Option("--limit", help="How many to show, 1 to 10,000.")] = 100,
    json: JsonOption = False,
) -> None:
    """List the events that a group has given up, oldest first."""
    letters = _on(db, name, group, lambda database: DeadLetters(database, name, group).list(limit=limit))
    if json:
        print_json([letter._asdict() for letter in letters])
        return
    out = console(width_piped=_WIDTH_PIPED)
    if not letters:
        out.print(Text(f"{group!r} has no dead letters"))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for title in ("id", "type", "key", "attempts", "published (UTC)", "error", "payload"):
        table.add_column(title, no_wrap=title == "id", overflow="fold")
    for letter in letters:
        table.add_row(*_letter_row(letter))
    out.print(table)
    if len(letters) == limit:
        out.print(f"There may be more: these are the first {limit}; --limit shows others.")


@app.command("replay")
def replay(
    db: DbOption,
    group: GroupOption,
    ids: IdsArgument = None,
    name: NameOption = "outbox",
    all: AllOption = False,
    json: JsonOption = False,
) -> None:
    """Attempt dead letters again, from the first attempt."""
    wanted = _wanted(ids, all)

    async def act(database: Database) -> list[str]:
        letters = DeadLetters(database, name, group)
        if all:
            return await _all(lambda: measure(database, name), group, letters.replay_all)
        return [id for id in wanted if await letters.replay(id)]

    _told("replayed", group, wanted, _on(db, name, group, act), json)


@app.command("discard")
def discard(
    db: DbOption,
    group: GroupOption,
    ids: IdsArgument = None,
    name: NameOption = "outbox",
    all: AllOption = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Give dead letters up for good; the events behind them go on."""
    wanted = _wanted(ids, all)
    there = _facts(_on(db, name, group, lambda database: measure(database, name)), group).dead
    if there and not yes:
        which = f"all {there:,} dead letters" if all else f"{len(wanted)} of {there:,} dead letters"
        confirm(f"Discard {which} of {group!r} for good?")

    async def act(database: Database) -> list[str]:
        letters = DeadLetters(database, name, group)
        if all:
            return await _all(lambda: measure(database, name), group, letters.discard_all)
        return [id for id in wanted if await letters.discard(id)]

    _told("discarded", group, wanted, _on(db, name, group, act), json)


@app.command("forget")
def forget(
    group: Annotated[str, typer.Argument(metavar="GROUP", help="A consumer group that will not come back.")],
    db: DbOption,
    name: NameOption = "outbox",
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Remove a group with its progress and its dead letters, so that retention goes on without it."""
    facts = _facts(_on(db, name, group, lambda database: measure(database, name)), group)
    if not yes:
        by = f"; it is being consumed by {', '.join(map(one_line, facts.holders))}" if facts.holders else ""
        confirm(
            f"Forget {group!r}, which has {facts.events:,} events before it, {facts.parked:,} parked and "
            f"{facts.dead:,} dead letters{by}?"
        )
    _on(db, name, group, lambda database: database.transact(operations.forget(database, name, group)))
    if json:
        print_json({"forgotten": group})
    else:
        console(width_piped=_WIDTH_PIPED).print(Text(f"forgot {group!r}"))


def _on(db: str, name: str, group: str | None, work: Callable[[Database], Awaitable[T]]) -> T:
    """Do the work on a database that is there, of a version we know, with that outbox and group."""

    async def main() -> T:
        notice = asyncio.get_running_loop().call_later(_NOTICE_S, _waiting)
        try:
            # The application's telemetry is not ours to feed.
            async with connect(db, env=Env(signals=Signals(sinks=())), create=False) as database:
                await database.read(operations.require(database, name, group))
                return await work(database)
        finally:
            notice.cancel()

    return asyncio.run(main())


def _waiting() -> None:
    if sys.stderr.isatty():
        print("waiting for the database …", file=sys.stderr)


def _wanted(ids: Sequence[str] | None, all: bool) -> list[str]:
    if bool(ids) == all:
        raise InvalidInput("name dead letters by their ids, or give --all; `faultproof outbox dead` lists them")
    return list(dict.fromkeys(ids or ()))


async def _all(
    look: Callable[[], Awaitable[Lag]], group: str, some: Callable[..., Awaitable[tuple[str, ...]]]
) -> list[str]:
    """As many as there are now: those that die meanwhile, perhaps again, are another decision."""
    left, done = _facts(await look(), group).dead, list[str]()
    while left > 0 and (ids := await some(limit=min(left, _AT_ONCE))):
        done += ids
        left -= len(ids)
    return done


def _facts(seen: Lag, group: str) -> GroupLag:
    found = next((each for each in seen.groups if each.group == group), None)
    if found is None:
        raise InvalidInput(f"the group {group!r} has been forgotten meanwhile")
    return found


def _told(verb: str, group: str, wanted: Sequence[str], done: Sequence[str], json: bool) -> None:
    missing = [id for id in wanted if id not in set(done)]
    if json:
        print_json({verb: done, "not_dead": missing})
    else:
        out = console(width_piped=_WIDTH_PIPED)
        for id in done:
            out.print(Text(f"{verb} {one_line(id)}"), soft_wrap=True)
        if not done and not missing:
            out.print(Text(f"{group!r} has no dead letters"))
    if missing:
        names = ", ".join(repr(id) for id in missing)
        raise InvalidInput(f"not among the dead letters of {group!r}, and left alone: {names}")


def _lag_document(seen: Lag, name: str, partitions: int) -> dict[str, object]:
    return {
        "outbox": name,
        "intake": {"events": seen.events, "age_s": seen.age_s, "delayed": seen.delayed},
        "sequencer": {
            "partitions": partitions,
            "holders": seen.sequencers,
            "unheld": _unheld(seen.sequencers, partitions),
        },
        "groups": [group._asdict() for group in seen.groups],
    }


def _group_row(group: GroupLag) -> list[Text]:
    by = ", ".join(f"{one_line(owner)} ({_ranges(numbers)})" for owner, numbers in group.holders.items())
    age = span_of_time(group.age_s) if group.events else "-"
    return [
        Text(cell)
        for cell in (group.group, f"{group.events:,}", age, f"{group.parked:,}", f"{group.dead:,}", by or "nobody")
    ]


def _letter_row(letter: DeadLetter) -> list[Text]:
    cells = (
        letter.id,
        letter.type,
        "-" if letter.key is None else letter.key,
        str(letter.attempts),
        f"{letter.at:%Y-%m-%d %H:%M:%S}",
        letter.error or "-",
    )
    return [*(Text(one_line(cell, 120)) for cell in cells), Text(one_line(letter.payload, 60))]


def _unheld(holders: dict[str, list[int]], partitions: int) -> list[int]:
    held = {number for numbers in holders.values() for number in numbers}
    return [number for number in range(partitions) if number not in held]


def _ranges(numbers: Sequence[int]) -> str:
    """0-3, 7."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1][1:] = [number]
        else:
            ranges.append([number])
    return ", ".join("-".join(map(str, ends)) for ends in ranges)
