"""Calls that cannot be meant: each is refused with the right class and a sentence that helps, and nothing is written."""

import asyncio
import dataclasses
import datetime
import decimal
import functools
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import msgspec
import pytest

import faultproof as fp
from faultproof.errors import (
    Closed,
    FaultproofError,
    InvalidInput,
    Misuse,
    NoTransaction,
    NotSupported,
    PayloadTooLarge,
    SchemaMismatch,
    TransactionOpen,
    UnknownEventType,
)
from faultproof.ports.database import Database
from faultproof.ports.script import Inline
from tests.fakes import env_of, within
from tests.files import Connect
from tests.patterns.outbox.shop import EVENTS, Paid, Placed, Seen, count, running

pytestmark = pytest.mark.anyio

NO_COUNTS = [0, -1, 1.5, float("inf"), float("nan"), 10**30, -(10**5_000), True, "8", None]
NO_TIMES = [-1.0, float("inf"), float("-inf"), float("nan"), 10**30, 315_360_001, True, "5", None]
"""Each reached some arithmetic before: in a step that is repeated for ever, or in the order of the event loop's timers."""

NAIVE = datetime.datetime(2024, 1, 1, 12, 0)


class Meeting(msgspec.Struct):
    n: int
    at: datetime.datetime | None = None
    others: list["Meeting"] = msgspec.field(default_factory=list)
    daily: datetime.time | None = None


@dataclasses.dataclass
class Visit:
    n: int
    at: datetime.datetime | None = None
    plan: dict[str, list[Meeting]] = dataclasses.field(default_factory=dict)


class Price(msgspec.Struct):
    amount: float


class Stranger(msgspec.Struct):
    n: int


class Sub(Placed):
    """A subclass of a registered event is another event."""


TYPES: dict[str, type] = {**EVENTS, "meeting": Meeting, "visit": Visit, "price": Price}


@pytest.fixture
async def shop(db: Database, outbox: fp.Outbox) -> fp.Outbox:
    """The outbox with more types, and a small limit."""
    options = fp.OutboxOptions(partitions=4, payload_bytes_max=10_000)
    return fp.Outbox(db, events=TYPES, options=options)


def shown(value: object) -> str:
    return "-(10**5000)" if isinstance(value, int) and value < -(10**4_000) else repr(value)


def looped() -> dict[str, Any]:
    loop: dict[str, Any] = {"n": 1}
    loop["self"] = loop
    return loop


def noted(body: Any) -> Callable[[fp.Outbox], Any]:
    return lambda outbox: outbox.publish(body, key="k", type="noted")


def keyed(key: Any) -> Callable[[fp.Outbox], Any]:
    return lambda outbox: outbox.publish(Placed("k", 1), key=key)


def headed(headers: Any) -> Callable[[fp.Outbox], Any]:
    return lambda outbox: outbox.publish(Placed("k", 1), key="k", headers=headers)


def delayed(delay: Any) -> Callable[[fp.Outbox], Any]:
    return lambda outbox: outbox.publish(Placed("k", 1), key="k", delay=delay)


def plain(body: Any, **options: Any) -> Callable[[fp.Outbox], Any]:
    return lambda outbox: outbox.publish(body, **{"key": "k", **options})


