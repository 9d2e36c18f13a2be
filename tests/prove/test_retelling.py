"""A run that is retold is the same run, with the statements and the lines of the source that asked for them."""

import inspect
import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from faultproof.patterns.outbox import proof as outbox_proof
from faultproof.patterns.outbox.proof import OUTBOX
from faultproof.patterns.saga.proof import SAGA
from faultproof.ports.database import Database
from faultproof.prove.proof import Always, Eventually, Main, Process, Proof, noted
from faultproof.prove.simulated import listening, watched
from faultproof.prove.simulated.escapes import no_escapes
from faultproof.prove.simulated.explore import Explorer
from faultproof.prove.simulated.faults import CRASH, EVERY, FREEZE, Fault
from faultproof.prove.simulated.retelling import ENDS, retold
from faultproof.prove.simulated.samples import samples
from faultproof.prove.simulated.tape import Tape
from faultproof.prove.simulated.watched import WatchedWorld
from faultproof.prove.sites import shown
from faultproof.prove.story import USER_SQL, Happening, Story
from tests.cli import little_proofs
from tests.cli.little_proofs import HELD

HERE = "tests/prove/test_retelling.py"


async def _prepare(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE paid (invoice TEXT PRIMARY KEY)")


async def _cashier(process: Process) -> None:
    async with process.database().transaction() as tx:
        await _pay(tx)
    await process.outside("send a receipt", lambda post: post.setdefault("i-1", 0))
    process.note("finished", process.name)


async def _pay(tx) -> None:
    await tx.execute("INSERT INTO paid (invoice) VALUES (?) ON CONFLICT DO NOTHING", "i-1")


def _processes(plant: str | None) -> dict[str, Main]:
    return {"cashier": _cashier}


PAID = replace(
    HELD,
    prepare=_prepare,
    processes=_processes,
    always=(Always(claim="nobody pays", wrong=lambda evidence: [f"{n} paid" for (n,) in evidence.fetch(COUNT) if n]),),
    eventually=(Eventually(claim="somebody paid", wrong=lambda evidence: []),),
    done=lambda evidence: bool(noted(evidence, "finished")),
)
COUNT = "SELECT count(*) FROM paid"


def line_of(function, beginning: str) -> int:
    """The line in a function that begins so."""
    lines, first = inspect.getsourcelines(function)
    return first + next(n for n, line in enumerate(lines) if line.strip().startswith(beginning))


def told(story: Story, kind: str) -> list[Happening]:
    return [event for event in story.events if event.kind == kind]


@pytest.mark.parametrize("proof", [OUTBOX, SAGA], ids=["outbox", "saga"])
def test_what_is_retold_is_the_same_run(proof: Proof):
    for seed in (1, 2, 3):
        with no_escapes():
            tape = Tape(rng=random.Random(seed), chance=0.05)
            plain, wrong = Explorer(proof).run(tape, faults_max=3)
            expected = plain.hash()
            looked = partial(WatchedWorld, at_end=lambda world: None)
            again, wrong_again = Explorer(proof, world=looked).run(Tape(dict(tape.answers)), faults_max=3)
        assert plain.faults
        assert (again.hash(), wrong_again) == (expected, wrong)
        story = retold(proof, tape.answers)
        assert list(story.faults) == plain.faults
        assert len(told(story, "fault")) == len(plain.faults)


@pytest.mark.parametrize("proof", [OUTBOX, SAGA], ids=["outbox", "saga"])
def test_every_operation_was_asked_for_by_a_pattern_or_a_proof(proof: Proof):
    operations = told(retold(proof, {}), "operation")
    assert len(operations) > 15
    for event in operations:
        sites = [event.site, *(statement.site for statement in event.statements)]
        for site in sites:
            assert site is not None, event
            assert not site.file.startswith("/")
            # `engines` and the prover carry out what others ask for; primitives ask where nothing else does.
            assert site.file.startswith(("src/faultproof/patterns/", "src/faultproof/primitives/")), (event.what, site)
            assert site.code in Path(inspect.getfile(little_proofs)).parents[2].joinpath(site.file).read_text()
    assert any(
        event.site is not None and event.site.file.startswith("src/faultproof/patterns/") for event in operations
    )


def test_statement_and_line_of_a_crash_point_are_the_users():
    explorer = Explorer(HELD, "marks blindly")
    with no_escapes():
        world, _ = explorer.run(Tape(), faults_max=1)
    after = next(point for point in world.points if point.when == "after")
    story = retold(HELD, {after.position: CRASH}, plant="marks blindly")
    (fault,) = told(story, "fault")
    assert fault.what == "crash after transaction mark"
    assert [(each.name, each.values, each.answer) for each in fault.statements] == [
        ("tests.cli.little_proofs._mark", "n=1", "1 changed")
    ]
    assert fault.site is not None
    assert fault.site.file == "tests/cli/little_proofs.py"
    assert fault.site.line == line_of(little_proofs._processes, "await database.transact(mark(n))")
    assert fault.site.code == "await database.transact(mark(n))"
    assert [event.what for event in told(story, "start")] == ["starts", "starts again"]
    assert [event.who for event in told(story, "gone")] == ["marker.0"]


def test_statements_of_a_script_are_named_by_the_lines_of_the_script():
    story = retold(OUTBOX, {})
    place = next(event for event in told(story, "operation") if event.what == "transaction place")
    lines = {statement.name: statement.site and statement.site.line for statement in place.statements}
    room = "patterns.outbox.proof."
    assert lines[room + "_insert_order"] == line_of(outbox_proof._business, "if (yield from _insert_order")
    assert lines[room + "_bump"] == line_of(outbox_proof._business, "return (yield from _bump")


def test_users_own_sql_in_the_users_own_transaction():
    story = retold(PAID, {})
    begin, commit, request = told(story, "operation")
    assert (begin.what, begin.commits, commit.what, commit.commits) == ("begin", False, "commit", True)
    (statement,) = commit.statements
    assert statement.name == USER_SQL
    assert statement.text == "INSERT INTO paid (invoice) VALUES (?) ON CONFLICT DO NOTHING"
    assert (statement.values, statement.answer) == ("('i-1',)", "1 changed")
    assert statement.site is not None
    assert (statement.site.file, statement.site.line) == (HERE, line_of(_pay, "await tx.execute"))
    assert commit.site is not None
    assert (commit.site.function, commit.site.line) == ("_cashier", line_of(_cashier, "async with"))
    assert (request.what, request.answer) == ("send a receipt", "0")
    (note,) = told(story, "note")
    assert note.site is not None
    assert (note.what, note.site.line) == ("finished", line_of(_cashier, "process.note"))


def test_what_broke_always_is_the_commit_that_did():
    story = retold(PAID, {})
    ends, always, eventually, sometimes = story.judged
    assert (ends.claim, ends.wrong) == (ENDS, ())
    assert (always.claim, always.wrong) == ("nobody pays", ("1 paid",))
    assert always.event is not None
    assert story.events[always.event].what == "commit"
    assert (eventually.kind, eventually.wrong) == ("eventually", ())
    assert (sometimes.claim, sometimes.happened) == ("the marker finishes", True)
    assert story.broken == [always]


def test_a_process_that_dies_of_its_own_error_breaks_what_every_proof_claims():
    async def main(process: Process) -> None:
        process.note("finished")
        if process.incarnation == 0:
            raise ZeroDivisionError("no change")

    broken = replace(HELD, processes=lambda plant: {"till": main}, done=lambda evidence: len(evidence.notes) > 1)
    story = retold(replace(broken, eventually=(), sometimes=()), {})
    (ends,) = story.judged
    assert ends.wrong == ("till.0 died of ZeroDivisionError('no change')",)
    (death,) = told(story, "dies")
    assert (death.what, death.answer) == ("dies of ZeroDivisionError", "ZeroDivisionError('no change')")


def test_who_is_frozen_is_replaced_and_comes_back():
    with no_escapes():
        world, _ = Explorer(HELD).run(Tape(), faults_max=1)
    story = retold(HELD, {world.points[0].position: FREEZE})
    (fault,), (back,) = told(story, "fault"), told(story, "wakes")
    assert (fault.what, back.who) == ("freeze before transaction mark_once", "marker.0")
    assert back.at == pytest.approx(1.5)
    assert not told(story, "gone")


@pytest.mark.parametrize("fault", sorted(EVERY), ids=lambda fault: fault.name.lower())
def test_every_kind_of_fault_can_be_told(fault: Fault):
    with no_escapes():
        world, _ = Explorer(OUTBOX).run(Tape(rng=random.Random(3)), faults_max=1)
        answers = dict(world.tape.answers)
        where = [point for point in world.points if fault in point.kinds]
    if not where:  # of messages and of requests there are no points: those faults strike at random
        with no_escapes():
            for seed in range(200):
                tape = Tape(rng=random.Random(seed), chance=0.2)
                world, _ = Explorer(SAGA).run(tape, faults_max=1, faults=frozenset({fault}))
                if world.fired:
                    break
        story = retold(SAGA, tape.answers)
    else:
        position = where[len(where) // 2].position
        before = {at: answer for at, answer in answers.items() if at < position}
        story = retold(OUTBOX, {**before, position: fault})
    (event,) = told(story, "fault")
    assert event.what.startswith(f"{fault.name.lower()} ")


def test_statement_by_statement_and_on_real_files(tmp_path: Path):
    stepwise = retold(HELD, {}, granularity="statement")
    assert [event.what for event in told(stepwise, "operation")][:3] == [
        "begin",
        "tests.cli.little_proofs._mark_once",
        "commit",
    ]
    in_files = retold(HELD, {}, files=tmp_path)
    assert [(event.what, event.commits) for event in told(in_files, "operation")] == [
        ("transaction mark_once", True)
    ] * 2
    assert in_files.judged[-1].happened


def test_long_runs_and_long_values_are_cut_and_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(watched, "EVENTS_MAX", 3)
    story = retold(HELD, {})
    assert (len(story.events), story.left_out) == (3, 1)
    assert len(listening.short(["x" * 1_000] * 1_000)) <= 400


def test_samples_are_the_undisturbed_run_the_liveliest_faults_and_what_happens_sometimes():
    found = samples(OUTBOX)
    assert [sample.title for sample in found][:3] == ["The undisturbed run", "One crash", "One freeze"]
    assert found[0].answers == {}
    stories = [retold(OUTBOX, sample.answers) for sample in found]
    assert [len(story.faults) for story in stories] == [0] + [1] * (len(found) - 1)
    assert not any(story.broken for story in stories)
    assert len(stories[1].events) > len(stories[0].events)
    (claim,) = (each.claim for each in OUTBOX.sometimes)
    assert any(judged.happened for story in stories for judged in story.judged if judged.claim == claim)


def test_a_file_is_shown_without_whose_machine_it_is_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert shown.__wrapped__(str(tmp_path / "mine" / "pay.py")) == "mine/pay.py"
    monkeypatch.syspath_prepend("/nowhere/site-packages")
    assert shown.__wrapped__("/nowhere/site-packages/theirs/pay.py") == "theirs/pay.py"
    assert shown.__wrapped__("/somewhere/else/pay.py") == "pay.py"
