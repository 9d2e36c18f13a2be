"""Whether a history is linearizable: every operation took effect at one moment between its call and its answer.

Each key is an object of its own, and a history is linearizable if and only if each object's part of it is (locality:
M. Herlihy & J. Wing, "Linearizability: a correctness condition for concurrent objects", 1990).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

from faultproof.errors import InvalidInput
from faultproof.prove.checkers.history import Call, History, Key, Operation, Tell
from faultproof.prove.checkers.models import Model
from faultproof.prove.checkers.search import Limits, Searched, Verdict, search
from faultproof.prove.checkers.shortest import Part, shortest_part

PART_S = 2.0
"""For making one contradiction small."""
_PARTS_MAX = 3


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What is known about one object."""

    key: Key
    operations: int
    unanswered: int
    verdict: Verdict
    configurations: int
    why: str
    """If unknown."""
    part: Part | None
    """If not linearizable, for the first few objects that are not."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What is known about a history. Of several objects the worst counts; a history without operations shows nothing."""

    objects: tuple[Judged, ...]

    @property
    def verdict(self) -> Verdict:
        verdicts = {each.verdict for each in self.objects}
        if Verdict.NOT_LINEARIZABLE in verdicts:
            return Verdict.NOT_LINEARIZABLE
        return Verdict.LINEARIZABLE if verdicts == {Verdict.LINEARIZABLE} else Verdict.UNKNOWN


def judge(
    history: History, model: Model[Hashable], limits: Limits | None = None, tell: Tell = lambda _: None
) -> Judgement:
    """Judge every object of the history.

    Takes at most `limits.seconds` for all of them, each being given an equal share of what is left, and `PART_S` for
    each of the first three contradictions. Memory is bounded for one object at a time.

    :raises InvalidInput: for operations that the model does not have.
    """
    limits = limits or Limits()
    by_key: dict[Key, list[Operation]] = {}
    for operation in history.operations:
        by_key.setdefault(operation.key, []).append(operation)
    _tried(model, {operation.call for operation in history.operations})
    end = limits.clock() + limits.seconds
    done, parts, before = list[Judged](), 0, 0
    for number, (key, operations) in enumerate(by_key.items()):
        share = max(end - limits.clock(), 0.0) / (len(by_key) - number)
        found = search(operations, model, replace(limits, seconds=share), _adding(before, tell))
        part = None
        if found.verdict is Verdict.NOT_LINEARIZABLE and parts < _PARTS_MAX:
            part = shortest_part(operations, model, found, replace(limits, seconds=PART_S))
            parts += 1
        done.append(_judged(key, operations, found, part))
        before += found.configurations
    return Judgement(objects=tuple(done))


def _adding(before: int, tell: Tell) -> Tell:
    return lambda new: tell(before + new)


def _tried(model: Model[Hashable], calls: set[Call]) -> None:
    """The model is asked about everything once, so that it can refuse what it does not know before anything is judged."""
    for call in sorted(calls, key=repr):
        state = model.step(model.initial, call)
        try:
            hash(state)
        except TypeError as error:
            raise InvalidInput(f"after {call} the model is in a state that cannot be hashed: {error}") from error


def _judged(key: Key, operations: list[Operation], found: Searched, part: Part | None) -> Judged:
    return Judged(
        key=key,
        operations=len(operations),
        unanswered=sum(each.returned is None for each in operations),
        verdict=found.verdict,
        configurations=found.configurations,
        why=found.why,
        part=part,
    )
