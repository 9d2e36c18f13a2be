"""Answers to asynchronous steps: kept until somebody goes on with the saga, refused when they come too late."""

from __future__ import annotations

import hmac

from faultproof.errors import InvalidInput
from faultproof.patterns.saga import operations, sql
from faultproof.patterns.saga.journal import claim_kind, work_topic
from faultproof.patterns.saga.machine import What
from faultproof.ports.database import Database
from faultproof.ports.script import Script, Wake


def answer(database: Database, saga: str, id: str, step: str, token: str, what: What, data: str | None) -> Script[bool]:
    """Record an answer; whether it counts. It does not if another attempt has begun, the step was given up, or it has been
    answered. Raises `InvalidInput` for a token that was never given out, and then nothing is recorded."""
    if not isinstance(token, str):  # whatever came over the wire in its place
        raise _never_given_out(step, id)
    # First the claim's lock: whoever goes on with the saga looks for answers under it, before or after this.
    yield from database.claims.hasten(claim_kind(saga), [id])
    found = yield from operations.standing(saga, id)
    attempt, _, secret = token.partition(".")
    begun = [e for e in (yield from sql.entries(saga, [id])) if e.step == step and e.what == "began"]
    given = next((e.data for e in begun if str(e.attempt) == attempt), None)
    if given is None or not hmac.compare_digest(given.encode(), secret.encode("utf-8", "replace")):
        raise _never_given_out(step, id)
    state = found.run.steps[step]
    if str(state.attempt) != attempt or state.status not in ("begun", "pending", "waiting"):
        return False
    if (yield from sql.call_back(saga, id, step, state.attempt, what, data)) != 1:
        return False
    yield Wake(work_topic(saga))
    return True


def _never_given_out(step: str, id: str) -> InvalidInput:
    return InvalidInput(f"the token is none that step {step!r} of saga {id!r} has given out")
