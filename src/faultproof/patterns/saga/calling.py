"""Calling the user's actions and undos: within their time, and with a verdict on what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from faultproof.clock import Rng
from faultproof.errors import Failed, InvalidInput, OutcomeUnknown, TryAgain
from faultproof.patterns.saga.machine import Entry, StepState, Work
from faultproof.patterns.saga.steps import Pending, Step, StepRetry
from faultproof.primitives.retry import full_jitter

ERROR_CHARACTERS_MAX = 1_000


class Verdict(NamedTuple):
    """How an attempt went wrong."""

    error: str
    is_unknown: bool
    """Nobody knows whether it happened."""
    is_final: bool
    """No other attempt makes sense."""
    retry_after: float | None = None


def outcome_of(task: asyncio.Task[Any], *, timeout: float, expired: bool) -> tuple[Any, Verdict | None]:
    """What a remote action or undo returned, or how it went wrong.

    Only the user's word that nothing happened is taken for that: `Failed` and `TryAgain`. A timeout, a lost connection or a
    mistake in the action's code may come after the other side did its part.
    """
    error = asyncio.CancelledError("cancelled itself") if task.cancelled() else task.exception()
    if error is None:
        return task.result(), None
    if isinstance(error, OutcomeUnknown):
        return None, Verdict(words(error), is_unknown=True, is_final=False)
    if isinstance(error, TryAgain):
        return None, Verdict(words(error), is_unknown=False, is_final=False, retry_after=error.retry_after)
    if isinstance(error, Failed):
        return None, Verdict(words(error), is_unknown=False, is_final=True)
    if expired and isinstance(error, (asyncio.CancelledError, TimeoutError)):
        return None, Verdict(f"no answer within {timeout:.3g} s", is_unknown=True, is_final=False)
    return None, Verdict(words(error), is_unknown=True, is_final=False)


async def call(function: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
    """Call it within a task: a process may be cancelled, or die, before this begins."""
    return await function(*arguments)


def entry_of(
    step: Step[Any, Any], work: Work, state: StepState, returned: Any, wrong: Verdict | None, *, now_us: int, rng: Rng
) -> Entry:
    """What to journal of a finished attempt."""
    if wrong is not None:
        return failure(step, work, state, wrong, now_us=now_us, rng=rng)
    if work.undo:
        return Entry(step.name, "undone", work.attempt)
    if step.kind == "asynchronous":
        if isinstance(returned, Pending):
            due_us = now_us + int(step.answer_within * 1_000_000)
            return Entry(step.name, "pending", work.attempt, None, due_us)
        what = f"an asynchronous action returns Pending(), and {step.name!r} returned a {type(returned).__qualname__}"
        return Entry(step.name, "unknown", work.attempt, what, None)
    try:
        return Entry(step.name, "done", work.attempt, step.encode(returned))
    except InvalidInput as error:  # it has happened; to do it again would not make the result any better
        return Entry(step.name, "unknown", work.attempt, words(error), None)


def failure(step: Step[Any, Any], work: Work, state: StepState, wrong: Verdict, *, now_us: int, rng: Rng) -> Entry:
    """The entry that says so, with the time of the next attempt if the policy leaves one."""
    policy: StepRetry = step.undo_retry if work.undo else step.retry
    due_us: int | None = None
    if not wrong.is_final and state.tries + 1 < policy.attempts:
        wait = full_jitter(state.tries, base=policy.base, cap=policy.cap, rng=rng)
        due_us = now_us + int(max(wait, wrong.retry_after or 0.0) * 1_000_000)
    if work.undo:
        return Entry(step.name, "undo_failed", work.attempt, wrong.error, due_us)
    return Entry(step.name, "unknown" if wrong.is_unknown else "failed", work.attempt, wrong.error, due_us)


def words(error: BaseException) -> str:
    """An error as the journal and operators see it."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # whatever its class does there
        text = f"{type(error).__name__}: (an error that cannot be put into words)"
    return storable(text)


def storable(text: str) -> str:
    """What of it a database keeps: no NUL, no half of a character that is two (as files' names may have), and not too much."""
    return text.replace("\0", "").encode(errors="replace").decode()[:ERROR_CHARACTERS_MAX]
