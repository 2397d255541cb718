"""The shop's receivers. SHOP_PREFIX keeps the queues of one test apart from those of another."""

import os

from django.db import connection

from domain_events import DomainEvent, Receiver
from tests.django_project.shop.models import Order

PREFIX = os.environ.get("SHOP_PREFIX", "")

receiver = Receiver()


@receiver.handles(f"{PREFIX}orders", [f"{PREFIX}order.*"])
def save_order(event: DomainEvent) -> None:
    with connection.cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        (backend,) = cursor.fetchone()
    Order.objects.create(number=event.data["number"], backend=backend)


@receiver.handles(f"{PREFIX}audit", [f"{PREFIX}order.#"])
def save_other_order(event: DomainEvent) -> None:
    Order.objects.using("other").create(number=event.data["number"])


if os.environ.get("SHOP_QUERY_AT_IMPORT"):
    Order.objects.count()

if os.environ.get("SHOP_BREAK"):
    raise RuntimeError("the shop is broken")
