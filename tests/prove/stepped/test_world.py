"""The stepped world itself: who waits is seen, nobody waits for ever, each interleaving comes once, and nothing is left."""

import dataclasses
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any

import psycopg
import pytest

from faultproof.engines.postgres import floor as floors
from faultproof.errors import Busy, InvalidInput, TryAgain
from faultproof.ports.database import Database, Tx
from faultproof.ports.script import Call, Script, sql
from faultproof.prove.harness import HarnessError
from faultproof.prove.proof import Evidence, Plant, Sometimes
from faultproof.prove.simulated.tape import Tape
from faultproof.prove.stepped import proof_log
from faultproof.prove.stepped.case import Case, Isolation, Main, Stepping, dropped, replaced
from faultproof.prove.stepped.explore import explore, explore_stepped, interleavings, replay_stepped
from faultproof.prove.stepped.world import World


@sql("UPDATE account SET balance = balance + 1 WHERE name = :name RETURNING balance")
def add_one(name: str) -> int: ...


@sql("SELECT balance FROM account WHERE name = :name")
def look(name: str) -> int: ...


@sql("SELECT balance FROM account WHERE name = :name {lock}")
def look_and_lock(name: str) -> int: ...


@sql("UPDATE account SET balance = :balance WHERE name = :name")
def put(name: str, balance: int) -> None: ...


async def prepare(database: Database) -> None:
    async with database.transaction() as tx:
        await tx.execute("CREATE TABLE account (name TEXT PRIMARY KEY, balance BIGINT NOT NULL)")
        await tx.execute("INSERT INTO account VALUES ('a', 0), ('b', 0), ('c', 0)")


def adds(*names: str) -> Main:
    """One transaction that adds one to each, in that order."""

    def work() -> Script[None]:
        for name in names:
            yield from add_one(name)

    async def main(process: Stepping) -> None:
        await process.database().transact(work)
        process.note("added", process.name)

    return main


def sums_to(expected: int) -> Callable[[Evidence], list[str]]:
    def wrong(evidence: Evidence) -> list[str]:
        ((total,),) = evidence.fetch("SELECT sum(balance)::int FROM account")
        return [] if total == expected else [f"the accounts have {total}, not {expected}"]

    return wrong


def case_of(sessions: Mapping[str, Main], expected: int, **more: object) -> Case:
    return Case(
        name="tests:CASE",
        claim="All that was added is there.",
        prepare=prepare,
        sessions=lambda plant: sessions,
        wrong=sums_to(expected),
        **more,  # type: ignore[arg-type]
    )


APART = case_of({"one": adds("a", "a", "a"), "other": adds("b", "b", "b")}, 6)
ACROSS = case_of({"one": adds("a", "b"), "other": adds("b", "a")}, 4)


# -- each interleaving, once -----------------------------------------------------------------------------------------------


def test_each_interleaving_comes_once(url: str) -> None:
    """Four statements each, COMMIT included, none of which waits: 8! / (4! 4!) orders."""
    with World(APART, url) as world:
        orders = ["".join(step.session for step in run.steps) for run in interleavings(world)]
    assert len(orders) == len(set(orders)) == 70
    assert {(order.count("A"), order.count("B")) for order in orders} == {(4, 4)}
    assert orders[0] == "AAAABBBB"


def test_preemptions_are_limited_and_a_transaction_s_end_is_none(url: str) -> None:
    with World(case_of(APART.sessions(None), 6, preemptions=1), url) as world:
        orders = {"".join(step.session for step in run.steps) for run in interleavings(world)}
    assert "AAABBBBA" in orders  # one was interrupted, and goes on when the other is at its end
    assert not any("ABA" in order and "BAB" in order for order in orders)
    assert len(orders) == 8  # to the end, or interrupted behind the first, second or third statement; either first


