"""A run as one page: what it shows, that it needs nothing else, and where it cannot be written."""

import os
import re
from pathlib import Path

import msgspec
import pytest

from faultproof.errors import CannotOpen, InvalidInput
from faultproof.shop.board import State
from faultproof.shop.report import page, prepare, write
from faultproof.shop.timeline import Kill, Sample, Timeline
from faultproof.shop.verdict import Verdict
from tests.shop.test_verdict import verdict

pytestmark = pytest.mark.anyio


def timeline() -> Timeline:
    made = Timeline()
    for number in range(40):
        made.answered.append(number * 0.05)
        made.took.append(0.010 if number % 10 else 0.5)
    made.kills += [Kill(0.5, "api", 0, "wrote"), Kill(1.0, "consumer", 3, "applied")]
    made.restarts.append(1.5)
    made.lag += [Sample(0.0, 3), Sample(1.0, 70), Sample(2.0, 0)]
    made.sagas += [Sample(0.0, 1), Sample(1.0, 44), Sample(2.0, 0)]
    return made


async def test_page_shows_verdict_kills_restarts_and_plots(tmp_path: Path) -> None:
    said = page(await verdict(tmp_path), timeline())
    assert '<p class="verdict held">held</p>' in said
    assert said.count("<circle") == 2
    assert "1.00 s: consumer 3, applied" in said
    assert said.count('stroke-dasharray="4 3"') == 1
    assert "p99" in said
    assert ">500</text>" in said  # the longest wait, in ms
    assert ">70</text>" in said
    assert ">44</text>" in said


async def test_page_explains_the_colour_of_everything_that_a_process_can_be_doing(tmp_path: Path) -> None:
    made = Timeline()
    made.kills += [Kill(0.1, "orchestrator", 6, state.name.lower()) for state in State]
    said = page(await verdict(tmp_path), made)
    for state in State:
        assert f"</span>{state.name.lower()}" in said


async def test_page_of_a_violated_run_says_so_and_where(tmp_path: Path) -> None:
    found = await verdict(tmp_path, violated="lost_events")
    found.checks[0].where.append("item '<script>alert(1)</script>'")
    said = page(found, timeline())
    assert '<p class="verdict violated">violated: 1 lost_events</p>' in said
    assert "<script" not in said
    assert "&lt;script&gt;" in said


async def test_page_needs_nothing_else(tmp_path: Path) -> None:
    said = page(await verdict(tmp_path), timeline())
    assert not re.search(r"https?:|//|<link|<img|@import|url\(|<script", said)


async def test_page_of_a_run_in_which_nothing_happened(tmp_path: Path) -> None:
    said = page(await verdict(tmp_path), Timeline())
    assert said.count("Nothing to show.") == 4
    assert "<circle" not in said


async def test_page_and_verdict_are_written(tmp_path: Path) -> None:
    found = await verdict(tmp_path)
    prepare(tmp_path / "a" / "b")
    path = write(tmp_path / "a" / "b", found, timeline())
    assert path.read_text().startswith("<!doctype html>")
    kept = msgspec.json.decode((path.parent / "verdict.json").read_bytes(), type=Verdict)
    assert kept.accepted == found.accepted
    assert sorted(os.listdir(path.parent)) == ["report.html", "verdict.json"]


def test_preparing_leaves_an_earlier_report_alone(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("earlier")
    prepare(tmp_path)
    assert (tmp_path / "report.html").read_text() == "earlier"


def test_preparing_leaves_nothing_behind(tmp_path: Path) -> None:
    prepare(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InvalidInput, match="is a file"):
            prepare(path)


def test_what_cannot_be_written_is_said_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(CannotOpen, match="name another directory"):
        prepare(tmp_path)
    with pytest.raises(CannotOpen):
        prepare(tmp_path / "nul\0")


def test_bins_are_of_equal_length_and_empty_ones_are_there() -> None:
    made = Timeline()
    made.answered.extend([0.01, 0.02, 0.29])
    made.took.extend([0.001, 0.003, 0.005])
    bins = made.bins(0.3)
    assert bins[0].per_second == pytest.approx(20.0)
    assert (bins[0].p50, bins[0].p99) == (3.0, 3.0)
    assert [each.per_second for each in bins][1] == 0.0
    assert bins[2].p50 == 5.0
