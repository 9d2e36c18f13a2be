"""An outbox on a real file with a consumer that can be told to refuse: what the verbs are tried on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

import faultproof as fp
from tests.fakes import env_of, until, within


class Mail(msgspec.Struct):
    to: str


class Mailroom:
    """Publishes mails, and delivers them to the group `post` unless their receiver is refused."""

    def __init__(self, outbox: fp.Outbox) -> None:
        self.outbox = outbox
        self.refused: set[str] = set()
        self.delivered: list[str] = []

    async def publish(self, to: str, *, key: str | None) -> str:
        return await self.outbox.publish(Mail(to), key=key)

    async def handle(self, event: fp.Event[Mail], tx: object) -> None:
        if event.body.to in self.refused:
            raise ValueError(f"no such [red]box[/]:\n\x1b[31m{event.body.to}")
        self.delivered.append(event.body.to)

    async def settled(self, *, dead: int, parked: int = 0) -> None:
        """Wait until this many are dead and parked, and nothing else is on its way."""

        async def look() -> bool:
            lag = await self.outbox.lag()
            return [(lag.events, g.events, g.parked, g.dead) for g in lag.groups] == [(0, 0, parked, dead)]

        await until(look)


@asynccontextmanager
async def mailroom(path: Path) -> AsyncIterator[Mailroom]:
    """A mailroom at work."""
    env = env_of()
    async with fp.connect(f"sqlite:///{path}?synchronous=normal", env=env) as database:
        outbox = fp.Outbox(database, events={"mail": Mail}, options=fp.OutboxOptions(partitions=3))
        await outbox.install()
        room = Mailroom(outbox)
        worker = fp.Worker(
            env, outbox.sequencer(), outbox.consumer("post", room.handle, fp.ConsumerOptions(attempts=1))
        )
        running = asyncio.create_task(worker.run())
        try:
            yield room
        finally:
            worker.stop()
            await within(running)
            await outbox.close()
