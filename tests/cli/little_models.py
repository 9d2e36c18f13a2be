"""Models that a user might bring, for `faultproof check`."""

from faultproof.prove.checkers.history import Call
from faultproof.prove.checkers.models import Illegal


class Highest:
    """`put` a number; `top` returns the highest so far."""

    initial = 0

    def step(self, state: int, call: Call) -> int | Illegal:
        if call.function == "put":
            assert isinstance(call.argument, int)
            return max(state, call.argument)
        return state if not call.answered or call.result == state else Illegal(f"top → {state}")


class Failing:
    """Has a bug."""

    initial = 0

    def step(self, state: int, call: Call) -> int:
        raise ZeroDivisionError("no model today")


class Slow:
    """Whose states never repeat, so that nothing is ever seen twice."""

    initial = ()

    def step(self, state: tuple[Call, ...], call: Call) -> tuple[Call, ...] | Illegal:
        return Illegal("never") if call.function == "never" else (*state, call)


HIGHEST, FAILING, SLOW = Highest(), Failing(), Slow()
NOTHING = object()
