"""Mutants: what is left out is left out and nothing else; each is tried until it is noticed; no excuse is believed."""

import functools
from contextlib import closing
from dataclasses import replace
from functools import partial

import pytest

from faultproof.errors import InvalidInput
from faultproof.patterns.outbox.proof import OUTBOX
from faultproof.ports.script import Call, Later, Script, sql
from faultproof.ports.statement import NOTHING, Statement
from faultproof.prove.harness import HarnessError
from faultproof.prove.mutants.constraints import constraints, relaxed
from faultproof.prove.mutants.groups import Group, groups, targets
from faultproof.prove.mutants.hunt import Effort, Killed, Outcome, Target, hunt, hunting, runs, tried
from faultproof.prove.mutants.images import opened
from faultproof.prove.mutants.mutant import Mutant
from faultproof.prove.mutants.parsed import changed, conditions
from faultproof.prove.mutants.reference import reference
from faultproof.prove.mutants.verdict import Verdict, judged
from faultproof.prove.proof import Eventually, Evidence, Process, Proof, Sometimes, Survivor, noted
from faultproof.prove.simulated.escapes import no_escapes
from faultproof.prove.simulated.explore import Explorer, Variation
from faultproof.prove.simulated.lanes import MemoryStore
from faultproof.prove.simulated.mutated import Difference, connected
from faultproof.prove.simulated.tape import Tape
from tests.prove.paying import PAYING, balance, book, mark

LITTLE = Effort(points=20, seeds=20, pairs=0)


@sql(
    """UPDATE job AS j SET owner = CASE WHEN j.tries < 3 AND j.kind = :kind THEN :owner END
       WHERE j.due_us <= {now} AND (j.owner IS NOT NULL OR j.kind IN {kinds})
         AND j.id IN (SELECT id FROM job WHERE kind = :kind LIMIT 1) RETURNING id"""
)
def _take(kind: str, owner: str, kinds: list[str]) -> list[str]: ...


@sql('SELECT "offset" FROM log WHERE "offset" BETWEEN 1 AND 2 AND key = :key ORDER BY "offset" {lock}')
def _locked(key: str) -> list[int]: ...


def _statement(script: object) -> Statement:
    statement = script.statement  # type: ignore[attr-defined]
    assert isinstance(statement, Statement)
    return statement


# -- statements, parsed -----------------------------------------------------------------------------------------------


def test_conditions_are_what_and_joins_wherever_they_stand() -> None:
    assert sorted(conditions(_statement(_take))) == [
        "(j.owner IS NOT NULL OR j.kind IN {kinds})",
        "j.due_us <= {now}",
        "j.id IN (SELECT id FROM job WHERE kind = :kind LIMIT 1)",
        "j.kind = :kind",
        "j.tries < 3",
        "kind = :kind",
    ]
    assert conditions(_statement(_locked)) == ('"offset" BETWEEN 1 AND 2', "key = :key")


def test_a_dropped_condition_is_gone_and_nothing_else_has_changed() -> None:
    statement = _statement(_locked)
    without = changed(statement, frozenset({1}))
    assert without.text == 'SELECT "offset" FROM log WHERE "offset" BETWEEN 1 AND 2 ORDER BY "offset" {lock}'
    assert (without.name, without.decode) == (statement.name, statement.decode)
    assert without.parameters == (), "PostgreSQL would not know of what type one is that nothing asks for"
    assert changed(statement, frozenset({0})).parameters == statement.parameters
    assert changed(statement, frozenset({1})) is without, (
        "or nothing that an engine keeps for a statement is found again"
    )


def test_a_variant_for_postgresql_loses_the_condition_of_the_same_wording() -> None:
    variant = replace(_statement(_locked), postgres='SELECT "offset" FROM log WHERE key = :key FOR UPDATE')
    without = changed(variant, frozenset({1}))
    assert without.postgres == 'SELECT "offset" FROM log WHERE TRUE FOR UPDATE'
    assert changed(variant, frozenset({0})).postgres == 'SELECT "offset" FROM log WHERE key = :key FOR UPDATE'


def test_what_cannot_be_parsed_is_refused_and_not_passed_over() -> None:
    with pytest.raises(InvalidInput, match="cannot be parsed"):
        conditions(replace(_statement(_locked), text="SELECT FROM WHERE (("))


