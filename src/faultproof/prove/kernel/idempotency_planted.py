"""The idempotency keys' planted bugs: what a server looks like that somebody simplified."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from faultproof.ports.script import Script, sql
from faultproof.primitives.idempotency import Along, Idempotency
from faultproof.prove.kernel.idempotency_workload import TTL_S, Janitor, Request, Server


@sql("UPDATE faultproof_idempotency SET answer = :answer WHERE scope = :scope AND key = :key")
def _overwrite(scope: str, key: str, answer: str) -> None: ...


@sql("UPDATE faultproof_idempotency SET answer = NULL WHERE until_us <= {now}")
def _expire() -> None: ...


class _WorksFirst(Server):
    async def local(self, request: Request) -> int:
        number = await self.database.transact(lambda: self.book(request))

        def work() -> Script[int]:
            yield from ()
            return number

        return await self.database.transact(
            lambda: self.keys(request).script(self.key(request), self.content(request), work())
        )


class _AnswersFirst(Server):
    async def local(self, request: Request) -> int:
        known = self.keys(request)
        has_begun = list[bool]()

        def answer() -> Script[int]:
            has_begun.append(True)
            yield from ()
            return 1

        number = await self.database.transact(lambda: known.script(self.key(request), self.content(request), answer()))
        if has_begun:
            await self.database.transact(lambda: self.book(request))
        return number


class _NoFingerprint(Server):
    def content(self, request: Request) -> str:
        return ""


class _OwnKeys(Server):
    def key(self, request: Request) -> str:
        return f"{self.process.name}/{request.key}"


class _Unfenced(Idempotency[int]):
    """Whoever comes last has answered."""

    def _answered(self, key: str, token: int, answer: str, along: Along | None = None) -> Script[str]:
        yield from _overwrite(self._scope, key, answer)
        return answer


class _NoToken(Server):
    def keys(self, request: Request) -> Idempotency[int]:
        return _Unfenced(self.database, "orders", answer=int, duplicates=request.duplicates, ttl=TTL_S)


class _AnswersExpire(Server):
    async def local(self, request: Request) -> int:
        await self.database.transact(_expire)
        return await super().local(request)

    async def remote(self, request: Request, work: Callable[[], Awaitable[int]]) -> int:
        await self.database.transact(_expire)
        return await super().remote(request, work)


class _TrimsAll(Janitor):
    keep_s = 0.0


SERVERS: dict[str, type[Server]] = {
    "works first": _WorksFirst,
    "answers first": _AnswersFirst,
    "no fingerprint": _NoFingerprint,
    "own keys": _OwnKeys,
    "no token": _NoToken,
    "answers expire": _AnswersExpire,
}
JANITORS: dict[str, type[Janitor]] = {"trims all": _TrimsAll}
