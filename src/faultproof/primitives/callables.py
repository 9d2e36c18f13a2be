"""Functions of the user's: refused when they are handed over, if they could only fail when they are called."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

from faultproof.errors import InvalidInput


def check_async(function: Callable[..., Any] | None, what: str) -> None:
    """A plain `def` would do its work, on the event loop's time, and then fail every time for want of an awaitable."""
    called: Any = function
    while isinstance(called, functools.partial):
        called = called.func
    called = inspect.unwrap(called)
    written = types.FunctionType | types.MethodType
    code = called if isinstance(called, written) else type(called).__call__
    tells = isinstance(code, written)  # or it is not written in Python
    if tells and not (inspect.iscoroutinefunction(code) or inspect.iscoroutinefunction(called)):
        raise InvalidInput(
            f"{what} must be an `async def`, which {function!r} is not: make it one, and await in it what blocks "
            "(`asyncio.to_thread` calls a synchronous function)"
        )


def check_arity(function: Callable[..., Any] | None, count: int, rule: str) -> None:
    """Refuse at once what could only fail on every call. `rule` says how it is called."""
    if function is None:
        return
    if not callable(function):
        raise InvalidInput(f"{rule}, and {function!r} cannot be called")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # it does not tell
        return
    try:
        signature.bind(*range(count))
    except TypeError as error:
        raise InvalidInput(f"{rule}, which {function!r} does not: {error}") from error
