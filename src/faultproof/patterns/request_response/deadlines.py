"""`Deadlines`: what a client has left of its time, and which attempt this is, known to the application."""

from __future__ import annotations

from contextlib import ExitStack

from faultproof.clock import Env, system
from faultproof.errors import InvalidInput
from faultproof.patterns.request_response import headers as names
from faultproof.patterns.request_response.asgi import App, Kept, Receive, Respond, Scope, refusal
from faultproof.patterns.request_response.headers import single
from faultproof.primitives import attempts, deadline
from faultproof.signals import REQUEST_LATE


class Deadlines:
    """ASGI middleware: the sender's deadline and attempt become ambient, and what comes too late is refused.

    `deadline-remaining-ms` is what the client has left: of 0 the answer is 504, and the application is not called. Otherwise it
    runs with that deadline, and is not cut off: whoever makes it wait honours it (queues, retries, attempts), while an effect
    that has begun is better finished, for whoever asks again. `attempt` says who repeats (`primitives/attempts.py`). What is
    neither is 400. A request without them has no deadline; what is passed on from a server's own context does not count.
    """

    def __init__(self, app: App, *, env: Env | None = None) -> None:
        self._app = app
        self._env = env or system()

    async def __call__(self, scope: Scope, receive: Receive, respond: Respond) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, respond)
            return
        try:
            by, attempt = self._read(scope)
        except InvalidInput as error:
            await refusal(400, names.BAD_HEADER, str(error)).give(respond)
            return
        if by is not None and by.left() <= 0:
            self._env.signals.emit(REQUEST_LATE, 1)
            await _too_late().give(respond)
            return
        with ExitStack() as inside:
            if by is not None:
                inside.enter_context(deadline.within(max(0.0, by.left()), self._env.clock))
            inside.enter_context(attempts.arrived(attempt))
            await self._app(scope, receive, respond)

    def _read(self, scope: Scope) -> tuple[deadline.Deadline | None, attempts.Attempt | None]:
        left, attempt = single(scope["headers"], deadline.HEADER), single(scope["headers"], attempts.HEADER)
        return (
            None if left is None else deadline.from_header(left, self._env.clock),
            None if attempt is None else attempts.from_header(attempt),
        )


def _too_late() -> Kept:
    return refusal(504, names.TOO_LATE, "no time is left for this request: nothing of it was done")
