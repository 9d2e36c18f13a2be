"""A run as a picture: a lane for each life of a process, time from left to right, everything that happened to click on.

Time is not to scale: in virtual time most things happen at the same instant. Each event has its own place, in order, and the
clock is written where it moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from faultproof.pages import text
from faultproof.prove.story import Happening, Story

_ROW, _TOP, _SIDE = 34, 26, 14
_WIDE, _NARROW, _LATER = 17, 10, 26
"""An event's place, that of one that changes nothing, and what is added where time has passed."""


@dataclass
class Lane:
    """One row: the lives of a process that do not overlap."""

    process: str
    lives: list[int]
    is_first: bool


@dataclass
class _Life:
    begins: int
    ends: int
    is_gone: bool = False


def timeline(story: Story, shown: int, href: Callable[[int], str], first: int | None) -> str:
    """The picture of the first `shown` events, each linking to `href` of its index; `first` is the one that is selected."""
    events = story.events[:shown]
    if not events:
        return '<p class="small">Nothing happened.</p>'
    lives = _lives(events)
    lanes = _lanes(lives)
    row = {(lane.process, life): n for n, lane in enumerate(lanes) for life in lane.lives}
    places, ticks, width = _places(events)
    height = _TOP + _ROW * len(lanes) + 6
    names = "".join(
        f'<div class="{"" if lane.is_first else "again"}" title="{text(lane.process)}">'
        f"{text(lane.process) if lane.is_first else f'life {lane.lives[0] + 1}'}</div>"
        for lane in lanes
    )
    parts = [
        *(_tick(x, label, height) for x, label in ticks),
        *_bands(events, lives, row, places, width),
        *(_broken(places[each], height) for each in _broken_at(story, len(events))),
        *(
            _mark(event, places[n], row[event.process, event.life], href(n), n == first)
            for n, event in enumerate(events)
        ),
    ]
    return (
        f'<div class="lanes"><div class="names">{names}</div><div class="scroll" tabindex="0">'
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
        f' aria-label="what happened, by process and time">{"".join(parts)}</svg></div></div>'
    )


_KEY = """<p class="small key"><span>{op} read, or nothing committed</span><span>{commit} committed</span>
<span>{fails} failed</span><span>{note} told to the outside</span><span>{fault} fault</span>
<span>{wakes} back again</span><span>{message} wake-up heard</span>
<span><svg width="22" height="12"><rect class="away" width="22" height="12"/></svg> frozen or cut off</span>
<span><svg width="22" height="12"><rect class="down" width="22" height="12"/></svg> dead</span></p>"""


def key() -> str:
    """What the marks mean."""
    shapes = {kind: f'<svg width="14" height="14">{_shape(kind, 7, 7)}</svg>' for kind in _SHAPES}
    return _KEY.format(**shapes)


def _lives(events: Sequence[Happening]) -> dict[tuple[str, int], _Life]:
    """From first to last event of each."""
    lives: dict[tuple[str, int], _Life] = {}
    for n, event in enumerate(events):
        life = lives.setdefault((event.process, event.life), _Life(n, n))
        life.ends = n
        life.is_gone |= event.kind == "gone"
    for life in lives.values():
        if not life.is_gone:
            life.ends = len(events) - 1
    return lives


def _lanes(lives: dict[tuple[str, int], _Life]) -> list[Lane]:
    """Of each process as few as its lives need; a life that has ended leaves its row to the next."""
    lanes: list[Lane] = []
    for process in dict.fromkeys(process for process, _ in lives):
        own: list[Lane] = []
        for life in sorted(number for name, number in lives if name == process):
            free = (lane for lane in own if lives[process, lane.lives[-1]].ends < lives[process, life].begins)
            lane = next(free, None)
            if lane is None:
                own.append(Lane(process, [life], not own))
            else:
                lane.lives.append(life)
        lanes += own
    return lanes


def _places(events: Sequence[Happening]) -> tuple[list[float], list[tuple[float, str]], float]:
    """The middle of each event, where the clock is written, and how wide all is."""
    x, before = float(_SIDE), -1.0
    places, ticks, written = [], list[tuple[float, str]](), -100.0
    for event in events:
        if event.at > before:
            if before >= 0:
                x += _LATER
            label = f"{event.at:.3f} s"
            if x - written >= 44 and (not ticks or ticks[-1][1] != label):  # or the numbers would overlap
                ticks.append((x, label))
                written = x
            before = event.at
        width = _NARROW if event.kind == "message" or (event.kind == "operation" and not event.commits) else _WIDE
        places.append(x + width / 2)
        x += width
    return places, ticks, x + _SIDE + 30


