"""The services in docs/joining/services, as they stand there, on a real server: nothing is stored without its event."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.docs.markdown import REPOSITORY

SERVICES = REPOSITORY / "docs/joining/services"
WAIT_S = 40.0

# What a client sees, in a process of its own: libraries keep settings in globals. Each service stores its mails by a
# consumer, so they come a moment later.
CLIENT = """
import sys, time
sys.path.insert(0, {services!r})

def shows(mails, expected, until=time.monotonic() + 20):
    while mails() != expected:
        assert time.monotonic() < until, mails()
        time.sleep(0.01)

{body}
"""

FASTAPI = """
import json, urllib.error, urllib.request

def call(path, new=None):
    request = urllib.request.Request(
        "http://127.0.0.1:{port}" + path,
        None if new is None else json.dumps(new).encode(),
        {{"Content-Type": "application/json"}},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, None

assert call("/orders", dict(id="o-1", total=990))[0] == 201
assert call("/orders", dict(id="o-1", total=5))[0] == 409
assert call("/orders", dict(id="o-2", total=10))[0] == 201
shows(lambda: call("/mails")[1], ["o-1", "o-2"])
"""

DJANGO = """
import orders_django
from django.test import Client

client = Client()
post = lambda **new: client.post("/orders", new, content_type="application/json").status_code
assert [post(id="o-1", total=990), post(id="o-1", total=5), post(id="o-2", total=10)] == [201, 409, 201]
shows(lambda: client.get("/mails").json()["mails"], ["o-1", "o-2"])
orders_django.shop().close()
"""


PSYCOPG = """
import orders_psycopg, psycopg

with orders_psycopg.opened() as shop:
    shop.order("o-1", "990")
    try:
        shop.order("o-1", "5")
    except psycopg.errors.UniqueViolation:
        pass
    assert [shop.receive("m-1", "o-1"), shop.receive("m-1", "o-1")] == ["handled", "seen before"]
"""


def run(url: str, *arguments: str) -> str:
    """The output of a Python program that knows the database; it must end well."""
    got = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        env={**os.environ, "SHOP_DB": url},
        cwd=SERVICES,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert got.returncode == 0, got.stderr
    return got.stdout.strip()


def talk(url: str, body: str) -> None:
    run(url, "-c", CLIENT.format(services=str(SERVICES), body=body))


def published(url: str) -> list[str]:
    """The keys of all events that there are, moved on to the log or not."""
    with psycopg.connect(url) as raw:
        rows = raw.execute(b"SELECT key FROM faultproof_log UNION ALL SELECT key FROM faultproof_intake ORDER BY key")
        return [key for (key,) in rows]


@contextmanager
def serving(url: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A service that runs meanwhile, and ends well when it is asked to."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "SHOP_DB": url},
        cwd=SERVICES,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(2 * WAIT_S, process.kill)
    watchdog.start()
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate()
        watchdog.cancel()
    assert process.returncode in (0, -signal.SIGTERM), said  # uvicorn ends in good order, and then by the signal


def test_fastapi_with_sqlalchemy(postgres_url: str) -> None:
    with serving(postgres_url, "-m", "uvicorn", "orders_fastapi:app", "--port", "0") as service:
        assert service.stderr is not None
        running = next(line for line in service.stderr if "running on" in line)
        talk(postgres_url, FASTAPI.format(port=re.findall(r":(\d+)", running)[-1]))
    assert published(postgres_url) == ["o-1", "o-2"]


def test_django(postgres_url: str) -> None:
    run(postgres_url, "orders_django.py", "install")
    with serving(postgres_url, "orders_django.py", "work"):
        talk(postgres_url, DJANGO)
    assert published(postgres_url) == ["o-1", "o-2"]


def test_psycopg(postgres_url: str) -> None:
    run(postgres_url, "orders_psycopg.py", "install")
    talk(postgres_url, PSYCOPG)
    assert published(postgres_url) == ["o-1"]
    with psycopg.connect(postgres_url) as raw:
        assert raw.execute(b"SELECT total, paid FROM orders").fetchall() == [(990, 990)]