BAD: dict[str, tuple[Callable[[fp.Outbox], Any], type[FaultproofError], str]] = {
    # payloads
    "object": (noted({"x": object()}), InvalidInput, "cannot be encoded as JSON"),
    "function": (noted({"x": print}), InvalidInput, "cannot be encoded as JSON"),
    "nan": (noted({"x": [float("nan")]}), InvalidInput, "a number that JSON cannot carry"),
    "infinity": (plain(Price(float("inf"))), InvalidInput, "a number that JSON cannot carry"),
    "complex": (noted({"x": 1j}), InvalidInput, "cannot be encoded as JSON"),
    "object-as-key": (noted({object(): 1}), InvalidInput, "cannot be encoded as JSON"),
    "loop": (noted(looped()), InvalidInput, "cannot be encoded as JSON"),
    "surrogate": (noted({"x": "\ud800"}), InvalidInput, "cannot be encoded as JSON"),
    "surrogate-in-struct": (plain(Placed("\udfff", 1)), InvalidInput, "cannot be encoded as JSON"),
    "too-large": (noted({"x": "a" * 10_000}), PayloadTooLarge, "publish a reference"),
    "too-large-in-bytes": (noted({"x": "ä" * 5_000}), PayloadTooLarge, "limit is 10000"),
    # times without a zone
    "wrong-field": (plain(Placed("k", "one")), InvalidInput, "could not be read again"),  # type: ignore[arg-type]
    "naive": (noted({"at": NAIVE}), InvalidInput, "use an aware one"),
    "naive-deep": (noted({"a": [{"b": (1, [NAIVE])}]}), InvalidInput, "use an aware one"),
    "naive-key": (noted({"a": {NAIVE: 1}}), InvalidInput, "str keys"),
    "naive-set": (noted({"a": {NAIVE}}), InvalidInput, "use an aware one"),
    "naive-struct": (plain(Meeting(1, NAIVE)), InvalidInput, "use an aware one"),
    "naive-struct-deep": (plain(Meeting(1, None, [Meeting(2, None, [Meeting(3, NAIVE)])])), InvalidInput, "aware"),
    "naive-time": (plain(Meeting(1, daily=datetime.time(12))), InvalidInput, "use an aware one"),
    "naive-dataclass": (plain(Visit(1, NAIVE)), InvalidInput, "use an aware one"),
    "naive-dataclass-deep": (plain(Visit(1, None, {"a": [Meeting(1, NAIVE)]})), InvalidInput, "use an aware one"),
    "naive-paid": (plain(Paid("k", 1, NAIVE)), InvalidInput, "use an aware one"),
    "naive-in-any": (noted({"visit": Visit(1, NAIVE)}), InvalidInput, "use an aware one"),
    # types
    "unregistered": (plain(Stranger(1)), UnknownEventType, "add it to the outbox's `events`"),
    "subclass": (plain(Sub("k", 1)), UnknownEventType, "add it to the outbox's `events`"),
    "none": (plain(None), UnknownEventType, "NoneType is not a registered event"),
    "class": (plain(Placed), UnknownEventType, "not a registered event"),
    "dict-without-type": (plain({"n": 1}), UnknownEventType, "pass `type=`"),
    "unknown-name": (plain({"n": 1}, type="nothing"), UnknownEventType, "no event is registered as 'nothing'"),
    "list-as-type": (plain({"n": 1}, type=[]), InvalidInput, r"`type` must be the name .*, got \[\]"),
    "int-as-type": (plain({"n": 1}, type=7), InvalidInput, "`type` must be the name"),
    "class-as-type": (plain(Placed("k", 1), type=Placed), InvalidInput, "`type` must be the name"),
    "surrogate-in-type": (plain({"n": 1}, type="noted\ud800"), UnknownEventType, "no event is registered as"),
    "wrong-name": (plain(Placed("k", 1), type="paid"), InvalidInput, "as 'paid' a Paid is registered, not a Placed"),
    "dict-as-struct": (plain({"n": 1}, type="placed"), InvalidInput, "'placed'"),
    # keys
    "empty-key": (keyed(""), InvalidInput, "1 to 512 bytes"),
    "long-key": (keyed("k" * 513), InvalidInput, "1 to 512 bytes"),
    "long-key-in-bytes": (keyed("ä" * 257), InvalidInput, "1 to 512 bytes"),
    "huge-key": (keyed("k" * 10_000_000), InvalidInput, "1 to 512 bytes"),
    "nul-in-key": (keyed("a\0b"), InvalidInput, "without NUL"),
    "surrogate-in-key": (keyed("a\ud800"), InvalidInput, "valid text"),
    "int-as-key": (keyed(7), InvalidInput, "must be a text"),
    "bytes-as-key": (keyed(b"k"), InvalidInput, "must be a text"),
    # headers
    "nul-in-header": (headed({"a": "b\0"}), InvalidInput, "without NUL"),
    "nul-in-header-name": (headed({"a\0": "b"}), InvalidInput, "without NUL"),
    "surrogate-in-header": (headed({"a": "\udc00"}), InvalidInput, "valid text"),
    "int-in-header": (headed({"a": 1}), InvalidInput, "valid text"),
    "none-in-header": (headed({"a": None}), InvalidInput, "valid text"),
    "list-as-headers": (headed(["a"]), InvalidInput, "headers"),
    "large-headers": (headed({"a": "b" * 9_000}), PayloadTooLarge, "limit is 8192"),
    # delays
    "negative-delay": (delayed(-1), InvalidInput, "`delay` must be a number of seconds from 0 to 315,360,000"),
    "absurd-delay": (delayed(1e12), InvalidInput, "`delay` must be a number of seconds from 0 to 315,360,000"),
    "infinite-delay": (
        delayed(float("inf")),
        InvalidInput,
        "`delay` must be a number of seconds from 0 to 315,360,000",
    ),
    "nan-delay": (delayed(float("nan")), InvalidInput, "`delay` must be a number of seconds from 0 to 315,360,000"),
    "true-as-delay": (delayed(True), InvalidInput, "`delay` must be a number of seconds from 0 to 315,360,000"),
    "text-delay": (delayed("soon"), InvalidInput, "`delay` must be a number of seconds from 0 to 315,360,000"),
    "timedelta-delay": (
        delayed(datetime.timedelta(hours=1)),
        InvalidInput,
        "`delay` must be a number of seconds from 0 to 315,360,000",
    ),
}


