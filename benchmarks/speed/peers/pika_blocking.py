"""Bare pika, the easy way: a BlockingConnection; acks after the handler, each by itself; confirms one by one.

It cannot pipeline: in confirm mode basic_publish waits. Threads share the connection by a lock, since it is not made
for more than one.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pika

from benchmarks.speed.broker import EXCHANGE, PROPERTIES, body, channel
from benchmarks.speed.sending import from_threads, one_by_one, pace
from benchmarks.speed.task import DEFAULT_PREFETCH, Counting, Task, run

if TYPE_CHECKING:
    from pika.adapters.blocking_connection import BlockingChannel


def consume(task: Task) -> None:
    counting = Counting(task)

    def on_message(
        open_channel: BlockingChannel, method: pika.spec.Basic.Deliver, _properties: object, message: bytes
    ) -> None:
        counting(json.loads(message)["data"])
        open_channel.basic_ack(method.delivery_tag)

    with channel(task.url) as open_channel:
        open_channel.basic_qos(prefetch_count=task.prefetch or DEFAULT_PREFETCH)
        open_channel.basic_consume(task.queue, on_message)
        open_channel.start_consuming()


def publish_one(task: Task) -> None:
    with channel(task.url) as open_channel:
        open_channel.confirm_delivery()
        one_by_one(task, lambda: open_channel.basic_publish(EXCHANGE, task.queue, body(task.queue), PROPERTIES))


def publish_threads(task: Task) -> None:
    lock = threading.Lock()
    with channel(task.url) as open_channel:
        open_channel.confirm_delivery()

        def send() -> None:
            event = body(task.queue)
            with lock:
                open_channel.basic_publish(EXCHANGE, task.queue, event, PROPERTIES)

        from_threads(task, send)


def paced(task: Task) -> None:
    """For all consumers that take any JSON. Without confirms: nothing shall stand between two events."""
    with channel(task.url) as open_channel:

        def send(data: dict[str, Any]) -> None:
            open_channel.basic_publish(EXCHANGE, task.queue, body(task.queue, data), PROPERTIES)

        pace(task, send)


if __name__ == "__main__":
    run({"consume": consume, "publish_one": publish_one, "publish_threads": publish_threads, "pace": paced})
