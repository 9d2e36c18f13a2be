"""A run as one HTML file that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

import msgspec

from faultproof.errors import CannotOpen, InvalidInput
from faultproof.pages import document
from faultproof.shop.display import conclusion, words
from faultproof.shop.findings import Check
from faultproof.shop.timeline import Timeline, lanes
from faultproof.shop.verdict import Verdict

_LEFT, _WIDTH, _RIGHT = 130, 720, 40
_HEIGHT = 110
_LANE = 20
_STATES = {
    "idle": "#9aa0a6",
    "open": "#3b6fb6",
    "committing": "#b5532a",
    "wrote": "#8e44ad",
    "applied": "#1a7f5a",
    "moved": "#9a6700",
    "calling": "#c2255c",
}
_OTHER = "#5a6068"

_STYLE = """
:root { --a: #1a7f5a; --b: #b5532a; }
@media (prefers-color-scheme: dark) { :root { --a: #4fc393; --b: #e58e63; } }
body { max-width: 60rem; }
table { border-collapse: collapse; } td, th { padding: .15rem 1rem .15rem 0; text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; }
svg { display: block; margin: .4rem 0 1rem; min-width: 40rem; max-width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--text); } .axis { stroke: var(--rule); }
.verdict { font-size: 1.3rem; font-weight: 600; }
.held { color: var(--reached); } .violated, .bad { color: var(--bad); } .vacuous { color: var(--missed); }
.mark { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin: 0 .3em 0 1em; }
"""


def prepare(directory: Path) -> None:
    """Make sure, before a run, that its report can be written there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / "report.html"
        with probe.open("a"):
            pass
        if not probe.stat().st_size:
            probe.unlink()
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidInput(f"{directory} is a file: --report takes a directory") from error
    except (OSError, ValueError) as error:
        raise CannotOpen(f"a report cannot be written to {directory} ({error}): name another directory") from error


def write(directory: Path, verdict: Verdict, timeline: Timeline) -> Path:
    """Write the page, and the verdict as JSON beside it; the page's path."""
    path = directory / "report.html"
    path.write_text(page(verdict, timeline), encoding="utf-8")
    (directory / "verdict.json").write_bytes(msgspec.json.format(msgspec.json.encode(verdict), indent=2) + b"\n")
    return path


def page(verdict: Verdict, timeline: Timeline) -> str:
    """The whole document."""
    kind = "violated" if not verdict.held else "vacuous" if verdict.vacuous else "held"
    bins = timeline.bins(verdict.seconds)
    times = [each.at for each in bins]
    body = [
        "<h1>faultproof shop</h1>",
        f'<p class="verdict {kind}">{escape(conclusion(verdict))}</p>',
        f"<p>{'<br>'.join(escape(line) for line in words(verdict) if line)}</p>",
        "<h2>Who was killed, and when</h2>",
        _killed(verdict, timeline),
        "<h2>Orders answered, a second</h2>",
        _plot(verdict.seconds, [("", "var(--a)", times, [each.per_second for each in bins])]),
        "<h2>How long customers waited, ms</h2>",
        _plot(
            verdict.seconds,
            [
                ("p99", "var(--b)", times, [each.p99 for each in bins]),
                ("p50", "var(--a)", times, [each.p50 for each in bins]),
            ],
        ),
        "<h2>Events not yet settled by every group</h2>",
        _plot(
            verdict.seconds,
            [("", "var(--a)", [each.at for each in timeline.lag], [each.value for each in timeline.lag])],
        ),
        "<h2>Orders neither fulfilled nor undone yet</h2>",
        _plot(
            verdict.seconds,
            [("", "var(--a)", [each.at for each in timeline.sagas], [each.value for each in timeline.sagas])],
        ),
        "<h2>The audit</h2>",
        _checks(verdict.checks),
    ]
    return document(f"faultproof shop: {kind}", _STYLE, body)


def _killed(verdict: Verdict, timeline: Timeline) -> str:
    """A lane for each process, a mark for each kill in the colour of what it was doing, a line for each restart."""
    rows = lanes(timeline.kills)
    if not rows and not timeline.restarts:
        return '<p class="small">Nobody.</p>'
    x = _across(verdict.seconds)
    height = _LANE * max(1, len(rows))
    parts = [
        *(
            f'<text x="{_LEFT - 8}" y="{n * _LANE + 14}" text-anchor="end">{escape(role)} {slot}</text>'
            f'<line class="axis" x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{n * _LANE + 10}" y2="{n * _LANE + 10}"/>'
            for n, (role, slot) in enumerate(rows)
        ),
        *(
            f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="0" y2="{height}" stroke="#c5221f" stroke-dasharray="4 3"/>'
            for at in timeline.restarts
        ),
        *(
            f'<circle cx="{x(kill.at):.1f}" cy="{rows.index((kill.role, kill.slot)) * _LANE + 10}" r="4"'
            f' fill="{_STATES.get(kill.state, _OTHER)}"><title>{kill.at:.2f} s: {escape(kill.role)} {kill.slot},'
            f" {escape(kill.state)}</title></circle>"
            for kill in timeline.kills
        ),
    ]
    states = [state for state in _STATES if any(kill.state == state for kill in timeline.kills)]
    legend = "".join(f'<span class="mark" style="background:{_STATES[state]}"></span>{state}' for state in states)
    restarts = " A dashed line: the server was restarted without a shutdown." if timeline.restarts else ""
    return (
        f'<p class="small">What it was doing:{legend}.{restarts}</p>'
        f"{_svg(height + 18, [*parts, *_scale(verdict.seconds, height)], 'kills by process and time')}"
    )


Line = tuple[str, str, Sequence[float], Sequence[float]]


def _plot(seconds: float, lines: Sequence[Line]) -> str:
    """Lines over time, from zero."""
    top = max((value for line in lines for value in line[3]), default=0.0)
    if top <= 0:
        return '<p class="small">Nothing to show.</p>'
    x = _across(seconds)
    parts = [
        f'<line class="axis" x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}"/>',
        f'<line class="axis" x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="8" y2="8" stroke-dasharray="2 4"/>',
        f'<text x="{_LEFT - 8}" y="12" text-anchor="end">{top:,.0f}</text>',
        f'<text x="{_LEFT - 8}" y="{_HEIGHT + 4}" text-anchor="end">0</text>',
    ]
    for n, (name, colour, times, values) in enumerate(lines):
        points = [(x(at), _HEIGHT - value / top * (_HEIGHT - 8)) for at, value in zip(times, values, strict=True)]
        parts += [
            f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" stroke="{colour}" stroke-width="1.5"/>'
            for a, b in pairwise(points)
        ]
        if name:
            parts.append(
                f'<text x="{_LEFT - 8}" y="{40 + 16 * n}" text-anchor="end" style="fill:{colour}">{name}</text>'
            )
    return _svg(_HEIGHT + 18, [*parts, *_scale(seconds, _HEIGHT)], "over time")


def _scale(seconds: float, y: float) -> list[str]:
    x = _across(seconds)
    return [
        f'<text x="{x(seconds * part):.1f}" y="{y + 15}" text-anchor="middle">{seconds * part:.0f} s</text>'
        for part in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]


def _across(seconds: float) -> Callable[[float], float]:
    return lambda at: _LEFT + min(1.0, at / max(seconds, 0.001)) * _WIDTH


def _svg(height: float, parts: Sequence[str], label: str) -> str:
    width = _LEFT + _WIDTH + _RIGHT
    return (
        f'<div class="scroll"><svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
        f' aria-label="{escape(label)}">{"".join(parts)}</svg></div>'
    )


def _checks(checks: Sequence[Check]) -> str:
    rows = "".join(
        f'<tr><td>{escape(check.claim)}</td><td class="n">{check.examined:,}</td>'
        f'<td class="n {"bad" if check.violations else "held"}">{check.violations:,} wrong</td></tr>'
        + "".join(f'<tr><td class="bad" colspan="3">{escape(where)}</td></tr>' for where in check.where)
        for check in checks
    )
    return (
        f'<div class="scroll"><table><tr><th>claim</th><th class="n">examined</th><th class="n">found</th></tr>{rows}</table>'
        "</div>"
    )
