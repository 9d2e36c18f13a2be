"""A run that violated its proof, in a few lines of plain text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from faultproof.prove.story import USER_SQL, Asked, Happening, Story, what_matters

STATEMENTS_NAMED = 4
"""Of one operation; the page shows them all."""


def struck(story: Story) -> list[tuple[str, str]]:
    """Of each fault: what it struck, and at which line of whose source (or "")."""
    points = []
    for fault, event in zip(story.faults, (each for each in story.events if each.kind == "fault"), strict=False):
        _, _, target = event.what.partition(" ")
        about = [] if target in fault else [target.partition(" ")[2]]
        about += [named(event.statements)] if event.statements else []
        points.append((f"{fault} ({': '.join(about)})" if about else fault, at(event)))
    return points


def at(event: Happening) -> str:
    """The line of the source that asked for it; "" if that is not known."""
    return "" if event.site is None else f"{event.site}: {event.site.code}"


def operations(story: Story, most: int) -> list[str]:
    """The few operations that tell what happened, in order: what led to the fault, and what followed from it."""
    return [operation(story.events[index]) for index in what_matters(story, most)]


def expected_and_seen(story: Story) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each property that was broken: what it claims, and what was there instead."""
    for each in story.broken:
        if each.event is not None and each.event < len(story.events):
            yield f"{each.claim} (until {operation(story.events[each.event])})", tuple(each.wrong)
        else:
            yield each.claim, tuple(each.wrong)


def operation(event: Happening) -> str:
    """One event in a line."""
    where = ""
    if event.site is not None and event.kind != "fault":
        where = f"{'/'.join(event.site.file.split('/')[-2:])}:{event.site.line}  "
    return f"{event.at:.3f} s  {event.who}  {where}{_doing(event)}"


def named(statements: Sequence[Asked]) -> str:
    """The statements' names, without where they are declared; one that was repeated is counted."""
    runs = [(name, len(list(same))) for name, same in groupby(short_name(each) for each in statements)]
    names = [f"{name} ×{times}" if times > 1 else name for name, times in runs]
    return ", ".join(names[:STATEMENTS_NAMED]) + (" …" if len(names) > STATEMENTS_NAMED else "")


def short_name(statement: Asked) -> str:
    """What stands in the source, without its module; of SQL that has no name, its beginning."""
    if statement.name == USER_SQL:
        return " ".join(statement.text.split()[:3])
    return statement.name.rpartition(".")[2].strip("_")


def _doing(event: Happening) -> str:
    if event.kind == "fault":
        return f"*** {event.what}"
    if event.kind == "note":
        return f"tells the outside: {event.what} {event.answer}"
    said = f"{event.what}: {named(event.statements)}" if event.statements else event.what
    if event.failed:
        return f"{said}; fails: {event.answer}"
    return f"{said}; committed" if event.commits else said
