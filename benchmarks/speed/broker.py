"""Queues at the broker, over a connection of our own: made, filled, counted, deleted."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pika
from pika.exceptions import ChannelClosedByBroker

if TYPE_CHECKING:
    from pika.adapters.blocking_connection import BlockingChannel

EXCHANGE = "domain-events"
SETTLED_WITHIN = 10.0  # seconds, until the broker tells the number of events that there must be
PROPERTIES = pika.BasicProperties(content_type="application/json", content_encoding="utf-8", delivery_mode=2)
# Of 242 bytes as an event on the wire.
DATA: dict[str, Any] = {"user_id": 4711, "reason": "asked for it", "by": "support", "ticket": 815}


@contextmanager
def channel(url: str) -> Iterator[BlockingChannel]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield connection.channel()
    finally:
        connection.close()


def event(routing_key: str, data: dict[str, Any] = DATA) -> dict[str, Any]:
    """As our wire format has it, which all peers that may choose their own format use."""
    return {
        "routing_key": routing_key,
        "data": data,
        "domain_object_id": "4711",
        "uuid_string": str(uuid.uuid4()),
        "timestamp": time.time(),
    }


def body(routing_key: str, data: dict[str, Any] = DATA) -> bytes:
    return json.dumps(event(routing_key, data)).encode()


def declare(url: str, queue: str, queue_type: str = "classic") -> None:
    """A durable queue, empty, bound to the exchange with its own name."""
    with channel(url) as open_channel:
        open_channel.exchange_declare(EXCHANGE, "topic", durable=True)
        # Classic is what a queue is without arguments, and what all clients ask for by default.
        arguments = None if queue_type == "classic" else {"x-queue-type": queue_type}
        open_channel.queue_declare(queue, durable=True, arguments=arguments)
        open_channel.queue_bind(queue, EXCHANGE, queue)
        open_channel.queue_purge(queue)


def ready(url: str, queue: str) -> int | None:
    """How many events wait in it; None when there is no such queue."""
    with channel(url) as open_channel:
        try:
            return int(open_channel.queue_declare(queue, passive=True).method.message_count)
        except ChannelClosedByBroker as error:
            if error.reply_code == 404:
                return None
            raise


def wait_for(url: str, queue: str, count: int, *, within: float = 60.0) -> None:
    """Until just so many events wait in it. Raises TimeoutError."""
    deadline = time.monotonic() + within
    while (found := ready(url, queue)) != count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{queue} should have {count} events and has {found}")
        time.sleep(0.05)


def delete(url: str, *queues: str) -> None:
    """Queues that are not there do not matter."""
    with channel(url) as open_channel:
        for queue in queues:
            open_channel.queue_delete(queue)


def server_version(url: str) -> str:
    """As the broker tells it at login."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        # pika keeps what connection.start said on the connection inside; there is no public name for it.
        properties = connection._impl.server_properties
        return str(properties["version"])
    finally:
        connection.close()
