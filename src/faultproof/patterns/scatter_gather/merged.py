"""Sorted streams of many shards as one sorted stream, which says whose are missing."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

from faultproof.errors import InvalidInput
from faultproof.patterns.scatter_gather.gathered import Answer, Gathered, Incomplete, Missing
from faultproof.patterns.scatter_gather.gathering import Ask

T = TypeVar("T")

Gather = Callable[[Sequence[str], Ask[Any]], Any]
_END: Any = object()


class Merged(Generic[T]):
    """Iterate over it once. Items come in the order of `key`, of equal ones those of the shard that was named first.

    A shard that fails, or takes too long for its next item, is in `missing` from then on; items that it gave before stay
    given. Where it leaves fewer than have to answer, `Incomplete` is raised at once, and nothing more is given.
    """

    def __init__(
        self, gather: Gather, streams: Mapping[str, AsyncIterator[T]], *, key: Callable[[T], Any], least: int
    ) -> None:
        self._gather = gather
        self._streams = dict(streams)
        self._key = key
        self._least = least
        self._ranks = {name: rank for rank, name in enumerate(streams)}
        self._heads: list[tuple[Any, int, str, T]] = []
        self._last: dict[str, Any] = {}
        self.missing: dict[str, Missing] = {}
        """Whose items are missing from some point on. Empty at the end: all items of all shards have been given."""

    async def __aiter__(self) -> AsyncIterator[T]:
        await self._pull(list(self._streams))
        while self._heads:
            *_, name, item = heapq.heappop(self._heads)
            yield item
            await self._pull([name])

    async def _pull(self, names: list[str]) -> None:
        """The next item of each."""
        gathered: Gathered[T] = await self._gather(names, self._next)
        for name, answer in gathered.answers.items():
            if answer.value is not _END:
                self._push(name, answer.value)
        self.missing |= gathered.missing
        there = len(self._streams) - len(self.missing)
        if gathered.missing and there < self._least:
            name, missing = next(iter(gathered.missing.items()))
            raise Incomplete(
                f"{there} of {len(self._streams)} streams are left, {self._least} have to be: {name} {missing}",
                gathered=Gathered({name: _GONE_ON for name in self._streams if name not in self.missing}, self.missing),
            )

    def _push(self, name: str, item: T) -> None:
        key = self._key(item)
        if name in self._last and key < self._last[name]:
            raise InvalidInput(f"the stream of {name!r} is not sorted: it can only be merged in the order of its key")
        self._last[name] = key
        heapq.heappush(self._heads, (key, self._ranks[name], name, item))

    async def _next(self, name: str, number: int) -> T:
        return cast(T, await anext(self._streams[name], _END))


_GONE_ON: Answer[None] = Answer(None, 1, 0.0)
