"""While a simulation runs, reaching for the real world raises, and says what was reached for."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from faultproof.prove.simulated.loop import Escape

FORBIDDEN: tuple[tuple[Any, str], ...] = (
    (time, "time"),
    (time, "time_ns"),
    (time, "monotonic"),
    (time, "monotonic_ns"),
    (time, "perf_counter"),
    (time, "perf_counter_ns"),
    (time, "sleep"),
    (random, "random"),
    (random, "randint"),
    (random, "randrange"),
    (random, "choice"),
    (random, "shuffle"),
    (random, "uniform"),
    (random.SystemRandom, "random"),
    (secrets, "token_bytes"),
    (secrets, "token_hex"),
    (uuid, "uuid1"),
    (uuid, "uuid4"),
    (os, "urandom"),
    (threading.Thread, "start"),
    (socket.socket, "bind"),
    (socket.socket, "connect"),
    (socket.socket, "sendto"),
    (subprocess.Popen, "__init__"),
    (asyncio, "to_thread"),
)
"""What real code reaches the outside by. `datetime.now` is C and cannot be replaced; the architecture tests forbid it."""


_INHERITED = object()


@contextmanager
def no_escapes() -> Iterator[None]:
    """Replace everything in `FORBIDDEN` by a refusal, for as long as it lasts."""
    saved = [(owner, name, owner.__dict__.get(name, _INHERITED)) for owner, name in FORBIDDEN]
    for owner, name in FORBIDDEN:
        setattr(owner, name, _refusal(owner, name))
    try:
        yield
    finally:
        for owner, name, original in saved:
            if original is _INHERITED:
                delattr(owner, name)
            else:
                setattr(owner, name, original)


BYSTANDERS = frozenset({"logging"})
"""Modules that may reach out all the same: what they find, nobody in the simulation looks at."""


def _refusal(owner: Any, name: str) -> Any:
    original, simulating = getattr(owner, name), threading.get_ident()

    def refuse(*args: Any, **named: Any) -> Any:
        __tracebackhide__ = True  # pytest shows who called it
        # Other threads belong to others: to whoever runs the tests, for one.
        if threading.get_ident() != simulating or sys._getframe(1).f_globals.get("__name__") in BYSTANDERS:
            return original(*args, **named)
        raise Escape(f"simulated code called {owner.__name__}.{name}: take it from the Env instead")

    return refuse
