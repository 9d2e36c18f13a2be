"""The shop on PostgreSQL: it holds while processes are killed and the server restarts, and cleans up after itself."""

import json
from typing import Any

import psycopg
import pytest

from faultproof.shop.mistakes import BREAKAGES
from tests.cli.executable import faultproof
from tests.shop.test_runs import CAUGHT_BY, NEVER_WRONG, often, wrong


def run(*args: object, status: int = 0) -> dict[str, Any]:
    """A run's JSON document."""
    got = faultproof("shop", *map(str, args), "--json", status=status)
    assert got.stderr == ""
    found: dict[str, Any] = json.loads(got.stdout)
    return found


def schemas(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'fault%' ORDER BY 1").fetchall()
    return [name for (name,) in found]


def test_shop_holds_while_processes_are_killed_and_its_server_is_restarted() -> None:
    found = run("--db", "postgresql", "--orders", 60, "--kill-every", 0.4)
    assert (found["held"], found["vacuous"], found["gave_up"], wrong(found)) == (True, None, None, set())
    assert found["accepted"] == 60
    assert min(found["kills_by_role"].values()) >= 1
    assert found["server_restarts"] == 3
    examined = {check["name"]: check["examined"] for check in found["checks"]}
    assert min(examined["lost_events"], examined["lost_effects"]) > 100
    assert found["durability"] == "PostgreSQL, synchronous_commit=on, fsync=on"


@pytest.mark.parametrize("mistake", often(["no-inbox"], BREAKAGES))
def test_planted_bug_is_caught_on_postgresql(mistake: str, postgres_url: str) -> None:
    found = run("--db", postgres_url, "--orders", 60, "--kill-every", 0.2, "--break", mistake, status=1)
    assert not found["held"]
    assert CAUGHT_BY[mistake] in wrong(found)
    assert not NEVER_WRONG & wrong(found)
    assert found["kills"] == found["kills_while_busy"]
    assert found["kills"] + found["delays"] >= 1
    assert schemas(postgres_url) == ["faultproof_shop"]  # to be looked into


@pytest.mark.soak
@pytest.mark.parametrize("mistake", BREAKAGES)
def test_correct_shop_holds_under_the_same_aimed_kills_on_postgresql(mistake: str, postgres_url: str) -> None:
    found = run("--db", postgres_url, "--orders", 100, "--kill-every", 0.2, "--aim", mistake)
    assert (found["held"], found["vacuous"], wrong(found)) == (True, None, set())
    assert found["kills"] + found["delays"] >= 1


def test_planted_bug_does_not_show_without_kills_and_nothing_is_left(postgres_url: str) -> None:
    found = run("--db", postgres_url, "--orders", 20, "--kill-every", 0, "--break", "no-inbox")
    assert (found["held"], found["vacuous"], wrong(found)) == (True, None, set())
    assert (found["kills"], found["server_restarts"], found["kept"]) == (0, 0, False)
    assert schemas(postgres_url) == []


def test_schema_of_somebody_else_is_refused_and_left_alone(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA faultproof_shop")
        connection.execute("CREATE TABLE faultproof_shop.precious AS SELECT 1 AS one")
        got = faultproof("shop", "--db", postgres_url, "--orders", "5", status=2)
        assert got.stderr.startswith("that database has a schema faultproof_shop already")
        assert connection.execute("TABLE faultproof_shop.precious").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--synchronous", "normal"], "--synchronous is SQLite's"),
        (["?options=-cjit%3Doff"], "without options="),
    ],
)
def test_what_cannot_be_meant_on_postgresql(args: list[str], said: str, postgres_url: str) -> None:
    where = postgres_url + args.pop(0) if args[0].startswith("?") else postgres_url
    got = faultproof("shop", "--db", where, "--orders", "5", *args, status=2)
    assert said in got.stderr
    assert (got.stdout, got.stderr.count("\n")) == ("", 1)
    assert schemas(postgres_url) == []


def test_user_who_may_make_no_schema_is_told_which_right_is_missing(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS clerk_of_the_shop")
        connection.execute("CREATE ROLE clerk_of_the_shop LOGIN PASSWORD 'x'")
    _, at, rest = postgres_url.rpartition("@")
    got = faultproof("shop", "--db", f"postgresql://clerk_of_the_shop:x{at}{rest}", "--orders", "5", status=2)
    assert "GRANT CREATE ON DATABASE" in got.stderr
    assert got.stderr.count("\n") == 1
