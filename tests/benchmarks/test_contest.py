"""Contestants in turns, each in a process of its own; and what happens when one does not behave."""

from pathlib import Path

import pytest

from benchmarks.contest import Outcome, contest
from benchmarks.model import Benchmark, Place
from benchmarks.report import chapter
from tests.benchmarks.planted import BENCHMARKS
from tests.fakes import until, within

pytestmark = pytest.mark.anyio


async def held(benchmark: Benchmark, directory: Path, rounds: int = 2) -> dict[str, Outcome]:
    names = [each.name for each in benchmark.contestants]
    places = {name: Place(url=str(directory / name), quick=True) for name in names}
    outcomes = await contest(benchmark, places, rounds=rounds, progress=lambda what: None)
    return {outcome.contestant.name: outcome for outcome in outcomes}


async def test_contestants_alternate_and_what_they_print_is_no_answer(tmp_path: Path) -> None:
    outcomes = await held(BENCHMARKS["turns"], tmp_path, rounds=3)
    zero, one, two = ("well_behaved-0", "well_behaved-1", "well_behaved-2")
    assert (tmp_path / "journal").read_text().split() == [zero, one, two, one, two, zero, two, zero, one]
    assert [outcome.rounds for outcome in outcomes.values()] == [[{"rate": 2.0}] * 3] * 3


async def test_one_that_fails_is_out_and_says_why_and_the_others_go_on(tmp_path: Path) -> None:
    outcomes = await held(BENCHMARKS["troubled"], tmp_path)
    assert {name: outcome.error for name, outcome in outcomes.items()} == {
        "well_behaved": None,
        "unready": "LookupError: there is no such table",
        "failing": "RuntimeError: the table is gone",
        "dying": "it ended without a word",
        "careless": None,
    }
    assert len(outcomes["well_behaved"].rounds) == 2
    told = chapter(BENCHMARKS["troubled"], list(outcomes.values()), rounds=2, seconds=1)
    assert told.failed
    assert told.warnings == ["synchronous is not the same for all (well_behaved: full, careless: off)"]


async def test_one_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    outcomes = await within(held(BENCHMARKS["endless"], tmp_path))
    assert outcomes["hanging"].error == "no answer within 0.5 s"
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    await until(lambda: not any(_is_alive(pid) for pid in pids))


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
