"""A process that buys: `python -m tests.patterns.escrow.actors URL NAME CALLERS ORDERS [MOMENT]`.

Each caller reserves one of the hot item, and confirms, releases or forgets it. With a MOMENT it kills itself when so many
calls have been answered. It prints a line for each answer that a customer got. As `… URL pays` it holds all of the hot item,
says so, and pays as soon as it is told to.
"""

import asyncio
import os
import signal
import sys
from functools import partial

import faultproof as fp
from faultproof.errors import HoldExpired, InsufficientStock, TryAgain

OPTIONS = fp.EscrowOptions(ttl=1.0, lock_timeout=0.8)


async def main(url: str, name: str, callers: int, orders: int, moment: int) -> None:
    answers = 0

    async def buy(escrow: fp.Escrow, caller: int) -> None:
        nonlocal answers
        for n in range(orders):
            key = f"{name}-{caller}-{n}"
            try:
                await patiently(partial(escrow.reserve, {"hot": 1} if n % 4 else {"hot": 1, "cold": 1}, key=key))
                tell("held", key)
                if n % 3 == 0:
                    await patiently(partial(escrow.release, key))
                    tell("released", key)
                elif n % 3 == 1:
                    await patiently(partial(escrow.confirm, key))
                    tell("confirmed", key)
            except InsufficientStock:
                tell("refused", key)
            except HoldExpired:
                tell("expired", key)
            answers += 1
            if answers == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    async with fp.connect(url) as db:
        escrow = fp.Escrow(db, options=OPTIONS)
        worker = fp.Worker(db.env, escrow.expiry(every=0.05))
        running = asyncio.create_task(worker.run())
        await asyncio.gather(*(buy(escrow, caller) for caller in range(callers)))
        worker.stop()
        await running
        await escrow.close()


async def pay(url: str) -> None:
    async with fp.connect(url) as db:
        escrow = fp.Escrow(db, options=OPTIONS)
        hold = await escrow.reserve({"hot": (await escrow.item("hot")).available}, key="frozen")
        tell(hold.state)
        await asyncio.to_thread(sys.stdin.readline)
        try:
            tell((await escrow.confirm("frozen")).state)
        except HoldExpired:
            tell("expired")
        await escrow.close()


async def patiently(ask):  # type: ignore[no-untyped-def]  # whatever it gives
    while True:
        try:
            return await ask()
        except TryAgain:
            await asyncio.sleep(0.01)  # sleeps: as a client does that was told to come back


def tell(*facts: str) -> None:
    print(*facts, flush=True)


if __name__ == "__main__":
    if sys.argv[2:] == ["pays"]:
        asyncio.run(pay(sys.argv[1]))
    else:
        url, name, callers, orders, moment = [*sys.argv[1:], "0"][:5]
        asyncio.run(main(url, name, int(callers), int(orders), int(moment)))
