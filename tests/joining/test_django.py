"""Django's own: its blocks, its threads, and the drivers below it."""

import subprocess
import sys
import threading
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction
from django.db.transaction import TransactionManagementError

import faultproof
from faultproof.errors import ConstraintViolated, Misuse, NoTransaction
from tests.conformance.engines import Engine
from tests.joining.handles import ALIAS, Django
from tests.joining.test_transactions import events, insert, items

pytestmark = pytest.mark.anyio

on_both = pytest.mark.parametrize("kind", ["django+sqlite3", "django+psycopg"], indirect=True)
on_postgres = pytest.mark.parametrize("kind", ["django+psycopg"], indirect=True)


def publish(outbox: faultproof.Outbox) -> None:
    tx: Any = faultproof.join(connections[ALIAS])
    outbox.publish({}, key="k", tx=tx, type="order-placed")


@on_both
async def test_outside_atomic_the_block_to_open_is_named(outbox: faultproof.Outbox, handle: Django) -> None:
    with pytest.raises(NoTransaction, match=r"transaction.atomic\(\)"):
        publish(outbox)


@on_both
async def test_a_block_that_will_be_rolled_back_takes_nothing_more(
    outbox: faultproof.Outbox, handle: Django, engine: Engine
) -> None:
    with transaction.atomic(using=ALIAS):
        transaction.set_rollback(True, using=ALIAS)
        with pytest.raises(NoTransaction, match="leave it"):
            publish(outbox)
    assert events(engine) == 0


@on_both
async def test_without_autocommit_the_user_commits(outbox: faultproof.Outbox, handle: Django, engine: Engine) -> None:
    transaction.set_autocommit(False, using=ALIAS)
    publish(outbox)
    transaction.rollback(using=ALIAS)
    publish(outbox)
    transaction.commit(using=ALIAS)
    transaction.set_autocommit(True, using=ALIAS)
    assert events(engine) == 1


@on_both
async def test_an_error_in_an_inner_block_is_undone_with_that_block(
    outbox: faultproof.Outbox, handle: Django, engine: Engine
) -> None:
    with transaction.atomic(using=ALIAS):
        handle.raw.cursor().execute("INSERT INTO orders VALUES (1, 'apple')")
        with pytest.raises(IntegrityError):
            _inner(handle)
        publish(outbox)
    assert (events(engine), items(engine)) == (1, ["apple"])


def _inner(handle: Django) -> None:
    with transaction.atomic(using=ALIAS):
        handle.raw.cursor().execute("INSERT INTO orders VALUES (1, 'again')")


@on_postgres
async def test_django_knows_of_a_single_change_that_failed_and_rolls_back_to_its_block(
    outbox: faultproof.Outbox, handle: Django, engine: Engine
) -> None:
    with transaction.atomic(using=ALIAS):
        publish(outbox)
        with transaction.atomic(using=ALIAS):
            tx: Any = faultproof.join(handle.raw)
            tx.run(insert(1, "apple"))
            with pytest.raises(ConstraintViolated):
                tx.run(insert(1, "again"), single=True)
            with pytest.raises(TransactionManagementError):
                handle.raw.cursor().execute("SELECT 1")
        publish(outbox)
    assert (events(engine), items(engine)) == (2, [])


@on_both
async def test_a_connection_of_another_thread_is_refused(outbox: faultproof.Outbox, handle: Django) -> None:
    raw = handle.raw  # here: `connections` would give the other thread one of its own
    refused: list[BaseException] = []

    def elsewhere() -> None:
        try:
            faultproof.join(raw)
        except Misuse as error:
            refused.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(20.0)
    assert "another thread" in str(refused[0])


@on_postgres
def test_psycopg2_below_django_is_refused_with_what_to_install(place: str) -> None:
    program = """
import sys
sys.modules["psycopg"] = None  # as if it were not installed
import django, faultproof
from django.conf import settings
from django.db import connection, transaction
"""
    program += f"""
from urllib.parse import urlsplit
at = urlsplit({place!r})
settings.configure(DATABASES={{"default": {{"ENGINE": "django.db.backends.postgresql", "NAME": at.path[1:],
    "HOST": at.hostname, "PORT": at.port, "USER": at.username, "PASSWORD": at.password}}}})
django.setup()
try:
    with transaction.atomic():
        faultproof.join(connection)
except faultproof.errors.NotSupported as refused:
    print(refused)
"""
    got = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "install psycopg 3" in got.stdout, got.stderr