@pytest.mark.parametrize("inside", [False, True], ids=["bare", "tx"])
@pytest.mark.parametrize("case", BAD)
async def test_a_publication_that_cannot_be_is_refused_and_writes_nothing(
    db: Database, shop: fp.Outbox, case: str, inside: bool
) -> None:
    publish, expected, says = BAD[case]
    if inside:

        class Inside:
            """The outbox as its user sees it within a transaction."""

            @staticmethod
            def publish(*args: Any, **kwargs: Any) -> Any:
                return shop.publish(*args, tx=tx, **kwargs)

        async with db.transaction() as tx:
            with pytest.raises(expected, match=says) as refused:
                await publish(Inside)  # type: ignore[arg-type]
            await tx.execute("INSERT INTO orders (id, n) VALUES ('the transaction goes on', 1)")
        assert await count(db, "orders") == 1
    else:
        with pytest.raises(expected, match=says) as refused:
            await within(publish(shop))
    assert type(refused.value) is expected
    assert isinstance(refused.value, Misuse)
    assert len(str(refused.value)) < 400  # it does not repeat the payload at the reader
    assert await count(db, "faultproof_intake") == 0
    assert await within(shop.publish(Placed("k", 1), key="k"))  # and the outbox is as good as before


async def test_how_much_too_large_is_told(shop: fp.Outbox) -> None:
    with pytest.raises(PayloadTooLarge) as large:
        await shop.publish({"x": "a" * 20_000}, key="k", type="noted")
    assert (large.value.size_bytes, large.value.limit_bytes) == (20_008, 10_000)


@pytest.mark.parametrize(
    "good",
    [
        plain(Placed("k\0", 1)),  # JSON escapes it
        noted({"x": "a\0b", "at": datetime.datetime.now(datetime.UTC), "d": decimal.Decimal("1.10"), "": [[]]}),
        keyed("k" * 512),
        keyed("😀" * 128),
        keyed(None),
        headed({}),
        headed({"": ""}),
        delayed(0),
        delayed(10 * 365 * 86_400),
        noted({"x": "a" * 9_992}),
        noted({"x": 2**80, "y": 1e308}),
    ],
)
async def test_what_is_just_acceptable_is_accepted(db: Database, shop: fp.Outbox, good: Any) -> None:
    await within(good(shop))
    assert await count(db, "faultproof_intake") == 1


