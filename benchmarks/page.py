"""A report as one HTML file that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from html import escape

from benchmarks.report import Chapter, Column, Report, Row
from benchmarks.table import cell, number, settings_in_effect, times
from faultproof.pages import document

_SIDES = {"ours": "ours", "peer": "peer", "peer, as it comes": "plain", "by hand": "hand"}
"""Whose a bar is, and the name of its colour."""

_STYLE = """
:root { --ours: #2f6fb5; --peer: #c96a2b; --plain: #e3b48f; --hand: #8a9098; }
@media (prefers-color-scheme: dark) { :root { --ours: #5f9fe6; --peer: #d98547; --plain: #8a5f3d; --hand: #767d86; } }
body { max-width: 62rem; }
h2 { margin: 2.6rem 0 .4rem; padding-top: .8rem; border-top: 1px solid var(--rule); }
p, ul { margin: .4rem 0; }
ul { padding-left: 1.1rem; }
figure { margin: .9rem 0 1.2rem; max-width: 52rem; }
figcaption { color: var(--faint); font-size: 13px; }
.bar { display: grid; grid-template-columns: 13.5rem 1fr 4.5rem; column-gap: .6rem; align-items: center;
  font-size: 13px; line-height: 1.25; margin: .2rem 0; }
.bar > :first-child { text-align: right; }
svg { display: block; width: 100%; height: 14px; background: var(--track); }
.ours { fill: var(--ours); } .peer { fill: var(--peer); } .plain { fill: var(--plain); } .hand { fill: var(--hand); }
line { stroke: var(--text); stroke-width: 1.5px; vector-effect: non-scaling-stroke; }
.key svg { display: inline-block; width: 14px; height: 10px; margin: 0 .4em 0 1em; } .key svg:first-child { margin-left: 0; }
table { border-collapse: collapse; overflow-wrap: normal; }
td, th { padding: .2rem .9rem .2rem 0; text-align: left; vertical-align: top; }
tr + tr { border-top: 1px solid var(--rule); }
td.n, th.n { text-align: right; white-space: nowrap; }
td:first-child { min-width: 8.5rem; } td.small { min-width: 13rem; }
.missed { color: var(--missed); } .reached { color: var(--reached); } .bad { color: var(--bad); }
@media (max-width: 40rem) { body { margin-top: 1rem; } td.n, th.n { white-space: normal; } td:first-child { min-width: 6rem; }
  .bar { grid-template-columns: 1fr 4.5rem; margin: .45rem 0; } .bar > :first-child { grid-column: 1 / -1; text-align: left; } }
"""


def page(report: Report) -> str:
    """The whole document."""
    changed = ", ".join(f"{name}={value}" for name, value in report.server_settings.items()) or "nothing"
    about = [
        *(f"{name}: {value}" for name, value in report.machine.items()),
        *([f"{report.server}; not at its default: {changed}"] if report.server else []),
    ]
    body = [
        f"<h1>faultproof {escape(report.faultproof)}: benchmarks</h1>",
        f"<p>{escape(report.when)}. Medians of several rounds in turns, in one run; thin lines reach from the lowest round"
        " to the highest. Ratios travel between machines, rates do not.</p>",
        f'<p class="small key">{"".join(f"{_swatch(kind)}{escape(side)}" for side, kind in _SIDES.items())}</p>',
        *(f'<p class="bad">Careful: {escape(warning)}</p>' for warning in report.warnings),
        f'<p class="small">{"<br>".join(escape(line) for line in about)}</p>',
        *(_chapter(chapter) for chapter in report.benchmarks),
    ]
    return document(f"faultproof {report.faultproof}: benchmarks", _STYLE, body)


def _swatch(kind: str) -> str:
    square = f'<rect class="{kind}" width="1" height="1"/>'
    return f'<svg viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true">{square}</svg>'


def _chapter(chapter: Chapter) -> str:
    aims = "".join(_aim_line(chapter, n) for n in range(len(chapter.aims)))
    durability = "; ".join(f"{names}: {settings}" for settings, names in settings_in_effect(chapter).items())
    parts = [
        f'<h2 id="{escape(chapter.name)}">{escape(chapter.name)}</h2>',
        f"<p>{escape(chapter.measures)} {chapter.rounds} round{'s' * (chapter.rounds > 1)}.</p>",
        f"<ul>{aims}</ul>" if aims else "",
        *(f'<p class="bad">Not comparable: {escape(warning)}</p>' for warning in chapter.warnings),
        *(_plot(chapter, column) for column in chapter.columns),
        f'<div class="scroll" tabindex="0">{_table(chapter)}</div>',
        f'<p class="small">Durability in effect, {escape(durability)}</p>' if durability else "",
        *(f'<p class="small">{escape(note)}</p>' for note in chapter.notes),
    ]
    return "\n".join(part for part in parts if part)


def _aim_line(chapter: Chapter, n: int) -> str:
    aim = chapter.aims[n]
    mark = {True: "reached", False: "missed", None: "not measured"}[aim.reached]
    kind = {True: "reached", False: "missed", None: "bad"}[aim.reached]
    return f'<li><b class="{kind}">{mark}</b>: {escape(aim.says)}; measured {escape(cell(aim.value))}</li>'


def _plot(chapter: Chapter, column: Column) -> str:
    """Bars of one figure, from zero: a bar that begins elsewhere exaggerates."""
    rows = [row for row in chapter.rows if column.name in row.figures]
    top = max((row.figures[column.name].high for row in rows), default=0.0)
    if len(rows) < 2 or top <= 0:
        return ""
    title = f"{column.name}, {column.unit}".rstrip(", ")
    bars = "".join(_bar(row, column.name, 100 / top) for row in rows)
    return f"<figure><figcaption>{escape(title)} ({escape(column.better)} is better)</figcaption>{bars}</figure>"


def _bar(row: Row, figure: str, scale: float) -> str:
    # Only the bar is drawn, and stretched to what room there is; words beside it would shrink with the window.
    value = row.figures[figure]
    low, end, high = (f"{max(0.0, each) * scale:.2f}" for each in (value.low, value.median, value.high))
    return (
        f'<div class="bar"><span>{escape(row.name)}</span>'
        '<svg viewBox="0 0 100 14" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="{_SIDES[row.side]}" width="{end}" height="14"/><line x1="{low}" x2="{high}" y1="7" y2="7"/></svg>'
        f"<span>{escape(number(value.median))}</span></div>"
    )


def _table(chapter: Chapter) -> str:
    heads = "".join(
        f'<th class="n">{escape(f"{column.name}, {column.unit}".rstrip(", "))}</th>' for column in chapter.columns
    )
    compared = '<th class="n">the first is</th>' if chapter.compared else ""
    rows = "".join(_table_row(chapter, row) for row in chapter.rows)
    return f"<table><tr><th></th>{heads}{compared}<th>what was configured</th></tr>{rows}</table>"


def _table_row(chapter: Chapter, row: Row) -> str:
    cells = "".join(f'<td class="n">{escape(cell(row.figures.get(c.name)))}</td>' for c in chapter.columns)
    compared = f'<td class="n">{times(row)}</td>' if chapter.compared else ""
    versions = ", ".join(f"{name} {number}" for name, number in row.versions.items())
    about = "; ".join(escape(each) for each in (row.configured, versions) if each)
    failed = f'<br><span class="bad">could not be measured: {escape(row.error)}</span>' if row.error else ""
    return f'<tr><td>{escape(row.name)}</td>{cells}{compared}<td class="small">{about}{failed}</td></tr>'
