"""Customers of one hot item: what every contestant of the escrow's benchmarks is given to do.

`python -m benchmarks.buying URL SIDE CALLERS` is one of several processes that buy at the same time: it says "ready", reads
a line with the number of orders and the kind of customer, and answers with the seconds of each of its calls as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Literal

ITEM = "hot"
STOCK = 10**9
TOO_MANY = 10**10
"""More than there is: such a call is refused."""
Kind = Literal["reserve", "half refused", "mixed"]
KINDS: tuple[Kind, ...] = ("reserve", "half refused", "mixed")


@dataclass(frozen=True)
class Shop:
    """What a contestant does for a customer; False: refused."""

    reserve: Callable[[str, int], Awaitable[bool]]
    confirm: Callable[[str], Awaitable[bool]]
    release: Callable[[str], Awaitable[bool]]


async def bought(shop: Shop, kind: Kind, *, callers: int, each: int, tag: str) -> list[float]:
    """Let `callers` make `each` orders, one after the other; the seconds of each call.

    "mixed": of six orders two are confirmed, two are released, and two are left to expire.
    """
    took: list[float] = []

    async def timed(call: Awaitable[bool], expected: bool) -> None:
        began = time.perf_counter()
        if await call is not expected:
            raise AssertionError("an answer that nobody expects")
        took.append(time.perf_counter() - began)

    async def caller(number: int) -> None:
        for order in range(each):
            key = f"{tag}-{number}-{order}"
            refused = kind == "half refused" and order % 2 == 1
            await timed(shop.reserve(key, TOO_MANY if refused else 1), not refused)
            if kind == "mixed" and order % 3 < 2:
                await timed((shop.confirm, shop.release)[order % 3](key), True)

    await asyncio.gather(*(caller(number) for number in range(callers)))
    return took


async def _child(url: str, side: str, callers: int) -> None:
    from benchmarks.measures.escrow import by_hand_shop, our_shop

    async with AsyncExitStack() as stack:
        if side == "ours":
            shop, _ = await stack.enter_async_context(our_shop(url))
        else:
            shop, _ = await stack.enter_async_context(by_hand_shop(url, pool=int(side), create=False))
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            kind, each, tag = json.loads(line)
            print(json.dumps(await bought(shop, kind, callers=callers, each=each, tag=tag)), flush=True)


if __name__ == "__main__":
    asyncio.run(_child(sys.argv[1], sys.argv[2], int(sys.argv[3])))