# --- types and names --------------------------------------------------------------------------------------------------


class NotEncodable:
    pass


@dataclasses.dataclass
class HoldsOne:
    thing: NotEncodable


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ({"placed": Placed, "bought": Placed}, "registered twice"),
        ({"": Placed}, "1 to 200 bytes"),
        ({"x" * 201: Placed}, "1 to 200 bytes"),
        ({"a\0": Placed}, "1 to 200 bytes"),
        ({"a\ud800": Placed}, "1 to 200 bytes"),
        ({"n": int}, "must be a msgspec Struct, a dataclass or dict"),
        ({"n": Placed("k", 1)}, "must be a msgspec Struct, a dataclass or dict"),
        ({"n": "Placed"}, "must be a msgspec Struct, a dataclass or dict"),
        ({"n": HoldsOne}, "that JSON cannot carry"),
        ({7: Placed}, "1 to 200 bytes"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else None,
)
async def test_event_types_that_cannot_be_are_refused(db: Database, events: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        fp.Outbox(db, events=events)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a\0", "é" * 51, "x" * 101, "a:b", "\ud800", None, 3], ids=repr)
async def test_names_that_cannot_be_are_refused(db: Database, outbox: fp.Outbox, name: Any) -> None:
    async def handler(event: Any, tx: Any) -> None: ...

    with pytest.raises(InvalidInput, match="an outbox is named with"):
        fp.Outbox(db, events=EVENTS, name=name)
    for use in (lambda: outbox.consumer(name, handler), lambda: outbox.relay(name, handler)):
        with pytest.raises(InvalidInput, match="a group is named with"):
            use()
    with pytest.raises(InvalidInput, match="a group is named with"):
        outbox.dead_letters(name)
    with pytest.raises(InvalidInput, match="a group is named with"):
        await outbox.forget(name)


@pytest.mark.parametrize("option", ["attempts", "batch"])
@pytest.mark.parametrize("value", NO_COUNTS, ids=shown)
def test_counts_of_a_group_that_nobody_can_mean_are_refused(option: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"`{option}` must be a whole number from 1 to"):
        fp.ConsumerOptions(**{option: value})


@pytest.mark.parametrize("option", ["backoff", "backoff_max", "timeout", "ttl"])
@pytest.mark.parametrize("value", NO_TIMES, ids=shown)
def test_times_of_a_group_that_nobody_can_mean_are_refused(option: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"`{option}` must be a number of seconds from"):
        fp.ConsumerOptions(**{option: value})


@pytest.mark.parametrize("option", ["timeout", "ttl"])
def test_no_time_at_all_is_refused_where_something_must_happen_in_it(option: str) -> None:
    with pytest.raises(InvalidInput, match=f"`{option}`"):
        fp.ConsumerOptions(**{option: 0.0})
    fp.ConsumerOptions(backoff=0.0, backoff_max=0.0)


@pytest.mark.parametrize("value", ["skip", None, [], True], ids=repr)
def test_what_becomes_of_a_poisoned_key_is_one_of_two(value: Any) -> None:
    with pytest.raises(InvalidInput, match="'key waits' or 'key goes on'"):
        fp.ConsumerOptions(on_poison=value)


@pytest.mark.parametrize("option", ["partitions", "payload_bytes_max"])
@pytest.mark.parametrize("value", [*NO_COUNTS, 8.0], ids=shown)
def test_sizes_of_an_outbox_that_nobody_can_mean_are_refused(option: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"`{option}` must be a whole number from"):
        fp.OutboxOptions(**{option: value})


def test_more_partitions_than_anybody_needs_are_refused() -> None:
    with pytest.raises(InvalidInput, match="from 1 to 1,024"):
        fp.OutboxOptions(partitions=1_025)
    fp.OutboxOptions(partitions=1_024)


@pytest.mark.parametrize("loop", ["sequencer", "retention"])
@pytest.mark.parametrize("value", NO_COUNTS, ids=shown)
async def test_loops_with_no_batch_that_can_be_are_refused(outbox: fp.Outbox, loop: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match="`batch` must be a whole number from 1 to"):
        getattr(outbox, loop)(batch=value)


@pytest.mark.parametrize(("loop", "option"), [("sequencer", "ttl"), ("retention", "keep"), ("retention", "every")])
@pytest.mark.parametrize("value", NO_TIMES, ids=shown)
async def test_loops_with_no_time_that_can_be_are_refused(
    outbox: fp.Outbox, loop: str, option: str, value: Any
) -> None:
    with pytest.raises(InvalidInput, match=f"`{option}` must be a number of seconds from"):
        getattr(outbox, loop)(**{option: value})


@pytest.mark.parametrize(("loop", "option"), [("sequencer", "ttl"), ("retention", "every")])
async def test_loops_without_any_time_are_refused(outbox: fp.Outbox, loop: str, option: str) -> None:
    with pytest.raises(InvalidInput, match=f"`{option}`"):
        getattr(outbox, loop)(**{option: 0})
    outbox.retention(keep=0)


async def test_options_at_their_bounds_work(db: Database, outbox: fp.Outbox) -> None:
    """What is let through can be used: no time overflows when it becomes microseconds."""
    seen = Seen(fails={1: ValueError("no")})
    most = 315_360_000.0
    options = fp.ConsumerOptions(
        attempts=1_000_000, backoff=most, backoff_max=most, batch=1_000_000, timeout=most, ttl=most
    )
    shop = await running(outbox, outbox.consumer("g", seen, options))
    await outbox.publish(Placed("k", 1), key="k")
    await outbox.publish(Placed("k", 2), key="k", delay=most)
    await shop.pump()
    assert seen.ns == [1]
    assert await count(db, "faultproof_parked") == 1
    await outbox.sequencer(ttl=most, batch=1_000_000).step()
    await outbox.retention(keep=most, every=most, batch=1_000_000).step()
    assert await count(db, "faultproof_log") == 1


# --- where the call is made -------------------------------------------------------------------------------------------


async def test_a_bare_call_inside_our_open_transaction_is_told_what_to_pass(db: Database, outbox: fp.Outbox) -> None:
    async with db.transaction():
        with pytest.raises(TransactionOpen, match="pass `tx=`"):
            await within(outbox.publish(Placed("k", 1), key="k"))
    assert await count(db, "faultproof_intake") == 0
    await outbox.publish(Placed("k", 2), key="k")


async def test_a_transaction_that_has_ended_takes_no_more_events(db: Database, outbox: fp.Outbox) -> None:
    async with db.transaction() as tx:
        pass
    with pytest.raises(Closed, match="has ended"):
        await outbox.publish(Placed("k", 1), key="k", tx=tx)
    assert await count(db, "faultproof_intake") == 0


async def test_a_database_that_was_closed_takes_no_more_events(
    connect: Connect, db: Database, outbox: fp.Outbox
) -> None:
    other = await connect(env_of())
    closed = fp.Outbox(other, events=EVENTS, options=fp.OutboxOptions(partitions=4))
    await other.close()
    calls: list[Callable[[], Any]] = [
        lambda: closed.publish(Placed("k", 1), key="k"),
        lambda: closed.lag(),
        lambda: closed.install(),
        lambda: closed.dead_letters("g").list(),
        lambda: closed.begin_epoch(),
        lambda: closed.forget("g"),
    ]
    for call in calls:
        with pytest.raises(Closed, match="connect again"):
            await within(call())
    assert await count(db, "faultproof_intake") == 0


async def test_before_install_it_says_what_to_call(connect: Connect) -> None:
    outbox = fp.Outbox(await connect(), events=EVENTS)
    calls: list[Callable[[], Any]] = [
        lambda: outbox.publish(Placed("k", 1), key="k"),
        lambda: outbox.lag(),
        lambda: outbox.dead_letters("g").list(),
        lambda: outbox.sequencer().step(),
    ]
    for call in calls:
        with pytest.raises(SchemaMismatch, match=r"install\(\)"):
            await within(call())


@pytest.mark.parametrize("component", ["claims", "log", "outbox"])
@pytest.mark.parametrize(("version", "says"), [(99, "upgrade faultproof"), (0, r"older release.*install\(\)")])
async def test_tables_that_this_release_cannot_work_with_are_refused(
    connect: Connect, outbox: fp.Outbox, path: Path, version: int, says: str, component: str
) -> None:
    """Found: only `install()` looked, which a process that is merely started need not call."""
    connection = raw(path)
    connection.execute("UPDATE faultproof_schema SET version = ? WHERE name = ?", (version, component))
    connection.commit()
    later = fp.Outbox(await connect(), events=EVENTS, options=fp.OutboxOptions(partitions=4))

    async def handler(event: fp.Event[Any], tx: Any) -> None:
        raise AssertionError("nothing may be delivered")

    starts: list[Callable[[], Any]] = [
        later.sequencer().open,
        later.consumer("g", handler).open,
        later.retention().open,
    ]
    publishes: list[Callable[[], Any]] = [
        lambda: later.publish(Placed("k", 1), key="k"),
        lambda: later._database.transact(later.publish(Placed("k", 1), key="k", tx=Inline())),
    ]
    for call in starts + (publishes if component == "log" else []):
        with pytest.raises(SchemaMismatch, match=says):
            await within(call())
    if component == "log":
        with pytest.raises(SchemaMismatch, match=says):
            fp.Outbox(outbox._database, events=EVENTS).publish(Placed("k", 1), key="k", tx=fp.join(connection))
    connection.rollback()
    assert connection.execute("SELECT count(*) FROM faultproof_intake").fetchone() == (0,)
    connection.close()


def other_size(db: Database) -> fp.Outbox:
    """As a process that was deployed with another number of partitions has it."""
    return fp.Outbox(db, events=EVENTS, options=fp.OutboxOptions(partitions=2))


@pytest.mark.parametrize("delay", [0.0, 60.0])
@pytest.mark.parametrize("name", ["outbox", "elsewhere"])
async def test_an_event_that_nobody_would_sequence_is_refused_on_every_way(
    db: Database, outbox: fp.Outbox, path: Path, name: str, delay: float
) -> None:
    """Found: it was written all the same, and its publisher told that it is published."""
    wrong = other_size(db) if name == "outbox" else fp.Outbox(db, events=EVENTS, name=name)
    says = "`partitions=4`" if name == "outbox" else "install it first"
    keys = [str(number) for number in range(8)]  # in partitions that there are and in others
    calls = [wrong.publish(Placed(key, 1), key=key, delay=delay) for key in keys]
    refused = await within(asyncio.gather(*calls, return_exceptions=True))
    assert [type(error) for error in refused] == [SchemaMismatch] * len(keys)
    for key in keys:
        async with db.transaction() as tx:
            with pytest.raises(SchemaMismatch, match=says):
                await wrong.publish(Placed(key, 1), key=key, tx=tx, delay=delay)
        with pytest.raises(SchemaMismatch, match=says):
            await db.transact(wrong.publish(Placed(key, 1), key=key, tx=Inline(), delay=delay))
    connection = raw(path)
    with pytest.raises(SchemaMismatch, match=says):
        wrong.publish(Placed("k", 1), key="k", tx=fp.join(connection), delay=delay)
    outbox.publish(Placed("k", 1), key="k", tx=fp.join(connection), delay=delay)
    connection.commit()
    connection.close()
    assert await count(db, "faultproof_intake") == 1


async def test_many_refused_publications_share_one_refusal(db: Database, outbox: fp.Outbox) -> None:
    """What is wrong with all of them is not looked for in each of them."""
    wrong = other_size(db)
    transactions = 0
    transact = db.transact

    async def counting(script: Any) -> Any:
        nonlocal transactions
        transactions += 1
        return await transact(script)

    db.transact = counting  # type: ignore[method-assign]
    calls = [wrong.publish(Placed("k", n), key="k") for n in range(100)]
    refused = await within(asyncio.gather(*calls, return_exceptions=True))
    assert {type(error) for error in refused} == {SchemaMismatch}
    assert transactions <= 2  # the first goes alone, the others together


async def test_a_handler_that_publishes_with_the_wrong_partitions_makes_no_dead_letter(
    db: Database, outbox: fp.Outbox
) -> None:
    wrong = other_size(db)

    async def passes_on(event: fp.Event[Any], tx: Any) -> None:
        await wrong.publish(Placed("k", 2), key="k", tx=tx)

    shop = await running(outbox, outbox.consumer("g", passes_on, fp.ConsumerOptions(attempts=1)))
    await outbox.publish(Placed("k", 1), key="k")
    with pytest.raises(SchemaMismatch):
        await shop.pump()
    assert await outbox.dead_letters("g").list() == []
    assert (await count(db, "faultproof_intake"), await count(db, "faultproof_parked")) == (0, 0)


# --- joined handles ---------------------------------------------------------------------------------------------------


def raw(path: Path, **options: Any) -> sqlite3.Connection:
    return sqlite3.connect(path, **options)


async def test_a_joined_handle_publishes_in_its_user_s_transaction(db: Database, outbox: fp.Outbox, path: Path) -> None:
    connection = raw(path)
    connection.execute("INSERT INTO orders (id, n) VALUES ('a', 1)")
    assert len(outbox.publish(Placed("k", 1), key="k", tx=fp.join(connection))) == 32
    observer = raw(path)
    assert observer.execute("SELECT count(*) FROM faultproof_intake").fetchone() == (0,)
    observer.close()
    connection.commit()
    assert await count(db, "faultproof_intake") == 1
    outbox.publish(Placed("k", 2), key="k", tx=fp.join(connection))
    connection.rollback()
    connection.close()
    assert await count(db, "faultproof_intake") == 1


async def test_a_joined_handle_that_would_commit_by_itself_is_refused(
    db: Database, outbox: fp.Outbox, path: Path
) -> None:
    connection = raw(path, isolation_level=None)
    with pytest.raises(NoTransaction, match="BEGIN first"):
        fp.join(connection)
    connection.execute("BEGIN")
    joined = fp.join(connection)
    outbox.publish(Placed("k", 1), key="k", tx=joined)
    connection.execute("COMMIT")
    with pytest.raises(NoTransaction, match="BEGIN first"):
        outbox.publish(Placed("k", 2), key="k", tx=joined)
    connection.close()
    assert await count(db, "faultproof_intake") == 1


async def test_a_joined_handle_that_is_closed_is_refused(db: Database, outbox: fp.Outbox, path: Path) -> None:
    connection = raw(path)
    joined = fp.join(connection)
    connection.close()
    with pytest.raises(Closed):
        outbox.publish(Placed("k", 1), key="k", tx=joined)
    with pytest.raises(Closed):
        fp.join(connection)
    assert await count(db, "faultproof_intake") == 0


async def test_bad_input_through_a_joined_handle_leaves_its_transaction_as_it_was(
    db: Database, outbox: fp.Outbox, path: Path
) -> None:
    connection = raw(path)
    connection.execute("INSERT INTO orders (id, n) VALUES ('a', 1)")
    with pytest.raises(InvalidInput):
        outbox.publish(Placed("k", 1), key="", tx=fp.join(connection))
    assert connection.in_transaction
    connection.commit()
    connection.close()
    assert (await count(db, "orders"), await count(db, "faultproof_intake")) == (1, 0)


@pytest.mark.parametrize("handle", [None, "shop.db", 7, object()], ids=lambda handle: type(handle).__name__)
def test_what_cannot_be_joined_is_refused(handle: Any) -> None:
    with pytest.raises(NotSupported, match="cannot be joined"):
        fp.join(handle)


@pytest.mark.parametrize("tx", ["tx", 7, object()], ids=lambda tx: type(tx).__name__)
async def test_what_is_no_transaction_is_refused(db: Database, outbox: fp.Outbox, tx: Any) -> None:
    with pytest.raises(InvalidInput, match="`tx`"):
        await outbox.publish(Placed("k", 1), key="k", tx=tx)
    assert await count(db, "faultproof_intake") == 0


async def test_a_raw_connection_is_told_to_be_joined(db: Database, outbox: fp.Outbox, path: Path) -> None:
    connection = raw(path)
    with pytest.raises(InvalidInput, match="join"):
        outbox.publish(Placed("k", 1), key="k", tx=connection)  # type: ignore[call-overload]
    connection.close()


async def test_a_handler_that_could_only_fail_is_refused_when_it_is_given(outbox: fp.Outbox) -> None:
    async def forgets_tx(event: object) -> None: ...

    async def wants_more(event: object, tx: object, more: object) -> None: ...

    for handler in (forgets_tx, wants_more):
        with pytest.raises(InvalidInput, match=r"\(event, tx\)"):
            outbox.consumer("g", handler)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"\(event\)"):
        outbox.relay("g", wants_more)  # type: ignore[arg-type]


