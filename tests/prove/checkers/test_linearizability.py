"""The search against every permutation, on thousands of small histories, and against histories written by hand."""

from collections.abc import Callable
from itertools import count
from random import Random

import pytest

from faultproof.errors import InvalidInput
from faultproof.prove.checkers import plan
from faultproof.prove.checkers.history import Call, Operation, paired
from faultproof.prove.checkers.linearizability import judge
from faultproof.prove.checkers.models import Model, Register
from faultproof.prove.checkers.search import Limits, Verdict, search
from tests.prove.checkers.corpus import BAD, GOOD
from tests.prove.checkers.histories import (
    KINDS,
    PATIENT,
    Kind,
    events,
    explains,
    history,
    possible,
    possible_for,
    random_history,
)

RIGHT = {True: Verdict.LINEARIZABLE, False: Verdict.NOT_LINEARIZABLE}
HISTORIES = 600


def small_histories(kind: Kind, many: int, operations: int, lost: float = 0.1) -> list[tuple[Operation, ...]]:
    return [random_history(kind, Random(seed), operations, lost).operations for seed in range(many)]


def agree(kind: Kind, many: int, operations: int, judged: Callable[..., bool], *, lost: float = 0.1) -> None:
    verdicts = []
    for each in small_histories(kind, many, operations, lost):
        found = search(each, kind.model)
        assert found.verdict is RIGHT[judged(each, kind.model)], [str(operation) for operation in each]
        verdicts.append(found.verdict)
        if found.verdict is Verdict.LINEARIZABLE:
            order = [each[number] for number in found.order]
            assert explains(order, kind.model, kind.model.initial)
            assert {operation for operation in each if operation.returned is not None} <= set(order)
    # Neither half is so small that the agreement would say little.
    assert min(verdicts.count(verdict) for verdict in RIGHT.values()) > many / 20


@pytest.mark.parametrize("name", KINDS)
def test_verdicts_are_those_of_trying_every_order(name: str) -> None:
    agree(KINDS[name], HISTORIES, 5, possible)


@pytest.mark.parametrize("name", KINDS)
def test_verdicts_on_longer_histories_are_those_of_the_plainest_search(name: str) -> None:
    """Found, with seven operations and more: a write of the value that is there was taken for a read."""
    agree(KINDS[name], 100, 10, possible_for)
    agree(KINDS[name], 150, 14, possible_for, lost=0.25)


@pytest.mark.soak
@pytest.mark.parametrize("name", KINDS)
def test_verdicts_on_many_more_histories(name: str) -> None:
    agree(KINDS[name], 2_000, 6, possible)
    agree(KINDS[name], 10_000, 12, possible_for)
    agree(KINDS[name], 10_000, 16, possible_for, lost=0.25)


@pytest.mark.parametrize("name", KINDS)
def test_without_time_or_memory_the_verdict_is_unknown_or_right(name: str) -> None:
    kind = KINDS[name]
    unknown = {"memory": 0, "time": 0}
    for seed, each in enumerate(small_histories(kind, 150, 8)):
        right = search(each, kind.model).verdict
        ticks = count()
        boxes = {
            "memory": Limits(configurations=1 + seed % 8),
            "time": Limits(seconds=1 + seed % 2, clock=lambda ticks=ticks: next(ticks)),
        }
        for box, limits in boxes.items():
            found = search(each, kind.model, limits)
            assert found.verdict in (right, Verdict.UNKNOWN)
            assert bool(found.why) == (found.verdict is Verdict.UNKNOWN)
            unknown[box] += found.verdict is Verdict.UNKNOWN
    assert min(unknown.values()) > 0
    assert max(unknown.values()) < 150


def test_time_ends_a_search_that_would_take_for_ever() -> None:
    """Twenty-four writes at once, and a read of what none of them wrote."""
    calls = " | ".join(f"p{number} write {number}" for number in range(24))
    answers = " | ".join(f"p{number} ok" for number in range(24))
    made = history(f"{calls} | {answers} | r read | r ok 99").operations
    now = count(0, 0.5)
    found = search(made, Register(), Limits(seconds=2, clock=lambda: next(now)))
    assert (found.verdict, found.why) == (Verdict.UNKNOWN, "after 2 s")
    found = search(made, Register(), Limits(configurations=1_000))
    assert (found.verdict, found.why) == (Verdict.UNKNOWN, "after 1,000 configurations")


def test_states_that_grow_end_a_search() -> None:
    made = history(" | ".join(f"a enqueue {number} | a ok" for number in range(400)) + " | b dequeue | b ok 5")
    found = search(made.operations, KINDS["queue"].model, Limits(state_bytes=20_000))
    assert found.verdict is Verdict.UNKNOWN
    assert "states of the model" in found.why


def test_more_open_calls_than_there_is_memory_for_end_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_SLOTS_MAX", 5)
    found = search(history("a read | b read | a ok null | c read | b ok null | c ok null").operations, Register())
    assert found.verdict is Verdict.LINEARIZABLE
    found = search(history("a read | b read | c read | a ok null | b ok null | c ok null").operations, Register())
    assert (found.verdict, found.why) == (Verdict.UNKNOWN, "too many operations are open at once")


def test_what_was_expected_is_what_any_order_leads_to() -> None:
    made = history("a write 1 | b write 2 | c read | c ok 1 | a ok | b ok | d read | d ok 7")
    assert set(search(made.operations, Register()).expected) == {"read → 1", "read → 2"}


