"""Mutants in the stepped world: what simulation's one writer hides, two sessions show."""

import dataclasses
from collections.abc import Iterator

import pytest

from faultproof.engines.sqlite import claims
from faultproof.patterns.escrow.proof import ESCROW
from faultproof.patterns.escrow.proof_stepped import EXPIRE, LAST_STRAIGHT, NEW
from faultproof.patterns.escrow.sql import take
from faultproof.patterns.outbox.proof_stepped_groups import FORGET_JOIN
from faultproof.patterns.outbox.proof_stepped_lost import LATER
from faultproof.patterns.outbox.sql import join_group, take_back_attempt
from faultproof.ports.script import Call
from faultproof.prove.harness import HarnessError, NoEnd, ShowsNothing
from faultproof.prove.mutants import stepping
from faultproof.prove.mutants.constraints import Constraint
from faultproof.prove.mutants.groups import groups, targets
from faultproof.prove.mutants.hunt import Effort
from faultproof.prove.mutants.mutant import Mutant
from faultproof.prove.mutants.postgres import relax
from faultproof.prove.mutants.stepping import Stage
from faultproof.prove.stepped.explore import explore
from faultproof.prove.stepped.world import World
from tests.servers.postgres import PostgresServer

SQL = "patterns.escrow.sql."
ITEM = "faultproof_escrow_item"


@pytest.fixture(scope="module")
def mutants() -> dict[str, Mutant]:
    effort = Effort(points=None, seeds=0)
    (group,) = groups([ESCROW])
    return {target.mutant.label: target.mutant for target in targets(group, effort)}


@pytest.fixture(scope="module")
def stage(postgres_server: PostgresServer) -> Iterator[Stage]:
    postgres_server.start()  # does nothing where it runs
    with Stage([LAST_STRAIGHT, NEW, EXPIRE], postgres_server.url) as stage:
        yield stage


def test_each_kind_of_mutant_is_noticed_by_a_case_that_executes_it(stage: Stage, mutants: dict[str, Mutant]) -> None:
    for label, case in (
        (f"statement {SQL}take", LAST_STRAIGHT),
        (f"condition {SQL}move: i.item = moves.item", EXPIRE),
        (f"split {SQL}hold_all | {SQL}take", LAST_STRAIGHT),
        (f"constraint {ITEM}: NOT NULL", LAST_STRAIGHT),
    ):
        killed = stage.killed(mutants[label], case.name)
        assert killed is not None, label
        assert (killed.proof, killed.how) == (case.name, "stepped"), label


def test_what_no_case_executes_is_not_stepped_and_what_makes_no_difference_holds(
    stage: Stage, mutants: dict[str, Mutant]
) -> None:
    assert stage.executing(mutants[f"statement {SQL}due"]) == []
    assert stage.executing(mutants["early answer … patterns.escrow.sql.take"]) == [], "nobody dies here"
    harmless = mutants[f"condition {SQL}hold_all: i.escrow = :escrow"]
    assert stage.executing(harmless) == [LAST_STRAIGHT.name]
    assert stage.killed(harmless) is None


def test_who_hangs_on_a_dropped_key_goes_on_without_it(stage: Stage, mutants: dict[str, Mutant]) -> None:
    killed = stage.killed(mutants[f"constraint {ITEM}: PRIMARY KEY (escrow, item)"], NEW.name)
    assert killed is not None
    assert "does not understand" not in killed.sentence


def test_a_mutant_that_is_no_statement_of_postgresql_shows_nothing(stage: Stage) -> None:
    spoilt = dataclasses.replace(take.statement, text="SELECT nothing FROM nowhere", parameters=())

    class Spoilt(Mutant):
        def rewrite(self, call: Call) -> Call | None:
            return call._replace(statement=spoilt) if call.statement is take.statement else call

    assert stage.killed(Spoilt(name="spoilt", kind="condition", conditions={take.statement: frozenset()})) is None


def test_what_an_engine_does_on_sqlite_stands_for_what_the_other_does_instead(url: str) -> None:
    guarded = (claims._count_held.statement, take_back_attempt.statement)
    added = (join_group.statement, claims._add.statement)
    with Stage([LATER, FORGET_JOIN], url) as stage:
        for pair, case in ((guarded, LATER), (added, FORGET_JOIN)):
            split = Mutant(name="cut", kind="split", commits_between=frozenset({pair}))
            assert stage.executing(split) == [case.name]
            killed = stage.killed(split)
            assert killed is not None
            assert killed.how == "stepped"


def test_what_these_tables_do_not_have_is_not_noticed_missing(stage: Stage) -> None:
    gone = Constraint(ITEM, "CHECK (available > 7)", frozenset())
    mutant = Mutant(name="gone", kind="constraint", constraints=frozenset({gone}))
    assert LAST_STRAIGHT.name in stage.executing(mutant)
    assert stage.killed(mutant) is None


def test_what_comes_to_no_end_is_noticed_and_what_is_not_the_same_twice_is_not(
    stage: Stage, mutants: dict[str, Mutant], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[HarnessError] = [NoEnd("more than 500 statements"), ShowsNothing("others each time")]

    def fails(*_: object, **__: object) -> None:
        raise errors[0]

    monkeypatch.setattr(stepping, "explore", fails)
    harmless = mutants[f"condition {SQL}hold_all: i.escrow = :escrow"]
    assert stage.killed(harmless) is not None
    errors[0] = errors[1]
    assert stage.killed(harmless) is None
    errors[0] = HarnessError("the connection to the server was lost")
    with pytest.raises(HarnessError, match="was lost"):
        stage.killed(harmless)


def test_what_a_constraint_refused_is_let_in_and_the_others_still_refuse(url: str) -> None:
    dropped = Constraint(ITEM, "CHECK (available >= 0)", frozenset())

    def insert(world: World, *numbers: int) -> None:
        world.ground.observer.execute(f"INSERT INTO {ITEM} VALUES ('e', 'i', %s, %s, %s, %s)", numbers)

    with World(LAST_STRAIGHT, url, relax=lambda ground: relax(ground, [dropped])) as world:
        insert(world, 4, -1, 5, 0)
        for numbers in [(4, 5, -1, 0), (5, -1, 5, 0)]:
            with pytest.raises(Exception, match="violates"):
                insert(world, *numbers)
    with pytest.raises(ShowsNothing, match="has no CHECK"):
        World(LAST_STRAIGHT, url, relax=lambda ground: relax(ground, [dropped._replace(what="CHECK (available > 7)")]))


def test_a_transaction_is_cut_where_it_is_said_and_nowhere_else(url: str) -> None:
    pairs = []
    with World(dataclasses.replace(LAST_STRAIGHT, preemptions=1), url) as world:
        whole = explore(world, cuts=lambda *pair: bool(pairs.append(pair)), until_violated=False)
        cut = explore(world, cuts=lambda *_: True, until_violated=False)
    assert len(pairs) >= whole.interleavings, "each pair of statements is asked for"
    assert whole.violated == 0
    assert cut.violated > 0
    assert cut.interleavings > whole.interleavings, "more statements can be taken in more orders"
