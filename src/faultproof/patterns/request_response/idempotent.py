"""`Idempotent`: ASGI middleware that gives a repeated request its first answer, and keeps each session's order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from faultproof import bounds
from faultproof.errors import (
    DeadlineExceeded,
    InProgress,
    InvalidInput,
    KeyReused,
    OutcomeUnknown,
    PayloadTooLarge,
    Superseded,
    TryAgain,
)
from faultproof.patterns.request_response import asgi, sql
from faultproof.patterns.request_response import headers as names
from faultproof.patterns.request_response.asgi import App, Capture, Gone, Kept, Receive, Respond, Scope, refusal
from faultproof.patterns.request_response.headers import Asked, asked
from faultproof.patterns.request_response.keyed import Keyed
from faultproof.patterns.request_response.turns import EarlierInProgress, Turn
from faultproof.ports.database import Database
from faultproof.primitives.deadline import ambient, by
from faultproof.primitives.idempotency import SCHEMA, Idempotency
from faultproof.primitives.timeouts import Timeouts
from faultproof.signals import REQUEST_LATE, REQUEST_REPLAYED, REQUEST_SUPERSEDED

_CHANGES_NOTHING = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_ANSWER_BYTES_MAX = 700_000
"""A little less than what the kernel's store takes, in its encoding."""


@dataclass(frozen=True, kw_only=True)
class IdempotentOptions:
    """Bounds of what comes from outside, and of waiting. Times in seconds."""

    ttl: float = 10.0
    """For a request, which is then cut off, its outcome unknown. A server that has died holds up for so long who asks again."""
    wait: float = 10.0
    """For the first answer, of who asks again meanwhile."""
    body_bytes: int = 1_048_576
    answer_bytes: int = 262_144
    headers: tuple[str, ...] = (
        "content-type",
        "content-encoding",
        "content-language",
        "location",
        "etag",
        "last-modified",
        "cache-control",
    )
    """Of an answer, those that are stored with it; in lower case."""
    required: bool = False
    """Refuse requests without a key, but for methods that change nothing."""

    def __post_init__(self) -> None:
        bounds.seconds("ttl", self.ttl)
        bounds.seconds("wait", self.wait, least=0)
        bounds.count("body_bytes", self.body_bytes, most=1_000_000_000)
        bounds.count("answer_bytes", self.answer_bytes, most=_ANSWER_BYTES_MAX)


class Idempotent:
    """ASGI middleware around an application whose requests carry an `idempotency-key`, and may belong to a session.

    ::

        app = fp.Idempotent(app, db)        # or a function that gives the database, where it is connected later
        await app.install()

    The same request again gets the first answer, from any server on this database, and is not carried out again; with other
    content it is refused (422). While the first is at work it waits, and is told to come back then (409). An answer with a
    status of 500 or more is not stored, and the key is free again. Of a session, none is carried out after a later one, nor
    while an earlier one is at work (409). Requests without a key, and those that change nothing (GET and the like), pass.

    A server that dies between a handler's effects and the answer leaves the key taken for `ttl`, and the next server does the
    work again; a handler that stores its answer with its effects (`Keyed.answer`) does it once.

    `whose`: whose keys these are, of the request's scope; without, everybody's. A client must not get another one's answers for
    guessing its keys.
    `name`: of the keys; applications with different names may use the same key for different requests.
    Proof: `faultproof.patterns.request_response.proof:REQUEST_RESPONSE`.
    """

    def __init__(
        self,
        app: App,
        database: Database | Callable[[], Database],
        options: IdempotentOptions | None = None,
        *,
        whose: Callable[[Scope], str] | None = None,
        name: str = "http",
    ) -> None:
        self._app = app
        self._given = database
        self._options = options or IdempotentOptions()
        self._whose = whose
        self._name = bounds.name("the keys' space", name)
        self._made: tuple[Database, Idempotency[Kept], Timeouts] | None = None

    async def install(self) -> None:
        """Create the tables; idempotent, and safe in many processes at once."""
        await self._database.install(SCHEMA, sql.SCHEMA)

    async def trim(self, *, older: float, limit: int = 1_000) -> int:
        """Forget answers that are older than `older` seconds, at most `limit`, and as many sessions; how many both.

        Who asks again after that repeats the work, unless a session knows better; so keep them for longer than anybody asks
        again. Sessions are kept ten times as long: they refuse what has been forgotten.
        """
        bounds.seconds("older", older, least=0)
        bounds.count("limit", limit)
        older_us = min(int(older * 10_000_000), int(bounds.SECONDS_MAX * 1_000_000))
        sessions = await self._database.transact(lambda: sql.trim(self._name, older_us, limit))
        return sessions + await self._keys.trim(older=older, limit=limit)

    async def __call__(self, scope: Scope, receive: Receive, respond: Respond) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, respond)
            return
        try:
            found = None if scope["method"] in _CHANGES_NOTHING else asked(scope["headers"])
            if found is None:
                await self._pass(scope, receive, respond)
                return
            with self._body_limit.cut(self._database.env.clock.monotonic()) as limit:
                body = await asgi.body_of(scope, receive, self._options.body_bytes)
        except PayloadTooLarge as error:
            await refusal(413, names.TOO_LARGE, str(error)).give(respond)
        except InvalidInput as error:
            await refusal(400, names.BAD_HEADER, str(error)).give(respond)
        except Gone:
            pass  # there is nobody to answer, and nothing was begun
        else:
            if limit.is_due:
                await refusal(408, names.TOO_SLOW, "the body did not come in time").give(respond)
            else:
                await _Request(self, scope, receive, found, body).answer(respond)

    async def _pass(self, scope: Scope, receive: Receive, respond: Respond) -> None:
        if self._options.required and scope["method"] not in _CHANGES_NOTHING:
            await refusal(400, names.NO_KEY, f"send an `{names.KEY}` with this request").give(respond)
            return
        nothing = Keyed(None, self._keys, "", self._turn(None, 0), self._options.answer_bytes)
        await self._app(nothing.lay(scope), receive, respond)

    def _turn(self, session: str | None, number: int) -> Turn:
        return Turn(self._name, session, number)

    def _parts(self) -> tuple[Database, Idempotency[Kept], Timeouts]:
        if self._made is None:
            database = self._given() if callable(self._given) else self._given
            keys = Idempotency(database, self._name, answer=Kept, ttl=self._options.ttl)
            self._made = database, keys, Timeouts(database.env.clock, self._options.ttl)
        return self._made

    @property
    def _database(self) -> Database:
        return self._parts()[0]

    @property
    def _keys(self) -> Idempotency[Kept]:
        return self._parts()[1]

    @property
    def _body_limit(self) -> Timeouts:
        return self._parts()[2]


