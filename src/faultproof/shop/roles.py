"""What each process of the shop does, from its fork to its end."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import uvicorn
from starlette.applications import Starlette

from faultproof.clock import Env
from faultproof.connect import connect
from faultproof.errors import CannotOpen, Repair
from faultproof.patterns.bulkhead import Bulkhead
from faultproof.patterns.outbox import ConsumerOptions, Outbox
from faultproof.ports.database import Database
from faultproof.primitives.worker import Loop, Worker
from faultproof.shop import planted
from faultproof.shop.api import TENANTS, Service, application
from faultproof.shop.board import Flag, State
from faultproof.shop.delays import Delays
from faultproof.shop.dependencies import Provider, counting
from faultproof.shop.effects import GROUPS, Effect, shown
from faultproof.shop.messages import Counted, Delayed, Fleet, Message, Role, Trouble
from faultproof.shop.mishandled import fulfilling, started_here
from faultproof.shop.orders import Orders, outbox
from faultproof.shop.stores import is_postgres
from faultproof.shop.watched import Watched

_SAGAS = 64
"""Orders that one orchestrator has under way."""
_SERVER_S = 30.0
"""How long a server may be away when a process begins."""


def warm(url: str) -> None:
    """Import what roles import late, once, before the forks: it is most of what a replacement would cost."""
    importlib.import_module("concurrent.futures.thread")
    if is_postgres(url):
        importlib.import_module("faultproof.engines.postgres.opening")
    Env()  # looks for OpenTelemetry
    _configured(Starlette()).load()


def run(role: Role, fleet: Fleet, flag: Flag, listener: int, lifeline: int) -> int:
    """Be one process of the shop until SIGTERM, or until whoever started it is gone. Its exit status."""
    try:
        asyncio.run(_run(role, fleet, flag, listener, lifeline))
    except Repair as error:
        tell(error)
        return 2
    return 0


def tell(error: Repair) -> None:
    """Report what only a person can repair."""
    _say(Trouble(str(error)[:2_000]))


def _say(message: Message) -> None:
    # On the pipe that the keeper reports on. Such a short line is not torn.
    os.write(sys.stdout.fileno(), msgspec.json.encode(message) + b"\n")


async def _run(role: Role, fleet: Fleet, flag: Flag, listener: int, lifeline: int) -> None:
    asyncio.get_running_loop().add_reader(lifeline, os._exit, 1)
    # At the end of a consumer's transaction its cursor has moved; with an early acknowledgement it had before.
    moves = role == "consumer" and fleet.planted != "ack-early"
    closing = State.MOVED if moves else State.COMMITTING
    database = await _connected(fleet.url)
    try:
        await _play(role, Watched(database, flag, closing=closing, repair=tell), fleet, flag, listener)
    finally:
        await database.close()


async def _play(role: Role, watched: Watched, fleet: Fleet, flag: Flag, listener: int) -> None:
    if role == "api":
        await _serve(watched, fleet, flag, listener)
    elif role == "sequencer":
        await Worker(watched.env, outbox(watched).sequencer(ttl=fleet.ttl)).run_until_signal()
    elif role == "orchestrator":
        await _orchestrate(watched, fleet, flag)
    else:
        await Worker(watched.env, *_loops(watched, fleet, flag)).run_until_signal()


async def _connected(url: str) -> Database:
    """The database, as soon as its server is there: the command has been connected, so it is only restarting."""
    deadline = time.monotonic() + _SERVER_S
    while True:
        try:
            return await connect(url)
        except CannotOpen:
            if not is_postgres(url) or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def _serve(database: Database, fleet: Fleet, flag: Flag, listener: int) -> None:
    saga = started_here(database, fleet.planted)
    service: Service = Orders(database, flag, saga)
    if fleet.planted == "dual-write":
        service = planted.DualWrite(database, flag, saga, str(Path(fleet.directory) / "dual-write.lock"))
    tenants = Bulkhead(counting(database.env, lambda what: _say(Counted(what))), TENANTS, name="tenants")
    server = uvicorn.Server(_configured(application(service, tenants)))
    # uvicorn raises the signal again after its shutdown, for the handler that was there before: let that do nothing, so
    # that the database is closed in good order.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    await server.serve(sockets=[socket.socket(fileno=listener)])
    await service.close()


async def _orchestrate(database: Database, fleet: Fleet, flag: Flag) -> None:
    delays = Delays(fleet.target if fleet.kill_every else None, lambda: _say(Delayed()))
    provider = Provider(fleet.provider, counting(database.env, lambda what: _say(Counted(what))))
    fulfilment = fulfilling(database, provider, flag, delays, fleet.planted)
    runner = fulfilment.saga.runner(concurrency=_SAGAS, ttl=fleet.ttl)
    await Worker(database.env, runner, fulfilment.stock.expiry()).run_until_signal()
    await fulfilment.close()


def _configured(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        http="h11",
        ws="none",
        loop="asyncio",
        backlog=256,
        server_header=False,
        date_header=False,
        timeout_keep_alive=120,
        timeout_graceful_shutdown=2,
    )


def _loops(database: Database, fleet: Fleet, flag: Flag) -> list[Loop]:
    # Handlers take milliseconds. What was under way in a process that died is due again after `timeout`; and `attempts`
    # must be more than a run can kill, or the shop would give an event up that nothing is wrong with.
    options = ConsumerOptions(ttl=fleet.ttl, batch=200, timeout=2.0, backoff=0.05, backoff_max=1.0, attempts=50)
    shop = outbox(database)
    make = _consumers(fleet)
    return [make(shop, database, group, effect, flag, options) for group, effect in GROUPS.items()]


def _consumers(fleet: Fleet) -> Callable[[Outbox, Database, str, Effect, Flag, ConsumerOptions], Loop]:
    if fleet.planted == "no-inbox":
        return planted.without_inbox
    if fleet.planted == "ack-early":
        return planted.AckEarly
    return lambda shop, database, group, effect, flag, options: shop.consumer(group, shown(effect, flag), options)
