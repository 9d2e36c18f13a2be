"""Orders over HTTP, with Django in one file: each order and its event commit together, or not at all.

    python orders_django.py install      # once
    python orders_django.py runserver    # any number
    python orders_django.py work         # any number: sequences events, and writes a mail for each order

`SHOP_DB` is the address of a PostgreSQL database.
"""

import asyncio
import json
import os
import sys
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.db import IntegrityError, connection, models, transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path

import faultproof as fp

URL = os.environ.get("SHOP_DB", "postgresql://localhost/shop")
at = urlsplit(URL)
settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY", "not secret"),
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": at.path.removeprefix("/"),
            "HOST": at.hostname or "",
            "PORT": at.port or "",
            "USER": at.username or "",
            "PASSWORD": at.password or "",
        }
    },
)
django.setup()


class Order(models.Model):
    id = models.CharField(primary_key=True, max_length=40)
    total = models.IntegerField()

    class Meta:
        app_label = "shop"
        db_table = "orders"


class Mail(models.Model):
    order = models.CharField(primary_key=True, max_length=40)

    class Meta:
        app_label = "shop"
        db_table = "mails"


EVENTS = {"order-placed": dict}


class Shop:
    """What lives as long as a web process: faultproof's side, on one background loop. Made by the first request, after
    the server has forked."""

    def __init__(self) -> None:
        self.blocking = fp.Blocking()
        self.db = self.blocking.call(fp.connect, URL)
        self.outbox = fp.Outbox(self.db, events=EVENTS)

    def close(self) -> None:
        self.blocking.call(self.db.close)
        self.blocking.close()


_shop: list[Shop] = []


def shop() -> Shop:
    if not _shop:
        _shop.append(Shop())
    return _shop[0]


def orders(request: HttpRequest) -> JsonResponse:
    new = json.loads(request.body)
    here = shop()
    try:
        with transaction.atomic():
            Order.objects.create(id=new["id"], total=new["total"])
            tx = fp.join(connection, wake=here.db)  # the workers hear of it at the commit
            event = here.outbox.publish({"total": new["total"]}, key=new["id"], type="order-placed", tx=tx)
    except IntegrityError:
        return JsonResponse({"error": f"there is an order {new['id']} already"}, status=409)
    return JsonResponse({"event": event}, status=201)


def mails(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"mails": list(Mail.objects.order_by("order").values_list("order", flat=True))})


urlpatterns = [path("orders", orders), path("mails", mails)]


def install() -> None:
    with connection.schema_editor() as editor:
        editor.create_model(Order)
        editor.create_model(Mail)
    here = shop()
    here.blocking.call(here.outbox.install)
    here.close()


async def work() -> None:
    async def write_mail(event, tx) -> None:
        await tx.execute('INSERT INTO mails ("order") VALUES (%s)', event.key)

    async with fp.connect(URL) as db:
        outbox = fp.Outbox(db, events=EVENTS)
        worker = fp.Worker(db.env, outbox.sequencer(), outbox.consumer("mail", write_mail), outbox.retention())
        await worker.run_until_signal()


if __name__ == "__main__":
    if sys.argv[1:] == ["install"]:
        install()
    elif sys.argv[1:] == ["work"]:
        asyncio.run(work())
    else:
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
