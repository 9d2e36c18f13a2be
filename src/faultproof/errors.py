"""Every error faultproof raises, arranged by what the caller can do about it.

::

    FaultproofError
    ├── TryAgain                  nothing happened; the same call may succeed later
    │   ├── Busy                  another connection or caller holds the lock
    │   ├── Overloaded            a bound was reached; `retry_after` says when to come back
    │   ├── InProgress            the first call with this idempotency key is still running
    │   └── DeadlineExceeded      time ran out before anything was done
    ├── Failed                    it did not happen, and repeating the call will not change that
    │   ├── ConstraintViolated    the database's own rules refused it
    │   ├── LeaseLost             somebody else holds the claim now; the work goes on there
    │   ├── Superseded            a later request of this session was taken: this one never will be
    │   ├── RetriesExhausted      the policy's attempts or budget are used up; `__cause__` is the last error
    │   ├── InsufficientStock     fewer are available than were asked for
    │   ├── HoldEnded             the hold is over: `state` says how
    │   │   └── HoldExpired       its time ran out, and its stock is available again
    │   └── EventsTrimmed         retention has removed what the reader asked for
    ├── OutcomeUnknown            it may or may not have happened: ask again with the same key
    ├── Misuse                    fix the call
    │   ├── InvalidInput          a value is not acceptable
    │   │   ├── PayloadTooLarge
    │   │   ├── UnknownEventType
    │   │   ├── UnknownItem       no such item in this escrow
    │   │   └── UnknownHold       no such hold in this escrow
    │   ├── Duplicate             this idempotency key was used before, and the caller asked to be told
    │   ├── KeyReused             this idempotency key was used before with other content
    │   ├── TransactionOpen       a bare call inside an open transaction: pass `tx=`
    │   ├── NoTransaction         outside a transaction: our statement would be committed by itself
    │   ├── Closed                the database or handle has been closed
    │   ├── UsedAfterFork         close before the fork and connect after it, or spawn
    │   ├── NotSupported          this engine does not offer that
    │   └── MissingExtra          an optional dependency is not installed
    └── Repair                    the data or the machine needs attention first
        ├── CannotOpen            no such directory, no permission, read-only
        ├── NotADatabase          the file is something else, or damaged
        ├── DiskFull
        ├── StorageFailed         the operating system reported an I/O error
        └── SchemaMismatch        tables or a log missing, or not as this process expects them

`Failed` and `OutcomeUnknown` never share a subclass: code that handles one must not catch the other by accident.
"""

from __future__ import annotations


class FaultproofError(Exception):
    """The root. The message is one sentence that says what happened and what to do."""


class TryAgain(FaultproofError):
    """Nothing happened; the same call may succeed later."""

    retry_after: float | None
    """Seconds after which another attempt makes sense, where that is known."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Busy(TryAgain):
    """Another connection or caller holds the lock."""


class Overloaded(TryAgain):
    """A bound was reached and the call was shed instead of queued."""


class InProgress(TryAgain):
    """The first call with this idempotency key is still running."""


class DeadlineExceeded(TryAgain):
    """Time ran out before anything was done."""


class Failed(FaultproofError):
    """It did not happen, and repeating the call will not change that."""


class ConstraintViolated(Failed):
    """The database's own rules refused it."""


class LeaseLost(Failed):
    """Somebody else holds the claim now, or may: the holder must stop."""


class Superseded(Failed):
    """A later request of this session has been taken, so this one never will be."""


class RetriesExhausted(Failed):
    """The policy's attempts or its budget are used up; `__cause__` is the last error."""

    attempts: int

    def __init__(self, message: str, *, attempts: int) -> None:
        super().__init__(message)
        self.attempts = attempts


class EventsTrimmed(Failed):
    """Retention has removed what the reader asked for."""


class InsufficientStock(Failed):
    """Fewer are available than were asked for; nothing was held. What others hold may come back."""

    item: str
    wanted: int
    available: int
    reserved: int
    """In holds of others."""

    def __init__(self, message: str, *, item: str, wanted: int, available: int, reserved: int) -> None:
        super().__init__(message)
        self.item = item
        self.wanted = wanted
        self.available = available
        self.reserved = reserved


class HoldEnded(Failed):
    """The hold is over: `state` says how ("confirmed", "released", "expired"). It stays as it is."""

    key: str
    state: str

    def __init__(self, message: str, *, key: str, state: str) -> None:
        super().__init__(message)
        self.key = key
        self.state = state


class HoldExpired(HoldEnded):
    """Its time ran out, and what it held is available again."""


class OutcomeUnknown(FaultproofError):
    """It may or may not have happened. Ask again with the same idempotency key; do not guess."""


class Misuse(FaultproofError):
    """Fix the call."""


class InvalidInput(Misuse):
    """A value is not acceptable; nothing was done with it."""


class PayloadTooLarge(InvalidInput):
    """An encoded value exceeds its limit."""

    size_bytes: int
    limit_bytes: int

    def __init__(self, message: str, *, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(message)
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class UnknownEventType(InvalidInput):
    """An event's type, or a stored type name, is not registered."""


class UnknownItem(InvalidInput):
    """No such item in this escrow."""


class UnknownHold(InvalidInput):
    """No such hold in this escrow, or it was over for so long that it has been forgotten."""


class Duplicate(Misuse):
    """This idempotency key was used before, and the caller asked to be told; `answer` is the first answer."""

    answer: object

    def __init__(self, message: str, *, answer: object = None) -> None:
        super().__init__(message)
        self.answer = answer


class KeyReused(Misuse):
    """This idempotency key was used before with other content."""


class TransactionOpen(Misuse):
    """A bare call inside an open transaction: it would wait for itself. Pass `tx=`."""


class NoTransaction(Misuse):
    """A joined handle is outside a transaction, or an open one was ended from inside: our statement would commit alone."""


class Closed(Misuse):
    """The database or handle has been closed."""


class UsedAfterFork(Misuse):
    """The object was made before a fork and used after it: close before the fork, or spawn."""


class NotSupported(Misuse):
    """This engine does not offer that."""


class MissingExtra(Misuse):
    """An optional dependency is not installed; the message names the extra."""


class Repair(FaultproofError):
    """The data or the machine needs attention before any call can succeed."""


class CannotOpen(Repair):
    """No such directory, no permission, or read-only."""


class NotADatabase(Repair):
    """The file is something else, or damaged."""


class DiskFull(Repair):
    """The disk or quota is full; what was committed is safe."""


class StorageFailed(Repair):
    """The operating system reported an I/O error."""


class SchemaMismatch(Repair):
    """Tables or a log are missing, or not as this process expects them: another version, other partitions."""
