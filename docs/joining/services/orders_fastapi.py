"""Orders over HTTP, with FastAPI and SQLAlchemy: each order and its event commit together, or not at all.

    uvicorn orders_fastapi:app

POST /orders {"id": "o-1", "total": 990} stores an order; a consumer in the same process writes a mail for it, which
GET /mails shows. `SHOP_DB` is the address of a PostgreSQL database.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import faultproof as fp

URL = os.environ.get("SHOP_DB", "postgresql://localhost/shop")
engine = create_async_engine(URL.replace("postgresql://", "postgresql+asyncpg://"))
sessions = async_sessionmaker(engine)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(primary_key=True)
    total: Mapped[int]


class Mail(Base):
    __tablename__ = "mails"
    order: Mapped[str] = mapped_column(primary_key=True)


class OrderPlaced(msgspec.Struct):
    total: int


class Shop:
    """What lives as long as the process."""

    db: fp.ports.database.Database
    outbox: fp.Outbox


shop = Shop()


async def write_mail(event: fp.Event[OrderPlaced], tx: fp.ports.database.Transaction) -> None:
    await tx.execute('INSERT INTO mails ("order") VALUES (%s)', event.key)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with fp.connect(URL) as shop.db:
        shop.outbox = fp.Outbox(shop.db, events={"order-placed": OrderPlaced})
        await shop.outbox.install()
        worker = fp.Worker(shop.db.env, shop.outbox.sequencer(), shop.outbox.consumer("mail", write_mail))
        working = asyncio.create_task(worker.run())
        yield
        worker.stop()
        await working
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def session() -> AsyncIterator[AsyncSession]:
    async with sessions() as session, session.begin():
        yield session


class NewOrder(BaseModel):
    id: str
    total: int


@app.post("/orders", status_code=201)
async def place_order(new: NewOrder, session: Annotated[AsyncSession, Depends(session, scope="function")]) -> str:
    session.add(Order(id=new.id, total=new.total))
    try:
        # Flushes the order first; `wake` lets the worker hear of the commit at once.
        tx = fp.join(session, wake=shop.db)
        return await shop.outbox.publish(OrderPlaced(new.total), key=new.id, tx=tx)
    except IntegrityError:
        raise HTTPException(409, f"there is an order {new.id} already") from None


@app.get("/mails")
async def mails(session: Annotated[AsyncSession, Depends(session)]) -> list[str]:
    return list(await session.scalars(select(Mail.order).order_by(text("1"))))
