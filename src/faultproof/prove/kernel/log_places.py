"""Where each event is, and where it must be: in the intake or at one place of the log, which is its place for ever."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from faultproof.ports.log import Cursor, Record, Span
from faultproof.prove.proof import Evidence, noted

TABLES = (
    "CREATE TABLE item (name TEXT, version BIGINT)",
    "CREATE TABLE written (event TEXT PRIMARY KEY, item TEXT, version BIGINT)",
    'CREATE TABLE moved ("partition" BIGINT, n BIGINT, token BIGINT)',
    'CREATE TABLE reading ("partition" BIGINT PRIMARY KEY, next_offset BIGINT)',
    'CREATE TABLE seen (n BIGINT, "partition" BIGINT, "offset" BIGINT, event TEXT)',
)


def done(evidence: Evidence, writers: set[str]) -> bool:
    """All is written, nothing waits in the intake, the reader has come to the end, and each partition is trimmed."""
    if noted(evidence, "written") < writers:
        return False
    return not evidence.fetch(
        """SELECT 1 FROM faultproof_intake UNION ALL
           SELECT 1 FROM faultproof_log_partition p JOIN reading r ON r."partition" = p."partition"
           WHERE r.next_offset < p.next_offset OR p.first_offset = 0 LIMIT 1"""
    )


def wrong_places(evidence: Evidence) -> list[str]:
    """At every moment: what is committed is in one place, offsets are dense, and the reader has seen them in order."""
    log = evidence.fetch('SELECT "partition", "offset", event_id FROM faultproof_log ORDER BY "partition", "offset"')
    seen = evidence.fetch('SELECT "partition", "offset", event FROM seen ORDER BY n')
    wrong, trimmed = list[str](), list[str]()
    for partition, first, next in evidence.fetch(
        'SELECT "partition", first_offset, next_offset FROM faultproof_log_partition ORDER BY "partition"'
    ):
        kept = {offset: event for at, offset, event in log if at == partition}
        read = [(offset, event) for at, offset, event in seen if at == partition]
        if list(kept) != list(range(first, next)):
            wrong.append(f"partition {partition} has the offsets {list(kept)}, not {first} to {next - 1}")
        if [offset for offset, _ in read] != list(range(len(read))):
            wrong.append(f"in partition {partition} the reader saw the offsets {[offset for offset, _ in read]}")
        wrong += [
            f"offset {n} of partition {partition} was {was}, and is {kept[n]}"
            for n, was in read
            if kept.get(n, was) != was
        ]
        trimmed += [event for offset, event in read if offset < first]
    intake = [event for (event,) in evidence.fetch("SELECT event_id FROM faultproof_intake")]
    there = Counter([*intake, *(event for _, _, event in log), *trimmed])
    committed = Counter([event for (event,) in evidence.fetch("SELECT event FROM written")])
    if there != committed:
        missing, more = sorted((committed - there).elements()), sorted((there - committed).elements())
        wrong.append(
            f"committed and not there, or not any more: {missing}; there too often, or never committed: {more}"
        )
    return wrong


def wrong_order(evidence: Evidence) -> list[str]:
    """At the end: everything was seen, and each item's events follow the versions of its row."""
    versions = defaultdict[str, list[int]](list)
    for item, version in evidence.fetch(
        'SELECT w.item, w.version FROM seen s JOIN written w ON w.event = s.event ORDER BY s."partition", s."offset", s.n'
    ):
        versions[item].append(version)
    last = dict(evidence.fetch("SELECT name, version FROM item"))
    return [
        f"the events of {item} were seen with the versions {versions[item]}, not 1 to {last[item]}"
        for item in sorted(last)
        if versions[item] != list(range(1, last[item] + 1))
    ]


def broken_words(evidence: Evidence) -> list[str]:
    """At every moment: what a process was told to be written, moved, seen or trimmed is."""
    there: dict[str, set[Any]] = {
        "wrote": {event.rpartition("/")[0] for (event,) in evidence.fetch("SELECT event FROM written")},
        "moved": {f"{at}/{token}" for at, token in evidence.fetch('SELECT "partition", token FROM moved')},
        "seen": {event for (event,) in evidence.fetch("SELECT event FROM seen")},
        "trimmed": {
            f"{at}/{offset}"
            for at, first in evidence.fetch('SELECT "partition", first_offset FROM faultproof_log_partition')
            for offset in range(first + 1)
        },
    }
    seen = Counter(fact for kind, *facts in evidence.notes if kind == "seen" for fact in facts)
    return [f"{event} was seen {count} times" for event, count in seen.items() if count > 1] + [
        f"{what!r} was said of {fact}" for what in there for fact in sorted(noted(evidence, what) - there[what])
    ]


def misled(evidence: Evidence) -> list[str]:
    """What the log has answered to somebody, and was not so."""
    return sorted(noted(evidence, "misled"))


def first_kept(span: Span, records: Sequence[Record], upto: Sequence[Cursor], *, young_us: int, limit: int) -> int:
    """Where a partition begins that was so before it was trimmed, if events from after `young_us` are kept."""
    cursor = next((each.offset for each in upto if each.partition == span.partition), 0)
    end = min(cursor, span.first + limit, span.next)
    kept = (each for each in records if each.partition == span.partition and each.at_us > young_us)
    return min((each.offset for each in kept if each.offset < end), default=max(span.first, end))


def wrong_tokens(evidence: Evidence) -> list[str]:
    """Nobody moves anything after somebody with a later token."""
    tokens = defaultdict[int, list[int]](list)
    for partition, token in evidence.fetch('SELECT "partition", token FROM moved ORDER BY "partition", n'):
        tokens[partition].append(token)
    return [
        f"into partition {at} events were moved with tokens {found}"
        for at, found in tokens.items()
        if found != sorted(found)
    ]
