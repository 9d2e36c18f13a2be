"""What is no open transaction: one clear sentence each, and nothing imported that the user has not."""

import sqlite3
import subprocess
import sys
from typing import Any

import psycopg
import psycopg2
import pytest
import sqlalchemy as sa
from django.db import connections
from sqlalchemy.orm import sessionmaker

import faultproof
from faultproof.errors import InvalidInput, NotSupported


@pytest.mark.parametrize(
    "handle",
    [
        sa.create_engine("sqlite://"),
        sessionmaker(),
        connections,
        psycopg.Connection,
        psycopg2.extensions.connection.__new__(psycopg2.extensions.connection),
        sqlite3,
        None,
        "postgresql://localhost/shop",
    ],
    ids=lambda handle: type(handle).__qualname__,
)
def test_what_has_no_transaction_open_is_refused_by_its_name(handle: Any) -> None:
    with pytest.raises(NotSupported, match=type(handle).__qualname__):
        faultproof.join(handle)


def test_what_was_not_joined_is_no_transaction() -> None:
    raw = sqlite3.connect(":memory:")
    inbox = faultproof.MessageInbox(object(), "mail")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"faultproof.join\(connection\)"):
        inbox.first("m", tx=raw)  # type: ignore[call-overload]
    raw.close()


@pytest.mark.parametrize("id", ["", "x" * 513, None, 7])
def test_an_id_that_is_none_is_refused(id: Any) -> None:
    with pytest.raises(InvalidInput, match="1 to 512 bytes"):
        faultproof.MessageInbox(object(), "mail").first(id, tx=object())  # type: ignore[arg-type, call-overload]


def test_no_library_is_imported_that_the_user_has_not_imported() -> None:
    program = """
import sqlite3, sys, faultproof
faultproof.join(sqlite3.connect(":memory:"))
try:
    faultproof.join(object())
except faultproof.errors.NotSupported:
    print(sorted({"psycopg", "asyncpg", "sqlalchemy", "django"} & set(sys.modules)))
"""
    got = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert got.stdout == "[]\n"


@pytest.mark.parametrize("driver", ["psycopg", "sqlalchemy"])
def test_what_was_joined_before_a_fork_is_refused_after_it(joining_url: str, driver: str) -> None:
    program = """
import os, sys, psycopg, sqlalchemy, faultproof
from faultproof.errors import UsedAfterFork
from faultproof.ports.script import sql

@sql("SELECT 1")
def one() -> int: ...

url = sys.argv[1]
if sys.argv[2] == "psycopg":
    raw = psycopg.connect(url)
else:
    raw = sqlalchemy.create_engine(url.replace("postgresql", "postgresql+psycopg")).connect()
tx = faultproof.join(raw)
if os.fork() == 0:
    try:
        tx.run(one())
    except UsedAfterFork as refused:
        print(refused, flush=True)
    os._exit(0)
os.wait()
print(tx.run(one()))
"""
    arguments = [sys.executable, "-c", program, joining_url, driver]
    got = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert got.stdout.splitlines() == [
        "this connection was joined before a fork: connect in the child process instead",
        "1",
    ]