def test_statements_that_went_through_the_parser_do_the_same() -> None:
    """Every statement of the outbox's proof, nothing dropped, under faults: the same story to the last row."""

    class Nothing(Mutant):
        def rewrite(self, call: Call) -> Call | None:
            return Call(changed(call.statement, frozenset()), call.values)

    parsed = connected(Nothing(name="nothing", kind="condition"), Difference())
    variation = Variation(store=partial(MemoryStore, connection=parsed))
    with no_escapes():
        for seed in range(4):
            tape, faults = Explorer(OUTBOX).schedule(seed, 0.02)
            _, wrong = Explorer(OUTBOX).run(tape, faults_max=3, faults=faults)
            again, wrong_again = Explorer(OUTBOX, variation=variation).run(Tape(dict(tape.answers)), faults_max=3)
            expected, _ = Explorer(OUTBOX).run(Tape(dict(tape.answers)), faults_max=3)
            assert (wrong, wrong_again, again.hash()) == ([], [], expected.hash())


# -- constraints ------------------------------------------------------------------------------------------------------

DEFINITIONS = (
    "CREATE TABLE t (a TEXT NOT NULL, b BIGINT NOT NULL CHECK (b > 0), c TEXT UNIQUE, PRIMARY KEY (a, b)) WITHOUT ROWID",
    "CREATE UNIQUE INDEX t_lower ON t (c, b) WHERE b < 9",
    "CREATE INDEX t_plain ON t (b)",
    "CREATE TABLE own (n INTEGER PRIMARY KEY, x TEXT)",
)
BAD = {
    "NOT NULL": (None, 1, "x"),
    "CHECK (b > 0)": ("z", 0, "x"),
    "UNIQUE (c)": ("z", 3, "one"),
    "PRIMARY KEY (a, b)": ("a", 1, "other"),
    "UNIQUE INDEX t_lower": ("z", 1, "one"),
}


def _image() -> bytes:
    with closing(opened()) as database:
        for definition in DEFINITIONS:
            database.execute(definition)
        database.execute("INSERT INTO t VALUES ('a', 1, 'one')")
        return database.serialize()


def test_each_constraint_is_found_and_no_key_that_a_table_makes_up() -> None:
    found = constraints(_image(), ["t", "own"])
    assert sorted(each.what for each in found) == sorted(BAD)
    assert {each.what: set(each.columns) for each in found if each.columns} == {
        "UNIQUE (c)": {"c"},
        "PRIMARY KEY (a, b)": {"a", "b"},
        "UNIQUE INDEX t_lower": {"b", "c"},
    }
    assert constraints(_image(), ["other"]) == []


@pytest.mark.parametrize("what", ["CHECK (b > 0)", "PRIMARY KEY (a, b)", "UNIQUE (c)"])
def test_without_a_constraint_what_it_refused_gets_in_and_the_others_still_refuse(what: str) -> None:
    (dropped,) = (each for each in constraints(_image(), ["t"]) if each.what == what)
    needed = frozenset({dropped, *(each for each in constraints(_image(), ["t"]) if "INDEX" in each.what)})
    with closing(opened(relaxed(_image(), needed))) as database:
        assert database.execute("SELECT a, b, c FROM t").fetchall() == [("a", 1, "one")]
        for other in BAD:
            if other not in {each.what for each in needed} and other != "NOT NULL":
                with pytest.raises(Exception, match="constraint failed"):
                    database.execute("INSERT INTO t VALUES (?, ?, ?)", BAD[other])
        database.execute("INSERT INTO t VALUES (?, ?, ?)", BAD[what])


# -- a small proof, whose mutants are all known -----------------------------------------------------------------------


def _group(*survivors: Survivor, proof: Proof = PAYING) -> Group:
    return Group("paying", ("tests.prove.paying.",), (proof,), survivors)


@functools.cache
def _targets() -> tuple[Target, ...]:
    return tuple(targets(_group(), LITTLE))


@functools.cache
def _hunted() -> list[Outcome]:
    return hunt(_targets(), LITTLE)


def _fates(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.label: outcome.fate for outcome in outcomes}


EXPECTED = {
    "statement tests.prove.paying.mark": "killed",
    "statement tests.prove.paying.book": "killed",
    "statement tests.prove.paying.balance": "survived",
    "condition tests.prove.paying.book: shop = :shop": "killed",
    "condition tests.prove.paying.balance: shop = :shop": "dearer",
    "condition tests.prove.paying.book: balance + :amount <= :most": "idle",
    "split tests.prove.paying.balance | tests.prove.paying.book": "killed",
    "constraint paid: PRIMARY KEY (shop, invoice)": "killed",
    "constraint account: NOT NULL": "idle",
    "constraint account: PRIMARY KEY (shop, name)": "idle",
    "split tests.prove.paying.mark | tests.prove.paying.balance": "killed",
    "early answer … tests.prove.paying.book": "killed",
    "early answer … tests.prove.paying.balance": "survived",
}
"""`balance` and a condition of `book` keep to the same limit, so either of them can go, and the second never has to. Where
`balance` does not keep to its shop it reads more, and its first row is the right one all the same. To lose the last
invoice takes more luck than these few runs have."""


