"""What came out, as one document: the tables, the page and `--json` all show this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.contest import Outcome
from benchmarks.model import Aim, Benchmark
from benchmarks.settings import differences
from benchmarks.spread import Spread, ratios, spread

SCHEMA = 1
"""Of the JSON document. It goes up when a reader of the old one would be misled."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contestant."""

    name: str
    side: str
    configured: str
    settings: dict[str, str]
    versions: dict[str, str]
    figures: dict[str, Spread]
    first_is: Spread | None
    """How many times better the first contestant is in the figure `compared`, round by round; below 1 it loses."""
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Reached:
    """An aim, and what was measured."""

    says: str
    value: Spread | None
    """None: one of those it is about failed."""
    reached: bool | None


@dataclass(frozen=True, kw_only=True)
class Column:
    """One figure's heading."""

    name: str
    unit: str
    better: str


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """One benchmark."""

    name: str
    engine: str
    measures: str
    rounds: int
    seconds: float
    compared: str | None
    columns: list[Column]
    rows: list[Row]
    aims: list[Reached]
    warnings: list[str]
    notes: list[str]

    @property
    def failed(self) -> bool:
        """Whether a contestant could not be measured."""
        return any(row.error is not None for row in self.rows)


@dataclass(kw_only=True)
class Report:
    """One run."""

    schema: int = SCHEMA
    faultproof: str
    when: str
    quick: bool
    machine: dict[str, str]
    server: str | None = None
    server_settings: dict[str, str] = field(default_factory=dict)
    """What differs from PostgreSQL's own defaults."""
    warnings: list[str] = field(default_factory=list)
    benchmarks: list[Chapter] = field(default_factory=list)


def chapter(benchmark: Benchmark, outcomes: Sequence[Outcome], *, rounds: int, seconds: float) -> Chapter:
    """Everything there is to say about one benchmark."""
    measured = {outcome.contestant.name: _figures(outcome) for outcome in outcomes}
    first = measured[benchmark.contestants[0].name]
    rows = [_row(benchmark, outcome, measured[outcome.contestant.name], first) for outcome in outcomes]
    return Chapter(
        name=benchmark.name,
        engine=benchmark.engine,
        measures=benchmark.measures,
        rounds=rounds,
        seconds=seconds,
        compared=benchmark.compared,
        columns=[Column(name=each.name, unit=each.unit, better=each.better) for each in benchmark.figures],
        rows=rows,
        aims=[_reached(benchmark, aim, measured) for aim in benchmark.aims],
        warnings=differences({row.name: row.settings for row in rows if row.error is None}),
        notes=list(benchmark.notes),
    )


def _figures(outcome: Outcome) -> dict[str, Spread]:
    # One that failed on its way has figures that look like any other's, of fewer rounds: none are better.
    if outcome.error is not None or not outcome.rounds:
        return {}
    return {name: spread([figures[name] for figures in outcome.rounds]) for name in outcome.rounds[0]}


def _row(benchmark: Benchmark, outcome: Outcome, mine: dict[str, Spread], first: dict[str, Spread]) -> Row:
    contestant = outcome.contestant
    return Row(
        name=contestant.name,
        side=contestant.side,
        configured=contestant.configured,
        settings=outcome.settings,
        versions=outcome.versions,
        figures=mine,
        first_is=_first_is(benchmark, outcome, mine, first),
        error=outcome.error,
    )


def _first_is(
    benchmark: Benchmark, outcome: Outcome, mine: dict[str, Spread], first: dict[str, Spread]
) -> Spread | None:
    name = benchmark.compared
    if name is None or outcome.contestant is benchmark.contestants[0] or name not in mine or name not in first:
        return None
    figure = next(each for each in benchmark.figures if each.name == name)
    return ratios(first[name], [mine[name]]) if figure.better == "more" else ratios(mine[name], [first[name]])


def _reached(benchmark: Benchmark, aim: Aim, measured: dict[str, dict[str, Spread]]) -> Reached:
    figure = next(each for each in benchmark.figures if each.name == aim.figure)
    mine = measured[aim.of].get(aim.figure)
    others = [measured[name][aim.figure] for name in aim.over if aim.figure in measured[name]]
    value = None
    if mine is not None and len(others) == len(aim.over):
        value = ratios(mine, others, better=figure.better) if others else mine
    bound = f"at least {aim.at_least:g}" if aim.at_least is not None else f"at most {aim.at_most:g}"
    against = f" over {'the best of ' * (len(aim.over) > 1)}{', '.join(aim.over)}" if aim.over else ""
    unit = "x" if aim.over else f" {figure.unit}"
    return Reached(says=f"{aim.of}{against}, {figure.name}: {bound}{unit}", value=value, reached=_holds(aim, value))


def _holds(aim: Aim, value: Spread | None) -> bool | None:
    if value is None:
        return None
    low_enough = aim.at_most is None or value.median <= aim.at_most
    return low_enough and (aim.at_least is None or value.median >= aim.at_least)
