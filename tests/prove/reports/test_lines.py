"""A violation in a few lines: where it was struck, what was done, what was expected and seen."""

from dataclasses import replace

from faultproof.prove.reports.lines import expected_and_seen, named, operations, struck
from faultproof.prove.story import USER_SQL, Asked, Judged, what_matters
from tests.prove.reports.stories import crashed


def test_crash_point_is_told_by_statement_and_source_line():
    story = crashed()
    told = replace(story, events=[replace(event, statements=story.events[2].statements) for event in story.events])
    assert struck(told) == [
        (
            "crash after writer in till.0 (transaction book: book)",
            "src/till.py:12 in Till.book: await db.transact(book())",
        )
    ]


def test_operations_that_matter_are_what_was_interrupted_and_what_followed():
    assert operations(crashed(), 4) == [
        "0.000 s  till.0  src/till.py:12  transaction book: book; committed",
        "0.000 s  till.0  *** crash after transaction book",
        "0.020 s  till.1  src/till.py:12  transaction book: book; committed",
        "0.020 s  till.1  src/till.py:12  tells the outside: receipt ('i-1',)",
    ]


def test_what_does_again_what_was_interrupted_is_told_before_what_merely_followed():
    story = crashed()
    elsewhere = replace(story.events[7], what="transaction renew", site=None)
    told = replace(story, events=[*story.events[:7], *[elsewhere] * 5, *story.events[7:]])
    assert [line.split("  ")[-1] for line in operations(told, 4)] == [
        "transaction book: book; committed",
        "*** crash after transaction book",
        "transaction renew: book; committed",
        "transaction book: book; committed",
    ]


def test_the_fault_is_the_last_thing_to_be_left_out():
    assert operations(crashed(), 1) == ["0.000 s  till.0  *** crash after transaction book"]
    assert operations(crashed(), 0) == []
    assert what_matters(replace(crashed(), events=[]), 5) == []


def test_expected_is_the_claim_and_seen_what_was_there():
    assert list(expected_and_seen(crashed())) == [("it is booked once", ("it is booked twice",))]


def test_what_was_broken_in_between_names_the_operation_that_broke_it():
    broken = Judged(kind="always", claim="never twice", wrong=("twice",), event=7)
    (told,) = expected_and_seen(replace(crashed(), judged=[broken]))
    assert told[0] == "never twice (until 0.020 s  till.1  src/till.py:12  transaction book: book; committed)"
    # Of a run that was cut short the event may be one of those left out.
    (told,) = expected_and_seen(replace(crashed(), judged=[replace(broken, event=99)]))
    assert told[0] == "never twice"


def test_statements_are_counted_and_cut_and_those_without_a_name_quoted():
    def asked(name: str, text: str = "") -> Asked:
        return Asked(name=name, text=text, values="", answer="", site=None)

    assert named([asked("a.b._add"), asked("a.b._add"), asked("c._look")]) == "add ×2, look"
    assert named([asked(f"x.s{n}") for n in range(6)]) == "s0, s1, s2, s3 …"
    assert named([asked(USER_SQL, "INSERT INTO orders.now (id) VALUES (?)")]) == "INSERT INTO orders.now"