def test_every_statement_condition_constraint_and_transaction_has_its_mutant() -> None:
    outcomes = _hunted()
    assert _fates(outcomes) == EXPECTED
    (split,) = (each for each in outcomes if each.label == "split tests.prove.paying.mark | tests.prove.paying.balance")
    assert split.killed is not None
    assert (split.killed.proof, split.killed.sentence) == (PAYING.name, "100 was booked")


def test_statements_of_other_packages_are_not_its_own() -> None:
    assert targets(replace(_group(), packages=("patterns.",)), LITTLE) == []
    (group,) = groups([PAYING])
    assert (group.name, group.packages) == ("tests.prove", ("tests.prove.",))


def test_a_proof_that_does_not_hold_has_no_mutants() -> None:
    def wrong(evidence: Evidence) -> list[str]:
        return ["always something"]

    broken = replace(PAYING, eventually=(Eventually(claim="nothing", wrong=wrong),))
    with pytest.raises(HarnessError, match=r"does not hold beside neighbours .* always something"):
        targets(_group(proof=broken), LITTLE)


def test_a_mutant_that_makes_the_proof_vacuous_is_noticed() -> None:
    claim = "a balance is read that is not zero"
    looked = replace(
        PAYING, sometimes=(Sometimes(claim=claim, happened=lambda evidence: 100 in noted(evidence, "read")),)
    )
    (target,) = (
        each
        for each in targets(_group(proof=looked), LITTLE)
        if each.mutant.label == "statement tests.prove.paying.balance"
    )
    with no_escapes():
        killed = tried(target, LITTLE).killed
    assert killed is not None
    assert (killed.how, killed.sentence) == ("vacuity", f"never happened: {claim}")


# -- the worlds of mutants --------------------------------------------------------------------------------------------


def _mutant(**left_out: object) -> Mutant:
    return Mutant(name="m", kind="split", **left_out)  # type: ignore[arg-type]


def _outcomes(mutant: Mutant) -> set[str]:
    on = _targets()[0].references[0]
    with no_escapes():
        explorer = hunting(mutant, on, Difference())
        return {sentence for run in runs(explorer, LITTLE) for sentence in run.wrong}


def test_a_cut_transaction_can_be_left_in_its_middle() -> None:
    cut = _mutant(commits_between=frozenset({(_statement(mark), _statement(balance))}))
    assert "100 was booked" in _outcomes(cut), "a crash between leaves a mark and no booking"
    elsewhere = _mutant(commits_between=frozenset({(_statement(book), _statement(mark))}))
    assert _outcomes(elsewhere) == set(), "they never follow one another in a transaction"


def test_an_early_answer_can_be_lost_with_what_it_told() -> None:
    early = _mutant(answers_after=frozenset({_statement(book)}))
    assert any(sentence.startswith("marked are ") for sentence in _outcomes(early))
    never = _mutant(answers_after=frozenset({_statement(_take)}))
    assert _outcomes(never) == set()


def test_a_statement_that_is_left_out_answers_that_there_was_nothing() -> None:
    answers: list[object] = []

    def look() -> Script[None]:
        answers.append((yield from balance("s")))
        answers.append((yield from mark("s", "x")))
        yield Later(Call(_statement(balance), {"shop": "s"}), answers.append)
        yield Later(Call(_statement(book), {"shop": "s", "amount": 1, "most": 1}), answers.append, refuses=False)

    async def main(process: Process) -> None:
        await process.database().transact(look())
        process.note("finished", "once")

    left_out = connected(_mutant(left_out=frozenset(map(_statement, (balance, mark, book)))), Difference())
    proof = replace(
        PAYING, processes=lambda plant: {"once": main}, done=lambda evidence: bool(evidence.notes), eventually=()
    )
    variation = Variation(store=partial(MemoryStore, connection=left_out))
    _, wrong = Explorer(proof, variation=variation).run(Tape(), faults_max=0)
    assert (wrong, answers) == ([], [0, 0, NOTHING]), "a check goes with its statement, unless it only takes note"


# -- neighbours -------------------------------------------------------------------------------------------------------


def test_neighbours_are_copies_that_no_judge_sees() -> None:
    on = _targets()[0].references[0]
    assert on.neighbours.columns == {"account": ("shop",), "paid": ("shop",)}
    with closing(opened(on.image)) as database:
        shops = {shop for (shop,) in database.execute("SELECT shop FROM account")}
        assert shops == {"s", "s~0", "s~1", "s~2", "s~3", "s~4"}
        query = "SELECT a.shop, (SELECT count(*) FROM paid) FROM account AS a"
        assert database.execute(query).fetchone()[1] > 0
        assert database.execute(on.neighbours.hidden(query)).fetchall() == [("s", 0)]


