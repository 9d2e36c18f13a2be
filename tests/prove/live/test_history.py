"""Histories and orders: what is written is read again, and nothing else is taken for it."""

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from faultproof.errors import InvalidInput
from faultproof.prove.live import history
from faultproof.prove.live.fleet import left_behind
from faultproof.prove.live.history import LINE_MAX, History, Reader, encodable, load_evidence, note
from faultproof.prove.live.orders import Order, Point, at_commits, at_points, parsed, spread, stops
from faultproof.prove.live.points import Points


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.jsonl"


def test_evidence_is_what_was_told_and_what_the_judgement_read(path: Path) -> None:
    rows = [(1, None, "a", b"\xff", Decimal("2.5"), True)]
    world = History(path)
    world.add(run={"proof": "p:P", "order": "kill:a:1"})
    History(path, "a.0").add(note=["told", "x", [1, 2]])
    History(path, "a.0").add(point=1, at="before note told")
    world.add(outside={"x": 1})
    world.add(query="SELECT 1", rows=encodable(rows))
    evidence = load_evidence(path)
    assert evidence.notes == [("told", "x", [1, 2])]
    assert evidence.outside == {"x": 1}
    assert evidence.fetch("SELECT 1") == rows
    assert evidence.run["order"] == "kill:a:1"
    with pytest.raises(InvalidInput, match="has no answer to a query"):
        evidence.fetch("SELECT 2")


def test_a_line_that_is_not_whole_yet_waits(path: Path) -> None:
    path.write_bytes(b'{"process":"a.0","note":["x"]}\n{"process":"a.0","no')
    reader = Reader(path)
    assert reader.read_on().notes == [("x",)]
    with path.open("ab") as file:
        file.write(b'te":["y"]}\n')
    assert reader.read_on().notes == [("x",), ("y",)]
    reader.close()


@pytest.mark.parametrize(
    "text", [b"nonsense\n", b"[1]\n", b'{"note":3}\n', b'{"query":"x","rows":[3]}\n', b'{"note":["x"]}\n', b""]
)
def test_what_is_no_history_is_refused(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    with pytest.raises(InvalidInput, match="is not a history of a live run"):
        load_evidence(path)


def test_a_file_that_is_not_there_or_too_large_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        load_evidence(path)
    path.write_bytes(b"{}\n" * 10)
    monkeypatch.setattr(history, "SIZE_MAX", 10)
    with pytest.raises(InvalidInput, match="is too large"):
        load_evidence(path)


def test_what_json_cannot_carry_is_refused_before_it_is_written(path: Path) -> None:
    events = History(path)
    for fact in (object(), "x" * LINE_MAX, "\ud800"):
        with pytest.raises(InvalidInput):
            events.add(note=["told", fact])
    assert path.read_bytes() == b""


def test_a_service_s_notes_go_to_the_prover_and_nowhere_without_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAULTPROOF_HISTORY", raising=False)
    note("told", 1)
    assert not path.exists()
    monkeypatch.setenv("FAULTPROOF_HISTORY", str(path))
    monkeypatch.setenv("FAULTPROOF_PROCESS", "api-1")
    note("told", 1)
    reader = Reader(path)
    assert reader.read_on().notes == [("told", 1)]
    reader.close()


def test_a_process_that_was_left_behind_is_found_by_its_marker() -> None:
    marked = {**os.environ, "FAULTPROOF_RUN": "0123456789abcdef"}
    with subprocess.Popen(
        [sys.executable, "-c", "print('!', flush=True); input()"], env=marked, stdin=-1, stdout=-1
    ) as left:
        assert left.stdout is not None
        left.stdout.readline()
        assert left_behind("0123456789abcdef") == [left.pid]
        assert left_behind("0123456789abcde") == []
        left.kill()
    assert left_behind("0123456789abcdef") == []


@pytest.mark.parametrize(
    "text",
    [
        "none",
        "kill:api-1:7",
        "stop:a:b:3",
        "stop:a:3:before request pay: 2:1",
        "drop:api-1:2",
        "kills:5",
        "server:0",
        "half-open:1",
    ],
)
def test_an_order_is_read_as_it_was_written(text: str) -> None:
    assert str(parsed(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "kill", "kill:3", "kill:a:x", "kill:a:-1", "kills:a:3", "explode:a:1", "kill:a:", "kill:a:0", "server"),
        *("none:1", "kill:a:1:", "drop:a:1:at COMMIT", "kills:1:x", f"kill:a:{'9' * 5_000}"),
    ],
)
def test_what_is_no_order_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not an order"):
        parsed(text)


def test_orders_are_spread_over_all_points_and_stops_over_all_kinds() -> None:
    assert spread([Order("kills", "", n) for n in range(10)], 2) == [Order("kills", "", 2), Order("kills", "", 7)]
    labels = ["before pay", "at COMMIT of pay", "after COMMIT of pay", "before note x", "after note x"] * 3 + [
        "before tend"
    ]
    points = [Point("a", number, label) for number, label in enumerate(labels, 1)]
    most = [(order.number, order.label) for order in stops(points, 4)]
    assert most == [(2, "before pay"), (2, "at COMMIT of pay"), (1, "before tend"), (1, "before pay")]
    assert [(order.number, order.label) for order in stops(points, 2)] == [most[0], most[2]]
    assert [str(order) for order in at_points("kill", points, 3)] == [
        "kill:a:1:after COMMIT of pay",
        "kill:a:2:before note x",
        "kill:a:3:before note x",
    ]
    assert [order.number for order in at_commits(points, 9)] == [1, 2, 3]
    assert [point.number for point in points if point.changes] == [2, 3, 5, 7, 8, 10, 12, 13, 15]


@pytest.mark.parametrize(
    ("order", "strikes_at"), [("lose:a:2:after request pay", 6), ("lose:a:4", 4), ("lose:a:3:after request pay", None)]
)
def test_a_point_is_meant_by_what_happens_there_however_often_others_are_passed(
    order: str, strikes_at: int | None, path: Path
) -> None:
    points = Points(History(path, "a.0"), parsed(order))
    looks = ["before request pay", "after request pay", "after note looked", "after note looked", "before request pay"]
    struck = [points.reach(label) for label in [*looks, "after request pay", "after note looked"]]
    assert [number for number, strike in enumerate(struck, 1) if strike] == ([strikes_at] if strikes_at else [])
    assert set(struck) <= {None, "lose"}
