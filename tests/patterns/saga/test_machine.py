"""The decisions, as what they are: functions."""

from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultproof.patterns.saga.machine import INTERRUPTIONS_MAX, Entry, Run, begin, evolve, plan
from faultproof.patterns.saga.shape import Shape, StepShape

SHAPE = Shape(
    (
        (StepShape("charge", "remote", True, True),),
        (StepShape("left", "remote", True, True), StepShape("right", "local", True, True)),
        (StepShape("ship", "remote", False, False),),
        (StepShape("notify", "remote", False, False),),
    ),
    "ship",
)


def secrets() -> Iterator[str]:
    return (str(number) for number in count())


def after(*entries: Entry, shape: Shape = SHAPE, deadline_us: int | None = None) -> Run:
    run = begin(shape, deadline_us)
    for entry in entries:
        run = evolve(shape, run, entry)
    return run


def done(*names: str) -> list[Entry]:
    return [entry for name in names for entry in (Entry(name, "began", 1), Entry(name, "done", 1, "null"))]


def test_a_step_is_begun_and_nothing_else() -> None:
    made = plan(SHAPE, after(), 0, secrets())
    assert [(entry.step, entry.what) for entry in made.entries] == [("charge", "began")]
    assert [(work.step, work.attempt, work.undo) for work in made.work] == [("charge", 1, False)]


def test_a_group_is_begun_together_and_waited_for() -> None:
    made = plan(SHAPE, after(*done("charge")), 0, secrets())
    assert [work.step for work in made.work] == ["left", "right"]
    made = plan(SHAPE, evolve(SHAPE, made.run, Entry("left", "done", 1, "null")), 0, secrets())
    assert [work.step for work in made.work] == ["right"]
    assert made.entries == []


def test_a_failed_one_of_a_group_waits_for_those_beside_it_before_the_saga_turns() -> None:
    run = after(*done("charge"), Entry("left", "began", 1), Entry("right", "began", 1))
    made = plan(SHAPE, evolve(SHAPE, run, Entry("left", "failed", 1, "no")), 0, secrets())
    assert [work.step for work in made.work] == ["right"]
    made = plan(SHAPE, evolve(SHAPE, made.run, Entry("right", "done", 1, "null")), 0, secrets())
    assert made.run.phase == "compensating"
    assert [(work.step, work.undo) for work in made.work] == [("right", True)]


@pytest.mark.parametrize(("now_us", "phase"), [(9, "running"), (10, "compensating")])
def test_the_deadline_counts_to_the_microsecond(now_us: int, phase: str) -> None:
    run = after(*done("charge"), deadline_us=10)
    assert plan(SHAPE, run, now_us, secrets()).run.phase == phase


@pytest.mark.parametrize("pivot", [[Entry("ship", "began", 1)], done("ship")])
def test_the_deadline_counts_no_more_once_the_pivot_may_have_happened(pivot: list[Entry]) -> None:
    run = after(*done("charge", "left", "right"), *pivot, deadline_us=10)
    assert plan(SHAPE, run, 99, secrets()).run.phase == "running"


def test_a_step_that_kills_its_process_again_and_again_is_given_up() -> None:
    run = after(Entry("charge", "began", 1))
    for _ in range(INTERRUPTIONS_MAX):
        run = evolve(SHAPE, run, Entry("charge", "interrupted", 1, "gone", 0))
        assert plan(SHAPE, run, 0, secrets()).run.phase == "running"
    run = evolve(SHAPE, run, Entry("charge", "interrupted", 1, "gone", 0))
    made = plan(SHAPE, run, 0, secrets())
    assert [(entry.step, entry.what) for entry in made.entries] == [("", "turned"), ("charge", "undo_began")]


def test_a_step_of_another_definition_changes_nothing() -> None:
    assert after(Entry("unknown", "began", 1)) == after()


OUTCOMES = st.sampled_from(["done", "failed", "unknown", "again", "interrupted"])


@given(outcomes=st.lists(OUTCOMES, max_size=40), deadline_us=st.none() | st.integers(0, 40))
def test_whatever_happens_every_saga_ends_and_undoes_only_what_was_begun(
    outcomes: list[str], deadline_us: int | None
) -> None:
    run, journal, answers = begin(SHAPE, deadline_us), list[Entry](), iter(outcomes)
    for now_us in range(200):
        made = plan(SHAPE, run, now_us, secrets())
        journal += made.entries
        run = made.run
        if run.is_over:
            break
        assert made.work or made.look_us is not None, "nothing follows"
        for work in made.work:
            outcome = next(answers, "done")
            entry = _undo(work.step, work.attempt, outcome, now_us) if work.undo else None
            entry = entry or _act(work.step, work.attempt, outcome, now_us)
            journal.append(entry)
            run = evolve(SHAPE, run, entry)
    assert run.is_over
    assert after(*journal, deadline_us=deadline_us) == run, "the journal tells it all"
    began = [entry.step for entry in journal if entry.what == "began"]
    undone = [entry.step for entry in journal if entry.what == "undo_began"]
    assert set(undone) <= set(began)
    if any(entry.what == "done" and entry.step == "ship" for entry in journal):
        assert undone == []
    if "charge" in undone:
        assert not {"left", "right"} & set(undone[undone.index("charge") :])
    if run.phase == "compensated":
        happened = {
            e.step for e in journal if e.what == "done" or (e.what == "unknown" and SHAPE.steps[e.step].kind != "local")
        }
        assert {name for name in happened if SHAPE.steps[name].undo} <= set(undone)


def _act(step: str, attempt: int, outcome: str, now_us: int) -> Entry:
    match outcome:
        case "done":
            return Entry(step, "done", attempt, "null")
        case "again":
            return Entry(step, "unknown", attempt, "no answer", now_us + 2)
        case "interrupted":
            return Entry(step, "interrupted", attempt, "gone", now_us)
        case "unknown":
            return Entry(step, "unknown", attempt, "no answer")
        case _:
            return Entry(step, "failed", attempt, "no")


def _undo(step: str, attempt: int, outcome: str, now_us: int) -> Entry:
    match outcome:
        case "done":
            return Entry(step, "undone", attempt)
        case "failed":
            return Entry(step, "undo_failed", attempt, "no")
        case "interrupted":
            return Entry(step, "undo_interrupted", attempt, "gone", now_us)
        case _:
            return Entry(step, "undo_failed", attempt, "no answer", now_us + 2)
