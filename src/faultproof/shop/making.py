"""What a run needs before its first order: tables and stock, sockets, and who is to work in the shop."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from faultproof.errors import InvalidInput
from faultproof.patterns.outbox import Outbox
from faultproof.ports.database import Database
from faultproof.shop import sql
from faultproof.shop.baskets import Basket
from faultproof.shop.board import unseen
from faultproof.shop.delays import Delays
from faultproof.shop.dependencies import NOWHERE, Provider
from faultproof.shop.effects import GROUPS
from faultproof.shop.fulfilment import Fulfilment, fill
from faultproof.shop.messages import Fleet
from faultproof.shop.mishandled import prepare
from faultproof.shop.mistakes import Breakage
from faultproof.shop.options import ShopOptions
from faultproof.shop.orders import answers, outbox
from faultproof.shop.processes import listen


class Shop(NamedTuple):
    """What there is to look at while it runs."""

    database: Database
    outbox: Outbox


async def opened(database: Database, baskets: Sequence[Basket], planted: Breakage | None) -> Shop:
    """The tables, in a database that has none yet."""
    shop = outbox(database)
    await database.install(sql.SCHEMA)
    await shop.install()
    await answers(database).install()
    fulfilment = Fulfilment(database, Provider(NOWHERE), unseen(), Delays())
    await fulfilment.saga.install()
    await fulfilment.stock.install()
    await prepare(database, planted)
    await fill(database, baskets)
    for group in GROUPS:
        await shop.consumer(group, GROUPS[group]).open()
    return Shop(database, shop)


def listeners(options: ShopOptions) -> list[socket.socket]:
    """The provider's two, and one for each API process."""
    wanted = 2 + options.workers
    found = listen(wanted)
    if len(found) < wanted:
        for listener in found:
            listener.close()
        raise InvalidInput(
            f"only {len(found)} ports are free on 127.0.0.1 for a provider and {options.workers} API processes"
        )
    return found


def fleet(options: ShopOptions, directory: Path, listeners: Sequence[socket.socket], provider: Sequence[int]) -> Fleet:
    """What the keeper is told. `listeners`: of the API processes; `provider`: its ports."""
    return Fleet(
        url=options.store.url,
        directory=str(directory),
        listeners=[listener.fileno() for listener in listeners],
        sequencers=options.sequencers,
        consumers=options.consumers,
        orchestrators=options.orchestrators,
        provider=list(provider),
        ttl=options.ttl,
        seed=options.seed,
        kill_every=options.kill_every,
        planted=options.planted,
        target=options.target,
    )
