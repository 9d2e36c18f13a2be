"""A report for people, in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.report import Chapter, Report, Row
from benchmarks.spread import Spread


def print_chapter(chapter: Chapter, out: Console) -> None:
    """One benchmark: who gave what, what was configured, and whether our aims were reached."""
    out.print()
    out.print(Text(chapter.name, style="bold"), Text(chapter.measures))
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("")
    for column in chapter.columns:
        table.add_column(f"{column.name}, {column.unit}".rstrip(", "), justify="right")
    if chapter.compared:
        table.add_column("the first is", justify="right")
    for row in chapter.rows:
        cells = [Text(cell(row.figures.get(column.name))) for column in chapter.columns]
        style = "bold" if row.side == "ours" else ""
        table.add_row(Text(row.name, style=style), *cells, *([times(row)] if chapter.compared else []))
    out.print(table)
    for row in chapter.rows:
        versions = ", ".join(f"{name} {number}" for name, number in row.versions.items())
        out.print(Text(f"  {row.name}: {row.configured}{f' ({versions})' if versions else ''}", style="dim"))
    for settings, names in settings_in_effect(chapter).items():
        out.print(Text(f"  Durability in effect, {names}: {settings}", style="dim"))
    for row in chapter.rows:
        if row.error is not None:
            out.print(Text(f"  {row.name} could not be measured: {row.error}", style="red"))
    for warning in chapter.warnings:
        out.print(Text(f"  Not comparable: {warning}", style="red"))
    for aim in chapter.aims:
        mark = {True: "reached", False: "missed", None: "not measured"}[aim.reached]
        style = {True: "green", False: "yellow", None: "red"}[aim.reached]
        out.print(Text(f"  {mark}: {aim.says}; measured {cell(aim.value)}", style=style))
    for note in chapter.notes:
        out.print(Text(f"  {note}", style="dim"))


def print_run(report: Report, out: Console) -> None:
    """What holds for all of it."""
    out.print()
    out.print(Text(f"faultproof {report.faultproof}, {report.when}; medians, with the lowest and highest round"))
    out.print(Text("; ".join(f"{name} {value}" for name, value in report.machine.items())))
    if report.server is not None:
        changed = ", ".join(f"{name}={value}" for name, value in report.server_settings.items()) or "nothing"
        out.print(Text(f"{report.server}; not at its default: {changed}"))
    for warning in report.warnings:
        out.print(Text(f"Careful: {warning}", style="red"))


def cell(value: Spread | None) -> str:
    """The median, and the ends where there are any."""
    if value is None:
        return "-"
    if value.low == value.high:
        return number(value.median)
    return f"{number(value.median)} ({number(value.low)}–{number(value.high)})"


def times(row: Row) -> str:
    """How many times better the first is than this one."""
    return f"{number(row.first_is.median)}x" if row.first_is else ""


def number(value: float) -> str:
    """Three digits that count, thousands apart."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def settings_in_effect(chapter: Chapter) -> dict[str, str]:
    """Who has which settings; mostly all have the same."""
    who: dict[str, list[str]] = {}
    for row in chapter.rows:
        if row.settings:
            who.setdefault(", ".join(f"{name}={value}" for name, value in row.settings.items()), []).append(row.name)
    if len(who) == 1:
        return dict.fromkeys(who, "all")
    return {settings: ", ".join(names) for settings, names in who.items()}
