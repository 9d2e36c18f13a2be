"""Sequenced logs: dense offsets in the order of the intake, nothing skipped, nothing twice, holes nowhere."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterable

import pytest

from faultproof.errors import EventsTrimmed, InvalidInput, SchemaMismatch
from faultproof.ports.database import Database
from faultproof.ports.log import Cursor, Entry, Intake, Ready, Record, Span
from tests.conformance.engines import WAIT_S, Engine
from tests.moving import moving

pytestmark = pytest.mark.anyio

MINUTE_US = 60_000_000
LOG = "orders"


class ChangedMind(Exception):
    """What a user's code raises in the middle of a transaction."""


@pytest.fixture
async def log(db: Database) -> Database:
    """A `Database` that has the log, with three partitions."""
    await db.transact(db.logs.create(LOG, partitions=3, epoch="first"))
    return db


def entry(id: str, *, partition: int = 0, key: str | None = None, delay_us: int = 0, payload: str = "{}") -> Entry:
    return Entry(partition, id, key, "Happened", payload, None, delay_us)


async def append(db: Database, *entries: Entry, log: str = LOG, partitions: int = 3) -> None:
    await db.transact(db.logs.append(log, entries, partitions=partitions))


async def sequence(db: Database, *partitions: int, limit: int = 1_000) -> int:
    return await db.transact(moving(db.logs, LOG, partitions or (0, 1, 2), limit=limit))


async def read(db: Database, *cursors: tuple[int, int], limit: int = 1_000) -> list[Record]:
    wanted = [Cursor(*cursor) for cursor in cursors or ((0, 0), (1, 0), (2, 0))]
    return await db.read(db.logs.read(LOG, wanted, limit=limit))


def places(records: Iterable[Record]) -> list[tuple[int, int, str]]:
    return [(record.partition, record.offset, record.id) for record in records]


# --- creating ---------------------------------------------------------------------------------------------------------


async def test_log_keeps_the_epoch_it_was_created_with(log: Database) -> None:
    assert await log.transact(log.logs.create(LOG, partitions=3, epoch="second")) == "first"
    assert await log.read(log.logs.spans(LOG)) == [Span(0, 0, 0), Span(1, 0, 0), Span(2, 0, 0)]


@pytest.mark.parametrize("partitions", [1, 2, 4])
async def test_another_number_of_partitions_is_refused_and_changes_nothing(log: Database, partitions: int) -> None:
    await append(log, entry("a", partition=2))
    await sequence(log)
    with pytest.raises(InvalidInput, match="3 partitions"):
        await log.transact(log.logs.create(LOG, partitions=partitions, epoch="second"))
    assert await log.read(log.logs.spans(LOG)) == [Span(0, 0, 0), Span(1, 0, 0), Span(2, 0, 1)]
    assert await log.transact(log.logs.create(LOG, partitions=3, epoch="second")) == "first"


async def test_creators_at_once_agree_on_partitions_and_epoch(db: Database, peer: Database) -> None:
    for n in range(10):
        script = [(db, 2, "a"), (peer, 5, "b"), (db, 5, "c"), (peer, 2, "d")]
        answers = await asyncio.gather(
            *(d.transact(d.logs.create(f"log{n}", partitions=p, epoch=e)) for d, p, e in script), return_exceptions=True
        )
        (epoch,) = {answer for answer in answers if isinstance(answer, str)}
        assert all(isinstance(answer, str | InvalidInput) for answer in answers)
        partitions = next(p for _, p, e in script if e == epoch)
        assert len(await db.read(db.logs.spans(f"log{n}"))) == partitions


async def test_new_epoch_replaces_the_old_one(log: Database) -> None:
    await append(log, entry("a"))
    await sequence(log)
    await log.transact(log.logs.begin_epoch(LOG, epoch="restored"))
    assert await log.transact(log.logs.create(LOG, partitions=3, epoch="other")) == "restored"
    assert places(await read(log)) == [(0, 0, "a")]


async def test_logs_do_not_see_each_other(log: Database) -> None:
    await log.transact(log.logs.create("other", partitions=3, epoch="first"))
    await append(log, entry("a"))
    await append(log, entry("x"), log="other")
    assert await sequence(log) == 1
    assert places(await read(log)) == [(0, 0, "a")]
    assert (await log.read(log.logs.intake("other"))).events == 1


# --- appending and sequencing -----------------------------------------------------------------------------------------


