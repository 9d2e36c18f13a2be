"""A report as one HTML file that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from html import escape

from benchmarks.report import Chapter, Column, Report, Row
from benchmarks.table import cell, number, times

_BAR_HEIGHT = 22
_LABEL_WIDTH = 260
_PLOT_WIDTH = 420
_VALUE_WIDTH = 220
_COLOURS = {"ours": "#1a7f5a", "peer": "#b5532a", "peer, as it comes": "#d9a58c", "by hand": "#7a7f87"}

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c1e21; }
table { border-collapse: collapse; margin: .8rem 0; }
td, th { padding: .15rem .7rem .15rem 0; text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; }
svg { max-width: 100%; height: auto; display: block; margin: .6rem 0; }
svg text { font: 12px system-ui, sans-serif; fill: #1c1e21; }
.small { color: #5a6068; font-size: 13px; }
.missed { color: #9a6700; } .reached { color: #1a7f5a; } .bad { color: #b3261e; }
"""


def page(report: Report) -> str:
    """The whole document."""
    changed = ", ".join(f"{name}={value}" for name, value in report.server_settings.items()) or "nothing"
    about = [
        *(f"{name}: {value}" for name, value in report.machine.items()),
        *([f"{report.server}; not at its default: {changed}"] if report.server else []),
    ]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>faultproof {escape(report.faultproof)}: benchmarks</title><style>{_STYLE}</style></head><body>",
        f"<h1>faultproof {escape(report.faultproof)}: benchmarks</h1>",
        f"<p>{escape(report.when)}. Medians of several rounds in turns, in one run; thin lines reach from the lowest round"
        " to the highest. Ratios travel between machines, rates do not.</p>",
        *(f'<p class="bad">Careful: {escape(warning)}</p>' for warning in report.warnings),
        f'<p class="small">{"<br>".join(escape(line) for line in about)}</p>',
        *(_chapter(chapter) for chapter in report.benchmarks),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _chapter(chapter: Chapter) -> str:
    parts = [
        f'<h2 id="{escape(chapter.name)}">{escape(chapter.name)}</h2>',
        f"<p>{escape(chapter.measures)} {chapter.rounds} round{'s' * (chapter.rounds > 1)}.</p>",
        *(_aim_line(chapter, n) for n in range(len(chapter.aims))),
        *(f'<p class="bad">Not comparable: {escape(warning)}</p>' for warning in chapter.warnings),
        *(_plot(chapter, column) for column in chapter.columns),
        _table(chapter),
        *(f'<p class="small">{escape(note)}</p>' for note in chapter.notes),
    ]
    return "\n".join(part for part in parts if part)


def _aim_line(chapter: Chapter, n: int) -> str:
    aim = chapter.aims[n]
    mark = {True: "reached", False: "missed", None: "not measured"}[aim.reached]
    kind = {True: "reached", False: "missed", None: "bad"}[aim.reached]
    return f'<p class="{kind}">{mark}: {escape(aim.says)}; measured {escape(cell(aim.value))}</p>'


def _plot(chapter: Chapter, column: Column) -> str:
    """Bars of one figure, from zero: a bar that begins elsewhere exaggerates."""
    rows = [row for row in chapter.rows if column.name in row.figures]
    top = max((row.figures[column.name].high for row in rows), default=0.0)
    if len(rows) < 2 or top <= 0:
        return ""
    width = _LABEL_WIDTH + _PLOT_WIDTH + _VALUE_WIDTH
    height = _BAR_HEIGHT * len(rows)
    bars = "".join(_bar(row, column.name, n * _BAR_HEIGHT, _PLOT_WIDTH / top) for n, row in enumerate(rows))
    title = f"{column.name}, {column.unit}".rstrip(", ")
    return (
        f'<p class="small">{escape(title)} ({escape(column.better)} is better)</p>'
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
        f' aria-label="{escape(title)}">{bars}</svg>'
    )


def _bar(row: Row, figure: str, y: int, scale: float) -> str:
    value = row.figures[figure]
    middle = y + _BAR_HEIGHT / 2
    low, end, high = (_LABEL_WIDTH + max(0.0, each) * scale for each in (value.low, value.median, value.high))
    return (
        f'<text x="{_LABEL_WIDTH - 8}" y="{middle + 4}" text-anchor="end">{escape(row.name)}</text>'
        f'<rect x="{_LABEL_WIDTH}" y="{y + 4}" width="{end - _LABEL_WIDTH:.1f}" height="{_BAR_HEIGHT - 8}"'
        f' fill="{_COLOURS[row.side]}"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke="#1c1e21"/>'
        f'<text x="{high + 6:.1f}" y="{middle + 4}">{escape(number(value.median))}</text>'
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
    settings = ", ".join(f"{name}={value}" for name, value in row.settings.items())
    about = "; ".join(escape(each) for each in (row.configured, versions, settings) if each)
    failed = f'<br><span class="bad">could not be measured: {escape(row.error)}</span>' if row.error else ""
    return f'<tr><td>{escape(row.name)}</td>{cells}{compared}<td class="small">{about}{failed}</td></tr>'
