"""A process of the project that consumes by itself: `python -m tests.django_project.consuming plain|threads|async`."""

import asyncio
import os
import sys
import threading
import time

import django

django.setup()

from django.db import connection, transaction  # noqa: E402

from domain_events import DomainEvent, Receiver  # noqa: E402
from tests.django_project.shop.models import Order  # noqa: E402

PREFIX = os.environ["SHOP_PREFIX"]
TOGETHER = 4

receiver = Receiver()
barrier = threading.Barrier(TOGETHER)


def backend() -> int:
    with connection.cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        (pid,) = cursor.fetchone()
    return int(pid)


@transaction.atomic
def save_order(event: DomainEvent) -> None:
    Order.objects.create(number=event.data["number"], backend=backend())


def save_order_together(event: DomainEvent) -> None:
    """All threads have an open transaction at the same time."""
    with transaction.atomic():
        Order.objects.create(number=event.data["number"], backend=backend())
        barrier.wait(30)


async def save_order_async(event: DomainEvent) -> None:
    """Reads with a server-side cursor, while other events begin and end."""
    seen = 0
    async for _ in Order.objects.using("other").order_by("number").aiterator(chunk_size=1):
        seen += 1
        await asyncio.sleep(0.001 * (event.data["number"] % 5))
    await Order.objects.acreate(number=event.data["number"], backend=seen)


match sys.argv[1]:
    case "plain":
        receiver.register(save_order, f"{PREFIX}orders", [f"{PREFIX}order.*"])
    case "threads":
        receiver.register(save_order_together, f"{PREFIX}orders", [f"{PREFIX}order.*"], threads=TOGETHER)
    case "async":
        receiver.register(save_order_async, f"{PREFIX}orders", [f"{PREFIX}order.*"], concurrency=TOGETHER)
receiver.declare()
print("declared", flush=True)
receiver.start_consuming()
print("stopped", flush=True)
time.sleep(60)  # until the test ends us
