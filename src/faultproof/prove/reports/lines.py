"""A run that violated its proof, in a few lines of plain text."""

from __future__ import annotations

from collections.abc import Iterator

from faultproof.prove.story import Asked, Event, Story, what_matters

STATEMENTS_NAMED = 4
"""Of one operation; the page shows them all."""


def struck(story: Story) -> list[str]:
    """Where each fault struck: between which statements, at which line of whose source."""
    return [line for event in story.events if event.kind == "fault" for line in _point(event)]


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


def operation(event: Event) -> str:
    """One event in a line."""
    parts = [f"{event.at:.3f} s", event.who, _doing(event)]
    if event.site is not None and event.kind != "fault":
        parts.append(f"[{event.site.file}:{event.site.line}]")
    return "  ".join(parts)


def named(statements: tuple[Asked, ...]) -> str:
    """The statements' names, without where they are declared."""
    names = [short_name(each) for each in statements]
    return ", ".join(names[:STATEMENTS_NAMED]) + (" …" if len(names) > STATEMENTS_NAMED else "")


def short_name(statement: Asked) -> str:
    """What stands in the source, without its module."""
    return statement.name.rpartition(".")[2].strip("_")


def _doing(event: Event) -> str:
    if event.kind == "fault":
        return f"*** {event.what}"
    if event.kind == "note":
        return f"tells the outside: {event.what} {event.answer}"
    said = f"{event.what}: {named(event.statements)}" if event.statements else event.what
    if event.failed:
        return f"{said}; fails: {event.answer}"
    return f"{said}; committed" if event.commits else said


def _point(event: Event) -> Iterator[str]:
    if event.statements:
        yield f"{event.what} ({named(event.statements)})"
    else:
        yield event.what
    if event.site is not None:
        yield f"{event.site}: {event.site.code}"

