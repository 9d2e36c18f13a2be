"""What cannot work is refused when it is said, with nothing half done."""

from collections.abc import Callable
from typing import Any

import pytest

import faultproof as fp
from faultproof.errors import Failed, InvalidInput, Misuse, PayloadTooLarge
from faultproof.patterns.saga.operations import typed_in
from faultproof.ports.database import Database
from tests.conformance.conftest import Connect
from tests.conformance.engines import Engine
from tests.patterns.saga.shop import Order, opened, running

pytestmark = pytest.mark.anyio


async def act(context: fp.StepContext[Order]) -> None: ...


async def undo(context: fp.StepContext[Order], result: None) -> None: ...


def plain(context: fp.StepContext[Order]) -> None: ...


step = fp.Step.remote(act, undo=undo)
other = fp.Step.remote(act, name="other", undo=undo)
bare = fp.Step.remote(act, name="bare")


@pytest.mark.parametrize(
    ("steps", "pivot", "words"),
    [
        ([], None, "1 to 100 steps"),
        ([step, step], None, "two steps are named 'act'"),
        ([step, [other, step]], None, "two steps are named 'act'"),
        ([bare, step], None, "'bare' has no undo"),
        ([step, bare], None, "'bare' has no undo"),
        ([bare, step], step, "'bare' has no undo"),
        ([step], other, "not among the steps"),
        ([[step, other]], step, "must stand alone"),
        ([step, []], None, "at least one"),
        ([act], None, "Step.remote, Step.local or Step.asynchronous"),
    ],
)
async def test_a_saga_that_could_not_be_undone_is_refused(
    db: Database, steps: list[object], pivot: fp.Step[Order, None] | None, words: str
) -> None:
    with pytest.raises((InvalidInput, TypeError), match=words):
        fp.Saga(db, "x", input=Order, steps=steps, pivot=pivot)  # type: ignore[arg-type]


async def test_behind_the_pivot_no_undo_is_needed(db: Database) -> None:
    fp.Saga(db, "x", input=Order, steps=[step, bare], pivot=bare)
    fp.Saga(db, "x", input=Order, steps=[other, step, bare], pivot=step)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fp.Step.remote(plain), "async def"),  # type: ignore[arg-type]
        (lambda: fp.Step.remote(act, undo=act), r"takes \(context, result\)"),  # type: ignore[arg-type]
        (lambda: fp.Step.local(act), r"takes \(context, tx\)"),  # type: ignore[arg-type]
        (lambda: fp.Step.local(undo, undo=undo), r"takes \(context, result, tx\)"),  # type: ignore[arg-type]
        (lambda: fp.Step.remote(act, name="a b"), "letters, digits"),
        (lambda: fp.Step.remote(act, name=""), None),
        (lambda: fp.Step.remote(None), "cannot be called"),  # type: ignore[arg-type]
        (lambda: fp.Step.remote(act, timeout=0), "`timeout`"),
        (lambda: fp.Step.remote(act, timeout=float("inf")), "`timeout`"),
        (lambda: fp.Step.asynchronous(act, result=str, answer_within=-1), "`answer_within`"),  # type: ignore[arg-type]
        (lambda: fp.StepRetry(attempts=0), "`attempts`"),
        (lambda: fp.StepRetry(base=2.0, cap=1.0), "`cap` must be at least `base`"),
    ],
)
async def test_a_step_that_could_only_fail_is_refused(make: Callable[[], object], words: str | None) -> None:
    if words is None:
        assert make().name == "act"  # type: ignore[attr-defined]
        return
    with pytest.raises(InvalidInput, match=words):
        make()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "a/b"}, "letters, digits"),
        ({"name": ""}, "letters, digits"),
        ({"version": 0}, "`version`"),
        ({"version": "2"}, "`version`"),
    ],
)
async def test_a_name_or_version_that_is_none_is_refused(db: Database, options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        fp.Saga(db, **{"name": "x", "input": Order, "steps": [step], **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("id", "input", "deadline", "error"),
    [
        ("", Order("x"), None, InvalidInput),
        ("a b", Order("x"), None, InvalidInput),
        ("a\0", Order("x"), None, InvalidInput),
        ("ä", Order("x"), None, InvalidInput),
        ("x" * 201, Order("x"), None, InvalidInput),
        (7, Order("x"), None, InvalidInput),
        ("o", {"amount": 1}, None, InvalidInput),
        ("o", object(), None, InvalidInput),
        ("o", Order("x\0"), None, InvalidInput),
        ("o", Order("x" * 300_000), None, PayloadTooLarge),
        ("o", Order("x"), 0, InvalidInput),
        ("o", Order("x"), -1.0, InvalidInput),
        ("o", Order("x"), float("nan"), InvalidInput),
        ("o", Order("x"), True, InvalidInput),
    ],
)
async def test_a_start_that_cannot_be_kept_writes_nothing(
    engine: Engine, db: Database, id: str, input: Order, deadline: float | None, error: type[Exception]
) -> None:
    shop = await opened(engine, db)
    with pytest.raises(error):
        await shop.saga.start(id, input, deadline=deadline)
    assert await shop.saga.sagas() == []
    assert await db.read(db.claims.holders("saga:fulfil")) == []


async def test_a_transaction_of_another_database_is_refused(engine: Engine, db: Database, connect: Connect) -> None:
    shop = await opened(engine, db)
    another = await connect()
    async with another.transaction() as tx:
        with pytest.raises(Misuse, match="another database"):
            await shop.saga.start("o-1", Order("x"), tx=tx)
    with pytest.raises(InvalidInput, match=r"`tx` is a builtins\.str"):
        shop.saga.start("o-1", Order("x"), tx="tx")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *((text, "no JSON") for text in ("", " ", "{", "1 2", "NaN", "[1,]", "nul", "1e999", '"\\ud800"', "\udcff")),
        ("[" * 5_000 + "]" * 5_000, "no JSON"),
        ('"\\u0000"', "NUL"),
        (f'"{"x" * 262_144}"', "262146 bytes"),
    ],
    ids=lambda value: ascii(value)[:12],
)
def test_a_result_that_somebody_has_typed_in_and_is_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        typed_in(text)
    assert typed_in(' {"a": [1, 2.5, null, "ü"]} ') == '{"a":[1,2.5,null,"ü"]}'


