"""The log's planted bugs: what writers, sequencers and readers look like that somebody simplified."""

from __future__ import annotations

from collections.abc import Callable

from faultproof.ports.claims import Claim
from faultproof.ports.log import Cursor
from faultproof.ports.script import Script, sql
from faultproof.prove.kernel.log_workload import (
    KIND,
    LOG,
    PARTITIONS,
    Reader,
    Regret,
    Sequencer,
    Write,
    Writer,
    cursors,
)


@sql('DELETE FROM faultproof_log WHERE log = :log AND "partition" = :partition AND "offset" < :offset')
def _delete(log: str, partition: int, offset: int) -> None: ...


class _SplitWrite(Writer):
    async def transaction(self, number: int, write: Write) -> None:
        if write.is_regretted:
            return
        entries = await self.database.transact(lambda: self.rows(number, write))
        await self.database.transact(lambda: self.append(entries))
        self.process.note("wrote", f"{self.process.name}/{number}")


class _AppendsApart(Writer):
    async def transaction(self, number: int, write: Write) -> None:
        if not write.is_regretted:
            await super().transaction(number, write)
            return
        try:
            async with self.database.transaction() as tx:
                entries = await tx.run(self.rows(number, write))
                raise Regret
        except Regret:
            await self.database.transact(lambda: self.append(entries))


class _NoKey(Writer):
    def partition(self, event: str, item: str) -> int:
        return sum(event.encode()) % PARTITIONS


class _NoGuard(Sequencer):
    def guard(self, claims: list[Claim]) -> Script[None]:
        yield from ()


class _GuardApart(_NoGuard):
    async def move(self, claims: list[Claim], moved: Callable[[int], None]) -> None:
        await self.database.transact(lambda: self.database.claims.guard(KIND, claims))
        await super().move(claims, moved)


class _CursorLate(Reader):
    async def read(self) -> bool:
        records = await self.database.transact(self.records)
        await self.database.transact(lambda: self.see(records))
        await self.database.transact(lambda: self.move(records))
        return bool(records)


class _CursorEarly(Reader):
    async def read(self) -> bool:
        records = await self.database.transact(self.records)
        await self.database.transact(lambda: self.move(records))
        await self.database.transact(lambda: self.see(records))
        return bool(records)


class _TrimsAhead(Reader):
    def trim(self) -> Script[None]:
        spans = yield from self.database.logs.spans(LOG)
        upto = [Cursor(span.partition, span.next) for span in spans]
        yield from self.database.logs.trim(LOG, upto=upto, older_us=0, limit=1_000)


class _TrimsByHand(Reader):
    def trim(self) -> Script[None]:
        for cursor in (yield from cursors()):
            yield from _delete(LOG, cursor.partition, cursor.offset)


WRITERS: dict[str, type[Writer]] = {"split write": _SplitWrite, "appends apart": _AppendsApart, "no key": _NoKey}
SEQUENCERS: dict[str, type[Sequencer]] = {"no guard": _NoGuard, "guard apart": _GuardApart}
READERS: dict[str, type[Reader]] = {
    "cursor late": _CursorLate,
    "cursor early": _CursorEarly,
    "trims ahead": _TrimsAhead,
    "trims by hand": _TrimsByHand,
}
