"""Idempotency keys: the same request again gets the first answer, whatever happened to the first caller.

A key is stored with a fingerprint of the content it came with, and with the answer. Retries carry the same key and the
same content; the same key with other content is a mistake of the caller's and says so.

Two ways, for two kinds of work:

- `script` for work that is one script: key, work and answer commit together, in whatever transaction it is run in. The
  effect on this database is once.
- `run` for anything else (it calls a remote service, it takes long): the key is held by a lease meanwhile. A process that
  dies loses the lease, and the next caller with this key does the work *again*: pass the key on to the remote side. Work
  that has effects in this database can store its answer in their transaction (`answering`), and is then done once too.

Proof: `faultproof.prove.kernel.idempotency:IDEMPOTENCY`.

Source: IETF draft "The Idempotency-Key HTTP Header Field"; Helland, "Idempotence Is Not a Medical Condition" (2012).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar

import msgspec

from faultproof import bounds
from faultproof.errors import (
    Duplicate,
    FaultproofError,
    InProgress,
    InvalidInput,
    KeyReused,
    LeaseLost,
    OutcomeUnknown,
    PayloadTooLarge,
    TryAgain,
)
from faultproof.ports.database import Database, News
from faultproof.ports.schema import Schema
from faultproof.ports.script import Script, Wake, sql
from faultproof.ports.statement import Changed

A = TypeVar("A")
Duplicates = Literal["wait", "raise", "replay"]

KEY_BYTES_MAX = 255
ANSWER_BYTES_MAX = 1_048_576
LOOK_S = 0.25
"""How often a waiting duplicate looks although nobody called."""
STORE_S = 5.0
"""How long a call that is cancelled after its work goes on trying to store the answer."""

SCHEMA = Schema(
    name="idempotency",
    versions=[
        [
            """CREATE TABLE IF NOT EXISTS faultproof_idempotency (
                 scope TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, token BIGINT NOT NULL,
                 until_us BIGINT NOT NULL, at_us BIGINT NOT NULL, answer TEXT, PRIMARY KEY (scope, key))""",
            "CREATE INDEX IF NOT EXISTS faultproof_idempotency_at ON faultproof_idempotency (scope, at_us)",
        ]
    ],
    works_from=1,
    works_to=1,
)


class Found(NamedTuple):
    """What is stored under a key."""

    fingerprint: str
    answer: str | None
    left_us: int
    """Until the lease of whoever works on it ends."""


@sql(
    """INSERT INTO faultproof_idempotency (scope, key, fingerprint, token, until_us, at_us)
       VALUES (:scope, :key, :fingerprint, 1, {now} + :ttl_us, {now})
       ON CONFLICT (scope, key) DO UPDATE SET token = faultproof_idempotency.token + 1, until_us = excluded.until_us
         WHERE faultproof_idempotency.answer IS NULL AND faultproof_idempotency.until_us <= {now}
           AND faultproof_idempotency.fingerprint = excluded.fingerprint
       RETURNING token"""
)
def _begin(scope: str, key: str, fingerprint: str, ttl_us: int) -> int | None: ...


@sql(
    """SELECT fingerprint, answer, until_us - {now} FROM faultproof_idempotency
       WHERE scope = :scope AND key = :key"""
)
def _find(scope: str, key: str) -> Found | None: ...


@sql(
    """UPDATE faultproof_idempotency SET answer = :answer, at_us = {now}
       WHERE scope = :scope AND key = :key AND token = :token AND answer IS NULL"""
)
def _finish(scope: str, key: str, token: int, answer: str) -> Changed: ...


@sql(
    """DELETE FROM faultproof_idempotency
       WHERE scope = :scope AND key = :key AND token = :token AND answer IS NULL"""
)
def _give_up(scope: str, key: str, token: int) -> Changed: ...


@sql(
    """DELETE FROM faultproof_idempotency WHERE scope = :scope AND key IN (
         SELECT key FROM faultproof_idempotency
         WHERE scope = :scope AND at_us <= {now} - :older_us AND until_us <= {now} ORDER BY at_us LIMIT :limit)"""
)
def _trim(scope: str, older_us: int, limit: int) -> Changed: ...


class Along(Protocol):
    """What is decided together with a key: these scripts run in the transactions that take, answer and free it."""

    def taken(self, token: int, ttl_us: int) -> Script[None]:
        """The key is this caller's for so long. Raise to refuse it: then it is not."""
        ...

    def answered(self) -> Script[None]:
        """Its answer is stored. Raise to refuse that."""
        ...

    def freed(self) -> Script[None]:
        """It can be taken again."""
        ...


