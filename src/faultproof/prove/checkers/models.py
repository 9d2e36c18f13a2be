"""Models: what one object may do, one operation at a time.

A model of your own is an object with the two members of `Model`; name it `pkg.module:NAME` on the command line. It must
depend on nothing but its arguments, and its states must be hashable and never change.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import NoReturn, Protocol, TypeVar

from faultproof.errors import InvalidInput
from faultproof.prove.checkers.history import Call
from faultproof.prove.checkers.values import Truth, shown

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Illegal:
    """The call cannot have had this result in this state."""

    expected: str
    """What the object would have said: "read → 3"."""


class Model(Protocol[S]):
    """A sequential object. `initial` is the state it begins in.

    It may also have `observes(call) -> bool`, true of calls that change no state whatsoever, like reads: many of them at
    once are then no work. Of any other call it would cost right verdicts.
    """

    @property
    def initial(self) -> S: ...

    def step(self, state: S, call: Call) -> S | Illegal:
        """The state after the call, or why it cannot have had its result here.

        A call that was not `answered` may have had any result. Raises `InvalidInput` for a call that makes no sense in
        any state; every call of a history is shown the initial state once, before anything is judged.
        """
        ...


@dataclass(frozen=True)
class Register:
    """`write` a value; `read` returns the last one written, or null before."""

    initial: Hashable = None

    def step(self, state: Hashable, call: Call) -> Hashable | Illegal:
        match call.function:
            case "write":
                return call.argument
            case "read":
                return _answer(state, call, state)
            case _:
                _unknown("register", "read, write", call)

    def observes(self, call: Call) -> bool:
        return call.function == "read"


@dataclass(frozen=True)
class CasRegister:
    """A register with `cas [old, new]`, which writes `new` where it finds `old`; it returns false where it does not."""

    initial: Hashable = None

    def step(self, state: Hashable, call: Call) -> Hashable | Illegal:
        match call:
            case Call(function="write"):
                return call.argument
            case Call(function="read"):
                return _answer(state, call, state)
            case Call(function="cas", argument=(old, new)):
                finds = old == state
                if call.answered and finds != (call.result is not Truth.FALSE):
                    return Illegal(f"cas {'done' if finds else 'refused'}, for the register holds {shown(state)}")
                return new if finds else state
            case Call(function="cas"):
                raise InvalidInput(f"the value of cas is [old, new], not {shown(call.argument)}")
            case _:
                _unknown("cas-register", "read, write, cas", call)

    def observes(self, call: Call) -> bool:
        return call.function == "read" or (call.function == "cas" and call.result is Truth.FALSE)


@dataclass(frozen=True)
class Counter:
    """`add` a whole number, which may be negative; `read` returns the sum."""

    initial: int = 0

    def step(self, state: int, call: Call) -> int | Illegal:
        match call.function:
            case "add":
                if not isinstance(call.argument, int):
                    raise InvalidInput(f"a counter adds whole numbers, not {shown(call.argument)}")
                return state + call.argument
            case "read":
                answer = _answer(state, call, state)
                return answer if isinstance(answer, Illegal) else state
            case _:
                _unknown("counter", "add, read", call)

    def observes(self, call: Call) -> bool:
        return call.function == "read"


@dataclass(frozen=True)
class Queue:
    """First in, first out: `enqueue` a value that is not null; `dequeue` returns the oldest, or null if there is none."""

    initial: tuple[Hashable, ...] = ()

    def step(self, state: tuple[Hashable, ...], call: Call) -> tuple[Hashable, ...] | Illegal:
        match call.function:
            case "enqueue":
                if call.argument is None:
                    raise InvalidInput("null cannot be put into a queue: it is what an empty one answers")
                return (*state, call.argument)
            case "dequeue":
                first = state[0] if state else None
                answer = _answer(first, call, first)
                return answer if isinstance(answer, Illegal) else state[1:]
            case _:
                _unknown("queue", "enqueue, dequeue", call)

    def observes(self, call: Call) -> bool:
        return call.function == "dequeue" and call.answered and call.result is None


@dataclass(frozen=True)
class Lock:
    """Held by one at a time: `acquire` and `release` with the holder as value, or null where nobody has a name.

    An `acquire` that was refused returns false. Only its holder releases a lock.
    """

    initial: tuple[Hashable, ...] = ()
    """Its holder, if there is one: one element, or none."""

    def step(self, state: tuple[Hashable, ...], call: Call) -> tuple[Hashable, ...] | Illegal:
        holder = f"the lock is {_held_by(state[0]) if state else 'free'}"
        match call.function:
            case "acquire":
                possible = not state
                if call.answered and possible != (call.result is not Truth.FALSE):
                    return Illegal(f"acquire {'granted' if possible else 'refused'}, for {holder}")
                return (call.argument,) if possible else state
            case "release":
                possible = state == (call.argument,)
                if call.answered and possible != (call.result is not Truth.FALSE):
                    return Illegal(f"release {'done' if possible else 'refused'}, for {holder}")
                return () if possible else state
            case _:
                _unknown("lock", "acquire, release", call)

    def observes(self, call: Call) -> bool:
        return call.result is Truth.FALSE


def _held_by(holder: Hashable) -> str:
    return "held" if holder is None else f"held by {shown(holder)}"


def _answer(right: Hashable, call: Call, state: S) -> S | Illegal:
    """The unchanged state, if the call returned what is right, or nobody knows."""
    if call.answered and call.result != right:
        return Illegal(f"{call.function} → {shown(right)}")
    return state


def _unknown(model: str, known: str, call: Call) -> NoReturn:
    raise InvalidInput(f"a {model} has {known}, not {call.function!r}")