class _Request:
    """One request with a key, on its way to an answer."""

    def __init__(self, around: Idempotent, scope: Scope, receive: Receive, found: Asked, body: bytes) -> None:
        self._around = around
        self._scope = scope
        self._receive = receive
        self._body = body
        whose = "" if around._whose is None else around._whose(scope)
        prefix = f"{hashlib.sha256(whose.encode()).hexdigest()[:32]}:" if whose else ""
        session = None if found.session is None else prefix + found.session
        self._key = prefix + found.key
        self._turn = around._turn(session, found.number)
        self._keyed = Keyed(found, around._keys, self._key, self._turn, around._options.answer_bytes)
        self._capture = Capture(around._options.answer_bytes)
        self._was_called = False
        self._failure: Exception | None = None

    async def answer(self, respond: Respond) -> None:
        """The first answer, made now or given again; or why there is none."""
        signals = self._around._database.env.signals
        try:
            kept = await self._kept()
        except Exception as error:
            refused = _refused(error)
            if refused is None:
                if (
                    self._capture.is_complete
                ):  # what the application said before it raised, or a 5xx, which is not stored
                    await self._capture.kept().give(respond)
                if error is self._failure or not self._capture.is_complete:
                    raise
                return
            if isinstance(error, DeadlineExceeded):
                signals.emit(REQUEST_LATE, 1)
            if isinstance(error, Superseded):
                signals.emit(REQUEST_SUPERSEDED, 1)
            await refused.give(respond)
            return
        if self._was_called:
            await kept.give(respond)
            if self._failure is not None:  # after it had answered with its effects: the server is to hear of it
                raise self._failure
        else:
            signals.emit(REQUEST_REPLAYED, 1)
            await kept.give(respond, (names.REPLAYED, "true"))

    async def _kept(self) -> Kept:
        clock, options = self._around._database.env.clock, self._around._options
        now = clock.monotonic()
        return await self._around._keys.run(
            self._key, self._content(), self._work, timeout=by(clock, options.wait) - now, along=self._turn
        )

    def _content(self) -> list[str]:
        scope = self._scope
        query = scope.get("query_string", b"").decode("latin-1")
        return [scope["method"], scope["path"], query, hashlib.sha256(self._body).hexdigest()]

    async def _work(self) -> Kept:
        if (until := ambient()) is not None:
            until.check("this request")  # it may have waited
        self._was_called = True
        try:
            await self._around._app(
                self._keyed.lay(self._scope), asgi.again(self._body, self._receive), self._capture.respond
            )
        except Exception as error:
            self._failure = error
            raise
        return self._judged()

    def _judged(self) -> Kept:
        capture = self._capture
        if not capture.is_complete:
            raise RuntimeError("the application ended without an answer")
        if capture.is_too_large:
            return refusal(
                500, names.ANSWER_TOO_LARGE, "it was done, and its answer is larger than what this server keeps"
            )
        if capture.status >= 500:
            raise _NotStored(f"status {capture.status}")
        return capture.kept(self._around._options.headers)


class _NotStored(Exception):
    """The application says that it could not."""


def _refused(error: Exception) -> Kept | None:
    """What the client is told; None if it is no error of ours."""
    sentence = str(error)
    match error:
        case DeadlineExceeded():
            return refusal(504, names.TOO_LATE, sentence)
        case EarlierInProgress():
            return refusal(409, names.EARLIER_IN_PROGRESS, sentence, retry_after=error.retry_after)
        case InProgress():
            return refusal(409, names.IN_PROGRESS, sentence, retry_after=error.retry_after)
        case TryAgain():
            return refusal(503, names.BUSY, sentence, retry_after=error.retry_after or 0.0)
        case OutcomeUnknown():
            return refusal(500, names.UNKNOWN, sentence)
        case Superseded():
            return refusal(409, names.SUPERSEDED, sentence)
        case KeyReused():
            return refusal(422, names.OTHER_CONTENT, sentence)
        case _:
            return None
