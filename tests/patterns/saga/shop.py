"""Orders that are charged, reserved and shipped, by providers that keep a record and do what they are told."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

import faultproof as fp
from faultproof.patterns.saga.runner import Runner
from faultproof.ports.database import Database, Transaction
from tests.conformance.engines import Engine
from tests.fakes import within

QUICK = fp.StepRetry(attempts=3, base=0.0, cap=0.0)


class Order(msgspec.Struct):
    item: str
    amount: int = 1


class Receipt(msgspec.Struct):
    key: str
    amount: int


class Shop:
    """A saga whose remote side is this object. `on` says what happens in a call: `shop.on["ship"] = raising(…)`."""

    def __init__(self, db: Database, *, name: str = "fulfil", version: int = 1, retry: fp.StepRetry = QUICK) -> None:
        self.db = db
        self.calls: list[tuple[str, str | None]] = []
        """What was called, with its idempotency key."""
        self.on: dict[str, Callable[[int], object]] = {}
        self.spelled: Callable[[str], str] = lambda text: text
        self.charge = fp.Step.remote(self._charge, undo=self._refund, name="charge", retry=retry, undo_retry=retry)
        self.reserve = fp.Step.local(self._reserve, undo=self._release, name="reserve", retry=retry, undo_retry=retry)
        self.ship = fp.Step.remote(self._ship, undo=self._cancel, name="ship", retry=retry, undo_retry=retry)
        self.saga = fp.Saga(db, name, input=Order, steps=[self.charge, self.reserve, self.ship], version=version)

    def counted(self) -> Counter[str]:
        return Counter(what for what, _ in self.calls)

    def names(self) -> list[str]:
        return [what for what, _ in self.calls]

    async def called(self, what: str, context: fp.StepContext[Order]) -> None:
        self.calls.append((what, context.key))
        if what in self.on:
            answer = self.on[what](sum(1 for name, _ in self.calls if name == what))
            if isinstance(answer, BaseException):
                raise answer
            if asyncio.iscoroutine(answer):
                await answer

    async def _charge(self, context: fp.StepContext[Order]) -> Receipt:
        await self.called("charge", context)
        return Receipt(context.key, context.input.amount)

    async def _refund(self, context: fp.StepContext[Order], receipt: Receipt | None) -> None:
        await self.called("refund" if receipt is not None else "refund what may have been", context)

    async def _reserve(self, context: fp.StepContext[Order], tx: Transaction) -> int:
        await tx.execute(self.spelled("INSERT INTO reserved (id) VALUES (?)"), context.id)
        await self.called("reserve", context)
        return context.result(self.charge).amount

    async def _release(self, context: fp.StepContext[Order], amount: int, tx: Transaction) -> None:
        await tx.execute(self.spelled("DELETE FROM reserved WHERE id = ?"), context.id)
        await self.called("release", context)

    async def _ship(self, context: fp.StepContext[Order]) -> str:
        await self.called("ship", context)
        return f"{context.result(self.charge).key} {context.result(self.reserve)}"

    async def _cancel(self, context: fp.StepContext[Order], label: str | None) -> None:
        await self.called("cancel" if label is not None else "cancel what may have been", context)


def raising(*errors: BaseException | None) -> Callable[[int], object]:
    """The first call raises the first of these, and so on; None, and what comes after the last, goes well."""
    return lambda number: errors[number - 1] if number <= len(errors) else None


def always(error: BaseException) -> Callable[[int], object]:
    return lambda number: error


async def opened(engine: Engine, db: Database, **options: object) -> Shop:
    shop = Shop(db, **options)  # type: ignore[arg-type]
    shop.spelled = engine.spelled
    await shop.saga.install()
    return shop


@asynccontextmanager
async def running(*sagas: fp.Saga[Order], ttl: float = 10.0, concurrency: int = 256) -> AsyncIterator[list[Runner]]:
    """Workers that go on with sagas."""
    runners = [saga.runner(ttl=ttl, concurrency=concurrency) for saga in sagas]
    worker = fp.Worker(sagas[0]._database.env, *runners)
    task = asyncio.create_task(worker.run())
    try:
        yield runners
    finally:
        worker.stop()
        await within(task)
        for saga in sagas:
            await saga.close()


def reserved(engine: Engine) -> list[str]:
    return sorted(id for (id,) in engine.execute("SELECT id FROM reserved"))


def elapse(engine: Engine, seconds: float) -> None:
    """Everything that is stored is so much older."""
    us = int(seconds * 1_000_000)
    engine.elapse(us)
    if engine.name != "sqlite":
        engine.execute(
            "UPDATE faultproof_saga SET started_us = started_us - ?, deadline_us = deadline_us - ?", (us, us)
        )
        engine.execute("UPDATE faultproof_saga SET ended_us = ended_us - ?", (us,))
        engine.execute("UPDATE faultproof_saga_entry SET at_us = at_us - ?, due_us = due_us - ?", (us, us))
