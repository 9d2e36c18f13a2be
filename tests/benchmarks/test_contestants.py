"""Every contestant of every benchmark, peers too, in tiny sizes: that it runs, and gives what its benchmark says."""

import asyncio
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.index import BENCHMARKS
from benchmarks.model import Benchmark, Contestant, Place
from benchmarks.places import Server, places
from tests.servers.postgres import PostgresServer


@pytest.fixture(scope="module")
def undurable() -> Iterator[Server]:
    """A server that waits for no disk: making and dropping databases takes most of the time here."""
    with PostgresServer(durable=False) as server:
        yield Server(url=server.url, described="", changed={})


LONG = {
    "batch-postgresql",
    "delivery-postgresql",
    "escrow-postgresql",
    "exploration",
    "million-postgresql",
    "publish-postgresql",
    "saga-sqlite",
}
"""Seven seconds and more even in tiny sizes; what they run has tests of its own."""


@pytest.mark.parametrize(
    "benchmark",
    [
        pytest.param(benchmark, id=name, marks=[pytest.mark.soak] if name in LONG else [])
        for name, benchmark in BENCHMARKS.items()
    ],
)
def test_every_contestant_gives_its_figures(benchmark: Benchmark, request: pytest.FixtureRequest) -> None:
    at: Server | None = request.getfixturevalue("undurable") if benchmark.engine == "postgresql" else None
    with places(benchmark, at, quick=True) as where, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's
        asyncio.run(_all_at_once(benchmark, where))


async def _all_at_once(benchmark: Benchmark, where: dict[str, Place]) -> None:
    await asyncio.gather(*(_measured(benchmark, each, where[each.name]) for each in benchmark.contestants))


async def _measured(benchmark: Benchmark, contestant: Contestant, place: Place) -> None:
    async with contestant.open(place) as ready:
        figures = await ready.measure()
    assert figures.keys() <= {figure.name for figure in benchmark.figures}, contestant.name
    assert figures, contestant.name
    assert all(math.isfinite(value) for value in figures.values()), contestant.name
    assert ready.settings, contestant.name


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=BENCHMARKS)
def test_aims_are_about_contestants_and_figures_that_there_are(benchmark: Benchmark) -> None:
    names = {contestant.name for contestant in benchmark.contestants}
    figures = {figure.name for figure in benchmark.figures}
    assert len(names) == len(benchmark.contestants)
    for aim in benchmark.aims:
        assert {aim.of, *aim.over} <= names
        assert aim.figure in figures
        assert (aim.at_least is None) != (aim.at_most is None)
    assert benchmark.compared is None or benchmark.compared in figures


def test_places_are_gone_afterwards(tmp_path: Path) -> None:
    with places(BENCHMARKS["drain-sqlite"], None, quick=True) as where:
        files = [Path(place.url) for place in where.values()]
        assert len(set(files)) == len(files)
        assert all(file.parent.is_dir() and not file.exists() for file in files)
    assert not any(file.parent.exists() for file in files)