def test_unanswered_calls_that_are_alike_cost_little() -> None:
    """Sixty writes nobody knows about, of three values: tried one by one they would be 2 to the 60."""
    lost = " | ".join(f"l{number} write {number % 3} | l{number} info" for number in range(60))
    reads = " | ".join(f"r read | r ok {value}" for value in [0, 1, 2] * 20)
    found = search(history(f"{lost} | {reads}").operations, Register())
    assert found.verdict is Verdict.LINEARIZABLE
    found = search(history(f"{lost} | {reads} | r read | r ok 0").operations, Register())
    assert found.verdict is Verdict.NOT_LINEARIZABLE
    assert found.configurations < 1_000


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in GOOD.items() for text in texts])
def test_good_history_is_linearizable(name: str, text: str) -> None:
    made = history(text)
    assert possible(made.operations, KINDS[name].model)
    assert judge(made, KINDS[name].model).verdict is Verdict.LINEARIZABLE


@pytest.mark.parametrize(
    ("name", "bug"),
    [(name, bug) for name, bugs in BAD.items() for bug in bugs],
    ids=lambda each: each.replace(" ", "-"),
)
def test_classic_bug_is_not_linearizable_and_is_shown_in_words(name: str, bug: str) -> None:
    text, *shown, expected = BAD[name][bug]
    made = history(text)
    assert not possible(made.operations, KINDS[name].model)
    judgement = judge(made, KINDS[name].model, PATIENT)
    assert judgement.verdict is Verdict.NOT_LINEARIZABLE
    part = judgement.objects[0].part
    assert part is not None
    assert [str(each.call) for each in part.operations] == shown
    assert part.expected == (expected,)
    assert part.is_minimal


def test_call_that_was_never_answered_may_have_happened_at_any_later_time_or_never() -> None:
    model = Register()
    lost = "a write 1 | a info | b read | b ok null | b read | b ok {} | b read | b ok {}"
    for first, then, right in ((1, 1, True), ("null", "null", True), ("null", 1, True), (1, "null", False)):
        for text in (lost, lost.replace("| a info ", "")):  # a process that died says nothing
            assert judge(history(text.format(first, then)), model).verdict is RIGHT[right]


def test_call_that_failed_never_happens() -> None:
    assert judge(history("a write 1 | a fail | b read | b ok null"), Register()).verdict is Verdict.LINEARIZABLE
    assert judge(history("a write 1 | a fail | b read | b ok 1"), Register()).verdict is Verdict.NOT_LINEARIZABLE


def test_keys_are_objects_of_their_own_and_the_worst_decides() -> None:
    def keyed(text: str, key: str) -> list[object]:
        return [
            type(each)(**{**{f: getattr(each, f) for f in each.__struct_fields__}, "key": key}) for each in events(text)
        ]

    good, bad = "a write 1 | a ok | a read | a ok 1", "a write 1 | a ok | a read | a ok 2"
    made = paired(enumerate([*keyed(good, "x"), *keyed(bad, "y"), *keyed(good, "z")], start=1))  # type: ignore[list-item]
    judgement = judge(made, Register())
    assert judgement.verdict is Verdict.NOT_LINEARIZABLE
    assert [(each.key, each.verdict is Verdict.LINEARIZABLE) for each in judgement.objects] == [
        ("x", True),
        ("y", False),
        ("z", True),
    ]
    same = paired(enumerate([*keyed(good, "x"), *keyed("b read | b ok 1", "y")], start=1))  # type: ignore[list-item]
    assert judge(same, Register()).verdict is Verdict.NOT_LINEARIZABLE
    # A contradiction in one is a contradiction, whatever the others would have come to.
    assert judge(made, Register(), Limits(configurations=1)).verdict is not Verdict.LINEARIZABLE


def test_nothing_to_judge_shows_nothing() -> None:
    assert judge(paired([]), Register()).verdict is Verdict.UNKNOWN


def test_true_is_not_one() -> None:
    """To Python they are equal, and a register that holds 1 would answer a read of true."""
    for value in ("true", "[true]", '{"a": true}'):
        lie = f"a write {value.replace('true', '1')} | a ok | a read | a ok {value}"
        assert judge(history(lie), Register()).verdict is Verdict.NOT_LINEARIZABLE
        assert judge(history(lie.replace("1", "true")), Register()).verdict is Verdict.LINEARIZABLE
    assert judge(history("a write 1 | a ok | a read | a ok 1.0"), Register()).verdict is Verdict.LINEARIZABLE


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("register", "a cas [1,2] | a ok", "a register has read, write, not 'cas'"),
        ("cas-register", "a cas 1 | a ok", "the value of cas is [old, new], not 1"),
        ("counter", 'a add "1" | a info', 'a counter adds whole numbers, not "1"'),
        ("counter", "a add true | a ok", "a counter adds whole numbers, not true"),
        ("queue", "a enqueue null | a ok", "null cannot be put into a queue: it is what an empty one answers"),
        ("lock", "a lock | a ok", "a lock has acquire, release, not 'lock'"),
    ],
)
def test_call_that_the_model_does_not_have_is_refused(name: str, text: str, sentence: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        judge(history(text), KINDS[name].model)
    assert str(refused.value) == sentence


class Forgetful(Register):
    """A model that takes its writes for reads."""

    def observes(self, call: Call) -> bool:
        return True


def test_model_that_says_wrongly_that_a_call_only_observes_is_refused() -> None:
    with pytest.raises(InvalidInput, match="the model says that write 1 only observes, and it changes a state"):
        judge(history("a write 1 | a ok"), Forgetful())


class Growing:
    """A model of a user's whose states are no values."""

    initial = 0

    def step(self, state: object, call: object) -> list[object]:
        return [state, call]


def test_model_with_states_that_are_no_values_is_refused() -> None:
    unhashable: Model[int] = Growing()  # type: ignore[assignment]
    with pytest.raises(InvalidInput, match="cannot be hashed"):
        judge(history("a write 1 | a ok"), unhashable)
