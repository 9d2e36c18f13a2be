"""What an engine claims is exercised, and what it does not claim is refused by name: nothing in silence."""

import sqlite3
from collections.abc import Callable
from types import ModuleType
from typing import Any

import psycopg2
import pytest

import faultproof
from faultproof.engines import postgres, sqlite
from faultproof.errors import NotSupported
from tests.conformance import test_claims, test_database, test_log, test_news, test_statements, test_time
from tests.conformance.engines import Engine, Postgres, Sqlite
from tests.engines.sqlite import test_joined as test_joined_sqlite3
from tests.joining import test_asyncpg, test_django, test_psycopg, test_sqlalchemy, test_transactions

CLAIMED = {"sqlite": sqlite.CAPABILITIES, "postgres": postgres.CAPABILITIES}

EXERCISED: dict[str, tuple[ModuleType, ...]] = {
    "claims": (test_claims, test_time),
    "log": (test_log, test_time),
    "interactive-transactions": (test_database, test_statements),
    "wake-up": (test_news,),
    "joined-sqlite3": (test_joined_sqlite3, test_transactions),
    "joined-psycopg": (test_transactions, test_psycopg),
    "joined-psycopg-async": (test_transactions, test_psycopg),
    "joined-asyncpg": (test_transactions, test_asyncpg),
    "joined-sqlalchemy": (test_transactions, test_sqlalchemy),
    "joined-django": (test_transactions, test_django),
}

# An engine may only be asked to join handles of its own drivers.
POSSIBLE = {
    "sqlite": {
        "claims",
        "log",
        "interactive-transactions",
        "wake-up",
        "joined-sqlite3",
        "joined-sqlalchemy",
        "joined-django",
        "joined-apsw",
    },
    "postgres": {
        "claims",
        "log",
        "interactive-transactions",
        "wake-up",
        "joined-psycopg",
        "joined-psycopg-async",
        "joined-asyncpg",
        "joined-sqlalchemy",
        "joined-django",
        "joined-psycopg2",
    },
}


class ForeignHandle:
    """A connection of a driver that is not installed here."""


REFUSED: dict[str, Callable[[Engine], Any]] = {
    "joined-apsw": lambda engine: faultproof.join(ForeignHandle()),  # type: ignore[call-overload]
    "joined-psycopg2": lambda engine: faultproof.join(
        psycopg2.extensions.connection.__new__(psycopg2.extensions.connection)
    ),
}


def functions_of(module: ModuleType) -> list[Callable[..., object]]:
    return [value for name, value in vars(module).items() if name.startswith("test_")]


@pytest.mark.parametrize("name", CLAIMED)
def test_every_claim_is_exercised_by_the_suites(name: str) -> None:
    for capability in CLAIMED[name]:
        assert capability in EXERCISED, f"{name} claims {capability}, and no suite exercises it"
        assert all(functions_of(module) for module in EXERCISED[capability])


def test_nothing_is_exercised_that_no_engine_claims() -> None:
    assert set(EXERCISED) == set().union(*CLAIMED.values())


def test_suites_run_on_every_engine_that_claims_them() -> None:
    # The fixture `engine` runs each test of these modules on both, so both must claim what they are about.
    for capability, modules in EXERCISED.items():
        if all(module.__name__.startswith("tests.conformance.") for module in modules):
            assert all(capability in claimed for claimed in CLAIMED.values()), capability


@pytest.mark.parametrize("name", CLAIMED)
def test_what_is_possible_is_claimed_or_refused(name: str) -> None:
    assert CLAIMED[name] <= POSSIBLE[name]
    for capability in POSSIBLE[name] - CLAIMED[name]:
        with pytest.raises(NotSupported):
            REFUSED[capability](Sqlite.__new__(Sqlite) if name == "sqlite" else Postgres.__new__(Postgres))


def test_joined_handle_of_the_standard_library_is_not_refused() -> None:
    raw = sqlite3.connect(":memory:")
    try:
        faultproof.join(raw)
    finally:
        raw.close()
