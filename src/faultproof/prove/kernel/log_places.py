"""Where each event is, and where it must be: in the intake or at one place of the log, which is its place for ever."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

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


class Places(NamedTuple):
    """What is committed at one moment."""

    intake: list[str]
    log: list[tuple[int, int, str]]
    """Partition, offset and event, in this order."""
    partitions: list[tuple[int, int, int]]
    """With their first offset and the next one."""
    written: list[str]
    moved: list[tuple[int, int]]
    """Partition and token."""
    seen: list[tuple[int, int, str]]
    """Partition, offset and event, as the reader saw one after the other."""


_EVERYTHING = """
    SELECT 'log' AS place, "partition" AS a, "offset" AS b, 0 AS c, event_id AS event FROM faultproof_log
    UNION ALL SELECT 'intake', 0, 0, 0, event_id FROM faultproof_intake
    UNION ALL SELECT 'partition', "partition", first_offset, next_offset, '' FROM faultproof_log_partition
    UNION ALL SELECT 'written', 0, 0, 0, event FROM written
    UNION ALL SELECT 'moved', "partition", token, 0, '' FROM moved
    UNION ALL SELECT 'seen', n, "partition", "offset", event FROM seen"""
"""One query: it is asked after every commit."""


def wrong_at_any_moment(evidence: Evidence) -> list[str]:
    """What is committed is in one place, offsets are dense, and what somebody was told is so."""
    found = defaultdict[str, list[tuple[Any, ...]]](list)
    for place, *row in evidence.fetch(_EVERYTHING):
        found[place].append(tuple(row))
    there = Places(
        intake=[event for *_, event in found["intake"]],
        log=sorted((at, offset, event) for at, offset, _, event in found["log"]),
        partitions=sorted((at, first, next) for at, first, next, _ in found["partition"]),
        written=[event for *_, event in found["written"]],
        moved=[(at, token) for at, token, *_ in found["moved"]],
        seen=[(at, offset, event) for _, at, offset, event in sorted(found["seen"])],
    )
    return wrong_places(there) + broken_words(there, evidence.notes)


def wrong_places(there: Places) -> list[str]:
    """What is committed is in one place, offsets are dense, and the reader has seen them in order."""
    wrong, trimmed = list[str](), list[str]()
    for partition, first, next in there.partitions:
        kept = {offset: event for at, offset, event in there.log if at == partition}
        read = [(offset, event) for at, offset, event in there.seen if at == partition]
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
    events = sorted([*there.intake, *(event for _, _, event in there.log), *trimmed])
    if events != sorted(there.written):
        found, committed = Counter(events), Counter(there.written)
        missing, more = sorted((committed - found).elements()), sorted((found - committed).elements())
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


def broken_words(there: Places, notes: Iterable[tuple[Any, ...]]) -> list[str]:
    """What a process was told to be written, moved, seen or trimmed is."""
    said = defaultdict[str, list[str]](list)
    for what, fact, *_ in notes:
        said[what].append(fact)
    true: dict[str, set[str]] = {
        "wrote": {event.rpartition("/")[0] for event in there.written},
        "moved": {f"{at}/{token}" for at, token in there.moved},
        "seen": {event for _, _, event in there.seen},
        "trimmed": {f"{at}/{offset}" for at, first, _ in there.partitions for offset in range(first + 1)},
    }
    return [f"{event} was seen {count} times" for event, count in Counter(said["seen"]).items() if count > 1] + [
        f"{what!r} was said of {fact}" for what in true for fact in sorted(set(said[what]) - true[what])
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