async def test_record_is_what_was_appended(log: Database) -> None:
    full = Entry(1, "id-1", "clé", "Öffnung", '{"a":"\\u0041 \\" %s :x {y}"}', '{"trace":"1"}', 0)
    bare = Entry(1, "id-2", None, "", "", None, 0)
    await append(log, full, bare)
    await sequence(log)
    first, second = await read(log, (1, 0))
    assert first._replace(at_us=0) == Record(1, 0, *full[1:6], 0)
    assert second._replace(at_us=0) == Record(1, 1, *bare[1:6], 0)
    assert abs(first.at_us - log.env.clock.wall_us()) < MINUTE_US


@pytest.mark.parametrize("delay_us", [0, MINUTE_US])
@pytest.mark.parametrize("partitions", [1, 2, 4, 1_024])
async def test_events_spread_over_another_number_of_partitions_are_refused(
    log: Database, partitions: int, delay_us: int
) -> None:
    # Also where they land in partitions that are there: the next event of their key would land in another.
    with pytest.raises(SchemaMismatch, match="`partitions=3`"):
        await append(log, entry("a", delay_us=delay_us), entry("b"), partitions=partitions)
    assert await log.read(log.logs.intake(LOG)) == Intake(0, 0, 0)
    await append(log, entry("c", partition=2, delay_us=delay_us))
    events, _, delayed = await log.read(log.logs.intake(LOG))
    assert events + delayed == 1


@pytest.mark.parametrize("delay_us", [0, MINUTE_US])
async def test_events_of_a_log_that_is_not_there_are_refused(log: Database, delay_us: int) -> None:
    with pytest.raises(SchemaMismatch, match="no log 'other'"):
        await append(log, entry("a", delay_us=delay_us), log="other")
    assert await log.read(log.logs.intake("other")) == Intake(0, 0, 0)
    await log.transact(log.logs.create("other", partitions=3, epoch="first"))
    await append(log, entry("a", delay_us=delay_us), log="other")


@pytest.mark.parametrize("partition", [-1, 3])
async def test_event_of_a_partition_that_is_not_there_takes_the_others_with_it(log: Database, partition: int) -> None:
    with pytest.raises(InvalidInput, match="0 to 2"):
        await append(log, entry("a"), entry("b", partition=partition), entry("c"))
    assert await log.read(log.logs.intake(LOG)) == Intake(0, 0, 0)


async def test_refused_append_can_be_handled_and_its_transaction_goes_on(log: Database) -> None:
    async with log.transaction() as tx:
        with pytest.raises(SchemaMismatch):
            await tx.run(log.logs.append(LOG, [entry("a")], partitions=2))
        await tx.run(log.logs.append(LOG, [entry("b")], partitions=3))
    await sequence(log)
    assert places(await read(log)) == [(0, 0, "b")]


async def test_offsets_are_dense_from_zero_in_every_partition(log: Database) -> None:
    for n in range(4):
        await append(log, entry(f"a{n}", partition=0), entry(f"c{n}", partition=2))
        await sequence(log)
    expected = [(0, n, f"a{n}") for n in range(4)] + [(2, n, f"c{n}") for n in range(4)]
    assert places(await read(log)) == expected
    assert await log.read(log.logs.spans(LOG)) == [Span(0, 0, 4), Span(1, 0, 0), Span(2, 0, 4)]


async def test_order_of_one_append_is_kept(log: Database) -> None:
    # Ids in no order that a database might sort by.
    ids = random.Random(7).sample(range(10_000), 300)
    await append(log, *(entry(str(id), partition=id % 3, key=str(id % 7)) for id in ids))
    while await sequence(log, limit=50):
        pass
    for partition in range(3):
        got = [int(record.id) for record in await read(log, (partition, 0))]
        assert got == [id for id in ids if id % 3 == partition]


async def test_nothing_is_readable_before_it_is_sequenced(log: Database) -> None:
    await append(log, entry("a"))
    assert await read(log) == []
    assert await sequence(log) == 1
    assert places(await read(log)) == [(0, 0, "a")]
    assert await sequence(log) == 0


async def test_event_of_a_rolled_back_transaction_never_appears(log: Database) -> None:
    async def publish_and_fail() -> None:
        async with log.transaction() as tx:
            await tx.run(log.logs.append(LOG, [entry("never")], partitions=3))
            raise ChangedMind

    await append(log, entry("a"))
    with pytest.raises(ChangedMind):
        await publish_and_fail()
    await append(log, entry("b"))
    await sequence(log)
    # And its number in the intake leaves no hole among the offsets.
    assert places(await read(log)) == [(0, 0, "a"), (0, 1, "b")]
    assert (await log.read(log.logs.intake(LOG))).events == 0


