"""Processes that are killed, stopped and continued: nothing is lost, and no effect is there twice."""

import asyncio
import signal
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

import faultproof as fp
from faultproof.errors import LeaseLost
from faultproof.patterns.outbox.care import CRASHES_MAX
from faultproof.ports.database import Database
from tests.fakes import ShiftedClock, env_of, until, within
from tests.files import Connect
from tests.patterns.outbox.actors import quick
from tests.patterns.outbox.shop import EVENTS, Placed, Seen, count, pump, rows, running
from tests.processes import running as process

pytestmark = pytest.mark.anyio

ACTORS = "tests.patterns.outbox.actors"
KEYS = 7


async def publish(outbox: fp.Outbox, *ns: int) -> None:
    await within(asyncio.gather(*(outbox.publish(Placed(f"k{n % KEYS}", n), key=f"k{n % KEYS}") for n in ns)))


async def everything_arrived_once(db: Database, total: int) -> None:
    effects = await rows(db, "SELECT event, key, n FROM effect ORDER BY seq")
    assert Counter(n for _, _, n in effects) == Counter(range(total))
    assert len({event for event, _, _ in effects}) == total
    by_key: dict[str, list[int]] = defaultdict(list)
    for _, key, n in effects:
        by_key[key].append(n)
    assert all(ns == sorted(ns) for ns in by_key.values())


async def test_a_consumer_killed_while_busy_again_and_again_leaves_every_effect_once(
    db: Database, outbox: fp.Outbox, path: Path
) -> None:
    total, rounds = 700, 5
    await publish(outbox, *range(total))
    survived = []
    for round_ in range(rounds):
        async with process(ACTORS, "consume", quick(path), 23 + 7 * round_) as child:
            await child.says("busy")
            child.send(signal.SIGKILL)
            assert await child.ended() == -signal.SIGKILL
        survived.append(await count(db, "effect"))
    assert survived == sorted(survived)
    assert 0 < survived[-1] < total, "the kills have missed the work"
    async with process(ACTORS, "consume", quick(path), 0) as child:
        await until(lambda: settled(db, total))
        child.send(signal.SIGTERM)
        assert await child.ended() == 0
    await everything_arrived_once(db, total)
    lag = await outbox.lag()
    assert lag.sequencers == lag.groups[0].holders == {}  # it drained, and gave its leases back


async def settled(db: Database, total: int) -> bool:
    return await count(db, "effect") >= total


async def test_an_event_that_kills_its_process_becomes_a_dead_letter_and_the_others_arrive(
    db: Database, outbox: fp.Outbox, path: Path
) -> None:
    total, deadly, deaths = 40, 11, 0
    await publish(outbox, *range(total))
    others = [n for n in range(total) if n % KEYS != deadly % KEYS]
    while not (letters := await outbox.dead_letters("g").list()):
        async with process(ACTORS, "die", quick(path), deadly) as child:

            async def given_up() -> bool:
                return bool(await outbox.dead_letters("g").list()) or child.process.returncode is not None

            ended = asyncio.ensure_future(child.ended())
            await until(given_up)
            if not ended.done():
                child.send(signal.SIGTERM)
            deaths += await ended != 0
        assert deaths <= CRASHES_MAX + 4, "it kills for ever"
    (letter,) = letters
    assert '"n":11' in letter.payload
    assert deaths >= CRASHES_MAX
    async with process(ACTORS, "die", quick(path), deadly):
        await until(lambda: settled(db, len(others) + 1))
    delivered = [n for (n,) in await rows(db, "SELECT n FROM effect ORDER BY seq")]
    behind = {n for n in range(deadly, total) if n % KEYS == deadly % KEYS}
    assert Counter(delivered) == Counter(set(range(total)) - behind)
    await outbox.dead_letters("g").discard(letter.id)
    async with process(ACTORS, "die", quick(path), deadly):
        await until(lambda: settled(db, total - 1))
    assert Counter(n for (n,) in await rows(db, "SELECT n FROM effect")) == Counter(set(range(total)) - {deadly})


