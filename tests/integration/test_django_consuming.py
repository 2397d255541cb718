"""Database connections of handlers in a process that consumes by itself: plain, in threads and as coroutines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from domain_events import Sender
from domain_events.lifecycle import run_before_fork
from tests.brokers import Broker, Queues
from tests.databases import Postgres
from tests.integration.test_django_supervisor import backends, kill
from tests.processes import Handle, Processes
from tests.waiting import wait_until

pytest_plugins = ["tests.django_project.fixtures"]

Start = Callable[..., Handle]


@pytest.fixture
def start(
    shop: Any,
    shop_environment: dict[str, str],
    broker: Broker,
    queues: Queues,
    unique: str,
    processes: Processes,
) -> Start:
    """Starts a consuming process with a queue, and a name for PostgreSQL, of this test alone."""
    queues.forget_after(unique + "orders")

    def call(how: str, **environment: str) -> Handle:
        process = processes.start(
            [sys.executable, "-m", "tests.django_project.consuming", how],
            {
                **shop_environment,
                "SHOP_BROKER": broker.url,
                "SHOP_PREFIX": unique,
                "SHOP_APPLICATION": unique,
                **environment,
            },
        )
        process.wait_output("declared")
        return process

    return call


@pytest.fixture
def order(broker: Broker, unique: str) -> Callable[..., None]:
    """Sends events that orders were placed."""

    def call(*numbers: int) -> None:
        Sender(broker.url).send_many([(unique + "order.placed", {"number": n}) for n in numbers], mandatory=True)

    return call


def saved(shop: Any, n: int) -> list[int]:
    """The backends of all orders in the database, once there are `n`."""
    wait_until(lambda: shop.objects.count() == n, what=f"{n} rows")
    return list(shop.objects.order_by("number").values_list("backend", flat=True))


def test_no_connection_is_open_after_the_hooks_before_a_fork(shop: Any) -> None:
    from django.db import connections

    for each in connections.all():
        each.ensure_connection()
    run_before_fork()
    assert [each.connection for each in connections.all()] == [None, None]


@pytest.mark.parametrize("persistent", ["", "1"], ids=["for each event", "persistent"])
def test_a_connection_that_was_killed_does_not_fail_the_next_event(
    persistent: str,
    start: Start,
    order: Callable[..., None],
    shop: Any,
    postgres: Postgres,
    queues: Queues,
    unique: str,
) -> None:
    start("plain", SHOP_PERSISTENT_CONNECTIONS=persistent)
    for number in (1, 2, 3):
        order(number)
        saved(shop, number)
        if number == 2:
            wait_until(lambda: persistent or not backends(postgres, unique), what="the end of connections")
            kill(postgres, unique)
    first, second, third = saved(shop, 3)
    assert (first == second) == bool(persistent)
    assert third not in (first, second)
    queues.wait_count(f"{unique}orders:dead", 0)


@pytest.mark.parametrize("persistent", ["", "1"], ids=["for each event", "persistent"])
def test_each_thread_has_a_connection_of_its_own_and_none_is_left_when_the_pool_has_ended(
    persistent: str,
    start: Start,
    order: Callable[..., None],
    shop: Any,
    postgres: Postgres,
    queues: Queues,
    unique: str,
) -> None:
    process = start("threads", SHOP_PERSISTENT_CONNECTIONS=persistent)
    order(*range(8))
    assert len(set(saved(shop, 8)[:4])) >= 2
    if persistent:
        assert len(backends(postgres, unique)) == 4
        kill(postgres, unique)
    else:
        wait_until(lambda: not backends(postgres, unique), what="the end of connections")
    order(*range(8, 12))
    saved(shop, 12)
    queues.wait_count(f"{unique}orders:dead", 0)
    process.terminate()
    process.wait_output("stopped")
    wait_until(lambda: not backends(postgres, unique), what="the end of all connections")
    assert "could not be closed" not in process.output()


@pytest.mark.parametrize("persistent", ["", "1"], ids=["for each event", "persistent"])
def test_coroutines_use_the_orm_at_the_same_time_and_leave_no_connection(
    persistent: str,
    start: Start,
    order: Callable[..., None],
    shop: Any,
    postgres: Postgres,
    queues: Queues,
    unique: str,
) -> None:
    for number in range(10):
        shop.objects.using("other").create(number=number)
    process = start("async", SHOP_PERSISTENT_CONNECTIONS=persistent)
    order(*range(30))
    assert saved(shop, 30) == [10] * 30  # each has read all rows of the other database
    queues.wait_count(f"{unique}orders:dead", 0)
    wait_until(lambda: not backends(postgres, unique), what="the end of connections")
    order(30)
    saved(shop, 31)
    process.terminate()
    process.wait_output("stopped")
    assert "Traceback" not in process.output()