class Asynchronous:
    async def __call__(self, event: object, tx: object = None) -> None: ...

    async def method(self, event: object, tx: object = None) -> None: ...


class Synchronous:
    def __call__(self, event: object, tx: object = None) -> None: ...

    def method(self, event: object, tx: object = None) -> None: ...

    async def yields(self, event: object, tx: object = None) -> Any:
        yield 1


async def right(event: object, tx: object = None, more: int = 0) -> None: ...


@functools.wraps(right)
def wrapped(*args: Any, **kwargs: Any) -> Any:
    return right(*args, **kwargs)


@pytest.mark.parametrize(
    "wrong",
    [
        Synchronous(),
        Synchronous().method,
        Synchronous().yields,
        lambda event, tx=None: None,
        functools.partial(Synchronous()),
        functools.partial(lambda more, event, tx=None: None, 1),
    ],
    ids=["object", "method", "generator", "lambda", "partial-object", "partial"],
)
async def test_a_handler_that_is_not_async_is_refused_when_it_is_given(outbox: fp.Outbox, wrong: Any) -> None:
    """Found: it was called for every event, attempt after attempt, and each ended as a dead letter."""
    for make in (outbox.consumer, outbox.relay):
        with pytest.raises(InvalidInput, match="must be an `async def`"):
            make("g", wrong)


@pytest.mark.parametrize(
    "good",
    [Asynchronous(), Asynchronous().method, right, wrapped, functools.partial(right, more=1), AsyncMock()],
    ids=["object", "method", "function", "wrapped", "partial", "mock"],
)
async def test_whatever_is_async_may_be_a_handler(db: Database, outbox: fp.Outbox, good: Any) -> None:
    consumers = [outbox.consumer("g", good), outbox.relay("other", good)]
    shop = await running(outbox, *consumers)
    await outbox.publish(Placed("k", 1), key="k")
    await shop.pump()
    assert await count(db, "faultproof_parked") == 0
    assert [group.events for group in (await outbox.lag()).groups] == [0, 0]


async def test_a_consumer_without_a_function_is_refused(outbox: fp.Outbox) -> None:
    for make in (outbox.consumer, outbox.relay):
        with pytest.raises(InvalidInput, match="function"):
            make("g", None)  # type: ignore[arg-type]