async def test_a_result_that_is_not_there_yet_is_a_mistake(engine: Engine, db: Database) -> None:
    shop = await opened(engine, db)

    async def peek(context: fp.StepContext[Order]) -> None:
        with pytest.raises(Misuse, match="no result yet"):
            context.result(shop.ship)
        peeked.append(1)

    peeked = list[int]()
    saga = fp.Saga(db, "peek", input=Order, steps=[fp.Step.remote(peek, undo=fp.NOTHING_TO_UNDO), shop.ship])
    shop.on["ship"] = lambda number: Failed("no")
    async with running(saga):
        await saga.start("o-1", Order("x"))
        await saga.wait("o-1")
    assert peeked == [1]


@pytest.mark.parametrize(
    "id", ["", "a\0b", "\ud800", "x" * 201, 7, None, b"o-1", ["o-1"]], ids=lambda id: ascii(id)[:8]
)
async def test_whatever_is_asked_about_an_id_that_is_none_is_refused(engine: Engine, db: Database, id: Any) -> None:
    shop = await opened(engine, db)
    for call in (
        lambda: shop.saga.wait(id),
        lambda: shop.saga.history(id),
        lambda: shop.saga.picture(id),
        lambda: shop.saga.retry(id),
        lambda: shop.saga.skip(id),
        lambda: shop.saga.resolve(id, "completed", reason="by hand"),
        lambda: shop.saga.adopt(id),
    ):
        with pytest.raises(InvalidInput, match="a saga's id is a text"):
            await call()


@pytest.mark.parametrize("given", [7, None, "lost", "", "\ud800"])
async def test_what_is_asked_of_operations_and_cannot_be_meant_is_refused(
    engine: Engine, db: Database, given: Any
) -> None:
    shop = await opened(engine, db)
    with pytest.raises(InvalidInput, match="completed or compensated"):
        await shop.saga.resolve("o-1", given, reason="by hand")
    for call in (lambda: shop.saga.stuck(older=given or "x"), lambda: shop.saga.sagas(limit=given or 0)):
        if given != 7:
            with pytest.raises(InvalidInput, match=r"`older`|`limit`"):
                await call()
    with pytest.raises(InvalidInput, match="is no asynchronous step"):
        await shop.saga.complete("o-1", given, "1.x", "signed")
