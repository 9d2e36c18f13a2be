"""What callers of a shared batch are given, when what was raised is not for them as it is."""

from __future__ import annotations

import asyncio
import copy

from faultproof.errors import Failed


def raisable(name: str, error: BaseException) -> BaseException:
    """What a caller may be given: a cancel would look like its own, and no future takes a StopIteration."""
    return cut_short(name, error) if isinstance(error, (asyncio.CancelledError, StopIteration)) else error


def cut_short(name: str, cause: BaseException) -> Failed:
    """What every caller of a batch is told whose function was cancelled, or stopped, inside."""
    failed = Failed(f"the function of batcher {name!r} was cut short by {cause!r}")
    failed.__cause__ = cause
    return failed


def for_each_caller(error: Exception) -> Exception:
    """An exception of the same kind for each caller: one object raised in many tasks would mix up their tracebacks."""
    kind = type(error)
    try:
        # Python's own keep facts outside `args`, and know how to be copied. The others may not be made from their `args`.
        twin: Exception = copy.copy(error) if kind.__module__ == "builtins" else kind.__new__(kind, *error.args)
        twin.args = error.args
        twin.__dict__.update(error.__dict__)
        twin.__cause__ = error
    except Exception:  # made in a way of its own, or frozen
        twin = Failed(f"{kind.__qualname__}: {error}")
        twin.__cause__ = error
    return twin
