"""Proofs on real processes and real databases: what holds is shown to hold, and what is broken is caught."""

import sys
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from faultproof.errors import InvalidInput
from faultproof.patterns.saga.proof import DECISIONS
from faultproof.prove.harness import HarnessError
from faultproof.prove.live.history import load_evidence
from faultproof.prove.live.judge import judged_again
from faultproof.prove.live.options import LiveOptions
from faultproof.prove.live.orders import Order, parsed
from faultproof.prove.live.proving import plan, prove_live
from tests.prove.live.little import BROKEN_ALWAYS, LITTLE, NEVER_DONE

NOTHING = {"points": 0, "stops": 0, "kills": 0, "network": 0, "server_kills": 0}
SCHEMAS = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'faultproof_prove%'"


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine, on PostgreSQL as a user's database."""
    return "sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


def only(*orders: str, **more: object) -> LiveOptions:
    return LiveOptions(orders=tuple(map(parsed, orders)), **more)  # type: ignore[arg-type]


def schemas(url: str) -> int:
    with psycopg.connect(url) as raw:
        ((count,),) = raw.execute(SCHEMAS).fetchall()
    return int(count)


def test_holds_at_every_point_and_leaves_nothing_behind(engine: str) -> None:
    report = prove_live(LITTLE, engine, LiveOptions(stops=2, kills=3, network=2))
    assert [violation.sentences for violation in report.violations] == []
    assert report.planned["kill"] == report.distinct > 10
    # Two processes are not scheduled the same way each time: a point that was passed once may not come again.
    assert report.fired["kill"] == report.distinct - sum(order.kind == "kill" for order in report.unreached)
    assert sum(order.kind == "kill" for order in report.unreached) <= 3
    assert report.points > report.distinct
    assert report.left == []
    assert report.verdict == "held", report.lines()
    if engine != "sqlite":
        assert report.strikes["drop"] >= 1
        assert schemas(engine) == 0


def test_a_planted_bug_is_caught_where_its_process_died(engine: str, tmp_path: Path) -> None:
    report = prove_live(
        LITTLE, engine, LiveOptions(plant="two transactions", stops=0, kills=0, network=0, keep=tmp_path)
    )
    assert report.verdict == "violated"
    violation = report.violations[0]
    assert violation.order.kind == "kill"
    assert violation.order.process == "cashier"
    assert "invoices are paid, and the balance is" in violation.sentences[0]
    # The same order again finds it again, and the file alone is judged the same.
    again = prove_live(LITTLE, engine, only(str(violation.order), plant="two transactions"))
    assert again.violations[0].sentences == violation.sentences
    assert violation.history is not None
    evidence = load_evidence(violation.history)
    assert judged_again(LITTLE, evidence) == list(violation.sentences)
    assert evidence.run["order"] == str(violation.order)


def test_a_zombie_is_refused_by_its_guard_and_without_it_works_twice(engine: str, tmp_path: Path) -> None:
    before_the_work = "stop:worker:4"
    report = prove_live(LITTLE, engine, only(before_the_work, keep=tmp_path))
    assert report.strikes["stop"] == 1
    assert report.verdict == "held"
    planted = prove_live(LITTLE, engine, only(before_the_work, plant="no guard"))
    assert planted.violations[0].sentences == ("the job was done by [('worker.0',), ('worker.1',)]",)


def test_a_zombie_that_was_stopped_before_a_request_has_time_for_the_transaction_behind_it(engine: str) -> None:
    """All work was done, the zombie had passed two points, and the run was over before it could do any harm."""
    before_the_request = "stop:operator:1:before request by hand retried"
    report = prove_live(DECISIONS, engine, only(before_the_request, plant="retries unseen"))
    assert [str(violation.order) for violation in report.violations] == [before_the_request]
    assert "retried has ended, and its journal goes on" in report.violations[0].sentences[0]


def test_a_lost_answer_and_a_repeated_request_are_caught_where_requests_are_not_idempotent() -> None:
    orders = ("lose:cashier:2", "twice:cashier:1")
    report = prove_live(LITTLE, "sqlite", only(*orders))
    assert report.verdict == "held"
    assert report.fired == {"lose": 1, "twice": 1}
    planted = prove_live(LITTLE, "sqlite", only(*orders, plant="charges blindly"))
    assert {violation.order.kind for violation in planted.violations} == {"lose", "twice"}
    assert {violation.sentences for violation in planted.violations} == {("i-1 was charged 2 times",)}