def test_three_sessions_have_at_most_three_preemptions(url: str) -> None:
    case = case_of({"one": adds("a", "a"), "two": adds("b"), "three": adds("c")}, 4)
    with World(case, url) as world:
        runs = list(interleavings(world))
    schedules = [run.schedule for run in runs]
    assert len(schedules) == len(set(schedules)) > 50
    ends = {"A": 3, "B": 2, "C": 2}
    for run in runs:
        switched = [
            before for before, after in zip(run.steps, run.steps[1:], strict=False) if before.session != after.session
        ]
        assert sum(step.number < ends[step.session] for step in switched) <= 3


def test_however_long_an_interleaving_takes_its_statements_are_the_same(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What production asks for again after half a second is asked for once: no time passes, also on a machine that is busy."""
    monkeypatch.setattr(floors, "LOOK_S", 1e-9)
    with World(proof_log.LATE, url) as world:
        run = world.run(Tape())
    asked = [step.what.rpartition(".")[2] for step in run.steps]
    assert asked.count("_lock_by_indexes") == 2
    assert asked.count("_holders") == 1


# -- who waits -------------------------------------------------------------------------------------------------------------


def test_a_session_that_waits_for_a_lock_is_seen_and_goes_on_when_it_is_granted(url: str) -> None:
    with World(case_of({"one": adds("a"), "other": adds("a")}, 2), url) as world:
        schedules = [run.schedule for run in interleavings(world)]
    assert sorted(schedules) == [
        "A1 A2 B1 B2",
        "A1 B1 (waits) A2 B2",
        "B1 A1 (waits) B2 A2",
        "B1 B2 A1 A2",
    ]


def test_a_deadlock_has_a_victim_that_begins_again(url: str) -> None:
    report = explore_stepped(ACROSS, url)
    assert report.violations == []
    assert 0 < report.with_deadlock < report.with_wait < report.interleavings
    with World(ACROSS, url) as world:
        deadlocked = [run for run in interleavings(world) if run.refused]
    assert {run.refused for run in deadlocked} == {("40P01",)}
    victims = {step.session for run in deadlocked for step in run.steps if step.number > 3}
    assert victims == {"A", "B"}  # who closes the circle begins again: each of them in some


def test_who_gives_no_second_try_is_told_of_the_deadlock(url: str) -> None:
    def once(*names: str) -> Main:
        async def main(process: Stepping) -> None:
            def work() -> Script[None]:
                for name in names:
                    yield from add_one(name)

            try:
                await process.database().transact(work())  # a script alone cannot be begun again
            except Busy:
                process.note("victim", process.name)

        return main

    case = case_of({"one": once("a", "b"), "other": once("b", "a")}, 4)
    report = explore_stepped(case, url)
    assert report.violated == report.with_deadlock > 0
    assert {violation.sentences for violation in report.violations} == {("the accounts have 2, not 4",)}


def joined(isolation: Isolation) -> Main:
    async def main(process: Stepping) -> None:
        def work() -> Script[None]:
            balance = yield from look("a")
            yield from put("a", balance + 1)

        def inside(tx: Tx) -> Awaitable[None]:
            return tx.run(work())

        await process.joined(isolation, inside)

    return main


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_who_cannot_be_serialized_begins_again(isolation: Isolation, url: str) -> None:
    report = explore_stepped(case_of({"one": joined(isolation), "other": joined(isolation)}, 2), url)
    assert report.violations == []
    assert 0 < report.with_failure < report.interleavings


def test_a_lost_update_is_found_and_its_schedule_printed(url: str) -> None:
    report = explore_stepped(case_of({"one": joined("read committed"), "other": joined("read committed")}, 2), url)
    assert 0 < report.violated < report.interleavings
    first = report.violations[0]
    assert first.schedule == "A1 A2 B1 B2 (waits) A3 B3"
    assert list(first.lines()) == [
        "A1           tests.prove.stepped.test_world.look",
        "A2           tests.prove.stepped.test_world.put",
        "B1           tests.prove.stepped.test_world.look",
        "B2 (waits)   tests.prove.stepped.test_world.put",
        "A3           COMMIT",
        "B3           COMMIT",
        "the accounts have 1, not 2",
        "tape [(2, 1)]",
    ]


# -- tapes -----------------------------------------------------------------------------------------------------------------


def test_a_tape_repeats_its_interleaving(url: str) -> None:
    with World(ACROSS, url) as world:
        runs = list(interleavings(world))
        for run in runs:
            again = world.run(Tape(run.answers))
            assert (again.steps, again.taken, again.refused) == (run.steps, run.taken, run.refused)
    found = runs[len(runs) // 2]
    assert replay_stepped(ACROSS, url, found.answers).schedule == found.schedule


def test_an_empty_tape_lets_one_after_the_other_through(url: str) -> None:
    assert replay_stepped(APART, url, {}).schedule == "A1 A2 A3 A4 B1 B2 B3 B4"


# -- planted bugs ----------------------------------------------------------------------------------------------------------


def reads_then_writes() -> Main:
    async def main(process: Stepping) -> None:
        def work() -> Script[None]:
            balance = yield from look_and_lock("a")
            yield from put("a", balance + 1)

        await process.database().transact(work)

    return main


def locked(**more: object) -> Case:
    return case_of({"one": reads_then_writes(), "other": reads_then_writes()}, 2, **more)


LOOKS = "tests.prove.stepped.test_world.look_and_lock"


def test_a_rewritten_statement_is_what_is_sent(url: str) -> None:
    assert explore_stepped(locked(), url).violations == []
    unlocked = explore_stepped(locked(), url, rewrite=replaced(LOOKS, "{lock}", ""))
    assert unlocked.violated == 1
    assert not unlocked.is_complete  # the first is enough


def test_a_statement_that_is_left_out_is_not_sent(url: str) -> None:
    seen: list[str] = []

    def rewrite(call: Call) -> Call | None:
        seen.append(call.statement.name)
        return dropped("tests.prove.stepped.test_world.put")(call)

    report = explore_stepped(locked(), url, rewrite=rewrite)
    assert report.violations[0].sentences == ("the accounts have 0, not 2",)
    assert "put" not in str([step.what for step in report.violations[0].steps])
    assert set(seen) == {LOOKS, "tests.prove.stepped.test_world.put"}


def test_a_bug_that_cannot_be_planted_any_more_is_an_error(url: str) -> None:
    plant = Plant(name="gone", breaks="nothing")
    case = locked(plants=(plant,), rewrites={"gone": replaced(LOOKS, "no such text", "")})
    with pytest.raises(HarnessError, match="has no 'no such text' to plant a bug in"):
        explore_stepped(case, url, plant="gone")


def test_a_planted_bug_that_is_no_sql_is_an_error_and_not_caught_and_the_next_one_is(url: str) -> None:
    with World(locked(), url) as world:
        with pytest.raises(HarnessError, match=r"does not understand .*look_and_lock: syntax error"):
            explore(world, rewrite=replaced(LOOKS, "SELECT", "SELEKT"))
        assert explore(world, rewrite=replaced(LOOKS, "{lock}", "")).violated == 1
        assert explore(world).violated == 0


def test_an_outcome_that_cannot_be_judged_is_a_violation(url: str) -> None:
    def wrong(evidence: Evidence) -> list[str]:
        ((balance,),) = evidence.fetch("SELECT balance FROM account WHERE name = 'nobody'")
        return [f"nobody has {balance}"]

    case = dataclasses.replace(APART, wrong=wrong)
    report = explore_stepped(case, url, until_violated=True)
    assert report.violations[0].sentences[0].startswith("the outcome cannot be judged: ValueError")


def test_what_never_happened_is_told(url: str) -> None:
    sometimes = (
        Sometimes(claim="both add", happened=lambda evidence: len(evidence.notes) == 2),
        Sometimes(claim="pigs fly", happened=lambda evidence: False),
    )
    case = case_of({"one": adds("a"), "other": adds("b")}, 2, sometimes=sometimes)
    assert explore_stepped(case, url).never == ("pigs fly",)


# -- what goes wrong -------------------------------------------------------------------------------------------------------


def test_a_session_that_dies_violates_its_case(url: str) -> None:
    async def dies(process: Stepping) -> None:
        await process.database().transact(add_one("a"))
        raise ZeroDivisionError("oh")

    report = explore_stepped(case_of({"one": dies, "other": adds("b")}, 2), url)
    assert report.violated == report.interleavings
    assert report.violations[0].sentences == ("one died of ZeroDivisionError('oh')",)


class Message:
    def __await__(self) -> Generator[Any, Any, None]:
        yield "a message"


async def waits_elsewhere(process: Stepping) -> None:
    async with process.database().transaction() as tx:
        await tx.run(add_one("a"))
        await Message()


def test_a_session_that_waits_for_anything_else_is_refused(url: str) -> None:
    with pytest.raises(HarnessError, match="session one waits for 'a message'"):
        explore_stepped(case_of({"one": waits_elsewhere, "other": adds("a")}, 1), url)


def test_a_session_without_an_end_is_refused(url: str) -> None:
    async def forever(process: Stepping) -> None:
        while True:
            await process.database().read(look("a"))

    with pytest.raises(HarnessError, match="more than 500 statements"):
        explore_stepped(case_of({"one": forever, "other": adds("b")}, 1), url)


def test_a_case_that_cannot_be_prepared_says_why(url: str) -> None:
    async def fails(database: Database) -> None:
        async with database.transaction() as tx:
            await tx.execute("CREATE TABLE account (name NOSUCHTYPE)")

    async def raises(database: Database) -> None:
        raise ZeroDivisionError("oh")

    for broken, why in ((fails, 'type "nosuchtype" does not exist'), (raises, "cannot be prepared: ZeroDivisionError")):
        case = Case(name="tests:CASE", claim="", prepare=broken, sessions=APART.sessions, wrong=APART.wrong)
        with pytest.raises(HarnessError, match=why):
            explore_stepped(case, url)


@pytest.mark.parametrize("count", [1, 4])
def test_other_numbers_of_sessions_are_refused(count: int, url: str) -> None:
    with pytest.raises(InvalidInput, match=f"{count} sessions"):
        explore_stepped(case_of({str(n): adds("a") for n in range(count)}, count), url)


def test_unknown_planted_bugs_and_unknown_servers_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="no planted bug 'x'; it has none"):
        explore_stepped(APART, url, plant="x")
    with pytest.raises(InvalidInput, match="each planted bug has a name"):
        case_of({}, 0, rewrites={"x": dropped("y")})
    with pytest.raises(InvalidInput, match="preemptions"):
        case_of({}, 0, preemptions=-1)
    with pytest.raises(TryAgain):
        explore_stepped(APART, "postgresql://127.0.0.1:9/nobody?connect_timeout=1")


# -- a guest ---------------------------------------------------------------------------------------------------------------


def schemas_of(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'faultproof%'").fetchall()
        return [name for (name,) in found]


def test_nothing_is_left_and_others_tables_are_not_touched(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.account (name TEXT PRIMARY KEY, balance BIGINT NOT NULL)")
        connection.execute("INSERT INTO public.account VALUES ('a', 7)")
        try:
            explore_stepped(APART, url)
            with pytest.raises(HarnessError):
                explore_stepped(case_of({"one": waits_elsewhere, "other": adds("a")}, 2), url)
            assert connection.execute("SELECT * FROM public.account").fetchall() == [("a", 7)]
        finally:
            connection.execute("DROP TABLE public.account")
    assert schemas_of(url) == []


def test_who_may_not_hurry_deadlocks_waits_for_them(url: str) -> None:
    """A role that is nobody special: each deadlock costs what the server waits, and ends in the same way."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE stepper LOGIN PASSWORD 'x'")
        connection.execute("CREATE DATABASE stepped OWNER stepper")
        try:
            host = connection.info
            theirs = f"postgresql://stepper:x@{host.host}:{host.port}/stepped"
            with World(ACROSS, theirs) as world:
                assert not world.ground.may_hurry
                run = world.run(Tape({1: 1, 2: 1}))
                assert (run.wrong, run.refused) == ([], ("40P01",))
        finally:
            connection.execute("DROP DATABASE stepped WITH (FORCE)")
            connection.execute("DROP ROLE stepper")