async def test_sequencer_moves_at_most_its_limit_and_only_its_partitions(log: Database) -> None:
    await append(log, *(entry(f"{p}{n}", partition=p) for n in range(3) for p in range(3)))
    assert await sequence(log, 1, limit=2) == 2
    assert places(await read(log)) == [(1, 0, "10"), (1, 1, "11")]
    assert await sequence(log, 0, 1) == 4
    assert await sequence(log, 0, 1) == 0
    assert places(await read(log, (2, 0))) == []
    assert (await log.read(log.logs.intake(LOG))).events == 3


async def test_sequencing_that_is_rolled_back_leaves_everything_in_the_intake(log: Database) -> None:
    async def sequence_and_fail() -> None:
        async with log.transaction() as tx:
            assert await tx.run(moving(log.logs, LOG, [0, 1, 2], limit=10)) == 2
            raise ChangedMind

    await append(log, entry("a"), entry("b"))
    with pytest.raises(ChangedMind):
        await sequence_and_fail()
    assert await read(log) == []
    assert await sequence(log) == 2
    assert places(await read(log)) == [(0, 0, "a"), (0, 1, "b")]


async def test_sequencers_at_once_never_double_lose_or_reorder(log: Database, peer: Database) -> None:
    """Four sequencers and three writers on two `Database` objects; each writer is the only one of its keys."""
    events, batches, keys = 12, 25, ("u", "v", "w")
    written = asyncio.Event()

    async def write(db: Database, key: str) -> None:
        for batch in range(batches):
            numbers = range(batch * events, (batch + 1) * events)
            await append(db, *(entry(f"{key}{n}", partition=n % 3, key=f"{key}{n % 3}") for n in numbers))

    async def sequence_all(db: Database, partitions: tuple[int, ...], limit: int) -> int:
        moved = 0
        while True:
            last_round = written.is_set()
            found = await sequence(db, *partitions, limit=limit)
            moved += found
            if last_round and not found:
                return moved

    async with asyncio.timeout(WAIT_S * 2):
        sequencers = [
            asyncio.create_task(sequence_all(db, partitions, limit))
            for db, partitions, limit in (
                (log, (0, 1, 2), 7),
                (peer, (2, 1, 0), 5),
                (peer, (0, 1, 2), 40),
                (log, (1,), 3),
            )
        ]
        await asyncio.gather(*(write(db, key) for db, key in zip((log, peer, log), keys, strict=True)))
        written.set()
        moved = sum(await asyncio.gather(*sequencers))

    total = len(keys) * batches * events
    records = await read(log)
    assert moved == total
    assert len(records) == total
    assert {record.id for record in records} == {f"{key}{n}" for key in keys for n in range(batches * events)}
    by_partition, by_key = defaultdict(list), defaultdict(list)
    for record in records:
        by_partition[record.partition].append(record.offset)
        by_key[record.key].append(int(record.id[1:]))
    assert all(offsets == list(range(len(offsets))) for offsets in by_partition.values())
    assert all(numbers == sorted(numbers) for numbers in by_key.values())
    assert await log.read(log.logs.intake(LOG)) == Intake(0, 0, 0)


async def test_cursor_that_follows_while_writers_commit_misses_nothing(log: Database, peer: Database) -> None:
    """A plain cursor, read again and again beside writers with long and short transactions, sees every event."""
    rng = random.Random(3)
    busy = True

    async def write(db: Database, name: str) -> None:
        for n in range(15):
            async with db.transaction() as tx:
                await tx.run(db.logs.append(LOG, [entry(f"{name}{n}")], partitions=3))
                for _ in range(rng.choice((0, 0, 3))):  # longer than others, so that commits overtake each other
                    await tx.run(db.logs.ready(LOG))

    async def follow() -> list[str]:
        seen: list[str] = []
        offset = 0
        while True:
            last_round = not busy
            await sequence(peer)
            records = await read(peer, (0, offset))
            seen += [record.id for record in records]
            offset += len(records)
            if last_round and not records:
                return seen

    async with asyncio.timeout(WAIT_S * 2):
        follower = asyncio.create_task(follow())
        await asyncio.gather(*(write(db, name) for db, name in ((log, "x"), (peer, "y"), (log, "z"))))
        busy = False
        seen = await follower
    assert sorted(seen) == sorted(f"{name}{n}" for name in "xyz" for n in range(15))


# --- delays -----------------------------------------------------------------------------------------------------------


