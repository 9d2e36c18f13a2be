"""A pattern's room without its furniture is noticed, piece by piece."""

from dataclasses import replace
from pathlib import Path

import pytest

from faultproof.catalogue import Status, find
from tests.architecture.rooms import HEADINGS, rooms_furnished

SAGA = replace(
    find("saga"),
    status=Status.READY,
    proof="faultproof.patterns.saga.proof:SAGA",
    readme="faultproof/patterns/saga/README.md",
)
README = "# Saga\n\nProof: `faultproof.patterns.saga.proof:SAGA`\n\n" + "".join(f"## {h}\n\n" for h in HEADINGS)


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A furnished room for the saga, in a source tree of its own."""
    room = tmp_path / "src" / "faultproof" / "patterns" / "saga"
    room.mkdir(parents=True)
    (room / "__init__.py").touch()
    (room / "proof.py").write_text("SAGA = 1\n")
    (room / "README.md").write_text(README)
    return room


def violations(room: Path, **changes: object) -> list[str]:
    return rooms_furnished(room.parent.parent, [replace(SAGA, **changes)])  # type: ignore[arg-type]


def test_furnished_room_passes(room: Path) -> None:
    assert violations(room) == []


@pytest.mark.parametrize("heading", HEADINGS)
def test_missing_heading_is_noticed(room: Path, heading: str) -> None:
    # The words alone, at another level or in a sentence, are not the heading.
    (room / "README.md").write_text(README.replace(f"## {heading}\n", f"### {heading}\n"))
    assert violations(room) == [f"src/faultproof/patterns/saga/README.md:1: the heading `## {heading}` is missing."]


def test_readme_that_does_not_name_its_proof_is_noticed(room: Path) -> None:
    (room / "README.md").write_text(README.replace("proof:SAGA", "proof"))
    assert violations(room) == [
        "src/faultproof/patterns/saga/README.md:1: it does not name its proof, faultproof.patterns.saga.proof:SAGA."
    ]


def test_missing_readme_is_noticed(room: Path) -> None:
    (room / "README.md").unlink()
    assert violations(room) == ["src/faultproof/patterns/saga/README.md:1: the room has no README."]


@pytest.mark.parametrize("text", ["", "SAGAS = 1\n"])
def test_missing_proof_is_noticed(room: Path, text: str) -> None:
    (room / "proof.py").write_text(text)
    assert violations(room) == [
        "src/faultproof/patterns/saga/proof.py:1: the catalogue promises the proof "
        "faultproof.patterns.saga.proof:SAGA, and it is not there."
    ]


def test_room_that_the_catalogue_calls_planned_is_noticed(room: Path) -> None:
    assert violations(room, status=Status.PLANNED) == [
        "src/faultproof/patterns/saga:1: it has code, and the catalogue says Saga is planned."
    ]


def test_ready_pattern_without_a_room_is_noticed(room: Path) -> None:
    ready = replace(find("write-through"), status=Status.READY)
    assert rooms_furnished(room.parent.parent, [SAGA, ready]) == [
        "src/faultproof/patterns/write_through:1: the catalogue says Write-Through is ready, and it has no room."
    ]


def test_planned_pattern_without_a_room_is_fine(room: Path) -> None:
    assert rooms_furnished(room.parent.parent, [SAGA, find("cqrs")]) == []


def test_room_of_no_pattern_is_noticed(room: Path) -> None:
    (room.parent / "sagas").mkdir()
    (room.parent / "sagas" / "run.py").touch()
    assert violations(room) == ["src/faultproof/patterns/sagas:1: no pattern of the catalogue lives here."]