@sql("SELECT count(*) FROM paid WHERE shop = :shop AND invoice = :invoice")
def _is_paid(shop: str, invoice: str) -> int: ...


def test_what_a_script_asks_for_only_once_is_no_neighbour_s_name_if_there_are_others() -> None:
    async def asking(process: Process) -> None:
        await process.database().transact(_is_paid("s", "i-1"))

    one_asks = replace(PAYING, processes=lambda plant: {**PAYING.processes(plant), "clerk": asking})
    on = targets(_group(proof=one_asks), LITTLE)[0].references[0]
    assert on.neighbours.columns == {"account": ("shop",), "paid": ("shop",)}, "and there are three invoices"


def test_the_work_of_a_proof_is_not_that_of_its_judges() -> None:
    def looks_twice(evidence: Evidence) -> list[str]:
        evidence.fetch("SELECT * FROM paid")
        return PAYING.eventually[0].wrong(evidence)

    looking = replace(PAYING, eventually=(replace(PAYING.eventually[0], wrong=looks_twice),))
    works = {reference(proof, partial(runs, effort=LITTLE)).work for proof in (PAYING, looking)}
    assert len(works) == 1
    assert min(works).instructions > 50


def test_who_touches_a_neighbour_is_told_so() -> None:
    unkept = _mutant(conditions={_statement(book): frozenset({0})})
    assert "neighbours in account were touched" in _outcomes(unkept)


# -- the verdict ------------------------------------------------------------------------------------------------------

ALIVE = tuple(label for label, fate in EXPECTED.items() if fate in ("survived", "idle"))


def _complaints(*survivors: Survivor) -> list[str]:
    return Verdict(_hunted(), [], survivors, of=100).complaints


def test_a_survivor_that_nobody_explains_and_one_that_is_killed_are_complained_of() -> None:
    assert _complaints(Survivor(mutants=ALIVE, reason="small")) == []
    assert _complaints(Survivor(mutants=(*ALIVE[1:], "statement tests.prove.paying.mark"), reason="wishful")) == [
        f"survived, and nobody says why: {ALIVE[0]}",
        "said to survive, and killed: statement tests.prove.paying.mark",
    ]


def test_worlds_that_do_not_agree_are_complained_of() -> None:
    (outcome,) = (each for each in _hunted() if each.label == ALIVE[0])
    noticed = outcome._replace(killed=Killed("m:CASE", "stepped", (), "wrong"))

    def complaints(stepped: Outcome, case: str | None) -> list[str]:
        survivors = (
            Survivor(mutants=ALIVE[:1], reason="small", stepped=case),
            Survivor(mutants=ALIVE[1:], reason="so"),
        )
        return Verdict(_hunted(), [], survivors, [stepped], of=100).complaints

    assert complaints(noticed, "m:CASE") == []
    assert complaints(noticed, None) == [f"the worlds do not agree: m:CASE notices {ALIVE[0]}"]
    assert complaints(outcome, "m:CASE") == [f"said to be noticed by m:CASE, and is not: {ALIVE[0]}"]
    assert complaints(outcome, None) == []


def test_a_guard_that_is_missed_alone_is_no_twin() -> None:
    book_matters = Survivor(mutants=ALIVE, reason="small", twin="statement tests.prove.paying.book")
    assert _complaints(book_matters) == ["said to be a twin, and killed alone: statement tests.prove.paying.book"]


def _verdict(*survivors: Survivor) -> Verdict:
    return judged(_targets(), survivors, LITTLE, every=99)


def test_two_guards_of_which_each_would_do_must_not_both_be_missed() -> None:
    twins = Survivor(
        mutants=("statement tests.prove.paying.balance",),
        reason="book looks as well",
        twin="condition tests.prove.paying.book: balance + :amount <= :most",
    )
    assert [outcome.fate for outcome in _verdict(twins).twins] == ["killed"]
    useless = _verdict(replace(twins, twin="constraint account: NOT NULL"))
    assert "survived without both: statement tests.prove.paying.balance and account: NOT NULL" in useless.complaints


def test_reasons_for_more_than_a_tenth_are_complained_of_and_those_for_what_is_no_mutant_are_refused() -> None:
    many = Survivor(mutants=ALIVE, reason="too many")
    share = "5 of 13 mutants live on a reason alone; at most a tenth may"
    assert share in _verdict(many).complaints
    assert share not in _verdict(replace(many, stepped="m:CASE")).complaints, "a case shows it"
    with pytest.raises(InvalidInput, match="no mutants of these proofs: statement long gone"):
        _verdict(Survivor(mutants=("statement long gone",), reason="it was there once"))