async def test_delayed_event_holds_nobody_up_and_takes_its_place_when_due(engine: Engine, log: Database) -> None:
    await append(log, entry("late", delay_us=MINUTE_US), entry("later", delay_us=9 * MINUTE_US), entry("now"))
    assert await sequence(log) == 1
    assert places(await read(log)) == [(0, 0, "now")]
    engine.elapse(MINUTE_US)
    await append(log, entry("after"))
    assert await sequence(log) == 2
    # Among what waits at the same time the intake's order counts, and "late" was written first.
    assert places(await read(log)) == [(0, 0, "now"), (0, 1, "late"), (0, 2, "after")]
    assert await sequence(log) == 0


async def test_delayed_events_of_other_partitions_take_no_place_of_these(engine: Engine, log: Database) -> None:
    await append(log, entry("theirs", delay_us=MINUTE_US), entry("mine", partition=1, delay_us=2 * MINUTE_US))
    engine.elapse(2 * MINUTE_US)
    assert await sequence(log, 1, limit=1) == 1
    assert places(await read(log)) == [(1, 0, "mine")]


async def test_readiness_tells_of_events_and_of_the_next_delayed_one(engine: Engine, log: Database) -> None:
    assert await log.read(log.logs.ready(LOG)) == Ready(False, None)
    await append(log, entry("late", delay_us=MINUTE_US), entry("later", delay_us=2 * MINUTE_US))
    waiting, due_in_us = await log.read(log.logs.ready(LOG))
    assert waiting is False
    assert due_in_us is not None
    assert 0 < due_in_us <= MINUTE_US
    await append(log, entry("now"))
    assert (await log.read(log.logs.ready(LOG))).waiting is True
    await sequence(log)
    assert (await log.read(log.logs.ready(LOG))).waiting is False


async def test_intake_counts_what_waits_and_since_when(engine: Engine, log: Database) -> None:
    assert await log.read(log.logs.intake(LOG)) == Intake(0, 0, 0)
    await append(log, entry("soon", delay_us=MINUTE_US), entry("late", delay_us=9 * MINUTE_US))
    assert await log.read(log.logs.intake(LOG)) == Intake(0, 0, 2)
    await append(log, entry("a"), entry("b"))
    engine.elapse(MINUTE_US)
    events, age_us, delayed = await log.read(log.logs.intake(LOG))
    assert (events, delayed) == (3, 1)
    assert MINUTE_US <= age_us < 2 * MINUTE_US
    await sequence(log, limit=3)
    assert await log.read(log.logs.intake(LOG)) == Intake(0, 0, 1)


async def test_age_of_a_delayed_event_begins_when_it_is_due(engine: Engine, log: Database) -> None:
    await append(log, entry("soon", delay_us=5 * MINUTE_US))
    engine.elapse(5 * MINUTE_US)
    events, age_us, _ = await log.read(log.logs.intake(LOG))
    assert events == 1
    assert age_us < 5 * MINUTE_US
    await append(log, entry("later", delay_us=MINUTE_US))
    engine.elapse(2 * MINUTE_US)
    await sequence(log)
    first, second = await read(log)  # in the log too: found that there it was as old as its publication
    assert MINUTE_US <= second.at_us - first.at_us < 2 * MINUTE_US


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_cursors_give_each_partition_its_own_page(log: Database) -> None:
    await append(log, *(entry(f"{p}{n}", partition=p) for n in range(5) for p in range(3)))
    await sequence(log)
    assert places(await read(log, (0, 3), (2, 0), limit=2)) == [(0, 3, "03"), (0, 4, "04"), (2, 0, "20"), (2, 1, "21")]
    assert await read(log, (1, 5)) == []


async def test_trimmed_position_is_an_error_even_if_other_cursors_have_records(log: Database) -> None:
    await append(log, *(entry(f"{p}{n}", partition=p) for n in range(5) for p in range(2)))
    await sequence(log)
    await log.transact(log.logs.trim(LOG, upto=[Cursor(0, 3)], older_us=-MINUTE_US, limit=100))
    with pytest.raises(EventsTrimmed, match="offset 3"):
        await read(log, (0, 2), (1, 0))
    with pytest.raises(EventsTrimmed):
        await read(log, (1, 0), (0, 0), limit=1)
    assert places(await read(log, (0, 3), (1, 3))) == [(0, 3, "03"), (0, 4, "04"), (1, 3, "13"), (1, 4, "14")]


async def test_position_after_everything_trimmed_is_no_error(log: Database) -> None:
    await append(log, entry("a"), entry("b"))
    await sequence(log)
    assert await log.transact(log.logs.trim(LOG, upto=[Cursor(0, 2)], older_us=-MINUTE_US, limit=100)) == 2
    assert await read(log, (0, 2)) == []
    await append(log, entry("c"))
    await sequence(log)
    assert places(await read(log, (0, 2))) == [(0, 2, "c")]
    assert await log.read(log.logs.spans(LOG)) == [Span(0, 2, 3), Span(1, 0, 0), Span(2, 0, 0)]