class Idempotency(Generic[A]):
    """The answers of one kind of request, by key.

    `answer`: the type of the answers (anything msgspec can turn into JSON and back). `duplicates`: what a call does whose
    key is known: "wait" for the first answer, "replay" it if it is there and raise `InProgress` if not, or "raise"
    `Duplicate` (with the answer) or `InProgress`. `ttl`: seconds that `run` may take.
    """

    def __init__(
        self,
        database: Database,
        scope: str,
        *,
        answer: type[A],
        duplicates: Duplicates = "wait",
        ttl: float = 30.0,
    ) -> None:
        if not scope or len(scope) > 100:
            raise InvalidInput(f"a scope is named with 1 to 100 characters, got {scope!r}")
        if duplicates not in ("wait", "raise", "replay"):
            raise InvalidInput(f"duplicates is wait, raise or replay, got {duplicates!r}")
        bounds.seconds("ttl", ttl)
        self._database = database
        self._scope = scope
        self._decode = msgspec.json.Decoder(answer).decode
        self._duplicates = duplicates
        self._ttl = ttl

    async def install(self) -> None:
        """Create the table; idempotent, and safe in many processes at once."""
        await self._database.install(SCHEMA)

    def script(self, key: str, content: object, work: Script[A]) -> Script[A]:
        """`work`, unless this key has been answered: then the first answer. Key, work and answer commit together.

        A concurrent duplicate waits for the row or write lock of the first, and then replays. Raises `KeyReused` for
        the same key with other content, and `Duplicate` for any duplicate where `duplicates` is "raise".
        """
        fingerprint = _checked(key, content)
        token = yield from _begin(self._scope, key, fingerprint, 0)
        if token is None:
            answered, answer = self._known(key, fingerprint, (yield from _find(self._scope, key)))
            if not answered:
                raise self._in_progress(key)
            return self._replayed(key, answer)
        result = yield from work
        yield from _finish(self._scope, key, token, _encoded(result))
        return result

    async def run(
        self,
        key: str,
        content: object,
        work: Callable[[], Awaitable[A]],
        *,
        timeout: float = 30.0,
        along: Along | None = None,
    ) -> A:
        """The answer of `work()`, called unless this key has been answered.

        What `work` raises reaches the caller, and the key is free again; except after `OutcomeUnknown`, when it stays
        taken until its lease ends. A duplicate waits up to `timeout` seconds, where it is to wait. Raises `KeyReused`,
        `Duplicate`, `InProgress`, and `OutcomeUnknown` if `work` outlives the lease (`ttl`).

        A caller that is cancelled while `work` runs leaves the key taken until its lease ends: the work may have reached
        somebody. Once `work` has returned, a cancel waits until the answer is stored, for up to 5 s. A process that dies
        in between cannot, nor can an event loop that shuts down (the end of `asyncio.run` cancels the storing as well):
        the answer may be missing then, and the next caller after the lease repeats the work.

        With `along` something else is decided together with the key, and `work` may store its answer itself (`answering`):
        that is then what counts, whatever `work` returns or raises.
        """
        bounds.seconds("timeout", timeout, least=-bounds.SECONDS_MAX)  # of a deadline nothing may be left
        fingerprint = _checked(key, content)
        clock = self._database.env.clock
        deadline = clock.monotonic() + timeout
        news: News | None = None
        try:
            while True:
                began = clock.monotonic()
                token, found = await self._database.transact(lambda: self._take(key, fingerprint, along))
                if token is not None:
                    return await self._work(key, token, work, began + self._ttl, along)
                answered, answer = self._known(key, fingerprint, found)
                if answered:
                    return self._replayed(key, answer)
                if news is None:  # only now is there something to wait for
                    news = self._database.changed(self._topic(key))
                await self._wait(key, news, deadline - clock.monotonic(), found)
        finally:
            if news is not None:
                news.close()

    def answering(self, key: str, token: int, answer: A, along: Along) -> Script[None]:
        """Store the answer in the transaction of the work's own effects: all of it commits, or nothing.

        For work that `run` calls with this `along`, which was told the token. Raises `LeaseLost` where another call has taken
        over, or the answer is stored already: let that end the transaction.
        """
        if not (yield from self._finished(key, token, _encoded(answer), along)):
            raise self._taken_over(key)

    async def trim(self, *, older: float, limit: int = 1_000) -> int:
        """Forget answers that are older than `older` seconds, at most `limit`; how many. Retries later than that repeat."""
        bounds.seconds("older", older, least=0)
        bounds.count("limit", limit)
        return await self._database.transact(lambda: _trim(self._scope, int(older * 1_000_000), limit))

    # -- inside -----------------------------------------------------------------------------------------------------

    def _take(self, key: str, fingerprint: str, along: Along | None = None) -> Script[tuple[int | None, Found | None]]:
        ttl_us = int(self._ttl * 1_000_000)
        token = yield from _begin(self._scope, key, fingerprint, ttl_us)
        if token is None:
            return None, (yield from _find(self._scope, key))
        if along is not None:
            yield from along.taken(token, ttl_us)
        return token, None

    async def _work(
        self, key: str, token: int, work: Callable[[], Awaitable[A]], until: float, along: Along | None
    ) -> A:
        try:
            async with asyncio.timeout(until - self._database.env.clock.monotonic()) as limit:
                result = await work()
        except TimeoutError as error:
            if not limit.expired():
                await self._free(key, token, along)
                raise
            raise OutcomeUnknown(f"the work for key {key!r} took longer than {self._ttl} s and was cut off") from error
        except OutcomeUnknown:
            raise
        except Exception:
            stored = await self._free(key, token, along)
            if stored is None:
                raise
            return self._decode(stored)
        # Not after a cancel: the work may have reached somebody. The key stays taken until its lease ends.
        stored = await self._undisturbed(self._record(key, token, result, until, along))
        return result if along is None else self._decode(stored)

    async def _free(self, key: str, token: int, along: Along | None) -> str | None:
        """Its answer, if there is one nevertheless."""
        with suppress(FaultproofError):  # what the work raised says more; the lease will end by itself
            return await self._database.transact(lambda: self._freed(key, token, along))
        return None

    async def _undisturbed(self, storing: Coroutine[Any, Any, str]) -> str:
        """Whoever cancels us waits until the answer is stored, or could not be within `STORE_S`; then the cancel goes on."""
        clock = self._database.env.clock
        task = asyncio.get_running_loop().create_task(storing, name="faultproof-idempotency-store")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            until = clock.monotonic() + STORE_S
            while not task.done():
                if (left := until - clock.monotonic()) <= 0:
                    task.cancel()
                with suppress(asyncio.CancelledError):  # one more; the first goes on in a moment
                    await asyncio.wait([task], timeout=max(left, LOOK_S))
            raise

    async def _record(self, key: str, token: int, result: A, until: float, along: Along | None) -> str:
        """The answer that counts, stored. From here on the work is done, and no error may say that nothing has happened."""
        clock = self._database.env.clock
        while True:
            try:
                return await self._database.transact(lambda: self._answered(key, token, _encoded(result), along))
            except TryAgain as error:
                if clock.monotonic() < until:
                    await clock.sleep(LOOK_S)
                    continue
                raise self._unrecorded(key) from error
            except FaultproofError as error:
                raise self._unrecorded(key) from error

    def _unrecorded(self, key: str) -> OutcomeUnknown:
        return OutcomeUnknown(f"the work for key {key!r} is done, and its answer could not be stored: see the cause")

    def _answered(self, key: str, token: int, answer: str, along: Along | None = None) -> Script[str]:
        if (yield from self._finished(key, token, answer, along)):
            return answer
        found = None if along is None else (yield from _find(self._scope, key))
        if found is None or found.answer is None:
            raise self._taken_over(key)
        return found.answer

    def _finished(self, key: str, token: int, answer: str, along: Along | None) -> Script[bool]:
        if (yield from _finish(self._scope, key, token, answer)) != 1:
            return False
        if along is not None:
            yield from along.answered()
        yield Wake(self._topic(key))
        return True

    def _taken_over(self, key: str) -> LeaseLost:
        return LeaseLost(f"another call has taken over the key {key!r}; this one's work may have been done twice")

    def _freed(self, key: str, token: int, along: Along | None = None) -> Script[str | None]:
        if (yield from _give_up(self._scope, key, token)) == 1:
            if along is not None:
                yield from along.freed()
        elif along is not None:
            found = yield from _find(self._scope, key)
            return None if found is None else found.answer
        yield Wake(self._topic(key))
        return None

    def _known(self, key: str, fingerprint: str, found: Found | None) -> tuple[bool, str]:
        """Whether there is an answer under the key, and which."""
        if found is None:  # it was given up between two statements
            return False, ""
        if found.fingerprint != fingerprint:
            raise KeyReused(f"the key {key!r} was used before with other content: use a new key for a new request")
        return found.answer is not None, found.answer or ""

    def _replayed(self, key: str, answer: str) -> A:
        decoded: A = self._decode(answer)
        if self._duplicates == "raise":
            raise Duplicate(f"the key {key!r} has been answered before", answer=decoded)
        return decoded

    async def _wait(self, key: str, news: News, left: float, found: Found | None) -> None:
        if self._duplicates != "wait" or left <= 0:
            raise self._in_progress(key, found)
        lease = self._ttl if found is None else max(0.001, found.left_us / 1_000_000)
        await news.wait(min(left, lease, LOOK_S))

    def _in_progress(self, key: str, found: Found | None = None) -> FaultproofError:
        after = None if found is None else max(0.0, found.left_us / 1_000_000)
        return InProgress(f"the first call with key {key!r} is still running: ask again later", retry_after=after)

    def _topic(self, key: str) -> str:
        return f"idempotency.{self._scope}.{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _checked(key: str, content: object) -> str:
    """The content's fingerprint; the order of a mapping's entries does not count."""
    if not key or len(key.encode("utf-8", "surrogatepass")) > KEY_BYTES_MAX or "\0" in key:
        raise InvalidInput(f"an idempotency key is a text of 1 to {KEY_BYTES_MAX} bytes without NUL characters")
    try:
        encoded = msgspec.json.encode(content, order="deterministic")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"the content of key {key!r} cannot be fingerprinted: {error}") from error
    return hashlib.sha256(encoded).hexdigest()


def _encoded(answer: Any) -> str:
    try:
        encoded = msgspec.json.encode(answer)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"an answer of type {type(answer).__qualname__} cannot be stored as JSON: {error}"
        ) from error
    if len(encoded) > ANSWER_BYTES_MAX:
        raise PayloadTooLarge(
            f"the answer has {len(encoded)} bytes, the limit is {ANSWER_BYTES_MAX}: store a reference to it",
            size_bytes=len(encoded),
            limit_bytes=ANSWER_BYTES_MAX,
        )
    return encoded.decode()