async def test_a_sequencer_that_is_stopped_is_replaced_and_when_it_wakes_nothing_doubles(
    db: Database, outbox: fp.Outbox, path: Path
) -> None:
    seen = Seen()
    consumer = outbox.consumer("g", seen)
    await consumer.open()
    total = 0
    async with process(ACTORS, "sequence", quick(path)) as child:
        await child.says("leading")
        (first,) = (await outbox.lag()).sequencers
        assert f":{child.pid}:" in first
        await publish(outbox, *range(50))
        await until(lambda: log_has(db, 50))
        child.send(signal.SIGSTOP)
        await publish(outbox, *range(50, 100))
        successor = outbox.sequencer(ttl=0.5)
        await successor.open()

        async def taken_over() -> bool:
            await successor.step()
            return await count(db, "faultproof_log") == 100

        await until(taken_over)
        lag = await outbox.lag()
        assert first not in lag.sequencers
        child.send(signal.SIGCONT)  # a zombie now: awake, and sure that it holds the leases
        for start in range(100, 300, 20):
            await publish(outbox, *range(start, start + 20))
            await successor.step()
            await pump(consumer)
        total = 300
        await until(lambda: log_has(db, total))
        await pump(consumer)
        child.send(signal.SIGTERM)
        assert await child.ended() == 0
    await everything_arrived_once(db, total)
    spans = await db.read(db.logs.spans("outbox"))
    assert sum(span.next for span in spans) == total  # dense: nothing was numbered twice


async def log_has(db: Database, number: int) -> bool:
    return await count(db, "faultproof_log") >= number


async def two_processes(connect: Connect) -> tuple[fp.Outbox, fp.Outbox, ShiftedClock]:
    """Each with a clock of its own: one cannot see that time has passed for the other."""
    clocks = ShiftedClock(), ShiftedClock()
    options = fp.OutboxOptions(partitions=4)
    outboxes = [fp.Outbox(await connect(env_of(clock=clock)), events=EVENTS, options=options) for clock in clocks]
    return outboxes[0], outboxes[1], clocks[1]


async def test_a_zombie_sequencer_s_transaction_is_refused(connect: Connect, db: Database, outbox: fp.Outbox) -> None:
    zombie_outbox, other_outbox, clock = await two_processes(connect)
    zombie, successor = zombie_outbox.sequencer(), other_outbox.sequencer()
    for loop in (zombie, successor):
        await loop.open()
    await pump(zombie)
    clock.advance(30.0)
    await pump(successor)  # has taken over; the zombie's own clock stood still
    await publish(outbox, 0)
    with pytest.raises(LeaseLost):
        await zombie.step()
    assert (await outbox.lag()).events == 1
    await pump(successor)
    assert (await outbox.lag()).events == 0


@pytest.mark.parametrize("relay", [False, True], ids=["inbox", "relay"])
async def test_a_zombie_consumer_changes_nothing(
    connect: Connect, db: Database, outbox: fp.Outbox, relay: bool
) -> None:
    zombie_outbox, other_outbox, clock = await two_processes(connect)
    before, after = Seen(), Seen()

    def consumer_of(one: fp.Outbox, seen: Seen) -> Any:
        return one.relay("g", seen.sink) if relay else one.consumer("g", seen)

    zombie, successor = consumer_of(zombie_outbox, before), consumer_of(other_outbox, after)
    await zombie.open()
    await successor.open()
    await pump(zombie)
    await publish(outbox, *range(5))
    await (await running(outbox)).pump()
    clock.advance(30.0)
    await successor._leases.tend()  # has taken over, and has not begun yet
    await pump(zombie)
    assert await count(db, "effect") == 0
    await pump(successor)
    assert sorted(after.ns) == list(range(5))
    await publish(outbox, *range(5, 10))
    sequencer = outbox.sequencer()
    await sequencer.open()
    await pump(zombie)  # sure of its leases, it looks, and perhaps hands over; but it settles nothing
    assert await count(db, "effect") == (0 if relay else 5)
    ((settled_to,),) = await rows(db, "SELECT sum(next_offset) FROM faultproof_inbox")
    assert settled_to == 5