# --- retention --------------------------------------------------------------------------------------------------------


async def test_trim_removes_a_prefix_below_the_cursors_and_no_more_than_its_limit(log: Database) -> None:
    await append(log, *(entry(f"{p}{n}", partition=p) for n in range(6) for p in range(3)))
    await sequence(log)
    upto = [Cursor(0, 5), Cursor(1, 2)]
    assert await log.transact(log.logs.trim(LOG, upto=upto, older_us=-MINUTE_US, limit=3)) == 5
    assert await log.read(log.logs.spans(LOG)) == [Span(0, 3, 6), Span(1, 2, 6), Span(2, 0, 6)]
    assert [record.offset for record in await read(log, (0, 3), (1, 2), (2, 0))] == [
        *range(3, 6),
        *range(2, 6),
        *range(6),
    ]
    assert await log.transact(log.logs.trim(LOG, upto=upto, older_us=-MINUTE_US, limit=3)) == 2
    assert await log.transact(log.logs.trim(LOG, upto=upto, older_us=-MINUTE_US, limit=3)) == 0
    assert (await log.read(log.logs.spans(LOG)))[0] == Span(0, 5, 6)


async def test_trim_beyond_the_end_removes_what_there_is_and_skips_no_offset(log: Database) -> None:
    await append(log, entry("a"))
    await sequence(log)
    assert await log.transact(log.logs.trim(LOG, upto=[Cursor(0, 99)], older_us=-MINUTE_US, limit=1_000)) == 1
    await append(log, entry("b"))
    await sequence(log)
    assert places(await read(log, (0, 1))) == [(0, 1, "b")]


async def test_trim_never_goes_back(log: Database) -> None:
    await append(log, entry("a"), entry("b"))
    await sequence(log)
    await log.transact(log.logs.trim(LOG, upto=[Cursor(0, 2)], older_us=-MINUTE_US, limit=9))
    assert await log.transact(log.logs.trim(LOG, upto=[Cursor(0, 1)], older_us=-MINUTE_US, limit=9)) == 0
    assert (await log.read(log.logs.spans(LOG)))[0] == Span(0, 2, 2)


async def test_young_events_are_kept(engine: Engine, log: Database) -> None:
    await append(log, entry("old"))
    engine.elapse(10 * MINUTE_US)
    await append(log, entry("young"))
    await sequence(log)
    assert await log.transact(log.logs.trim(LOG, upto=[Cursor(0, 2)], older_us=20 * MINUTE_US, limit=9)) == 0
    assert await log.transact(log.logs.trim(LOG, upto=[Cursor(0, 2)], older_us=5 * MINUTE_US, limit=9)) == 1
    assert places(await read(log, (0, 1))) == [(0, 1, "young")]


async def test_young_event_keeps_older_ones_behind_it(engine: Engine, log: Database) -> None:
    await append(log, entry("young"))
    engine.elapse(-10 * MINUTE_US)  # the clock was set back
    await append(log, entry("older"))
    engine.elapse(6 * MINUTE_US)
    await sequence(log)
    assert [record.id for record in await read(log)] == ["young", "older"]
    assert await log.transact(log.logs.trim(LOG, upto=[Cursor(0, 2)], older_us=5 * MINUTE_US, limit=9)) == 0
    assert (await log.read(log.logs.spans(LOG)))[0] == Span(0, 0, 2)


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["id", "key", "type", "payload", "headers"])
async def test_nul_is_refused_and_changes_nothing(log: Database, field: str) -> None:
    good = entry("good")
    bad = Entry._make("cut\0off" if name == field else value for name, value in good._asdict().items())
    with pytest.raises(InvalidInput, match="NUL"):
        await append(log, good, bad)
    assert await log.read(log.logs.intake(LOG)) == Intake(0, 0, 0)
    with pytest.raises(InvalidInput, match="NUL"):
        await append(log, good, log="a\0b")


@pytest.mark.parametrize("text", ["\\u0000", '{"a":"\\\\u0000"}', "\U0001f600 \x01\x1f", "''\"%s%%:now{now}"])
async def test_texts_that_look_dangerous_come_back_as_they_were(log: Database, text: str) -> None:
    await append(log, entry("a", payload=text, key=text))
    await sequence(log)
    (record,) = await read(log)
    assert (record.payload, record.key) == (text, text)