def _bands(
    events: Sequence[Happening],
    lives: dict[tuple[str, int], _Life],
    row: dict[tuple[str, int], int],
    places: list[float],
    width: float,
) -> Iterator[str]:
    """Each life as a line; while it was frozen or cut off, or when nobody lived, a band."""
    for who, life in lives.items():
        y = _TOP + row[who] * _ROW + _ROW / 2
        yield f'<line class="life" x1="{places[life.begins]:.0f}" x2="{places[life.ends]:.0f}" y1="{y:.0f}" y2="{y:.0f}"/>'
        successor = lives.get((who[0], who[1] + 1))
        if life.is_gone:
            end = width if successor is None else places[successor.begins]
            yield _band("down", places[life.ends], end, y)
        for begin, end_event in _away(events, who, life):
            yield _band("away", places[begin], places[end_event], y)


def _away(events: Sequence[Happening], who: tuple[str, int], life: _Life) -> Iterator[tuple[int, int]]:
    since = None
    for n in range(life.begins, life.ends + 1):
        event = events[n]
        if (event.process, event.life) != who:
            continue
        if event.kind == "fault" and event.what.startswith(("freeze ", "cut ")):
            since = n
        elif since is not None and event.kind in ("wakes", "gone"):
            yield since, n
            since = None
    if since is not None:
        yield since, life.ends


def _band(kind: str, begin: float, end: float, y: float) -> str:
    return (
        f'<rect class="{kind}" x="{begin:.0f}" y="{y - 9:.0f}" width="{max(0.0, end - begin):.0f}" height="18" rx="3"/>'
    )


def _tick(x: float, label: str, height: float) -> str:
    return (
        f'<line class="tick" x1="{x:.0f}" x2="{x:.0f}" y1="20" y2="{height}"/><text x="{x:.0f}" y="14">{label}</text>'
    )


def _broken_at(story: Story, shown: int) -> list[int]:
    return sorted({each.event for each in story.broken if each.event is not None and each.event < shown})


def _broken(x: float, height: float) -> str:
    return f'<line class="broken" x1="{x:.0f}" x2="{x:.0f}" y1="{_TOP}" y2="{height}"/>'


def _mark(event: Happening, x: float, row: int, href: str, is_first: bool) -> str:
    y = _TOP + row * _ROW
    title = f"{event.at:.3f} s {event.who}: {event.what}"
    return (
        f'<a href="{href}"{" class=first" if is_first else ""}><title>{text(title)}</title>'
        f'<rect x="{x - 8:.0f}" y="{y + 2}" width="16" height="{_ROW - 4}" rx="3"/>{_shape(_kind(event), x, y + _ROW / 2)}</a>'
    )


def _kind(event: Happening) -> str:
    if event.kind != "operation":
        return event.kind
    return "fails" if event.failed else "commit" if event.commits else "op"


_SHAPES: dict[str, str] = {
    "op": '<circle class="op" cx="{x:.1f}" cy="{y:.1f}" r="3"/>',
    "commit": '<circle class="commit" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>',
    "fails": '<circle class="fails" cx="{x:.1f}" cy="{y:.1f}" r="4"/>',
    "note": '<path class="note" d="M{x:.1f} {y:.1f}m-6 0l6 -6l6 6l-6 6z"/>',
    "message": '<path class="message" d="M{x:.1f} {y:.1f}m-3 -4l3 4l-3 4"/>',
    "start": '<path class="start" d="M{x:.1f} {y:.1f}m-3 -5l8 5l-8 5z"/>',
    "wakes": '<path class="wakes" d="M{x:.1f} {y:.1f}m-3 -5l8 5l-8 5z"/>',
    "fault": '<path class="fault" d="M{x:.1f} {y:.1f}m2 -11l-8 12h5l-3 10l9 -13h-5z"/>',
    "gone": '<path class="gone" d="M{x:.1f} {y:.1f}m-4 -4l8 8m0 -8l-8 8"/>',
    "dies": '<path class="gone" d="M{x:.1f} {y:.1f}m-4 -4l8 8m0 -8l-8 8"/>',
}


def _shape(kind: str, x: float, y: float) -> str:
    return _SHAPES[kind].format(x=x, y=y)