def test_what_must_hold_always_is_judged_under_way() -> None:
    report = prove_live(BROKEN_ALWAYS, "sqlite", only())
    assert report.violations[0].order == Order()
    assert report.violations[0].sentences[0] == "the job was done by []"


def test_an_answer_to_a_commit_that_was_dropped_is_asked_for_again(postgres_url: str) -> None:
    report = prove_live(LITTLE, postgres_url, only("drop:cashier:1", "drop:worker:2"))
    assert report.strikes["drop"] == 2
    assert report.restarts >= 2, "who does not know whether it has committed begins again"
    assert report.verdict == "held"


def test_recovery_beside_an_orphan_that_still_holds_its_locks(postgres_url: str) -> None:
    report = prove_live(LITTLE, postgres_url, only("orphan:worker:5", "orphan:cashier:4"))
    assert report.strikes["orphan"] >= 2
    assert report.verdict == "held"


def test_the_server_is_killed_where_it_is_the_prover_s_own() -> None:
    report = prove_live(LITTLE, "postgresql", only("server:3"))
    assert report.strikes["server"] == 1
    assert report.verdict == "held"
    assert report.left == []


def test_what_never_struck_shows_nothing() -> None:
    report = prove_live(LITTLE, "sqlite", only("stop:cashier:999"))
    assert report.verdict == "inconclusive"
    assert report.unreached == [Order("stop", "cashier", 999)]
    assert report.never_fired == ["stop"]


def test_time_that_is_up_is_said() -> None:
    report = prove_live(LITTLE, "sqlite", only("kills:1", "kills:2", seconds=0.001))
    assert report.not_run == [Order("kills", "", 1), Order("kills", "", 2)]
    assert report.verdict == "inconclusive"


@pytest.mark.soak
def test_who_is_late_is_tried_again_alone_and_with_more_time_before_that_counts() -> None:
    report = prove_live(NEVER_DONE, "sqlite", only("kill:cashier:7", run_s=5.0))
    assert report.violations[0].sentences == ("not finished after 10 s",)
    assert report.runs == 2


def test_a_service_of_the_user_s_is_killed_at_random_times(postgres_url: str) -> None:
    command = (sys.executable, "-m", "tests.prove.live.service")
    report = prove_live(LITTLE, postgres_url, only("kills:1", command=command))
    assert report.strikes["kills"] >= 1
    assert report.points == 0
    assert report.verdict == "held", report.violations
    assert report.left == []


def test_the_plan_says_what_will_be_made_and_makes_nothing(postgres_url: str) -> None:
    lines = "\n".join(plan(LITTLE, postgres_url).lines())
    password = postgres_url.split(":")[2].split("@")[0]
    assert password not in lines
    assert "a schema for each run" in lines
    assert "2 a run (cashier, worker)" in lines
    assert "a COMMIT forwarded and its answer dropped: 6 runs" in lines
    assert "kill -9 of the server" not in lines, "it is not ours"
    assert "at most     600 s" in lines
    assert schemas(postgres_url) == 0


@pytest.mark.parametrize(
    ("engine", "options", "sentence"),
    [
        ("mysql", LiveOptions(), "an engine to prove on is"),
        ("postgresql://db.example.org/shop", LiveOptions(), "db.example.org is not this machine"),
        ("postgresql://localhost,10.0.0.7/shop", LiveOptions(), "10.0.0.7 is not this machine"),
        ("postgresql:///shop?service=production", LiveOptions(), "the service production is not this machine"),
        ("sqlite", only("drop:cashier:1"), "SQLite is not reached through a network"),
        ("sqlite", only("server:1"), "only a server that the prover has started itself"),
        ("postgresql://localhost/shop", only("server:1"), "only a server that the prover has started itself"),
        ("sqlite", only("kill:nobody:1"), "has no process 'nobody'"),
        ("sqlite", only("kill:cashier:1", command=("true",)), "has no numbered points"),
        ("sqlite", LiveOptions(plant="unheard of"), "has no planted bug 'unheard of'"),
    ],
)
def test_what_cannot_be_meant_is_refused(engine: str, options: LiveOptions, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        prove_live(LITTLE, engine, options)


def test_a_proof_that_cannot_be_imported_is_no_verdict() -> None:
    with pytest.raises(HarnessError, match="No module named 'nowhere'"):
        prove_live(replace(LITTLE, name="nowhere:LITTLE"), "sqlite", only())
