"""What the proof of shortage calls wrong, on notes that are made up; and the schedule that had it call wrong what is not."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from faultproof.patterns.escrow.proof import SHORTAGE
from faultproof.prove.simulated.escapes import no_escapes
from faultproof.prove.simulated.explore import Explorer

Note = tuple[Any, ...]
HELD: Note = ("told", "back", "held", 900_000)
CONFIRMED: Note = ("told", "back", "confirmed", 900_000)
UNKNOWN: Note = ("refused", "back", "UnknownHold")
(WORDS,) = (each for each in SHORTAGE.eventually if each.claim == "what a customer was told is so")


@dataclass
class MadeUp:
    """Evidence of a hold `back` that was confirmed, and of what was said of it."""

    notes: list[Note]
    outside: dict[str, Any] = field(default_factory=dict)

    def fetch(self, sql: str) -> list[tuple[Any, ...]]:
        assert "FROM faultproof_escrow_hold" in sql
        return [("back", "confirmed")]


@pytest.mark.parametrize(
    "notes",
    [
        [HELD, CONFIRMED],
        [UNKNOWN, HELD, CONFIRMED],
        [("refused", "back", "InsufficientStock"), UNKNOWN, UNKNOWN, HELD, CONFIRMED],
        [HELD, ("refused", "back", "HoldEnded")],
        [HELD, ("refused", "another", "UnknownHold")],
    ],
)
def test_who_was_refused_may_be_told_that_there_is_no_hold_and_have_it_later(notes: list[Note]) -> None:
    assert WORDS.wrong(MadeUp(notes)) == []


@pytest.mark.parametrize("notes", [[HELD, UNKNOWN], [UNKNOWN, HELD, UNKNOWN, CONFIRMED]])
def test_who_was_told_of_a_hold_is_not_told_later_that_there_is_none(notes: list[Note]) -> None:
    assert WORDS.wrong(MadeUp(notes)) == ["back was said to be unknown"]


def test_a_request_that_is_refused_by_a_clock_that_was_put_back_and_repeated_breaks_no_word() -> None:
    """Seed 1359, statement by statement: what lay overdue was not so any more, and who came back for it was refused, had no
    hold to look at, was frozen, and had it when he asked once more."""
    explorer = Explorer(SHORTAGE, granularity="statement")
    with no_escapes():
        tape, faults = explorer.schedule(1359, 0.02)
        world, wrong = explorer.run(tape, faults_max=3, faults=faults)
    assert "back before Rollback in early.0" in world.faults
    of_back = [note[2] for note in world.notes if note[1] == "back"]
    assert of_back == ["InsufficientStock", "UnknownHold", "UnknownHold", "held", "confirmed", "confirmed"]
    assert wrong == []
