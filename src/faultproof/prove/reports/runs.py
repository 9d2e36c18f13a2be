"""One run on the page: its picture, what is told of each event when it is clicked, and the same as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from faultproof.pages import text
from faultproof.prove.reports.facts import Run
from faultproof.prove.reports.lines import named, short_name
from faultproof.prove.reports.timeline import timeline
from faultproof.prove.story import USER_SQL, Asked, Happening, Site, Story, what_matters

EVENTS_SHOWN_MAX = 300
"""Of one run; the command line repeats it in full."""


class Shown(NamedTuple):
    """A run that is on the page."""

    run: Run
    id: str
    group: str
    content: str
    size: int
    """Bytes it takes, its history included."""

    def html(self, *, is_first: bool) -> str:
        """A button, its label, and what it shows."""
        checked = " checked" if is_first else ""
        return (
            f'<input type="radio" name="{self.group}runs" id="{self.id}"{checked}><label for="{self.id}">'
            f'{text(self.run.title)}</label><div class="run">{self.content}</div>'
        )


def panel(run: Run, id: str, group: str) -> Shown:
    """The run, ready to be shown. `id` and `group` are unique on the page."""
    story = run.story
    shown = min(len(story.events), EVENTS_SHOWN_MAX)
    rest = len(story.events) - shown + story.left_out
    first = _first(story, shown)
    events = "".join(_event(event, f"{id}e{n}") for n, event in enumerate(story.events[:shown]))
    more = f'<p class="small">{rest:,} more events are not shown.</p>' if rest else ""
    replay = f'<p class="small">Repeat it: <code>{text(run.replay)}</code></p>' if run.replay else ""
    content = (
        f'<p class="small">{text(run.why[:1].upper() + run.why[1:])}. {len(story.events) + story.left_out:,} events in '
        f"{story.seconds:.2f} seconds of its own time, which is not to scale; click on one.</p>"
        f"{timeline(story, shown, lambda n: f'#{id}e{n}', first)}"
        f'<div class="detail" aria-live="polite"></div>{more}{replay}'
        f'<details class="all"><summary>All events in words</summary><ol class="events">{events}</ol>'
        f"{_texts(story, shown)}</details>"
    )
    history_size = sum(300 + 170 * len(event.statements) for event in story.events)
    return Shown(run, id, group, content, len(content.encode()) + history_size)


def _first(story: Story, shown: int) -> int | None:
    """What is looked at first: where the fault struck."""
    faults = (n for n, event in enumerate(story.events[:shown]) if event.kind == "fault")
    return next(faults, next((n for n in what_matters(story, 1) if n < shown), None))


def _event(event: Happening, id: str) -> str:
    words = (
        f'<span class="t">{event.at:.3f} s</span> <span class="w">{text(event.who)}</span> '
        f'<span class="k-{event.kind}">{text(event.what)}</span>'
    )
    if event.kind == "operation" and event.statements:
        words += f": {text(named(event.statements))}"
    if event.commits:
        words += ' <span class="c">committed</span>'
    if event.failed:
        words += ' <span class="k-dies">failed</span>'
    if event.site is None and not event.answer and not event.statements:
        return f'<li class="plain" id="{id}">{words}</li>'
    told = [
        f'<p class="says">answer <code>{text(event.answer)}</code></p>' if event.answer else "",
        f"<p>asked for by {_line(event.site)}</p>" if event.site else "",
        *(_statement(each) for each in event.statements),
        f'<p class="small">and {event.left_out:,} more statements</p>' if event.left_out else "",
    ]
    return f'<li id="{id}"><details><summary>{words}</summary><div class="stmt">{"".join(told)}</div></details></li>'


def _statement(each: Asked) -> str:
    name = each.text if each.name == USER_SQL else short_name(each)
    return (
        f'<p><b class="code">{text(name)}</b> <code>{text(each.values)}</code> → <code>{text(each.answer)}</code>'
        + (f' <span class="small">{text(each.site)}</span>' if each.site else "")
        + "</p>"
    )


def _line(site: Site) -> str:
    return f"<code>{text(site.file)}:{site.line}</code> in {text(site.function)}: <code>{text(site.code)}</code>"


def _texts(story: Story, shown: int) -> str:
    """Each statement's SQL, once."""
    texts = _named_texts(story.events[:shown])
    if not texts:
        return ""
    rows = "".join(
        f'<dt class="code">{text(name)}</dt><dd><code class="sql">{text(sql)}</code></dd>'
        for name, sql in texts.items()
    )
    return f'<p class="small">Its statements:</p><dl class="facts small">{rows}</dl>'


def statements_of(stories: Iterable[Story]) -> dict[str, str]:
    """The text of every statement, by name."""
    return _named_texts(event for story in stories for event in story.events)


def _named_texts(events: Iterable[Happening]) -> dict[str, str]:
    return {each.name: each.text for event in events for each in event.statements if each.name != USER_SQL}


def history(run: Run) -> dict[str, Any]:
    """The run for machines. Statements go by name; `statements_of` has their texts."""
    return {
        "title": run.title,
        "plant": run.plant,
        "answers": [list(each) for each in run.answers],
        "replay": run.replay,
        "faults": list(run.story.faults),
        "seconds": run.story.seconds,
        "judged": [
            {
                "kind": each.kind,
                "claim": each.claim,
                "wrong": list(each.wrong),
                "happened": each.happened,
                "event": each.event,
            }
            for each in run.story.judged
        ],
        "events": [_as_json(event) for event in run.story.events],
        "left_out": run.story.left_out,
    }


def _as_json(event: Happening) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "at": round(event.at, 6),
        "who": event.who,
        "kind": event.kind,
        "what": event.what,
        "answer": event.answer,
        "failed": event.failed,
        "commits": event.commits,
        "site": event.site and str(event.site),
        "statements": [
            {
                "name": each.text if each.name == USER_SQL else each.name,
                "values": each.values,
                "answer": each.answer,
                "site": each.site and str(each.site),
            }
            for each in event.statements
        ],
    }
    return {name: value for name, value in facts.items() if value or name == "at"}
