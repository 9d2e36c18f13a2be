"""Steps: what users declare. A step is an action, what undoes it, how long it may take, and how often it is tried."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_type_hints

import msgspec

from faultproof import bounds
from faultproof.errors import InvalidInput, Misuse, PayloadTooLarge
from faultproof.ports.database import Transaction
from faultproof.primitives.callables import check_arity, check_async

if TYPE_CHECKING:
    from faultproof.patterns.saga.machine import Run

I = TypeVar("I")  # noqa: E741  # input, as in the signatures below
R = TypeVar("R")

Kind = Literal["remote", "local", "asynchronous"]
RESULT_BYTES_MAX = 262_144


@dataclass(frozen=True, kw_only=True)
class StepRetry:
    """When an action or an undo is tried again. Times in seconds."""

    attempts: int = 5
    """At most this many, the first included. Attempts that a dying process cut short are counted apart."""
    base: float = 0.1
    """After n failed attempts wait up to this times 2**(n-1), with full jitter …"""
    cap: float = 30.0
    """… and never more than this."""

    def __post_init__(self) -> None:
        bounds.count("attempts", self.attempts)
        bounds.seconds("base", self.base, least=0)
        bounds.seconds("cap", self.cap, least=0)
        if self.cap < self.base:
            raise InvalidInput(f"`cap` must be at least `base`, got {self.cap} and {self.base}")


UNDO_RETRY = StepRetry(attempts=20, base=0.2, cap=60.0)
"""An undo is tried for about ten minutes before a person is asked."""


class StepContext(Generic[I]):
    """What an action or an undo is given beside the results that it asks for."""

    __slots__ = ("_clock", "_run", "_until", "attempt", "id", "input", "key", "saga", "step", "token", "undone_key")

    def __init__(
        self,
        *,
        saga: str,
        id: str,
        step: str,
        input: I,
        attempt: int,
        key: str,
        undone_key: str | None,
        token: str | None,
        run: Run,
        until: float,
        clock: Callable[[], float],
    ) -> None:
        self.saga = saga
        self.id = id
        """Of the saga."""
        self.step = step
        self.input = input
        self.attempt = attempt
        """From 1; the key is the same in all of them."""
        self.key = key
        """The idempotency key: the same over retries and processes, another one for the undo."""
        self.undone_key = undone_key
        """In an undo: the key of the action. A provider that remembers it refuses an action which arrives late."""
        self.token = token
        """In an asynchronous action: what `Saga.complete` wants back. Whoever has it can answer for the step."""
        self._run = run
        self._until = until
        self._clock = clock

    @property
    def remaining(self) -> float:
        """Seconds until this attempt is cut off."""
        return max(0.0, self._until - self._clock())

    def result(self, step: Step[Any, R]) -> R:
        """What an earlier step returned. Raises `Misuse` for one that is not done."""
        state = self._run.steps.get(step.name)
        if state is None or state.result is None:
            raise Misuse(f"step {step.name!r} has no result yet: ask for those of steps before {self.step!r}")
        return step.decode(state.result)

    def results(self) -> dict[str, Any]:
        """What all steps that are done have returned, by name, as JSON values."""
        return {name: msgspec.json.decode(s.result) for name, s in self._run.steps.items() if s.result is not None}


class _NothingToUndo:
    """The type of `NOTHING_TO_UNDO`."""

    def __repr__(self) -> str:
        return "NOTHING_TO_UNDO"


NOTHING_TO_UNDO = _NothingToUndo()
"""As `undo=`: the step leaves nothing behind, or what it leaves does no harm. Written out, so that nobody forgets one."""


class Pending:
    """What an asynchronous action returns: the answer comes later, through `Saga.complete` or `Saga.fail`."""

    __slots__ = ()


RemoteAction = Callable[[StepContext[I]], Awaitable[R]]
RemoteUndo = Callable[[StepContext[I], R | None], Awaitable[None]]
LocalAction = Callable[[StepContext[I], Transaction], Awaitable[R]]
LocalUndo = Callable[[StepContext[I], R, Transaction], Awaitable[None]]


class Step(Generic[I, R]):
    """One step of a saga. Make it with `remote`, `local` or `asynchronous`; it is a value, usable in several sagas."""

    def __init__(
        self,
        kind: Kind,
        action: Callable[..., Awaitable[Any]],
        undo: Callable[..., Awaitable[None]] | _NothingToUndo | None,
        *,
        name: str | None,
        timeout: float,
        answer_within: float,
        retry: StepRetry | None,
        undo_retry: StepRetry | None,
        result: Any,
    ) -> None:
        what = f"the action of a {kind} step"
        takes = {"remote": "(context)", "asynchronous": "(context)", "local": "(context, tx)"}[kind]
        if not callable(action):
            raise InvalidInput(f"{what} takes {takes}, and {action!r} cannot be called")
        check_arity(action, 2 if kind == "local" else 1, f"{what} takes {takes}")
        check_async(action, what)
        self.kind = kind
        self.name = bounds.name("a step", name or getattr(action, "__name__", ""), hint=": give `name=`")
        self.action = action
        self.undo = None if isinstance(undo, _NothingToUndo) else undo
        self.is_undoable = undo is not None
        """It says what undoes it, be it nothing."""
        if self.undo is not None:
            count = 3 if kind == "local" else 2
            takes = "(context, result, tx)" if kind == "local" else "(context, result)"
            check_arity(self.undo, count, f"the undo of a {kind} step takes {takes}")
            check_async(self.undo, f"the undo of {self.name!r}")
        bounds.seconds("timeout", timeout)
        bounds.seconds("answer_within", answer_within)
        self.timeout = timeout
        self.answer_within = answer_within
        self.retry = retry or StepRetry()
        self.undo_retry = undo_retry or UNDO_RETRY
        self._decoder = msgspec.json.Decoder(_returned(action) if result is None else result)

    @staticmethod
    def remote(
        action: RemoteAction[I, R],
        *,
        undo: RemoteUndo[I, R] | _NothingToUndo | None = None,
        name: str | None = None,
        timeout: float = 10.0,
        retry: StepRetry | None = None,
        undo_retry: StepRetry | None = None,
        result: type[R] | None = None,
    ) -> Step[I, R]:
        """A step that reaches somebody else. `action(context)` passes `context.key` on, and the other side gives a repeated
        key its first answer.

        `undo(context, result)`: `result` is None when nobody knows whether the action happened; to undo what never
        happened must do no harm. `timeout`: seconds that one attempt of either may take. What they raise decides:
        `Failed` says that it did not happen and will not (no further attempt); `TryAgain`, that it did not happen yet;
        everything else, a timeout included, is *unknown*, and leads to another attempt with the same key, or to the undo.
        `result`: the type of the result, where the action's annotation does not say it.
        """
        return Step(
            "remote",
            action,
            undo,
            name=name,
            timeout=timeout,
            answer_within=timeout,
            retry=retry,
            undo_retry=undo_retry,
            result=result,
        )

    @staticmethod
    def local(
        action: LocalAction[I, R],
        *,
        undo: LocalUndo[I, R] | _NothingToUndo | None = None,
        name: str | None = None,
        timeout: float = 10.0,
        retry: StepRetry | None = None,
        undo_retry: StepRetry | None = None,
        result: type[R] | None = None,
    ) -> Step[I, R]:
        """A step on the saga's own database: what `action(context, tx)` writes through `tx` commits with the journal's entry,
        so it happened once or not at all, and the undo always has its result."""
        return Step(
            "local",
            action,
            undo,
            name=name,
            timeout=timeout,
            answer_within=timeout,
            retry=retry,
            undo_retry=undo_retry,
            result=result,
        )

    @staticmethod
    def asynchronous(
        action: Callable[[StepContext[I]], Awaitable[Pending]],
        *,
        result: type[R],
        undo: RemoteUndo[I, R] | _NothingToUndo | None = None,
        name: str | None = None,
        timeout: float = 10.0,
        answer_within: float = 86_400.0,
        retry: StepRetry | None = None,
        undo_retry: StepRetry | None = None,
    ) -> Step[I, R]:
        """A step whose answer comes later. `action(context)` asks for it, hands `context.token` on, and returns `Pending()`;
        the answer comes through `Saga.complete` or `Saga.fail` with that token, within `answer_within` seconds, or the
        outcome is unknown. Nobody waits meanwhile: the saga takes no place in any process."""
        return Step(
            "asynchronous",
            action,
            undo,
            name=name,
            timeout=timeout,
            answer_within=answer_within,
            retry=retry,
            undo_retry=undo_retry,
            result=result,
        )

    def decode(self, result: str) -> R:
        """A result as the journal has it."""
        decoded: R = self._decoder.decode(result)
        return decoded

    def encode(self, result: object) -> str:
        """A result as the journal keeps it. Raises `InvalidInput` for what cannot be read back, `PayloadTooLarge` for too
        much."""
        try:
            encoded = msgspec.json.encode(result)
            self._decoder.decode(encoded)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInput(f"the result of step {self.name!r} cannot be kept as JSON: {error}") from error
        return keepable(encoded, f"the result of step {self.name!r}")


def keepable(encoded: bytes, what: str) -> str:
    """JSON that can be kept as a step's result; errors call it `what`. Raises `PayloadTooLarge` or `InvalidInput`."""
    if len(encoded) > RESULT_BYTES_MAX:
        raise PayloadTooLarge(
            f"{what} has {len(encoded)} bytes, the limit is {RESULT_BYTES_MAX}: return a reference to it",
            size_bytes=len(encoded),
            limit_bytes=RESULT_BYTES_MAX,
        )
    if b"\\u0000" in encoded:
        raise InvalidInput(f"{what} contains a NUL character, which databases cut or refuse")
    return encoded.decode()


def _returned(action: Callable[..., Any]) -> Any:
    """The type that an action says it returns; anything, if it does not say."""
    written = action if inspect.isroutine(action) else type(action).__call__
    try:
        hints = get_type_hints(written)
    except (NameError, TypeError):
        return Any
    return hints.get("return", Any)
