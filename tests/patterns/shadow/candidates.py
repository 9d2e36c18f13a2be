"""What a candidate may do, in a process of its own."""

import os
import subprocess
import sys
from typing import Any

import faultproof as fp


def echoes(request: Any) -> Any:
    return request


async def echoes_later(request: Any) -> Any:
    return {"later": request}


def raises(request: Any) -> Any:
    raise ZeroDivisionError("secret")


def exits(request: Any) -> Any:
    sys.exit(3)


def crashes(request: Any) -> Any:
    os.abort()


def burns(request: Any) -> Any:
    """A whole core, until it is killed; with a number, so many additions."""
    n = 0
    while n != request:
        n += 1
    return n


def burns_on(request: Any) -> Any:
    return burns(None)


def leaks(request: Any) -> Any:
    return len(b"x" * (4 << 30))


def prints(request: Any) -> Any:
    print("not an answer" * 10_000, flush=True)
    os.write(1, b"neither")
    sys.stderr.write("x" * 1_000_000)
    return input() if request == "reads" else request


def answers_too_much(request: Any) -> Any:
    return "x" * 1_000_000


def answers_what_cannot_travel(request: Any) -> Any:
    return object()


def tells(request: Any) -> Any:
    return {"nice": os.nice(0), "is_shadow": fp.is_shadow(), "secret": os.environ.get("SECRET"), "pid": os.getpid()}


def starts_others(request: Any) -> Any:
    """A process that would go on, and then it hangs."""
    subprocess.Popen([sys.executable, "-c", f"open({request!r}, 'w').write('x'); import time; time.sleep(600)"])
    burns(None)


def cannot_begin() -> None:
    """Not a candidate."""


value = 3
