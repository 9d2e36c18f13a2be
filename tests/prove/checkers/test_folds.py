"""Each fold on rows that are right, and on rows that are wrong in each way it knows."""

from faultproof.prove.checkers.folds import (
    SENTENCES_MAX,
    Mark,
    Published,
    SagaStep,
    Stock,
    after_every_commit,
    all_done_or_all_undone,
    at_most_one_in_flight,
    stock_adds_up,
    stream_is_what_was_committed,
    together,
)

A1, A2, B1 = Published("a", 1), Published("a", 2), Published("b", 1)


def test_stream_with_what_was_committed_is_right_in_any_order_between_keys() -> None:
    assert stream_is_what_was_committed([A1, B1, A2], [B1, A1, A2]) == []
    assert stream_is_what_was_committed([], []) == []
    assert stream_is_what_was_committed([A1, A1], [A1, A1]) == []


def test_stream_that_lost_repeated_invented_or_reordered_is_wrong() -> None:
    assert stream_is_what_was_committed([A1, A2, B1], [A1, B1, B1, Published("c", 9)]) == [
        "2 of key 'a' was committed and is not in the stream",
        "1 of key 'b' is in the stream 2 times, not 1",
        "9 of key 'c' is in the stream and was never committed",
    ]
    assert stream_is_what_was_committed([A1, B1, A2], [A2, B1, A1]) == [
        "events of key 'a' were committed as [1, 2] and streamed as [2, 1]"
    ]


def test_stock_that_adds_up_after_every_commit() -> None:
    right = Stock(item="tea", total=3, available=1, reserved=1, sold=1)
    judged = after_every_commit(stock_adds_up)
    assert judged([[right], [right._replace(available=0, sold=2)]]) == []
    assert judged([[right], [right._replace(available=0)], [right]]) == [
        "after commit 2: 'tea': 1 reserved + 1 sold + 0 available is 2, and there are 3"
    ]
    assert stock_adds_up([right._replace(available=-1, sold=3)]) == [
        "'tea': less than none: 1 reserved + 3 sold + -1 available"
    ]


def test_saga_is_all_done_or_all_undone() -> None:
    done, undone, none = SagaStep("s", "pay", "done"), SagaStep("s", "ship", "undone"), SagaStep("s", "mail", "none")
    assert all_done_or_all_undone([done, done._replace(step="ship")]) == []
    assert all_done_or_all_undone([undone, none]) == []
    assert all_done_or_all_undone([none, done._replace(saga="other")]) == []
    assert all_done_or_all_undone([done, undone]) == ["'s' is half done: 'pay' is done, and 'ship' is not"]
    assert all_done_or_all_undone([done, done._replace(step="hold"), undone, none]) == [
        "'s' is half done: 'pay' and 'hold' are done, and 'mail' and 'ship' are not"
    ]


def marks(text: str) -> list[Mark]:
    return [Mark(*each.split()) for each in text.split(",")]  # type: ignore[arg-type]


def test_at_most_one_is_in_flight_for_each_key() -> None:
    assert at_most_one_in_flight(marks("k a began,l b began,k a ended,k b began,k b ended,l b ended")) == []
    assert at_most_one_in_flight(marks("k a began,k b began")) == ["mark 2: 'b' began 'k' while 'a' was at it"]
    assert at_most_one_in_flight(marks("k a began,k a began")) == ["mark 2: 'a' began 'k' while 'a' was at it"]
    assert at_most_one_in_flight(marks("k a began,k b ended,k a ended,k a ended")) == [
        "mark 2: 'b' ended 'k', and 'a' was at it",
        "mark 4: 'a' ended 'k', and nobody was at it",
    ]


def test_the_dead_are_at_nothing() -> None:
    assert at_most_one_in_flight(marks("k a began,l b began,- a died,k b began")) == []
    assert at_most_one_in_flight(marks("k a began,- b died,k b began")) == ["mark 3: 'b' began 'k' while 'a' was at it"]


def test_folds_are_put_together_and_say_only_so_much() -> None:
    judged = together(stock_adds_up, lambda stocks: [f"{len(stocks)} items"])
    wrong = [Stock(item=str(number), total=1, available=0, reserved=0, sold=0) for number in range(50)]
    sentences = judged(wrong)
    assert len(sentences) == SENTENCES_MAX
    assert sentences[0] == "'0': 0 reserved + 0 sold + 0 available is 0, and there are 1"
    assert sentences[-1] == "and 2 more"
    assert len(stock_adds_up(wrong)) == SENTENCES_MAX
    assert judged(wrong[:1])[-1] == "1 items"
